//! The processes are ordered and start, until all of them listen; one that is alone is live then.
//! A master that has just started is here too, with what ran before it, until it heard of all.

use super::super::roster::Found;
use super::super::times::LISTENING_MAX;
use super::ending::Why;
use super::{Connecting, Draining, Ended, Half, Here, Running, Stage};
use crate::protocol::Phase;

/// Waiting until all listen.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Starting {
    pub(super) since: u64,
}

impl Starting {
    pub(super) fn next(self, half: &mut Half, here: &mut Here<'_>) -> Option<Stage> {
        let phases = here.phases();
        let ran = |phase: &Option<&Phase>| matches!(phase, Some(Phase::Live | Phase::Exited(_)));
        // The master before this one may have told them already.
        let drains = here.must_go() && half.ended.values().all(Ended::is_drained);
        if drains && phases.iter().all(ran) {
            let since = here.now;
            return Some(Stage::Draining(Draining { since }));
        }
        if half.is_broken(here.now) && !drains {
            return here.end(Why::Broken);
        }
        if here.are_live() {
            half.live_since = Some(here.now);
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
        // Nothing runs yet, so there is nothing to drain.
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
    /// The first process that is not as far as it should be, and whether it said what it waits
    /// for: then it is not late, however long that takes.
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
