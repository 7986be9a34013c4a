//! `gradus rubric`: check, list, show, explain.

use super::*;

/// The first line of a case: `# expect LINE:COLUMN MESSAGE`, or `# expect fine`.
#[test]
fn check_names_line_column_and_fix() {
    let gradus = Gradus::new();
    let cases = cases("rubrics", "toml");
    assert!(cases.len() > 20);
    let mut wrong = String::new();
    for (name, path) in cases {
        let text = std::fs::read_to_string(&path).unwrap();
        let wanted = text.lines().next().unwrap().strip_prefix("# expect ").unwrap();
        let path = path.to_str().unwrap();
        let ran = gradus.run(&["rubric", "check", path]);
        let fine = if let Some((place, message)) = wanted.split_once(' ') {
            ran.status.code() == Some(1) && ran.err.starts_with(&format!("{path}:{place}: {message}"))
        } else {
            ran.status.success()
                && ran.out.starts_with(&format!("{path}: {name}@b3-"))
                && ran.out.contains(" is fine, ")
        };
        if !fine {
            writeln!(wrong, "{name}: wanted {wanted}\n  got {}{}", ran.out, ran.err).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn check_looks_at_every_file() {
    let gradus = Gradus::new();
    let [fine, zero, twice] = ["fine_curriculum", "weight_zero", "name_twice"].map(rubric_case);
    let ran = gradus.run(&["rubric", "check", &zero, &fine, &twice, "missing.toml"]).exits(1);
    assert_eq!((ran.out.lines().count(), ran.err.lines().count()), (1, 3), "{}{}", ran.out, ran.err);
    ran.err_has("missing.toml: ");
}

#[test]
fn list_and_show_give_the_shipped_rubrics() {
    let gradus = Gradus::new();
    let list = gradus.run(&["rubric", "list"]).exits(0).out;
    let names: Vec<_> = list.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    let shipped =
        ["binary_em", "binary_judge", "long_form_qa", "search_r1", "short_form_qa", "short_form_qa_curriculum"];
    assert_eq!(names, [&shipped[..], &["tool_use"]].concat());
    let column = |line: &str| line.find(" b3-").unwrap();
    assert!(list.lines().all(|line| column(line) == "short_form_qa_curriculum ".len()), "{list}");
    for name in names {
        let shown = gradus.run(&["rubric", "show", name]).exits(0).out;
        assert_eq!(shown, std::fs::read_to_string(package(&format!("rubrics/{name}.toml"))).unwrap());
    }
    gradus.run(&["rubric", "show", "nobody"]).exits(1).err_has("gradus rubric list");
}

#[test]
fn a_directory_adds_rubrics_and_wins_over_shipped_ones() {
    let gradus = Gradus::new();
    std::fs::create_dir(gradus.path("mine")).unwrap();
    let text =
        |name: &str| format!("name = \"{name}\"\ndescription = \"Ours.\"\n[[stages]]\nkind = \"f1\"\nweight = 1\n");
    gradus.file("mine/ours.toml", text("ours"));
    gradus.file("mine/binary_em.toml", text("binary_em"));
    let list = gradus.run(&["rubric", "list", "--rubrics", "mine"]).exits(0).out;
    assert_eq!(list.lines().filter(|line| line.ends_with("Ours.")).count(), 2, "{list}");
    assert_eq!(list.lines().count(), 8);
    for name in ["ours", "binary_em"] {
        assert_eq!(gradus.run(&["rubric", "show", name, "--rubrics", "mine"]).exits(0).out, text(name));
    }
    let shipped = gradus.run(&["rubric", "show", "tool_use"]).exits(0).out;
    assert_eq!(gradus.run(&["rubric", "show", "tool_use", "--rubrics", "mine"]).exits(0).out, shipped);
    gradus.run(&["rubric", "show", "ours"]).exits(1).err_has("no rubric is called \"ours\"");
    gradus.file("mine/other.toml", text("ours"));
    let ran = gradus.run(&["rubric", "list", "--rubrics", "mine"]).exits(1);
    ran.err_has("the rubric calls itself \"ours\"; name the file ours.toml");
    std::fs::remove_file(gradus.path("mine/other.toml")).unwrap();
    gradus.file("mine/bad.toml", "name = \"bad\"\nstages = 1\n");
    gradus.run(&["rubric", "list", "--rubrics", "mine"]).exits(1).err_has("bad.toml: line 2, column 10");
}

#[test]
fn what_a_directory_of_rubrics_holds_is_logged() {
    let gradus = Gradus::new();
    std::fs::create_dir_all(gradus.path("mine/folder")).unwrap();
    let said = || gradus.run(&["rubric", "list", "--rubrics", "mine"]).exits(0).err;
    assert!(said().contains("WARN") && said().contains("there is no rubric file (NAME.toml)"), "{}", said());
    gradus.file("mine/.hidden.toml", "");
    gradus.file("mine/ours.tml", "");
    gradus.file("mine/NOTES.md", "");
    assert!(said().contains("there is no rubric file"), "{}", said());
    assert!(said().contains("files that do not end in .toml are no rubrics: NOTES.md, ours.tml"), "{}", said());
    assert!(!said().contains("folder") && !said().contains(".hidden"), "{}", said());
    gradus.file("mine/ours.toml", "name = \"ours\"\n[[stages]]\nkind = \"f1\"\nweight = 1\n");
    assert!(said().contains("rubrics=1") && !said().contains("there is no rubric file"), "{}", said());
}

#[test]
fn explain_reads_standard_input() {
    let gradus = Gradus::new();
    let explained = |input: &str| gradus.run_with(&["rubric", "explain", "short_form_qa", "-"], &[], input);
    let [right, wrong] = right_and_wrong();
    let pretty = serde_json::to_string_pretty(&right).unwrap();
    for input in [jsonl(std::slice::from_ref(&right)), format!("\n{}", jsonl(&[right.clone(), wrong])), pretty] {
        let out = explained(&input).exits(0).out;
        assert!(out.starts_with("right by short_form_qa@") && !out.contains("wrong by"), "{out}");
    }
    explained("\n").exits(1);
    let mut nameless = right;
    nameless["id"] = json!("");
    assert!(explained(&nameless.to_string()).exits(0).out.starts_with("by short_form_qa@"), "no name is no word");
}

#[test]
fn explain_says_why_stage_by_stage() {
    let gradus = Gradus::new();
    let path = trajectory_case("hermes_trailing_comma");
    let ran = gradus.run(&["rubric", "explain", "short_form_qa", path.to_str().unwrap()]).exits(0);
    let has = |text: &str| assert!(ran.out.contains(text), "{text:?} is not in\n{}", ran.out);
    has("orders-de-11 by short_form_qa@b3-");
    has("reward 0.0500");
    has("attempts 2.000, malformed 1.000");
    has("la_bleu        closed");
    has("tool_parse scored 0.500, below its threshold 1.000: message 2, byte 0");
    has("call malformed (json_syntax)");
    has("call get_order: valid");
    has("<answer>DHL</answer>");
    assert!(!ran.out.contains('\u{1b}'), "no colours where there is no terminal");
}

#[test]
fn explain_takes_a_rubric_file_a_step_and_a_line_of_a_file() {
    let gradus = Gradus::new();
    let rubric = rubric_case("fine_curriculum");
    let [right, wrong] = right_and_wrong();
    let file = gradus.file("lines.jsonl", format!("\n{}", jsonl(&[wrong, right])));
    let ran = gradus.run(&["rubric", "explain", &rubric, &file, "--step", "100"]).exits(0);
    assert!(ran.out.starts_with("wrong by fine_curriculum@b3-"), "{}", ran.out);
    ran.out_has("reward 0.5000");
}

/// A policy's text is hostile: it must not speak to the terminal.
#[test]
fn explain_shows_control_characters_and_obeys_none() {
    let gradus = Gradus::new();
    let hostile = json!({"id": "\u{1b}[2J", "messages": [
        {"role": "user", "content": "\u{1b}]0;mine\u{7}"},
        {"role": "assistant", "content": "\u{9b}31m<tool_call>{\"name\": \"\u{1b}[8m\"}</tool_call>\u{1b}[1A\r\u{8}<answer>a</answer>"}],
        "references": ["a"]});
    let file = gradus.file("hostile.json", hostile.to_string());
    let ran = gradus.run(&["rubric", "explain", "short_form_qa", &file]).exits(0);
    let obeyed = |out: &str| out.chars().filter(|c| c.is_control() && *c != '\n').collect::<Vec<_>>();
    assert!(obeyed(&ran.out).is_empty() && ran.out.contains('\u{FFFD}'), "{:?}", ran.out);
    // What is wrong with a schema quotes the schema.
    for schema in [
        json!({"$ref": "#/\u{9b}31m"}),
        json!({"type": "\u{9b}31m"}),
        json!({"properties": {"a": {"pattern": "(\u{9b}31m"}}}),
    ] {
        let hostile = json!({"messages": [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"b\"}}</tool_call>"}],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}], "references": ["a"]});
        let file = gradus.file("hostile.json", hostile.to_string());
        let ran = gradus.run(&["rubric", "explain", "short_form_qa", &file]).exits(0);
        assert!(ran.out.contains("call f: ") && obeyed(&ran.out).is_empty(), "{:?}", ran.out);
    }
}

