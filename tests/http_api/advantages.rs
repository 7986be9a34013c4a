//! VSPO as a service, end to end: advantages, the value table of a run and draws from it.

use gradus::advantage::{GroupStatistics, PlanConfig, plan, unit_from_seed};
use serde_json::{Value, json};

use crate::common::{Database, Server, answering, with};

fn groups(rewards: &[Vec<f64>]) -> Value {
    rewards.iter().enumerate().map(|(n, rewards)| json!({"group": format!("q{n}"), "rewards": rewards})).collect()
}

fn advantages(server: &Server, request: &Value) -> Value {
    server.post("/advantages", &request).ok()
}

#[test]
fn vspo_gives_the_trainers_own_numbers() {
    let server = Server::start(&[]);
    let rewards: Vec<Vec<f64>> =
        vec![vec![0.0, 1.0, 0.5], vec![0.2; 3], vec![0.1, 0.9, 0.3], vec![1.0; 3], vec![0.4, 0.5, 0.4]];
    let statistics: Vec<_> = rewards.iter().map(|rewards| GroupStatistics::of(&mut rewards.clone(), 1.0)).collect();
    for seed in [0, 7, u64::MAX] {
        let answer = advantages(&server, &json!({"algorithm": "vspo", "seed": seed, "groups": groups(&rewards)}));
        let wanted = plan(&statistics, &PlanConfig::default(), unit_from_seed(seed));
        for (place, group) in answer["groups"].as_array().unwrap().iter().enumerate() {
            assert_eq!(group["group"], format!("q{place}"));
            assert_eq!(group["multiplicity"], wanted.multiplicity[place]);
            assert_eq!(group["factor"].as_f64().unwrap().to_bits(), wanted.factor[place].to_bits());
            for (name, number) in
                [("mean", statistics[place].mean), ("std", statistics[place].std), ("value", statistics[place].value)]
            {
                assert_eq!(group[name].as_f64().unwrap().to_bits(), number.to_bits(), "{name} of {group}");
            }
            assert_eq!(group["kept"], wanted.multiplicity[place] > 0);
        }
        assert_eq!(
            answer,
            advantages(&server, &json!({"algorithm": "vspo", "seed": seed, "groups": groups(&rewards)}))
        );
    }
}

#[test]
fn every_algorithm_by_hand() {
    let server = Server::start(&[]);
    let of = |algorithm: &str| {
        let request =
            json!({"algorithm": algorithm, "epsilon": 0.0, "groups": groups(&[vec![1.0, 0.0], vec![0.5, 0.5]])});
        advantages(&server, &request)["groups"].clone()
    };
    for (algorithm, first) in [
        ("grpo", [1.0, -1.0]),
        ("vspo", [1.0, -1.0]),
        ("dapo", [1.0, -1.0]),
        ("rloo", [1.0, -1.0]),
        ("dr_grpo", [0.5, -0.5]),
    ] {
        let found = of(algorithm);
        assert_eq!(
            (&found[0]["advantages"], &found[1]["advantages"]),
            (&json!(first), &json!([0.0, 0.0])),
            "{algorithm}"
        );
        let kept = !matches!(algorithm, "vspo" | "dapo");
        assert_eq!(found[1]["kept"], kept, "{algorithm}: a group without spread");
    }
    // As in the trainer's batch: so little is no spread, and where nothing else is in it, the batch stays.
    let kept = |algorithm: &str, rewards: &[Vec<f64>]| -> Vec<Value> {
        let found = advantages(&server, &json!({"algorithm": algorithm, "groups": groups(rewards)}));
        found["groups"].as_array().unwrap().iter().map(|group| group["kept"].clone()).collect()
    };
    assert_eq!(kept("dapo", &[vec![0.5, 0.500_001], vec![0.0, 1.0], vec![0.5, 0.500_01]]), [false, true, true]);
    assert_eq!(kept("dapo", &[vec![0.5, 0.5], vec![1.0, 1.0]]), [true, true]);
    for algorithm in ["grpo", "rloo", "dr_grpo", "dapo"] {
        let found = kept(algorithm, &[vec![1.0, 1.0], vec![1.0], vec![]]);
        assert_eq!(found, [true, false, false], "{algorithm}: with one reward there is nothing to compare");
    }
}

