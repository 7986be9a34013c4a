//! What SIGINT and SIGTERM ask of a command that takes long: to stop where nothing is lost; when they come again, to end at once.
//! A closed terminal's SIGHUP keeps its own meaning, which `nohup` may have taken away.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How soon after the first a signal is the same once more, and no second wish: terminals and `timeout` signal a whole process
/// group, and a parent that hands its signal on does it again.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// What a shell says of a process that a signal ended.
pub(super) fn exit_code(signal: SignalKind) -> u8 {
    u8::try_from(128 + signal.as_raw_value()).unwrap_or(u8::MAX)
}

/// The signals that tell this process to stop.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// Where that of a closed terminal is one of them.
    hang_up: Option<Signal>,
    first: Option<Instant>,
}

impl Signals {
    /// Listens to SIGINT and SIGTERM from now on; must be called in a runtime.
    pub(super) fn new() -> std::io::Result<Self> {
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate, hang_up: None, first: None })
    }

    /// Listens to SIGHUP, too, which is no second wish: a terminal sends it that is closed.
    pub(super) fn with_hang_up(self) -> std::io::Result<Self> {
        Ok(Self { hang_up: Some(signal(SignalKind::hangup())?), ..self })
    }

    /// Waits for the first signal, and then for each that comes [`SAME_SIGNAL`] after it or later.
    pub(super) async fn next(&mut self) -> SignalKind {
        loop {
            let Self { interrupt, terminate, hang_up, first } = self;
            let hung_up = async {
                match hang_up {
                    Some(hang_up) if first.is_none() => hang_up.recv().await,
                    _ => std::future::pending().await,
                }
            };
            let kind = tokio::select! {
                _ = interrupt.recv() => SignalKind::interrupt(),
                _ = terminate.recv() => SignalKind::terminate(),
                _ = hung_up => SignalKind::hangup(),
            };
            match first {
                Some(first) if first.elapsed() < SAME_SIGNAL => {}
                Some(_) => return kind,
                None => {
                    *first = Some(Instant::now());
                    return kind;
                }
            }
        }
    }
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
        let mut signals = {
            let _guard = runtime.enter();
            Signals::new()?
        };
        let heard = stop.clone();
        let listen = async move {
            loop {
                let code = exit_code(signals.next().await);
                if heard.is_idle.load(Ordering::SeqCst) {
                    end(code);
                }
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
