//! The store's contract, on every database it knows: what is appended is read back, kept whole or not at all, grouped
//! into few transactions, and survives the death of the process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "store/closing.rs"]
mod closing;
#[path = "store/findings.rs"]
mod findings;
#[path = "store/visits.rs"]
mod visits;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use gradus::store::{
    Batch, BatchId, BatchIds, Compressed, Config, ContentHash, DEFAULT_WINDOW, Durability, Filter, Idempotency,
    MAX_FINDING_BYTES, MAX_REWARD, Page, ScoreId, ScoreRow, ScoreRows, StageTally, Store, StoreError, StoredRow,
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
    let tally = |stage: &'static str, passed: u32| StageTally {
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
        stages: vec![tally("tool_parse", valid), tally("la_bleu", passed)],
    }
}

fn with_key(mut batch: Batch, key: &str, body: u8) -> Batch {
    batch.idempotency = Some(Idempotency { key: key.to_owned(), body_hash: [body; 32], status: 200 });
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
        store.append(batch(&store, "exp", 0, &rewards.map(Some))).await.unwrap();
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
        store.append(batch(&store, "exp", 0, &[Some(1.0)])).await.unwrap();
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
        assert_eq!((answer.batch, answer.body_hash, answer.status), (id, [1; 32], 200));
        assert_eq!(answer.response, response);
        assert_eq!(store.run("exp", 1).await.unwrap().unwrap().summary.n, 1, "a refused batch counts nothing");
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
fn a_run_is_summed_up() {
    on_each(async |store| {
        assert_eq!(store.run("exp", 1).await.unwrap(), None);
        let first = batch(&store, "exp", 1, &[Some(0.5), None, Some(1.0)]);
        let mut second = batch(&store, "exp", 3, &[Some(-1.0)]);
        second.rubric_hash = "b3-00000000".to_owned();
        let invalid = batch(&store, "exp", 2, &[None]);
        let times = (first.created_at_ms, invalid.created_at_ms);
        for sent in [first, second, invalid] {
            store.append(sent).await.unwrap();
        }
        let summary = store.run("exp", 1).await.unwrap().unwrap().summary;
        assert_eq!((summary.n, summary.valid, summary.last_step), (5, 3, Some(3)));
        assert_eq!((summary.min_reward, summary.max_reward), (Some(-1.0), Some(1.0)));
        assert!((summary.mean_reward.unwrap() - 0.5 / 3.0).abs() < 1e-12);
        assert_eq!((summary.first_created_at_ms, summary.last_created_at_ms), times);
        assert_eq!(summary.rubric_hashes, ["b3-00000000", "b3-5f0c1e9a"]);
    });
}

#[test]
fn a_run_without_a_valid_score_has_no_mean() {
    on_each(async |store| {
        store.append(batch(&store, "exp", 1, &[None])).await.unwrap();
        let run = store.run("exp", DEFAULT_WINDOW).await.unwrap().unwrap();
        assert_eq!((run.summary.mean_reward, run.summary.min_reward), (None, None));
        assert_eq!(run.overall.stages.iter().map(|stage| stage.pass_rate).collect::<Vec<_>>(), [None, None]);
    });
}

#[test]
fn mastery_covers_the_latest_steps_that_have_data() {
    on_each(async |store| {
        // Steps 0, 10, .. 50; la_bleu is passed from step 40 on, by half of the scores.
        for step in 0..6 {
            let high = if step >= 4 { 1.0 } else { 0.0 };
            for _ in 0..2 {
                store.append(batch(&store, "exp", step * 10, &[Some(high), Some(0.0), None])).await.unwrap();
            }
        }
        let run = store.run("exp", 3).await.unwrap().unwrap();
        let names: Vec<_> = run.recent.stages.iter().map(|stage| stage.stage.as_str()).collect();
        assert_eq!(names, ["tool_parse", "la_bleu"], "in the rubric's order");
        assert_eq!((run.recent.steps, run.recent.valid), (3, 12));
        assert_eq!((run.recent.stages[1].reached, run.recent.stages[1].passed), (12, 4));
        assert_eq!(run.recent.stages[1].pass_rate, Some(4.0 / 12.0));
        assert_eq!(run.recent.stages[1].mean_score, Some(4.0 / 12.0));
        assert_eq!((run.overall.steps, run.overall.valid), (6, 24));
        assert_eq!(run.overall.stages[0].pass_rate, Some(1.0));
        assert_eq!(run.overall.stages[1].pass_rate, Some(4.0 / 24.0));
    });
}

#[test]
fn runs_are_listed_latest_first_in_stable_pages() {
    on_each(async |store| {
        for name in ["a", "b", "ü-%/", "d", "e"] {
            store.append(batch(&store, name, 0, &[Some(1.0)])).await.unwrap();
        }
        let (mut names, mut cursor) = (Vec::new(), None);
        loop {
            let page = store.runs(cursor.as_deref(), 2).await.unwrap();
            names.extend(page.items.into_iter().map(|run| run.run_id));
            // A run that goes on, and a new one, must not shift the pages that follow.
            store.append(batch(&store, "a", 1, &[Some(1.0)])).await.unwrap();
            store.append(batch(&store, &format!("new-{}", names.len()), 1, &[Some(1.0)])).await.unwrap();
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(names, ["e", "d", "ü-%/", "b", "a"]);
    });
}

#[test]
fn filters_choose_scores() {
    on_each(async |store| {
        for step in 0..4 {
            store.append(batch(&store, "exp", step, &[Some(0.0), Some(0.4), Some(0.9), None])).await.unwrap();
        }
        store.append(batch(&store, "other", 0, &[Some(0.9)])).await.unwrap();
        let count = async |filter: Filter| all_scores(&store, "exp", &filter, 3).await.len();
        assert_eq!(count(Filter::default()).await, 16);
        assert_eq!(count(Filter { group: Some("g1".to_owned()), ..Filter::default() }).await, 8);
        assert_eq!(count(Filter { valid: Some(false), ..Filter::default() }).await, 4);
        assert_eq!(count(Filter { min_reward: Some(0.4), max_reward: Some(0.9), ..Filter::default() }).await, 8);
        assert_eq!(count(Filter { failed_stage: Some("la_bleu".to_owned()), ..Filter::default() }).await, 12);
        assert_eq!(count(Filter { step_from: Some(1), step_to: Some(2), ..Filter::default() }).await, 8);
        assert_eq!(count(Filter { step_from: Some(2), valid: Some(true), ..Filter::default() }).await, 6);
        assert_eq!(count(Filter { group: Some("' OR 1 --".to_owned()), ..Filter::default() }).await, 0);
        assert_eq!(store.run_scores("nobody", Filter::default(), None, 5).await.unwrap().items, []);
    });
}

#[test]
fn a_rare_match_in_a_long_run_is_found_over_short_pages() {
    on_each(async |store| {
        let mut last = batch(&store, "exp", 1, &[]);
        for _ in 0..2100 {
            let sent = batch(&store, "exp", 0, &[Some(0.0)]);
            last = sent.clone();
            store.append(Batch { scores: ScoreRows::new(sent.id, []).unwrap(), ..sent }).await.unwrap();
        }
        let rare = batch(&store, "exp", 0, &[Some(1.0)]);
        assert!(rare.id > last.id);
        store.append(rare).await.unwrap();
        let first = store.run_scores("exp", Filter::default(), None, 10).await.unwrap();
        assert_eq!(first.items, [], "a page looks at a bounded number of batches");
        assert!(first.next_cursor.is_some());
        assert_eq!(all_scores(&store, "exp", &Filter::default(), 10).await.len(), 1);
    });
}

#[test]
fn pages_are_complete_while_others_write() {
    on_each(async |store| {
        for step in 0..20 {
            store.append(batch(&store, "exp", step, &[Some(0.0), Some(1.0), Some(0.5)])).await.unwrap();
        }
        let before = all_scores(&store, "exp", &Filter::default(), 1000).await;
        let writer = tokio::spawn({
            let store = store.clone();
            async move {
                for step in 20..60 {
                    store.append(batch(&store, "exp", step, &[Some(0.0), Some(1.0)])).await.unwrap();
                }
            }
        });
        let seen = all_scores(&store, "exp", &Filter::default(), 7).await;
        writer.await.unwrap();
        assert_eq!(seen[..60], before[..60], "what was there is there, once and in place");
        assert!(seen.windows(2).all(|pair| pair[0].id < pair[1].id));
        assert_eq!(all_scores(&store, "exp", &Filter::default(), 7).await.len(), 60 + 80);
    });
}

#[test]
fn foreign_cursors_are_refused() {
    on_each(async |store| {
        for cursor in
            ["", "x", "0123456789abcdef", "0123456789abcdef-", "0123456789ABCDEF-1", "ffffffffffffffff-1", "é"]
        {
            let page = store.run_scores("exp", Filter::default(), Some(cursor), 5).await;
            assert!(matches!(page, Err(StoreError::Cursor { .. })), "{cursor}");
        }
        for cursor in ["", "x", "0123456789abcdefzz", "0123456789abcdef6", "0123456789abcdefff", "ééééééééééé"]
        {
            assert!(matches!(store.runs(Some(cursor), 5).await, Err(StoreError::Cursor { .. })), "{cursor}");
        }
    });
}

#[test]
fn a_run_is_replayed_in_order_with_all_it_needs() {
    on_each(async |store| {
        for step in 0..5 {
            store.append(batch(&store, "exp", step, &[Some(1.0)])).await.unwrap();
            store.append(batch(&store, "other", step, &[Some(1.0)])).await.unwrap();
        }
        let mut replay = store.replay("exp");
        for step in 0..5 {
            let request = replay.next().await.unwrap().unwrap();
            assert_eq!(request.request, format!("{{\"run_id\":\"exp\",\"step\":{step}}}").into_bytes());
            assert!(request.response.starts_with(b"{\"results\":["));
            assert_eq!(
                (request.rubric_json.as_str(), request.rubric_hash.as_str()),
                ("{\"stages\":[]}", "b3-5f0c1e9a")
            );
            assert_eq!((request.position, request.engine_version.as_str()), (format!("{{\"step\":{step}}}"), "0.1.0"));
            assert_eq!(request.judges.as_deref(), Some("{\"default\":\"local:1\"}"));
        }
        assert_eq!(replay.next().await.unwrap(), None);
        store.append(batch(&store, "exp", 5, &[Some(1.0)])).await.unwrap();
        assert!(replay.next().await.unwrap().is_some(), "a run that goes on can be followed");
    });
}

#[test]
fn requests_that_were_not_kept_say_so() {
    block_on(async {
        let store = open(&Config { keep_trajectories: false, ..memory() });
        assert!(!store.keeps_trajectories());
        let (first, second) = (batch(&store, "exp", 0, &[Some(1.0)]), batch(&store, "exp", 1, &[Some(1.0)]));
        let ids = [first.id, second.id];
        store.append(first).await.unwrap();
        store.append(second).await.unwrap();
        let mut replay = store.replay("exp");
        for batch in ids {
            assert_eq!(replay.next().await, Err(StoreError::NotKept { batch }));
        }
        assert_eq!(replay.next().await, Ok(None));
        assert!(store.score(ScoreId { batch: ids[0], index: 0 }).await.unwrap().is_some(), "scores are kept");
    });
}

#[test]
fn waiting_batches_share_a_transaction() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gradus.db");
    block_on(async {
        let store = open(&config(&path));
        // While another process holds the lock, the batches gather.
        let other = rusqlite::Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let tasks: Vec<_> = (0..40)
            .map(|step| {
                let (store, sent) = (store.clone(), batch(&store, "exp", step, &[Some(1.0)]));
                tokio::spawn(async move { store.append(sent).await })
            })
            .collect();
        while store.counters().queue_bytes < 40 << 10 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(store.counters().batches, 0);
        other.execute_batch("ROLLBACK").unwrap();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        let counters = store.counters();
        assert_eq!((counters.batches, counters.scores, counters.failures), (40, 40, 0));
        assert!(counters.transactions <= 3, "{} transactions", counters.transactions);
        assert_eq!(counters.queue_bytes, 0);
    });
}

#[test]
fn a_lock_that_stays_fails_the_batch_and_the_writer_lives_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gradus.db");
    block_on(async {
        let store = open(&Config { busy_timeout_ms: 50, ..config(&path) });
        let other = rusqlite::Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let failed = store.append(batch(&store, "exp", 0, &[Some(1.0)])).await;
        assert_eq!(failed, Err(StoreError::Locked { path: path.clone(), waited_ms: 50 }));
        assert!(store.runs(None, 1).await.unwrap().items.is_empty(), "readers do not wait for a writer");
        other.execute_batch("ROLLBACK").unwrap();
        store.append(batch(&store, "exp", 0, &[Some(1.0)])).await.unwrap();
        assert!(store.ready());
    });
}

