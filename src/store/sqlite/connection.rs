//! Opening the database file and saying what went wrong with it. In: a place and how it is used; out: a connection
//! with its settings, or a named error. Knows no table.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::store::{Durability, MAX_BUSY_TIMEOUT_MS, StoreError};

/// Bytes of a database page: large bodies take few pages, small counters rewrite little.
const PAGE_BYTES: u32 = 16384;

/// Size the write-ahead log shrinks to after a burst, in bytes.
const LOG_BYTES: u32 = 64 << 20;

/// Room for the statements of one connection: all of them.
const STATEMENTS: usize = 32;

/// Where the database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// In a file.
    File(PathBuf),
    /// In a file that nobody writes to, where this process may not even put a log beside it.
    Still(PathBuf),
    /// In this process's memory, under a name that its connections share.
    Memory(PathBuf),
}

/// A failure inside a query: the database's own, which still needs its path, or one already named.
#[derive(Debug)]
pub(super) enum Fault {
    /// The database library failed.
    Sqlite(rusqlite::Error),
    /// Anything else.
    Store(StoreError),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Place {
    /// A fresh database in memory.
    pub(super) fn memory() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        Self::Memory(PathBuf::from(format!("file:/gradus-{}?vfs=memdb", COUNT.fetch_add(1, Ordering::Relaxed))))
    }

    /// The file, or the name in memory.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Still(path) | Self::Memory(path) => path,
        }
    }

    /// The one connection that writes; creates the file where it is missing.
    pub(super) fn writer(&self, busy_timeout_ms: u64) -> Result<Connection, StoreError> {
        if let Self::File(path) = self {
            let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
            if directory.is_some_and(|directory| !directory.exists()) {
                return Err(StoreError::MissingDirectory { path: path.clone() });
            }
            make_private(path);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let explain = |error: rusqlite::Error| self.explain("open", busy_timeout_ms, error.into());
        let connection = self.connect(flags, busy_timeout_ms).map_err(explain)?;
        if connection.is_readonly("main").map_err(explain)? {
            return Err(StoreError::ReadOnly { path: self.path().to_owned() });
        }
        Ok(connection)
    }

    /// Sets how the writer writes, once the file is known to be ours.
    pub(super) fn configure(connection: &Connection, durability: Durability) -> Result<(), rusqlite::Error> {
        // FULL syncs the log at every commit; NORMAL only before the log is copied into the database.
        let synchronous = if durability == Durability::Commit { "FULL" } else { "NORMAL" };
        connection.execute_batch(&format!(
            "PRAGMA page_size = {PAGE_BYTES}; PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous};
             PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = {LOG_BYTES};
             PRAGMA foreign_keys = OFF; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -4096;"
        ))
    }

    /// The same file, if it can be taken as it lies there: without a log that has more.
    pub(super) fn still(&self) -> Option<Self> {
        let Self::File(path) = self else { return None };
        let whole = std::fs::metadata(log_of(path)).map_or(true, |log| log.len() == 0);
        whole.then(|| Self::Still(path.clone()))
    }

    /// Bytes of the file and its log; 0 in memory.
    pub(super) fn file_bytes(&self) -> u64 {
        let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        match self {
            Self::File(path) | Self::Still(path) => bytes(path) + bytes(&log_of(path)),
            Self::Memory(_) => 0,
        }
    }

    /// A connection that can only read. Where a writer is open, the file and its log exist.
    pub(super) fn reader(&self, busy_timeout_ms: u64) -> Result<Connection, rusqlite::Error> {
        self.connect(OpenFlags::SQLITE_OPEN_READ_ONLY, busy_timeout_ms)
    }

    fn connect(&self, flags: OpenFlags, busy_timeout_ms: u64) -> Result<Connection, rusqlite::Error> {
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = match self {
            Self::File(path) => Connection::open_with_flags(path, flags)?,
            Self::Still(path) => Connection::open_with_flags(still_uri(path), flags | OpenFlags::SQLITE_OPEN_URI)?,
            Self::Memory(name) => Connection::open_with_flags(name, flags | OpenFlags::SQLITE_OPEN_URI)?,
        };
        connection.busy_timeout(Duration::from_millis(busy_timeout_ms.min(MAX_BUSY_TIMEOUT_MS)))?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(connection)
    }

    /// Names a failure, with the path and the fix.
    pub(super) fn explain(&self, action: &'static str, waited_ms: u64, fault: Fault) -> StoreError {
        let error = match fault {
            Fault::Store(error) => return error,
            Fault::Sqlite(error) => error,
        };
        let path = self.path().to_owned();
        let detail = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Locked { path, waited_ms },
            Some(ErrorCode::DiskFull) => StoreError::Full { path },
            Some(ErrorCode::SystemIoFailure) => StoreError::Io { path, action, detail },
            Some(ErrorCode::ReadOnly) => StoreError::ReadOnly { path },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Corrupt { path, detail },
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => StoreError::CannotOpen { path, detail },
            _ => StoreError::Failed { path, action, detail },
        }
    }
}

/// The file that a place led to when it was opened. A path that leads elsewhere since is one whose scores nobody finds: they go
/// to a file that was moved, or has no name any more.
pub(super) struct OpenedFile {
    /// Device and inode; `None` where there is no file, or it cannot be told.
    opened: Option<(u64, u64)>,
    /// Whether the path led elsewhere when it was looked at last.
    pub(super) moved: bool,
}

/// Where the path of a database leads.
enum Found {
    /// To the file that is open, as far as can be told.
    Same,
    /// To nothing.
    Nothing,
    /// To another file.
    Another,
}

