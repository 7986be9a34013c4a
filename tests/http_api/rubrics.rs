//! Which rubric scores: by name, pinned, inline, at a curriculum position; and `/rubrics`.

use std::fs;

use serde_json::{Value, json};

use super::contract::{close, score};
use crate::common::{Answer, Server, answering, package, saying, with};

const SHIPPED: [&str; 7] =
    ["binary_em", "binary_judge", "long_form_qa", "search_r1", "short_form_qa", "short_form_qa_curriculum", "tool_use"];

const MINE: &str = "name = \"mine\"\n[[stages]]\nkind = \"answer_format\"\nweight = 1\n[[stages]]\nkind = \"exact_match\"\nweight = 1\n";

fn put(server: &Server, name: &str, token: Option<&str>, text: &str) -> Answer {
    let bearer = format!("Bearer {}", token.unwrap_or_default());
    let mut headers = vec![("Content-Type", "application/toml")];
    if token.is_some() {
        headers.push(("Authorization", &bearer));
    }
    server.send("PUT", &format!("/rubrics/{name}"), &headers, Some(text.as_bytes()))
}

fn check(server: &Server, kind: &str, text: &str) -> Value {
    server.send("POST", "/rubrics/check", &[("Content-Type", kind)], Some(text.as_bytes())).ok()
}

fn reward(server: &Server, rubric: &Value, answer: &str) -> f64 {
    let response = score(server, &json!({"rubric": rubric, "trajectories": [answering(answer)]}));
    response["rewards"][0].as_f64().unwrap()
}

#[test]
fn the_default_rubric_is_the_servers() {
    let server = Server::start(&[]);
    assert_eq!(score(&server, &json!({"trajectories": []}))["rubric"]["name"], "short_form_qa");
    let server = Server::start(&["--default-rubric", "binary_em"]);
    assert_eq!(score(&server, &json!({"trajectories": []}))["rubric"]["name"], "binary_em");
    let listed = server.get("/rubrics").ok();
    let default: Vec<&Value> = listed.as_array().unwrap().iter().filter(|rubric| rubric["default"] == true).collect();
    assert_eq!(default.len(), 1);
    assert_eq!(default[0]["name"], "binary_em");
}

#[test]
fn a_name_with_a_version_pins_it() {
    let server = Server::start(&[]);
    let version = server.get("/rubrics/binary_em").ok()["version"].as_str().unwrap().to_owned();
    let response =
        score(&server, &json!({"rubric": format!("binary_em@{version}"), "trajectories": [answering("Paris")]}));
    assert_eq!(response["rubric"], json!({"name": "binary_em", "version": version}));
    for unknown in ["binary_em@b3-00000000", "nobody", "binary_em@", ""] {
        let problem = server.reward(&json!({"rubric": unknown, "trajectories": []})).problem(404);
        assert_eq!(problem["pointer"], "/rubric", "{unknown}");
    }
}

#[test]
fn an_object_is_an_inline_rubric() {
    let server = Server::start(&[]);
    let rubric = json!({"name": "inline", "stages": [{"kind": "answer_format", "weight": 3}, {"kind": "exact_match", "weight": 1}]});
    assert!(close(reward(&server, &rubric, "Lyon"), 0.75));
    assert!(close(reward(&server, &rubric, "Paris"), 1.0));
    let problem = server.reward(&json!({"rubric": with(rubric, "stages", json!([])), "trajectories": []})).problem(422);
    assert!(problem["pointer"].as_str().unwrap().starts_with("/rubric"), "{problem}");
    let unknown_field = json!({"name": "x", "stages": [{"kind": "exact_match", "weight": 1, "wieght": 2}]});
    let problem = server.reward(&json!({"rubric": unknown_field, "trajectories": []})).problem(422);
    assert!(problem["pointer"].as_str().unwrap().starts_with("/rubric/stages/0"), "{problem}");
    for wrong in [json!(3), json!([]), json!(true)] {
        assert_eq!(server.reward(&json!({"rubric": wrong, "trajectories": []})).problem(422)["pointer"], "/rubric");
    }
}

