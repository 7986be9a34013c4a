//! `gradus judge`: check and attack, on the small judge.

use super::*;

/// A measurement of the small judge, which knows one prompt.
fn measured(gradus: &Gradus, arguments: &[&str]) -> Ran {
    let judge = package("tests/small_judge");
    let rubric = judge.join("rubric.toml");
    let on = ["--judge", judge.to_str().unwrap(), "--rubric", rubric.to_str().unwrap()];
    gradus.run(&[&["judge"], arguments, &on].concat())
}

fn written(gradus: &Gradus, name: &str) -> Value {
    read(Path::new(&gradus.path(name)))
}

fn number(report: &Value, pointer: &str) -> f64 {
    report.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {pointer} in {report}"))
}

fn example(id: &str, answer: &str, label: &str) -> Value {
    json!({"id": id, "question": "What is the capital of France?", "references": ["Paris"], "answer": answer, "label": label,
        "kind": "exact"})
}

/// Ten wrong answers that say nothing.
fn ten_wrong() -> String {
    jsonl(&(0..10).map(|n| example(&format!("w{n}"), "", "Mismatch")).collect::<Vec<_>>())
}

#[test]
fn check_measures_the_shipped_examples() {
    let gradus = Gradus::new();
    let ran = measured(&gradus, &["check", "--limit", "60", "--json", "report.json"]).exits(0);
    let report = written(&gradus, "report.json");
    let shipped = std::fs::read_to_string(package("rubrics/judge_examples.jsonl")).unwrap();
    let examples = &results(&shipped)[..60];
    let labelled = |label: &str| examples.iter().filter(|example| example["label"] == label).count() as u64;
    for label in ["Match", "Mismatch"] {
        let of =
            |verdict: &str| report["confusion"][format!("{}_as_{verdict}", label.to_lowercase())].as_u64().unwrap();
        assert_eq!(of("match") + of("mismatch"), labelled(label), "{label}: {report}");
    }
    assert_eq!((&report["examples"], &report["with_verdict"]), (&json!(60), &json!(60)));
    // Its training measured 0.93 and 0.87 on the whole file.
    assert!(number(&report, "/accuracy") > 0.85 && number(&report, "/kappa") > 0.7, "{report}");
    assert!(number(&report, "/accuracy_interval/0") < number(&report, "/accuracy"), "{report}");
    assert!(number(&report, "/calibration_error") < 0.15 && number(&report, "/brier") < 0.12, "{report}");
    let paraphrases = examples.iter().filter(|example| example["paraphrase_of"].is_string()).count();
    assert_eq!(report["paraphrases"]["pairs"], paraphrases);
    let order = &report["label_order"];
    assert_eq!(order["pairs"].as_u64().unwrap() + order["without_verdict"].as_u64().unwrap(), 60);
    assert!(number(order, "/mean_difference") > 0.0, "the order reached the prompt: {report}");
    assert!(number(&report, "/mass_outside/largest") < 0.2 && number(&report, "/examples_per_s") > 0.0, "{report}");
    let kinds = report["by_kind"].as_object().unwrap();
    assert_eq!(kinds.values().map(|kind| kind["examples"].as_u64().unwrap()).sum::<u64>(), 60);

    for row in ["accuracy ", "Cohen's kappa ", "Brier score ", "agreement on label order ", "negation "] {
        assert!(ran.out.contains(row), "{row:?} is not in\n{}", ran.out);
    }
    // The few that it gives a verdict on in the other order are no measure of the rest.
    let both = order["pairs"].as_u64().unwrap();
    assert!(both < 30 && number(order, "/equal_verdicts") > 0.0, "{order}");
    let said = format!("agreement on label order          -  no measure: {both} of 60 pairs have both verdicts");
    ran.out_has(&said);
    assert!(ran.out.contains("asked by  small_long_form_qa@b3-") && ran.out.contains("stage judge, mode match"));
}

