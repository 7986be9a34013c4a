//! Options over the environment over the file, and what is refused.

use super::*;

/// The rubric of trajectories that name none shows which of the three was heard.
#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let gradus = Gradus::new();
    let config = gradus.file("gradus.toml", "default_rubric = \"binary_em\"\n");
    let lines = jsonl(&right_and_wrong());
    let rubric = |arguments: &[&str], environment: &[(&str, &str)]| {
        let arguments = [&["score", "-"], arguments].concat();
        let out = gradus.run_with(&arguments, environment, &lines).exits(0).out;
        out.split('@').next().unwrap().to_owned()
    };
    let environment = ("GRADUS_DEFAULT_RUBRIC", "search_r1");
    assert_eq!(rubric(&[], &[]), "short_form_qa");
    assert_eq!(rubric(&["--config", &config], &[]), "binary_em");
    assert_eq!(rubric(&[], &[("GRADUS_CONFIG", &config)]), "binary_em");
    assert_eq!(rubric(&["--config", &config], &[environment]), "search_r1");
    assert_eq!(rubric(&["--config", &config, "--default-rubric", "short_form_qa"], &[environment]), "short_form_qa");
}

#[test]
fn a_mistake_in_the_file_has_line_and_column() {
    let gradus = Gradus::new();
    let check = |text: &str| {
        let config = gradus.file("gradus.toml", text);
        gradus.run(&["rubric", "list", "--config", &config]).exits(1).err
    };
    let unknown = check("threads = 1\n\n[limits]\nmax_body = 5\n");
    assert!(unknown.contains("line 4, column 1") && unknown.contains("unknown field `max_body`"), "{unknown}");
    let word = check("threads = \"all\"\n");
    assert!(word.contains("line 1, column 11"), "{word}");
    gradus.run(&["--config", "missing.toml", "rubric", "list"]).exits(1).err_has("missing.toml");
}

#[test]
fn values_that_cannot_be_are_refused_with_the_limit() {
    let gradus = Gradus::new();
    let refused = |arguments: &[&str], code: i32| {
        gradus.run(&[&["serve", "--listen", "127.0.0.1:0"], arguments].concat()).exits(code).err
    };
    assert!(refused(&["--store", "mysql://x"], 1).contains("sqlite:"));
    assert!(refused(&["--store", "none", "--store-durability", "soon"], 1).contains("soon"));
    assert!(refused(&["--store", "none", "--max-body-bytes", "0"], 1).contains("max_body_bytes = 0 is out of range"));
    assert!(refused(&["--store", "none", "--max-deadline-ms", "0"], 1).contains("max_deadline_ms = 0 leaves no time"));
    assert!(refused(&["--store", "none", "--default-rubric", "nobody"], 1).contains("nobody"));
    let waiting = refused(&["--store", "none", "--store-busy-timeout-ms", "3000000000"], 1);
    assert!(waiting.contains("store_busy_timeout_ms = 3000000000: at most 2147483647"), "{waiting}");
    let large = refused(&["--store", "sqlite:s.db", "--max-body-bytes", "1000000000"], 1);
    assert!(large.contains("max_body_bytes = 1000000000") && large.contains("943718400"), "{large}");
    // Where nothing is kept, nothing bounds it but its own limit.
    let large = ["serve", "--listen", "127.0.0.1:0", "--max-body-bytes", "1000000000"];
    for kept in [&["--store", "none"][..], &["--store-durability", "off"], &["--store-keep-trajectories", "false"]] {
        assert!(serve(&gradus, &[&large[..], kept].concat(), &[]).stop().success(), "{kept:?}");
    }
    assert!(refused(&["--store", "none", "--threads", "1025"], 1).contains("threads = 1025: at most 1024"));
    assert!(refused(&["--threads", "many"], 2).contains("many"));
    // In words, and with the variable where it was one.
    for (option, value) in [("--max-body-bytes", "16MB"), ("--threads", "-1"), ("--drain-ms", "1s")] {
        let said = refused(&[option, value], 2);
        assert!(said.contains(&format!("invalid value '{value}' for '{option} <")), "{said}");
        assert!(
            said.contains("tip: give a whole number, 0 or more, without a unit") && !said.contains("digit"),
            "{said}"
        );
        assert!(!said.contains("GRADUS_"), "{said}");
        let variable = format!("GRADUS_{}", option.trim_start_matches('-').to_uppercase().replace('-', "_"));
        let said = gradus.run_with(&["serve"], &[(&variable, value)], "").exits(2).err;
        assert!(said.contains(&format!("the value is from {variable} in the environment")), "{said}");
    }
    let said = gradus.run(&["data", "hops", "--out", "x", "--flawed", "half"]).exits(2).err;
    assert!(said.contains("tip: give a number, such as 0.5") && !said.contains("literal"), "{said}");
    gradus.run(&["serve", "--listen", "somewhere"]).exits(2).err_has("somewhere");
    gradus.run(&["--log", "=[", "rubric", "list"]).exits(1).err_has("--log");
}

