//! State BackingOff: a pause after a failure, longer after each failure in a row.
//!
//! Goes to Waiting when the pause is over or a command raised the revision, and to Stopped when the
//! component is not wanted any more.

use super::{Here, Stage};

/// Waiting for a point in time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BackingOff {
    /// When the pause ends, in ms.
    pub(super) until: u64,
    /// The record's revision at the failure. A different one means that a user wants the component
    /// now.
    pub(super) revision: u64,
    /// The error of the journal when that is what failed.
    pub(crate) why: Option<String>,
}

impl BackingOff {
    /// The next state, or `None` to stay.
    pub(super) fn next(self, here: &mut Here<'_>) -> Option<Stage> {
        let over = here.now >= self.until || here.record.revision != self.revision;
        if over || !here.wanted {
            return Some(here.rest());
        }
        None
    }
}
