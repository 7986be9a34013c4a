//! The command line, end to end: the program itself is started, with files, standard input, its environment and its
//! configuration; what it prints and its exit code are the contract.

mod help;
mod judge;
mod output;
mod pages;
mod replay;
mod rubric;
mod runs;
mod score;
mod serve;
mod settings;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use serde_json::{Value, json};

use crate::common::{Ended, Server, gzip, package, program};

/// A run of the program in a directory of its own.
struct Gradus {
    directory: tempfile::TempDir,
}

struct Ran {
    status: ExitStatus,
    out: String,
    err: String,
}

impl Gradus {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The results in a file of this directory.
    fn results(&self, name: &str) -> Vec<Value> {
        results(&std::fs::read_to_string(self.path(name)).unwrap())
    }

    /// The program, in this directory.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command.args(arguments).current_dir(self.directory.path()).env("NO_COLOR", "1");
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, &[], "")
    }

    fn run_with(&self, arguments: &[&str], environment: &[(&str, &str)], input: &str) -> Ran {
        let mut command = self.command(arguments);
        command.envs(environment.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let output = std::thread::scope(|scope| {
            // The program may end without having read everything.
            scope.spawn(move || stdin.write_all(input.as_bytes()));
            child.wait_with_output().unwrap()
        });
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran { status: output.status, out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Ran {
    #[track_caller]
    fn exits(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "output:\n{}\nerrors:\n{}", self.out, self.err);
        self
    }

    /// What it printed has these words.
    #[track_caller]
    fn out_has(&self, words: &str) {
        assert!(self.out.contains(words), "{words:?} is not in\n{}", self.out);
    }

    /// What it wrote to standard error has them.
    #[track_caller]
    fn err_has(&self, words: &str) {
        assert!(self.err.contains(words), "{words:?} is not in\n{}", self.err);
    }

    /// The numbers of a row of the summary's stage table: reached, passed, mean.
    #[track_caller]
    fn stage(&self, name: &str) -> (usize, usize, f64) {
        let row = self.out.lines().find(|line| line.split_whitespace().next() == Some(name));
        let cells: Vec<_> = row.unwrap_or_else(|| panic!("no row {name}:\n{}", self.out)).split_whitespace().collect();
        (cells[1].parse().unwrap(), cells[2].parse().unwrap(), cells[3].parse().unwrap())
    }
}

/// The files of a directory of cases, by name.
fn cases(directory: &str, extension: &str) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(package("tests/cases").join(directory)).unwrap();
    let paths =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == extension));
    let mut cases: Vec<_> = paths.map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path)).collect();
    cases.sort();
    cases
}

fn trajectory_case(name: &str) -> PathBuf {
    package(&format!("tests/cases/trajectories/{name}.json"))
}

fn rubric_case(name: &str) -> String {
    package(&format!("tests/cases/rubrics/{name}.toml")).to_str().unwrap().to_owned()
}

/// The number that the first line of an output ends with.
fn reward_in(out: &str) -> String {
    out.lines().next().unwrap().rsplit(' ').next().unwrap().to_owned()
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// All requests of the cases whose rubric needs no judge.
fn requests() -> Vec<Value> {
    let all = cases("trajectories", "json").into_iter().map(|(_, path)| read(&path));
    all.filter(|request| !matches!(request["rubric"].as_str(), Some("long_form_qa" | "binary_judge"))).collect()
}

fn jsonl(values: &[Value]) -> String {
    values.iter().fold(String::new(), |mut text, value| {
        writeln!(text, "{value}").unwrap();
        text
    })
}

fn results(jsonl: &str) -> Vec<Value> {
    jsonl.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Results without the one number that differs from run to run.
fn timeless(mut results: Vec<Value>) -> Vec<Value> {
    for result in &mut results {
        result.as_object_mut().unwrap().remove("latency_ms").expect("every result has a latency");
    }
    results
}

/// A trajectory that is right under the default rubric, and one that is wrong there.
fn right_and_wrong() -> [Value; 2] {
    let answer = |id: &str, text: &str| {
        json!({"id": id, "messages": [{"role": "user", "content": "Capital of France?"}, {"role": "assistant", "content": text}],
            "references": ["Paris"]})
    };
    [answer("right", "<answer>Paris</answer>"), answer("wrong", "<answer>Rome</answer>")]
}

/// A server of this directory.
#[track_caller]
fn serve(gradus: &Gradus, arguments: &[&str], environment: &[(&str, &str)]) -> Server {
    let served = try_to_serve(gradus, arguments, environment);
    served.unwrap_or_else(|ended| panic!("the server did not start:\n{}{}", ended.line, ended.log))
}

/// The server, or how it ended before it listened.
fn try_to_serve(gradus: &Gradus, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Server, Ended> {
    let mut command = gradus.command(arguments);
    command.envs(environment.iter().copied());
    Server::of(command, tempfile::tempdir().unwrap())
}
