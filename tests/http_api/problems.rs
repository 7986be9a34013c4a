//! Errors of a whole request: the status, and a problem document (RFC 9457) with the request's id.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use gradus::http::ProblemKind;
use serde_json::json;

use crate::common::{Answer, Database, Server, answering, package, post_bytes};

fn post_as(server: &Server, kind: &str, body: &[u8]) -> Answer {
    server.send("POST", "/reward", &[("Content-Type", kind)], Some(body))
}

#[test]
fn what_is_no_json_is_400() {
    let server = Server::start(&[]);
    for text in [
        "",
        " ",
        "{",
        "{\"trajectories\":[}",
        "trajectories=1",
        "{\"trajectories\":[]} x",
        "{'trajectories':[]}",
        "{\"trajectories\":[],}",
        "{\"step\":1e400,\"trajectories\":[]}",
        "{\"step\":01,\"trajectories\":[]}",
        "{\"step\":NaN,\"trajectories\":[]}",
        "{\"run_id\":\"\\ud800\",\"trajectories\":[]}",
        "{\"run_id\":\"a\u{0}b\",\"trajectories\":[]}",
        "\u{feff}{\"trajectories\":[]}",
        "[[[[",
        "{\"step\":\"x\",\"trajectories\":[",
        "{\"on_invalid\":5,\"trajectories\":[]} x",
        "{\"trajectories\":[{\"id\":[],\"messages\":[}]}",
    ] {
        server.post("/reward", text).problem(400);
    }
    for bytes in [
        &b"{\"trajectories\":[\"\xff\"]}"[..],
        b"\xfe\xff\x00{",
        b"{\"trajectories\":[\"\xed\xa0\x80\"]}",
        b"{\"trajectories\":[]}\xc3",
    ] {
        post_as(&server, "application/json", bytes).problem(400);
    }
}

#[test]
fn json_of_the_wrong_shape_is_422_and_points_at_the_field() {
    let server = Server::start(&[]);
    for (text, pointer) in [
        ("[]", ""),
        ("7", ""),
        ("null", ""),
        ("\"x\"", ""),
        ("{}", ""),
        ("{\"trajectories\":{}}", "/trajectories"),
        ("{\"trajectories\":null}", "/trajectories"),
        ("{\"trajectories\":\"x\"}", "/trajectories"),
        ("{\"run_id\":5,\"trajectories\":[]}", "/run_id"),
        ("{\"step\":9223372036854775808,\"trajectories\":[]}", "/step"),
        ("{\"curriculum\":{\"step\":18446744073709551615},\"trajectories\":[]}", "/curriculum/step"),
        ("{\"deadline_ms\":-5,\"trajectories\":[]}", "/deadline_ms"),
        ("{\"trajectorys\":[],\"trajectories\":[]}", ""),
    ] {
        let problem = server.post("/reward", text).problem(422);
        let found = problem["pointer"].as_str().unwrap_or_default();
        assert!(found.starts_with(pointer), "{found} for {text}");
    }
}

#[test]
fn a_content_type_that_is_not_json_is_415() {
    let server = Server::start(&[]);
    let body = json!({"trajectories": []}).to_string();
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
        "application/jsonx",
        "nonsense",
    ] {
        post_as(&server, kind, body.as_bytes()).problem(415);
    }
    for kind in ["application/json", "application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.api+json"]
    {
        post_as(&server, kind, body.as_bytes()).ok();
    }
    let without = format!("POST /reward HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    server.connect().write(without).read().unwrap().ok();
}

#[test]
fn a_content_encoding_that_is_not_known_is_415() {
    let server = Server::start(&[]);
    for encoding in ["br", "deflate", "nonsense"] {
        for path in ["/reward", "/rubrics/check", "/references"] {
            let answer = server.post_with(&[("Content-Encoding", encoding)], path, "{\"trajectories\":[]}");
            answer.refused(415, &format!("{encoding:?}"));
        }
    }
}

#[test]
fn paths_and_methods_that_do_not_exist_are_404_and_405() {
    let server = Server::start(&[]);
    for path in ["/nothing", "/reward/", "/rubrics/a/b", "/scores", "/runs/a/b/c", "//", "/%00"] {
        server.get(path).problem(404);
    }
    for (method, path, allowed) in [
        ("GET", "/reward", "POST"),
        ("DELETE", "/reward", "POST"),
        ("DELETE", "/rubrics/binary_em", "PUT"),
        ("DELETE", "/runs", "GET"),
    ] {
        let answer = server.send(method, path, &[], None);
        answer.problem(405);
        assert!(answer.header("allow").contains(allowed), "{method} {path}: {}", answer.header("allow"));
    }
    server.send("POST", "/healthz", &[], Some(b"")).problem(405);
}

