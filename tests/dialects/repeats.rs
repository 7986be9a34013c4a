//! `Idempotency-Key` on the paths of trainers: a repeat gets the answer again, and nothing is scored or counted twice.

use std::time::Duration;

use serde_json::{Value, json};

use super::contents::{contents, server};
use crate::common::{Answer, Database, Server, post_bytes};

/// How long it takes at most until a server has seen that a client left.
const LEFT: Duration = Duration::from_millis(200);

fn keyed(server: &Server, path: &str, key: &str, body: &str) -> Answer {
    server.post_with(&[("Idempotency-Key", key)], path, body)
}

fn scored(server: &Server) -> f64 {
    server.metric("gradus_trajectories_total", &[])
}

#[test]
fn a_repeat_in_any_dialect_gets_the_very_answer_and_counts_nothing() {
    let server = server(&[]);
    for (n, call) in contents()[0].calls().iter().enumerate() {
        let (before, body) = (scored(&server), call.body.to_string());
        let first = keyed(&server, &call.path, &format!("key {n}"), &body);
        first.ok();
        assert_eq!(keyed(&server, &call.path, &format!("key {n}"), &body).body, first.body, "{}", call.dialect);
        assert!((scored(&server) - before - 1.0).abs() < 0.5, "{} scored twice", call.dialect);
    }
}

#[test]
fn a_key_stands_for_the_path_the_query_and_the_body() {
    let server = Server::start(&[]);
    let body = |answer: &str| json!({"response": format!("<answer>{answer}</answer>"), "label": "Paris"}).to_string();
    let path = "/slime?rubric=binary_em";
    assert_eq!(keyed(&server, path, "k", &body("Paris")).ok(), json!(1.0));
    keyed(&server, path, "k", &body("Lyon")).problem(409);
    keyed(&server, "/slime?rubric=binary_em&format=dict", "k", &body("Paris")).problem(409);
    keyed(&server, "/reward", "k", &json!({"trajectories": []}).to_string()).problem(409);
    // Nothing is read before that is known.
    keyed(&server, path, "k", "no JSON").problem(409);
    keyed(&server, &format!("{path}&on_invalid=error"), &"k".repeat(10_000), &body("Paris")).problem(400);
    assert_eq!(keyed(&server, path, "k", &body("Paris")).ok(), json!(1.0), "the first answer stays");
}

#[test]
fn what_could_not_be_scored_leaves_its_key_free() {
    let server = Server::start(&[]);
    // This client hears of no error; the key is free all the same.
    assert_eq!(keyed(&server, "/slime", "k", "{}").ok(), json!(0.0));
    let right = json!({"response": "<answer>Paris</answer>", "label": "Paris"}).to_string();
    assert_eq!(keyed(&server, "/slime?rubric=binary_em", "k", &right).ok(), json!(1.0));
}

#[test]
fn what_is_refused_for_one_item_is_neither_stored_nor_counted_until_it_is_answered() {
    let server = Server::start(&["--store", "sqlite::memory:"]);
    let path = "/get_reward?rubric=binary_em&run_id=r&step=1&on_invalid=error";
    let body = |second: &str| {
        let response = "Q?<answer>Paris</answer>";
        json!({"query": [response, response], "prompts": ["Q?", "Q?"], "labels": ["Paris", second]}).to_string()
    };
    for _ in 0..2 {
        keyed(&server, path, "k", &body("")).problem(503);
        server.post(path, &body("")).problem(503);
    }
    server.get("/runs/r").problem(404);
    let counted = |outcome| server.metric("gradus_trajectories_total", &[("outcome", outcome)]);
    let missing = server.metric("gradus_item_errors_total", &[("code", "references_missing")]);
    assert_eq!((counted("valid"), counted("invalid"), missing), (0.0, 4.0, 4.0), "as `POST /reward` counts them");
    keyed(&server, path, "k", &body("Paris")).ok();
    assert_eq!(server.get("/runs/r").ok()["n"], json!(2));
}

fn member(answer: Value) -> String {
    json!({"prompt": "q", "response": answer, "label": {"references": ["Paris"], "group": "g"}}).to_string()
}