#[test]
fn a_log_filter_that_would_silence_everything_is_refused() {
    let gradus = Gradus::new();
    gradus.run(&["--log", "", "rubric", "list"]).exits(1).err_has("is no filter");
    let config = gradus.file(
        "gradus.toml",
        "log = \"loud\"
",
    );
    gradus.run(&["--config", &config, "rubric", "list"]).exits(1).err_has("`log` in the configuration file");
    for filter in ["warning", "nonsense", "warn,loud"] {
        let said = gradus.run_with(&["rubric", "list"], &[("GRADUS_LOG", filter)], "").exits(1).err;
        assert!(said.contains("is no filter; use one of") && said.contains("\"warn\""), "{filter}: {said}");
    }
    for filter in ["warn", "WARN", "off", "gradus=debug", "error,gradus::http=trace", "gradus"] {
        gradus.run(&["--log", filter, "rubric", "list"]).exits(0);
    }
}

/// As Compose files leave one that need not be set: `${X:-}`.
#[test]
fn a_variable_that_is_empty_is_not_set() {
    let gradus = Gradus::new();
    let help = gradus.run(&["serve", "--help"]).exits(0).out;
    let variables = help.split("[env: ").skip(1).map(|rest| rest.split(['=', ']']).next().unwrap());
    let variables: Vec<&str> = variables.filter(|variable| !variable.ends_with("_TOKEN")).collect();
    assert!(variables.len() > 16 && variables.contains(&"GRADUS_CONFIG"), "{variables:?}");
    let empty: Vec<(&str, &str)> = variables.iter().map(|variable| (*variable, "")).collect();
    assert!(serve(&gradus, &["serve", "--listen", "127.0.0.1:0"], &empty).stop().success());
    assert!(Path::new(&gradus.path("gradus.db")).exists(), "the default is");
    let ran = gradus.run_with(&["score", "-"], &empty, &jsonl(&right_and_wrong())).exits(0);
    assert!(ran.out.starts_with("short_form_qa@"), "{}", ran.out);
    // One that is empty can be set none the less.
    let help = gradus.run_with(&["serve", "--help"], &empty, "").exits(0).out;
    assert!(help.contains("[env: GRADUS_CONFIG=]") && help.contains("[env: GRADUS_JUDGE=]"), "{help}");
}

