//! Lists of what is stored: the scores of a run, the runs, and a run's mastery. In: filters and the place where the last
//! page ended; out: a page. A page goes on after a key, never by counting rows, so writing does not shift it. Knows no
//! body.

use rusqlite::{Connection, Row, params};

use super::connection::{Fault, integer};
use super::reader::stored_rows;
use crate::store::read::{MAX_PAGE, MAX_WINDOW, RunCursor};
use crate::store::{
    BatchId, Filter, Mastery, Page, RunDetail, RunSummary, ScoreId, StageMastery, StoreError, StoredRow,
};

/// Rows that one page looks at: bounds the time of a filter that passes over nearly all of a long run.
const ROWS_PER_PAGE: usize = 100_000;

/// What looking at a batch costs beside its rows, in rows.
const BATCH_ROWS: usize = 50;

// A left join: rows that were lost are damage to their batch, which would otherwise seem to have none.
const RUN_BATCHES: &str = "SELECT b.id, b.step, b.created_at_ms, r.json FROM batches b
     LEFT JOIN score_rows r ON r.batch = b.id WHERE b.run_id = ?1 AND b.id >= ?2
     AND (?3 IS NULL OR b.step >= ?3) AND (?4 IS NULL OR b.step <= ?4) ORDER BY b.id";
const RUN_COLUMNS: &str = "run_id, n, valid, reward_sum, min_reward, max_reward, first_created_at_ms,
     last_created_at_ms, last_step FROM runs";
const RUN_RUBRICS: &str = "SELECT rubric_hash FROM run_rubrics WHERE run_id = ?1 ORDER BY rubric_hash";
const STAGES: &str =
    "SELECT stage, valid, reached, passed, score_sum FROM run_stages WHERE run_id = ?1 ORDER BY place, stage";
const STEPS: &str = "SELECT count(*) FROM run_steps WHERE run_id = ?1";
const RECENT_STEPS: &str = "SELECT count(*), coalesce(sum(valid), 0), min(step) FROM
     (SELECT step, valid FROM run_steps WHERE run_id = ?1 ORDER BY step DESC LIMIT ?2)";
const RECENT_STAGES: &str = "SELECT stage, sum(valid), sum(reached), sum(passed), sum(score_sum) FROM run_step_stages
     WHERE run_id = ?1 AND step >= ?2 GROUP BY stage ORDER BY min(place), stage";

/// Scores of a run in the order of their ids. A page ends before a batch that is damaged: only one that would begin with it
/// fails, and the place after it (its id, and the largest index) leads past it.
pub(super) fn run_scores(
    connection: &Connection,
    run_id: &str,
    filter: &Filter,
    after: Option<ScoreId>,
    limit: usize,
) -> Result<Page<StoredRow>, Fault> {
    let limit = limit.clamp(1, MAX_PAGE);
    let first = after.map_or(0, |after| after.batch.to_column());
    let mut items = Vec::new();
    let mut batches = connection.prepare_cached(RUN_BATCHES)?;
    let mut batches = batches.query(params![run_id, first, filter.step_from, filter.step_to])?;
    let (mut visited, mut passed) = (0, None);
    while let Some(row) = batches.next()? {
        let batch = BatchId::from_column(row.get(0)?);
        let end = ScoreId { batch, index: u32::MAX };
        if after == Some(end) {
            continue;
        }
        let told = after.filter(|after| after.batch == batch).map_or(0, |after| after.index as usize + 1);
        let rows = match (stored_rows(row.get_ref(3)?.as_str().ok(), batch, row.get(1)?, row.get(2)?), passed) {
            (Err(StoreError::Damaged { .. }), Some(passed)) => {
                return Ok(Page { items, next_cursor: Some(ScoreId::to_string(&passed)) });
            }
            (rows, _) => rows?,
        };
        passed = Some(end);
        visited += BATCH_ROWS + rows.len();
        let wanted = rows.into_iter().skip(told).filter(|row| filter.wants(&row.score));
        items.extend(wanted.take(limit + 1 - items.len()));
        if items.len() > limit {
            items.truncate(limit);
            let next_cursor = items.last().map(|last: &StoredRow| last.id.to_string());
            return Ok(Page { items, next_cursor });
        }
        if visited >= ROWS_PER_PAGE {
            return Ok(Page { items, next_cursor: Some(end.to_string()) });
        }
    }
    Ok(Page { items, next_cursor: None })
}