#[test]
fn a_full_queue_makes_append_wait() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gradus.db");
    block_on(async {
        let tiny = Config { queue_bytes: 1, durability: Durability::Relaxed, ..config(&path) };
        let store = open(&tiny);
        let other = rusqlite::Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        store.append(batch(&store, "exp", 0, &[Some(1.0)])).await.unwrap();
        let second = batch(&store, "exp", 1, &[Some(1.0)]);
        let waiting = tokio::spawn({
            let store = store.clone();
            async move { store.append(second).await }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!waiting.is_finished());
        other.execute_batch("ROLLBACK").unwrap();
        waiting.await.unwrap().unwrap();
        store.close().await;
        assert_eq!(store.counters().batches, 2);
    });
}

#[test]
fn opening_waits_for_another_process_that_makes_the_database() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gradus.db");
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let opening = std::thread::spawn({
        let config = config(&path);
        move || Store::open(&config).map(|store| store.is_some())
    });
    std::thread::sleep(Duration::from_millis(200));
    assert!(!opening.is_finished());
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(opening.join().unwrap(), Ok(true));
}

/// Not a law by itself: the process that `what_was_appended_survives_a_kill` kills.
#[test]
fn child_that_appends_until_it_is_killed() {
    let Ok(path) = std::env::var("GRADUS_TEST_DATABASE") else { return };
    block_on(async {
        let store = open(&config(Path::new(&path)));
        for step in 0.. {
            let sent = batch(&store, "exp", step, &[Some(1.0), Some(0.0)]);
            let id = sent.id;
            store.append(sent).await.unwrap();
            println!("\nstored {id}-1");
        }
    });
}

