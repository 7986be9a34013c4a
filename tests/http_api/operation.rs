//! What an operator relies on: health, readiness, metrics, documentation, and an end that loses no answer.

use std::net::TcpStream;

use serde_json::{Value, json};

use super::contract::score;
use crate::common::{
    Answer, Connection, Database, Server, answering, case_requests, hermes, post_bytes, saying, tool, with,
};

#[test]
fn the_first_line_of_output_is_the_address_it_listens_on() {
    let server = Server::start(&[]);
    let (host, port) = server.address().rsplit_once(':').unwrap();
    assert_eq!(host, "127.0.0.1");
    assert_ne!(port.parse::<u16>().unwrap(), 0, "port 0 is replaced by the one it got");
}

#[test]
fn healthz_and_readyz_say_ok() {
    let database = Database::new();
    for (store, name) in [("none", "none"), (database.url.as_str(), "sqlite")] {
        let server = Server::start(&["--store", store]);
        for path in ["/healthz", "/readyz"] {
            let health = server.get(path).ok();
            assert_eq!((&health["status"], &health["store"]), (&json!("ok"), &json!(name)), "{path}");
            assert!(health["version"].is_string());
        }
    }
}

#[test]
fn a_server_whose_database_file_was_deleted_says_so_instead_of_losing_scores() {
    let database = Database::new();
    let mut server = database.serve(&[]);
    let request = json!({"trajectories": [answering("Paris")]});
    score(&server, &request);
    std::fs::remove_file(database.path()).unwrap();
    for _ in 0..2 {
        server.reward(&request).refused(503, "was moved, deleted or replaced");
        server.get("/readyz").problem(503);
    }
    server.terminate();
    assert!(server.wait().success());
    assert_eq!(server.log().matches("no score is stored until this is mended").count(), 1, "{}", server.log());
}

/// Also where there is less time than new connections are refused for.
#[test]
fn an_end_with_nothing_in_flight_warns_of_nothing() {
    for drain_ms in ["0", "100", "500", "30000"] {
        let mut server = Server::start(&["--drain-ms", drain_ms]);
        // Its connection stays open.
        server.get("/healthz").ok();
        server.terminate();
        assert!(server.wait().success(), "{drain_ms}");
        assert!(!server.log().contains("WARN"), "{drain_ms}: {}", server.log());
    }
}

#[test]
fn metrics_count_what_was_scored() {
    let server = Server::start(&[]);
    let tools = json!([tool("search", json!({"type": "object"}))]);
    let broken = with(saying("<tool_call>{</tool_call>"), "tools", tools.clone());
    let fine = with(saying(&format!("{}<answer>Paris</answer>", hermes("search", &json!({})))), "tools", tools);
    score(&server, &json!({"trajectories": [fine, broken, 7, answering("Lyon")]}));
    score(&server, &json!({"rubric": "binary_em", "trajectories": [answering("Paris"), answering("Paris")]}));
    server.post("/reward", "{").problem(400);
    server.get("/nothing/at/all").problem(404);
    let expect = |name: &str, labels: &[(&str, &str)], value: f64| {
        let found = server.metric(name, labels);
        assert!((found - value).abs() < 0.5, "{name} {labels:?}: {found}, expected {value}");
    };
    let short = ("rubric", "short_form_qa");
    expect("gradus_trajectories_total", &[short, ("outcome", "valid")], 3.0);
    expect("gradus_trajectories_total", &[short, ("outcome", "invalid")], 1.0);
    expect("gradus_trajectories_total", &[("rubric", "binary_em"), ("outcome", "valid")], 2.0);
    expect("gradus_stage_reached_total", &[short, ("stage", "tool_parse")], 3.0);
    expect("gradus_stage_passed_total", &[short, ("stage", "tool_parse")], 2.0);
    expect("gradus_stage_reached_total", &[short, ("stage", "la_bleu")], 2.0);
    expect("gradus_item_errors_total", &[("code", "item_malformed")], 1.0);
    expect("gradus_http_requests_total", &[("route", "/reward"), ("status", "200")], 2.0);
    expect("gradus_http_requests_total", &[("route", "/reward"), ("status", "400")], 1.0);
    expect("gradus_http_requests_total", &[("status", "404")], 1.0);
    expect("gradus_http_request_duration_seconds_count", &[("route", "/reward")], 3.0);
    expect("gradus_requests_in_flight", &[], 0.0);
    expect("gradus_in_flight_bytes", &[], 0.0);
}

