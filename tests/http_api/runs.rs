//! `/runs` and `/scores`: what was scored is kept, counted, found and read back.

use serde_json::{Value, json};

use super::contract::{close, score};
use crate::common::{Answer, Database, Server, answering, saying, with};

fn stored() -> (Server, Database) {
    let database = Database::new();
    (database.serve(&[]), database)
}

/// Two batches of run `r`: steps 1 and 2, groups a and b, rewards 1, 0.3, 0.2 and an invalid item each.
fn fill(server: &Server) -> Vec<Value> {
    let of = |group: &str, item: Value| with(item, "group", json!(group));
    let batch = |step: u64| {
        json!({"run_id": "r", "step": step, "trajectories": [
        with(of("a", answering("Paris")), "id", json!(format!("s{step}-0"))), of("a", answering("Lyon")), of("b", saying("No answer.")), {"group": "b", "messages": 3}]})
    };
    [1, 2].into_iter().flat_map(|step| score(server, &batch(step))["results"].as_array().unwrap().clone()).collect()
}

fn items(answer: &Answer) -> Vec<Value> {
    answer.ok()["items"].as_array().unwrap().clone()
}

/// Follows `next_cursor` to the end.
fn all_pages(server: &Server, path: &str) -> Vec<Value> {
    pages_from(server, path, path.to_owned())
}

fn pages_from(server: &Server, path: &str, mut next: String) -> Vec<Value> {
    let mut all = Vec::new();
    for _ in 0..100 {
        let page = server.get(&next).ok();
        all.extend(page["items"].as_array().unwrap().iter().cloned());
        let Some(cursor) = page["next_cursor"].as_str() else { return all };
        next = format!("{path}&cursor={cursor}");
    }
    panic!("{path} has no end");
}

#[test]
fn a_run_counts_its_scores() {
    let (server, _database) = stored();
    fill(&server);
    score(&server, &json!({"trajectories": [answering("Paris")]}));
    let run = server.get("/runs/r").ok();
    assert_eq!(
        (&run["run_id"], &run["n"], &run["valid"], &run["last_step"]),
        (&json!("r"), &json!(8), &json!(6), &json!(2))
    );
    assert!(close(run["mean_reward"].as_f64().unwrap(), 0.5), "{run}");
    assert!(close(run["min_reward"].as_f64().unwrap(), 0.2) && close(run["max_reward"].as_f64().unwrap(), 1.0));
    assert_eq!(run["rubric_versions"], json!([server.get("/rubrics/short_form_qa").ok()["version"]]));
    let listed = items(&server.get("/runs"));
    assert_eq!(listed.len(), 1, "scores without a run are no run");
    assert_eq!(listed[0]["n"], 8);
}

#[test]
fn an_empty_batch_makes_no_run() {
    let (server, _database) = stored();
    score(&server, &json!({"run_id": "r", "trajectories": []}));
    server.get("/runs/r").problem(404);
}

#[test]
fn mastery_is_the_pass_rate_per_stage_and_goes_back_as_a_position() {
    let (server, _database) = stored();
    fill(&server);
    let run = server.get("/runs/r").ok();
    // Of each batch's three valid items all pass parsing and schema, two have an answer.
    for (stage, rate) in [("tool_parse", 1.0), ("tool_schema", 1.0), ("answer_format", 2.0 / 3.0)] {
        assert!(close(run["mastery"][stage].as_f64().unwrap(), rate), "{stage}: {run}");
    }
    let request = json!({"curriculum": {"step": 3, "mastery": run["mastery"]}, "trajectories": [answering("Paris")]});
    assert_eq!(score(&server, &request)["curriculum"]["mastery"], run["mastery"]);
}

#[test]
fn mastery_without_steps_is_that_of_the_whole_run() {
    let (server, _database) = stored();
    for answer in ["<answer>Paris</answer>", "none"] {
        score(&server, &json!({"run_id": "r", "trajectories": [saying(answer)]}));
    }
    let run = server.get("/runs/r").ok();
    assert!(close(run["mastery"]["answer_format"].as_f64().unwrap(), 0.5), "{run}");
}

#[test]
fn mastery_has_a_window_of_the_latest_steps() {
    let (server, _database) = stored();
    for (step, answer) in [(1, "<answer>Paris</answer>"), (2, "none"), (3, "none")] {
        score(
            &server,
            &json!({"run_id": "r", "step": step, "trajectories": [with(saying(answer), "id", json!(step))]}),
        );
    }
    let rate =
        |window: &str| server.get(&format!("/runs/r{window}")).ok()["mastery"]["answer_format"].as_f64().unwrap();
    assert!(close(rate("?window=2"), 0.0));
    assert!(close(rate("?window=3"), 1.0 / 3.0));
    assert!(close(rate(""), 1.0 / 3.0));
}

