//! Runs processes, a few at a time. In: jobs. Out: which are done, and what the others said last. None of them outlives it.

use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Control, Outcome};
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

/// Whatever ends this process or this run of jobs, no child is left behind.
impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    /// Tells it to stop where nothing is lost.
    fn tell(&self) {
        // Where it has ended there is nobody to tell.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
    }
}

/// Whether a process ended because it was told to.
fn did_as_told(status: ExitStatus) -> bool {
    let signal = Signal::TERM.as_raw();
    status.code() == Some(128 + signal) || status.signal() == Some(signal)
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
    command.arg(format!("--parent={}", std::process::id()));
    // A terminal's Ctrl-C comes to this process alone, which tells them once.
    let child = command.process_group(0).stdin(Stdio::null()).stdout(out).stderr(errors).spawn();
    let child = child.map_err(|error| TrainError::other(format!("{}: {error}", program.display())))?;
    Ok(Running { job, child, began: Instant::now() })
}

/// Runs the jobs that are not done, `at_once` at a time.
pub(super) fn run(
    jobs: Vec<Job>,
    at_once: usize,
    program: &Path,
    said: &mut dyn FnMut(&str),
    told: &dyn Fn() -> Control,
) -> Result<Outcome, TrainError> {
    let all = jobs.len();
    let (done, waiting): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|job| is_done(&job.output));
    let mut outcome = Outcome { done: done.into_iter().map(|job| job.output).collect(), ..Outcome::default() };
    let total = waiting.len();
    let mut waiting = waiting.into_iter();
    let (mut running, mut ended, mut is_told): (Vec<Running>, usize, bool) = (Vec::new(), 0, false);
    loop {
        let told = told();
        match told {
            Control::Stop if !is_told => {
                is_told = true;
                running.iter().for_each(Running::tell);
            }
            Control::End => running.clear(),
            Control::GoOn | Control::Stop => {}
        }
        is_told |= told == Control::End;
        while !is_told && running.len() < at_once.max(1) {
            let Some(job) = waiting.next() else { break };
            running.push(start(job, program)?);
        }
        if running.is_empty() {
            // Whoever is told when all have ended has nothing to go on with.
            outcome.stopped = outcome.done.len() + outcome.failed.len() < all;
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
                outcome.done.push(run.job.output.clone());
            } else if is_told && did_as_told(status) {
                said(&format!("{name}: {}", last_line(&run.job)));
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A job whose process says `ready`, and then waits until it is told to stop.
    fn waiting(folder: &Path, name: &str) -> Job {
        Job { name: name.to_owned(), config: folder.join("none.toml"), output: folder.join(name) }
    }

    fn program(folder: &Path, when_told: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = folder.join("program");
        let text = format!("#!/bin/sh\ntrap '{when_told}' TERM\necho $$\nwhile :; do sleep 0.05; done\n");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    const SAVES: &str = "echo saved; exit 143";

    /// The process of a job, once it has said which it is.
    fn process(job: &Job) -> Option<Pid> {
        let said = std::fs::read_to_string(log(job)).ok()?;
        said.strip_suffix('\n').and_then(|said| Pid::from_raw(said.parse().ok()?))
    }

    fn lives(process: Pid) -> bool {
        rustix::process::test_kill_process(process).is_ok()
    }

    #[test]
    fn whoever_is_told_to_stop_waits_for_its_runs_and_starts_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let jobs: Vec<Job> = ["a", "b", "c"].map(|name| waiting(folder.path(), name)).into();
        let told = || {
            let are_there = jobs[..2].iter().all(|job| process(job).is_some());
            if are_there { Control::Stop } else { Control::GoOn }
        };
        let mut said = Vec::new();
        let mut say = |line: &str| said.push(line.to_owned());
        let outcome = run(jobs.clone(), 2, &program(folder.path(), SAVES), &mut say, &told).unwrap();
        assert!(outcome.stopped && outcome.failed.is_empty() && outcome.done.is_empty(), "{outcome:?}");
        said.sort();
        assert_eq!(said, ["a: saved", "b: saved"]);
        assert!(!jobs[2].output.exists());
    }

    /// The signal comes when the last step is done.
    #[test]
    fn whoever_is_told_to_stop_when_all_is_done_was_not_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let job = waiting(folder.path(), "a");
        let ends = format!("cd {}; mkdir model; echo > model/model.safetensors; exit 0", job.output.display());
        let told = || if process(&job).is_some() { Control::Stop } else { Control::GoOn };
        let program = program(folder.path(), &ends);
        let outcome = run(vec![job.clone()], 1, &program, &mut |_| (), &told).unwrap();
        assert!(!outcome.stopped && outcome.failed.is_empty(), "{outcome:?}");
        assert_eq!(outcome.done, std::slice::from_ref(&job.output));
        let again = run(vec![job.clone()], 1, &program, &mut |_| (), &|| Control::End).unwrap();
        assert!(!again.stopped && again.done == outcome.done, "{again:?}");
    }

    #[test]
    fn no_run_outlives_an_end_or_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let jobs = [waiting(folder.path(), "a"), waiting(folder.path(), "b")];
        let program = program(folder.path(), SAVES);
        let found = Cell::new(None);
        let told = || {
            found.set(found.get().or(process(&jobs[0])));
            if found.get().is_some() { Control::End } else { Control::GoOn }
        };
        let outcome = run(jobs[..1].to_vec(), 1, &program, &mut |_| (), &told).unwrap();
        assert!(outcome.stopped && !lives(found.get().unwrap()));
        // The folder of the second job cannot be made: the first one's process is there by then.
        std::fs::remove_file(log(&jobs[0])).unwrap();
        std::fs::write(&jobs[1].output, "in the way").unwrap();
        let error = run(jobs.to_vec(), 2, &program, &mut |_| (), &|| Control::GoOn).unwrap_err();
        assert!(error.to_string().contains(&jobs[1].output.display().to_string()), "{error}");
        std::thread::sleep(Duration::from_millis(300));
        assert!(process(&jobs[0]).is_none_or(|process| !lives(process)));
    }
}