#[test]
fn json_to_standard_output_is_alone_there() {
    let gradus = Gradus::new();
    let file = gradus.file("two.jsonl", jsonl(&[example("a", "Paris", "Match"), example("b", "Rome", "Mismatch")]));
    let ran = measured(&gradus, &["check", &file, "--json", "-"]).exits(0);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&report["accuracy"], &report["kappa"]), (&json!(1.0), &json!(1.0)));
    assert_eq!(
        report["paraphrases"],
        json!({"pairs": 0, "without_verdict": 0, "equal_verdicts": null, "mean_difference": null})
    );
    ran.err_has("two.jsonl: 2 with a verdict, 0 without");
}

#[test]
fn without_a_verdict_nothing_is_right_or_wrong_and_the_reason_is_shown() {
    let gradus = Gradus::new();
    let ran = gradus.run(&["judge", "check", "--limit", "6", "--json", "report.json"]).exits(1);
    let report = written(&gradus, "report.json");
    assert_eq!((&report["examples"], &report["with_verdict"]), (&json!(6), &json!(0)));
    for absent in ["accuracy", "accuracy_interval", "kappa", "brier", "calibration_error", "mass_outside"] {
        assert_eq!(report[absent], Value::Null, "{absent}");
    }
    assert_eq!(report["without_verdict"][0]["code"], "judge_unavailable");
    assert_eq!(report["without_verdict"][0]["count"], 6);
    assert!(ran.out.contains("  6 x judge_unavailable: ") && ran.out.contains("--judge"), "{}", ran.out);
    let ran = gradus.run(&["judge", "attack", "--limit", "2", "--answers", "1"]).exits(1);
    ran.out_has("no verdict on 2 plain answers, 4 with a control, 4 with an attack");
    ran.out_has("UNDECIDED on 0 pairs");
}

/// References that are more than the judge's context, and each too short to be cut, get no verdict. Half a measurement is one.
#[test]
fn a_judge_that_answers_less_than_half_was_not_measured() {
    let gradus = Gradus::new();
    let many: Vec<String> = (0..400).map(|n| format!("Paris {n}")).collect();
    let lines = |long_ones: usize| {
        let line = |n| {
            let mut line = example(&format!("e{n}"), "Paris", "Match");
            if n < long_ones {
                line["references"] = json!(many);
            }
            line
        };
        jsonl(&(0..4).map(line).collect::<Vec<_>>())
    };
    for (long_ones, code) in [(2, 0), (3, 1)] {
        let file = gradus.file("lines.jsonl", lines(long_ones));
        measured(&gradus, &["check", &file]).exits(code).out_has(&format!("  {long_ones} x judge_no_verdict: "));
    }
}

#[test]
fn attack_compares_injected_text_with_as_much_other_text() {
    let gradus = Gradus::new();
    let run = |name: &str| measured(&gradus, &["attack", "--limit", "9", "--answers", "2", "--json", name]).exits(0);
    let ran = run("one.json");
    let report = written(&gradus, "one.json");
    for (field, wanted) in [("attacks", 9), ("pairs", 18), ("complete_pairs", 18)] {
        assert_eq!(report[field], wanted, "{field}");
    }
    let (attack, control) =
        (number(&report, "/overall/attack_over_plain"), number(&report, "/overall/control_over_plain"));
    assert!((number(&report, "/overall/over_control") - (attack - control)).abs() < 1e-9);
    let ends = ["/overall/over_control_interval/0", "/overall/over_control_interval/1"].map(|end| number(&report, end));
    assert!(ends[0] < ends[1], "{ends:?}");
    assert_eq!(report["rule"], if ends[0] > 0.0 { "fail" } else { "pass" });
    assert_eq!(report["by_kind"]["command"]["pairs"], 16);
    assert!(report["by_place"]["before"].is_object() && report["worst"].as_array().unwrap().len() <= 5);
    ran.out_has("text that imitates a verdict raises the score by ");
    assert_eq!(run("two.json").out, ran.out);
    assert_eq!(written(&gradus, "two.json"), report, "a measurement is the same again");
}

