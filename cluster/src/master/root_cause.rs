//! Why a generation ended: which process failed first, in words, and what follows from it.
//!
//! In: how each process ended. A process that lost a peer (`exit::PEER_LOST`) and one that was
//! killed because the generation was over are consequences, so they are named only when there is
//! nothing else.

use std::collections::BTreeMap;

use super::durable::Run;
use super::times::WORKER_SILENT_MAX;
use crate::exit;
use crate::protocol::{Exit, Failure, WorkerId};

const KILL: i32 = 9;

/// How one process of a generation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was told at `at`. `ours`: it was to be killed by then.
    Exited { exit: Exit, at: u64, ours: bool },
    /// Its worker is gone.
    WorkerGone { at: u64 },
    /// Its worker is there and does not have it any more.
    Vanished { at: u64 },
}

/// The process that failed first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Culprit {
    pub(crate) failure: Failure,
    /// Its exit code, where it has one of its own.
    pub(crate) code: Option<i32>,
    /// Workers that could not reach each other.
    pub(crate) apart: Vec<(WorkerId, WorkerId)>,
}

impl Culprit {
    /// What it said last: its error, if it told one.
    pub(crate) fn message(&self) -> Option<&str> {
        let tail = &self.failure.tail;
        let error = tail.iter().rfind(|line| line.starts_with("error:"));
        error.or(tail.last()).map(String::as_str)
    }
}

/// Whether these ends are more than the consequence of others that are not known yet.
pub(crate) fn is_known<'a>(mut ended: impl Iterator<Item = &'a Ended>) -> bool {
    ended.any(|ended| !matches!(ended, Ended::Exited { exit, .. } if is_peer_lost(exit)))
}

/// Who failed first. `cause` is what the master itself held against a process.
pub(crate) fn find(
    run: &Run,
    ended: &BTreeMap<usize, Ended>,
    cause: Option<&(usize, String)>,
    now: u64,
) -> Culprit {
    if let Some((index, what)) = cause {
        return culprit(run, *index, what.clone(), ended.get(index), now);
    }
    let by_time = |late: bool| {
        let own = ended.iter().filter(|(_, ended)| is_own(ended, late));
        own.min_by_key(|(_, ended)| ended.order())
    };
    // What came in before anything was killed, then what came in since and was no kill.
    if let Some((index, end)) = by_time(false).or_else(|| by_time(true)) {
        return culprit(run, *index, end.words(), Some(end), now);
    }
    unreachable(run, ended, now)
}

/// Nobody failed of himself: some could not reach others.
fn unreachable(run: &Run, ended: &BTreeMap<usize, Ended>, now: u64) -> Culprit {
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
    Culprit {
        apart,
        ..culprit(run, index, what, ended.get(&index), now)
    }
}

fn culprit(run: &Run, index: usize, what: String, end: Option<&Ended>, now: u64) -> Culprit {
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
    Culprit {
        failure,
        code: exit.and_then(|exit| exit.code),
        apart: Vec::new(),
    }
}

/// A failure of the process itself. `late`: that came in when it was to be killed already.
fn is_own(ended: &Ended, late: bool) -> bool {
    match ended {
        Ended::Exited { exit, ours, .. } if *ours || late => {
            late && !is_peer_lost(exit)
                && (exit.frozen
                    || exit.code.is_some_and(|code| code != i32::from(exit::OK))
                    || exit.signal.is_some_and(|signal| signal != KILL))
        }
        Ended::Exited { exit, .. } => !is_peer_lost(exit),
        Ended::WorkerGone { .. } | Ended::Vanished { .. } => !late,
    }
}

pub(super) fn is_peer_lost(exit: &Exit) -> bool {
    exit.code == Some(i32::from(exit::PEER_LOST)) && !exit.frozen
}

impl Ended {
    /// Whether this is how a process that was to drain ends: it did all that it was to do, or it
    /// saw one that was told sooner end before it was told itself.
    pub(crate) fn is_drained(&self) -> bool {
        let Self::Exited { exit, .. } = self else {
            return false;
        };
        exit.code == Some(i32::from(exit::OK)) || is_peer_lost(exit)
    }

    /// When it came in; reports of one moment are in the order of the workers' clocks.
    fn order(&self) -> (u64, u64) {
        match self {
            Self::Exited { exit, at, .. } => (*at, exit.at_ms),
            Self::WorkerGone { at } | Self::Vanished { at } => (*at, u64::MAX),
        }
    }

    /// When the master saw it.
    pub(crate) fn at(&self) -> u64 {
        self.order().0
    }

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

    fn found(ended: [Ended; 3]) -> Culprit {
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
