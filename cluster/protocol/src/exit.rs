//! How a process ends: exit codes, the panic hook and the signals.
//!
//! Invariants:
//! 1. Once [`exit_on_panic`] was called, a panic of any thread ends the process. Otherwise the
//!    other processes of the job would wait for this one for ever.
//! 2. The first Ctrl-C or SIGTERM asks for a clean stop. The second one ends the process at once.

use std::panic::PanicHookInfo;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};

/// How a command ends: the exit code of its process.
///
/// ```
/// use tidemill_protocol::exit::ExitCode;
/// assert_eq!(ExitCode::Held.code(), 5);
/// assert_eq!(ExitCode::of(5), Some(ExitCode::Held));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// The command did everything, or was stopped cleanly.
    Done = 0,
    /// Something outside this program is wrong: the pipeline's files, a service, or the data.
    Error = 1,
    /// The command line or a connection is wrong (also the code that clap uses).
    Usage = 2,
    /// Another process of the job died or cannot be reached, or the worker that started this
    /// process is gone. The cause is in the log of the other process.
    PeerLost = 3,
    /// `verify` found differences that were not repaired.
    Different = 4,
    /// Another process runs the pipeline. Nothing was started or removed.
    Held = 5,
    /// A job is degraded, or did not reach the desired state in time; it continues. Or `wait` timed
    /// out, or `ingest --once` was stopped before it was done.
    NotYet = 6,
    /// `ingest --once` is done, except for pages that failed for good.
    Incomplete = 7,
    /// `wait`: the job is stopped or failed.
    Ended = 8,
    /// An invariant of this program does not hold: a panic.
    Bug = 101,
    /// Ended at once by a second signal.
    Interrupted = 130,
}

impl ExitCode {
    /// All codes, rising.
    pub const ALL: [Self; 11] = [
        Self::Done,
        Self::Error,
        Self::Usage,
        Self::PeerLost,
        Self::Different,
        Self::Held,
        Self::NotYet,
        Self::Incomplete,
        Self::Ended,
        Self::Bug,
        Self::Interrupted,
    ];

    /// The number that the system gets.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The meaning of the code with which a process ended; `None` for one that no command uses.
    #[must_use]
    pub fn of(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|it| i32::from(*it) == code)
    }

    /// Whether a process ended with this code.
    #[must_use]
    pub fn is(self, code: Option<i32>) -> bool {
        code == Some(self.into())
    }
}

impl From<ExitCode> for i32 {
    fn from(code: ExitCode) -> Self {
        Self::from(code.code())
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.code())
    }
}

/// The exit codes in the text of `--help`.
pub const HELP: &str = "\
Exit codes:
  0    done, or stopped cleanly
  1    a file, a service or the data is wrong; the message says which
  2    the command line or a connection is wrong
  3    another process of the same job died or is not there; look at that one's log first
  4    verify found differences, and they are still there
  5    another process runs this pipeline: nothing was started or removed
  6    the job is degraded, or not as asked for within --timeout; it goes on. wait: not readable
       within --timeout. ingest --once: stopped before it was done; started again it goes on
  7    ingest --once: pages failed for good; all others are landed and published
  8    wait: the job is stopped or failed
  101  a bug of tidemill; please report the log
  130  stopped at once by a second Ctrl-C";

/// Error for wrong usage: the command line or a connection (exit code [`ExitCode::Usage`]).
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Error: tables differ from their views. The text names the views and the numbers of rows (exit
/// code [`ExitCode::Different`]).
#[derive(Debug, thiserror::Error)]
#[error("the tables are not what the views should hold: {0}")]
pub struct Different(pub String);

/// Error: another process of the job, or the worker of this one, is gone (exit code
/// [`ExitCode::PeerLost`]).
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PeerLost(pub String);

/// Error: another process runs the pipeline (exit code [`ExitCode::Held`]).
#[derive(Debug, thiserror::Error)]
#[error("the {component} of pipeline `{pipeline}` runs already: {who}, since {since}")]
pub struct Held {
    /// The pipeline's name.
    pub pipeline: String,
    /// `dataflow` or `ingest`.
    pub component: &'static str,
    /// The process that runs it, as in `process 12 on host a`.
    pub who: String,
    /// Since when it runs: date and time in UTC, or that the time is unknown.
    pub since: String,
    /// What the user can do.
    pub instead: String,
}

/// Error: a job has not reached the desired state and continues (exit code [`ExitCode::NotYet`]).
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotYet(pub String);

/// Error: this number of pages failed for good (exit code [`ExitCode::Incomplete`]).
#[derive(Debug, thiserror::Error)]
#[error(
    "{count} {pages} failed for good; `tidemill dead-letters list --stage fetch` says why",
    count = .0,
    pages = if *.0 == 1 { "page" } else { "pages" }
)]
pub struct Incomplete(pub u64);

/// Error: a job does not run any more (exit code [`ExitCode::Ended`]).
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Ended(pub String);

