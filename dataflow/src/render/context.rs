//! What all operators of a worker share: the sink, the counters, the dead letters, and the way to
//! stop when an invariant does not hold.

use std::cell::RefCell;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::util::display::array_value_to_string;
use serde_json::json;
use tidemill_log::log::{Log, Producer, Record};

use super::chunk::Chunk;
use crate::job::Stats;
use crate::sink::Sink;
use crate::time::Start;
use crate::{Epoch, Error, Kind, Result};

/// Longest pause between tries to write dead letters.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// The first error that ended the job, if any did.
pub(crate) type Failure = Arc<Mutex<Option<Error>>>;

/// A worker's share of the job's surroundings.
pub(crate) struct Context {
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) failure: Failure,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) dead_letters: String,
    pub(crate) producer: RefCell<Option<Box<dyn Producer>>>,
    /// What worker 0 told at the start; none before it did.
    pub(crate) start: RefCell<Option<Arc<Start>>>,
}

/// A record that could not become a row.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) topic: String,
    pub(crate) partition: u32,
    pub(crate) offset: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) reason: String,
}

impl Context {
    /// Ends the job with an error. Does not return: a worker that stopped stepping holds its
    /// capabilities, so no epoch that it failed in can ever complete anywhere.
    pub(crate) fn fail(&self, error: Error) -> ! {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(error);
        loop {
            std::thread::park();
        }
    }

    /// The epoch through which a sink table was complete before this start.
    pub(crate) fn served(&self, table: usize) -> Option<Epoch> {
        let start = self.start.borrow();
        start
            .as_ref()
            .and_then(|start| start.served.get(table).copied().flatten())
    }

    /// True for epochs whose dead letters an earlier run has written.
    fn reported(&self, epoch: Epoch) -> bool {
        let start = self.start.borrow();
        start
            .as_ref()
            .and_then(|start| start.replayed)
            .is_some_and(|replayed| epoch <= replayed)
    }

    /// Counts a view's rows.
    pub(crate) fn count_view(&self, view: &str, rows: i64, conflicts: u64) {
        let mut views = self
            .stats
            .views
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(view) = views.get_mut(view) {
            view.rows += rows;
            view.conflicts += conflicts;
        }
    }

    /// Puts aside a row that could not be evaluated. `chunk` has one row.
    pub(crate) fn refuse_row(&self, chunk: &Chunk, error: &Error) {
        if chunk.diffs.first().is_none_or(|diff| *diff <= 0) {
            return;
        }
        let mut row = serde_json::Map::new();
        for (field, column) in chunk
            .batch
            .schema()
            .fields()
            .iter()
            .zip(chunk.batch.columns())
        {
            let text = array_value_to_string(column, 0).unwrap_or_default();
            row.insert(field.name().clone(), text.into());
        }
        let value = json!({ "stage": "evaluate", "epoch": chunk.epoch, "row": row,
            "reason": error.to_string() });
        self.dead_letter(chunk.epoch, vec![value]);
    }

    /// Puts aside a group or key, given by its encoded bytes.
    pub(crate) fn refuse(&self, epoch: Epoch, key: &[u8], error: &Error) {
        let value = json!({ "stage": "evaluate", "epoch": epoch, "key_hex": hex(key),
            "reason": error.to_string() });
        self.dead_letter(epoch, vec![value]);
    }

    /// Puts aside records that could not be decoded.
    pub(crate) fn refuse_records(&self, epoch: Epoch, refusals: &[Refusal]) {
        let values = refusals.iter().map(|refusal| {
            let text = |bytes: &Option<Vec<u8>>| {
                bytes
                    .as_ref()
                    .and_then(|b| String::from_utf8(b.clone()).ok())
            };
            json!({
                "stage": "decode",
                "topic": refusal.topic,
                "partition": refusal.partition,
                "offset": refusal.offset,
                "epoch": epoch,
                "reason": refusal.reason,
                "key_hex": refusal.key.as_deref().map(hex),
                "value_hex": refusal.value.as_deref().map(hex),
                "value_text": text(&refusal.value),
            })
        });
        self.dead_letter(epoch, values.collect());
    }

    /// Appends dead letters durably before the epoch may complete, and counts them. Replays do not
    /// write them again.
    fn dead_letter(&self, epoch: Epoch, values: Vec<serde_json::Value>) {
        if values.is_empty() {
            return;
        }
        self.stats
            .dead_letters
            .fetch_add(values.len() as u64, Ordering::Relaxed);
        if self.reported(epoch) {
            return;
        }
        let records: Vec<Record> = values
            .iter()
            .map(|value| Record {
                topic: self.dead_letters.clone(),
                partition: None,
                key: None,
                value: Some(value.to_string().into_bytes()),
                timestamp_ms: epoch as i64,
            })
            .collect();
        let mut pause = Duration::from_millis(50);
        loop {
            match self.append(&records) {
                Ok(()) => return,
                Err(error) if error.kind() == Kind::Retry => {
                    tracing::warn!(%error, "cannot write dead letters yet");
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(RETRY_PAUSE_MAX);
                }
                Err(error) => self.fail(error),
            }
        }
    }

    fn append(&self, records: &[Record]) -> Result<()> {
        let mut producer = self.producer.borrow_mut();
        if producer.is_none() {
            self.log.create_topic(&self.dead_letters, 1)?;
            *producer = Some(self.log.producer()?);
        }
        match producer.as_mut() {
            Some(producer) => Ok(producer.append(records)?),
            None => Ok(()),
        }
    }
}

/// Bytes as hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