#[test]
fn runs_and_scores_that_do_not_exist_are_404() {
    let database = Database::new();
    for store in ["none", &database.url] {
        let server = Server::start(&["--store", store]);
        for path in [
            "/runs/nobody",
            "/runs/nobody/scores",
            "/scores/nobody",
            "/scores/0000018b2c3d4e5f0000018b2c3d4e5f-0",
            "/scores/%F0%9F%98%80",
        ] {
            server.get(path).problem(404);
        }
    }
}

#[test]
fn a_body_over_the_limit_is_413() {
    let server = Server::start(&["--max-body-bytes", "4096"]);
    let announced = server
        .connect()
        .write("POST /reward HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 4097\r\n\r\n")
        .read();
    announced.unwrap().problem(413);
    let chunk = format!("{:x}\r\n{}\r\n0\r\n\r\n", 5000, " ".repeat(5000));
    let chunked = server
        .connect()
        .write(
            "POST /reward HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        )
        .write(chunk)
        .read();
    chunked.unwrap().problem(413);
    let mut body = json!({"trajectories": []}).to_string();
    body.push_str(&" ".repeat(4096 - body.len()));
    server.post("/reward", &body).ok();
}

/// Whatever its length is, and though nothing else may be in flight beside it.
#[test]
fn a_body_of_the_largest_size_has_room() {
    let server = Server::start(&["--max-body-bytes", "60000", "--max-in-flight-bytes", "60000"]);
    let body = format!("{:<60000}", json!({"trajectories": []}).to_string());
    server.post("/reward", &body).ok();
}

#[test]
fn a_compressed_body_counts_decompressed() {
    let server = Server::start(&["--max-body-bytes", "65536"]);
    let bomb = zstd::encode_all(&vec![b' '; 64 << 20][..], 1).unwrap();
    assert!(bomb.len() < 65536);
    server.post_raw("/reward", "Content-Encoding: zstd\r\n", &bomb).problem(413);
    server.reward(&json!({"trajectories": [answering("Paris")]})).ok();
}

#[test]
fn tokens_missing_and_wrong_are_401_and_403() {
    let server = Server::start(&["--api-token", "open", "--admin-token", "sesame"]);
    let with_token = |method: &str, path: &str, token: Option<&str>| {
        let bearer = format!("Bearer {}", token.unwrap_or_default());
        let mut headers = vec![("Content-Type", "application/json")];
        if token.is_some() {
            headers.push(("Authorization", bearer.as_str()));
        }
        server.send(method, path, &headers, (method == "POST").then_some(&b"{\"trajectories\":[]}"[..]))
    };
    let document = server.get("/openapi.json").ok();
    let mut closed = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path.replace(['{', '}'], "");
        for method in methods.as_object().unwrap().keys().map(|method| method.to_uppercase()) {
            let missing = with_token(&method, &path, None);
            if ["/healthz", "/health", "/readyz", "/metrics", "/reverify_mode"].contains(&path.as_str()) {
                assert_eq!(missing.status, 200, "{path}");
                continue;
            }
            assert_eq!(missing.status, 401, "{method} {path}");
            assert!(missing.header("www-authenticate").starts_with("Bearer"), "{path}");
            assert_eq!(with_token(&method, &path, Some("wrong")).status, 403, "{method} {path}");
            let allowed = with_token(&method, &path, Some("open")).status;
            assert_eq!(allowed == 403, method == "PUT", "{method} {path}: {allowed}");
            closed += 1;
        }
    }
    assert!(closed > 25, "{closed}");
    for token in ["open", "sesame"] {
        with_token("POST", "/reward", Some(token)).ok();
        // The scheme's name is case-insensitive (RFC 9110).
        let headers = [("Authorization", format!("BEARER {token}"))];
        server.send("GET", "/rubrics", &headers.each_ref().map(|(name, value)| (*name, value.as_str())), None).ok();
    }
    // Before anything else is wrong.
    for path in ["/reward", "/advantages", "/references", "/runs/r/sample", "/slime", "/aggregate_metrics"] {
        let answer = server.send("POST", &format!("{path}?nobody=1"), &[("Content-Type", "text/plain")], Some(b"{"));
        assert_eq!(answer.status, 401, "{path}: {}", answer.text());
    }
    with_token("PUT", "/rubrics/mine", Some("open")).refused(403, "--admin-token");
    for path in ["/healthz", "/readyz"] {
        server.get(path).ok();
    }
}

