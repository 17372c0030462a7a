//! State Starting: the processes are assigned and start, until all of them listen. A single process
//! is live then. A new master also begins here with generations of the master before, until it has
//! heard of all their processes.
//!
//! Goes to Connecting when all listen, to Running when all are live, to Draining when an adopted
//! generation must drain, and to Ending when a process failed, the component is not wanted any
//! more, or `LISTENING_MAX` passed.

use tidemill_protocol::Phase;

use super::super::roster::Found;
use super::super::times::LISTENING_MAX;
use super::ending::Why;
use super::{Component, Connecting, Draining, Ended, Here, Running, Stage};

/// Waiting until all processes listen.
#[derive(Debug, Clone, PartialEq)]
/// When the state began, in ms.
pub(crate) struct Starting {
    /// When the state began, in ms.
    pub(super) since: u64,
}

impl Starting {
    /// The next state, or `None` to stay.
    pub(super) fn next(self, component: &mut Component, here: &mut Here<'_>) -> Option<Stage> {
        let phases = here.phases();
        let ran = |phase: &Option<&Phase>| matches!(phase, Some(Phase::Live | Phase::Exited(_)));
        // The master before this one may have told the processes to drain.
        let drains = here.must_go() && component.ended.values().all(Ended::is_drained);
        if drains && phases.iter().all(ran) {
            let since = here.now;
            return Some(Stage::Draining(Draining { since }));
        }
        if component.is_broken(here.now) && !drains {
            return here.end(Why::Broken);
        }
        if here.are_live() {
            component.live_since = Some(here.now);
            return Some(Stage::Running(Running));
        }
        let address = |phase: &Option<&Phase>| match phase {
            Some(Phase::Listening { address }) => Some(address.clone()),
            _ => None,
        };
        let is_there =
            |phase: &Option<&Phase>| matches!(phase, Some(Phase::Listening { .. } | Phase::Live));
        if phases.len() > 1 && phases.iter().all(is_there) {
            let peers = phases.iter().map(address).collect();
            let since = here.now;
            return Some(Stage::Connecting(Connecting { since, peers }));
        }
        // No process is live yet, so there is nothing to drain.
        if here.must_go() && phases.iter().all(Option::is_some) {
            return here.end(Why::Asked);
        }
        let late = here.now >= self.since + LISTENING_MAX;
        let (index, doing) = here.laggard()?;
        if !late || doing {
            return None;
        }
        let what = match here.must_go() {
            true => Why::Asked,
            false => {
                let seconds = LISTENING_MAX / 1000;
                Why::Late(index, format!("was not ready after {seconds} s"))
            }
        };
        here.end(what)
    }
}

impl Here<'_> {
    /// The first process that does not listen yet, and whether its heartbeat says what it waits
    /// for. A process that waits for something, such as a service, is not late.
    fn laggard(&self) -> Option<(usize, bool)> {
        let run = self.record.run.as_ref()?;
        let mut all = 0..run.workers.len();
        all.find_map(|index| match self.find(run, index) {
            Found::Reported(it) => match it.phase {
                Phase::Started => {
                    let beat = it.beat.as_ref();
                    Some((index, beat.is_some_and(|beat| beat.doing.is_some())))
                }
                _ => None,
            },
            _ => Some((index, false)),
        })
    }
}