const MEETING: &str = "/slime?rubric=binary_em&on_invalid=mean&group_size=2&group_wait_ms=60000";

#[test]
fn a_member_that_is_sent_twice_under_its_key_is_one_member() {
    let server = Server::start(&[]);
    let (right, broken) = (member(json!("<answer>Paris</answer>")), member(json!(7)));
    std::thread::scope(|scope| {
        let twice: Vec<_> = (0..2).map(|_| scope.spawn(|| keyed(&server, MEETING, "right", &right).ok())).collect();
        server.wait_until(|server| server.metric("gradus_requests_in_flight", &[]) >= 2.0);
        // Two of the same do not make the group complete: the broken one still finds the right one waiting.
        assert_eq!(keyed(&server, MEETING, "broken", &broken).ok(), json!(1.0));
        for repeat in twice {
            assert_eq!(repeat.join().unwrap(), json!(1.0));
        }
    });
    assert!((scored(&server) - 2.0).abs() < 0.5);
}

#[test]
fn a_repeat_takes_the_place_of_a_client_that_went_away() {
    let server = Server::start(&[]);
    let right = member(json!("<answer>Paris</answer>"));
    let mut gone = server.connect();
    gone.write(post_bytes(MEETING, "Idempotency-Key: right\r\n", right.as_bytes()));
    server.wait_until(|server| server.metric("gradus_requests_in_flight", &[]) >= 1.0);
    std::thread::scope(|scope| {
        let repeat = scope.spawn(|| keyed(&server, MEETING, "right", &right).ok());
        server.wait_until(|server| server.metric("gradus_requests_in_flight", &[]) >= 2.0);
        drop(gone);
        // What it asked for goes on, and counts.
        std::thread::sleep(LEFT);
        assert!(server.metric("gradus_requests_in_flight", &[]) >= 2.0);
        assert_eq!(server.post(MEETING, &member(json!(7))).ok(), json!(1.0));
        assert_eq!(repeat.join().unwrap(), json!(1.0));
    });
}

