//! The visits of a run: the same whether they are read at once or as the scores come.

use gradus::store::{Batch, GroupVisit, RunVisits, ScoreRows};

use super::{batch, on_each};

/// The visits that these batches make, in the order of their ids.
fn visits(batches: &[&Batch]) -> Vec<GroupVisit> {
    let mut visits: Vec<GroupVisit> = Vec::new();
    for batch in batches {
        for score in ScoreRows::unpack(batch.scores.json()).unwrap() {
            let (Some(group), Some(reward)) = (&score.group, score.reward) else { continue };
            let same =
                |visit: &&mut GroupVisit| *visit.group == **group && visit.step == batch.step && batch.step.is_some();
            // Without a step every batch is a visit of its own.
            match visits.iter_mut().find(same) {
                Some(visit) => visit.rewards.push(reward),
                None => visits.push(GroupVisit {
                    group: group.as_str().into(),
                    step: batch.step,
                    rewards: vec![reward],
                    rubric: 0,
                }),
            }
        }
    }
    visits
}

#[test]
fn visits_grow_as_scores_come() {
    on_each(async |store| {
        let batches: Vec<Batch> = [(0, [0.1, 0.2]), (0, [0.3, 0.4]), (1, [0.5, 0.6]), (1, [0.7, 0.8])]
            .map(|(step, [a, b])| batch(&store, "exp", step, &[Some(a), Some(b), None]))
            .into();
        assert_eq!(store.run_visits("exp").await.unwrap(), None);
        let mut known = Vec::new();
        for batch in &batches {
            store.append(batch.clone()).await.unwrap();
            known.push(batch);
            let found = store.run_visits("exp").await.unwrap().unwrap();
            assert_eq!(found.visits, visits(&known));
            assert_eq!(found.rubrics.len(), 1);
            assert_eq!(store.run_visits("exp").await.unwrap().unwrap(), found, "nothing came in between");
        }
    });
}

#[test]
fn a_batch_that_began_earlier_and_was_written_later_comes_first() {
    on_each(async |store| {
        let early = batch(&store, "exp", 0, &[Some(0.1), Some(0.2)]);
        let late = batch(&store, "exp", 0, &[Some(0.3), Some(0.4)]);
        store.append(late.clone()).await.unwrap();
        assert_eq!(store.run_visits("exp").await.unwrap().unwrap().visits, visits(&[&late]));
        store.append(early.clone()).await.unwrap();
        assert_eq!(store.run_visits("exp").await.unwrap().unwrap().visits, visits(&[&early, &late]));
    });
}

#[test]
fn without_a_step_every_batch_is_a_visit_of_its_own() {
    on_each(async |store| {
        let batches: Vec<Batch> =
            [None, Some(0), None].map(|step| Batch { step, ..batch(&store, "exp", 0, &[Some(0.1), Some(0.2)]) }).into();
        for batch in &batches {
            store.append(batch.clone()).await.unwrap();
        }
        let found = store.run_visits("exp").await.unwrap().unwrap();
        assert_eq!(found.visits, visits(&batches.iter().collect::<Vec<_>>()));
        assert_eq!(found.visits.len(), 6);
    });
}

#[test]
fn a_visit_knows_its_rubric_whenever_that_came() {
    on_each(async |store| {
        // In an order that is not that of the hashes.
        for (step, hash) in [(0, "b3-5"), (1, "b3-9"), (2, "b3-1"), (3, "b3-9")] {
            let mut batch = batch(&store, "exp", step, &[Some(0.5)]);
            hash.clone_into(&mut batch.rubric_hash);
            batch.rubric_json = format!("{{\"name\":\"{hash}\"}}").into();
            store.append(batch).await.unwrap();
            store.run_visits("exp").await.unwrap().unwrap();
        }
        let found = store.run_visits("exp").await.unwrap().unwrap();
        let rubrics: Vec<&str> = found.visits.iter().map(|visit| &*found.rubrics[visit.rubric].0).collect();
        assert_eq!(rubrics, ["b3-5", "b3-9", "b3-1", "b3-9"]);
        assert!(found.rubrics.iter().all(|(hash, json)| json.contains(hash.as_str())), "{:?}", found.rubrics);
    });
}

#[test]
fn runs_are_told_apart_and_more_of_them_than_are_kept_in_memory() {
    on_each(async |store| {
        let runs: Vec<(String, Batch)> = (0..9_u8)
            .map(|n| (format!("run {n}"), batch(&store, &format!("run {n}"), 0, &[Some(f64::from(n) / 10.0)])))
            .collect();
        for (_, batch) in &runs {
            store.append(batch.clone()).await.unwrap();
        }
        for (run, batch) in runs.iter().chain(runs.iter().rev()) {
            let found = store.run_visits(run).await.unwrap().unwrap();
            assert_eq!(*found, RunVisits { visits: visits(&[batch]), rubrics: found.rubrics.clone() });
        }
    });
}
