//! State Draining: all processes complete their epochs, take a checkpoint and end.
//!
//! Goes to Ending when all have ended, when one ended otherwise, or after `DRAINING_MAX`.

use super::super::times::DRAINING_MAX;
use super::ending::Why;
use super::{Component, Ended, Here, Stage};

/// Waiting until all processes have ended.
#[derive(Debug, Clone, PartialEq)]
/// When the state began, in ms.
pub(crate) struct Draining {
    /// When the state began, in ms.
    pub(super) since: u64,
}

impl Draining {
    /// The next state, or `None` to stay.
    pub(super) fn next(self, component: &mut Component, here: &mut Here<'_>) -> Option<Stage> {
        let processes = here.record.run.as_ref()?.workers.len();
        let ended = &component.ended;
        if !ended.values().all(Ended::is_drained) {
            return here.end(Why::Undrained);
        }
        if ended.len() == processes {
            return here.end(Why::Asked);
        }
        if here.now < self.since + DRAINING_MAX {
            return None;
        }
        let index = (0..processes).find(|index| !ended.contains_key(index))?;
        let seconds = DRAINING_MAX / 1000;
        let what = format!("had not drained after {seconds} s and was killed");
        here.end(Why::Late(index, what))
    }
}
