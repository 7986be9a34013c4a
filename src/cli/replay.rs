//! `gradus score --replay RUN`: scores the stored requests of a run again, with the very rubrics they were scored with,
//! and reports every difference, in the answers and in what the store keeps apart from them. Judges are not needed: what
//! they said is stored, too. Only reads.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::findings::StoredFindings;
use super::judges::LazyJudges;
use super::paint::printable_line;
use super::said;
use crate::config::{File, Scoring, StoreFlags};
use crate::http::batch::{Engine, Overrides, Scored};
use crate::judge;
use crate::rubric::Rubric;
use crate::store::{DEFAULT_WINDOW, ScoreRow, Store, StoreError, StoredRequest, StoredRow};

/// Most trajectories of which differences are printed; all are counted.
const SHOWN: usize = 20;
/// Most differences of one that are named.
const NAMED: usize = 12;

pub(super) fn run(scoring: &Scoring, run: &str, flags: StoreFlags, file: &File) -> anyhow::Result<ExitCode> {
    let settings = super::runs::database(flags, file)?;
    let Some(store) = Store::open_to_read(&settings)? else {
        bail!("--store none keeps nothing to replay; name the database")
    };
    let engine = super::engine(scoring)?;
    let judges = LazyJudges::new(scoring, Some(Arc::new(StoredFindings { store: store.clone(), keeps: false })));
    let runtime = super::runtime()?;
    let found = runtime.block_on(replay(&engine, &judges, &store, run))?;
    runtime.block_on(store.close());
    if found.requests + found.unreadable + found.lost == 0 {
        bail!("there is no run {run:?} in {}", settings.url);
    }
    say!(
        "{run}: {} requests, {} trajectories scored again, {} differ, {} requests could not be read",
        found.requests,
        found.trajectories,
        found.different,
        found.unreadable
    );
    if found.lost > 0 {
        say!("{run}: {} trajectories more were counted when they were scored: their batches are gone", found.lost);
    }
    Ok(if found.different + found.unreadable + found.lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[derive(Debug, Default)]
struct Found {
    requests: usize,
    trajectories: usize,
    different: usize,
    unreadable: usize,
    /// Trajectories that are there, then or now, of the requests that could be read.
    present: usize,
    /// Trajectories that the run counted and whose batches are not there.
    lost: usize,
}

async fn replay(engine: &Engine, judges: &LazyJudges, store: &Store, run: &str) -> anyhow::Result<Found> {
    let mut found = Found::default();
    // Before the first batch is read, so that what a server writes meanwhile is not missed; it may hide as many that are gone.
    let counted = store.run(run, DEFAULT_WINDOW).await?.map_or(0, |run| run.summary.n);
    let mut replay = store.replay(run);
    loop {
        match replay.next().await {
            Ok(None) => {
                // How many trajectories an unreadable request has is not known.
                if found.unreadable == 0 {
                    found.lost = usize::try_from(counted)?.saturating_sub(found.present);
                }
                return Ok(found);
            }
            Ok(Some(request)) => {
                if let Err(error) = compare(engine, judges, run, &request, &mut found).await {
                    if error.is::<judge::ConfigError>() {
                        return Err(error);
                    }
                    found.unreadable += 1;
                    say!("batch {}: {}", request.batch, printable_line(&format!("{error:#}")));
                }
            }
            Err(error @ (StoreError::NotKept { .. } | StoreError::Damaged { .. })) => {
                found.unreadable += 1;
                say!("{error}");
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Scores a request again and counts what differs.
///
/// # Errors
/// Where what is stored of it cannot be read, or a judge cannot be had: nothing of it was counted then.
async fn compare(
    engine: &Engine,
    judges: &LazyJudges,
    run: &str,
    stored: &StoredRequest,
    found: &mut Found,
) -> anyhow::Result<()> {
    let batch = stored.batch.to_string();
    let rubric = Rubric::from_json(&stored.rubric_json).context("its stored rubric is damaged")?;
    // A judge that this command has is asked; of any other it is known what it said then.
    let past: BTreeMap<String, String> = match &stored.judges {
        Some(judges) => serde_json::from_str(judges).context("its stored judges are damaged")?,
        None => BTreeMap::new(),
    };
    let rubric = Some(Arc::new(rubric));
    let overrides = Overrides { rubric, batch_id: Some(&batch), replays: true, ..Overrides::default() };
    let body = std::str::from_utf8(&stored.request).context("its stored request is damaged")?;
    let then = results(&stored.response).context("its stored response is damaged")?;
    let kept = Kept::of(stored).context("its stored response is damaged")?;
    let again = judges.score(engine, body, &overrides, Some(&past)).await?;
    let again = again.map_err(|error| anyhow!(said(error)))?;
    let (now, same) = (results(&again.body)?, batch_differences(stored, run, &again));
    found.requests += 1;
    found.trajectories += now.len();
    let present = then.len().max(now.len()).max(stored.rows.len());
    found.present += present;
    for index in 0..present {
        let mut all = match (then.get(index), now.get(index)) {
            (Some(then), Some(now)) => {
                lost_score(then, now).map_or_else(|| differences(then, now, ""), |lost| vec![lost])
            }
            _ => vec!["one of the two has no such result".to_owned()],
        };
        all.extend(kept.row_differences(&again, index));
        all.extend(same.iter().cloned());
        if !all.is_empty() {
            found.different += 1;
            if found.different <= SHOWN {
                let more = all.len().saturating_sub(NAMED);
                all.truncate(NAMED);
                let more = if more == 0 { String::new() } else { format!("; and {more} more") };
                say!("{batch}-{index}: {}{more}", printable_line(&all.join("; ")));
            }
        }
    }
    Ok(())
}

/// What the store keeps of a request apart from its answer.
struct Kept<'a> {
    stored: &'a StoredRequest,
    /// Where the results stand in the stored response.
    results: Vec<&'a RawValue>,
}

impl<'a> Kept<'a> {
    fn of(stored: &'a StoredRequest) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Response<'a> {
            #[serde(borrow)]
            results: Vec<&'a RawValue>,
        }
        let response: Response<'a> = serde_json::from_slice(&stored.response)?;
        Ok(Self { stored, results: response.results })
    }

    /// How the row of a result differs from what it would be now.
    fn row_differences(&self, again: &Scored, index: usize) -> Vec<String> {
        let (Some(StoredRow { score: then, step, .. }), Some(now)) =
            (self.stored.rows.get(index), again.rows.get(index))
        else {
            return vec!["one of the two has no such row".to_owned()];
        };
        let range = then.result.clone();
        let result = self.stored.response.get(range.start as usize..range.end as usize);
        if result != self.results.get(index).map(|raw| raw.get().as_bytes()) {
            return vec![format!("its result does not stand at {range:?} of the response")];
        }
        // Hashes of older versions name the trajectory in another way.
        let comparable = !self.stored.older_hashes && is_of_this_version(self.stored);
        let then = columns(then, comparable);
        let now = columns(&again.stored(now), comparable);
        let steps = (json!(step), json!(again.settings.position.step.and_then(|step| i64::try_from(step).ok())));
        [differences(&then, &now, "/row"), differences(&steps.0, &steps.1, "/row/step")].concat()
    }
}

/// A row's columns by name, but for the place of its result, which is not the same from run to run.
fn columns<T: Serialize>(row: &ScoreRow<T>, with_hash: bool) -> Value {
    // Every one of them: a new one is to be compared, too.
    let ScoreRow { trajectory_id, group, reward, valid, stage_reached, failed_stage, content_hash, result: _ } = row;
    json!({
        "trajectory_id": trajectory_id,
        "group": group,
        "reward": reward,
        "valid": valid,
        "stage_reached": stage_reached,
        "failed_stage": failed_stage,
        "content_hash": with_hash.then(|| content_hash.to_string()),
    })
}

/// What is kept once for all results of a request: a difference there is one of each of them.
fn batch_differences(stored: &StoredRequest, run: &str, again: &Scored) -> Vec<String> {
    let settings = &again.settings;
    let of_then = json!({
        "run_id": run,
        "position": serde_json::from_str::<Value>(&stored.position).unwrap_or_default(),
        "rubric_name": stored.rubric_name,
        // A later version may write the same rubric in another way.
        "rubric_hash": is_of_this_version(stored).then_some(&stored.rubric_hash),
    });
    let of_now = json!({
        "run_id": settings.run_id,
        "position": settings.position_json(),
        "rubric_name": &*settings.rubric.name,
        "rubric_hash": is_of_this_version(stored).then_some(&*settings.rubric.hash),
    });
    differences(&of_then, &of_now, "/batch")
}

fn is_of_this_version(stored: &StoredRequest) -> bool {
    stored.engine_version == env!("CARGO_PKG_VERSION")
}

/// The results of a response without what may differ from run to run.
fn results(response: &[u8]) -> anyhow::Result<Vec<Value>> {
    let mut response: Value = serde_json::from_slice(response)?;
    let Some(Value::Array(mut results)) = response.get_mut("results").map(Value::take) else {
        bail!("a stored response has no results")
    };
    for result in results.iter_mut().filter_map(Value::as_object_mut) {
        result.remove("latency_ms");
        result.remove("cache");
    }
    Ok(results)
}

/// Why what had a score has none now: more to the point than the first field that differs.
fn lost_score(then: &Value, now: &Value) -> Option<String> {
    if then["valid"] == now["valid"] || now["valid"] == true {
        return None;
    }
    let text = |field: &str| now["errors"][0][field].as_str().unwrap_or_default().to_owned();
    Some(format!("it has no score now: {}: {}", text("code"), text("message")))
}

/// Every place where two values differ, as a JSON pointer with both values.
fn differences(then: &Value, now: &Value, at: &str) -> Vec<String> {
    match (then, now) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            let inside = |key: &String| {
                let (x, y) = (a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null));
                differences(x, y, &format!("{at}/{key}"))
            };
            keys.flat_map(inside).collect()
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let pairs = a.iter().zip(b).enumerate();
            pairs.flat_map(|(index, (x, y))| differences(x, y, &format!("{at}/{index}"))).collect()
        }
        _ if then == now => Vec::new(),
        _ => vec![format!("{at} was {then}, is {now}")],
    }
}