#[test]
fn settings_of_vspo_are_heard() {
    let server = Server::start(&[]);
    let of = |vspo: Value| {
        let request = json!({"algorithm": "vspo", "u0": 0.5, "vspo": vspo, "groups": groups(&[vec![1.0, 0.0], vec![0.5, 0.5], vec![0.0, 0.0]])});
        advantages(&server, &request)["groups"][0].clone()
    };
    assert_eq!((&of(json!({}))["multiplicity"], &of(json!({}))["factor"]), (&json!(3), &json!(1.75)));
    assert_eq!(of(json!({"gamma": 1.0, "w_max": null}))["factor"], 3.0);
    assert_eq!(of(json!({"w_max": 1.25}))["factor"], 1.25);
    assert_eq!(of(json!({"mode": "regenerate"}))["factor"], 1.0);
    assert_eq!(of(json!({"sigma_min": 0.6}))["multiplicity"], 1, "nothing has so much spread: the batch stays");
}

#[test]
fn settings_beside_vspos_are_heard() {
    let server = Server::start(&[]);
    let ask = |more: Value| {
        let mut request = json!({"algorithm": "vspo", "groups": groups(&[vec![1.0, 0.0], vec![1.0, 1.0]])});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        advantages(&server, &request)
    };
    assert_eq!(ask(json!({"u0": 0.9}))["u0"], 0.9);
    let std = |unbiased: bool| ask(json!({"unbiased": unbiased}))["groups"][0]["std"].as_f64().unwrap();
    assert!((std(false) - 0.5).abs() < 1e-12 && (std(true) - 0.5_f64.sqrt()).abs() < 1e-12);
    // Z is of groups with less than sigma_min; at it they stay.
    assert_eq!(ask(json!({"vspo": {"sigma_min": 0.5}}))["groups"][0]["multiplicity"], 2);
    // V = (R_max - mean) std, whatever the largest reward is.
    assert_eq!(ask(json!({"max_reward": 2.0}))["groups"][0]["value"], 0.75);
    assert_eq!(ask(json!({"epsilon": 0.5}))["groups"][0]["advantages"], json!([0.5, -0.5]));
    assert_eq!(ask(json!({"seed": 7}))["u0"], unit_from_seed(7));
}

#[test]
fn what_is_left_out_is_as_the_document_says() {
    let server = Server::start(&[]);
    let of = |request: Value| advantages(&server, &request)["groups"].clone();
    let small = groups(&[vec![0.0, 2e-6]]);
    let found = of(json!({"algorithm": "grpo", "groups": small}))[0]["advantages"][1].as_f64().unwrap();
    assert!((found - 0.5).abs() < 1e-9, "epsilon = 1e-6: {found}");
    let flat = groups(&[vec![0.0, 1.0], vec![0.0, 1e-6], vec![0.0, 4e-6]]);
    let kept: Vec<Value> =
        (0..3).map(|n| of(json!({"algorithm": "vspo", "groups": flat}))[n]["kept"].clone()).collect();
    assert_eq!(kept, [true, false, true], "sigma_min = 1e-6");
    let vspo = |vspo: Value| {
        let batch = groups(&[vec![0.0, 1.0], vec![1.0; 2], vec![1.0; 2], vec![1.0; 2]]);
        of(json!({"algorithm": "vspo", "vspo": vspo, "groups": batch}))[0]["factor"].clone()
    };
    assert_eq!((vspo(json!({})), vspo(json!({"gamma": 1.0}))), (json!(1.875), json!(2.0)), "gamma = 0.5, w_max = 2");
}

#[test]
fn uniform_sampling_draws_all_that_have_spread_alike() {
    let server = Server::start(&[]);
    let batch = groups(&[vec![0.0, 1.0], vec![0.9, 1.0], vec![0.5; 2], vec![0.5; 2]]);
    for (sampling, wanted) in [("value", [3, 1, 0, 0]), ("uniform", [2, 2, 0, 0])] {
        let request = json!({"algorithm": "vspo", "u0": 0.0, "vspo": {"sampling": sampling}, "groups": batch});
        let found = advantages(&server, &request)["groups"].clone();
        let found: Vec<&Value> = found.as_array().unwrap().iter().map(|group| &group["multiplicity"]).collect();
        assert_eq!(found, wanted, "{sampling}");
    }
}

#[test]
fn a_rollout_without_a_reward_counts_nowhere() {
    let server = Server::start(&[]);
    let answer =
        advantages(&server, &json!({"algorithm": "dr_grpo", "groups": [{"group": 7, "rewards": [1.0, null, 0.0]}]}));
    let group = &answer["groups"][0];
    assert_eq!((&group["group"], &group["n"], &group["mean"]), (&json!(7), &json!(2), &json!(0.5)));
    assert_eq!(group["advantages"], json!([0.5, null, -0.5]));
    let named = advantages(&server, &json!({"algorithm": "grpo", "groups": [{"group": -7, "rewards": []}]}));
    assert_eq!(named["groups"][0]["group"], -7);
}

