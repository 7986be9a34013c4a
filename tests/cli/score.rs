//! `gradus score`: files, standard input, results, the summary, lines that are wrong.

use super::*;

#[test]
fn a_file_of_requests_gives_a_result_per_trajectory_and_a_summary_per_rubric() {
    let gradus = Gradus::new();
    let requests = requests();
    let file = gradus.file("requests.jsonl", jsonl(&requests));
    let out = gradus.path("results.jsonl");
    let ran = gradus.run(&["score", &file, "--out", &out]).exits(0);
    let results = results(&std::fs::read_to_string(out).unwrap());

    let ids =
        |trajectories: &Value| trajectories.as_array().unwrap().iter().map(|t| t["id"].clone()).collect::<Vec<_>>();
    let wanted: Vec<_> = requests.iter().flat_map(|request| ids(&request["trajectories"])).collect();
    assert!(wanted.len() >= 40);
    assert_eq!(results.iter().map(|result| result["id"].clone()).collect::<Vec<_>>(), wanted, "in order");

    for rubric in ["short_form_qa", "binary_em", "tool_use", "search_r1"] {
        let n: usize = requests
            .iter()
            .filter(|request| request["rubric"].as_str().unwrap_or("short_form_qa") == rubric)
            .map(|request| request["trajectories"].as_array().unwrap().len())
            .sum();
        let line = ran.out.lines().find(|line| line.starts_with(&format!("{rubric}@b3-"))).unwrap();
        assert!(n > 0 && line.contains(&format!(": {n} scored, 0 not; mean reward ")), "{n}: {line}");
    }
}

#[test]
fn the_summary_adds_up() {
    let gradus = Gradus::new();
    let mut request = read(&trajectory_case("search_r1_group_of_four"));
    request["rubric"] = json!("search_r1");
    let file = gradus.file("group.jsonl", jsonl(&[request]));
    let ran = gradus.run(&["score", &file, "--out", "results.jsonl"]).exits(0);
    let results = gradus.results("results.jsonl");
    let rewards: Vec<f64> = results.iter().map(|result| result["reward"].as_f64().unwrap()).collect();
    let mean = rewards.iter().sum::<f64>() / 4.0;
    ran.out_has(&format!("4 scored, 0 not; mean reward {mean:.4}"));
    // Per stage: how many reached it, how many passed, the mean over those that reached it.
    for (index, name) in ["tool_parse", "answer_format", "la_bleu"].into_iter().enumerate() {
        let stages: Vec<_> =
            results.iter().map(|result| &result["stages"][index]).filter(|stage| stage["open"] == true).collect();
        let passed = stages.iter().filter(|stage| stage["passed"] == true).count();
        let mean = stages.iter().map(|stage| stage["score"].as_f64().unwrap()).sum::<f64>() / stages.len() as f64;
        let row = ran.stage(name);
        assert_eq!((row.0, row.1), (stages.len(), passed), "{name}:\n{}", ran.out);
        assert!((row.2 - mean).abs() <= 0.0005, "{name}: {} and {mean}", row.2);
    }
    // The histogram holds every reward once.
    let bins = ran.out.lines().filter(|line| line.trim_start().starts_with('['));
    let counts: Vec<usize> = bins
        .map(|line| line.split([')', ']']).nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap())
        .collect();
    assert_eq!((counts.len(), counts.iter().sum::<usize>()), (10, 4), "{}", ran.out);
    let last = ran.out.lines().rfind(|line| line.trim_start().starts_with('[')).unwrap();
    assert!(last.ends_with('█'), "the right one stands in the last bin, which is closed: {last}");
}

#[test]
fn standard_input_is_scored_like_a_file() {
    let gradus = Gradus::new();
    let lines = jsonl(&requests());
    let file = gradus.file("requests.jsonl", &lines);
    let from_file = gradus.run(&["score", &file, "--out", "a"]).exits(0);
    let from_input = gradus.run_with(&["score", "-", "--out", "b"], &[], &lines).exits(0);
    let read = |name: &str| timeless(results(&std::fs::read_to_string(gradus.path(name)).unwrap()));
    assert_eq!(read("a"), read("b"));
    assert_eq!(from_file.out, from_input.out);
}

