//! The store's contract, on every database it knows: what is appended is read back, kept whole or not at all, grouped
//! into few transactions, and survives the death of the process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod closing;
mod durable;
mod findings;
mod moved;
mod opening;
mod runs;
mod visits;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use gradus::store::{
    Batch, BatchId, BatchIds, Compressed, Config, ContentHash, DEFAULT_WINDOW, Durability, Filter, Health, Idempotency,
    MAX_FINDING_BYTES, MAX_REWARD, Page, Removed, ScoreId, ScoreRow, ScoreRows, StageCounts, Store, StoreError,
    StoredRow,
};
use proptest::prelude::*;

const NOW: i64 = 1_760_000_000_000;

fn config(path: &Path) -> Config {
    Config { url: format!("sqlite:{}", path.display()), ..Config::default() }
}

fn memory() -> Config {
    Config { url: "sqlite::memory:".to_owned(), ..Config::default() }
}

fn open(config: &Config) -> Store {
    Store::open(config).unwrap().unwrap()
}

fn open_error(config: &Config) -> StoreError {
    Store::open(config).err().expect("the store must refuse to open")
}

/// Runs one law on a database in memory and on one in a file.
fn on_each(law: impl AsyncFn(Store)) {
    let directory = tempfile::tempdir().unwrap();
    for config in [memory(), config(&directory.path().join("gradus.db"))] {
        block_on(async {
            let store = open(&config);
            law(store.clone()).await;
            store.close().await;
        });
    }
}

/// Runs one on the path of a database that is not there yet.
fn in_a_file(law: impl AsyncFnOnce(&Path)) {
    let directory = tempfile::tempdir().unwrap();
    block_on(law(&directory.path().join("gradus.db")));
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

/// A batch of scores with these rewards; `None` is invalid.
fn batch(store: &Store, run: &str, step: i64, rewards: &[Option<f64>]) -> Batch {
    static CLOCK: AtomicI64 = AtomicI64::new(NOW);
    let created_at_ms = CLOCK.fetch_add(1, Ordering::Relaxed);
    let mut response = b"{\"results\":[".to_vec();
    let mut scores = Vec::new();
    let ids: Vec<String> = (0..rewards.len()).map(|index| format!("t{index}")).collect();
    for (index, reward) in rewards.iter().enumerate() {
        let start = u32::try_from(response.len()).unwrap();
        response.extend(format!("{{\"id\":\"t{index}\",\"reward\":{reward:?}}}").bytes());
        let end = u32::try_from(response.len()).unwrap();
        response.push(b',');
        let passed = reward.is_some_and(|reward| reward > 0.5);
        scores.push(ScoreRow {
            trajectory_id: Some(&*ids[index]),
            group: Some(["g0", "g1"][index % 2]),
            reward: *reward,
            valid: reward.is_some(),
            stage_reached: Some("la_bleu"),
            failed_stage: (!passed).then_some("la_bleu"),
            content_hash: ContentHash(0x0101 * index as u128),
            result: start..end,
        });
    }
    let valid = u32::try_from(rewards.iter().flatten().count()).unwrap();
    let passed = u32::try_from(rewards.iter().flatten().filter(|reward| **reward > 0.5).count()).unwrap();
    let counts = |stage: &'static str, passed: u32| StageCounts {
        stage: stage.into(),
        reached: valid,
        passed,
        score_sum: f64::from(passed),
    };
    let id = store.next_id(created_at_ms);
    Batch {
        id,
        request_id: format!("request-{id}"),
        created_at_ms,
        run_id: Some(run.to_owned()),
        step: Some(step),
        position: format!("{{\"step\":{step}}}"),
        rubric_name: "short_form_qa".to_owned(),
        rubric_hash: "b3-5f0c1e9a".to_owned(),
        rubric_json: "{\"stages\":[]}".into(),
        engine_version: "0.1.0",
        judges: Some("{\"default\":\"local:1\"}".to_owned()),
        request: Some(Compressed::new(format!("{{\"run_id\":\"{run}\",\"step\":{step}}}").as_bytes()).unwrap()),
        response: Compressed::new(&response).unwrap(),
        idempotency: None,
        scores: ScoreRows::new(id, scores).unwrap(),
        stages: vec![counts("tool_parse", valid), counts("la_bleu", passed)],
    }
}

