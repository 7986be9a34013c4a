//! A database file that is moved, deleted or replaced while it is open: nothing is promised that nobody would find again.

use super::*;

fn log_beside(path: &Path) -> std::path::PathBuf {
    path.with_extension("db-wal")
}

#[test]
fn a_file_that_is_gone_takes_no_batch_until_the_same_one_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let (path, away) = (directory.path().join("gradus.db"), directory.path().join("away.db"));
    block_on(async {
        let store = open(&config(&path));
        let moved = Err(StoreError::Moved { path: path.clone() });
        let next = async |step: i64| store.append(batch(&store, "exp", step, &[Some(1.0)])).await;
        next(0).await.unwrap();
        std::fs::rename(&path, &away).unwrap();
        assert_eq!((next(1).await, store.health()), (moved.clone(), Health::Failing));
        // Another file under its name is not it, however often it is tried.
        std::fs::copy(&away, &path).unwrap();
        assert_eq!(next(2).await, moved);
        for _ in 0..30 {
            store.probe();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(store.health(), Health::Failing);
        std::fs::rename(&away, &path).unwrap();
        for _ in 0..30 {
            store.probe();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(store.health(), Health::Writing, "it finds out by itself that the same file is back");
        next(3).await.unwrap();
        let counters = store.counters();
        assert_eq!((counters.batches, counters.failures, counters.lost_batches), (2, 2, 0));
        store.close().await;
    });
    block_on(async {
        let rows = all_scores(&open(&config(&path)), "exp", &Filter::default(), 10).await;
        assert_eq!(rows.iter().map(|row| row.step).collect::<Vec<_>>(), [Some(0), Some(3)]);
    });
}

/// Its log would be copied into the file that was moved, and belongs to the new one by then.
#[test]
fn closing_leaves_the_log_of_a_file_that_took_the_name() {
    in_a_file(async |path| {
        let away = path.with_file_name("away.db");
        let store = open(&config(path));
        scored(&store, "exp", 0, &[Some(1.0)]).await;
        std::fs::rename(path, &away).unwrap();
        std::fs::copy(&away, path).unwrap();
        let before = std::fs::read(log_beside(path)).unwrap();
        store.close().await;
        assert_eq!(std::fs::read(log_beside(path)).unwrap(), before);
    });
}

/// What was stored before it was moved is in the file that was moved, and not only in a log that stayed.
#[test]
fn closing_completes_a_file_that_was_moved() {
    let directory = tempfile::tempdir().unwrap();
    let (path, away) = (directory.path().join("gradus.db"), directory.path().join("away.db"));
    let id = block_on(async {
        let store = open(&config(&path));
        let id = scored(&store, "exp", 0, &[Some(1.0)]).await;
        std::fs::rename(&path, &away).unwrap();
        store.append(batch(&store, "exp", 1, &[Some(1.0)])).await.unwrap_err();
        store.close().await;
        id
    });
    block_on(async { assert!(open(&config(&away)).score(id).await.unwrap().is_some()) });
}

#[test]
fn what_was_promised_waits_for_the_file_and_the_store_says_that_it_fails() {
    in_a_file(async |path| {
        let away = path.with_file_name("away.db");
        let store = open(&Config { durability: Durability::Relaxed, ..config(path) });
        std::fs::rename(path, &away).unwrap();
        scored(&store, "exp", 0, &[Some(1.0)]).await;
        while store.counters().held_batches == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(store.health(), Health::Failing);
        std::fs::rename(&away, path).unwrap();
        while store.counters().held_batches > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let counters = store.counters();
        assert_eq!((counters.batches, counters.lost_batches, store.health()), (1, 0, Health::Writing));
    });
}