#[test]
fn what_explain_adds_up_is_the_reward() {
    let gradus = Gradus::new();
    let rubric = gradus.file(
        "shifted.toml",
        "name = \"shifted\"\n[reward]\nmin = -0.5\nmax = 1.5\n[[stages]]\nkind = \"answer_format\"\nweight = 0.25\n\
         [[stages]]\nkind = \"f1\"\nweight = 0.75\n",
    );
    let [_, wrong] = right_and_wrong();
    // Some editors put a mark before a text.
    let file = gradus.file("marked.json", format!("\u{feff}{wrong}"));
    let ran = gradus.run(&["rubric", "explain", &rubric, &file]).exits(0);
    let adds =
        |line: &str| line.split(" = ").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    let base = ran.out.lines().find(|line| line.trim_start().starts_with("base ")).unwrap();
    let base: f64 = base.split_whitespace().nth(1).unwrap().parse().unwrap();
    let sum = base + ran.out.lines().filter_map(adds).sum::<f64>();
    let reward: f64 = reward_in(&ran.out).parse().unwrap();
    assert!((base + 0.5).abs() < 1e-9 && (sum - reward).abs() < 1e-3, "{sum}\n{}", ran.out);
}

#[test]
fn explain_says_what_is_wrong_with_a_request_and_what_is_missing() {
    let gradus = Gradus::new();
    let [right, _] = right_and_wrong();
    let file = gradus.file("request.json", json!({"trajectories": [right], "deadline_ms": "x"}).to_string());
    gradus.run(&["rubric", "explain", "short_form_qa", &file]).exits(1).err_has("/deadline_ms");
    let rubric = rubric_case("fine_curriculum");
    let file = gradus.file("one.json", right.to_string());
    gradus.run(&["rubric", "explain", &rubric, &file]).exits(0).err_has("\"step\", which was not sent");
}