#[test]
fn what_was_appended_survives_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gradus.db");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_appends_until_it_is_killed", "--nocapture"])
        .env("GRADUS_TEST_DATABASE", &path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let stored: Vec<ScoreId> =
        lines.filter_map(|line| line.unwrap().strip_prefix("stored ").map(|id| id.parse().unwrap())).take(30).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(stored.len(), 30);
    block_on(async {
        let store = open(&config(&path));
        for id in &stored {
            assert!(store.score(*id).await.unwrap().is_some(), "{id} was promised");
        }
        let run = store.run("exp", 1).await.unwrap().unwrap();
        let rows = all_scores(&store, "exp", &Filter::default(), 1000).await;
        assert_eq!(run.summary.n, rows.len() as u64, "counters and scores agree");
        assert!(store.next_id(0) > stored[29].batch, "ids go on after a restart, also with a clock that went back");
    });
}

#[test]
fn a_committed_batch_is_in_the_files_while_they_are_open() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gradus.db");
    block_on(async {
        let store = open(&config(&path));
        let sent = batch(&store, "exp", 0, &[Some(1.0)]);
        let id = ScoreId { batch: sent.id, index: 0 };
        store.append(sent).await.unwrap();
        let copy = directory.path().join("copy.db");
        std::fs::copy(&path, &copy).unwrap();
        std::fs::copy(path.with_extension("db-wal"), copy.with_extension("db-wal")).unwrap();
        assert!(open(&config(&copy)).score(id).await.unwrap().is_some());
    });
}

