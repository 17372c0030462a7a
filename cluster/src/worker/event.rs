//! Events of the worker's thread.

use tidemill_protocol::{Assignment, FromChild, ProcessKey};

/// An event of the worker's thread, from the threads that read children and talk to the master.
#[derive(Debug)]
pub(crate) enum Event {
    /// A child wrote a line, or its stdout ended (`None`).
    Said(ProcessKey, Option<FromChild>),
    /// The master sent this worker's assignment, which may be an old one.
    Assignment(Assignment),
    /// The master refused a report and has never accepted one: trying again does not help.
    Refused(String),
}
