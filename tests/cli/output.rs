//! Where the results of `gradus score` go: a file, standard output, and what becomes of them when a run ends before its time.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

#[test]
fn the_output_is_touched_only_when_there_is_something_to_score() {
    let gradus = Gradus::new();
    let lines = jsonl(&right_and_wrong());
    let file = gradus.file("lines.jsonl", &lines);
    let said = gradus.run(&["score", &file, "--out", "./lines.jsonl"]).exits(1).err;
    assert!(said.contains("--out ./lines.jsonl is the file that is read"), "{said}");
    std::fs::hard_link(&file, gradus.path("linked.jsonl")).unwrap();
    let said = gradus.run(&["score", &file, "--out", "linked.jsonl"]).exits(1).err;
    assert!(said.contains("--out linked.jsonl is the file that is read"), "{said}");
    let mut command = gradus.command(&["score", "-", "--out", "lines.jsonl"]);
    let ran = command.stdin(std::fs::File::open(&file).unwrap()).output().unwrap();
    assert!(!ran.status.success());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), lines);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), lines);
    let earlier = gradus.file("earlier.jsonl", "precious");
    gradus.run(&["score", "typo.jsonl", "--out", &earlier]).exits(1);
    gradus.run(&["score", &file, "--out", &earlier, "--rubric", "nobody"]).exits(1);
    assert_eq!(std::fs::read_to_string(&earlier).unwrap(), "precious");
    gradus.run(&["score", &file, "--out", &earlier]).exits(0);
    assert_eq!(results(&std::fs::read_to_string(&earlier).unwrap()).len(), 2);
}

#[test]
fn what_stood_in_the_output_stays_where_the_input_is_broken() {
    let gradus = Gradus::new();
    let out = gradus.file("out.jsonl", "of yesterday\n");
    for broken in ["", "{\"messages\": ["] {
        let input = gradus.file("broken.json", broken);
        gradus.run(&["score", &input, "--out", &out]).exits(1).err_has("broken.json");
        assert_eq!(std::fs::read_to_string(&out).unwrap(), "of yesterday\n");
    }
    let empty = gradus.file("empty.jsonl", "\n");
    gradus.run(&["score", &empty]).exits(0).err_has("empty.jsonl: there is no trajectory in it");
}

/// A run that ends before its time leaves what was there, and keeps what it has.
#[test]
fn results_of_a_file_that_is_cut_are_kept_beside_the_old_ones() {
    let gradus = Gradus::new();
    let [right, _] = right_and_wrong();
    let line = |number: usize| {
        let mut one = right.clone();
        one["id"] = json!(number);
        one
    };
    let packed = gzip(jsonl(&(0..700).map(line).collect::<Vec<_>>()).as_bytes());
    let cut = gradus.file("cut.jsonl.gz", &packed[..packed.len() * 3 / 4]);
    let out = gradus.file("out.jsonl", "of yesterday\n");
    let ran = gradus.run(&["score", &cut, "--out", &out]).exits(1);
    assert!(ran.err.contains("out.jsonl.partial") && ran.err.contains("cannot read "), "{}", ran.err);
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "of yesterday\n");
    let kept = gradus.results("out.jsonl.partial");
    assert!((300..700).contains(&kept.len()), "{}", kept.len());
    for (index, result) in kept.iter().enumerate() {
        assert_eq!((&result["id"], &result["valid"]), (&json!(index.to_string()), &json!(true)));
    }
    ran.out_has(&format!(": {} scored, 0 not", kept.len()));
    // One that is whole takes the place of both, and nobody may read more than before.
    std::fs::set_permissions(&out, std::fs::Permissions::from_mode(0o600)).unwrap();
    symlink(&out, gradus.path("link.jsonl")).unwrap();
    let whole = gradus.file("whole.jsonl.gz", packed);
    gradus.run(&["score", &whole, "--out", &gradus.path("link.jsonl")]).exits(0);
    assert_eq!(results(&std::fs::read_to_string(&out).unwrap()).len(), 700);
    assert_eq!(std::fs::metadata(&out).unwrap().mode() & 0o777, 0o600);
    assert!(!Path::new(&gradus.path("out.jsonl.partial")).exists());
}

