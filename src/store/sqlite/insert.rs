//! Writes groups of entries, batches and findings, each group in one transaction. In: entries; out: one outcome for each.
//! Knows no queue and no thread.

use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::connection::{Fault, OpenedFile, Place, integer};
use super::counters::RunCounters;
use super::schema;
use crate::store::record::{Entry, Finding};
use crate::store::{Batch, Compressed, MAX_BUSY_TIMEOUT_MS, StoreError, StoredReference};

const FIND_KEY: &str = "SELECT 1 FROM idempotency WHERE key = ?1";
// Whatever has scores is answered by 200.
const INSERT_KEY: &str = "INSERT INTO idempotency (key, body_hash, status, batch) VALUES (?1, ?2, 200, ?3)";
const INSERT_BATCH: &str = "INSERT INTO batches (id, request_id, created_at_ms, run_id, step, position, rubric_name,
     rubric_hash, engine_version, judges) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING";
const INSERT_BODIES: &str = "INSERT INTO bodies (batch, request, request_bytes, response, response_bytes)
     VALUES (?1, ?2, ?3, ?4, ?5)";
const INSERT_ROWS: &str = "INSERT INTO score_rows (batch, json) VALUES (?1, ?2)";
const INSERT_FINDING: &str = "INSERT INTO judge_findings (key, value, created_at_ms) VALUES (?1, ?2, ?3)
     ON CONFLICT DO NOTHING";
const UPSERT_REFERENCE: &str =
    "INSERT INTO prompt_references (key, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2";

const LOG_PAGES: &str = "PRAGMA wal_checkpoint(NOOP)";
const COPY_LOG: &str = "PRAGMA wal_checkpoint(PASSIVE)";

/// Pages of the write-ahead log from which on it is copied into the database.
const CHECKPOINT_PAGES: i64 = 512;

/// Why a whole transaction failed.
enum Failure {
    /// It could not begin: no entry is to blame, and none would fare better alone.
    Begin(StoreError),
    /// An entry in it, or its size, may be to blame.
    Write(StoreError),
}

/// The connection that writes.
pub(super) struct TransactionWriter {
    connection: Connection,
    place: Place,
    opened_file: OpenedFile,
    busy_timeout_ms: u64,
    /// How long it waits for another process now, in milliseconds.
    wait_ms: u64,
    /// Transactions committed so far.
    pub(super) commits: u64,
    /// Whether the log could not be copied the last time.
    copy_failed: bool,
}

impl TransactionWriter {
    /// Writes over `connection`, whose schema is current.
    pub(super) fn new(connection: Connection, place: Place, busy_timeout_ms: u64) -> Self {
        let opened_file = OpenedFile::of(&place);
        Self {
            connection,
            place,
            opened_file,
            busy_timeout_ms,
            wait_ms: busy_timeout_ms,
            commits: 0,
            copy_failed: false,
        }
    }

    /// How long it was set up to wait for another process.
    pub(super) fn set_up_to_wait(&self) -> Duration {
        Duration::from_millis(self.busy_timeout_ms.min(MAX_BUSY_TIMEOUT_MS))
    }

    /// From here on waits for another process no longer than `limit`, nor than it was set up to.
    pub(super) fn wait_at_most(&mut self, limit: Duration) {
        let wait = limit.min(self.set_up_to_wait());
        // Where it cannot be set it stays as it was.
        if self.connection.busy_timeout(wait).is_ok() {
            self.wait_ms = u64::try_from(wait.as_millis()).unwrap_or(self.busy_timeout_ms);
        }
    }

    /// Whether the file was not where it belongs when it was to be written to last.
    pub(super) fn is_moved(&self) -> bool {
        self.opened_file.moved
    }

    /// Writes the entries in one transaction. When that fails, each is tried alone, so that only those that cannot be kept
    /// get an error.
    pub(super) fn write(&mut self, entries: &[&Entry]) -> Vec<Result<(), StoreError>> {
        match self.transaction(entries) {
            Ok(outcomes) => outcomes,
            Err(Failure::Write(_)) if entries.len() > 1 => entries.iter().map(|entry| self.alone(entry)).collect(),
            Err(Failure::Begin(error) | Failure::Write(error)) => vec![Err(error); entries.len()],
        }
    }

    /// Copies the log into the database when it has grown long. Nobody has to wait for that: what it copies is on the disk.
    pub(super) fn copy_log_if_long(&mut self) {
        if self.opened_file.moved {
            return;
        }
        let copied = self.copy_long_log();
        let failed = copied.is_err();
        if let Err(error) = copied
            && !self.copy_failed
        {
            let error = self.explain("copy its log", error.into());
            tracing::warn!(%error, "the store's log grows until it can be copied into the database");
        }
        self.copy_failed = failed;
    }

