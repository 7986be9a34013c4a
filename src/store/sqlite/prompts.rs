//! References by prompt. In: keys and values; out: rows. Knows no key's meaning.

use rusqlite::{Connection, Transaction, params};

use super::connection::Fault;
use crate::store::StoredReference;

const UPSERT_REFERENCE: &str =
    "INSERT INTO prompt_references (key, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2";
const REFERENCES: &str = "SELECT key, value FROM prompt_references";

/// Writes references; a later one of the same prompt replaces an earlier one.
pub(super) fn insert_references(transaction: &Transaction<'_>, references: &[StoredReference]) -> Result<(), Fault> {
    let mut upsert = transaction.prepare_cached(UPSERT_REFERENCE)?;
    for reference in references {
        upsert.execute(params![reference.key, reference.value])?;
    }
    Ok(())
}

/// All references.
pub(super) fn references(connection: &Connection) -> Result<Vec<StoredReference>, Fault> {
    let mut statement = connection.prepare(REFERENCES)?;
    let rows = statement.query_map([], |row| Ok(StoredReference { key: row.get(0)?, value: row.get(1)? }))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
