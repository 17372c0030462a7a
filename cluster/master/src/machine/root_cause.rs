//! Root cause of a failed generation: which process failed first, in words for the user.
//!
//! In: how each process ended. All processes of a generation end when one fails, so most ends are
//! consequences. Two kinds of end are never the root cause while there is another one: a process
//! that lost a peer ([`ExitCode::PeerLost`]), and a process that was killed because the generation
//! was already ending.

use std::collections::BTreeMap;

use tidemill_protocol::exit::ExitCode;
use tidemill_protocol::{Exit, Failure, WorkerId};

use super::durable::Run;
use super::times::WORKER_SILENT_MAX;

/// The number of SIGKILL.
const KILL: i32 = 9;

/// How one process of a generation ended, as far as the master knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The worker reported the process's exit. `at`: when the master heard of it, in ms. `ours`: by
    /// then the worker was to kill the process.
    Exited { exit: Exit, at: u64, ours: bool },
    /// The worker is gone, at `at` ms.
    WorkerGone { at: u64 },
    /// The worker is alive and does not report the process any more.
    Vanished { at: u64 },
}

/// The root cause: the process that failed first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RootCause {
    /// What is kept and shown of the failure.
    pub(crate) failure: Failure,
    /// The exit code of the process; `None` if a signal ended it or no exit is known.
    pub(crate) code: Option<i32>,
    /// Pairs of workers that could not reach each other.
    pub(crate) apart: Vec<(WorkerId, WorkerId)>,
}

impl RootCause {
    /// The last error message of the process: the last line that begins with `error:`, else the
    /// last line.
    pub(crate) fn message(&self) -> Option<&str> {
        let tail = &self.failure.tail;
        let error = tail.iter().rfind(|line| line.starts_with("error:"));
        error.or(tail.last()).map(String::as_str)
    }
}

/// Whether at least one of these ends is more than a lost peer, so that the root cause is known.
pub(crate) fn is_known<'a>(mut ended: impl Iterator<Item = &'a Ended>) -> bool {
    ended.any(|ended| !matches!(ended, Ended::Exited { exit, .. } if is_peer_lost(exit)))
}

/// Finds the root cause. `cause` is a process that the master itself ended, and why.
pub(crate) fn find(
    run: &Run,
    ended: &BTreeMap<usize, Ended>,
    cause: Option<&(usize, String)>,
    now: u64,
) -> RootCause {
    if let Some((index, what)) = cause {
        return culprit(run, *index, what.clone(), ended.get(index), now);
    }
    let by_time = |late: bool| {
        let own = ended.iter().filter(|(_, ended)| is_own(ended, late));
        own.min_by_key(|(_, ended)| ended.order())
    };
    // First the ends that were reported before anything was killed, then later ones that no kill
    // explains.
    if let Some((index, end)) = by_time(false).or_else(|| by_time(true)) {
        return culprit(run, *index, end.words(), Some(end), now);
    }
    unreachable(run, ended, now)
}

/// No process failed by itself: some processes could not reach others.
///
/// The pair that could not meet is named, and placement keeps the two workers apart for a while.
fn unreachable(run: &Run, ended: &BTreeMap<usize, Ended>, now: u64) -> RootCause {
    let mut first = None;
    let mut apart = Vec::new();
    for (index, end) in ended {
        let Ended::Exited { exit, .. } = end else {
            continue;
        };
        for peer in exit.unreachable.iter().filter(|peer| *peer != index) {
            first = first.or(Some((*index, *peer)));
            let pair = run.workers.get(*index).zip(run.workers.get(*peer));
            if let Some(((one, _), (other, _))) = pair
                && one != other
            {
                apart.push((one.clone(), other.clone()));
            }
        }
    }
    let (index, what) = match (first, ended.first_key_value()) {
        (Some((index, peer)), _) => (index, format!("could not reach {}", run.process(peer))),
        (None, Some((index, end))) => (*index, end.words()),
        (None, None) => (0, "ended while the master was away".to_owned()),
    };
    RootCause {
        apart,
        ..culprit(run, index, what, ended.get(&index), now)
    }
}

/// Describes process `index` as the root cause.
///
/// `what` is the description in words. The last lines of the process's log become part of the
/// failure.
fn culprit(run: &Run, index: usize, what: String, end: Option<&Ended>, now: u64) -> RootCause {
    let exit = match end {
        Some(Ended::Exited { exit, .. }) => Some(exit),
        _ => None,
    };
    let failure = Failure {
        generation: run.generation,
        at_ms: exit.map_or(now, |exit| exit.at_ms),
        process: run.process(index),
        what,
        tail: exit.map(|exit| exit.tail.clone()).unwrap_or_default(),
    };
    RootCause {
        failure,
        code: exit.and_then(|exit| exit.code),
        apart: Vec::new(),
    }
}