/// Another process's connection, which keeps the database until its transaction ends.
fn locked(path: &Path) -> rusqlite::Connection {
    let other = rusqlite::Connection::open(path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    other
}

/// Stores a batch; the id of its first score.
async fn appended(store: &Store, batch: Batch) -> ScoreId {
    let id = ScoreId { batch: batch.id, index: 0 };
    store.append(batch).await.unwrap();
    id
}

/// The same for scores with these rewards.
async fn scored(store: &Store, run: &str, step: i64, rewards: &[Option<f64>]) -> ScoreId {
    appended(store, batch(store, run, step, rewards)).await
}

fn with_key(mut batch: Batch, key: &str, body: u8) -> Batch {
    batch.idempotency = Some(Idempotency { key: key.to_owned(), body_hash: [body; 32] });
    batch
}

async fn all_scores(store: &Store, run: &str, filter: &Filter, limit: usize) -> Vec<StoredRow> {
    let (mut rows, mut cursor) = (Vec::new(), None);
    loop {
        let Page { items, next_cursor } =
            store.run_scores(run, filter.clone(), cursor.as_deref(), limit).await.unwrap();
        assert!(items.len() <= limit);
        rows.extend(items);
        match next_cursor {
            Some(next) => cursor = Some(next),
            None => return rows,
        }
    }
}

#[test]
fn a_score_is_read_back_as_it_was_appended() {
    on_each(async |store| {
        let sent = batch(&store, "exp", 7, &[Some(0.25), None, Some(1.0)]);
        store.append(sent.clone()).await.unwrap();
        let id = ScoreId { batch: sent.id, index: 2 };
        let found = store.score(id).await.unwrap().unwrap();
        assert_eq!(found.result_json, "{\"id\":\"t2\",\"reward\":Some(1.0)}");
        assert_eq!((found.row.id, found.row.score.reward, found.row.score.valid), (id, Some(1.0), true));
        assert_eq!(
            (found.row.score.trajectory_id.as_deref(), found.row.score.group.as_deref()),
            (Some("t2"), Some("g0"))
        );
        assert_eq!((found.row.score.stage_reached.as_deref(), found.row.score.failed_stage), (Some("la_bleu"), None));
        assert_eq!(
            (found.row.score.content_hash, found.row.step, found.row.created_at_ms),
            (ContentHash(0x0202), Some(7), sent.created_at_ms)
        );
        assert_eq!((found.run_id.as_deref(), found.request_id), (Some("exp"), sent.request_id));
        assert_eq!((found.rubric_name, found.rubric_hash), (sent.rubric_name, sent.rubric_hash));
        assert_eq!((found.position, found.engine_version.as_str()), (sent.position, "0.1.0"));
        let invalid = store.score(ScoreId { batch: sent.id, index: 1 }).await.unwrap().unwrap();
        assert_eq!((invalid.row.score.reward, invalid.row.score.valid), (None, false));
        assert_eq!(store.score(ScoreId { batch: sent.id, index: 3 }).await.unwrap(), None);
    });
}

#[test]
fn a_batch_without_run_or_scores_is_kept() {
    on_each(async |store| {
        let mut sent = batch(&store, "exp", 0, &[]);
        (sent.run_id, sent.step, sent.stages) = (None, None, Vec::new());
        store.append(sent).await.unwrap();
        assert_eq!(store.runs(None, 10).await.unwrap().items, []);
        assert_eq!(store.counters().batches, 1);
    });
}

#[test]
fn rewards_come_back_bit_for_bit() {
    on_each(async |store| {
        let rewards = [0.1 + 0.2, 0.0, f64::MIN_POSITIVE, 5e-324, -MAX_REWARD, 1.0 / 3.0];
        scored(&store, "exp", 0, &rewards.map(Some)).await;
        let rows = all_scores(&store, "exp", &Filter::default(), 10).await;
        let bits: Vec<u64> = rows.iter().filter_map(|row| row.score.reward).map(f64::to_bits).collect();
        assert_eq!(bits, rewards.map(f64::to_bits));
    });
}

#[test]
fn a_batch_that_breaks_a_promise_is_refused() {
    on_each(async |store| {
        let broken = |change: fn(&mut Batch)| {
            let mut sent = batch(&store, "exp", 0, &[Some(1.0)]);
            change(&mut sent);
            sent
        };
        let cases = [
            broken(|sent| sent.response = Compressed::new(b"shorter than where the results stand").unwrap()),
            broken(|sent| sent.stages[0].score_sum = f64::NAN),
            broken(|sent| sent.created_at_ms = -1),
        ];
        for sent in cases {
            assert!(matches!(store.append(sent).await, Err(StoreError::Batch { .. })));
        }
        assert_eq!(store.runs(None, 10).await.unwrap().items, []);
    });
}

#[test]
fn a_duplicate_id_is_an_error_to_its_batch_alone() {
    on_each(async |store| {
        let first = batch(&store, "exp", 0, &[Some(1.0)]);
        let mut second = batch(&store, "exp", 0, &[Some(0.0)]);
        second.id = first.id;
        let id = first.id;
        store.append(first).await.unwrap();
        assert_eq!(store.append(second).await, Err(StoreError::Duplicate { batch: id }));
        scored(&store, "exp", 0, &[Some(1.0)]).await;
        assert_eq!(store.run("exp", 1).await.unwrap().unwrap().summary.n, 2);
        assert_eq!(store.counters().failures, 1);
    });
}

#[test]
fn an_idempotency_key_is_taken_once() {
    on_each(async |store| {
        assert_eq!(store.idempotent("k").await.unwrap(), None);
        let first = with_key(batch(&store, "exp", 0, &[Some(1.0)]), "k", 1);
        let (id, response) = (first.id, first.response.unpack().unwrap());
        store.append(first).await.unwrap();
        let second = store.append(with_key(batch(&store, "exp", 0, &[Some(0.0)]), "k", 2)).await;
        assert_eq!(second, Err(StoreError::IdempotencyTaken { key: "k".to_owned() }));
        let answer = store.idempotent("k").await.unwrap().unwrap();
        assert_eq!((answer.batch, answer.body_hash), (id, [1; 32]));
        assert_eq!(answer.response, response);
        assert_eq!(store.run("exp", 1).await.unwrap().unwrap().summary.n, 1, "a refused batch counts nothing");
        assert_eq!(store.counters().failures, 0, "a repeat is no failure of the store");
    });
}

#[test]
fn of_racing_repeats_one_is_kept() {
    on_each(async |store| {
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let (store, sent) = (store.clone(), with_key(batch(&store, "exp", 0, &[Some(1.0)]), "k", 1));
                tokio::spawn(async move { store.append(sent).await })
            })
            .collect();
        let mut kept = 0;
        for task in tasks {
            match task.await.unwrap() {
                Ok(()) => kept += 1,
                Err(error) => assert!(matches!(error, StoreError::IdempotencyTaken { .. })),
            }
        }
        assert_eq!((kept, store.run("exp", 1).await.unwrap().unwrap().summary.n), (1, 1));
    });
}

