//! What a judge said is kept in the store: a restart, a crash and a replay ask nothing again.

use super::*;
use crate::common::{Database, program, stable, with};

struct Kept {
    judge: SmallJudge,
    database: Database,
}

impl Kept {
    fn new() -> Self {
        Self { judge: SmallJudge::new(), database: Database::new() }
    }

    fn start(&self) -> Server {
        self.judge.start(&["--store", &self.database.url])
    }

    /// `gradus score --replay` without any judge: whether it succeeded, and what it printed.
    fn replay(&self, run: &str) -> (bool, String) {
        let output = program().args(["score", "--replay", run, "--store", &self.database.url]).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    }

    fn change(&self, sql: &str) -> usize {
        self.database.open().execute(sql, []).unwrap()
    }
}

fn request() -> Value {
    with(by(SMALL, &[capital(RIGHT), capital(WRONG)]), "run_id", json!("exp-3"))
}

fn assert_known(server: &Server, first: &Value) {
    let again = server.reward(&request()).ok();
    assert_eq!(again["rewards"], first["rewards"]);
    for (then, now) in results(first).iter().zip(results(&again)) {
        assert_eq!((&then["cache"], &now["cache"]), (&json!("miss"), &json!("hit")));
        assert_eq!(stable(then), stable(now), "bit for bit");
    }
    for nothing in
        ["gradus_judge_computed_tokens_total", "gradus_judge_asked_tokens_total", "gradus_judge_batches_total"]
    {
        assert_eq!(server.metric(nothing, &[("judge", "default")]), 0.0, "{nothing}");
    }
    assert_eq!(server.metric("gradus_judge_cache_hits_total", &[]), 2.0);
    assert_eq!(server.metric("gradus_judge_cache_misses_total", &[]), 0.0);
}

#[test]
fn a_restart_costs_nothing() {
    let kept = Kept::new();
    let mut server = kept.start();
    let first = server.reward(&request()).ok();
    assert_eq!(server.metric("gradus_store_findings_total", &[]), 2.0);
    assert_eq!(server.metric("gradus_store_lost_findings_total", &[]), 0.0);
    server.terminate();
    assert!(server.wait().success(), "{}", server.log());
    assert_known(&kept.start(), &first);
}

#[test]
fn what_was_answered_is_known_after_a_crash() {
    let kept = Kept::new();
    let mut server = kept.start();
    let first = server.reward(&request()).ok();
    server.crash();
    assert_known(&kept.start(), &first);
}

#[test]
fn a_replay_needs_no_judge() {
    let kept = Kept::new();
    let server = kept.start();
    server.reward(&request()).ok();
    drop(server);
    let (same, said) = kept.replay("exp-3");
    assert!(same && said.contains("2 trajectories scored again, 0 differ"), "{said}");
}

#[test]
fn a_replay_of_what_is_not_known_any_more_says_so() {
    let kept = Kept::new();
    let server = kept.start();
    server.reward(&request()).ok();
    drop(server);
    assert_eq!(kept.change("DELETE FROM judge_findings"), 2);
    let (same, said) = kept.replay("exp-3");
    assert!(!same && said.contains("2 differ"), "{said}");
    assert!(said.contains("judge_unavailable: what the judge \"default\" said"), "{said}");
}

#[test]
fn a_finding_that_was_damaged_is_asked_again() {
    let kept = Kept::new();
    let server = kept.start();
    let first = server.reward(&request()).ok();
    drop(server);
    assert_eq!(kept.change("UPDATE judge_findings SET value = x'00ff'"), 2);
    let server = kept.start();
    let again = server.reward(&request()).ok();
    assert_eq!(again["rewards"], first["rewards"]);
    assert_eq!(server.metric("gradus_judge_cache_misses_total", &[]), 2.0);
}
