//! Dead letter writer of fetching and landing: appends letters to the pipeline's topic.
//!
//! The log is opened with the first letter, so a run that refuses nothing needs no log here.
//!
//! Invariant: when [`Letters::write`] returns `Ok`, the letters are durable.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidemill_log::backoff::Backoff;
use tidemill_log::log::dead_letter::{DeadLetter, topic_of};
use tidemill_log::log::{Producer, Record};

use crate::{Kind, Result};

/// Backoff while the log cannot be reached.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));

/// Writes the dead letters of one pipeline.
pub(crate) struct Letters<'a> {
    /// The URL of the log.
    log: &'a str,
    /// The topic of the dead letters.
    topic: String,
    /// The producer; `None` before the first letter and after an error.
    producer: Option<Box<dyn Producer>>,
    /// Ends the waiting for the log.
    stop: &'a AtomicBool,
}

impl<'a> Letters<'a> {
    /// A writer for the dead letters of `pipeline`, to the log at the URL `log`.
    pub(crate) fn new(log: &'a str, pipeline: &str, stop: &'a AtomicBool) -> Self {
        Self {
            log,
            topic: topic_of(pipeline),
            producer: None,
            stop,
        }
    }

    /// Writes letters durably. Retries while the log cannot be reached, until `stop` is set.
    ///
    /// # Errors
    /// `Retry` when `stop` was set first; `Data` when the log refuses the letters.
    pub(crate) fn write(&mut self, letters: &[DeadLetter]) -> Result<()> {
        let records: Vec<Record> = letters
            .iter()
            .flat_map(|letter| letter.records(&self.topic))
            .collect();
        let mut backoff = BACKOFF;
        loop {
            match self.append(&records) {
                Err(error) if error.kind() == Kind::Retry => {
                    if self.stop.load(Ordering::Relaxed) {
                        return Err(error);
                    }
                    tracing::warn!(%error, "cannot write dead letters yet");
                    self.producer = None;
                    backoff.sleep(self.stop);
                }
                ended => return ended,
            }
        }
    }

    /// Opens the log if necessary and appends the records; one attempt.
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