#[test]
fn scores_are_filtered() {
    let (server, _database) = stored();
    fill(&server);
    for (filter, n) in [
        ("", 8),
        ("group=a", 4),
        ("group=nobody", 0),
        ("valid=true", 6),
        ("valid=false", 2),
        ("min_reward=0.25", 4),
        ("max_reward=0.25", 2),
        ("min_reward=0.25&max_reward=0.5", 2),
        ("failed_stage=answer_format", 2),
        ("step_from=2", 4),
        ("step_to=1", 4),
        ("step_from=3", 0),
        ("group=b&valid=true&step_from=2", 1),
    ] {
        let found = items(&server.get(&format!("/runs/r/scores?{filter}")));
        assert_eq!(found.len(), n, "{filter}: {found:?}");
        for row in found {
            assert!(!filter.contains("group=a") || row["group"] == "a");
            assert!(!filter.contains("valid=true") || row["valid"] == true);
            assert!(!filter.contains("valid=false") || row["valid"] == false && row["reward"].is_null());
        }
    }
}

#[test]
fn pages_have_every_score_once_in_order() {
    let (server, _database) = stored();
    let sent: Vec<Value> = fill(&server).iter().map(|result| result["score_id"].clone()).collect();
    for limit in [1, 3, 8, 1000] {
        let path = format!("/runs/r/scores?limit={limit}");
        let ids: Vec<Value> = all_pages(&server, &path).iter().map(|row| row["score_id"].clone()).collect();
        assert_eq!(ids, sent, "limit {limit}");
        assert!(items(&server.get(&path)).len() <= limit);
    }
    let filtered = all_pages(&server, "/runs/r/scores?group=b&limit=1");
    assert_eq!(filtered.len(), 4);
}

#[test]
fn a_cursor_stays_good_while_scores_are_added() {
    let (server, _database) = stored();
    fill(&server);
    let first = server.get("/runs/r/scores?limit=3").ok();
    fill(&server);
    let path = "/runs/r/scores?limit=3";
    let rest = pages_from(&server, path, format!("{path}&cursor={}", first["next_cursor"].as_str().unwrap()));
    assert!(rest.len() >= 5);
    assert!(
        first["items"]
            .as_array()
            .unwrap()
            .iter()
            .all(|row| rest.iter().all(|other| other["score_id"] != row["score_id"]))
    );
}

