//! What was promised is written before the store ends, unless another process keeps it from that for too long.

use super::*;

#[test]
fn closing_writes_what_is_queued() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gradus.db");
    let relaxed = Config { durability: Durability::Relaxed, ..config(&path) };
    block_on(async {
        let store = open(&relaxed);
        for step in 0..50 {
            scored(&store, "exp", step, &[Some(1.0)]).await;
        }
        store.close().await;
        assert_eq!(store.health(), Health::Closed);
        assert_eq!(store.append(batch(&store, "exp", 0, &[Some(1.0)])).await, Err(StoreError::Closed));
        assert_eq!(store.runs(None, 1).await, Err(StoreError::Closed));
        assert!(!path.with_extension("db-wal").exists(), "the log went into the database");
    });
    // Dropping the last handle does the same.
    block_on(async {
        let store = open(&relaxed);
        assert_eq!(store.run("exp", 1).await.unwrap().unwrap().summary.n, 50);
        for step in 0..50 {
            scored(&store, "exp", step, &[Some(1.0)]).await;
        }
    });
    block_on(async {
        assert_eq!(open(&relaxed).run("exp", 1).await.unwrap().unwrap().summary.n, 100);
    });
}

#[test]
fn what_was_promised_waits_until_it_can_be_written() {
    // More than one transaction takes.
    const PROMISED: i64 = 300;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gradus.db");
    let relaxed = Config { durability: Durability::Relaxed, busy_timeout_ms: 10, ..config(&path) };
    block_on(async {
        let store = open(&relaxed);
        let other = rusqlite::Connection::open(&path).unwrap();
        let mut more = 0;
        for round in 1..=2_u32 {
            other.execute_batch("BEGIN IMMEDIATE").unwrap();
            for step in 0..PROMISED {
                scored(&store, "exp", step, &[Some(1.0)]).await;
            }
            let keyed = with_key(batch(&store, "exp", PROMISED, &[Some(1.0)]), &format!("key {round}"), 1);
            assert!(matches!(store.append(keyed).await, Err(StoreError::Locked { .. })), "what was not promised fails");
            assert_eq!(store.counters().held_batches, PROMISED.unsigned_abs());
            if round == 1 {
                other.execute_batch("ROLLBACK").unwrap();
                // What waits is not put off for as long as more comes.
                let began = Instant::now();
                while store.counters().held_batches > 0 {
                    scored(&store, "exp", PROMISED + more, &[Some(1.0)]).await;
                    more += 1;
                    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", store.counters());
                }
                while store.counters().batches < (PROMISED + more).unsigned_abs() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
        // Closing waits for the other, too.
        let closing = tokio::spawn(async move {
            store.close().await;
            store.counters()
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!closing.is_finished());
        other.execute_batch("ROLLBACK").unwrap();
        let counters = closing.await.unwrap();
        let stored = (2 * PROMISED + more).unsigned_abs();
        assert_eq!((counters.batches, counters.failures, counters.lost_batches), (stored, 2, 0));
    });
}

/// What waits already when the end is asked for, and the last copy of the log, end with the others.
#[test]
fn closing_does_not_wait_for_as_long_as_a_write_may() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gradus.db");
    block_on(async {
        let store = open(&Config { busy_timeout_ms: 60_000, ..config(&path) });
        store.append(batch(&store, "exp", 0, &[Some(1.0)])).await.unwrap();
        let other = locked(&path);
        let began = Instant::now();
        let waiting = store.append(batch(&store, "exp", 1, &[Some(1.0)]));
        let closing = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            store.close().await;
        };
        let (outcome, ()) = tokio::join!(waiting, closing);
        assert!(matches!(outcome, Err(StoreError::Locked { .. })), "{outcome:?}");
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
        drop(other);
    });
}

/// However much is queued: the end does not wait for another process once for each transaction.
#[test]
fn closing_gives_up_in_time_what_another_process_keeps_from_being_written() {
    const PROMISED: u64 = 2600;
    in_a_file(async |path| {
        let store = open(&Config { durability: Durability::Relaxed, busy_timeout_ms: 4000, ..config(path) });
        let _other = locked(path);
        for _ in 0..PROMISED {
            scored(&store, "exp", 0, &[Some(1.0)]).await;
        }
        let began = Instant::now();
        store.close().await;
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
        let counters = store.counters();
        assert_eq!((counters.batches, counters.lost_batches, counters.held_batches), (0, PROMISED, 0));
    });
}