#[test]
fn who_shares_anothers_failure_gets_an_entry_for_each_of_its_items() {
    let server = Server::start(&[]);
    // One more than is taken: it takes a while to see that nothing can be scored.
    let query = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>";
    let body = json!({"query": vec![query; 4097]}).to_string();
    for round in 0..4 {
        let key = format!("k{round}");
        let lengths: Vec<usize> = std::thread::scope(|scope| {
            let ask = || keyed(&server, "/get_reward", &key, &body).ok()["rewards"].as_array().unwrap().len();
            let clients: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        assert_eq!(lengths, [4097; 8]);
    }
}

fn stored_scores(server: &Server) -> Value {
    server.get("/runs/r").json()["n"].clone()
}

const KEPT: &str = "/slime?rubric=binary_em&run_id=r";

fn right() -> String {
    json!({"response": "<answer>Paris</answer>", "label": "Paris"}).to_string()
}

#[test]
fn a_repeat_of_what_was_stored_too_late_gets_its_answer() {
    let database = Database::new();
    let server = database.serve(&[]);
    let path = format!("{KEPT}&deadline_ms=500");
    let other = database.locked();
    let late = keyed(&server, &path, "k", &right()).problem(504);
    let detail = late["detail"].as_str().unwrap();
    assert!(detail.starts_with("not answered within 500 ms") && detail.contains("the same Idempotency-Key"), "{late}");
    // One that finds the first still under way waits no longer than it may.
    keyed(&server, &path, "k", &right()).problem(504);
    other.execute_batch("ROLLBACK").unwrap();
    server.wait_until(|server| stored_scores(server) == 1);
    assert_eq!(keyed(&server, &path, "k", &right()).ok(), json!(1.0));
    assert_eq!((stored_scores(&server), json!(scored(&server))), (json!(1), json!(1.0)));
    server.wait_until(|server| server.metric("gradus_in_flight_bytes", &[]) == 0.0);
}

#[test]
fn a_repeat_of_a_client_that_left_while_it_was_stored_gets_its_answer() {
    let database = Database::new();
    let server = database.serve(&[]);
    let other = database.locked();
    let mut gone = server.connect();
    gone.write(post_bytes(KEPT, "Idempotency-Key: k\r\n", right().as_bytes()));
    server.wait_until(|server| server.metric("gradus_store_queue_bytes", &[]) > 0.0);
    drop(gone);
    std::thread::sleep(LEFT);
    assert!(server.metric("gradus_requests_in_flight", &[]) >= 1.0, "it is still at work");
    assert!(server.metric("gradus_in_flight_bytes", &[]) > 0.0);
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(keyed(&server, KEPT, "k", &right()).ok(), json!(1.0));
    assert_eq!((stored_scores(&server), json!(scored(&server))), (json!(1), json!(1.0)));
}

#[test]
fn the_log_says_what_could_not_be_stored_when_nobody_is_there_to_hear_it() {
    let database = Database::new();
    let server = database.serve(&["--store-busy-timeout-ms", "1500"]);
    let _other = database.locked();
    let mut gone = server.connect();
    gone.write(post_bytes(KEPT, "Idempotency-Key: k\r\n", right().as_bytes()));
    server.wait_until(|server| server.metric("gradus_store_queue_bytes", &[]) > 0.0);
    drop(gone);
    server.wait_until(|server| server.log().contains("its client was no longer there to hear of it"));
}

#[test]
fn members_of_a_group_that_were_stored_too_late_get_their_answers() {
    let database = Database::new();
    let server = database.serve(&[]);
    let path = "/slime?rubric=binary_em&run_id=r&on_invalid=mean&group_size=3&deadline_ms=1500&group_wait_ms=1000";
    let members = [member(json!("<answer>Paris</answer>")), member(json!("<answer>Lyon</answer>")), member(json!(7))];
    let ask = |n: usize, key: Option<&str>| match key {
        Some(key) => keyed(&server, path, key, &members[n]),
        None => server.post(path, &members[n]),
    };
    let other = database.locked();
    let details: Vec<String> = std::thread::scope(|scope| {
        let asked = [(0, Some("a")), (1, None), (2, Some("c"))].map(|(n, key)| scope.spawn(move || ask(n, key)));
        asked.map(|one| one.join().unwrap().problem(504)["detail"].as_str().unwrap().to_owned()).into()
    });
    assert!(details[0].starts_with("not answered within 1500 ms"), "{details:?}");
    assert!(details[1].starts_with("scored, but not stored within 1500 ms"), "{details:?}");
    other.execute_batch("ROLLBACK").unwrap();
    server.wait_until(|server| stored_scores(server) == 3);
    assert_eq!((ask(0, Some("a")).ok(), ask(2, Some("c")).ok()), (json!(1.0), json!(0.5)));
    assert_eq!((stored_scores(&server), json!(scored(&server))), (json!(3), json!(3.0)));
}

/// The memory of answers is gone, and the store has the key.
#[test]
fn a_repeat_after_a_restart_is_stored_and_counted_once() {
    let database = Database::new();
    let mut server = database.serve(&[]);
    let first = keyed(&server, KEPT, "k", &right());
    assert_eq!(first.ok(), json!(1.0));
    server.crash();
    let server = database.serve(&[]);
    assert_eq!(keyed(&server, KEPT, "k", &right()).body, first.body);
    assert_eq!((stored_scores(&server), json!(scored(&server))), (json!(1), json!(0.0)));
    keyed(&server, KEPT, "l", &right()).ok();
    keyed(&server, KEPT, "k", &right().replace("Paris", "Lyon")).problem(409);
    keyed(&server, "/reward", "l", &json!({"trajectories": []}).to_string()).problem(409);
    assert_eq!(stored_scores(&server), 2);
}

#[test]
fn another_body_under_the_key_of_a_stored_one_is_a_conflict_after_a_restart_too() {
    let database = Database::new();
    let mut server = database.serve(&[]);
    keyed(&server, KEPT, "k", &right()).ok();
    server.crash();
    let server = database.serve(&[]);
    keyed(&server, KEPT, "k", &right().replace("Paris", "Lyon")).refused(409, "another body");
    assert_eq!(stored_scores(&server), 1);
}