#[test]
fn what_a_rubric_says_too_much_is_refused_where_it_stands() {
    let gradus = Gradus::new();
    let stage = |options: &str| {
        format!("name = \"r\"\n[[stages]]\nkind = \"f1\"\nweight = 1\n[[stages]]\nweight = 1\n{options}\n")
    };
    let schedule = |points: &str| {
        format!(
            "{}[[schedules]]\nstage = \"f1\"\nof = \"weight\"\nover = \"step\"\npoints = {points}\n",
            stage("kind = \"bleu\"")
        )
    };
    for (text, place, words) in [
        (schedule("[[5, 1, 2]]"), ":12:11:", "[5.0, 1.0, 2.0] has 3 numbers; a point is [PLACE, VALUE]"),
        (schedule("[[0, 1], [5]]"), ":12:19:", "has 1 numbers"),
        (stage("kind = \"binary\"\nof = \"f1\"\ncap = 0.1"), ":9:7:", "`f1` has no option `cap`"),
        (stage("kind = \"binary\"\nof = \"sense\""), ":8:6:", "\"sense\" is no measure"),
        (stage("kind = \"la_bleu\"\nslack = true"), ":8:9:", "a number from 0, or \"off\""),
        (stage("kind = \"bleu\"\nsmoothing_value = 2"), ":8:19:", "smoothing \"exp\" has no value"),
    ] {
        let file = gradus.file("r.toml", &text);
        let ran = gradus.run(&["rubric", "check", &file]).exits(1);
        assert!(ran.err.contains(place) && ran.err.contains(words), "{text}\n{}", ran.err);
    }
}

