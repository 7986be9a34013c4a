//! Runs processes, a few at a time. In: jobs. Out: which are done, and what the others said last.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Outcome;
use crate::train::TrainError;

/// A run that is to be.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) name: String,
    pub(super) config: PathBuf,
    pub(super) output: PathBuf,
}

struct Running {
    job: Job,
    child: Child,
    began: Instant,
}

/// A run ends by writing its model.
pub(super) fn is_done(output: &Path) -> bool {
    output.join("model").join("model.safetensors").exists()
}

fn log(job: &Job) -> PathBuf {
    job.output.join("log.txt")
}

fn start(job: Job, program: &Path) -> Result<Running, TrainError> {
    let wrong = |problem: std::io::Error| TrainError::file(&job.output, problem);
    std::fs::create_dir_all(&job.output).map_err(wrong)?;
    // What is gone on with keeps the lines that say why it stopped.
    let out = File::options().create(true).append(true).open(log(&job)).map_err(wrong)?;
    let errors = out.try_clone().map_err(wrong)?;
    let mut command = Command::new(program);
    command.arg("--config").arg(&job.config).args(["train", "--quiet"]);
    let child = command.stdin(Stdio::null()).stdout(out).stderr(errors).spawn();
    let child = child.map_err(|error| TrainError::other(format!("{}: {error}", program.display())))?;
    Ok(Running { job, child, began: Instant::now() })
}

/// Runs the jobs that are not done, `at_once` at a time.
pub(super) fn run(
    jobs: Vec<Job>,
    at_once: usize,
    program: &Path,
    said: &mut dyn FnMut(&str),
) -> Result<Outcome, TrainError> {
    let (done, waiting): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|job| is_done(&job.output));
    let mut outcome = Outcome { done: done.into_iter().map(|job| job.output).collect(), ..Outcome::default() };
    let total = waiting.len();
    let mut waiting = waiting.into_iter();
    let (mut running, mut ended): (Vec<Running>, usize) = (Vec::new(), 0);
    loop {
        while running.len() < at_once.max(1) {
            let Some(job) = waiting.next() else { break };
            running.push(start(job, program)?);
        }
        if running.is_empty() {
            return Ok(outcome);
        }
        std::thread::sleep(Duration::from_millis(50));
        let mut going = Vec::new();
        for mut run in running {
            let status = run.child.try_wait().map_err(TrainError::other)?;
            let Some(status) = status else {
                going.push(run);
                continue;
            };
            ended += 1;
            let (name, seconds) = (run.job.name.clone(), run.began.elapsed().as_secs());
            if status.success() && is_done(&run.job.output) {
                said(&format!("{ended}/{total} {name}: {seconds} s, {}", last_line(&run.job)));
                outcome.done.push(run.job.output);
            } else {
                said(&format!("{ended}/{total} {name}: failed after {seconds} s: {}", last_line(&run.job)));
                outcome.failed.insert(name, last_line(&run.job));
            }
        }
        running = going;
    }
}

fn last_line(job: &Job) -> String {
    let text = std::fs::read_to_string(log(job)).unwrap_or_default();
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned()
}
