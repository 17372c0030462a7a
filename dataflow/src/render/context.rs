//! What all operators of a worker share: the sink, the counters, the dead letters, and the way to
//! stop when an invariant does not hold.

use std::cell::RefCell;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use arrow::util::display::array_value_to_string;
use serde_json::json;
use tidemill_log::log::{Log, Producer, RECORD_BYTES_MAX, Record};

use super::chunk::Chunk;
use crate::failure::Failure;
use crate::job::Stats;
use crate::sink::Sink;
use crate::time::Start;
use crate::{Epoch, Error, Kind, Result};

/// Longest pause between tries to write dead letters.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Most bytes of a value in one dead letter: as digits and as text it still fits into a record.
const PART_BYTES_MAX: usize = 256 * 1024;

/// What is left of a field that had to be cut.
const CUT_CHARS: usize = 10_000;

/// A dead letter.
type Letter = serde_json::Value;

/// Where a dead letter comes from.
#[derive(Clone, Copy)]
enum Stage {
    /// A record of a topic.
    Decode,
    /// A row of a view.
    Evaluate,
}

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
        self.failure.set(error);
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

    /// True for epochs whose dead letters an earlier run has written for certain: those that the
    /// sink's frontiers tell to be complete. An epoch that was only bound may have been cut off
    /// before its dead letters, so a crash writes them twice rather than never. Undecodable records
    /// were written once any table got that far; rows only once all tables did, as the view that
    /// refuses one may be new.
    fn reported(&self, stage: Stage, epoch: Epoch) -> bool {
        let start = self.start.borrow();
        let Some(start) = start.as_ref() else {
            return false;
        };
        let served = start.served.iter().copied();
        let through = match stage {
            Stage::Decode => served.flatten().max(),
            Stage::Evaluate => served.min().flatten(),
        };
        through.is_some_and(|through| epoch <= through)
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
        self.dead_letters(Stage::Evaluate, chunk.epoch, 1, vec![value]);
    }

    /// Puts aside a group or key, given by its encoded bytes.
    pub(crate) fn refuse(&self, epoch: Epoch, key: &[u8], error: &Error) {
        let value = json!({ "stage": "evaluate", "epoch": epoch, "key_hex": hex(key),
            "reason": error.to_string() });
        self.dead_letters(Stage::Evaluate, epoch, 1, vec![value]);
    }

    /// Puts aside records that could not be decoded.
    pub(crate) fn refuse_records(&self, epoch: Epoch, refusals: &[Refusal]) {
        let values = refusals.iter().flat_map(|refusal| letters(epoch, refusal));
        self.dead_letters(Stage::Decode, epoch, refusals.len(), values.collect());
    }

    /// Appends the dead letters of `count` records or rows durably before the epoch may complete,
    /// and counts them. A replay of a completed epoch does not write them again.
    fn dead_letters(&self, stage: Stage, epoch: Epoch, count: usize, values: Vec<Letter>) {
        if values.is_empty() {
            return;
        }
        self.stats
            .dead_letters
            .fetch_add(count as u64, Ordering::Relaxed);
        if self.reported(stage, epoch) {
            return;
        }
        let records: Vec<Record> = values
            .into_iter()
            .map(|value| Record {
                topic: self.dead_letters.clone(),
                partition: None,
                key: None,
                value: Some(fitting(value)),
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
            Some(producer) => producer.append(records),
            None => Ok(()),
        }
    }
}

/// The dead letters of a record: one, or as many as it takes to keep all of a large value.
fn letters(epoch: Epoch, refusal: &Refusal) -> impl Iterator<Item = Letter> + '_ {
    let value = refusal.value.as_deref();
    let mut parts: Vec<Option<&[u8]>> = match value {
        Some(value) => value.chunks(PART_BYTES_MAX).map(Some).collect(),
        None => Vec::new(),
    };
    if parts.is_empty() {
        parts.push(value);
    }
    let count = parts.len();
    parts.into_iter().enumerate().map(move |(index, part)| {
        let mut letter = json!({
            "stage": "decode",
            "topic": refusal.topic,
            "partition": refusal.partition,
            "offset": refusal.offset,
            "epoch": epoch,
            "reason": refusal.reason,
            "key_hex": refusal.key.as_deref().map(hex),
            "value_hex": part.map(hex),
            "value_text": part.and_then(|part| std::str::from_utf8(part).ok()),
        });
        if count > 1 {
            letter["part"] = (index + 1).into();
            letter["parts"] = count.into();
        }
        letter
    })
}

/// A dead letter's bytes. What makes it larger than a log takes is cut, and the letter says so:
/// first what is there in another form too.
fn fitting(mut letter: Letter) -> Vec<u8> {
    let mut bytes = letter.to_string().into_bytes();
    for cut in ["value_text", "row", "key_hex", "reason"] {
        if bytes.len() <= RECORD_BYTES_MAX {
            break;
        }
        if let Some(field) = letter.get_mut(cut) {
            let whole = match field.take() {
                serde_json::Value::String(text) => text,
                other => other.to_string(),
            };
            *field = whole.chars().take(CUT_CHARS).collect::<String>().into();
            letter["cut"] = true.into();
            bytes = letter.to_string().into_bytes();
        }
    }
    bytes
}

/// Bytes as hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_record_is_kept_in_parts_that_fit() {
        let value: Vec<u8> = (0..PART_BYTES_MAX * 2 + 10).map(|_| 1u8).collect();
        let refusal = Refusal {
            topic: "t".to_owned(),
            partition: 0,
            offset: 7,
            key: None,
            value: Some(value.clone()),
            reason: "bad".to_owned(),
        };
        let mut kept = String::new();
        for (index, letter) in letters(1, &refusal).enumerate() {
            assert_eq!(
                (letter["part"].as_u64(), letter["parts"].as_u64()),
                (Some(index as u64 + 1), Some(3))
            );
            let bytes = fitting(letter);
            assert!(bytes.len() <= RECORD_BYTES_MAX, "{} bytes", bytes.len());
            let letter: Letter = serde_json::from_slice(&bytes).unwrap();
            kept.push_str(letter["value_hex"].as_str().unwrap());
        }
        assert_eq!(kept, hex(&value));
        let small = Refusal {
            value: None,
            ..refusal
        };
        assert_eq!(letters(1, &small).count(), 1);
    }
}
