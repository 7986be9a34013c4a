//! What a file may be that a store is opened on, and what is said of one that it cannot be.

use super::*;

#[test]
fn opening_waits_for_another_process_that_makes_the_database() {
    let directory = tempfile::tempdir().unwrap();
    // One that keeps it from being read, and one that keeps it only from being changed, for which the library does not wait.
    for (name, begins) in [("read.db", "BEGIN EXCLUSIVE"), ("changed.db", "BEGIN IMMEDIATE")] {
        let path = directory.path().join(name);
        let other = rusqlite::Connection::open(&path).unwrap();
        other.execute_batch(begins).unwrap();
        let opening = std::thread::spawn({
            let config = config(&path);
            move || Store::open(&config).map(|store| store.is_some())
        });
        std::thread::sleep(Duration::from_millis(200));
        assert!(!opening.is_finished(), "{name}");
        other.execute_batch("ROLLBACK").unwrap();
        assert_eq!(opening.join().unwrap(), Ok(true), "{name}");
    }
}

/// What is read may be a backup, or a running server's.
#[test]
fn opening_to_read_leaves_the_files_as_they_are() {
    in_a_file(async |path| {
        let copy = path.with_file_name("copy.db");
        let store = open(&config(path));
        let id = scored(&store, "exp", 0, &[Some(1.0)]).await;
        let files = |path: &Path| [path.to_owned(), path.with_extension("db-wal")];
        for (from, to) in files(path).iter().zip(&files(&copy)) {
            std::fs::copy(from, to).unwrap();
        }
        let bytes = || files(&copy).map(|path| std::fs::read(path).unwrap());
        let before = bytes();
        assert!(!before[1].is_empty(), "its log has the batch");
        let read = Store::open_to_read(&config(&copy)).unwrap().unwrap();
        assert!(read.score(id).await.unwrap().is_some());
        read.close().await;
        assert!(bytes() == before);
    });
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
    in_a_file(async |path| {
        let store = open(&config(path));
        let id = scored(&store, "exp", 0, &[Some(1.0)]).await;
        let other = rusqlite::Connection::open(path).unwrap();
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
    in_a_file(async |path| {
        let store = open(&config(path));
        let mut sent = batch(&store, "exp", 0, &[Some(1.0)]);
        sent.idempotency = Some(Idempotency { key: "key".to_owned(), body_hash: [1; 32] });
        let id = appended(&store, sent).await;
        rusqlite::Connection::open(path).unwrap().execute_batch("DELETE FROM bodies").unwrap();
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
    in_a_file(async |path| {
        let stores = [open(&config(path)), open(&config(path))];
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