#[test]
fn more_bytes_in_flight_than_allowed_are_429_with_retry_after() {
    let server = Server::start(&["--max-body-bytes", "65536", "--max-in-flight-bytes", "65536"]);
    let mut slow = server.connect();
    slow.write("POST /reward HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n");
    server.wait_until(|server| server.metric("gradus_requests_in_flight", &[]) > 0.5);
    let body = format!("{:<60000}", json!({"trajectories": []}).to_string());
    let answer = server.post_raw("/reward", "", body.as_bytes());
    answer.problem(429);
    assert!(answer.header("retry-after").parse::<u32>().is_ok());
    slow.write(&body).read().unwrap().ok();
    server.wait_until(|server| server.metric("gradus_requests_in_flight", &[]) < 0.5);
    server.post("/reward", &body).ok();
}

#[test]
fn a_body_that_does_not_come_in_time_is_408() {
    let server = Server::start(&["--max-deadline-ms", "300"]);
    let head = "POST /reward HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{";
    server.connect().write(head).read().unwrap().refused(408, "the body did not come within 0.3 s");
    // Nor does it help to send a byte now and then, though all come in the end.
    let mut slow = server.connect();
    slow.write(head.replace("1000", "6"));
    for _ in 0..5 {
        std::thread::sleep(std::time::Duration::from_millis(100));
        slow.write(" ");
    }
    slow.read().unwrap().problem(408);
    server.wait_until(|server| server.metric("gradus_requests_in_flight", &[]) < 0.5);
    server.reward(&json!({"trajectories": [answering("Paris")]})).ok();
}

#[test]
fn a_rubric_that_does_not_come_in_time_is_408_and_in_flight_until_then() {
    let server = Server::start(&["--max-deadline-ms", "2000", "--admin-token", "secret"]);
    for head in ["POST /rubrics/check", "PUT /rubrics/mine"] {
        let head =
            format!("{head} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\nContent-Length: 100\r\n\r\nname");
        let mut silent = server.connect();
        silent.write(head);
        server.wait_until(|server| server.metric("gradus_requests_in_flight", &[]) == 1.0);
        silent.read().unwrap().problem(408);
        server.wait_until(|server| server.metric("gradus_requests_in_flight", &[]) < 0.5);
    }
}

#[test]
fn a_deadline_of_0_has_passed_and_is_504() {
    let server = Server::start(&[]);
    server.reward(&json!({"deadline_ms": 0, "trajectories": [answering("Paris")]})).refused(504, "raise `deadline_ms`");
    server.reward(&json!({"deadline_ms": 60_000, "trajectories": [answering("Paris")]})).ok();
}

#[test]
fn a_store_that_does_not_take_the_scores_in_time_is_504() {
    let database = Database::new();
    let server = database.serve(&[]);
    let other = database.locked();
    let began = Instant::now();
    let late = server.reward(&json!({"deadline_ms": 500, "trajectories": [answering("Paris")]})).problem(504);
    let detail = late["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("scored, but not stored within 500 ms: the scores may still be stored; repeat"),
        "{late}"
    );
    assert!(detail.contains("Idempotency-Key") && detail.ends_with("raise `deadline_ms`"), "{late}");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let counted = || server.metric("gradus_trajectories_total", &[("outcome", "valid")]);
    assert_eq!(counted(), 0.0, "nothing is stored yet");
    other.execute_batch("ROLLBACK").unwrap();
    server.wait_until(|_| counted() == 1.0);
    server.reward(&json!({"trajectories": [answering("Paris")]})).ok();
    assert_eq!(counted(), 2.0, "without a key it is stored twice");
}