    fn copy_long_log(&self) -> rusqlite::Result<()> {
        let pages: i64 = self.connection.prepare_cached(LOG_PAGES)?.query_row([], |row| row.get(1))?;
        if pages < CHECKPOINT_PAGES {
            return Ok(());
        }
        self.connection.prepare_cached(COPY_LOG)?.query_row([], |_| Ok(()))
    }

    /// Copies the log into the database and empties it, unless it may be another database's.
    pub(super) fn checkpoint(&self) -> Result<(), StoreError> {
        if self.opened_file.is_replaced(&self.place) {
            return Err(StoreError::Moved { path: self.place.path().to_owned() });
        }
        let done = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        done.map_err(|error| self.explain("copy its log", error.into()))
    }

    fn alone(&mut self, entry: &Entry) -> Result<(), StoreError> {
        match self.transaction(&[entry]) {
            Ok(outcomes) => outcomes.into_iter().collect(),
            Err(Failure::Begin(error) | Failure::Write(error)) => Err(error),
        }
    }

    /// One transaction: all or nothing, except batches that are refused before they write anything.
    fn transaction(&mut self, entries: &[&Entry]) -> Result<Vec<Result<(), StoreError>>, Failure> {
        let Self { connection, place, opened_file, wait_ms, commits, .. } = self;
        let explain = |fault: Fault| place.explain("write", *wait_ms, fault);
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|error| Failure::Begin(explain(error.into())))?;
        opened_file.check(place).map_err(Failure::Begin)?;
        schema::known_version(&transaction, place).map_err(|fault| Failure::Begin(explain(fault)))?;
        let outcomes = insert_all(&transaction, place, entries).map_err(|fault| Failure::Write(explain(fault)))?;
        transaction.commit().map_err(|error| Failure::Write(explain(error.into())))?;
        *commits += 1;
        Ok(outcomes)
    }

    fn explain(&self, action: &'static str, fault: Fault) -> StoreError {
        self.place.explain(action, self.wait_ms, fault)
    }
}

fn insert_all(
    transaction: &Transaction<'_>,
    place: &Place,
    entries: &[&Entry],
) -> Result<Vec<Result<(), StoreError>>, Fault> {
    let mut counters = RunCounters::default();
    let mut outcomes = Vec::with_capacity(entries.len());
    for entry in entries {
        let inserted = match entry {
            Entry::Batch(batch) => insert(transaction, batch).map(|()| counters.add(batch)),
            Entry::Finding(finding) => insert_finding(transaction, finding),
            Entry::References(references) => insert_references(transaction, references),
            Entry::Probe => schema::probe(transaction, place),
        };
        match inserted {
            Ok(()) => outcomes.push(Ok(())),
            Err(Fault::Store(refusal)) => outcomes.push(Err(refusal)),
            Err(fault) => return Err(fault),
        }
    }
    counters.write(transaction)?;
    Ok(outcomes)
}

/// The first finding under a key stays: equal questions have equal answers, or nobody knows which is the right one.
fn insert_finding(transaction: &Transaction<'_>, finding: &Finding) -> Result<(), Fault> {
    let values = params![finding.key, finding.value, finding.created_at_ms];
    transaction.prepare_cached(INSERT_FINDING)?.execute(values)?;
    Ok(())
}

/// A later reference of the same prompt replaces an earlier one.
fn insert_references(transaction: &Transaction<'_>, references: &[StoredReference]) -> Result<(), Fault> {
    let mut upsert = transaction.prepare_cached(UPSERT_REFERENCE)?;
    for reference in references {
        upsert.execute(params![reference.key, reference.value])?;
    }
    Ok(())
}

