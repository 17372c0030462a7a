//! State Failed: the component was given up. Only a command of a user, which clears
//! [`super::super::durable::Record::failed`], leads on.

use super::{Here, Stage};

/// Goes to Waiting or Stopped when the reason is gone.
pub(super) fn next(here: &Here<'_>) -> Option<Stage> {
    Some(here.rest()).filter(|next| *next != Stage::Failed)
}