/// The exit code of an error that ended a command.
pub fn code_of(error: &anyhow::Error) -> ExitCode {
    if error.chain().any(|cause| cause.is::<Usage>()) {
        ExitCode::Usage
    } else if error.is::<PeerLost>() {
        ExitCode::PeerLost
    } else if error.is::<Different>() {
        ExitCode::Different
    } else if error.is::<Held>() {
        ExitCode::Held
    } else if error.is::<NotYet>() {
        ExitCode::NotYet
    } else if error.is::<Incomplete>() {
        ExitCode::Incomplete
    } else if error.is::<Ended>() {
        ExitCode::Ended
    } else {
        ExitCode::Error
    }
}

/// Installs the panic hook: a panic of any thread is logged and ends the process. Destructors do
/// not run, because other threads may hold sockets that never close.
pub fn exit_on_panic() {
    std::panic::set_hook(Box::new(|info| {
        let message = message_of(info);
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        let code = panic_code(message);
        if code == ExitCode::PeerLost {
            let lost = peer_of(thread);
            tracing::error!(
                thread,
                %place,
                lost,
                "another process of this job is gone: {message}"
            );
            if let Some(tell) = ON_PEER_LOST.get() {
                tell(lost.filter(|_| is_cut(message)));
            }
        } else {
            let trace = std::backtrace::Backtrace::capture();
            tracing::error!(thread, %place, "panic: {message}\n{trace}");
        }
        signal_hook::low_level::exit(i32::from(code));
    }));
}

/// What is done before the process ends because it lost a peer.
static ON_PEER_LOST: OnceLock<fn(Option<usize>)> = OnceLock::new();

/// Sets what is done before the process ends because it lost a peer. The function gets the peer's
/// index if the network to it is broken, and `None` if the peer closed the connection.
pub fn on_peer_lost(tell: fn(Option<usize>)) {
    // A second call would come from a second command.
    let _ = ON_PEER_LOST.set(tell);
}

/// The peer of one of timely's communication threads: the thread's name ends with the index.
fn peer_of(thread: &str) -> Option<usize> {
    let threads = ["timely:recv-", "timely:send-"];
    let mut indices = threads.iter().filter_map(|name| thread.strip_prefix(name));
    indices.next()?.parse().ok()
}

/// Whether the network to the peer is broken (timed out, or no route). A peer that died closes its
/// connections and can be reached again once it is restarted.
fn is_cut(message: &str) -> bool {
    let errors = ["os error 110)", "os error 113)", "os error 101)"];
    errors.iter().any(|error| message.ends_with(error))
}

/// The text of a panic.
fn message_of<'a>(info: &'a PanicHookInfo<'_>) -> &'a str {
    info.payload_as_str().unwrap_or("panic without a message")
}

/// Whether a panic is a lost peer or a bug. The texts are those of timely for a lost peer.
fn panic_code(message: &str) -> ExitCode {
    if message.starts_with("timely communication error:") || message == "MergeQueue poisoned." {
        ExitCode::PeerLost
    } else {
        ExitCode::Bug
    }
}

/// Registers the signals and returns the flag that the first SIGINT or SIGTERM sets.
///
/// # Errors
///
/// A signal handler cannot be registered.
pub fn stop_on_signal() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The order matters: the second signal must find the flag already set.
        signal_hook::flag::register_conditional_shutdown(
            signal,
            i32::from(ExitCode::Interrupted),
            Arc::clone(&stop),
        )?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_code() {
        for code in ExitCode::ALL {
            let line = format!("\n  {:<4} ", code.code());
            assert!(HELP.contains(&line), "{line:?}");
        }
    }

    #[test]
    fn a_lost_peer_is_told_from_a_bug() {
        let lost = "timely communication error: reading data: socket closed";
        assert_eq!(panic_code(lost), ExitCode::PeerLost);
        assert_eq!(panic_code("MergeQueue poisoned."), ExitCode::PeerLost);
        assert_eq!(panic_code("index out of bounds"), ExitCode::Bug);
    }

    #[test]
    fn a_network_that_was_cut_is_told_from_a_process_that_died() {
        assert_eq!(peer_of("timely:recv-12"), Some(12));
        assert_eq!(peer_of("timely:work-12"), None);
        let timed_out = std::io::Error::from_raw_os_error(110);
        assert!(is_cut(&format!(
            "timely communication error: reading data: {timed_out}"
        )));
        assert!(!is_cut(
            "timely communication error: reading data: socket closed"
        ));
    }

    #[test]
    fn usage_is_found_below_context() {
        let error = anyhow::Error::new(Usage("no".into())).context("above");
        assert_eq!(code_of(&error), ExitCode::Usage);
        assert_eq!(code_of(&anyhow::anyhow!("else")), ExitCode::Error);
        let lost = anyhow::Error::new(PeerLost("process 1 is not there".into()));
        assert_eq!(code_of(&lost), ExitCode::PeerLost);
    }
}
