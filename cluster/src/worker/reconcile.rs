//! Reconciliation: from the children that a worker has and the assignment to the actions that make
//! them equal. Pure: no process, no clock and no network.
//!
//! In: the children, the newest assignment, the time. Out: actions.
//!
//! Invariants:
//! 1. A key is started once. The key contains the generation, so a process that ended stays ended.
//! 2. No process of a component starts while one of another generation of it is alive on this
//!    worker.
//! 3. An assignment that is older than one already received changes nothing ([`newer`]).
//!
//! ```text
//!              assigned                      not assigned
//! not there    Start (when older ones ended) –
//! alive        Tell, Drain, KillFrozen       Kill
//! ended        –                             Forget
//! ```

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tidemill_protocol::{Assignment, ProcessAssignment, ProcessKey};

/// A child that has sent no line for so long is frozen and is killed.
pub(crate) const FROZEN_AFTER: Duration = Duration::from_secs(8);

/// What a decision needs to know of a child.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    /// The child's exit status was collected.
    pub(crate) ended: bool,
    /// The child was sent SIGKILL.
    pub(crate) killed: bool,
    /// Whether the child was sent the addresses of the others.
    pub(crate) told_peers: bool,
    /// Whether the child was told to drain.
    pub(crate) told_drain: bool,
    /// When the child last sent a line, or was started.
    pub(crate) heard: Instant,
}

/// Something to do about one child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start the process: it is assigned and not there.
    Start(Box<ProcessAssignment>),
    /// Send the child the addresses of all processes.
    Tell(ProcessKey, Vec<String>),
    /// Tell the child to drain.
    Drain(ProcessKey),
    /// Kill the child: it is not assigned any more.
    Kill(ProcessKey),
    /// Kill the child: it has sent nothing for [`FROZEN_AFTER`].
    KillFrozen(ProcessKey),
    /// Forget the child: it ended and is not assigned any more.
    Forget(ProcessKey),
}

/// Whether an assignment is newer than the last one that was followed: by the master's generation,
/// then by the version.
pub(crate) fn newer(orders: &Assignment, last: Option<&Assignment>) -> bool {
    let age = |orders: &Assignment| (orders.master, orders.version);
    last.is_none_or(|last| age(orders) > age(last))
}

