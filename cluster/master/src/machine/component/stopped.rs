//! State Stopped: the component is not wanted and has no processes. Goes to Waiting when it is
//! wanted.

use super::{Here, Stage};

/// The next state, or `None` to stay.
pub(super) fn next(here: &mut Here<'_>) -> Option<Stage> {
    // The master before this one may have been about to mint.
    here.record.minting = false;
    Some(here.rest()).filter(|next| *next != Stage::Stopped)
}