#[test]
fn runs_are_paged_too() {
    let (server, _database) = stored();
    for run in 0..7 {
        score(&server, &json!({"run_id": format!("run-{run}"), "trajectories": [answering("Paris")]}));
    }
    let mut ids: Vec<String> =
        all_pages(&server, "/runs?limit=2").iter().map(|run| run["run_id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    assert_eq!(ids, (0..7).map(|run| format!("run-{run}")).collect::<Vec<_>>());
}

#[test]
fn bad_parameters_are_400() {
    let (server, _database) = stored();
    fill(&server);
    for path in [
        "/runs?limit=0",
        "/runs?limit=x",
        "/runs?limit=100000",
        "/runs?limit=-1",
        "/runs?cursor=nonsense",
        "/runs?nonsense=1",
        "/runs/r/scores?limit=0",
        "/runs/r/scores?cursor=nonsense",
        "/runs/r/scores?cursor=",
        "/runs/r/scores?valid=maybe",
        "/runs/r/scores?min_reward=much",
        "/runs/r/scores?min_reward=NaN",
        "/runs/r/scores?max_reward=nan",
        "/runs/r/scores?nonsense=1",
        "/runs/r/scores?step_from=x",
        "/runs/r?window=x",
        "/runs/r?window=0",
        "/runs/r?window=10001",
    ] {
        server.get(path).problem(400);
    }
}

#[test]
fn a_score_is_read_back_as_it_was_sent() {
    let (server, _database) = stored();
    let request = json!({"run_id": "r", "step": 5, "trajectories": [with(answering("Paris"), "id", json!("a")), with(answering("Lyon"), "id", json!("b")), 7]});
    let response = server.post_with(&[("X-Request-Id", "trace-9")], "/reward", &request).ok();
    for result in response["results"].as_array().unwrap() {
        let found = server.get(&format!("/scores/{}", result["score_id"].as_str().unwrap())).ok();
        assert_eq!(&found["result"], result);
        for field in ["score_id", "id", "group", "reward", "valid", "stage_reached", "failed_stage"] {
            assert_eq!(found[field], result[field], "{field}");
        }
        assert_eq!(
            (&found["run_id"], &found["step"], &found["request_id"]),
            (&json!("r"), &json!(5), &json!("trace-9"))
        );
        assert_eq!(
            (&found["rubric"], &found["rubric_version"]),
            (&response["rubric"]["name"], &response["rubric"]["version"])
        );
        assert_eq!(found["curriculum"], response["curriculum"]);
        assert!(
            !found["engine_version"].as_str().unwrap().is_empty()
                && !found["content_hash"].as_str().unwrap().is_empty()
        );
    }
}

#[test]
fn equal_trajectories_have_equal_content_hashes() {
    let (server, _database) = stored();
    let request = json!({"run_id": "r", "trajectories": [with(answering("Paris"), "id", json!("a")), answering("Lyon"), with(answering("Paris"), "id", json!("b"))]});
    score(&server, &request);
    let rows = items(&server.get("/runs/r/scores"));
    assert_eq!(rows[0]["content_hash"], rows[2]["content_hash"]);
    assert_ne!(rows[0]["content_hash"], rows[1]["content_hash"]);
}

#[test]
fn an_answer_leaves_only_after_its_scores_are_durable() {
    let database = Database::new();
    let mut ids = Vec::new();
    for round in 1..=3 {
        let mut server = database.serve(&[]);
        ids.extend(fill(&server).iter().map(|result| result["score_id"].as_str().unwrap().to_owned()));
        server.crash();
        let server = database.serve(&[]);
        assert_eq!(server.get("/runs/r").ok()["n"], 8 * round);
        for id in &ids {
            server.get(&format!("/scores/{id}")).ok();
        }
    }
}

/// A restored backup may lack a part of one batch: the others are still there to be read.
#[test]
fn a_damaged_batch_is_told_and_passed() {
    let database = Database::new();
    let server = database.serve(&[]);
    for step in 0..4 {
        score(&server, &json!({"run_id": "r", "step": step, "trajectories": [answering("Paris"), answering("Lyon")]}));
    }
    let database = database.open();
    let lost = "DELETE FROM score_rows WHERE batch = (SELECT id FROM batches WHERE step = 2)";
    assert_eq!(database.execute(lost, []).unwrap(), 1);
    for limit in [1, 3, 4, 100] {
        let path = format!("/runs/r/scores?limit={limit}");
        let (mut next, mut before) = (path.clone(), 0);
        let problem = loop {
            let answer = server.get(&next);
            if answer.status != 200 {
                break answer;
            }
            before += items(&answer).len();
            next = format!("{path}&cursor={}", answer.ok()["next_cursor"].as_str().unwrap());
        };
        assert_eq!((before, problem.headers.get("retry-after")), (4, None), "it is the same for ever");
        let problem = problem.problem(500);
        let detail = problem["detail"].as_str().unwrap();
        let cursor = detail.split_once("`cursor=").unwrap().1.split_once('`').unwrap().0;
        let after = pages_from(&server, &path, format!("{path}&cursor={cursor}"));
        assert_eq!(after.iter().map(|row| row["step"].clone()).collect::<Vec<_>>(), [3, 3], "{detail}");
    }
}

#[test]
fn names_of_any_characters_work() {
    let (server, _database) = stored();
    for (run, path) in [
        ("a/b", "a%2Fb"),
        ("ä 漢 😀", "%C3%A4%20%E6%BC%A2%20%F0%9F%98%80"),
        ("a\u{0}b", "a%00b"),
        ("%41", "%2541"),
        ("' OR 1=1 --", "'%20OR%201=1%20--"),
    ] {
        let item = with(with(answering("Paris"), "id", json!(run)), "group", json!(run));
        let response = score(&server, &json!({"run_id": run, "trajectories": [item]}));
        assert_eq!(server.get(&format!("/runs/{path}")).ok()["run_id"], run);
        let rows = items(&server.get(&format!("/runs/{path}/scores?group={path}")));
        assert_eq!(rows.len(), 1, "{run}");
        assert_eq!((&rows[0]["id"], &rows[0]["score_id"]), (&json!(run), &response["results"][0]["score_id"]));
    }
}

#[test]
fn the_store_keeps_what_on_invalid_made_of_a_reward() {
    let (server, _database) = stored();
    score(&server, &json!({"run_id": "r", "on_invalid": "zero", "trajectories": [7, answering("Paris")]}));
    let rows = items(&server.get("/runs/r/scores"));
    assert_eq!((&rows[0]["reward"], &rows[0]["valid"]), (&json!(0.0), &json!(false)));
    assert!(close(server.get("/runs/r").ok()["mean_reward"].as_f64().unwrap(), 1.0), "means take valid rewards only");
}

#[test]
fn concurrent_writers_lose_nothing() {
    let (server, _database) = stored();
    std::thread::scope(|scope| {
        for client in 0..8 {
            let server = &server;
            scope.spawn(move || {
                for n in 0..5 {
                    score(server, &json!({"run_id": "r", "step": n, "trajectories": [with(answering("Paris"), "id", json!(format!("{client}-{n}"))), answering("Lyon")]}));
                }
            });
        }
    });
    assert_eq!(server.get("/runs/r").ok()["n"], 80);
    assert_eq!(all_pages(&server, "/runs/r/scores?limit=7").len(), 80);
}