#[test]
fn the_json_form_of_a_shipped_rubric_scores_inline_as_it_does_by_name() {
    let server = Server::start(&[]);
    for name in SHIPPED {
        let detail = server.get(&format!("/rubrics/{name}")).ok();
        let response = score(&server, &json!({"rubric": detail["rubric"], "trajectories": [answering("Lyon")]}));
        assert_eq!(response["rubric"], json!({"name": name, "version": detail["version"]}));
    }
}

#[test]
fn inline_rubrics_can_be_switched_off() {
    let server = Server::start(&["--inline-rubrics", "false"]);
    let rubric = json!({"name": "inline", "stages": [{"kind": "exact_match", "weight": 1}]});
    assert_eq!(server.reward(&json!({"rubric": rubric, "trajectories": []})).problem(403)["pointer"], "/rubric");
    assert!(close(reward(&server, &json!("binary_em"), "Paris"), 1.0));
}

#[test]
fn the_curriculum_position_is_used_and_echoed() {
    let server = Server::start(&[]);
    let ramp = |over: &str, points: Value| {
        json!({
            "name": "ramp", "stages": [{"kind": "answer_format", "weight": 1}, {"kind": "exact_match", "weight": 1}],
            "schedules": [{"stage": "exact_match", "of": "weight", "over": over, "points": points}],
        })
    };
    let wrong = |rubric: &Value, position: Value| {
        let mut request = position;
        request["rubric"] = rubric.clone();
        request["trajectories"] = json!([answering("Lyon")]);
        let response = score(&server, &request);
        (response["rewards"][0].as_f64().unwrap(), response["curriculum"].clone())
    };
    let by_step = ramp("step", json!([[0, 1], [100, 3]]));
    // Form earns 1 / (1 + w) where w goes from 1 to 3 over a hundred steps.
    for (step, expected) in [(0, 1.0 / 2.0), (50, 1.0 / 3.0), (100, 1.0 / 4.0), (100_000, 1.0 / 4.0)] {
        let (reward, echoed) = wrong(&by_step, json!({"step": step}));
        assert!(close(reward, expected), "step {step}: {reward}");
        assert_eq!(echoed, json!({"step": step, "mastery": {}}));
        let (replaced, echoed) = wrong(&by_step, json!({"curriculum": {"step": step}}));
        assert!(close(replaced, expected), "`curriculum` may replace `step`");
        assert_eq!(echoed["step"], step);
    }
    let by_mastery = ramp("mastery.answer_format", json!([[0.5, 1], [1, 3]]));
    let position = json!({"curriculum": {"step": 120, "mastery": {"answer_format": 0.75}}});
    let (reward, echoed) = wrong(&by_mastery, position.clone());
    assert!(close(reward, 1.0 / 3.0), "{reward}");
    assert_eq!(echoed, position["curriculum"]);
}

#[test]
fn a_scheduled_threshold_opens_and_closes_the_next_stage() {
    let server = Server::start(&[]);
    let rubric = json!({
        "name": "gate", "stages": [{"kind": "f1", "weight": 1}, {"kind": "answer_format", "weight": 1}],
        "schedules": [{"stage": "f1", "of": "threshold", "over": "step", "points": [[0, 0], [10, 1]]}],
    });
    let open = |step: u64| {
        let response =
            score(&server, &json!({"rubric": rubric, "step": step, "trajectories": [answering("Paris on Seine")]}));
        response["results"][0]["stages"][1]["open"] == true
    };
    assert!(open(0) && open(4) && !open(6) && !open(10), "F1 is 0.5");
}

