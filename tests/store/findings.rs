//! What judges said: bytes under keys, kept beside the scores and never in their way.

use super::*;

fn key(n: usize) -> [u8; 32] {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&n.to_le_bytes());
    key
}

/// Waits until so many findings are written.
async fn written(store: &Store, findings: u64) {
    while store.counters().findings < findings {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

#[test]
fn what_is_remembered_is_recalled() {
    on_each(async |store| {
        assert_eq!(store.recall(&key(1)), None);
        store.remember(&key(1), b"{\"reward\":0.5}");
        store.remember(&key(2), b"");
        written(&store, 2).await;
        assert_eq!(store.recall(&key(1)).as_deref(), Some(&b"{\"reward\":0.5}"[..]));
        assert_eq!(store.recall(&key(2)).as_deref(), Some(&b""[..]));
        assert_eq!(store.recall(&key(3)), None);
        assert_eq!(store.counters().lost_findings, 0);
    });
}

#[test]
fn the_first_value_under_a_key_stays() {
    on_each(async |store| {
        store.remember(&key(1), b"first");
        store.remember(&key(1), b"second");
        written(&store, 2).await;
        assert_eq!(store.recall(&key(1)).as_deref(), Some(&b"first"[..]));
    });
}

#[test]
fn it_is_there_before_any_batch_that_comes_later() {
    on_each(async |store| {
        for n in 0..600 {
            store.remember(&key(n), b"yes");
        }
        scored(&store, "exp", 0, &[Some(1.0)]).await;
        assert!((0..600).all(|n| store.recall(&key(n)).is_some()), "whoever has the answer has the findings");
    });
}

#[test]
fn it_survives_the_end_of_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(&directory.path().join("gradus.db"));
    block_on(async {
        let store = open(&config);
        store.remember(&key(1), b"kept");
        store.close().await;
        assert_eq!(store.recall(&key(1)), None, "a closed store knows nothing");
        store.remember(&key(2), b"late");
        assert_eq!(store.counters().lost_findings, 1, "and takes nothing");
        assert_eq!(open(&config).recall(&key(1)).as_deref(), Some(&b"kept"[..]));
    });
}

#[test]
fn findings_share_the_transactions_of_batches() {
    in_a_file(async |path| {
        let store = open(&config(path));
        let other = locked(path);
        for n in 0..100 {
            store.remember(&key(n), b"yes");
        }
        let (last, sent) = (store.clone(), batch(&store, "exp", 0, &[Some(1.0)]));
        let appending = tokio::spawn(async move { last.append(sent).await });
        while store.counters().queue_bytes < 101 << 10 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        assert_eq!(store.recall(&key(0)), None, "a look-up does not wait for the writer");
        other.execute_batch("ROLLBACK").unwrap();
        appending.await.unwrap().unwrap();
        let counters = store.counters();
        assert_eq!((counters.findings, counters.batches, counters.lost_findings), (100, 1, 0));
        assert!(counters.transactions <= 2, "{} transactions", counters.transactions);
    });
}

/// Judges are not asked for it again while it is remembered.
#[test]
fn a_finding_waits_until_it_can_be_written() {
    in_a_file(async |path| {
        let store = open(&Config { busy_timeout_ms: 10, ..config(path) });
        let other = locked(path);
        store.remember(&key(1), b"yes");
        let failed = store.append(batch(&store, "exp", 0, &[Some(1.0)])).await;
        assert!(matches!(failed, Err(StoreError::Locked { .. })), "{failed:?}");
        assert_eq!(store.counters().lost_findings, 0);
        other.execute_batch("ROLLBACK").unwrap();
        written(&store, 1).await;
        assert!(store.recall(&key(1)).is_some());
    });
}

#[test]
fn a_full_queue_loses_findings_and_no_batch() {
    in_a_file(async |path| {
        let store = open(&Config { queue_bytes: 4 << 10, durability: Durability::Relaxed, ..config(path) });
        let other = locked(path);
        let began = std::time::Instant::now();
        for n in 0..1000 {
            store.remember(&key(n), b"yes");
        }
        assert!(began.elapsed() < std::time::Duration::from_secs(4), "nobody waits for room");
        assert_eq!(store.counters().lost_findings, 996, "four have room");
        other.execute_batch("ROLLBACK").unwrap();
        scored(&store, "exp", 0, &[Some(1.0)]).await;
        store.close().await;
        let counters = store.counters();
        assert_eq!((counters.findings, counters.batches, counters.failures), (4, 1, 0));
    });
}

#[test]
fn a_value_that_is_too_long_is_not_kept() {
    on_each(async |store| {
        store.remember(&key(1), &vec![b'x'; MAX_FINDING_BYTES + 1]);
        store.remember(&key(2), &vec![b'x'; MAX_FINDING_BYTES]);
        written(&store, 1).await;
        assert_eq!((store.recall(&key(1)), store.recall(&key(2)).map(|v| v.len())), (None, Some(MAX_FINDING_BYTES)));
        assert_eq!(store.counters().lost_findings, 1);
    });
}

#[test]
fn many_may_recall_at_once() {
    on_each(async |store| {
        (0..50).for_each(|n| store.remember(&key(n), &n.to_le_bytes()));
        written(&store, 50).await;
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let store = &store;
                scope.spawn(move || {
                    for n in (0..50).cycle().skip(thread).take(200) {
                        assert_eq!(store.recall(&key(n)).as_deref(), Some(&n.to_le_bytes()[..]));
                    }
                });
            }
        });
    });
}

/// A database of the version before findings, with a batch in it.
#[test]
fn an_older_database_is_brought_up_to_date() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gradus.db");
    let old = rusqlite::Connection::open(&path).unwrap();
    old.execute_batch(include_str!("../../migrations/sqlite/0001_store.sql")).unwrap();
    old.execute_batch("PRAGMA user_version = 1; PRAGMA application_id = 1735549284").unwrap();
    let packed = Compressed::new(b"{}").unwrap();
    old.execute_batch(
        "INSERT INTO rubrics VALUES ('b3-1', 'r', '{}');
         INSERT INTO batches VALUES (1, 'q', 1, 'exp', NULL, '{}', 'r', 'b3-1', '0')",
    )
    .unwrap();
    old.execute("INSERT INTO bodies VALUES (1, ?1, 2, ?1, 2)", [packed.bytes()]).unwrap();
    old.close().unwrap();
    block_on(async {
        let store = open(&config(&path));
        let request = store.replay("exp").next().await.unwrap().unwrap();
        assert_eq!((request.judges, request.request), (None, b"{}".to_vec()));
        store.remember(&key(1), b"yes");
        written(&store, 1).await;
        assert!(store.recall(&key(1)).is_some());
    });
}
