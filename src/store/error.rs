//! Everything that can go wrong in the store: what failed, on which database, and what to do about it. Knows no
//! HTTP status.

use std::path::PathBuf;

use super::BatchId;

/// Why the store could not open, keep or find something. Cheap to clone: one failed transaction is told to each
/// batch that was in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The database's address has no known form.
    #[error("store url `{url}` is not known: use `sqlite:PATH`, `sqlite::memory:` or `none`")]
    Url {
        /// The address as given.
        url: String,
    },
    /// The durability has no known name.
    #[error("durability `{text}` is not known: use `commit`, `relaxed` or `off`")]
    Durability {
        /// The name as given.
        text: String,
    },
    /// The directory of the database file does not exist.
    #[error("cannot open database `{path}`: its directory does not exist; create it or choose another path")]
    MissingDirectory {
        /// The database file.
        path: PathBuf,
    },
    /// The file cannot be opened.
    #[error(
        "cannot open database `{path}`: {detail}; it must be a regular file in a directory that this user may write"
    )]
    CannotOpen {
        /// The database file.
        path: PathBuf,
        /// What the database library said.
        detail: String,
    },
    /// The file, or its directory, may not be written.
    #[error("database `{path}` is read-only: give this user write access to the file and its directory")]
    ReadOnly {
        /// The database file.
        path: PathBuf,
    },
    /// The file is damaged, or is no database.
    #[error(
        "database `{path}` is damaged or not a database ({detail}): restore a backup, or move the file away to start anew"
    )]
    Corrupt {
        /// The database file.
        path: PathBuf,
        /// What the database library said.
        detail: String,
    },
    /// The file is a database of another program.
    #[error("database `{path}` belongs to another program: choose another path")]
    Foreign {
        /// The database file.
        path: PathBuf,
    },
    /// The file was written by a newer version of this program.
    #[error(
        "database `{path}` has schema {found}, this program knows up to {known}: run the newer version, or use another path"
    )]
    Newer {
        /// The database file.
        path: PathBuf,
        /// The schema number in the file.
        found: i64,
        /// The newest schema number of this program.
        known: usize,
    },
    /// The path leads to another file than at the start, or to none.
    #[error(
        "database `{path}` was moved, deleted or replaced while it is open: bring the same file back to its path; or stop, remove `-wal` and `-shm` beside the path, and start anew; move it only while the server is stopped"
    )]
    Moved {
        /// Where the database file was.
        path: PathBuf,
    },
    /// Another process kept the database locked for too long.
    #[error(
        "database `{path}` stayed locked by another process for {waited_ms} ms: stop the other writer, or give each its own file"
    )]
    Locked {
        /// The database file.
        path: PathBuf,
        /// How long the writer waited, in milliseconds.
        waited_ms: u64,
    },
    /// There is no room for more.
    #[error(
        "database `{path}` cannot grow, the disk or its limit is full: free some space; what was to be written is not kept"
    )]
    Full {
        /// The database file.
        path: PathBuf,
    },
    /// The system refused to write or to read.
    #[error(
        "database `{path}` failed to {action}: {detail}; a quota or a limit on the size of files may be reached, or the disk fails: see the system's log"
    )]
    Io {
        /// The database file.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What the database library said.
        detail: String,
    },
    /// Any other failure of the database.
    #[error("database `{path}` failed to {action}: {detail}")]
    Failed {
        /// The database file.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What the database library said.
        detail: String,
    },
    /// The batch breaks a promise of its fields.
    #[error("batch {batch} cannot be stored: {reason}")]
    Batch {
        /// The batch.
        batch: BatchId,
        /// The broken promise and the value.
        reason: String,
    },
    /// A batch with this id is stored already.
    #[error("batch {batch} is stored already: take a fresh id for each batch")]
    Duplicate {
        /// The batch.
        batch: BatchId,
    },
    /// An answer under this idempotency key is stored already; nothing of the new batch was kept.
    #[error("idempotency key `{key}` has an answer already: return that answer, or use another key")]
    IdempotencyTaken {
        /// The key.
        key: String,
    },
    /// The data could not be compressed.
    #[error("cannot compress {bytes} bytes: {detail}; the limit is {limit} bytes")]
    Compress {
        /// Size of the data.
        bytes: usize,
        /// Largest size that is taken.
        limit: usize,
        /// What the compressor said.
        detail: String,
    },
    /// Stored data cannot be read back.
    #[error("stored {what} of batch {batch} is damaged: restore the database from a backup")]
    Damaged {
        /// The batch.
        batch: BatchId,
        /// Which part of it.
        what: &'static str,
    },
    /// The request was not kept, so it cannot be replayed.
    #[error(
        "the request of batch {batch} was not kept, so it cannot be replayed: set `keep_trajectories` before scoring"
    )]
    NotKept {
        /// The batch.
        batch: BatchId,
    },
    /// The text is no score id.
    #[error("`{text}` is no score id that a server gave; those are 16 hex digits, `-` and an index")]
    ScoreId {
        /// The text, shortened.
        text: String,
    },
    /// The text is no cursor.
    #[error("`{text}` is no cursor of this list: pass `next_cursor` of the page before, unchanged")]
    Cursor {
        /// The text, shortened.
        text: String,
    },
    /// The store was closed, or its writer stopped.
    #[error("the store is closed: open it again")]
    Closed,
}

impl StoreError {
    /// Whether the same may succeed later.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Locked { .. } | Self::Io { .. } | Self::Moved { .. })
    }
}

/// Why a removal did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct RemovalError {
    /// Batches that had gone until then.
    pub batches: u64,
    /// What the database refused.
    pub error: StoreError,
}

/// The start of a hostile text, short enough for a message.
pub(super) fn excerpt(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}..", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only that is worth waiting for: a quota may be raised, and a disk emptied.
    #[test]
    fn what_is_short_of_something_may_pass() {
        let (path, detail) = (PathBuf::from("g.db"), String::new());
        let (action, batch) = ("write", super::super::BatchIds::new(None, 0).next(1));
        for (error, may_pass) in [
            (StoreError::Full { path: path.clone() }, true),
            (StoreError::Locked { path: path.clone(), waited_ms: 1 }, true),
            (StoreError::Io { path: path.clone(), action, detail: detail.clone() }, true),
            (StoreError::Moved { path: path.clone() }, true),
            (StoreError::Failed { path: path.clone(), action, detail: detail.clone() }, false),
            (StoreError::Corrupt { path, detail }, false),
            (StoreError::Duplicate { batch }, false),
            (StoreError::Closed, false),
        ] {
            assert_eq!(error.may_pass(), may_pass, "{error}");
        }
    }
}