#[test]
fn a_position_that_cannot_be_is_a_wrong_shape() {
    let server = Server::start(&[]);
    for (field, value) in [
        ("step", json!(-1)),
        ("step", json!("3")),
        ("step", json!(1.5)),
        ("curriculum", json!({"mastery": {"tool_parse": 1.5}})),
        ("curriculum", json!({"mastery": {"tool_parse": "high"}})),
        ("curriculum", json!({"steps": 3})),
        ("curriculum", json!(3)),
    ] {
        let mut request = json!({"trajectories": []});
        request[field] = value.clone();
        let problem = server.reward(&request).problem(422);
        assert!(
            problem["pointer"].as_str().unwrap_or_default().starts_with(&format!("/{field}")),
            "{value}: {problem}"
        );
    }
}

#[test]
fn rubrics_lists_and_shows_the_shipped_ones() {
    let server = Server::start(&[]);
    let listed = server.get("/rubrics").ok();
    let names: Vec<&str> = listed.as_array().unwrap().iter().map(|rubric| rubric["name"].as_str().unwrap()).collect();
    assert_eq!(names, SHIPPED);
    for summary in listed.as_array().unwrap() {
        let detail = server.get(&format!("/rubrics/{}", summary["name"].as_str().unwrap())).ok();
        for field in ["name", "version", "description", "stages", "curriculum", "default"] {
            assert_eq!(detail[field], summary[field]);
        }
        assert_eq!(detail["versions"].as_array().unwrap().last(), Some(&summary["version"]));
        let stages: Vec<&Value> = detail["rubric"]["stages"].as_array().unwrap().iter().collect();
        assert_eq!(stages.len(), summary["stages"].as_array().unwrap().len());
    }
    let pinned = format!("/rubrics/tool_use@{}", server.get("/rubrics/tool_use").ok()["version"].as_str().unwrap());
    assert_eq!(server.get(&pinned).ok()["name"], "tool_use");
    server.get("/rubrics/nobody").problem(404);
    server.get("/rubrics/tool_use@b3-00000000").problem(404);
}

#[test]
fn a_text_metric_shows_its_signature() {
    let server = Server::start(&[]);
    let detail = server.get("/rubrics/short_form_qa").ok();
    assert!(detail["signatures"]["la_bleu"].as_str().is_some_and(|signature| signature.contains("tok:")), "{detail}");
}

#[test]
fn check_accepts_every_shipped_file_in_both_forms() {
    let server = Server::start(&[]);
    for name in SHIPPED {
        let text = fs::read_to_string(package(&format!("rubrics/{name}.toml"))).unwrap();
        let found = check(&server, "application/toml", &text);
        assert_eq!((&found["valid"], &found["name"], &found["errors"]), (&json!(true), &json!(name), &json!([])));
        let detail = server.get(&format!("/rubrics/{name}")).ok();
        assert_eq!(found["version"], detail["version"]);
        let found = check(&server, "application/json", &detail["rubric"].to_string());
        assert_eq!(found["version"], detail["version"]);
    }
}

#[test]
fn check_says_line_and_column_of_an_error() {
    let server = Server::start(&[]);
    let cases = [
        ("name = \"x\"\n[[stages]]\nkind = \"exact_match\"\nweight = 1\nthreshold = 1.5\n", 5, "/stages/0/threshold"),
        ("name = \"x\"\n[[stages]]\nkind = \"exact_match\"\nweight = -1\n", 4, "/stages/0/weight"),
        ("name = \"x\"\n[[stages]]\nkind = \"exact\"\nweight = 1\n", 3, "/stages/0/kind"),
        ("name = \"x\"\n\n[[stages]\nkind = 1\n", 3, ""),
        ("name = \"x\"\n[[stages]]\nkind = \"exact_match\"\nweight = 1\nwieght = 2\n", 5, ""),
    ];
    for (text, line, pointer) in cases {
        let found = check(&server, "application/toml", text);
        assert_eq!(found["valid"], false, "{text}");
        let error = &found["errors"][0];
        assert_eq!(error["line"], line, "{error} in {text}");
        assert!(error["column"].as_u64().is_some_and(|column| column >= 1), "{error}");
        assert!(error["pointer"].as_str().unwrap().starts_with(pointer), "{error} in {text}");
        assert!(!error["message"].as_str().unwrap().is_empty());
    }
    for text in ["", "\u{0}", "[", "name = \"x\"", "{}"] {
        assert_eq!(check(&server, "application/toml", text)["valid"], false, "{text:?}");
        assert_eq!(check(&server, "application/json", text)["valid"], false, "{text:?}");
    }
    server
        .send("POST", "/rubrics/check", &[("Content-Type", "application/toml")], Some(b"name = \"\xff\""))
        .problem(400);
}

