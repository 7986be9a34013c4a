//! What is read back of whole runs: their sums, their pages, and all that a replay needs.

use super::*;

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

/// Batches that wait are counted together: what comes of that is what comes of one after the other.
#[test]
fn a_run_is_summed_up_alike_however_its_batches_are_grouped() {
    in_a_file(async |path| {
        let store = open(&Config { durability: Durability::Relaxed, ..config(path) });
        let alone = open(&memory());
        // The first may be on its way already; the others share a transaction. Neither rises nor falls from one to the next.
        let batches: Vec<Batch> = [
            (4, &[Some(0.5)][..]),
            (2, &[Some(0.25), None]),
            (9, &[Some(0.75), Some(0.1)]),
            (2, &[Some(1.0), Some(-1.0)]),
            (5, &[Some(0.6)]),
        ]
        .into_iter()
        .zip([0, 3, 5, 1, 2])
        .map(|((step, rewards), time)| Batch { created_at_ms: NOW + time, ..batch(&store, "exp", step, rewards) })
        .collect();
        let other = locked(path);
        for sent in &batches {
            store.append(sent.clone()).await.unwrap();
            alone.append(sent.clone()).await.unwrap();
        }
        other.execute_batch("ROLLBACK").unwrap();
        store.close().await;
        assert!(store.counters().transactions <= 2, "{:?}", store.counters());
        let (grouped, single) = (open(&config(path)).run("exp", 2).await, alone.run("exp", 2).await);
        assert_eq!(grouped, single);
        let run = single.unwrap().unwrap();
        assert_eq!((run.summary.n, run.summary.valid, run.summary.last_step), (8, 7, Some(9)));
        assert_eq!((run.summary.min_reward, run.summary.max_reward), (Some(-1.0), Some(1.0)));
        assert_eq!((run.summary.first_created_at_ms, run.summary.last_created_at_ms), (NOW, NOW + 5));
        assert_eq!((run.recent.steps, run.recent.valid, run.overall.steps), (2, 3, 4));
    });
}