#[test]
fn a_mistake_in_a_judge_is_named() {
    let gradus = Gradus::new();
    let said = |table: &str| {
        let file = gradus.file("judges.toml", format!("[judges.default]\n{table}\n"));
        gradus.run(&["--config", &file, "score", "-", "--rubric", "long_form_qa"]).exits(1).err
    };
    let devcie = said("model = \"x\"\ndevcie = \"cpu\"");
    assert!(devcie.contains("unknown field `devcie`") && devcie.contains("`device`"), "{devcie}");
    assert!(devcie.contains("judges.toml"), "{devcie}");
    let flavor = said("endpoints = [{ url = \"http://127.0.0.1:1\" }]\nmodel = \"m\"\nflavor = \"bogus\"");
    assert!(flavor.contains("bogus") && flavor.contains("`vllm`"), "{flavor}");
    let endpoint = said("endpoints = [{ url = \"http://127.0.0.1:1\", max_concurency = 3 }]\nmodel = \"m\"");
    assert!(endpoint.contains("unknown field `max_concurency`"), "{endpoint}");
    // A model alone is local: what is missing is the directory, not endpoints.
    let missing = said("model = \"/nowhere\"");
    assert!(missing.contains("/nowhere") && !missing.contains("endpoints` is empty"), "{missing}");
    let misspelt = said("model = \"Qwen2.5-7B\"");
    assert!(misspelt.contains("Qwen2.5-7B: no such directory or file; a hub id is OWNER/NAME"), "{misspelt}");
    let none = gradus.run(&["score", "-", "--rubric", "long_form_qa", "--judge", ""]).exits(1).err;
    assert!(none.contains("judge \"default\": `model` is missing: give a directory"), "{none}");
}

