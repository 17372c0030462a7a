//! Events and actions: the input and the output of the master's state machine.
//!
//! [`crate::machine::State::next`] takes one [`Event`] and returns [`Action`]s. [`crate::mailbox`]
//! produces the events and carries out the actions.

use std::sync::Arc;

use tidemill_protocol::{JobSpec, Report, WorkerId};

use super::durable::Durable;

/// Input of the state machine. `Tick` says that time passed; one is sent every 100 ms.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Tick,
    /// A worker reported all its processes.
    Report(Report),
    /// A worker began a long poll for its assignment; later polls have greater numbers.
    Waits {
        worker: WorkerId,
        poll: u64,
    },
    /// The connection of that poll ended before the poll was answered.
    Cut {
        worker: WorkerId,
        poll: u64,
    },
    /// A thread asked a job's journal for its next generation, and this is the result.
    Minted {
        job: String,
        minted: Result<Minted, Unminted>,
    },
    /// The document with this number is durable.
    Wrote(u64),
    /// A user sent a command; the reply names the same `request`.
    Command {
        request: u64,
        command: Command,
    },
}

/// A new generation. The journal knows it and has fenced all older ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Minted {
    /// The number that the journal gave.
    pub(crate) generation: u64,
    /// The secret of the generation's mesh: 64 hexadecimal digits.
    pub(crate) secret: String,
}

/// Why no generation could be minted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unminted {
    /// The error with its causes.
    pub(crate) what: String,
    /// The error is temporary (kind `Retry` or `Fence`): the master tries again.
    pub(crate) may_mend: bool,
}

/// Output of the state machine: what [`crate::mailbox`] must do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Write the next document of the durable state. If the store already has another document with
    /// this number, another master took over.
    Write { number: u64, document: Durable },
    /// Ask the job's journal for its next generation. The result comes back as [`Event::Minted`].
    Mint { job: String, spec: Arc<JobSpec> },
    /// Answer the user's command of this number.
    Reply {
        request: u64,
        answer: Result<String, Refusal>,
    },
}

/// A command of a user. The jobs are given by name.
#[derive(Debug, Clone)]
/// Adds a job, or changes it.
pub(crate) enum Command {
    Submit(Arc<JobSpec>),
    /// Drains the job and ends it.
    Stop(String),
    /// Starts the job again.
    Restart(String),
    /// Changes the number of worker threads.
    Rescale(String, usize),
    /// Forgets a stopped job.
    Remove(String),
    /// Places no process on this worker any more, and moves those that it has.
    Drain(WorkerId),
    /// Ends that.
    Undrain(WorkerId),
}

/// Why a command was refused, in words for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A value is invalid (HTTP 400).
    Bad(String),
    /// The master has no job or worker of this name (HTTP 404).
    NoSuchJob(String),
    /// The command does not fit the job's current state (HTTP 409).
    Conflict(String),
}
