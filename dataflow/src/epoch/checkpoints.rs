//! The checkpoint schedule: when a checkpoint is taken and when it is complete, on worker 0.
//!
//! At most one checkpoint is under way:
//!
//! ```text
//! is_due ─► begin: epoch marked ─► take: parts of all processes ─► writer commits ─► step: taken
//!                                  and the sink has the epoch      manifest, journal
//! ```
//!
//! The next checkpoint is due an interval after the last one was committed, if anything was bound
//! since. An idle job gets an empty epoch for this checkpoint.

use std::time::{Duration, Instant};

use tidemill_ir::Epoch;
use tidemill_state::checkpoint::writer::{Commit, Writer, Written};
use tidemill_state::journal::Binding;

use crate::stats::Taken;

/// Time between two looks at whether a checkpoint is complete, while nothing else wakes the binder.
const LOOK: Duration = Duration::from_millis(50);

/// The checkpoint schedule of a run.
pub(crate) struct Checkpoints {
    /// Shortest time between two checkpoints.
    interval: Duration,
    /// The number of processes of the job. A checkpoint needs the parts of all of them.
    processes: usize,
    /// The checkpoint writer.
    writer: Writer,
    /// When the last checkpoint was committed; before the first, when the run began.
    last: Instant,
    /// The epoch of the last checkpoint; 0 when there is none.
    epoch: Epoch,
    /// The checkpoint that is under way.
    going: Option<Going>,
}

/// A checkpoint that is under way.
struct Going {
    /// When the checkpoint began.
    began: Instant,
    /// The marked epoch, with the end offsets and source positions at its end.
    at: Binding,
    /// The parts of the processes that have written theirs.
    written: Vec<Written>,
    /// Whether the writer was asked to commit.
    asked: bool,
}

impl Checkpoints {
    /// The schedule after a start from the checkpoint of `epoch`; 0 means without a checkpoint.
    pub(crate) fn new(interval: Duration, processes: usize, writer: Writer, epoch: Epoch) -> Self {
        Self {
            interval,
            processes,
            writer,
            last: Instant::now(),
            epoch,
            going: None,
        }
    }

    /// Whether the epoch that is about to be released should be marked for a checkpoint.
    pub(crate) fn is_due(&self) -> bool {
        self.going.is_none() && self.last.elapsed() >= self.interval
    }

    /// The time until the schedule must be looked at again, if the job is idle after epoch `last`:
    /// soon while a checkpoint is under way, otherwise when the next checkpoint is due; `None` if
    /// nothing was bound since the last checkpoint.
    pub(crate) fn due_in(&self, last: Epoch) -> Option<Duration> {
        if self.going.is_some() {
            return Some(LOOK);
        }
        (last > self.epoch).then(|| self.interval.saturating_sub(self.last.elapsed()))
    }

    /// Whether a checkpoint is under way.
    pub(crate) fn is_going(&self) -> bool {
        self.going.is_some()
    }

    /// The epoch of the last checkpoint that was committed.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Begins a checkpoint at a marked epoch; `at` holds how far each partition was read at its
    /// end.
    pub(crate) fn begin(&mut self, at: Binding) {
        self.going = Some(Going {
            began: Instant::now(),
            at,
            written: Vec::new(),
            asked: false,
        });
    }

    /// Takes in the parts that one process wrote. Parts of another epoch are ignored.
    pub(crate) fn take(&mut self, written: Written) {
        if let Some(going) = &mut self.going
            && going.at.epoch == written.epoch
        {
            going.written.push(written);
        }
    }

    /// Moves the checkpoint on: asks for the commit when all processes have written their parts and
    /// the sink is durable through the epoch. Returns the statistics of a checkpoint that became
    /// complete.
    pub(crate) fn step(&mut self, durable: Epoch) -> Option<Taken> {
        let going = self.going.as_mut()?;
        let complete = going.written.len() == self.processes && durable >= going.at.epoch;
        if complete && !going.asked {
            going.asked = true;
            self.writer.commit(Commit {
                at: going.at.clone(),
                written: std::mem::take(&mut going.written),
            });
        }
        if !going.asked || self.writer.committed() < going.at.epoch {
            return None;
        }
        let (written, kept) = self.writer.sizes();
        let taken = Taken {
            took: going.began.elapsed(),
            written,
            kept,
        };
        self.epoch = going.at.epoch;
        self.going = None;
        self.last = Instant::now();
        Some(taken)
    }
}
