//! `Idempotency-Key`: a repeat returns the stored answer without scoring or counting it again.

use serde_json::{Value, json};

use crate::common::{Answer, Database, Server, answering, with};

fn body(answer: &str) -> Value {
    json!({"run_id": "r", "rubric": "binary_em", "trajectories": [with(answering(answer), "id", json!("a")), answering("Lyon")]})
}

fn keyed(server: &Server, key: &str, body: &Value) -> Answer {
    server.post_with(&[("Idempotency-Key", key)], "/reward", body)
}

fn scored(server: &Server) -> f64 {
    server.metric("gradus_trajectories_total", &[("rubric", "binary_em")])
}

#[test]
fn a_repeat_gets_the_very_answer_and_counts_nothing() {
    let database = Database::new();
    for store in ["none", &database.url] {
        let server = Server::start(&["--store", store]);
        let first = keyed(&server, "k", &body("Paris"));
        let second = keyed(&server, "k", &body("Paris"));
        assert_eq!(first.ok()["rewards"], json!([1.0, 0.0]));
        assert_eq!(first.body, second.body, "byte for byte, latencies and score ids too");
        assert_ne!(first.header("x-request-id"), second.header("x-request-id"), "but it is a request of its own");
        assert!((scored(&server) - 2.0).abs() < 0.5);
        if store != "none" {
            assert_eq!(server.get("/runs/r").ok()["n"], 2);
        }
    }
}

#[test]
fn without_a_key_or_with_another_it_is_scored_again() {
    let server = Server::start(&[]);
    keyed(&server, "k", &body("Paris")).ok();
    keyed(&server, "l", &body("Paris")).ok();
    server.reward(&body("Paris")).ok();
    assert!((scored(&server) - 6.0).abs() < 0.5);
}

#[test]
fn a_key_that_was_used_for_another_body_is_a_conflict() {
    let server = Server::start(&[]);
    keyed(&server, "k", &body("Paris")).ok();
    keyed(&server, "k", &body("Lyon")).problem(409);
    assert_eq!(keyed(&server, "k", &body("Paris")).ok()["rewards"][0], 1.0, "the first answer stays");
}

#[test]
fn concurrent_repeats_score_once() {
    let server = Server::start(&[]);
    let bodies: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..16).map(|_| scope.spawn(|| keyed(&server, "k", &body("Paris")))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).map(|answer| (answer.ok(), answer.body).1).collect()
    });
    assert!(bodies.iter().all(|body| body == &bodies[0]));
    assert!((scored(&server) - 2.0).abs() < 0.5);
}

#[test]
fn of_concurrent_bodies_under_one_key_one_wins_and_the_others_conflict() {
    let server = Server::start(&[]);
    let mut statuses: Vec<u16> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|n| (n, &server))
            .map(|(n, server)| scope.spawn(move || keyed(server, "k", &body(&n.to_string())).status))
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409, 409, 409, 409, 409, 409, 409]);
}

#[test]
fn an_answer_survives_a_crash_where_scores_are_stored() {
    let database = Database::new();
    let mut server = database.serve(&[]);
    let first = keyed(&server, "k", &body("Paris"));
    first.ok();
    server.crash();
    let server = database.serve(&[]);
    let second = keyed(&server, "k", &body("Paris"));
    assert_eq!(first.body, second.body);
    assert!(scored(&server) < 0.5, "nothing was scored");
    keyed(&server, "k", &body("Lyon")).problem(409);
    assert_eq!(server.get("/runs/r").ok()["n"], 2);
}

/// As in a rolling restart: both have scored it before either could store it.
#[test]
fn of_two_servers_on_one_database_both_give_the_answer_of_the_first() {
    let database = Database::new();
    let servers = [(); 2].map(|()| database.serve(&["--store-busy-timeout-ms", "60000"]));
    let other = database.locked();
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let clients: Vec<_> = servers.iter().map(|server| scope.spawn(|| keyed(server, "k", &body("Paris")))).collect();
        for server in &servers {
            server.wait_until(|server| server.metric("gradus_store_queue_bytes", &[]) > 0.0);
        }
        other.execute_batch("ROLLBACK").unwrap();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert_eq!(answers[0].ok(), answers[1].ok());
    assert_eq!(servers[0].get("/runs/r").ok()["n"], 2);
}

#[test]
fn a_failed_request_leaves_its_key_free() {
    let server = Server::start(&[]);
    let wrong = with(body("Paris"), "rubric", json!("nobody"));
    keyed(&server, "k", &wrong).problem(404);
    keyed(&server, "k", &wrong).problem(404);
    keyed(&server, "k", &body("Paris")).ok();
}

#[test]
fn a_key_must_be_short_and_printable() {
    let server = Server::start(&[]);
    keyed(&server, &"k".repeat(256), &body("Paris")).ok();
    keyed(&server, &"k".repeat(257), &body("Paris")).problem(400);
    keyed(&server, &"k".repeat(10_000), &body("Paris")).problem(400);
    keyed(&server, "", &body("Paris")).problem(400);
}

#[test]
fn an_encoded_repeat_of_the_same_body_is_the_same_request() {
    let server = Server::start(&[]);
    let first = keyed(&server, "k", &body("Paris"));
    let packed = zstd::encode_all(body("Paris").to_string().as_bytes(), 3).unwrap();
    let headers = [("Content-Type", "application/json"), ("Content-Encoding", "zstd"), ("Idempotency-Key", "k")];
    assert_eq!(server.send("POST", "/reward", &headers, Some(&packed)).body, first.body);
}

#[test]
fn the_key_of_an_empty_batch_is_kept_too() {
    let database = Database::new();
    let empty = json!({"trajectories": []});
    let mut server = database.serve(&[]);
    keyed(&server, "k", &empty).ok();
    keyed(&server, "k", &body("Paris")).problem(409);
    server.crash();
    let server = database.serve(&[]);
    keyed(&server, "k", &body("Paris")).problem(409);
}