#[test]
fn a_line_may_be_a_trajectory_of_its_own() {
    let gradus = Gradus::new();
    let file = gradus.file("trajectories.jsonl", jsonl(&right_and_wrong()));
    let ran = gradus.run(&["score", &file]).exits(0);
    assert!(ran.out.starts_with("short_form_qa@b3-"), "{}", ran.out);
    assert_eq!(ran.stage("la_bleu"), (2, 1, 0.5));
}

#[test]
fn a_json_file_is_one_request_or_one_trajectory() {
    let gradus = Gradus::new();
    let request = trajectory_case("hermes_river_right");
    let ran = gradus.run(&["score", request.to_str().unwrap()]).exits(0);
    ran.out_has("1 scored, 0 not; mean reward 1.0000");
    let [_, wrong] = right_and_wrong();
    let file = gradus.file("wrong.json", serde_json::to_string_pretty(&wrong).unwrap());
    gradus.run(&["score", &file]).exits(0).out_has("1 scored, 0 not; mean reward 0.3000");
}

#[test]
fn a_json_file_may_be_packed_whatever_its_name_says() {
    let gradus = Gradus::new();
    let request = serde_json::to_string_pretty(&json!({"trajectories": right_and_wrong()})).unwrap();
    for name in ["packed.json", "packed.json.gz"] {
        let file = gradus.file(name, gzip(request.as_bytes()));
        assert!(gradus.run(&["score", &file]).exits(0).out.contains("2 scored, 0 not"), "{name}");
    }
}

#[test]
fn the_rubric_is_a_name_a_pinned_version_or_a_file() {
    let gradus = Gradus::new();
    let lines = jsonl(&right_and_wrong());
    let score = |rubric: &str| gradus.run_with(&["score", "-", "--rubric", rubric], &[], &lines);
    let by_name = score("binary_em").exits(0).out;
    let pinned = by_name.split(':').next().unwrap();
    assert!(pinned.starts_with("binary_em@b3-"), "{by_name}");
    assert_eq!(score(pinned).exits(0).out, by_name);
    let file = gradus.file("strict.toml", "name = \"strict\"\n[[stages]]\nkind = \"exact_match\"\nweight = 1\n");
    assert!(score(&file).exits(0).out.starts_with("strict@b3-"));
    score("nobody").exits(1).err_has("there is no rubric \"nobody\"");
    score("missing.toml").exits(1).err_has("cannot read missing.toml");
    let broken = gradus.file("broken.toml", "name = \"broken\"\nstages = []\n");
    score(&broken).exits(1).err_has("line 2, column 10");
}

/// At step 0 form weighs 1 of 4, at step 100 and later 3 of 6: a wrong answer in the right place.
#[test]
fn the_step_moves_a_rubric_with_a_curriculum() {
    let gradus = Gradus::new();
    let rubric = rubric_case("fine_curriculum");
    let [_, wrong] = right_and_wrong();
    let mean = |step: &str| {
        let arguments = ["score", "-", "--rubric", &rubric, "--step", step];
        let out = gradus.run_with(&arguments, &[], &jsonl(std::slice::from_ref(&wrong))).exits(0).out;
        reward_in(&out)
    };
    assert_eq!([mean("0"), mean("50"), mean("100"), mean("9999")], ["0.2500", "0.4000", "0.5000", "0.5000"]);
}

#[test]
fn bad_lines_are_named_by_number_and_the_others_are_scored() {
    let gradus = Gradus::new();
    let [right, wrong] = right_and_wrong();
    let unknown = json!({"rubric": "nobody", "trajectories": [right]});
    let misshapen = json!({"trajectories": "none"});
    let lines = format!("{right}\n{{\"messages\": [}}\n\n{wrong}\n{unknown}\nnot json\n{misshapen}\n{right}\n");
    let file = gradus.file("bad.jsonl", lines);
    let ran = gradus.run(&["score", &file]).exits(1);
    assert!(ran.out.contains("3 scored, 2 not"), "a line that cannot be read is no score: {}", ran.out);
    assert!(ran.out.ends_with("\n2 requests refused\n"), "{}", ran.out);
    let said = |line: usize| {
        let name = format!("bad.jsonl, line {line}: ");
        ran.err
            .lines()
            .find(|text| text.contains(&name))
            .unwrap_or_else(|| panic!("nothing on line {line}:\n{}", ran.err))
    };
    assert!(said(2).contains("not JSON"));
    assert!(said(5).contains("there is no rubric \"nobody\""));
    assert!(said(6).contains("not JSON"));
    assert!(said(7).contains("/trajectories"));
    assert_eq!(ran.err.lines().filter(|line| line.contains(", line ")).count(), 4, "{}", ran.err);
}