#[test]
fn the_log_is_copied_into_the_database_while_batches_come() {
    const BATCHES: u32 = 24;
    const BODY_BYTES: u32 = 1 << 20;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gradus.db");
    let noise = |seed: u32| {
        (0..BODY_BYTES).scan(seed, |state, _| {
            *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Some(state.to_be_bytes()[0])
        })
    };
    block_on(async {
        let store = open(&config(&path));
        for step in 0..BATCHES {
            let request = Compressed::new(&noise(step).collect::<Vec<u8>>()).unwrap();
            assert!(request.bytes().len() as u64 > u64::from(BODY_BYTES / 2), "noise does not pack");
            let sent = batch(&store, "exp", i64::from(step), &[Some(1.0)]);
            store.append(Batch { request: Some(request), ..sent }).await.unwrap();
        }
        let bytes = |path: &Path| std::fs::metadata(path).unwrap().len();
        let (database, log) = (bytes(&path), bytes(&path.with_extension("db-wal")));
        assert!(log < u64::from(BATCHES * BODY_BYTES / 2), "the log is used again: {log}");
        assert!(database > u64::from(BATCHES * BODY_BYTES / 4), "what it held is in the database: {database}");
        store.close().await;
    });
}

#[test]
fn nothing_is_stored_when_nothing_shall_be() {
    assert!(Store::open(&Config { url: "none".to_owned(), ..Config::default() }).unwrap().is_none());
    assert!(Store::open(&Config { durability: Durability::Off, ..memory() }).unwrap().is_none());
    for url in ["", "sqlite:", "sqlite://", "mysql://x", "gradus.db", "None"] {
        let error = open_error(&Config { url: url.to_owned(), ..Config::default() });
        assert_eq!(error, StoreError::Url { url: url.to_owned() });
    }
    for durability in [Durability::Commit, Durability::Relaxed, Durability::Off] {
        assert_eq!(durability.to_string().parse(), Ok(durability));
    }
    assert!(matches!("full".parse::<Durability>(), Err(StoreError::Durability { .. })));
}

