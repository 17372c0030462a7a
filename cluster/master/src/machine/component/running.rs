//! State Running: all processes are live.
//!
//! Goes to Draining when the component is not wanted or its revision was raised, and to Ending when
//! a process failed.

use super::ending::Why;
use super::{Component, Draining, Here, Stage};

/// Nothing to wait for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Running;

impl Running {
    /// The next state, or `None` to stay.
    pub(super) fn next(self, component: &mut Component, here: &mut Here<'_>) -> Option<Stage> {
        if component.is_broken(here.now) {
            return here.end(Why::Broken);
        }
        let since = here.now;
        here.must_go()
            .then_some(Stage::Draining(Draining { since }))
    }
}