#[test]
fn a_trajectory_that_cannot_be_scored_is_counted_by_its_code() {
    let gradus = Gradus::new();
    let [right, _] = right_and_wrong();
    let no_turn = json!({"id": "no-turn", "messages": [{"role": "user", "content": "?"}], "references": ["x"]});
    let mut no_reference = right.clone();
    no_reference.as_object_mut().unwrap().remove("references");
    let lines = jsonl(&[right, no_turn, no_reference]);
    let ran = gradus.run_with(&["score", "-", "--out", "out"], &[], &lines).exits(1);
    ran.out_has("1 scored, 2 not; mean reward 1.0000");
    assert!(ran.out.contains("1 x item_malformed") && ran.out.contains("1 x references_missing"), "{}", ran.out);
    let results = gradus.results("out");
    assert_eq!(results[1]["id"], "no-turn");
    assert_eq!((&results[1]["valid"], &results[1]["reward"]), (&json!(false), &Value::Null));
}

#[test]
fn without_a_judge_a_judged_rubric_gives_no_reward() {
    let gradus = Gradus::new();
    let lines = jsonl(&right_and_wrong());
    let ran = gradus.run_with(&["score", "-", "-r", "long_form_qa"], &[], &lines).exits(1);
    assert!(ran.out.contains("0 scored, 2 not") && ran.out.contains("2 x judge_unavailable"), "{}", ran.out);
    assert!(!ran.out.contains("mean reward"), "of nothing there is no mean: {}", ran.out);
}

#[test]
fn an_empty_file_is_no_error() {
    let gradus = Gradus::new();
    let ran = gradus.run_with(&["score", "-"], &[], "\n\n").exits(0);
    assert_eq!(ran.out, "");
}

/// Lines are scored in chunks: nothing is lost, repeated or misnumbered where one ends.
#[test]
fn more_lines_than_fit_a_chunk_are_scored_once_each_and_in_order() {
    let gradus = Gradus::new();
    let [right, _] = right_and_wrong();
    let mut lines = String::new();
    for number in 1..=1500 {
        let mut one = right.clone();
        one["id"] = json!(number);
        writeln!(lines, "{}", if number == 1100 { "broken".to_owned() } else { one.to_string() }).unwrap();
    }
    let ran = gradus.run_with(&["score", "-", "--out", "out"], &[], &lines).exits(1);
    ran.out_has("1499 scored, 1 not");
    ran.err_has("line 1100: not JSON");
    let results = gradus.results("out");
    // One result for each line, the broken one's too: whoever joins them by number gets the right ones.
    assert_eq!(results.len(), 1500);
    for (number, result) in (1..).zip(&results) {
        match number {
            1100 => {
                assert_eq!((&result["valid"], &result["errors"][0]["code"]), (&json!(false), &json!("item_malformed")));
            }
            _ => assert_eq!(result["id"], number.to_string()),
        }
    }
}

#[test]
fn lines_that_are_no_text_have_results_however_many_there_are() {
    let gradus = Gradus::new();
    let [right, _] = right_and_wrong();
    let mut lines = format!("{right}\n").into_bytes();
    for _ in 0..5000 {
        lines.extend(b"caf\xe9\n");
    }
    lines.extend(format!("{right}\n").bytes());
    let file = gradus.file("latin.jsonl", lines);
    gradus.run(&["score", &file, "--out", "out"]).exits(1).err_has("latin.jsonl, line 5001: not UTF-8");
    let results = gradus.results("out");
    assert_eq!(results.len(), 5002);
    assert_eq!((&results[0]["reward"], &results[5001]["reward"]), (&json!(1.0), &json!(1.0)));
}