/// Writes one batch. Refusals come before the first write, so that the transaction can go on without it.
fn insert(transaction: &Transaction<'_>, batch: &Batch) -> Result<(), Fault> {
    let id = batch.id.to_column();
    if let Some(idempotency) = &batch.idempotency
        && transaction.prepare_cached(FIND_KEY)?.exists([&idempotency.key])?
    {
        return Err(StoreError::IdempotencyTaken { key: idempotency.key.clone() }.into());
    }
    let inserted = transaction.prepare_cached(INSERT_BATCH)?.execute(params![
        id,
        batch.request_id,
        batch.created_at_ms,
        batch.run_id,
        batch.step,
        batch.position,
        batch.rubric_name,
        batch.rubric_hash,
        batch.engine_version,
        batch.judges,
    ])?;
    if inserted == 0 {
        return Err(StoreError::Duplicate { batch: batch.id }.into());
    }
    if let Some(idempotency) = &batch.idempotency {
        let values = params![idempotency.key, idempotency.body_hash, id];
        transaction.prepare_cached(INSERT_KEY)?.execute(values)?;
    }
    let request = batch.request.as_ref();
    transaction.prepare_cached(INSERT_BODIES)?.execute(params![
        id,
        request.map(Compressed::bytes),
        request.map(|request| integer(request.original_bytes())),
        batch.response.bytes(),
        integer(batch.response.original_bytes()),
    ])?;
    transaction.prepare_cached(INSERT_ROWS)?.execute(params![id, batch.scores.json()])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{BatchIds, Durability};

    fn transactions(place: &Place) -> TransactionWriter {
        let mut connection = place.writer(1000).unwrap();
        Place::configure(&connection, Durability::Commit).unwrap();
        schema::migrate(&mut connection, place).unwrap();
        TransactionWriter::new(connection, place.clone(), 1000)
    }

    /// A batch whose response takes about `bytes` in the database: noise does not pack.
    fn batch(ids: &BatchIds, bytes: usize) -> Entry {
        let noise = (0..bytes).scan(1_u32, |state, _| {
            *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes().first().copied()
        });
        Entry::Batch(Box::new(Batch {
            run_id: Some("exp".to_owned()),
            response: Compressed::new(&noise.collect::<Vec<u8>>()).unwrap(),
            ..Batch::empty(ids.next(1))
        }))
    }

    fn finding(bytes: usize) -> Entry {
        Entry::Finding(Finding { key: [1; 32], value: vec![7; bytes], created_at_ms: 1 })
    }

    #[test]
    fn a_full_disk_fails_only_the_entries_that_do_not_fit() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::File(directory.path().join("gradus.db"));
        let mut transactions = transactions(&place);
        let pages: i64 = transactions.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        transactions.connection.execute_batch(&format!("PRAGMA max_page_count = {}", pages + 20)).unwrap();
        let ids = BatchIds::new(None, 0);
        let entries = [batch(&ids, 100), batch(&ids, 1 << 20), batch(&ids, 100), finding(1 << 20), finding(100)];
        let full = Err(StoreError::Full { path: place.path().to_owned() });
        let outcomes = transactions.write(&entries.iter().collect::<Vec<_>>());
        assert_eq!(outcomes, [Ok(()), full.clone(), Ok(()), full.clone(), Ok(())]);
        assert_eq!(transactions.commits, 3);
        assert_eq!(transactions.write(&[&batch(&ids, 1 << 20)]), [full]);
        transactions.connection.execute_batch("PRAGMA max_page_count = 100000").unwrap();
        assert_eq!(transactions.write(&[&batch(&ids, 1 << 20)]), [Ok(())], "it goes on when there is room again");
    }

    #[test]
    fn a_database_that_a_newer_program_upgraded_meanwhile_is_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::File(directory.path().join("gradus.db"));
        let mut transactions = transactions(&place);
        let version = || -> i64 {
            let other = Connection::open(place.path()).unwrap();
            other.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
        };
        let known = version();
        assert_eq!(transactions.write(&[&Entry::Probe]), [Ok(())]);
        assert_eq!(version(), known);
        let newer = known + 1;
        Connection::open(place.path()).unwrap().execute_batch(&format!("PRAGMA user_version = {newer}")).unwrap();
        let ids = BatchIds::new(None, 0);
        for entry in [Entry::Probe, batch(&ids, 100), finding(100)] {
            let outcome = transactions.write(&[&entry]).remove(0);
            assert!(matches!(outcome, Err(StoreError::Newer { found, .. }) if found == newer), "{outcome:?}");
        }
        assert_eq!(version(), newer);
    }

    #[test]
    fn migrating_twice_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::File(directory.path().join("gradus.db"));
        let mut transactions = transactions(&place);
        let described = |connection: &Connection| -> Vec<(String, String, Option<String>)> {
            let mut statement = connection.prepare("SELECT type, name, sql FROM sqlite_schema ORDER BY name").unwrap();
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
            rows.collect::<Result<_, _>>().unwrap()
        };
        let before = described(&transactions.connection);
        assert!(before.len() > 10 && schema::is_current(&transactions.connection, &place).unwrap());
        assert_eq!(transactions.write(&[&finding(100)]), [Ok(())]);
        schema::migrate(&mut transactions.connection, &place).unwrap();
        assert_eq!(described(&transactions.connection), before);
        assert!(schema::is_current(&transactions.connection, &place).unwrap());
        let findings = "SELECT count(*) FROM judge_findings";
        assert_eq!(transactions.connection.query_row(findings, [], |row| row.get::<_, i64>(0)).unwrap(), 1);
    }
}