#[test]
fn metrics_are_text_that_prometheus_reads() {
    let server = Server::start(&[]);
    score(&server, &json!({"trajectories": [answering("Paris")]}));
    let open_metrics = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.6";
    let open = server.send("GET", "/metrics", &[("Accept", open_metrics)], None);
    let classic = server.get("/metrics");
    assert_eq!(open.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert_eq!(classic.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let (open, classic) = (open.text(), classic.text());
    assert!(open.ends_with("# EOF\n") && open.contains("# TYPE gradus_trajectories counter"), "OpenMetrics: {open}");
    assert!(!classic.contains("# EOF") && !classic.contains("# UNIT"), "{classic}");
    assert!(classic.contains("# TYPE gradus_trajectories_total counter"), "{classic}");
    for line in open.lines().chain(classic.lines()) {
        if line.starts_with("# HELP ") {
            assert!(line.ends_with('.'), "{line}");
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with("gradus_") && value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
        }
    }
}

/// An alert on an increase misses the first event of a series that begins with it.
#[test]
fn what_may_come_up_is_counted_from_the_start() {
    let text = Server::start(&[]).get("/metrics").text();
    for sample in [
        "gradus_item_errors_total{code=\"judge_timeout\"} 0",
        "gradus_refusals_told_as_reward_total{kind=\"unknown-rubric\"} 0",
        "gradus_store_batches_total 0.0",
        "gradus_store_scores_total 0.0",
        "gradus_store_commits_total 0.0",
        "gradus_store_failures_total 0.0",
        "gradus_store_lost_batches_total 0.0",
        "gradus_store_findings_total 0.0",
        "gradus_store_lost_findings_total 0.0",
        "gradus_store_held_batches 0.0",
    ] {
        assert!(text.lines().any(|line| line == sample), "no {sample} in {text}");
    }
}

#[test]
fn clients_cannot_make_metrics_grow() {
    let server = Server::start(&[]);
    for n in 0..50 {
        server.get(&format!("/nothing/{n}"));
        server.get(&format!("/scores/{n}"));
        server.connect().write(format!("METHOD{n} /rubrics HTTP/1.1\r\nHost: x\r\n\r\n")).read().unwrap().problem(405);
        let stage = json!({"kind": "exact_match", "name": format!("stage_{n}"), "weight": 1});
        let rubric = json!({"name": format!("inline_{n}"), "stages": [stage]});
        score(&server, &json!({"rubric": rubric, "run_id": format!("run-{n}"), "trajectories": [answering("Paris")]}));
    }
    let text = server.get("/metrics").text();
    for made_up in ["inline_7", "stage_7", "nothing/7", "run-7", "METHOD7"] {
        assert!(!text.contains(made_up), "{made_up} in {text}");
    }
}

#[test]
fn the_documentation_comes_from_the_binary_alone() {
    let server = Server::start(&[]);
    assert_eq!(server.get("/docs").header("location"), "/docs/");
    let page = server.get("/docs/");
    assert_eq!(page.status, 200);
    let page = page.text();
    let mut assets = 0;
    for attribute in ["src=\"", "href=\""] {
        for (at, _) in page.match_indices(attribute) {
            let rest = &page[at + attribute.len()..];
            let target = &rest[..rest.find('"').unwrap()];
            assert!(!target.contains("//"), "{target} is on another host");
            assert_eq!(server.get(&format!("/docs/{}", target.trim_start_matches("./"))).status, 200, "{target}");
            assets += 1;
        }
    }
    assert!(assets >= 4, "{page}");
    let start = server.get("/docs/swagger-initializer.js").text();
    assert!(
        start.contains("\"/openapi.json\"") && !start.contains("http://") && !start.contains("https://"),
        "{start}"
    );
    // Its default sends every reader's browser to a validator on another host.
    assert!(start.contains("\"validatorUrl\": \"none\"") || start.contains("\"validatorUrl\": null"), "{start}");
}

#[test]
fn the_root_leads_to_a_page() {
    let server = Server::start(&[]);
    let root = server.get("/");
    assert!(
        root.status == 200 || (300..400).contains(&root.status) && server.get(root.header("location")).status == 200
    );
}

/// Waits until nothing listens any more.
fn wait_until_refused(address: &str) {
    for _ in 0..2000 {
        if TcpStream::connect(address).is_err() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("{address} still takes connections");
}

#[test]
fn sigterm_lets_requests_in_flight_end_and_takes_no_new_ones() {
    let database = Database::new();
    let mut server = database.serve(&[]);
    let body = json!({"run_id": "last", "trajectories": [answering("Paris")]}).to_string();
    let bytes = post_bytes("/reward", "", body.as_bytes());
    let (head, tail) = bytes.split_at(bytes.len() - 10);
    let mut in_flight = server.connect();
    in_flight.write(head);
    let mut idle = server.connect();
    idle.write("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").read().unwrap().ok();
    server.wait_until(|server| server.metric("gradus_requests_in_flight", &[]) > 0.5);
    // Connections whose first request has begun, but not so far that anything could be done.
    let paths = ["/reward", "/slime", "/references", "/advantages"];
    let late_bytes = |n: usize| post_bytes(paths[n], "", body.as_bytes());
    let mut late: Vec<Connection> = (0..4).map(|_| server.connect()).collect();
    for (n, connection) in late.iter_mut().enumerate() {
        connection.write(&late_bytes(n)[..20]);
    }
    let mut ready = server.connect();
    ready.write("GET /readyz HTTP/1.1\r\n");
    for _ in 0..3 {
        server.get("/healthz").ok();
    }
    server.terminate();
    wait_until_refused(server.address());
    assert!(idle.read().is_none(), "an idle connection is closed");
    let late = late.iter_mut().enumerate();
    let refused: Vec<Answer> = late.filter_map(|(n, late)| late.write(&late_bytes(n)[20..]).read()).collect();
    assert!(!refused.is_empty());
    for answer in refused {
        answer.problem(503);
        assert!(answer.header("retry-after").parse::<u32>().is_ok());
    }
    if let Some(answer) = ready.write("Host: x\r\n\r\n").read() {
        answer.problem(503);
    }
    let answer = in_flight.write(tail).read().expect("what is in flight is answered");
    let score_id = answer.ok()["results"][0]["score_id"].as_str().unwrap().to_owned();
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
    assert!(!server.log().contains("request failed"), "whoever stops a server knows that it refuses requests");
    let again = database.serve(&[]);
    assert_eq!(again.get(&format!("/scores/{score_id}")).ok()["run_id"], "last");
}

#[test]
fn sigterm_ends_an_idle_server() {
    let mut server = Server::start(&[]);
    score(&server, &json!({"trajectories": [answering("Paris")]}));
    server.terminate();
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
}

/// A judge that is silent keeps nobody waiting until the connection is closed without an answer.
#[test]
fn who_waits_for_a_silent_judge_is_sent_elsewhere_before_the_end() {
    let endpoint = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1#judge", endpoint.local_addr().unwrap());
    let mut server = Server::start(&["--judge", &url, "--drain-ms", "1500"]);
    let body = json!({"rubric": "binary_judge", "trajectories": [answering("Paris")]}).to_string();
    let mut waiting = server.connect();
    waiting.write(post_bytes("/reward", "", body.as_bytes()));
    let _question = endpoint.accept().unwrap();
    server.terminate();
    let answer = waiting.read().expect("an answer before the end");
    assert_eq!(answer.problem(503)["type"], "urn:gradus:problem:draining");
    assert!(answer.header("retry-after").parse::<u32>().is_ok());
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
}

/// Where nobody asks for scores meanwhile it must find out by itself.
#[test]
fn a_server_that_could_not_store_is_not_ready_until_it_can() {
    let database = Database::new();
    let server = database.serve(&["--store-busy-timeout-ms", "10"]);
    let other = database.locked();
    server.get("/readyz").ok();
    server.reward(&json!({"trajectories": [answering("Paris")]})).problem(503);
    for _ in 0..2 {
        let problem = server.get("/readyz").refused(503, "could not be stored");
        assert_eq!(problem["type"], "urn:gradus:problem:store", "{problem}");
    }
    server.get("/healthz").ok();
    other.execute_batch("ROLLBACK").unwrap();
    server.wait_until(|server| server.get("/readyz").status == 200);
    server.reward(&json!({"trajectories": [answering("Paris")]})).ok();
}

/// What was answered and is lost is seen while it waits and when the server has ended.
#[test]
fn answers_that_cannot_be_stored_are_counted_and_make_the_end_a_failure() {
    let database = Database::new();
    let mut server = database.serve(&["--store-durability", "relaxed", "--store-busy-timeout-ms", "10"]);
    let _other = database.locked();
    let body = json!({"trajectories": [answering("Paris")]}).to_string();
    server.post("/reward", &body).ok();
    server.wait_until(|server| server.metric("gradus_store_held_batches", &[]) == 1.0);
    assert!(server.metric("gradus_store_queue_bytes", &[]) > 0.0);
    // Who has a key is told, and can try again.
    server.post_with(&[("Idempotency-Key", "k")], "/reward", &body).problem(503);
    let counted = |name: &str| server.metric(&format!("gradus_store_{name}"), &[]);
    let found = (counted("failures_total"), counted("lost_batches_total"), counted("held_batches"));
    assert_eq!(found, (1.0, 0.0, 1.0));
    server.terminate();
    assert_eq!(server.wait().code(), Some(1));
    assert!(server.log().contains("1 batches that were answered could not be stored"), "{}", server.log());
}

#[test]
fn work_under_load_is_all_counted() {
    let server = Server::start(&[]);
    let requests: Vec<Value> = case_requests().into_iter().map(|(_, request)| request).collect();
    let sent: usize = requests.iter().map(|request| request["trajectories"].as_array().unwrap().len()).sum();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| requests.iter().for_each(|request| drop(score(&server, request))));
        }
    });
    let counted = server.metric("gradus_trajectories_total", &[]);
    assert!((counted - 4.0 * sent as f64).abs() < 0.5, "{counted} of {}", 4 * sent);
}