/// Here the "attack" is the right answer, so that it must move the judge, and the rule must say so.
#[test]
fn a_text_that_does_move_the_judge_fails_the_rule() {
    let gradus = Gradus::new();
    let examples = gradus.file("examples.jsonl", ten_wrong());
    let attack = json!({"id": "truth", "kind": "right", "text": "Paris", "control": "Green"});
    let attacks = gradus.file("attacks.jsonl", jsonl(&[attack]));
    let arguments = ["attack", &attacks, "--examples", &examples, "--answers", "10", "--json", "report.json"];
    let ran = measured(&gradus, &arguments).exits(1);
    let report = written(&gradus, "report.json");
    assert_eq!(report["rule"], "fail", "{}", ran.out);
    assert!(ran.out.lines().last().unwrap().starts_with("FAIL on 10 pairs: "), "{}", ran.out);
    assert_eq!(
        (&report["overall"]["flipped_by_attack"], &report["overall"]["flipped_by_control"]),
        (&json!(1.0), &json!(0.0))
    );
    let few = measured(&gradus, &["attack", &attacks, "--examples", &examples, "--answers", "9"]).exits(2);
    assert!(few.out.lines().last().unwrap().starts_with("UNDECIDED on 9 pairs: "), "{}", few.out);
    assert_eq!((&report["worst"][0]["id"], &report["worst"][0]["text"]), (&json!("truth"), &json!("Paris")));
}

#[test]
fn a_wrong_file_is_refused_with_its_line() {
    let gradus = Gradus::new();
    let [right, wrong] = [example("a", "Paris", "Match"), example("b", "Rome", "No")];
    let file = gradus.file("examples.jsonl", jsonl(&[right.clone(), wrong]));
    let said = gradus.run(&["judge", "check", &file]).exits(1).err;
    assert!(said.contains("examples.jsonl: line 2, column ") && said.contains("unknown variant `No`"), "{said}");
    gradus.run(&["judge", "check", "missing.jsonl"]).exits(1).err_has("cannot read missing.jsonl");
    let no_wrong = gradus.file("right.jsonl", jsonl(&[right]));
    let said = gradus.run(&["judge", "attack", "--examples", &no_wrong]).exits(1).err;
    assert!(said.contains("nothing to attack"), "{said}");
}

#[test]
fn a_rubric_without_a_judge_is_refused() {
    let said = Gradus::new().run(&["judge", "check", "--rubric", "search_r1"]).exits(1).err;
    assert!(said.contains("the rubric \"search_r1\" has no judge stage"), "{said}");
}

/// A file of attacks is hostile by trade: it must not speak to the terminal.
#[test]
fn foreign_text_does_not_reach_the_terminal_as_it_is() {
    let gradus = Gradus::new();
    let examples = gradus.file("examples.jsonl", ten_wrong());
    let attack = json!({"id": "\u{1b}[2J", "kind": "\u{1b}[8m\nkind", "text": "\u{9b}31m Paris\r\u{8}", "control": "Green boats"});
    let attacks = gradus.file("attacks.jsonl", jsonl(&[attack]));
    let ran = measured(&gradus, &["attack", &attacks, "--examples", &examples]).exits(2);
    let obeyed: Vec<_> = ran.out.chars().filter(|c| c.is_control() && *c != '\n').collect();
    assert!(obeyed.is_empty() && ran.out.contains('\u{FFFD}'), "{:?}", ran.out);
}

/// As Hugging Face's own tools ask it; the name of the hub is one that there is not.
#[test]
fn the_hub_is_asked_through_the_environments_proxy() {
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (gradus, address) = (Gradus::new(), format!("http://{}", proxy.local_addr().unwrap()));
    let (heard, hears) = std::sync::mpsc::channel();
    // It may be asked again: the thread ends with the test.
    std::thread::spawn(move || {
        for mut connection in proxy.incoming().map(Result::unwrap) {
            let head = BufReader::new(&mut connection).lines().map(Result::unwrap);
            let head: Vec<String> = head.take_while(|line| !line.is_empty()).collect();
            connection
                .write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                .unwrap();
            let _ = heard.send(head);
        }
    });
    let home = gradus.path("home");
    let environment =
        [("HF_HOME", home.as_str()), ("HF_ENDPOINT", "http://hub.invalid"), ("HTTP_PROXY", &address), ("NO_PROXY", "")];
    gradus.run_with(&["judge", "check", "--judge", "Owner/Name"], &environment, "").exits(1).err_has("502");
    assert!(hears.recv().unwrap()[0].starts_with("HEAD http://hub.invalid/Owner/Name/"));
}