/// The same trajectory as a line, as a request, and as a request that says otherwise.
#[test]
fn the_arguments_win_over_what_a_request_says() {
    let gradus = Gradus::new();
    let rubric = rubric_case("fine_curriculum");
    let [_, wrong] = right_and_wrong();
    for line in [
        wrong.clone(),
        json!({"trajectories": [wrong]}),
        json!({"rubric": "binary_em", "step": 0, "trajectories": [wrong]}),
    ] {
        let arguments = ["score", "-", "--rubric", &rubric, "--step", "100"];
        let out = gradus.run_with(&arguments, &[], &jsonl(&[line])).exits(0).out;
        assert!(out.lines().next().unwrap().ends_with(" 0.5000"), "{out}");
    }
}

#[test]
fn two_steps_that_differ_are_refused_unless_the_arguments_say_another() {
    let gradus = Gradus::new();
    let [right, _] = right_and_wrong();
    let line = jsonl(&[json!({"step": 1, "curriculum": {"step": 2}, "trajectories": [right]})]);
    for arguments in [&["score", "-"][..], &["score", "-", "--rubric", "binary_em"]] {
        let said = gradus.run_with(arguments, &[], &line).exits(1).err;
        assert!(said.contains("the step is 2 here and 1 in `step`"), "{said}");
    }
    gradus.run_with(&["score", "-", "--rubric", "binary_em", "--step", "3"], &[], &line).exits(0);
    let explain = ["rubric", "explain", "binary_em", "-"];
    gradus.run_with(&explain, &[], &line).exits(1);
    gradus.run_with(&[&explain[..], &["--step", "3"]].concat(), &[], &line).exits(0);
}

#[test]
fn a_judge_is_opened_for_who_asks_one() {
    let gradus = Gradus::new();
    let endpoint = "endpoints = [{ url = \"http://127.0.0.1:1\", api_key_env = \"NO_SUCH_KEY\" }]";
    let config = gradus.file("judges.toml", format!("[judges.default]\nmodel = \"m\"\n{endpoint}\n"));
    let [right, wrong] = right_and_wrong();
    let file = gradus.file("right.jsonl", jsonl(std::slice::from_ref(&right)));
    let run = |arguments: &[&str]| gradus.run(&[&["--config", &config], arguments].concat());
    run(&["score", &file]).exits(0);
    run(&["rubric", "explain", "short_form_qa", &file]).exits(0);
    for asking in [
        &["score", &file, "--out", "out", "--rubric", "long_form_qa"][..],
        &["score", &file, "--out", "out", "--default-rubric", "long_form_qa"],
        &["rubric", "explain", "long_form_qa", &file],
    ] {
        let said = run(asking).exits(1).err;
        assert!(said.contains("judge \"default\": ") && said.contains("names `NO_SUCH_KEY`"), "{said}");
        assert!(!Path::new(&gradus.path("out")).exists(), "before anything is written");
    }
    // Where a request names the rubric, what stands before it is scored.
    let named = json!({"rubric": "long_form_qa", "trajectories": [right]});
    let file = gradus.file("mixed.jsonl", jsonl(&[wrong, named]));
    let ran = run(&["score", &file]).exits(1);
    assert!(
        ran.out.starts_with("short_form_qa@") && ran.err.contains("names `NO_SUCH_KEY`"),
        "{} {}",
        ran.out,
        ran.err
    );
}

