//! `gradus runs`: what a database holds, and a run taken out of it.

use super::*;
use crate::common::Database;

/// A database with a run of one trajectory for each name.
fn scored(runs: &[&str]) -> Database {
    let database = Database::new();
    let server = database.serve(&[]);
    for run in runs {
        let body = json!({
            "run_id": run,
            "rubric": "binary_em",
            "curriculum": {"step": 3},
            "trajectories": [{"messages": [{"role": "assistant", "content": "x"}], "references": ["y"]}],
        });
        server.reward(&body).ok();
    }
    assert!(server.stop().success());
    database
}

#[test]
fn a_run_is_listed_until_it_is_removed() {
    let (gradus, database) = (Gradus::new(), scored(&["exp-1", "exp-2", "bell\u{7}"]));
    let url = &database.url;
    let listed = gradus.run(&["runs", "list", "--store", url]).exits(0).out;
    let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["trajectories", "last", "step", "reward", "last", "scored", "run"]);
    assert_eq!(lines.len(), 4, "{listed}");
    assert_eq!((lines[3][..3].to_vec(), lines[3][5..].to_vec()), (vec!["1", "3", "0.0000"], vec!["ago", "exp-1"]));
    assert!(!listed.contains('\u{7}'), "{listed:?}");

    let removed = gradus.run(&["runs", "remove", "exp-1", "exp-3", "--store", url]).exits(1);
    assert_eq!(removed.out, "exp-1: 1 batches removed, 1 trajectories\n");
    removed.err_has("there is no run \"exp-3\"");
    let listed = gradus.run(&["runs", "list", "--store", url]).exits(0).out;
    assert!(!listed.contains("exp-1") && listed.contains("exp-2"), "{listed}");
}

#[test]
fn a_database_that_is_not_there_is_an_error_and_not_made() {
    let gradus = Gradus::new();
    let url = &format!("sqlite:{}", gradus.path("missing.db"));
    for arguments in [&["runs", "list"][..], &["runs", "remove", "exp"]] {
        gradus.run(&[arguments, &["--store", url]].concat()).exits(1).err_has("there is no database");
        gradus.run(&[arguments, &["--store", "none"]].concat()).exits(1).err_has("name the database");
    }
    assert!(!Path::new(&gradus.path("missing.db")).exists());
}