#[test]
fn an_interrupted_run_leaves_the_old_results() {
    let gradus = Gradus::new();
    let out = gradus.file("out.jsonl", "of yesterday\n");
    let mut command = gradus.command(&["score", "-", "--out", &out]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut lines = child.stdin.take().unwrap();
    // More than are scored together.
    lines.write_all(jsonl(&right_and_wrong()).repeat(300).as_bytes()).unwrap();
    let kept = || std::fs::metadata(gradus.path("out.jsonl.partial")).map_or(0, |kept| kept.len());
    for _ in 0..2000 {
        if kept() > 0 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(kept() > 0);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert!(!child.wait().unwrap().success());
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "of yesterday\n");
}

#[test]
fn a_partial_file_that_another_run_writes_or_that_leads_elsewhere_is_left_alone() {
    let gradus = Gradus::new();
    let file = gradus.file("lines.jsonl", jsonl(&right_and_wrong()));
    let partial = gradus.file("out.partial", "of another run\n");
    let other = std::fs::File::open(&partial).unwrap();
    other.lock().unwrap();
    let said = gradus.run(&["score", &file, "--out", "out"]).exits(1).err;
    assert!(said.contains("out.partial: another run writes it"), "{said}");
    assert_eq!(std::fs::read_to_string(&partial).unwrap(), "of another run\n");
    drop(other);
    gradus.run(&["score", &file, "--out", "out"]).exits(0);
    assert_eq!(results(&std::fs::read_to_string(gradus.path("out")).unwrap()).len(), 2);

    let precious = gradus.file("precious", "precious\n");
    symlink(&precious, &partial).unwrap();
    let said = gradus.run(&["score", &file, "--out", "out"]).exits(1).err;
    assert!(said.contains("it is no regular file"), "{said}");
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious\n");
}

#[test]
fn what_is_no_file_is_written_as_it_comes() {
    let gradus = Gradus::new();
    let file = gradus.file("lines.jsonl", jsonl(&right_and_wrong()));
    gradus.run(&["score", &file, "--out", "/dev/null"]).exits(0);
    assert_eq!(gradus.run(&["score", &file, "--out", "/dev/stdout"]).exits(0).out.matches("latency_ms").count(), 2);
    let said = gradus.run(&["score", &file, "--out", ""]).exits(1).err;
    assert!(said.contains("cannot write"), "{said}");
    let partial = gradus.file("out.partial", jsonl(&right_and_wrong()));
    let said = gradus.run(&["score", &partial, "--out", "out"]).exits(1).err;
    assert!(said.contains("out.partial would be written over"), "{said}");
    std::fs::create_dir(gradus.path("folder")).unwrap();
    let said = gradus.run(&["score", &file, "--out", "folder"]).exits(1).err;
    assert!(said.contains("cannot write folder"), "{said}");
    let left = std::fs::read_dir(gradus.directory.path()).unwrap().count();
    assert_eq!(left, 3, "the two inputs and the folder");
}

/// It stays the name that others know.
#[test]
fn a_link_to_a_file_that_is_not_there_yet_is_followed() {
    let gradus = Gradus::new();
    symlink("later.jsonl", gradus.path("link.jsonl")).unwrap();
    gradus.run_with(&["score", "-", "--out", "link.jsonl"], &[], &jsonl(&right_and_wrong())).exits(0);
    assert!(Path::new(&gradus.path("link.jsonl")).is_symlink());
    assert_eq!(gradus.results("later.jsonl").len(), 2);
}

#[test]
fn nothing_is_scored_for_a_reader_that_has_gone() {
    let gradus = Gradus::new();
    let file = gradus.file("lines.jsonl", jsonl(&right_and_wrong()).repeat(1000));
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = gradus.command(&["score", &file, "--out", "-"]);
    let output = command.stdout(closed).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains(": 512 scored, 0 not"), "{}\n{said}", output.status);
}

#[test]
#[cfg(target_os = "linux")]
fn output_that_cannot_be_written_is_a_failure_and_a_closed_pipe_changes_nothing() {
    let gradus = Gradus::new();
    for arguments in [&["score", "-"][..], &["openapi"], &["rubric", "show", "short_form_qa"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = gradus.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(jsonl(&right_and_wrong()).as_bytes());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write to standard output"), "{arguments:?}");
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = gradus.command(&["score", "-"]).stdin(Stdio::piped()).stdout(writer).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"no json\n").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "a line was not scored");
}

#[test]
fn results_can_go_to_standard_output_and_the_summary_steps_aside() {
    let gradus = Gradus::new();
    let ran = gradus.run_with(&["score", "-", "--out", "-"], &[], &jsonl(&right_and_wrong())).exits(0);
    let ids: Vec<_> = results(&ran.out).iter().map(|result| result["id"].clone()).collect();
    assert_eq!(ids, ["right", "wrong"]);
    ran.err_has("2 scored, 0 not");
}