#[test]
fn a_group_that_is_to_be_put_in_order_is_not_torn_apart_unsaid() {
    let gradus = Gradus::new();
    let rank =
        "name = \"order\"\n[[stages]]\nkind = \"judge\"\nmode = \"rank\"\ncriteria = \"Is it right?\"\nweight = 1\n";
    let rubric = gradus.file("order.toml", rank);
    let [right, _] = right_and_wrong();
    let line = |group: &str| {
        let mut one = right.clone();
        one["group"] = json!(group);
        one
    };
    let said = |groups: &[(&str, usize)], code| {
        let lines: Vec<_> = groups.iter().flat_map(|(group, times)| vec![line(group); *times]).collect();
        gradus.run_with(&["score", "-", "--rubric", &rubric], &[], &jsonl(&lines)).exits(code).err
    };
    // Equal answers need no judge.
    assert!(!said(&[("a", 510), ("b", 8)], 0).contains("bring the lines of a group together"));
    let apart = said(&[("a", 1), ("b", 512), ("a", 1)], 1);
    assert!(apart.contains("line 514: the group \"a\" has members too far before"), "{apart}");
    // One that is larger than a request may be is torn apart.
    let large = said(&[("a", 4097)], 1);
    assert!(large.contains("line 4097: the group \"a\" has members too far before"), "{large}");
}

#[test]
fn wrong_arguments_say_what_to_do() {
    let gradus = Gradus::new();
    gradus.run(&["score"]).exits(2).err_has("<FILE>");
    gradus.run(&["score", "a", "--replay", "b"]).exits(2).err_has("cannot be used with");
    gradus.run(&["score", "missing.jsonl"]).exits(1).err_has("cannot read missing.jsonl");
    let broken = gradus.file("broken.json", "{\"messages\": ");
    gradus.run(&["score", &broken]).exits(1).err_has("broken.json");
}

/// Whoever puts results beside their lines must not come to another one.
#[test]
fn a_request_that_is_refused_has_a_result_for_all_of_it() {
    let gradus = Gradus::new();
    let [right, wrong] = right_and_wrong();
    let nobody = json!({"rubric": "nobody", "trajectories": [right, wrong]});
    let lines = format!("{right}\n{{\"trajectories\": 5}}\n{nobody}\n{wrong}\n");
    let ran = gradus.run_with(&["score", "-", "--out", "out"], &[], &lines).exits(1);
    let found = gradus.results("out");
    let valid: Vec<_> = found.iter().map(|result| result["valid"].as_bool().unwrap()).collect();
    assert_eq!(valid, [true, false, false, true]);
    let message = |index: usize| found[index]["errors"][0]["message"].as_str().unwrap();
    assert!(message(1).contains("/trajectories") && message(2).contains("there is no rubric \"nobody\""), "{found:?}");
    assert_eq!((&found[2]["reward"], &found[2]["errors"][0]["pointer"]), (&Value::Null, &json!("")));
    assert!(ran.out.contains("2 scored, 0 not") && !ran.out.contains("item_malformed"), "{}", ran.out);
    assert_eq!(ran.err.lines().count(), 2, "{}", ran.err);
    assert!(ran.err.contains("line 2: ") && ran.err.contains("line 3: "), "{}", ran.err);
    // Every line has the columns of the rubric that was asked for.
    let arguments = ["score", "-", "--rubric", "binary_em", "--out", "out"];
    gradus.run_with(&arguments, &[], &lines).exits(1);
    for result in gradus.results("out") {
        let metrics: Vec<_> = result["metrics"].as_object().unwrap().keys().collect();
        assert_eq!(metrics, ["exact_match", "f1"], "{result}");
    }
}

/// It is not said to have been scored by a rubric that it did not name, nor to have failed for a reason that is not its own.
#[test]
fn a_request_that_is_refused_is_counted_by_itself_and_by_its_own_code() {
    let gradus = Gradus::new();
    let [right, _] = right_and_wrong();
    let nobody = json!({"rubric": "nobody", "trajectories": [right]});
    let unjudged = json!({"rubric": "long_form_qa", "on_invalid": "error", "trajectories": [right, right]});
    let ran = gradus.run_with(&["score", "-", "--out", "out"], &[], &jsonl(&[nobody, unjudged])).exits(1);
    assert_eq!(ran.out, "2 requests refused\n  2 x judge_unavailable\n");
    let found = gradus.results("out");
    let codes: Vec<_> = found.iter().map(|result| result["errors"][0]["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["item_malformed", "judge_unavailable"]);
}

#[test]
fn what_is_wrong_with_the_tools_of_a_request_is_pointed_at_there() {
    let gradus = Gradus::new();
    let call = "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>";
    let one = json!({"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": call}], "references": ["a"]});
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "nothing"}}}]);
    let mut own = one.clone();
    own["tools"] = tools.clone();
    let shared = json!({"tools": tools, "trajectories": [one]});
    let err = gradus.run_with(&["score", "-"], &[], &jsonl(&[shared, json!({"trajectories": [own]})])).exits(1).err;
    let lines: Vec<_> = err.lines().filter(|line| line.contains(": schema_invalid: /tools/0")).collect();
    assert_eq!(lines.len(), 2, "{err}");
}