#[test]
fn ids_rise_whatever_the_clock_does() {
    let ids = BatchIds::new(None, 0xfff_ffff);
    let mut last: Option<BatchId> = None;
    for now in [NOW, NOW, NOW - 5, NOW + 1, -1, i64::MIN, NOW + 2, i64::MAX, 0, i64::MAX] {
        let id = ids.next(now);
        assert!(last < Some(id));
        assert_eq!(id.to_string().len(), 16);
        assert_eq!(format!("{id}-7").parse(), Ok(ScoreId { batch: id, index: 7 }));
        last = Some(id);
    }
    assert!(BatchIds::new(last, 0).next(NOW) > last.unwrap());
    // Two servers on one database do not meet in one millisecond.
    assert_ne!(BatchIds::new(None, 1).next(NOW), BatchIds::new(None, 2).next(NOW));
}

/// As after a clock that was ahead was put right: both find ids of the future.
#[test]
fn two_processes_draw_different_ids_also_where_the_newest_one_is_ahead_of_the_clock() {
    let newest = BatchIds::new(None, 3).next(NOW + 3_600_000);
    let processes = [BatchIds::new(Some(newest), 0x10000), BatchIds::new(Some(newest), 0x20000)];
    let drawn = processes.map(|ids| (0..1000).map(|ms| ids.next(NOW + ms / 10)).collect::<Vec<_>>());
    for ids in &drawn {
        assert!(newest < ids[0] && ids.is_sorted_by(|before, after| before < after));
    }
    let [one, other] = drawn;
    assert!(one.iter().all(|id| !other.contains(id)));
}

proptest! {
    #[test]
    fn packing_gives_the_bytes_back(body in proptest::collection::vec(any::<u8>(), 0..5000)) {
        let packed = Compressed::new(&body).unwrap();
        prop_assert_eq!(packed.original_bytes(), body.len());
        prop_assert_eq!(packed.unpack(), Some(body));
    }

    #[test]
    fn only_what_was_printed_is_a_score_id(text in "[0-9a-fA-F+-]{0,40}|.{0,80}") {
        if let Ok(id) = text.parse::<ScoreId>() {
            prop_assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn any_text_is_a_cursor_or_an_error(text in "[0-9a-f]{16,40}|[0-9a-f]{16}-[0-9]{0,12}|\\PC{0,60}", limit in any::<usize>()) {
        thread_local! {
            static STORE: Store = open(&memory());
        }
        STORE.with(|store| block_on(async {
            for failure in [
                store.runs(Some(&text), limit).await.err(),
                store.run_scores("exp", Filter::default(), Some(&text), limit).await.err(),
            ] {
                assert!(failure.is_none_or(|error| matches!(error, StoreError::Cursor { .. })));
            }
        }));
    }
}

#[test]
fn handles_are_shared_between_tasks() {
    fn shared<T: Send + Sync + Clone + 'static>() {}
    shared::<Store>();
}
