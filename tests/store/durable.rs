//! How batches are written: few transactions, a bounded queue, and what the death of the process leaves.

use super::*;

#[test]
fn waiting_batches_share_a_transaction() {
    in_a_file(async |path| {
        let store = open(&config(path));
        // While another process holds the lock, the batches gather.
        let other = locked(path);
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
        assert!((1..=3).contains(&counters.transactions), "{} transactions", counters.transactions);
        assert_eq!(counters.queue_bytes, 0);
    });
}

#[test]
fn a_lock_that_stays_fails_the_batch_and_the_writer_lives_on() {
    in_a_file(async |path| {
        let store = open(&Config { busy_timeout_ms: 50, ..config(path) });
        let other = locked(path);
        let failed = store.append(batch(&store, "exp", 0, &[Some(1.0)])).await;
        assert_eq!(failed, Err(StoreError::Locked { path: path.to_owned(), waited_ms: 50 }));
        assert_eq!(store.health(), Health::Failing);
        assert!(store.runs(None, 1).await.unwrap().items.is_empty(), "readers do not wait for a writer");
        other.execute_batch("ROLLBACK").unwrap();
        scored(&store, "exp", 0, &[Some(1.0)]).await;
        assert_eq!(store.health(), Health::Writing);
    });
}

#[test]
fn a_store_that_failed_finds_out_by_a_probe_that_it_can_write_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gradus.db");
    let version = |path: &Path| {
        let database = rusqlite::Connection::open(path).unwrap();
        database.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)).unwrap()
    };
    block_on(async {
        let store = open(&Config { busy_timeout_ms: 10, ..config(&path) });
        let before = version(&path);
        let other = locked(&path);
        store.append(batch(&store, "exp", 0, &[Some(1.0)])).await.unwrap_err();
        let probed = async |times: u32| {
            for _ in 0..times {
                store.probe();
                tokio::time::sleep(Duration::from_millis(50)).await;
                if store.health() == Health::Writing {
                    break;
                }
            }
            store.health()
        };
        assert_eq!(probed(30).await, Health::Failing, "it was tried again in vain");
        other.execute_batch("ROLLBACK").unwrap();
        assert_eq!(probed(30).await, Health::Writing);
        let counters = store.counters();
        assert_eq!(counters.transactions, 1, "once a second at most");
        assert_eq!((counters.batches, counters.failures, counters.queue_bytes), (0, 1, 0), "a probe is no batch");
        drop(store);
        assert_eq!(version(&path), before, "it changes nothing");
    });
}

/// Else a server whose answers do not wait for the disk would be left alone though it still takes all that comes.
#[test]
fn what_waits_to_be_written_is_no_failure() {
    in_a_file(async |path| {
        let store = open(&Config { durability: Durability::Relaxed, busy_timeout_ms: 10, ..config(path) });
        let other = locked(path);
        scored(&store, "exp", 0, &[Some(1.0)]).await;
        while store.counters().held_batches == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(store.health(), Health::Writing);
        store.append(with_key(batch(&store, "exp", 1, &[Some(1.0)]), "k", 1)).await.unwrap_err();
        assert_eq!(store.health(), Health::Failing, "somebody was told");
        other.execute_batch("ROLLBACK").unwrap();
        while store.counters().held_batches > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(store.health(), Health::Writing, "what waited is written");
    });
}

#[test]
fn a_full_queue_makes_append_wait() {
    in_a_file(async |path| {
        let tiny = Config { queue_bytes: 1, durability: Durability::Relaxed, ..config(path) };
        let store = open(&tiny);
        let other = locked(path);
        scored(&store, "exp", 0, &[Some(1.0)]).await;
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
fn a_batch_that_is_larger_than_the_queue_has_it_for_itself() {
    in_a_file(async |path| {
        let store = open(&Config { queue_bytes: 1, ..config(path) });
        let large = batch(&store, "exp", 0, &[Some(1.0); 100]);
        assert!(large.scores.json().len() > 4 << 10);
        tokio::time::timeout(Duration::from_mins(1), store.append(large)).await.expect("it waits in vain").unwrap();
    });
}

/// Trying it again would not help, and would keep what comes later from its room.
#[test]
fn what_was_promised_and_can_never_be_written_is_given_up_at_once() {
    in_a_file(async |path| {
        let store = open(&Config { durability: Durability::Relaxed, ..config(path) });
        let first = batch(&store, "exp", 0, &[Some(1.0)]);
        let again = Batch { id: first.id, ..batch(&store, "exp", 1, &[Some(0.0)]) };
        store.append(first).await.unwrap();
        store.append(again).await.unwrap();
        // Who has a key is told when it is written: what came before it was tried by then.
        store.append(with_key(batch(&store, "exp", 2, &[Some(1.0)]), "k", 1)).await.unwrap();
        let counters = store.counters();
        assert_eq!((counters.batches, counters.failures), (2, 1));
        assert_eq!((counters.lost_batches, counters.held_batches), (1, 0));
    });
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
        .args(["--exact", "durable::child_that_appends_until_it_is_killed", "--nocapture"])
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
    in_a_file(async |path| {
        let store = open(&config(path));
        let id = scored(&store, "exp", 0, &[Some(1.0)]).await;
        let copy = path.with_file_name("copy.db");
        std::fs::copy(path, &copy).unwrap();
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