/// Options win over the environment: what it says for other calls does not stand in the way of this one.
#[test]
fn the_environment_never_stands_against_the_command_line() {
    let gradus = Gradus::new();
    let lines = jsonl(&right_and_wrong());
    let score = |arguments: &[&str], environment: &[(&str, &str)]| {
        gradus.run_with(&[&["score"], arguments].concat(), environment, &lines)
    };
    let all = [("GRADUS_REPLAY", "run"), ("GRADUS_RUBRIC", "binary_em"), ("GRADUS_STEP", "3"), ("GRADUS_OUT", "out")];
    let ran = score(&["-"], &all).exits(0);
    assert!(ran.out.starts_with("binary_em@"), "{}", ran.out);
    let ran = score(&["-", "--rubric", "search_r1", "--step", "1", "--out", "mine"], &all).exits(0);
    assert!(ran.out.starts_with("search_r1@") && Path::new(&gradus.path("mine")).exists(), "{}", ran.out);
    std::fs::remove_file(gradus.path("out")).unwrap();
    // A replay needs none of the others, from the command line or the environment.
    for arguments in [&["--replay", "run", "--store", "sqlite:none.db"][..], &["--store", "sqlite:none.db"]] {
        score(arguments, &all).exits(1).err_has("there is no database none.db");
        assert!(!Path::new(&gradus.path("out")).exists());
    }
    score(&["--replay", "run", "--store", "sqlite:none.db"], &[("GRADUS_STEP", "x")]).exits(1);
    let said = score(&["-"], &[("GRADUS_STEP", "x")]).exits(2).err;
    let wanted = "invalid value 'x' for '--step <N>'\n\n  tip: give a whole number, 0 or more, without a unit\n";
    let from = "  tip: the value is from GRADUS_STEP in the environment\n";
    assert!(said.contains(&[wanted, from].concat()), "{said}");
    // As of any number.
    let threads = score(&["-"], &[("GRADUS_THREADS", "x")]).exits(2).err;
    assert_eq!(said, threads.replace("--threads", "--step").replace("GRADUS_THREADS", "GRADUS_STEP"));
    let said = score(&["-", "--step", "-1"], &[]).exits(2).err;
    assert!(said.contains(&wanted.replace("'x'", "'-1'")), "{said}");
    // What only a file has is asked for, and there is none.
    let said = score(&["--rubric", "binary_em"], &all).exits(2).err;
    assert!(said.contains("not provided") && said.contains("<FILE>") && said.contains("gradus score"), "{said}");
    for option in [&["--rubric", "x"][..], &["--step", "1"], &["--out", "x"]] {
        let said = score(&[&["--replay", "run"], option].concat(), &[]).exits(2).err;
        assert!(
            said.contains(&format!("'{} <", option[0])) && said.contains("cannot be used with '--replay"),
            "{said}"
        );
    }
}

#[test]
fn a_variable_that_is_empty_says_nothing() {
    let gradus = Gradus::new();
    let empty = [("GRADUS_REPLAY", ""), ("GRADUS_RUBRIC", ""), ("GRADUS_STEP", ""), ("GRADUS_OUT", "")];
    let ran = gradus.run_with(&["score", "-"], &empty, &jsonl(&right_and_wrong())).exits(0);
    assert!(ran.out.starts_with("short_form_qa@"), "{}", ran.out);
    gradus
        .run_with(&["score", "--replay", "run", "--store", "sqlite:none.db"], &empty, "")
        .exits(1)
        .err_has("there is no database none.db");
    gradus.run_with(&["score"], &empty, "").exits(2).err_has("<FILE>");
}