impl OpenedFile {
    /// Of a place that was opened just now.
    pub(super) fn of(place: &Place) -> Self {
        let Place::File(path) = place else { return Self { opened: None, moved: false } };
        Self { opened: std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino())), moved: false }
    }

    /// Refuses where the path leads to another file, or to none. Logs when that begins and when it ends.
    pub(super) fn check(&mut self, place: &Place) -> Result<(), StoreError> {
        let holds = matches!(self.look(place), Found::Same);
        let was_moved = std::mem::replace(&mut self.moved, !holds);
        let path = place.path().to_owned();
        if holds {
            if was_moved {
                tracing::info!(path = %path.display(), "the store's file is back at its path: scores are stored again");
            }
            return Ok(());
        }
        let error = StoreError::Moved { path };
        if !was_moved {
            tracing::error!(%error, "no score is stored until this is mended");
        }
        Err(error)
    }

    /// Whether another file has the name by now, and with it the log: what is beside the name is that file's.
    pub(super) fn is_replaced(&self, place: &Place) -> bool {
        matches!(self.look(place), Found::Another)
    }

    fn look(&self, place: &Place) -> Found {
        let Some(opened) = self.opened else { return Found::Same };
        match std::fs::metadata(place.path()) {
            Ok(file) if (file.dev(), file.ino()) == opened => Found::Same,
            Ok(_) => Found::Another,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Found::Nothing,
            // A path that cannot be looked at just now says nothing of the file that is open.
            Err(_) => Found::Same,
        }
    }
}

/// The log beside a database.
fn log_of(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    PathBuf::from(log)
}

/// Makes the file of a database where there is none, for its owner alone: it holds whole trajectories. The log and its index
/// take over its mode. Where it cannot be made, the database library says why.
fn make_private(path: &Path) {
    // What the library takes for an address is no file's name.
    let is_address = path.as_os_str().as_bytes().starts_with(b"file:");
    // Never of a file that is there: closing it would end the locks that this process has on it.
    if !is_address && !path.exists() {
        let _ = File::options().write(true).create(true).truncate(false).mode(0o600).open(path);
    }
}

/// A path as an address that says that nobody writes to the file. Bytes that would end the path are escaped.
fn still_uri(path: &Path) -> PathBuf {
    let mut uri = OsString::from("file:");
    let mut rest = path.as_os_str().as_bytes();
    // After two slashes comes a host, which is none; a relative path has neither.
    if path.is_absolute() {
        uri.push("//");
    }
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'%' | b'?' | b'#')) {
        let (before, from) = rest.split_at(at);
        uri.push(OsStr::from_bytes(before));
        uri.push(from.first().map_or_else(String::new, |byte| format!("%{byte:02x}")));
        rest = from.get(1..).unwrap_or_default();
    }
    uri.push(OsStr::from_bytes(rest));
    uri.push("?immutable=1");
    uri.into()
}

/// A length as a column holds it.
pub(super) fn integer(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn setting<T: rusqlite::types::FromSql>(connection: &Connection, name: &str) -> T {
        connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0)).unwrap()
    }

    /// What a commit promises rests on these: FULL is 2, NORMAL is 1.
    #[test]
    fn a_commit_syncs_and_a_relaxed_one_does_not() {
        let directory = tempfile::tempdir().unwrap();
        for (durability, synchronous) in [(Durability::Commit, 2), (Durability::Relaxed, 1)] {
            let place = Place::File(directory.path().join(format!("{durability}.db")));
            let connection = place.writer(1000).unwrap();
            Place::configure(&connection, durability).unwrap();
            assert_eq!(setting::<i64>(&connection, "synchronous"), synchronous, "{durability}");
            assert_eq!(setting::<String>(&connection, "journal_mode"), "wal");
        }
    }

    #[test]
    fn a_new_file_is_for_its_owner_alone_and_an_old_one_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        File::create(path("old.db")).unwrap().set_permissions(Permissions::from_mode(0o644)).unwrap();
        symlink("elsewhere.db", path("link.db")).unwrap();
        for (name, file, mode) in
            [("new.db", "new.db", 0o600), ("old.db", "old.db", 0o644), ("link.db", "elsewhere.db", 0o600)]
        {
            let connection = Place::File(path(name)).writer(1000).unwrap();
            Place::configure(&connection, Durability::Commit).unwrap();
            connection.execute_batch("CREATE TABLE t (n INTEGER)").unwrap();
            for file in ["", "-wal", "-shm"].map(|end| format!("{file}{end}")) {
                let found = std::fs::metadata(path(&file)).unwrap().permissions().mode();
                assert_eq!(found & 0o777, mode, "{file}");
            }
        }
    }

    #[test]
    fn a_file_that_lies_still_is_read_whatever_it_is_called() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a?b#c%41 d.db");
        let place = Place::File(path.clone());
        let connection = place.writer(1000).unwrap();
        Place::configure(&connection, Durability::Commit).unwrap();
        connection.execute_batch("CREATE TABLE t (n INTEGER); INSERT INTO t VALUES (7)").unwrap();
        assert_eq!(place.still(), None, "its log has more");
        connection.close().unwrap();
        let connection = place.still().unwrap().reader(1000).unwrap();
        assert_eq!(connection.query_row("SELECT n FROM t", [], |row| row.get::<_, i64>(0)).unwrap(), 7);
        assert!(connection.execute_batch("INSERT INTO t VALUES (8)").is_err());
        let beside = std::fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(beside, 1, "nothing is put beside it");
    }
}
