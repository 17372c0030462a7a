//! When the next checkpoint is taken, on worker 0.
//!
//! One at a time: an epoch that is about to be released is marked; when all processes have written
//! what changed through it and the sink has it, the writer is asked to commit. The next one is due
//! an interval after that, if anything was bound since; an idle job gets an empty epoch for it.

use std::time::{Duration, Instant};

use crate::Epoch;
use crate::checkpoint::writer::{Commit, Writer, Written};
use crate::journal::Binding;
use crate::stats::Taken;

/// Time between two looks whether a checkpoint is complete, while nothing else happens.
const LOOK: Duration = Duration::from_millis(50);

/// The checkpoints of a run.
pub(crate) struct Checkpoints {
    interval: Duration,
    /// Processes of the job.
    processes: usize,
    writer: Writer,
    /// When the last one was committed, or the run began.
    last: Instant,
    /// The epoch of the last one.
    epoch: Epoch,
    going: Option<Going>,
}

struct Going {
    began: Instant,
    at: Binding,
    written: Vec<Written>,
    asked: bool,
}

impl Checkpoints {
    /// After a start from the checkpoint of `epoch`, 0 for none.
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

    /// Whether the epoch that is about to be released is to be marked.
    pub(crate) fn is_due(&self) -> bool {
        self.going.is_none() && self.last.elapsed() >= self.interval
    }

    /// How long until something is to be looked at, when the job is idle after `last`: the end of
    /// the one that is under way, or the next one, if anything was bound since the last.
    pub(crate) fn due_in(&self, last: Epoch) -> Option<Duration> {
        if self.going.is_some() {
            return Some(LOOK);
        }
        (last > self.epoch).then(|| self.interval.saturating_sub(self.last.elapsed()))
    }

    /// Whether one is under way.
    pub(crate) fn is_going(&self) -> bool {
        self.going.is_some()
    }

    /// The epoch of the last one that was committed.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// An epoch was marked; `at` says how far each partition was read at its end.
    pub(crate) fn begin(&mut self, at: Binding) {
        self.going = Some(Going {
            began: Instant::now(),
            at,
            written: Vec::new(),
            asked: false,
        });
    }

    /// What a process wrote.
    pub(crate) fn take(&mut self, written: Written) {
        if let Some(going) = &mut self.going
            && going.at.epoch == written.epoch
        {
            going.written.push(written);
        }
    }

    /// Moves on; every epoch through `durable` is in the sink. The checkpoint that is complete.
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
