//! A pause after a failure, longer each time.

use super::{Here, Stage};

/// Waiting for a time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BackingOff {
    pub(super) until: u64,
    /// Of the record when it failed: another one says that a person wants it now.
    pub(super) revision: u64,
    /// What it waits for, when that is not just time.
    pub(crate) why: Option<String>,
}

impl BackingOff {
    pub(super) fn next(self, here: &mut Here<'_>) -> Option<Stage> {
        let over = here.now >= self.until || here.record.revision != self.revision;
        if over || !here.wanted {
            return Some(here.rest());
        }
        None
    }
}
