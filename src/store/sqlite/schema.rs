//! Brings a database to the schema of this program. In: a connection that writes; out: its tables, or a refusal.
//! Knows what each migration file is called, not what it says.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::connection::{Fault, Place};
use crate::store::StoreError;

/// Every step, oldest first; a database at version n has seen the first n.
const MIGRATIONS: [&str; 5] = [
    include_str!("../../../migrations/sqlite/0001_store.sql"),
    include_str!("../../../migrations/sqlite/0002_judge_findings.sql"),
    include_str!("../../../migrations/sqlite/0003_prompts.sql"),
    include_str!("../../../migrations/sqlite/0004_score_rows.sql"),
    include_str!("../../../migrations/sqlite/0005_stage_valid.sql"),
];

const VERSION: &str = "PRAGMA user_version";

/// Marks the file as ours (`grad` in ASCII), so that another program's database is never touched.
const APPLICATION_ID: i64 = 0x6772_6164;

/// Refuses a database that another program, or a newer version, has made; changes nothing. Gives its version.
pub(super) fn version(connection: &Connection, place: &Place) -> Result<usize, Fault> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let application = number("PRAGMA application_id")?;
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    let fresh = (number(VERSION)?, application, tables) == (0, 0, 0);
    if application != APPLICATION_ID && !fresh {
        return Err(StoreError::Foreign { path: place.path().to_owned() }.into());
    }
    known_version(connection, place)
}

/// The version of a database that is ours. Refuses a newer one: another process may have upgraded it since it was opened.
pub(super) fn known_version(connection: &Connection, place: &Place) -> Result<usize, Fault> {
    let found = connection.prepare_cached(VERSION)?.query_row([], |row| row.get::<_, i64>(0))?;
    let known = MIGRATIONS.len();
    match usize::try_from(found) {
        Ok(version) if version <= known => Ok(version),
        _ => Err(StoreError::Newer { path: place.path().to_owned(), found, known }.into()),
    }
}

/// Whether a database has every step.
pub(super) fn is_current(connection: &Connection, place: &Place) -> Result<bool, Fault> {
    Ok(version(connection, place)? == MIGRATIONS.len())
}

/// Applies the missing steps in one transaction. Another process that starts at the same time waits and finds them done.
pub(super) fn migrate(connection: &mut Connection, place: &Place) -> Result<(), Fault> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = version(&transaction, place)?;
    let known = MIGRATIONS.len();
    for step in MIGRATIONS.iter().skip(found) {
        transaction.execute_batch(step)?;
    }
    if found < known {
        write_version(&transaction, known)?;
        transaction.execute_batch(&format!("PRAGMA application_id = {APPLICATION_ID}"))?;
    }
    Ok(transaction.commit()?)
}

/// Writes the least that a transaction can be: the version that stands there already, which changes nothing, and is a page to
/// be written all the same.
pub(super) fn probe(transaction: &Transaction<'_>, place: &Place) -> Result<(), Fault> {
    Ok(write_version(transaction, known_version(transaction, place)?)?)
}

fn write_version(transaction: &Transaction<'_>, version: usize) -> rusqlite::Result<()> {
    transaction.execute_batch(&format!("PRAGMA user_version = {version}"))
}
