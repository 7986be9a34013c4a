//! Takes a run out of the database, a few batches in each transaction, so that whoever writes meanwhile waits for one of them
//! only. In: a run; out: how much went. What runs share stays: rubrics, references, what judges said.

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::connection::Fault;
use crate::store::Removed;

/// Batches of one transaction.
const BATCHES: usize = 64;

// A key is looked up by its batch here only: the index that this needs is made for the query.
const BATCHES_AND_KEYS: &str = "SELECT b.id, i.key FROM batches b LEFT JOIN idempotency i ON i.batch = b.id
     WHERE b.run_id = ?1";
const DELETE_KEY: &str = "DELETE FROM idempotency WHERE key = ?1";
const DELETE_BATCH: [&str; 3] = [
    "DELETE FROM bodies WHERE batch = ?1",
    "DELETE FROM score_rows WHERE batch = ?1",
    "DELETE FROM batches WHERE id = ?1",
];
const ANY_BATCH: &str = "SELECT 1 FROM batches WHERE run_id = ?1";
/// What is counted of a run, the row that lists it last.
const DELETE_COUNTS: [&str; 5] = [
    "DELETE FROM run_step_stages WHERE run_id = ?1",
    "DELETE FROM run_steps WHERE run_id = ?1",
    "DELETE FROM run_stages WHERE run_id = ?1",
    "DELETE FROM run_rubrics WHERE run_id = ?1",
    "DELETE FROM runs WHERE run_id = ?1",
];

/// Removes a run, and counts in `removed` what went, also where it fails; gives whether there was one. The run is listed until its last batch has gone: a removal that was cut off
/// goes on with the next one. A batch that a server adds meanwhile goes, too.
pub(super) fn remove(connection: &mut Connection, run_id: &str, removed: &mut Removed) -> Result<bool, Fault> {
    loop {
        let batches = batches(connection, run_id)?;
        for some in batches.chunks(BATCHES) {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for (batch, key) in some {
                if let Some(key) = key {
                    transaction.prepare_cached(DELETE_KEY)?.execute([key])?;
                }
                for delete in DELETE_BATCH {
                    transaction.prepare_cached(delete)?.execute([batch])?;
                }
            }
            transaction.commit()?;
            removed.batches += some.len() as u64;
        }
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if transaction.prepare_cached(ANY_BATCH)?.exists([run_id])? {
            continue;
        }
        removed.scores = scores(&transaction, run_id)?;
        let mut rows = 0;
        for delete in DELETE_COUNTS {
            rows += transaction.prepare_cached(delete)?.execute([run_id])?;
        }
        transaction.commit()?;
        return Ok(rows > 0 || removed.batches > 0);
    }
}

/// The batches of a run, each with the key under which its answer is kept, if any.
fn batches(connection: &Connection, run_id: &str) -> Result<Vec<(i64, Option<String>)>, Fault> {
    let mut statement = connection.prepare(BATCHES_AND_KEYS)?;
    let rows = statement.query_map([run_id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// How many scores the run counted, whenever its batches went.
fn scores(transaction: &Transaction<'_>, run_id: &str) -> Result<u64, Fault> {
    let sql = "SELECT coalesce(sum(n), 0) FROM runs WHERE run_id = ?1";
    let counted: i64 = transaction.query_row(sql, params![run_id], |row| row.get(0))?;
    Ok(counted.cast_unsigned())
}