#[test]
fn check_keeps_nothing() {
    let server = Server::start(&[]);
    assert_eq!(check(&server, "application/toml", MINE)["valid"], true);
    server.get("/rubrics/mine").problem(404);
}

#[test]
fn put_needs_the_admin_token() {
    let server = Server::start(&[]);
    put(&server, "mine", Some("any"), MINE).problem(403);
    let server = Server::start(&["--admin-token", "secret"]);
    let answer = put(&server, "mine", None, MINE);
    answer.problem(401);
    assert!(answer.header("www-authenticate").starts_with("Bearer"));
    put(&server, "mine", Some("wrong"), MINE).problem(403);
    server.get("/rubrics/mine").problem(404);
    assert_eq!(put(&server, "mine", Some("secret"), MINE).ok()["name"], "mine");
}

#[test]
fn put_makes_a_version_current_and_leaves_earlier_ones_pinned() {
    let server = Server::start(&["--admin-token", "secret"]);
    let first = put(&server, "mine", Some("secret"), MINE).ok();
    assert_eq!(first["persisted"], false, "there is no directory");
    assert!(close(reward(&server, &json!("mine"), "Lyon"), 0.5));
    let changed = MINE.replacen("weight = 1", "weight = 3", 1);
    let second = put(&server, "mine", Some("secret"), &changed).ok();
    assert_ne!(first["version"], second["version"]);
    assert!(close(reward(&server, &json!("mine"), "Lyon"), 0.75));
    let pinned = json!(format!("mine@{}", first["version"].as_str().unwrap()));
    assert!(close(reward(&server, &pinned, "Lyon"), 0.5));
    assert_eq!(server.get("/rubrics/mine").ok()["versions"], json!([first["version"], second["version"]]));
}

#[test]
fn a_rubric_that_was_put_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let options = ["--admin-token", "secret", "--rubrics", directory.path().to_str().unwrap()];
    let (toml, json_form) = {
        let server = Server::start(&options);
        let toml = put(&server, "mine", Some("secret"), MINE).ok();
        assert_eq!(toml["persisted"], true);
        assert_eq!(fs::read_to_string(directory.path().join("mine.toml")).unwrap(), MINE, "as it was sent");
        let json_form = json!({"name": "other", "stages": [{"kind": "la_bleu", "weight": 1, "cap": 0.25}]}).to_string();
        let headers = [("Content-Type", "application/json"), ("Authorization", "Bearer secret")];
        (toml, server.send("PUT", "/rubrics/other", &headers, Some(json_form.as_bytes())).ok())
    };
    let server = Server::start(&options);
    assert_eq!(server.get("/rubrics/mine").ok()["version"], toml["version"]);
    assert_eq!(server.get("/rubrics/other").ok()["version"], json_form["version"]);
}