#[test]
fn a_path_that_cannot_hold_a_database_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing").join("gradus.db");
    let error = open_error(&config(&missing));
    assert_eq!(error, StoreError::MissingDirectory { path: missing.clone() });
    assert!(error.to_string().contains(missing.to_str().unwrap()));
    assert!(matches!(open_error(&config(directory.path())), StoreError::CannotOpen { .. }));
}

#[test]
fn a_file_that_is_no_database_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notes.txt");
    let text = "not a database, but somebody's notes\n".repeat(100);
    std::fs::write(&path, &text).unwrap();
    assert!(matches!(open_error(&config(&path)), StoreError::Corrupt { .. }));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn a_damaged_database_is_an_error_not_a_panic() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gradus.db");
    block_on(async {
        let store = open(&config(&path));
        for step in 0..100 {
            store.append(batch(&store, "exp", step, &[Some(1.0); 50])).await.unwrap();
        }
        store.close().await;
    });
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8192..].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    block_on(async {
        let error = match Store::open(&config(&path)) {
            Err(error) => error,
            Ok(store) => store.unwrap().run("exp", 1).await.unwrap_err(),
        };
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    });
}

#[test]
fn damage_inside_a_body_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gradus.db");
    block_on(async {
        let store = open(&config(&path));
        let sent = batch(&store, "exp", 0, &[Some(1.0)]);
        let id = ScoreId { batch: sent.id, index: 0 };
        store.append(sent).await.unwrap();
        let other = rusqlite::Connection::open(&path).unwrap();
        for damage in ["response = x'00'", "response_bytes = 1", "response_bytes = 900000000000", "response_bytes = -1"]
        {
            other.execute_batch(&format!("UPDATE bodies SET {damage}")).unwrap();
            let damaged = StoreError::Damaged { batch: id.batch, what: "response" };
            assert_eq!(store.score(id).await, Err(damaged.clone()), "{damage}");
            assert_eq!(store.replay("exp").next().await, Err(damaged), "{damage}");
        }
    });
}