#[test]
fn explain_says_what_penalties_take_and_what_the_range_cuts_off() {
    let gradus = Gradus::new();
    let rubric = gradus.file(
        "strict.toml",
        "name = \"strict\"\n[[stages]]\nkind = \"f1\"\nweight = 1\n[[penalties]]\nkind = \"overlong\"\nmax_tokens = 10\n\
         cache_tokens = 5\nweight = 0.5\n",
    );
    let [right, wrong] = right_and_wrong();
    let said = |mut one: Value| {
        one["response_tokens"] = json!(10);
        let file = gradus.file("one.json", one.to_string());
        gradus.run(&["rubric", "explain", &rubric, &file]).exits(0).out
    };
    let (right, wrong) = (said(right), said(wrong));
    assert!(right.contains("reward 0.5000") && right.contains("  overlong  takes 0.5000\n"), "{right}");
    assert!(!right.contains("clamp"), "{right}");
    assert!(wrong.contains("reward 0.0000") && wrong.contains("  clamp  +0.5000\n"), "{wrong}");
}

/// As scoring does: what is asked for first, then what the request says.
#[test]
fn explain_takes_the_position_of_the_request_unless_a_step_is_given() {
    let gradus = Gradus::new();
    let rubric = rubric_case("fine_curriculum");
    let [_, wrong] = right_and_wrong();
    let reward = |position: Value, arguments: &[&str]| {
        let mut request = json!({"trajectories": [wrong]});
        request.as_object_mut().unwrap().extend(position.as_object().unwrap().clone());
        let file = gradus.file("request.json", request.to_string());
        let arguments = [&["rubric", "explain", &rubric, &file], arguments].concat();
        let out = gradus.run(&arguments).exits(0).out;
        reward_in(&out)
    };
    assert_eq!(reward(json!({"step": 50}), &[]), "0.4000");
    assert_eq!(reward(json!({"curriculum": {"step": 50}}), &[]), "0.4000");
    assert_eq!(reward(json!({"step": 50}), &["--step", "100"]), "0.5000");
}

#[test]
fn explain_says_which_stage_could_not_be_scored_and_shows_the_beginning_of_long_texts() {
    let gradus = Gradus::new();
    let [mut right, _] = right_and_wrong();
    right.as_object_mut().unwrap().remove("references");
    right["messages"][0]["content"] = json!("x".repeat(1000));
    let file = gradus.file("one.json", right.to_string());
    let out = gradus.run(&["rubric", "explain", "short_form_qa", &file]).exits(0).out;
    assert!(out.contains("  la_bleu        could not be scored\n"), "{out}");
    let short = format!("{} ..\n", "x".repeat(400));
    assert!(out.contains(&format!(": {short}")), "{out}");
}

/// A judge that puts a group in order sees all of it, as it does when the request is scored.
#[test]
fn explain_gives_the_rewards_that_scoring_gives() {
    let gradus = Gradus::new();
    let judge = package("tests/small_judge");
    let rubric = gradus.file(
        "order.toml",
        "name = \"order\"\n[[stages]]\nkind = \"judge\"\nmode = \"rank\"\ncriteria = \"Is it right?\"\nweight = 1\n",
    );
    let answer = |text: &str| {
        json!({"id": text, "group": "g", "messages": [
            {"role": "user", "content": "Capital of France?"},
            {"role": "assistant", "content": format!("<answer>{text}</answer>")}], "references": ["Paris"]})
    };
    let answers = ["Paris", "Rome"].map(answer);
    let file = gradus.file("group.json", json!({"trajectories": answers}).to_string());
    let judge = ["--judge", judge.to_str().unwrap()];
    gradus.run(&[&["score", &file, "--rubric", &rubric, "--out", "out"], &judge[..]].concat()).exits(0);
    let scored = gradus.results("out");
    let scored: Vec<_> =
        scored.iter().map(|result| format!("reward {:.4}", result["reward"].as_f64().unwrap())).collect();
    let out = gradus.run(&[&["rubric", "explain", &rubric, &file], &judge[..]].concat()).exits(0).out;
    let explained: Vec<_> = out
        .lines()
        .filter(|line| line.contains(" by order@"))
        .map(|line| &line[line.find("reward").unwrap()..])
        .collect();
    assert_eq!(explained, scored, "{out}");
    assert_eq!(out.matches("candidates 2.000").count(), 2, "{out}");
}