#[test]
fn put_refuses_what_is_no_rubric_and_leaves_the_old_one() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&["--admin-token", "secret", "--rubrics", directory.path().to_str().unwrap()]);
    put(&server, "mine", Some("secret"), MINE).ok();
    let problem =
        put(&server, "mine", Some("secret"), "name = \"mine\"\n[[stages]]\nkind = \"exact_match\"\nweight = 0\n")
            .problem(422);
    assert_eq!(problem["line"], 4, "{problem}");
    put(&server, "yours", Some("secret"), MINE).problem(422);
    let outside = MINE.replacen("mine", "../outside", 1);
    for name in ["..%2Foutside", "../outside", "%2e%2e%2foutside"] {
        let status = put(&server, name, Some("secret"), &outside).status;
        assert!((400..500).contains(&status), "{name}: {status}");
    }
    assert!(!directory.path().parent().unwrap().join("outside.toml").exists());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing half-written stays");
    assert!(close(reward(&server, &json!("mine"), "Lyon"), 0.5));
}

#[test]
fn a_file_of_the_directory_wins_over_a_shipped_rubric() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("binary_em.toml"), MINE.replacen("mine", "binary_em", 1)).unwrap();
    let server = Server::start(&["--rubrics", directory.path().to_str().unwrap()]);
    assert!(close(reward(&server, &json!("binary_em"), "Lyon"), 0.5));
    assert_eq!(
        score(&server, &json!({"rubric": "tool_use", "trajectories": [saying("x")]}))["rubric"]["name"],
        "tool_use"
    );
}

#[test]
fn a_prompt_that_would_never_end_is_refused_with_its_place() {
    let server = Server::start(&[]);
    let doubled = format!("{{{{ answer }}}}{{% set a = [1] %}}{}{{{{ a == a }}}}", "{% set a = [a, a] %}".repeat(40));
    for prompt in [doubled.as_str(), "{{ answer }}{% for a in [answer, answer] %}{% endfor %}"] {
        let text = format!("name = \"x\"\n[[stages]]\nkind = \"judge\"\nweight = 1\nprompt = '''{prompt}'''\n");
        let found = check(&server, "application/toml", &text);
        assert_eq!(found["valid"], false, "{found}");
        let message = found["errors"][0]["message"].as_str().unwrap();
        assert!(message.contains("a prompt") && message.contains("column 13"), "{message}");
    }
}

#[test]
fn a_rubric_of_any_length_is_not_read() {
    let server = Server::start(&["--admin-token", "secret"]);
    let long = format!("{MINE}# {}", "x".repeat(1 << 20));
    let headers = [("Content-Type", "application/toml")];
    server.send("POST", "/rubrics/check", &headers, Some(long.as_bytes())).refused(413, "a rubric has 256 KiB at most");
    put(&server, "mine", Some("secret"), &long).problem(413);
}

/// Its length says nothing of what it holds, and what it holds may be nothing.
#[test]
fn a_packed_rubric_of_any_length_is_not_read() {
    let server = Server::start(&["--admin-token", "secret", "--max-body-bytes", "4096"]);
    let long = format!("{MINE}# {}", "x".repeat(1 << 20));
    let unpacked = zstd::encode_all(long.as_bytes(), 3).unwrap();
    let nothing = zstd::encode_all(&[][..], 3).unwrap();
    let after_nothing =
        |frames: usize| [nothing.repeat(frames), zstd::encode_all(MINE.as_bytes(), 3).unwrap()].concat();
    let put = |path: &str, method: &str, body: &[u8]| {
        let headers =
            [("Content-Type", "application/toml"), ("Content-Encoding", "zstd"), ("Authorization", "Bearer secret")];
        server.send(method, path, &headers, Some(body))
    };
    for (path, method) in [("/rubrics/check", "POST"), ("/rubrics/mine", "PUT")] {
        put(path, method, &after_nothing(100)).ok();
        for too_long in [&unpacked, &after_nothing(1000)] {
            put(path, method, too_long).refused(413, "a rubric has 4096 bytes at most, by --max-body-bytes");
        }
        let problem = put(path, method, b"no frame").problem(400);
        assert_eq!(problem["type"], "urn:gradus:problem:bad-body", "{problem}");
    }
}
