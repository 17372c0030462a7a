//! Writing the dead letters of fetching and landing to the pipeline's topic.
//!
//! The log is opened when there is a first letter: a run that refuses nothing needs none here.
//! Invariant: when [`Letters::write`] returns, the letters are durable.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidemill_log::dead_letter::{DeadLetter, topic_of};
use tidemill_log::log::{Producer, Record};

use crate::fetch::{Backoff, pause};
use crate::{Kind, Result};

/// Waits while the log is away.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(200),
    max: Duration::from_secs(5),
};

/// The dead letters of one pipeline.
pub(crate) struct Letters<'a> {
    log: &'a str,
    topic: String,
    producer: Option<Box<dyn Producer>>,
    stop: &'a AtomicBool,
}

impl<'a> Letters<'a> {
    /// The dead letters of `pipeline` in the log at `log`.
    pub(crate) fn new(log: &'a str, pipeline: &str, stop: &'a AtomicBool) -> Self {
        Self {
            log,
            topic: topic_of(pipeline),
            producer: None,
            stop,
        }
    }

    /// Writes letters durably; waits while the log is away, unless it was told to stop.
    pub(crate) fn write(&mut self, letters: &[DeadLetter]) -> Result<()> {
        let records: Vec<Record> = letters
            .iter()
            .flat_map(|letter| letter.records(&self.topic))
            .collect();
        let mut away = 0u32;
        loop {
            match self.append(&records) {
                Err(error) if error.kind() == Kind::Retry => {
                    if self.stop.load(Ordering::Relaxed) {
                        return Err(error);
                    }
                    tracing::warn!(%error, "cannot write dead letters yet");
                    self.producer = None;
                    away = away.saturating_add(1);
                    pause(BACKOFF.wait(away), self.stop);
                }
                ended => return ended,
            }
        }
    }

    fn append(&mut self, records: &[Record]) -> Result<()> {
        let producer = match &mut self.producer {
            Some(producer) => producer,
            none => {
                let log = tidemill_log::log::open(self.log)?;
                log.create_topic(&self.topic, 1)?;
                none.insert(log.producer()?)
            }
        };
        producer.append(records)
    }
}
