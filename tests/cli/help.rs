//! Help texts, the OpenAPI document, and the small things that every program owes its shell.

use super::*;

#[test]
fn every_option_is_explained_with_its_variable() {
    let gradus = Gradus::new();
    let whole = gradus.run(&["--help"]).exits(0).out;
    for word in
        ["serve", "score", "rubric", "openapi", "--config", "GRADUS_CONFIG", "--log", "GRADUS_LOG", "GRADUS_LOG_FORMAT"]
    {
        assert!(whole.contains(word), "{word} is not in\n{whole}");
    }
    let serve = gradus.run(&["serve", "--help"]).exits(0).out;
    let options = serve.lines().filter_map(|line| line.trim().strip_prefix("--")).filter(|line| line.contains('<'));
    let names: Vec<_> = options.map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert!(names.len() >= 16, "{names:?}");
    for name in names {
        let variable = format!("[env: GRADUS_{}", name.to_uppercase().replace('-', "_"));
        assert!(serve.contains(&variable), "--{name} has no {variable}");
    }
}

#[test]
fn help_never_shows_a_token() {
    let gradus = Gradus::new();
    let secrets = [("GRADUS_API_TOKEN", "s3cret-a"), ("GRADUS_ADMIN_TOKEN", "s3cret-b")];
    let ran = gradus.run_with(&["serve", "--help"], &secrets, "").exits(0);
    assert!(!ran.out.contains("s3cret") && ran.out.contains("GRADUS_API_TOKEN"), "{}", ran.out);
}

#[test]
fn openapi_prints_the_document() {
    let gradus = Gradus::new();
    let document: Value = serde_json::from_str(&gradus.run(&["openapi"]).exits(0).out).unwrap();
    assert_eq!(document["info"]["title"], "Gradus");
    for path in ["/reward", "/rubrics", "/runs/{run_id}", "/scores/{id}", "/healthz", "/readyz", "/metrics"] {
        assert!(document["paths"][path].is_object(), "{path} is missing");
    }
}

/// `gradus openapi | head -1`: a reader that has enough is no reason to panic.
#[test]
fn a_closed_pipe_is_no_panic() {
    let gradus = Gradus::new();
    for arguments in [&["openapi"][..], &["rubric", "list"], &["rubric", "show", "tool_use"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = gradus.command(arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!said.contains("panicked"), "{arguments:?}: {said}");
    }
}

/// What cannot be said on standard error changes neither what is printed nor the exit code.
#[test]
#[cfg(target_os = "linux")]
fn errors_that_nobody_can_read_change_nothing() {
    let gradus = Gradus::new();
    let lines = gradus.file("lines.jsonl", format!("no json\n{}", jsonl(&right_and_wrong())));
    let rubric = gradus.file("broken.toml", "name = 1\n");
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for (arguments, printed) in [
        (&["score", &lines, "--out", "-"][..], 3),
        (&["score", "missing.jsonl"], 0),
        (&["rubric", "check", &rubric, "missing.toml"], 0),
    ] {
        for errors in [Stdio::from(closed.try_clone().unwrap()), Stdio::from(full.try_clone().unwrap())] {
            let output = gradus.command(arguments).stderr(errors).output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{arguments:?}");
            assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), printed, "{arguments:?}");
        }
    }
    // Both at once: what cannot be printed is an error, and that cannot be said.
    let output = gradus.command(&["openapi"]).stdout(full.try_clone().unwrap()).stderr(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn version_and_unknown_commands() {
    let gradus = Gradus::new();
    assert_eq!(gradus.run(&["--version"]).exits(0).out, concat!("gradus ", env!("CARGO_PKG_VERSION"), "\n"));
    gradus.run(&["scrore"]).exits(2).err_has("unrecognized subcommand");
}