/// A score whose body is gone is damaged, and not one that never was.
#[test]
fn a_body_that_is_lost_is_damage() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gradus.db");
    block_on(async {
        let store = open(&config(&path));
        let mut sent = batch(&store, "exp", 0, &[Some(1.0)]);
        sent.idempotency = Some(Idempotency { key: "key".to_owned(), body_hash: [1; 32], status: 200 });
        let id = ScoreId { batch: sent.id, index: 0 };
        store.append(sent).await.unwrap();
        rusqlite::Connection::open(&path).unwrap().execute_batch("DELETE FROM bodies").unwrap();
        let damaged = |what| StoreError::Damaged { batch: id.batch, what };
        assert_eq!(store.score(id).await, Err(damaged("response")));
        assert_eq!(store.idempotent("key").await, Err(damaged("response")));
        let mut replay = store.replay("exp");
        assert_eq!(replay.next().await, Err(damaged("body")));
        assert_eq!(replay.next().await, Ok(None));
    });
}

#[test]
fn a_newer_or_foreign_database_is_refused_untouched() {
    let directory = tempfile::tempdir().unwrap();
    let newer = directory.path().join("newer.db");
    drop(open(&config(&newer)));
    let other = rusqlite::Connection::open(&newer).unwrap();
    other.execute_batch("PRAGMA user_version = 999").unwrap();
    assert!(matches!(open_error(&config(&newer)), StoreError::Newer { found: 999, .. }));

    let foreign = directory.path().join("foreign.db");
    let other = rusqlite::Connection::open(&foreign).unwrap();
    other.execute_batch("CREATE TABLE notes (text TEXT)").unwrap();
    let before = std::fs::read(&foreign).unwrap();
    assert_eq!(open_error(&config(&foreign)), StoreError::Foreign { path: foreign.clone() });
    assert_eq!(std::fs::read(&foreign).unwrap(), before);
}

#[test]
fn a_read_only_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gradus.db");
    drop(open(&config(&path)));
    let mut permissions = std::fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&path, permissions).unwrap();
    // A superuser may write it all the same: then it must just open.
    let writable = std::fs::OpenOptions::new().append(true).open(&path).is_ok();
    match Store::open(&config(&path)) {
        Ok(_) => assert!(writable),
        Err(error) => assert_eq!(error, StoreError::ReadOnly { path }),
    }
}

#[test]
fn two_stores_share_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gradus.db");
    block_on(async {
        let stores = [open(&config(&path)), open(&config(&path))];
        let tasks: Vec<_> = (0..40)
            .map(|step| {
                let store = stores[step % 2].clone();
                let sent = batch(&store, "exp", 0, &[Some(1.0)]);
                tokio::spawn(async move { store.append(sent).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        for store in &stores {
            assert_eq!(store.run("exp", 1).await.unwrap().unwrap().summary.n, 40);
        }
    });
}

#[test]
fn databases_in_memory_are_apart() {
    block_on(async {
        let stores = [open(&memory()), open(&memory())];
        stores[0].append(batch(&stores[0], "exp", 0, &[Some(1.0)])).await.unwrap();
        assert_eq!(stores[1].runs(None, 10).await.unwrap().items, []);
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