#[test]
fn what_is_out_of_range_is_named() {
    let server = Server::start(&[]);
    let base = json!({"algorithm": "vspo", "groups": [{"group": "a", "rewards": [0.0, 1.5]}]});
    assert_eq!(server.post("/advantages", &base).problem(422)["pointer"], "/groups/0/rewards/1");
    let fine = with(base.clone(), "max_reward", json!(2.0));
    advantages(&server, &fine);
    for (field, value, pointer) in [
        ("u0", json!(1.0), "/u0"),
        ("u0", json!(-0.1), "/u0"),
        ("epsilon", json!(-1.0), "/epsilon"),
        ("epsilon", json!(1.5), "/epsilon"),
        // Sums beyond it would be infinite, which JSON cannot say.
        ("max_reward", json!(1e101), "/max_reward"),
        ("max_reward", json!(-1e101), "/max_reward"),
        ("groups", json!([{"group": "a", "rewards": [0.0, -1e101]}]), "/groups/0/rewards/1"),
        ("groups", json!([{"group": null, "rewards": [1.0]}]), "/groups/0/group"),
        ("groups", json!([{"group": {"a": 1}, "rewards": [1.0]}]), "/groups/0/group"),
        ("vspo", json!({"gamma": 2.0}), "/vspo/gamma"),
        ("vspo", json!({"gamma": -0.5}), "/vspo/gamma"),
        ("vspo", json!({"sigma_min": -1.0}), "/vspo/sigma_min"),
        ("vspo", json!({"w_max": 0.0}), "/vspo/w_max"),
        ("vspo", json!({"gama": 1.0}), "/vspo/gama"),
        ("algorithm", json!("ppo"), "/algorithm"),
        ("groups", json!([{"group": "a", "rewards": ["x"]}]), "/groups/0/rewards/0"),
        // A list is no object, whatever stands in it.
        ("groups", json!([["a", [1.0, 0.0]]]), "/groups/0"),
        ("groups", json!([{"group": "a", "rewards": []}, []]), "/groups/1"),
        ("vspo", json!([1.0]), "/vspo"),
        ("vspo", json!([]), "/vspo"),
        ("vspo", json!(null), "/vspo"),
    ] {
        let problem = server.post("/advantages", &with(fine.clone(), field, value)).problem(422);
        assert_eq!(problem["pointer"], pointer, "{problem}");
    }
    let many = |groups: usize, rewards: usize| {
        let rewards = vec!["0"; rewards].join(",");
        let group = |n: usize| format!(r#"{{"group":{n},"rewards":[{rewards}]}}"#);
        format!(r#"{{"algorithm":"grpo","groups":[{}]}}"#, (0..groups).map(group).collect::<Vec<_>>().join(","))
    };
    server.post("/advantages", &many(64, 16_384)).ok();
    assert_eq!(server.post("/advantages", &many(65_537, 0)).problem(422)["pointer"], "/groups");
    server.post("/advantages", &many(65_536, 0)).ok();
    let named = format!(r#"{{"group":"\"{}","rewards":[1]}}"#, ",".repeat(3_000_000));
    server.post("/advantages", &format!(r#"{{"algorithm":"grpo","groups":[{named}]}}"#)).ok();
    for body in [many(64, 16_385), many(1, 3_000_000)] {
        let problem = server.post("/advantages", &body).refused(422, "1048576");
        assert_eq!(problem["pointer"], "/groups", "{problem}");
    }
    assert_eq!(advantages(&server, &json!({"algorithm": "grpo", "groups": []}))["groups"], json!([]));
}

/// A server with a run: `q0` half right in step 1 and all right in step 2, `q1` half right, `q2` all wrong.
fn server_with_run(database: &Database) -> Server {
    let server = database.serve(&[]);
    let of = |group: &str, answer: &str| with(answering(answer), "group", json!(group));
    let score = |step: u64, trajectories: Vec<Value>| {
        server.reward(&json!({"rubric": "binary_em", "run_id": "r", "step": step, "trajectories": trajectories})).ok();
    };
    score(1, vec![of("q0", "Paris"), of("q1", "Paris"), of("q2", "Lyon"), of("q2", "Lyon")]);
    // The rest of two groups, in a request of their own.
    score(1, vec![of("q0", "Lyon"), of("q1", "Lyon"), json!({"group": "q1", "messages": 3})]);
    score(2, vec![of("q0", "Paris"), of("q0", "Paris")]);
    server
}

#[test]
fn the_value_table_has_the_latest_visit_and_the_averages() {
    let database = Database::new();
    let server = server_with_run(&database);
    let table = server.get("/runs/r/prompts").ok();
    assert_eq!((&table["run_id"], &table["prompts"]), (&json!("r"), &json!(3)));
    let items = table["items"].as_array().unwrap();
    let names: Vec<&Value> = items.iter().map(|item| &item["group"]).collect();
    assert_eq!(names, ["q1", "q0", "q2"], "by value, then by name");
    assert_eq!(
        items[0],
        json!({"group": "q1", "visits": 1, "n": 2, "mean": 0.5, "std": 0.5, "value": 0.25,
            "mean_average": 0.5, "std_average": 0.5, "value_average": 0.25, "last_step": 1})
    );
    assert_eq!(
        (&items[1]["visits"], &items[1]["mean"], &items[1]["value"], &items[1]["last_step"]),
        (&json!(2), &json!(1.0), &json!(0.0), &json!(2))
    );
    for (name, average) in [("mean_average", 0.65), ("std_average", 0.35), ("value_average", 0.175)] {
        assert!((items[1][name].as_f64().unwrap() - average).abs() < 1e-12, "{name} of {}", items[1]);
    }
    let first = |query: &str| server.get(&format!("/runs/r/prompts?limit=1&{query}")).ok()["items"][0]["group"].clone();
    assert_eq!(
        (first("order=mean"), first("order=visits"), first("order=value_average")),
        (json!("q2"), json!("q1"), json!("q1"))
    );
    assert_eq!(server.get("/runs/r/prompts?limit=1").ok()["prompts"], 3, "those of the run, not of the page");
    // Steps that overlap, or a run that went back to an earlier checkpoint: the latest visit is that of the largest step.
    let again = [with(answering("Lyon"), "group", json!("q2"))];
    server.reward(&json!({"rubric": "binary_em", "run_id": "r", "step": 9, "trajectories": again})).ok();
    let more = [again[0].clone(), with(answering("Paris"), "group", json!("q2"))];
    server.reward(&json!({"rubric": "binary_em", "run_id": "r", "step": 3, "trajectories": more})).ok();
    let items = server.get("/runs/r/prompts").ok()["items"].clone();
    let visited = items.as_array().unwrap().iter().find(|item| item["group"] == "q2").unwrap();
    assert_eq!(
        (&visited["visits"], &visited["n"], &visited["last_step"]),
        (&json!(3), &json!(1), &json!(9)),
        "{visited}"
    );
    // Steps 1, 3 and 9 had 0, 0.5 and 0.
    assert!((visited["mean_average"].as_f64().unwrap() - 0.105).abs() < 1e-12, "{visited}");
    server.get("/runs/r/prompts?order=luck").problem(400);
    server.get("/runs/r/prompts?limit=0").problem(400);
    server.get("/runs/nobody/prompts").problem(404);
}

#[test]
fn prompts_are_listed_by_what_is_asked_for() {
    let database = Database::new();
    let server = database.serve(&[]);
    // Rewards from 0 to 2, by F1.
    let rubric = json!({"name": "wide", "answer": {"from": "answer_tag"}, "reward": {"min": 0.0, "max": 2.0},
        "stages": [{"kind": "f1", "weight": 1}]});
    let score = |step: u64, group: &str, answers: &[&str]| {
        let items = answers
            .iter()
            .map(|answer| with(with(answering(answer), "group", json!(group)), "references", json!(["x y"])));
        let request = json!({"rubric": rubric, "run_id": "w", "step": step, "trajectories": items.collect::<Vec<_>>()});
        server.reward(&request).ok();
    };
    // Once of much value and then of none; never of much.
    score(1, "once", &["x y", "v"]);
    score(2, "once", &["v", "v"]);
    score(1, "now", &["x y", "x z"]);
    // Of much spread and little value, since nearly all are right; and all right at last.
    score(1, "easy", &[&["x y"; 9][..], &["v"]].concat());
    score(1, "late", &["v", "v"]);
    score(2, "late", &["x y", "x y"]);
    let first = |order: &str| server.get(&format!("/runs/w/prompts?limit=1&order={order}")).ok()["items"][0].clone();
    let now = first("value");
    // V = (2 - 1.5) * 0.5.
    assert_eq!((&now["group"], &now["std"], &now["value"]), (&json!("now"), &json!(0.5), &json!(0.25)));
    assert_eq!((&first("std")["group"], &first("mean")["group"]), (&json!("easy"), &json!("once")));
    let once = first("value_average");
    assert_eq!((&once["group"], &once["value"]), (&json!("once"), &json!(0.0)), "{once}");
}

#[test]
fn prompts_are_drawn_by_value_and_seed() {
    let database = Database::new();
    let server = server_with_run(&database);
    let draw = |request: Value| server.post("/runs/r/sample", &request).ok();
    assert_eq!(draw(json!({"count": 3}))["groups"], json!(["q1", "q1", "q1"]), "only one has any value");
    let average = draw(json!({"count": 17, "seed": 7, "by": "average"}));
    assert_eq!(average["counts"], json!({"q0": 7, "q1": 10}), "0.175 to 0.25");
    assert_eq!(average, draw(json!({"count": 17, "seed": 7, "by": "average"})));
    assert_eq!((&average["u0"], &average["sampling"]), (&json!(unit_from_seed(7)), &json!("value")));
    assert_eq!(draw(json!({"count": 3, "sampling": "uniform"}))["groups"], json!(["q0", "q1", "q2"]));
    for bad in [json!({}), json!({"count": 0}), json!({"count": 65_537}), json!({"count": 2, "sead": 1})] {
        server.post("/runs/r/sample", &bad).problem(422);
    }
    assert_eq!(draw(json!({"count": 3.0, "seed": 7.0})), draw(json!({"count": 3, "seed": 7})));
    for bad in [json!({"count": "3"}), json!({"count": -3}), json!({"count": 1, "seed": 0.5})] {
        let said = server.post("/runs/r/sample", &bad.to_string()).problem(422)["detail"].to_string();
        assert!(said.contains("a whole number from 0"), "{said}");
    }
    // Where nothing is worth anything, all are alike; where no score has a group, there is nothing to draw.
    let score = |run: &str, items: Vec<Value>| {
        server.reward(&json!({"rubric": "binary_em", "run_id": run, "trajectories": items})).ok();
    };
    score("flat", ["a", "b"].map(|group| with(answering("Paris"), "group", json!(group))).to_vec());
    let flat = server.post("/runs/flat/sample", r#"{"count": 2}"#).ok();
    assert_eq!((&flat["groups"], &flat["sampling"]), (&json!(["a", "b"]), &json!("uniform")));
    score("alone", vec![answering("Paris")]);
    assert_eq!(
        server.post("/runs/alone/sample", r#"{"count": 1}"#).problem(404)["type"],
        "urn:gradus:problem:no-prompts"
    );
    server.post("/runs/nobody/sample", r#"{"count": 1}"#).problem(404);
}

#[test]
fn a_choice_of_another_type_is_a_wrong_shape() {
    let server = Server::start(&[]);
    let wrong = [json!(5), json!(null), json!(true), json!([]), json!({}), json!({"value": null}), json!("guess")];
    for wrong in &wrong {
        for (path, body, pointer) in [
            ("/advantages", json!({"algorithm": wrong, "groups": []}), "/algorithm"),
            ("/advantages", json!({"algorithm": "vspo", "groups": [], "vspo": {"mode": wrong}}), "/vspo/mode"),
            ("/advantages", json!({"algorithm": "vspo", "groups": [], "vspo": {"sampling": wrong}}), "/vspo/sampling"),
            ("/runs/r/sample", json!({"count": 1, "sampling": wrong}), "/sampling"),
            ("/runs/r/sample", json!({"count": 1, "by": wrong}), "/by"),
        ] {
            assert_eq!(server.post(path, &body).problem(422)["pointer"], pointer, "{body}");
        }
    }
}

#[test]
fn a_group_without_a_reward_has_no_numbers() {
    let server = Server::start(&[]);
    for algorithm in ["vspo", "grpo", "dapo", "rloo", "dr_grpo"] {
        let request = json!({"algorithm": algorithm, "groups": [{"group": "a", "rewards": [null, null]}, {"group": "b", "rewards": []}]});
        for group in advantages(&server, &request)["groups"].as_array().unwrap() {
            assert_eq!(group["n"], 0);
            assert!(["mean", "std", "value"].iter().all(|name| group[*name].is_null()), "{group}");
        }
    }
}

/// Two of one name cannot be told apart in the answer, nor in a client's table by group.
#[test]
fn a_group_that_comes_twice_is_refused() {
    let server = Server::start(&[]);
    let group = |name: &Value| json!({"group": name, "rewards": [0.0, 1.0]});
    for names in [[json!("q1"), json!("q1")], [json!(7), json!("7")]] {
        let request = json!({"algorithm": "grpo", "groups": [group(&names[0]), group(&names[1])]});
        let problem = server.post("/advantages", &request).problem(422);
        assert_eq!(problem["pointer"], "/groups/1/group", "{problem}");
    }
    advantages(&server, &json!({"algorithm": "grpo", "groups": [group(&json!("q1")), group(&json!("q2"))]}));
}