/// What is stored is counted, whether or not its client is still there.
#[test]
fn a_client_that_leaves_while_its_scores_are_stored_is_counted() {
    let database = Database::new();
    let server = database.serve(&[]);
    let other = database.locked();
    let mut gone = server.connect();
    let body = json!({"run_id": "r", "trajectories": [answering("Paris")]}).to_string();
    gone.write(post_bytes("/reward", "", body.as_bytes()));
    server.wait_until(|server| server.metric("gradus_store_queue_bytes", &[]) > 0.0);
    drop(gone);
    server.wait_until(|server| server.metric("gradus_http_requests_total", &[("status", "499")]) == 1.0);
    other.execute_batch("ROLLBACK").unwrap();
    server.wait_until(|server| server.metric("gradus_trajectories_total", &[("outcome", "valid")]) == 1.0);
    assert_eq!(server.get("/runs/r").ok()["n"], 1);
}

#[test]
fn a_problem_shows_no_internals() {
    let server = Server::start(&[]);
    for text in ["{", "[]", "{\"rubric\":\"nobody\",\"trajectories\":[]}"] {
        let text = server.post("/reward", text).text();
        for internal in ["src/", "panicked", "RewardRequest", "struct ", "backtrace"] {
            assert!(!text.contains(internal), "{internal} in {text}");
        }
    }
}

#[test]
fn the_request_id_is_taken_or_made_and_echoed_everywhere() {
    let server = Server::start(&[]);
    for path in [
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/docs/",
        "/",
        "/rubrics",
        "/runs",
        "/nothing",
        "/reward",
        "/scores/x",
    ] {
        let answer = server.send("GET", path, &[("X-Request-Id", "trace-7")], None);
        assert_eq!(answer.header("x-request-id"), "trace-7", "{path}");
        let (one, two) = (server.get(path), server.get(path));
        assert!(!one.header("x-request-id").is_empty(), "{path}");
        assert_ne!(one.header("x-request-id"), two.header("x-request-id"), "{path}");
    }
    for (body, status) in [("{\"trajectories\":[]}", 200), ("{", 400), ("{}", 422)] {
        let answer = server.post_with(&[("X-Request-Id", "trace-8")], "/reward", body);
        assert_eq!((answer.status, answer.header("x-request-id")), (status, "trace-8"));
        if status != 200 {
            assert_eq!(answer.problem(status)["request_id"], "trace-8");
        }
    }
}

#[test]
fn a_request_id_that_cannot_be_printed_or_is_endless_is_replaced() {
    let server = Server::start(&[]);
    let longest = "x".repeat(128);
    assert_eq!(server.send("GET", "/healthz", &[("X-Request-Id", &longest)], None).header("x-request-id"), longest);
    let endless = "x".repeat(129);
    for id in ["a b", "\t", endless.as_str(), "a\"b\u{e9}"] {
        let request = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Request-Id: {id}\r\n\r\n");
        let answer = server.connect().write(request).read().unwrap();
        let echoed = answer.header("x-request-id");
        assert!(!echoed.is_empty() && echoed != id.trim() && echoed.len() <= 128, "{id:?} gave {echoed:?}");
    }
}

#[test]
fn the_page_of_errors_lists_every_kind_beside_its_status() {
    let page = std::fs::read_to_string(package("docs/errors.md")).unwrap();
    let table = page.split("| status | kinds |").nth(1).unwrap().split("\n\n").next().unwrap();
    let is_name = |word: &&str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    let mut listed = BTreeSet::new();
    for row in table.lines().skip(2) {
        let (statuses, kinds) = row.trim_matches(['|', ' ']).split_once(" | ").unwrap();
        for name in kinds.split('`').skip(1).step_by(2).filter(is_name) {
            let kind = ProblemKind::ALL.iter().find(|kind| kind.name() == name);
            let status = kind.unwrap_or_else(|| panic!("`{name}` is no kind")).status().as_u16();
            assert!(statuses.contains(&status.to_string()), "`{name}` is {status}: {row}");
            assert!(listed.insert(name), "`{name}` stands twice");
        }
    }
    assert_eq!(listed, ProblemKind::ALL.iter().map(|kind| kind.name()).collect());
}

#[test]
fn parameters_where_there_are_none_are_refused() {
    let server = Server::start(&[]);
    let body = r#"{"trajectories":[]}"#;
    for path in
        ["/reward?rubric=binary_em", "/reward?x", "/advantages?seed=1", "/references?group=a", "/runs/r/sample?count=1"]
    {
        let problem = server.post(path, body).refused(400, "fields of the body");
        assert_eq!(problem["type"], "urn:gradus:problem:bad-query", "{path}");
    }
    server.post("/reward?", body).ok();
}