/// Whether the process failed by itself. `late` also considers ends that came in after the process
/// was to be killed, if a kill does not explain them.
fn is_own(ended: &Ended, late: bool) -> bool {
    match ended {
        Ended::Exited { exit, ours, .. } if *ours || late => {
            late && !is_peer_lost(exit)
                && (exit.frozen
                    || exit.code.is_some() && !ExitCode::Done.is(exit.code)
                    || exit.signal.is_some_and(|signal| signal != KILL))
        }
        Ended::Exited { exit, .. } => !is_peer_lost(exit),
        Ended::WorkerGone { .. } | Ended::Vanished { .. } => !late,
    }
}

/// Whether the process ended because it lost a peer.
pub(crate) fn is_peer_lost(exit: &Exit) -> bool {
    ExitCode::PeerLost.is(exit.code) && !exit.frozen
}

impl Ended {
    /// Whether this is a correct end of a process that had to drain: it drained and exited with 0,
    /// or it lost a peer that was told to drain sooner.
    pub(crate) fn is_drained(&self) -> bool {
        let Self::Exited { exit, .. } = self else {
            return false;
        };
        ExitCode::Done.is(exit.code) || is_peer_lost(exit)
    }

    /// Order of ends: when the master heard of them, then the workers' clocks.
    fn order(&self) -> (u64, u64) {
        match self {
            Self::Exited { exit, at, .. } => (*at, exit.at_ms),
            Self::WorkerGone { at } | Self::Vanished { at } => (*at, u64::MAX),
        }
    }

    /// When the master heard of the end, in ms.
    pub(crate) fn at(&self) -> u64 {
        self.order().0
    }

    /// What happened, in words for the user.
    fn words(&self) -> String {
        match self {
            Self::WorkerGone { .. } => "its worker is gone".to_owned(),
            Self::Vanished { .. } => "its worker does not have it any more".to_owned(),
            Self::Exited { exit, .. } if exit.frozen => {
                let seconds = WORKER_SILENT_MAX / 1000;
                format!("said nothing for {seconds} s and was killed")
            }
            Self::Exited { exit, .. } => match (exit.code, exit.signal) {
                (Some(3), _) => "lost another process".to_owned(),
                (Some(0), _) => "ended with 0 though it was not asked to".to_owned(),
                (Some(code), _) => format!("ended with {code}"),
                (None, Some(signal)) => format!("killed by signal {signal}"),
                (None, None) => "ended".to_owned(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        let workers = ["a", "b", "c"].map(|id| (id.to_owned(), format!("node-{id}")));
        Run {
            generation: 4,
            revision: 0,
            ending: true,
            workers: workers.into(),
            threads: 1,
            secret: String::new(),
            spec: None,
        }
    }

    fn exited(code: i32, at: u64, ours: bool, unreachable: &[usize]) -> Ended {
        let exit = Exit {
            code: (code < 128).then_some(code),
            signal: (code >= 128).then(|| code - 128),
            frozen: false,
            unreachable: unreachable.to_vec(),
            at_ms: at,
            tail: vec![format!("error: of {code}")],
        };
        Ended::Exited { exit, at, ours }
    }

    fn found(ended: [Ended; 3]) -> RootCause {
        find(&run(), &ended.into_iter().enumerate().collect(), None, 99)
    }

    #[test]
    fn who_failed_first_is_named_and_who_lost_a_peer_is_not() {
        let crashed = exited(101, 7, false, &[]);
        let it = found([
            exited(3, 5, false, &[1]),
            crashed,
            exited(137, 9, true, &[]),
        ]);
        assert_eq!(it.failure.process, "process 1 on node-b");
        assert_eq!(
            (it.failure.what.as_str(), it.code),
            ("ended with 101", Some(101))
        );
        assert_eq!(it.message(), Some("error: of 101"));
        assert!(it.apart.is_empty());
        let late = exited(101, 7, true, &[]);
        let it = found([exited(3, 5, false, &[1]), late, exited(137, 9, true, &[])]);
        assert_eq!(it.failure.process, "process 1 on node-b");
        let gone = Ended::WorkerGone { at: 8 };
        let it = found([exited(3, 5, false, &[2]), exited(3, 5, false, &[2]), gone]);
        assert_eq!(it.failure.process, "process 2 on node-c");
        assert_eq!(it.failure.what, "its worker is gone");
        let killed = exited(137, 6, false, &[]);
        let it = found([exited(3, 5, false, &[1]), killed, exited(1, 7, false, &[])]);
        assert_eq!(it.failure.what, "killed by signal 9");
    }

    #[test]
    fn a_cut_between_two_names_both() {
        let other = exited(137, 9, true, &[]);
        let it = found([exited(3, 5, false, &[1]), exited(3, 6, false, &[0]), other]);
        assert_eq!(it.failure.what, "could not reach process 1 on node-b");
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(it.apart, [pair("a", "b"), pair("b", "a")]);
    }
}