/// A trainer whose own patience is too short shows in the numbers.
#[test]
fn a_client_that_leaves_before_its_answer_is_counted_and_logged() {
    let server = Server::start(&[]);
    let mut gone = server.connect();
    let group = "/slime?rubric=binary_em&on_invalid=mean&group_size=2&group_wait_ms=60000";
    let sample = json!({"prompt": "q", "response": "a", "label": {"references": ["a"], "group": "g"}}).to_string();
    gone.write(post_bytes(group, "X-Request-Id: impatient\r\n", sample.as_bytes()));
    server.wait_until(|server| server.metric("gradus_requests_in_flight", &[]) >= 1.0);
    drop(gone);
    let counted =
        |server: &Server| server.metric("gradus_http_requests_total", &[("route", "/slime"), ("status", "499")]);
    server.wait_until(|server| counted(server) == 1.0);
    server.wait_until(|server| server.log().contains("abandoned") && server.log().contains("impatient"));
}

#[test]
fn what_could_not_be_scored_is_told_the_log_once_a_minute() {
    let server = Server::start(&["--log-format", "json"]);
    let line = |text: &str, server: &Server| server.log().lines().filter(|line| line.contains(text)).count();
    server.wait_until(|server| line("\"message\":\"serving\"", server) == 1);
    let body = r#"{"trajectories":[{"messages":[{"role":"assistant","content":"<answer>a</answer>"}]}]}"#;
    for _ in 0..3 {
        assert_eq!(server.post("/reward", body).ok()["results"][0]["errors"][0]["code"], "references_missing");
    }
    server.wait_until(|server| line("items could not be scored", server) > 0);
    let log = server.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("items could not be scored")).collect();
    assert_eq!(told.len(), 1, "{log}");
    assert!(told[0].contains("\"code\":\"references_missing\"") && told[0].contains("\"items\":1"), "{log}");
    let broken = r#"{"on_invalid":"error","trajectories":[{"messages":5}]}"#;
    server.post("/reward", broken).problem(422);
    server.wait_until(|server| line("\"code\":\"item_malformed\"", server) == 1);
}

#[test]
fn what_is_stored_is_counted() {
    let server = Server::start(&["--store", "sqlite:counted.db"]);
    let counted = |name: &str| server.metric(&format!("gradus_store_{name}_total"), &[]);
    for trajectories in 1..=2 {
        let body = json!({"trajectories": vec![answering("Paris"); trajectories]}).to_string();
        server.post("/reward", &body).ok();
    }
    assert_eq!((counted("batches"), counted("scores")), (2.0, 3.0));
}

#[test]
fn the_size_of_the_database_is_a_metric() {
    let server = Server::start(&["--store", "sqlite:size.db"]);
    let before = server.metric("gradus_store_bytes", &[]);
    let text = "word ".repeat(50_000);
    let body = serde_json::json!({"trajectories": [{"messages": [{"role": "assistant", "content": text}], "references": ["a"]}]});
    server.post("/reward", &body).ok();
    assert!(before > 0.0 && server.metric("gradus_store_bytes", &[]) > before);
}
