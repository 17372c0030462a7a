//! What happens to the master, and what is to be done then.

use std::sync::Arc;

use super::durable::Durable;
use crate::protocol::{JobSpec, Report, WorkerId};

/// What happens to the master.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Tick,
    Report(Report),
    /// A worker waits for orders; later waits have greater numbers.
    Waits {
        worker: WorkerId,
        poll: u64,
    },
    /// The connection on which it did ended before it was answered.
    Cut {
        worker: WorkerId,
        poll: u64,
    },
    Minted {
        job: String,
        minted: Result<Minted, Unminted>,
    },
    /// The document of this number is durable.
    Wrote(u64),
    Command {
        request: u64,
        command: Command,
    },
}

/// A generation that the journal knows now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Minted {
    pub(crate) generation: u64,
    pub(crate) secret: String,
}

/// Why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unminted {
    pub(crate) what: String,
    /// Trying again may help.
    pub(crate) may_mend: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Write the next document; another one of this number means that another master took over.
    Write { number: u64, document: Durable },
    /// Let the job's journal have its next generation.
    Mint { job: String, spec: Arc<JobSpec> },
    /// Answer a command.
    Reply {
        request: u64,
        answer: Result<String, Refusal>,
    },
}

/// A command.
#[derive(Debug, Clone)]
pub(crate) enum Command {
    Submit(Arc<JobSpec>),
    Stop(String),
    Restart(String),
    Rescale(String, usize),
    Remove(String),
}

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It makes no sense.
    Bad(String),
    NoSuchJob(String),
    /// Not in the state that the job is in.
    Conflict(String),
}