/// The actions for the current situation.
pub(crate) fn actions(
    children: &BTreeMap<ProcessKey, Known>,
    orders: &Assignment,
    now: Instant,
) -> Vec<Action> {
    let mut actions = Vec::new();
    let ordered = |key: &ProcessKey| orders.processes.iter().any(|order| order.key == *key);
    for (key, child) in children {
        let silent = now.saturating_duration_since(child.heard);
        match (child.ended, ordered(key)) {
            (true, false) => actions.push(Action::Forget(key.clone())),
            (true, true) => {}
            (false, _) if child.killed => {}
            (false, false) => actions.push(Action::Kill(key.clone())),
            (false, true) if silent >= FROZEN_AFTER => {
                actions.push(Action::KillFrozen(key.clone()));
            }
            (false, true) => {}
        }
    }
    for order in &orders.processes {
        match children.get(&order.key) {
            Some(child) if !child.ended && !child.killed => {
                if let Some(peers) = order.peers.as_ref().filter(|_| !child.told_peers) {
                    actions.push(Action::Tell(order.key.clone(), peers.clone()));
                }
                if order.drain && !child.told_drain {
                    actions.push(Action::Drain(order.key.clone()));
                }
            }
            Some(_) => {}
            None => {
                let another = |(key, child): (&ProcessKey, &Known)| {
                    let same = (&key.job, key.part) == (&order.key.job, order.key.part);
                    same && key.generation != order.key.generation && !child.ended
                };
                if !children.iter().any(another) {
                    actions.push(Action::Start(Box::new(order.clone())));
                }
            }
        }
    }
    actions
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_protocol::{JobSpec, Part};

    fn key(generation: u64, index: usize) -> ProcessKey {
        ProcessKey {
            job: "users".to_owned(),
            part: Part::Dataflow,
            generation,
            index,
        }
    }

    fn order(key: ProcessKey) -> ProcessAssignment {
        let spec = JobSpec {
            name: key.job.clone(),
            files: BTreeMap::new(),
            connections: BTreeMap::new(),
            workers: 2,
            wait_for_slots: false,
            ingest: false,
            flags: BTreeMap::new(),
        };
        ProcessAssignment {
            key,
            spec,
            threads: 1,
            processes: 2,
            secret: "0f".to_owned(),
            peers: None,
            drain: false,
        }
    }

    fn orders(processes: Vec<ProcessAssignment>) -> Assignment {
        Assignment {
            master: 1,
            version: 1,
            processes,
        }
    }

    fn alive(now: Instant) -> Known {
        Known {
            ended: false,
            killed: false,
            told_peers: false,
            told_drain: false,
            heard: now,
        }
    }

    #[test]
    fn what_is_ordered_is_started_once_and_told_once() {
        let now = Instant::now();
        let mut children = BTreeMap::new();
        let mut ordered = order(key(3, 0));
        let start = actions(&children, &orders(vec![ordered.clone()]), now);
        assert_eq!(start, [Action::Start(Box::new(ordered.clone()))]);
        children.insert(key(3, 0), alive(now));
        assert_eq!(actions(&children, &orders(vec![ordered.clone()]), now), []);
        let peers = vec!["a:1".to_owned(), "b:1".to_owned()];
        (ordered.peers, ordered.drain) = (Some(peers.clone()), true);
        let told = actions(&children, &orders(vec![ordered.clone()]), now);
        let expected = [Action::Tell(key(3, 0), peers), Action::Drain(key(3, 0))];
        assert_eq!(told, expected);
        let told = Known {
            told_peers: true,
            told_drain: true,
            ..alive(now)
        };
        children.insert(key(3, 0), told);
        assert_eq!(actions(&children, &orders(vec![ordered]), now), []);
    }

    #[test]
    fn what_is_not_ordered_is_killed_and_then_forgotten() {
        let now = Instant::now();
        let next = order(key(4, 1));
        let ordered = orders(vec![next.clone()]);
        let mut children = BTreeMap::from([(key(3, 0), alive(now))]);
        // The next generation waits until the one before is gone.
        assert_eq!(actions(&children, &ordered, now), [Action::Kill(key(3, 0))]);
        children.get_mut(&key(3, 0)).unwrap().killed = true;
        assert_eq!(actions(&children, &ordered, now), []);
        children.get_mut(&key(3, 0)).unwrap().ended = true;
        let expected = [Action::Forget(key(3, 0)), Action::Start(Box::new(next))];
        assert_eq!(actions(&children, &ordered, now), expected);
    }

    #[test]
    fn two_processes_of_one_generation_and_other_jobs_live_side_by_side() {
        let now = Instant::now();
        let mut other = key(9, 0);
        other.job = "orders".to_owned();
        let children = BTreeMap::from([(key(3, 0), alive(now)), (other.clone(), alive(now))]);
        let second = order(key(3, 1));
        let ordered = orders(vec![order(key(3, 0)), second.clone(), order(other)]);
        let start = Action::Start(Box::new(second));
        assert_eq!(actions(&children, &ordered, now), [start]);
    }

    #[test]
    fn one_that_ended_is_told_and_not_started_again() {
        let now = Instant::now();
        let ended = Known {
            ended: true,
            ..alive(now)
        };
        let children = BTreeMap::from([(key(3, 0), ended)]);
        assert_eq!(actions(&children, &orders(vec![order(key(3, 0))]), now), []);
    }

    #[test]
    fn one_that_is_silent_for_long_is_killed() {
        let now = Instant::now();
        let children = BTreeMap::from([(key(3, 0), alive(now))]);
        let ordered = orders(vec![order(key(3, 0))]);
        let almost = now + FROZEN_AFTER - Duration::from_millis(1);
        assert_eq!(actions(&children, &ordered, almost), []);
        let frozen = [Action::KillFrozen(key(3, 0))];
        assert_eq!(actions(&children, &ordered, now + FROZEN_AFTER), frozen);
    }

    #[test]
    fn older_orders_are_dropped() {
        let at = |master, version| Assignment {
            master,
            version,
            processes: Vec::new(),
        };
        assert!(newer(&at(1, 1), None));
        assert!(newer(&at(1, 2), Some(&at(1, 1))));
        assert!(newer(&at(2, 1), Some(&at(1, 7))));
        for old in [at(1, 1), at(0, 9), at(1, 0)] {
            assert!(!newer(&old, Some(&at(1, 1))), "{old:?}");
        }
    }
}