#[test]
fn a_run_without_a_valid_score_has_no_mean() {
    on_each(async |store| {
        scored(&store, "exp", 1, &[None]).await;
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
                scored(&store, "exp", step * 10, &[Some(high), Some(0.0), None]).await;
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

/// An evaluation by another rubric under the same name says nothing of the stages that it has not.
#[test]
fn a_pass_rate_is_over_the_scores_of_rubrics_that_have_the_stage() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gradus.db");
    let rates = |config: &Config| {
        block_on(async {
            let store = open(config);
            let run = store.run("exp", 5).await.unwrap().unwrap();
            store.close().await;
            let rates = |stages: &[gradus::store::StageMastery]| {
                stages.iter().map(|stage| (stage.stage.clone(), stage.pass_rate)).collect::<Vec<_>>()
            };
            assert_eq!(rates(&run.recent.stages), rates(&run.overall.stages));
            rates(&run.overall.stages)
        })
    };
    block_on(async {
        let store = open(&config(&path));
        scored(&store, "exp", 1, &[Some(1.0), Some(0.0)]).await;
        let mut other = batch(&store, "exp", 1, &[Some(1.0); 6]);
        other.rubric_hash = "b3-00000000".to_owned();
        other.stages.retain(|stage| &*stage.stage == "la_bleu");
        store.append(other).await.unwrap();
        store.close().await;
    });
    assert_eq!(rates(&config(&path)), [("tool_parse".to_owned(), Some(1.0)), ("la_bleu".to_owned(), Some(7.0 / 8.0))],);
    // As the version before kept it: a stage's own count is the run's.
    let old = rusqlite::Connection::open(&path).unwrap();
    old.execute_batch(
        "ALTER TABLE run_stages DROP COLUMN valid; ALTER TABLE run_step_stages DROP COLUMN valid; PRAGMA user_version = 4",
    )
    .unwrap();
    drop(old);
    assert_eq!(rates(&config(&path))[0], ("tool_parse".to_owned(), Some(2.0 / 8.0)));
}

/// The names of all runs, from pages of two; after each comes something else, told how many names there are.
async fn names_of_runs(store: &Store, then: impl AsyncFn(usize)) -> Vec<String> {
    let (mut names, mut cursor) = (Vec::new(), None);
    loop {
        let page = store.runs(cursor.as_deref(), 2).await.unwrap();
        names.extend(page.items.into_iter().map(|run| run.run_id));
        then(names.len()).await;
        cursor = page.next_cursor;
        if cursor.is_none() {
            return names;
        }
    }
}

#[test]
fn runs_are_listed_latest_first_in_stable_pages() {
    on_each(async |store| {
        for name in ["a", "b", "ü-%/", "d", "e"] {
            scored(&store, name, 0, &[Some(1.0)]).await;
        }
        // A run that goes on, and a new one, must not shift the pages that follow.
        let more = async |names: usize| {
            scored(&store, "a", 1, &[Some(1.0)]).await;
            scored(&store, &format!("new-{names}"), 1, &[Some(1.0)]).await;
        };
        assert_eq!(names_of_runs(&store, more).await, ["e", "d", "ü-%/", "b", "a"]);
    });
}

#[test]
fn runs_that_began_at_once_are_all_listed() {
    on_each(async |store| {
        for name in ["a", "b", "c", "d", "e"] {
            let sent = batch(&store, name, 0, &[Some(1.0)]);
            store.append(Batch { created_at_ms: NOW, ..sent }).await.unwrap();
        }
        assert_eq!(names_of_runs(&store, async |_| ()).await, ["e", "d", "c", "b", "a"]);
    });
}

#[test]
fn filters_choose_scores() {
    on_each(async |store| {
        for step in 0..4 {
            scored(&store, "exp", step, &[Some(0.0), Some(0.4), Some(0.9), None]).await;
        }
        scored(&store, "other", 0, &[Some(0.9)]).await;
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
fn a_page_looks_at_a_bounded_number_of_scores_and_the_next_one_goes_on_behind_them() {
    on_each(async |store| {
        // Two that are wanted, at either end.
        let mut rewards = vec![Some(0.0); 10_000];
        (rewards[0], rewards[9_999]) = (Some(1.0), Some(1.0));
        let large = batch(&store, "exp", 0, &rewards);
        for _ in 0..12 {
            store.append(Batch { id: store.next_id(NOW), ..large.clone() }).await.unwrap();
        }
        let wanted = Filter { min_reward: Some(0.5), ..Filter::default() };
        let first = store.run_scores("exp", wanted.clone(), None, 1000).await.unwrap();
        assert!(first.items.len() < 24 && first.next_cursor.is_some(), "{} found", first.items.len());
        let ids: Vec<ScoreId> = all_scores(&store, "exp", &wanted, 1000).await.into_iter().map(|row| row.id).collect();
        assert_eq!(ids.len(), 24);
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
    });
}

#[test]
fn pages_are_complete_while_others_write() {
    on_each(async |store| {
        for step in 0..20 {
            scored(&store, "exp", step, &[Some(0.0), Some(1.0), Some(0.5)]).await;
        }
        let before = all_scores(&store, "exp", &Filter::default(), 1000).await;
        let writer = tokio::spawn({
            let store = store.clone();
            async move {
                for step in 20..60 {
                    scored(&store, "exp", step, &[Some(0.0), Some(1.0)]).await;
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
            scored(&store, "exp", step, &[Some(1.0)]).await;
            scored(&store, "other", step, &[Some(1.0)]).await;
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
        scored(&store, "exp", 5, &[Some(1.0)]).await;
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
fn a_run_that_is_removed_leaves_the_others_as_they_were() {
    on_each(async |store| {
        let others = ["before", "after"];
        store.append(with_key(batch(&store, "before", 1, &[Some(1.0)]), "kept", 1)).await.unwrap();
        // More than one transaction takes.
        let first = appended(&store, with_key(batch(&store, "exp", 1, &[Some(1.0), None]), "gone", 2)).await;
        for step in 2..=70 {
            scored(&store, "exp", step, &[Some(0.5)]).await;
        }
        scored(&store, "after", 1, &[Some(0.25)]).await;
        let before = [store.run("before", 1).await, store.run("after", 1).await];
        assert!(store.run_visits("exp").await.unwrap().is_some(), "it is in memory, too");

        assert_eq!(store.remove_run("exp").unwrap(), Some(Removed { batches: 70, scores: 71 }));
        assert_eq!(store.remove_run("exp").unwrap(), None);
        assert_eq!(store.run("exp", 1).await.unwrap(), None);
        assert!(store.run_visits("exp").await.unwrap().is_none());
        assert!(store.score(first).await.unwrap().is_none());
        assert!(store.replay("exp").next().await.unwrap().is_none());
        assert!(store.idempotent("gone").await.unwrap().is_none() && store.idempotent("kept").await.unwrap().is_some());
        assert_eq!([store.run("before", 1).await, store.run("after", 1).await], before);
        let listed = store.runs(None, 9).await.unwrap().items;
        assert_eq!(listed.iter().map(|run| &*run.run_id).collect::<Vec<_>>(), [others[1], others[0]]);

        // A run of that name begins anew, as does a request under that key.
        store.append(with_key(batch(&store, "exp", 9, &[Some(0.5)]), "gone", 3)).await.unwrap();
        let again = store.run("exp", 1).await.unwrap().unwrap();
        assert_eq!((again.summary.n, again.overall.steps), (1, 1));
    });
}

#[test]
fn a_removal_that_was_cut_off_goes_on() {
    in_a_file(async |path| {
        let store = open(&config(path));
        for step in 0..3 {
            scored(&store, "exp", step, &[Some(1.0)]).await;
        }
        // As a removal that died after its first transaction would leave it.
        let other = rusqlite::Connection::open(path).unwrap();
        other.execute_batch("DELETE FROM bodies; DELETE FROM score_rows; DELETE FROM batches").unwrap();
        assert_eq!(store.run("exp", 1).await.unwrap().unwrap().summary.n, 3, "it is still listed");
        assert_eq!(store.remove_run("exp").unwrap(), Some(Removed { batches: 0, scores: 3 }));
        let tables = "SELECT (SELECT count(*) FROM runs) + (SELECT count(*) FROM run_rubrics)
             + (SELECT count(*) FROM run_stages) + (SELECT count(*) FROM run_steps) + (SELECT count(*) FROM run_step_stages)";
        assert_eq!(other.query_row(tables, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
    });
}

#[test]
fn the_room_of_a_run_that_was_removed_is_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(&directory.path().join("gradus.db"));
    let noise = (0..1_u32 << 20).map(|byte| (byte.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<u8>>();
    let pages = |config: &Config| std::fs::metadata(config.file().unwrap().unwrap()).unwrap().len();
    block_on(async {
        let mut sizes = Vec::new();
        for run in ["a", "b", "c"] {
            let store = open(&config);
            for step in 0..4 {
                let response = Compressed::new(&noise).unwrap();
                store.append(Batch { response, ..batch(&store, run, step, &[]) }).await.unwrap();
            }
            store.remove_run(run).unwrap().unwrap();
            store.close().await;
            sizes.push(pages(&config));
        }
        assert_eq!(sizes[1..], [sizes[0], sizes[0]], "{sizes:?}");
    });
}

#[test]
fn a_run_is_removed_while_others_write() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(&directory.path().join("gradus.db"));
    block_on(async {
        let (store, remover) = (open(&config), open(&config));
        for step in 0..200 {
            scored(&store, "old", step, &[Some(1.0)]).await;
        }
        let writing = async {
            for step in 0..50 {
                scored(&store, "new", step, &[Some(1.0)]).await;
            }
        };
        let removing = tokio::task::spawn_blocking(move || remover.remove_run("old"));
        let (removed, ()) = tokio::join!(removing, writing);
        assert_eq!(removed.unwrap().unwrap(), Some(Removed { batches: 200, scores: 200 }));
        assert_eq!(store.run("new", 1).await.unwrap().unwrap().summary.n, 50);
        assert_eq!(store.counters().failures, 0);
    });
}