/// The line of its table, where that has a mistake, and on one line what it is.
#[test]
fn a_mistake_in_a_judges_table_stands_at_the_table() {
    let gradus = Gradus::new();
    let first = "threads = 1\n\n[judges.fine]\nmodel = \"m\"\n\n";
    let endpoints = "model = \"m\"\n[[judges.default.endpoints]]\nurl = \"http://127.0.0.1:1\"\nkey = 1\n";
    for (table, message) in [
        ("device = \"cpu\"\n", "`model` is missing: give a directory, a GGUF file or a hub id, OWNER/NAME (a judge"),
        ("model = \"m\"\ncontext = 1\n", "`context` is 1: give 2 tokens at least"),
        ("model = \"m\"\ncontext = \"long\"\n", "expected a whole number from 0 in `context` (a judge"),
        (endpoints, "unknown field `key`, expected one of"),
        (endpoints, "in `endpoints`\n"),
    ] {
        let file = gradus.file("judges.toml", format!("{first}[judges.default]\n{table}"));
        let said = gradus.run(&["--config", &file, "rubric", "list"]).exits(1).err;
        assert!(said.contains("judges.toml: line 6, column 1: ") && said.contains(message), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

/// What stands in the file may be a token.
#[test]
fn mistakes_in_the_file_are_named_and_not_quoted() {
    let gradus = Gradus::new();
    for (text, place) in [
        ("[tokens]\napi = SECRET3\n", "line 2"),
        ("[tokens]\nadmn = \"SECRET7\"\n", "line 2, column 1: unknown field `admn`"),
        ("[tokens]\napi = \"SECRET2\n", "line 2"),
        ("tokens = \"SECRET5\"\n", "line 1, column 10: invalid type: string, expected a table\n"),
        ("judges = \"SECRET6\"\n", "line 1, column 10: invalid type: string, expected a table\n"),
        ("threads = -5334\n", "line 1, column 11: invalid value: integer, expected a whole number from 0\n"),
        ("rubrics = 5334\n", "line 1, column 11: invalid type: integer, expected a string\n"),
        (
            "[store]\ndurability = \"sync\"\n",
            "gradus.toml: line 2, column 14: durability `sync` is not known: use `commit`",
        ),
        ("\n[tokens]\nadmin = 5334\n", "line 3, column 9: invalid type: integer, expected a string"),
        ("listen = \"nowhere\"\n", "line 1, column 10: invalid socket address"),
    ] {
        let file = gradus.file("gradus.toml", text);
        let ran = gradus.run(&["--config", &file, "rubric", "list"]).exits(1);
        assert!(ran.err.contains(place) && !ran.err.contains("SECRET") && !ran.err.contains("5334"), "{}", ran.err);
    }
}

#[test]
fn tokens_are_those_that_clients_can_send() {
    let gradus = Gradus::new();
    let environment = [("GRADUS_LISTEN", "127.0.0.1:0"), ("GRADUS_STORE", "none"), ("GRADUS_API_TOKEN", " s3cret\n")];
    let server = serve(&gradus, &[], &environment);
    let body = json!({"trajectories": right_and_wrong()}).to_string();
    assert_eq!(server.post_as("s3cret", "/reward", &body).status, 200);
    for token in ["two words", "t\u{f6}k", ""] {
        let ran = gradus.run_with(
            &["serve", "--store", "none", "--listen", "127.0.0.1:0"],
            &[("GRADUS_ADMIN_TOKEN", token)],
            "",
        );
        assert!(ran.exits(1).err.contains("the admin token "), "{token}");
    }
}

#[test]
fn what_is_in_flight_has_room_for_a_body() {
    let gradus = Gradus::new();
    let ran = gradus.run(&["serve", "--listen", "127.0.0.1:0", "--store", "none", "--max-in-flight-bytes", "1000000"]);
    let ran = ran.exits(1);
    assert!(
        ran.err.contains("max_in_flight_bytes = 1000000 leaves no room") && ran.err.contains("max_body_bytes"),
        "{}",
        ran.err
    );
}

/// An option that is offered has an effect, or is warned of: one shell may be both the server's and the trainer's.
#[test]
fn train_says_of_an_option_that_it_does_nothing() {
    let gradus = Gradus::new();
    let run = "name = \"a\"\noutput = \"a\"\nalgorithm = \"grpo\"\nsteps = 1\npolicy = { model = \"m\" }\n\
               reward = { url = \"http://127.0.0.1:9\" }\n[environment]\nkind = \"qa_search\"\ncorpus = \"c\"\n\
               train = \"t\"\nheld_out = \"h\"\n";
    let config = gradus.file("run.toml", run);
    let ends = |option: &str, value: &str, code: i32| {
        gradus.run(&["--config", &config, "train", option, value]).exits(code).err
    };
    for option in ["--default-rubric", "--schema-cache-bytes"] {
        assert!(ends(option, "1", 2).contains(&format!("unexpected argument '{option}'")));
    }
    for option in ["--rubrics", "--judge", "--judge-cache-bytes"] {
        let said = ends(option, "1", 1);
        assert!(said.contains(&format!("{option} (GRADUS_")) && said.contains("reward.url scores"), "{said}");
        // What it ends of is that the run's own files are not there.
        assert!(said.contains("WARN") && !said.contains("leave it out"), "{said}");
    }
}

/// Another world in the place of the one that runs learnt from would make them go on with other questions.
#[test]
fn a_world_is_replaced_only_by_force() {
    let gradus = Gradus::new();
    let small = ["data", "hops", "--out", "world", "--people", "20", "--train", "40", "--held-out", "20"];
    let make = |rest: &[&str], code| gradus.run(&[&small, rest].concat()).exits(code);
    make(&[], 0);
    let before = std::fs::read(gradus.path("world/demonstrations.jsonl")).unwrap();
    make(&[], 0);
    let said = make(&["--flawed", "0.9"], 1).err;
    assert!(said.contains("world/demonstrations.jsonl") && said.contains("--force"), "{said}");
    assert_eq!(std::fs::read(gradus.path("world/demonstrations.jsonl")).unwrap(), before);
    make(&["--flawed", "0.9", "--force"], 0);
    assert_ne!(std::fs::read(gradus.path("world/demonstrations.jsonl")).unwrap(), before);
}

#[test]
fn numbers_of_which_nothing_would_come_are_refused() {
    let gradus = Gradus::new();
    for option in ["--seeds", "--steps", "--jobs"] {
        let said = gradus.run(&["experiment", "paper", option, "0"]).exits(2).err;
        assert!(said.contains(option) && said.contains("invalid value '0'") && !said.contains("0 or more"), "{said}");
    }
    let said = gradus.run(&["bench", "--device", "cpu", "--repeats", "0"]).exits(2).err;
    assert!(said.contains("--repeats") && said.contains("1 or more"), "{said}");
    let said = gradus.run(&["bench", "--device", "cpu", "--work", "verify-training"]).exits(1).err;
    assert!(said.contains("nothing to compare") && said.lines().count() == 1, "{said}");
}