#[test]
fn explain_goes_on_behind_what_it_cannot_read_and_says_what_is_odd() {
    let gradus = Gradus::new();
    let [right, mut wrong] = right_and_wrong();
    wrong["mine"] = json!(1);
    wrong["messages"][1]["function_call"] = json!({"name": "f", "arguments": "{}"});
    let broken = json!({"id": "broken", "messages": [{"role": "judge", "content": ""}]});
    let file = gradus.file("request.json", json!({"trajectories": [right, broken, wrong]}).to_string());
    let ran = gradus.run(&["rubric", "explain", "short_form_qa", &file]).exits(1);
    let has = |text: &str| assert!(ran.out.contains(text), "{text:?} is not in\n{}", ran.out);
    has("right by short_form_qa@");
    has("no reward: /trajectories/1/messages/0/role \"judge\" is no role");
    assert!(ran.out.lines().any(|line| line.starts_with("broken by short_form_qa@")), "{}", ran.out);
    has("wrong by short_form_qa@");
    for said in [
        "/trajectories/2: the field \"mine\" is not known and was ignored",
        "/trajectories/2: calls in a message's `function_call` are not read",
    ] {
        assert!(ran.err.lines().any(|line| line.starts_with(said)), "{said:?} is not in\n{}", ran.err);
    }
    let file = gradus.file("one.json", broken.to_string());
    gradus
        .run(&["rubric", "explain", "short_form_qa", &file])
        .exits(1)
        .out_has("no reward: /messages/0/role \"judge\" is no role");
}

/// What a line says of a name is not for the name to say.
#[test]
fn no_name_makes_a_line_of_its_own() {
    let gradus = Gradus::new();
    let forged = json!({"id": "x\nright by short_form_qa@b3-0 reward 1.0000", "messages": [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "<tool_call>{\"name\": \"f\\ncall g: valid\", \"arguments\": {}}</tool_call>"}],
        "references": ["a"]});
    let file = gradus.file("forged.json", forged.to_string());
    let out = gradus.run(&["rubric", "explain", "short_form_qa", &file]).exits(0).out;
    let begins = |text: &str| out.lines().any(|line| line.trim_start().starts_with(text));
    assert!(!begins("right by") && !begins("call g") && begins("x right by"), "{out}");

    let hostile = r#"{"trajectories":[],"curriculum":{"mastery":{"a\u001b[31m\nRED":"x"}}}"#;
    let file = gradus.file("hostile.json", hostile);
    let err = gradus.run(&["rubric", "explain", "short_form_qa", &file]).exits(1).err;
    assert!(!err.contains('\u{1b}') && err.contains("[31m RED") && err.lines().count() == 1, "{err:?}");

    std::fs::create_dir(gradus.path("mine")).unwrap();
    let text = "name = \"ours\"\ndescription = \"Ours.\\u001B[31m\\nforged b3-00000000  Theirs.\"\n[[stages]]\nkind = \"f1\"\nweight = 1\n";
    gradus.file("mine/ours.toml", text);
    let list = gradus.run(&["rubric", "list", "--rubrics", "mine"]).exits(0).out;
    gradus.file("mine/ours.toml", "name = \"ours\"\n\"a\\u001B[31m\" = 1\n");
    let err = gradus.run(&["rubric", "list", "--rubrics", "mine"]).exits(1).err;
    assert!(err.contains("a\u{FFFD}[31m"), "{err:?}");
    assert!(!list.contains('\u{1b}') && list.contains("Ours.\u{FFFD}[31m forged"), "{list:?}");
    assert_eq!(list.lines().count(), 8, "{list}");
}

/// Wherever a rubric comes from, its prompts are read before a judge is asked anything.
#[test]
fn a_broken_prompt_is_found_by_whoever_takes_the_rubric() {
    let gradus = Gradus::new();
    std::fs::create_dir(gradus.path("mine")).unwrap();
    let broken =
        "name = \"broken\"\n[[stages]]\nkind = \"judge\"\nmode = \"match\"\nweight = 1\nprompt = \"{{ anwser }}\"\n";
    let rubric = gradus.file("mine/broken.toml", broken);
    let [right, _] = right_and_wrong();
    let file = gradus.file("one.json", right.to_string());
    for arguments in [
        &["score", &file, "--rubric", &rubric][..],
        &["score", &file, "--rubrics", "mine"],
        &["rubric", "explain", &rubric, &file],
        &["rubric", "list", "--rubrics", "mine"],
        &["serve", "--store", "none", "--rubrics", "mine", "--listen", "127.0.0.1:0"],
    ] {
        let err = gradus.run(arguments).exits(1).err;
        assert!(err.contains("broken.toml: line 6, column 10: ") && err.contains("`anwser`"), "{arguments:?}\n{err}");
    }
}
