//! It shall not run, and does not.

use super::{Here, Stage};

pub(super) fn next(here: &mut Here<'_>) -> Option<Stage> {
    // A master that was replaced may have been about to.
    here.record.minting = false;
    Some(here.rest()).filter(|next| *next != Stage::Stopped)
}
