//! All listen and are told where the others are; each connects with all and is live.

use super::super::times::CONNECTING_MAX;
use super::ending::Why;
use super::{Half, Here, Running, Stage};
use crate::protocol::Phase;

/// Waiting until all are connected.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Connecting {
    pub(super) since: u64,
    /// Where all listen, by index; none when some were live before this master heard of them, and
    /// so had been told.
    pub(crate) peers: Option<Vec<String>>,
}

impl Connecting {
    pub(super) fn next(self, half: &mut Half, here: &mut Here<'_>) -> Option<Stage> {
        if half.is_broken(here.now) {
            return here.end(Why::Broken);
        }
        if here.are_live() {
            half.live_since = Some(here.now);
            return Some(Stage::Running(Running));
        }
        if here.must_go() {
            return here.end(Why::Asked);
        }
        if here.now < self.since + CONNECTING_MAX {
            return None;
        }
        let phases = here.phases();
        let is_late = |phase: &Option<&Phase>| !matches!(phase, Some(Phase::Live));
        let index = phases.iter().position(is_late)?;
        let seconds = CONNECTING_MAX / 1000;
        let what = format!("was not connected with the others after {seconds} s");
        here.end(Why::Late(index, what))
    }
}
