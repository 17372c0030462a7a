//! State Connecting: all processes listen and know each other's addresses; each connects to all
//! others.
//!
//! Goes to Running when all are live, and to Ending when a process failed, the component is not
//! wanted any more, or `CONNECTING_MAX` passed.

use tidemill_protocol::Phase;

use super::super::times::CONNECTING_MAX;
use super::ending::Why;
use super::{Component, Here, Running, Stage};

/// Waiting until all processes are live.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Connecting {
    /// When the state began, in ms.
    pub(super) since: u64,
    /// The addresses of all processes by index. `None` when some processes were already live when
    /// this master first heard of them: the master before had sent the addresses.
    pub(crate) peers: Option<Vec<String>>,
}

impl Connecting {
    /// The next state, or `None` to stay.
    pub(super) fn next(self, component: &mut Component, here: &mut Here<'_>) -> Option<Stage> {
        if component.is_broken(here.now) {
            return here.end(Why::Broken);
        }
        if here.are_live() {
            component.live_since = Some(here.now);
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