/// Runs, the latest started first.
pub(super) fn runs(
    connection: &Connection,
    after: Option<&RunCursor>,
    limit: usize,
) -> Result<Page<RunSummary>, Fault> {
    let limit = limit.clamp(1, MAX_PAGE);
    let (time, run_id) = after.map_or((i64::MAX, ""), |after| (after.first_created_at_ms, &after.run_id));
    let sql = format!(
        "SELECT {RUN_COLUMNS} WHERE (first_created_at_ms, run_id) < (?1, ?2)
         ORDER BY first_created_at_ms DESC, run_id DESC LIMIT ?3"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![time, run_id, integer(limit + 1)])?;
    let mut items = Vec::new();
    while let Some(row) = rows.next()? {
        if items.len() == limit {
            let last = items.last().map(|last: &RunSummary| RunCursor {
                first_created_at_ms: last.first_created_at_ms,
                run_id: last.run_id.clone(),
            });
            return Ok(Page { items, next_cursor: last.map(|last| last.encode()) });
        }
        items.push(summary(connection, row)?);
    }
    Ok(Page { items, next_cursor: None })
}

/// A run and its mastery, all of one moment.
pub(super) fn run(connection: &Connection, run_id: &str, window: u32) -> Result<Option<RunDetail>, Fault> {
    let moment = connection.unchecked_transaction()?;
    let sql = format!("SELECT {RUN_COLUMNS} WHERE run_id = ?1");
    let mut statement = moment.prepare_cached(&sql)?;
    let mut rows = statement.query([run_id])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let summary = summary(&moment, row)?;
    let steps = moment.prepare_cached(STEPS)?.query_row([run_id], |row| count(row, 0))?;
    let valid = summary.valid;
    let stages = stages(&moment, STAGES, params![run_id])?;
    let overall = Mastery { steps, valid, stages };
    let recent = recent(&moment, run_id, window)?;
    Ok(Some(RunDetail { summary, recent, overall }))
}

/// Mastery over the last steps that have data.
fn recent(connection: &Connection, run_id: &str, window: u32) -> Result<Mastery, Fault> {
    let mut statement = connection.prepare_cached(RECENT_STEPS)?;
    let (steps, valid, first): (u64, u64, Option<i64>) = statement
        .query_row(params![run_id, window.clamp(1, MAX_WINDOW)], |row| {
            Ok((count(row, 0)?, count(row, 1)?, row.get(2)?))
        })?;
    match first {
        Some(first) => {
            let stages = stages(connection, RECENT_STAGES, params![run_id, first])?;
            Ok(Mastery { steps, valid, stages })
        }
        None => Ok(Mastery::default()),
    }
}

fn stages(connection: &Connection, sql: &str, values: &[&dyn rusqlite::ToSql]) -> Result<Vec<StageMastery>, Fault> {
    let mut statement = connection.prepare_cached(sql)?;
    let stages = statement.query_map(values, |row| {
        let (valid, reached, passed) = (count(row, 1)?, count(row, 2)?, count(row, 3)?);
        let score_sum: f64 = row.get(4)?;
        Ok(StageMastery {
            stage: row.get(0)?,
            reached,
            passed,
            pass_rate: (valid > 0).then(|| passed as f64 / valid as f64),
            mean_score: (reached > 0).then(|| score_sum / reached as f64),
        })
    })?;
    Ok(stages.collect::<Result<_, _>>()?)
}

fn summary(connection: &Connection, row: &Row<'_>) -> Result<RunSummary, Fault> {
    let run_id: String = row.get(0)?;
    let (valid, reward_sum) = (count(row, 2)?, row.get::<_, f64>(3)?);
    let mut rubrics = connection.prepare_cached(RUN_RUBRICS)?;
    let rubric_hashes = rubrics.query_map([&run_id], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(RunSummary {
        run_id,
        n: count(row, 1)?,
        valid,
        mean_reward: (valid > 0).then(|| reward_sum / valid as f64),
        min_reward: row.get(4)?,
        max_reward: row.get(5)?,
        first_created_at_ms: row.get(6)?,
        last_created_at_ms: row.get(7)?,
        last_step: row.get(8)?,
        rubric_hashes,
    })
}

/// A column that counts is never negative.
fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::unsigned_abs)
}