#[test]
fn every_option_has_its_variable() {
    let gradus = Gradus::new();
    let help = gradus.run(&["score", "--help"]).exits(0).out;
    for name in ["rubric", "step", "out", "replay"] {
        assert!(help.contains(&format!("[env: GRADUS_{}=]", name.to_uppercase())), "{help}");
    }
    let environment = [("GRADUS_RUBRIC", "binary_em"), ("GRADUS_OUT", "out")];
    let ran = gradus.run_with(&["score", "-"], &environment, &jsonl(&right_and_wrong())).exits(0);
    assert!(ran.out.starts_with("binary_em@"), "{}", ran.out);
    assert_eq!(gradus.results("out").len(), 2);
    gradus
        .run_with(&["score", "--store", "sqlite:none.db"], &[("GRADUS_REPLAY", "exp")], "")
        .exits(1)
        .err_has("there is no database none.db");
}

#[test]
fn lines_may_be_packed_whatever_the_file_is_called() {
    let gradus = Gradus::new();
    let line = r#"{"messages": [{"role": "assistant", "content": "<answer>Paris</answer>"}], "references": ["Paris"]}"#;
    let lines = format!("{line}\n").repeat(3);
    let plain = gradus.file("plain.jsonl", lines.as_str());
    let wanted = gradus.run(&["score", &plain, "--out", "-"]).exits(0).out;
    assert_eq!(wanted.lines().count(), 3);
    let (head, tail) = lines.as_bytes().split_at(40);
    for (name, packed) in [
        ("packed.jsonl.gz", gzip(lines.as_bytes())),
        ("members.txt", [gzip(head), gzip(tail)].concat()),
        ("packed.jsonl.zst", zstd::encode_all(lines.as_bytes(), 1).unwrap()),
    ] {
        let path = gradus.file(name, packed);
        let stable = |text: &str| text.split("\"latency_ms\"").next().unwrap().to_owned();
        let found = gradus.run(&["score", &path, "--out", "-"]).exits(0).out;
        assert_eq!(
            found.lines().map(stable).collect::<Vec<_>>(),
            wanted.lines().map(stable).collect::<Vec<_>>(),
            "{name}"
        );
    }
    let cut = gradus.file("cut.gz", &gzip(lines.as_bytes())[..30]);
    gradus.run(&["score", &cut]).exits(1).err_has("cut.gz");
}

#[test]
fn what_is_odd_about_lines_is_said_once_with_the_first_of_them() {
    let gradus = Gradus::new();
    let broken =
        json!({"messages": [{"role": "assistant", "content": "<tool_call>{</tool_call>"}], "refrences": ["x"]});
    let mut lines =
        vec![json!({"messages": [{"role": "assistant", "content": "<answer>x</answer>"}], "references": ["x"]})];
    // More than are scored together.
    lines.extend(std::iter::repeat_n(broken, 1000));
    let file = gradus.file("odd.jsonl", jsonl(&lines));
    let ran = gradus.run(&["score", &file]).exits(0);
    let place = format!("{file}, line 2: ");
    let said: Vec<_> = ran.err.lines().map(|line| line.strip_prefix(&place).unwrap()).collect();
    assert_eq!(
        said,
        [
            "there are no `references`, with which la_bleu compares: a trajectory that gets that far cannot be scored (and 999 more)",
            "the field \"refrences\" is not known and was ignored; put columns of your own under `metadata` (and 999 more)",
        ]
    );
    // However many different things are odd.
    let odd = |n: usize| {
        let mut one = lines[0].clone();
        one[format!("column{n}")] = json!(n);
        json!({"trajectories": [one]})
    };
    let many = jsonl(&(0..40).map(odd).collect::<Vec<_>>());
    let ran = gradus.run_with(&["score", "-"], &[], &many).exits(0);
    assert_eq!(ran.err.lines().count(), 16, "{}", ran.err);
    // A curriculum that is not sent is about the whole file.
    let ran = gradus.run(&["score", &file, "--rubric", "short_form_qa_curriculum"]).exits(0);
    let about_all = ran.err.lines().filter(|line| line.starts_with(&format!("{file}: the curriculum of "))).count();
    assert!(about_all > 0 && ran.err.lines().count() == about_all + 2, "{}", ran.err);
}
