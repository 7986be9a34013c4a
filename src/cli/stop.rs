//! What SIGINT and SIGTERM ask of a command that takes long: to stop where nothing is lost; when they come again, to end at once.
//! A closed terminal's SIGHUP keeps its own meaning, which `nohup` may have taken away.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

/// How soon after the first a signal is the same once more, and no second wish: terminals and `timeout` signal a whole process
/// group, and a parent that hands its signal on does it again.
pub(super) const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// What a shell says of a process that a signal ended.
pub(super) fn exit_code(signal: SignalKind) -> u8 {
    u8::try_from(128 + signal.as_raw_value()).unwrap_or(u8::MAX)
}

/// How often this process was told to stop, and by which signal.
#[derive(Clone, Default)]
pub(super) struct Stop {
    times: Arc<AtomicU8>,
    /// What [`exit_code`] says of the signal.
    code: Arc<AtomicU8>,
    is_idle: Arc<AtomicBool>,
}

impl Stop {
    /// Listens from now on. At the first signal `said` is printed, at those that come [`SAME_SIGNAL`] after it or later `again` is
    /// called with the exit code.
    pub(super) fn listen(said: &'static str, again: fn(u8)) -> anyhow::Result<Self> {
        let stop = Self::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("the thread that waits for signals could not be started")?;
        let (mut interrupt, mut terminate) = {
            let _guard = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        let heard = stop.clone();
        let listen = async move {
            let mut first: Option<Instant> = None;
            loop {
                let kind = tokio::select! {
                    _ = interrupt.recv() => SignalKind::interrupt(),
                    _ = terminate.recv() => SignalKind::terminate(),
                };
                if first.is_some_and(|first| first.elapsed() < SAME_SIGNAL) {
                    continue;
                }
                let code = exit_code(kind);
                if heard.is_idle.load(Ordering::SeqCst) {
                    end(code);
                }
                first = first.or_else(|| Some(Instant::now()));
                heard.code.store(code, Ordering::SeqCst);
                match heard.times.fetch_add(1, Ordering::SeqCst) {
                    0 => note!("gradus: {said}"),
                    _ => again(code),
                }
            }
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(listen))?;
        Ok(stop)
    }

    /// Says whether there is nothing to be saved, so that the first signal, too, ends this process at once.
    pub(super) fn set_idle(&self, is_idle: bool) {
        self.is_idle.store(is_idle, Ordering::SeqCst);
    }

    /// How often it was told.
    pub(super) fn times(&self) -> u8 {
        self.times.load(Ordering::SeqCst)
    }

    /// The exit code of a process that was told.
    pub(super) fn code(&self) -> ExitCode {
        ExitCode::from(self.code.load(Ordering::SeqCst))
    }
}

/// Ends this process, with what was logged.
pub(super) fn end(code: u8) -> ! {
    super::log::end();
    std::process::exit(i32::from(code))
}

/// Has this process told to stop when the one that started it ends, however that ends.
#[cfg(target_os = "linux")]
pub(super) fn with_parent(parent: i32) -> anyhow::Result<()> {
    use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::TERM)).context("the end of the experiment would not be heard of")?;
    // It may have ended before.
    anyhow::ensure!(Pid::as_raw(getppid()) == parent, "the experiment that started this run has ended");
    Ok(())
}

/// Has this process told to stop when the one that started it ends, where the system can.
#[cfg(not(target_os = "linux"))]
pub(super) fn with_parent(_: i32) -> anyhow::Result<()> {
    Ok(())
}
