//! What the worker's thread waits for.

use crate::protocol::{Assignment, FromChild, ProcessKey};

/// What the worker's thread hears.
#[derive(Debug)]
pub(crate) enum Event {
    /// A child said something, or ended its stdout.
    Said(ProcessKey, Option<FromChild>),
    Assignment(Assignment),
    /// The master does not take this worker, and never did.
    Refused(String),
}
