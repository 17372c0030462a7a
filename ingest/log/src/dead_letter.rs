//! Dead letters: what a stage could not use, in one form for all stages, in one topic a pipeline.
//!
//! A [`DeadLetter`] flows in and becomes records of the topic [`topic_of`] the pipeline; [`read`]
//! gives them back, with the notes of which were replayed. The form is documented in
//! `docs/dead-letters.md`.
//!
//! Invariants:
//! 1. No byte of what was refused is lost: what is too large for one record travels in parts.
//! 2. The same refusal has the same id whenever it is written, so a letter that a crash wrote
//!    twice is one letter for everybody who reads through [`read`].

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::log::{Log, Record, RecordRef};
use crate::{Error, Kind, Result};

/// Most bytes of a key and of a value in one part: as digits both still fit into one record.
const PART_BYTES_MAX: usize = 192 * 1024;
/// Most bytes of a value that are repeated as text, for people who look at the topic.
const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Most characters of a reason, and of a row's key in a source.
const TEXT_CHARS_MAX: usize = 10_000;
/// The newest records of the topic that are looked at.
pub const READ_RECORDS_MAX: i64 = 100_000;
/// Letters whose parts are being put together at a time.
const OPEN_LETTERS_MAX: usize = 16;
/// How long a topic that has records may give none.
const READ_PATIENCE: Duration = Duration::from_secs(20);

/// The topic of a pipeline's dead letters.
pub fn topic_of(pipeline: &str) -> String {
    format!("{pipeline}.dead-letters")
}

/// Which stage refused it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// A page that the API refuses for good.
    Fetch,
    /// A record of a page that does not fit the table.
    Land,
    /// A row change whose values cannot be represented.
    Capture,
    /// A row change that the log does not take.
    Publish,
    /// A record of a topic that is no row.
    Decode,
    /// A row for which an expression has no value.
    Evaluate,
    /// A row of a view that its table cannot hold.
    Serve,
}

impl Stage {
    /// All stages, in the order of the river.
    pub const ALL: [Stage; 7] = [
        Stage::Fetch,
        Stage::Land,
        Stage::Capture,
        Stage::Publish,
        Stage::Decode,
        Stage::Evaluate,
        Stage::Serve,
    ];

    /// Its name in a letter.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Fetch => "fetch",
            Stage::Land => "land",
            Stage::Capture => "capture",
            Stage::Publish => "publish",
            Stage::Decode => "decode",
            Stage::Evaluate => "evaluate",
            Stage::Serve => "serve",
        }
    }
}

/// Where it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Source {
    /// A record of a topic.
    Record {
        /// The topic.
        topic: String,
        /// Its partition.
        partition: u32,
        /// Its offset.
        offset: i64,
    },
    /// A change of a table's row.
    Change {
        /// The table.
        table: String,
        /// The row's key as text.
        key: String,
        /// The commit's place in the source: an LSN, or a change's number.
        commit: u64,
        /// The change's number within its commit.
        index: u64,
    },
    /// A page of the API.
    Page {
        /// The URL that was asked.
        url: String,
        /// The page's number.
        page: u64,
    },
    /// A row on its way to a view.
    Row {
        /// The view, where the stage knows it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        view: Option<String>,
        /// The epoch that it belongs to.
        epoch: u64,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Record {
                topic,
                partition,
                offset,
            } => write!(f, "topic {topic}, partition {partition}, offset {offset}"),
            Source::Change {
                table,
                key,
                commit,
                index,
            } => write!(f, "table {table}, key {key}, change {commit}/{index}"),
            Source::Page { url, page } => write!(f, "page {page}, {url}"),
            Source::Row {
                view: Some(view),
                epoch,
            } => write!(f, "view {view}, epoch {epoch}"),
            Source::Row { view: None, epoch } => write!(f, "epoch {epoch}"),
        }
    }
}

/// What could not be used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Which stage refused it.
    pub stage: Stage,
    /// When, in milliseconds since 1970; in the dataflow the epoch.
    pub at_ms: i64,
    /// Where it came from.
    pub source: Source,
    /// Why.
    pub reason: String,
    /// The record's key, as it came.
    pub key: Option<Vec<u8>>,
    /// What was refused, as it came: a record's value, a page's record, a row as text.
    pub value: Option<Vec<u8>>,
}

/// What stands in a record of the topic.
#[derive(Debug, Serialize, Deserialize)]
struct Part {
    id: String,
    stage: Stage,
    at_ms: i64,
    source: Source,
    reason: String,
    key_hex: Option<String>,
    value_hex: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_text: Option<String>,
    part: usize,
    parts: usize,
}

/// The note that a letter was replayed.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    replayed: String,
    at_ms: i64,
    how: String,
}

impl DeadLetter {
    /// What tells it from every other one. When it was written does not count.
    pub fn id(&self) -> String {
        let source = serde_json::to_vec(&self.source).unwrap_or_default();
        let mut bytes = Vec::new();
        for part in [
            Some(self.stage.name().as_bytes()),
            Some(source.as_slice()),
            self.key.as_deref(),
            self.value.as_deref(),
        ] {
            bytes.extend(
                part.map_or(u64::MAX, |part| part.len() as u64)
                    .to_le_bytes(),
            );
            bytes.extend(part.unwrap_or_default());
        }
        format!("{:032x}", xxh3_128(&bytes))
    }

    /// The records to append for it, in this order: one, or as many as it takes.
    pub fn records(&self, topic: &str) -> Vec<Record> {
        let id = self.id();
        let chunks = |bytes: &Option<Vec<u8>>| -> Vec<Vec<u8>> {
            let bytes = bytes.as_deref().unwrap_or_default();
            bytes.chunks(PART_BYTES_MAX).map(<[u8]>::to_vec).collect()
        };
        let (keys, values) = (chunks(&self.key), chunks(&self.value));
        let parts = keys.len().max(values.len()).max(1);
        let digits = |there: &Option<Vec<u8>>, chunks: &[Vec<u8>], index: usize| {
            let chunk = chunks.get(index).map_or(&[][..], Vec::as_slice);
            there.as_ref().map(|_| hex(chunk))
        };
        let part = |index: usize| Part {
            id: id.clone(),
            stage: self.stage,
            at_ms: self.at_ms,
            source: short(&self.source),
            reason: self.reason.chars().take(TEXT_CHARS_MAX).collect(),
            key_hex: digits(&self.key, &keys, index),
            value_hex: digits(&self.value, &values, index),
            value_text: self.text().filter(|_| index == 0),
            part: index + 1,
            parts,
        };
        (0..parts)
            .map(|index| record(topic, &id, self.at_ms, &part(index)))
            .collect()
    }

    /// The value as text, when it is text that is not too long to be repeated.
    fn text(&self) -> Option<String> {
        let value = self.value.as_deref()?;
        let value = (value.len() <= TEXT_BYTES_MAX).then_some(value)?;
        std::str::from_utf8(value).ok().map(str::to_owned)
    }
}

/// The record that notes that the letter `id` was replayed.
pub fn replayed(topic: &str, id: &str, at_ms: i64, how: &str) -> Record {
    let note = Note {
        replayed: id.to_owned(),
        at_ms,
        how: how.to_owned(),
    };
    record(topic, id, at_ms, &note)
}

fn record(topic: &str, id: &str, at_ms: i64, what: &impl Serialize) -> Record {
    Record {
        topic: topic.to_owned(),
        // A topic with several partitions keeps a letter's records together by its id.
        partition: None,
        key: Some(id.as_bytes().to_vec()),
        // Numbers, texts and options alone: this cannot fail.
        value: serde_json::to_vec(what).ok(),
        timestamp_ms: at_ms,
    }
}

fn short(source: &Source) -> Source {
    let mut source = source.clone();
    if let Source::Change { key, .. } = &mut source {
        *key = key.chars().take(TEXT_CHARS_MAX).collect();
    }
    source
}

/// A letter as it stands in the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its number: the offset of its first record.
    pub number: i64,
    /// What tells it from every other one.
    pub id: String,
    /// The letter.
    pub letter: DeadLetter,
}

/// What [`read`] finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A letter, each once.
    Letter(Kept),
    /// The note that the letter with this id was replayed.
    Replayed {
        /// The letter's id.
        id: String,
        /// When.
        at_ms: i64,
        /// What was done.
        how: String,
    },
}

/// Hands the letters and notes of the newest [`READ_RECORDS_MAX`] records of a topic to `each`,
/// oldest first. Records that are neither are passed over. Nothing when there is no topic.
pub fn read(log: &dyn Log, topic: &str, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
    if log.describe(topic)?.is_none() {
        return Ok(());
    }
    let mut from = Vec::new();
    let mut left = std::collections::HashMap::new();
    for range in log.ranges(topic)? {
        if range.low < range.high {
            let first = range.low.max(range.high.saturating_sub(READ_RECORDS_MAX));
            from.push((range.partition, first));
            left.insert(range.partition, range.high);
        }
    }
    if from.is_empty() {
        return Ok(());
    }
    let mut reader = log.reader(topic, &from)?;
    let mut open = Open::default();
    let mut heard = Instant::now();
    while !left.is_empty() {
        let mut found = Ok(());
        let count = reader.poll(1_000, Duration::from_millis(100), &mut |record| {
            if found.is_ok()
                && let Some(entry) = open.take(&record)
            {
                found = each(entry);
            }
            if left
                .get(&record.partition)
                .is_some_and(|high| record.offset + 1 >= *high)
            {
                left.remove(&record.partition);
            }
        })?;
        found?;
        if count > 0 {
            heard = Instant::now();
        } else if heard.elapsed() > READ_PATIENCE {
            let what = format!("topic `{topic}` gave no records in {READ_PATIENCE:?}");
            return Err(Error::new(Kind::Retry, what));
        }
    }
    Ok(())
}

/// A letter whose parts are being put together.
struct Opened {
    number: i64,
    first: Part,
    /// A part of the key and of the value each.
    pieces: Vec<Option<(Vec<u8>, Vec<u8>)>>,
}

/// Letters that are being put together, and those that were.
#[derive(Default)]
struct Open {
    letters: VecDeque<Opened>,
    known: HashSet<String>,
}

impl Open {
    /// What a record completes.
    fn take(&mut self, record: &RecordRef<'_>) -> Option<Entry> {
        let value = record.value?;
        if let Ok(note) = serde_json::from_slice::<Note>(value) {
            return Some(Entry::Replayed {
                id: note.replayed,
                at_ms: note.at_ms,
                how: note.how,
            });
        }
        let part: Part = serde_json::from_slice(value).ok()?;
        if self.known.contains(&part.id) || part.part == 0 || part.part > part.parts {
            return None;
        }
        let key = unhex(part.key_hex.as_deref().unwrap_or_default())?;
        let value = unhex(part.value_hex.as_deref().unwrap_or_default())?;
        let place = part.part - 1;
        let at = match self.letters.iter().position(|it| it.first.id == part.id) {
            Some(at) => at,
            None => {
                if self.letters.len() >= OPEN_LETTERS_MAX {
                    self.letters.pop_front();
                }
                let pieces = vec![None; part.parts.min(READ_RECORDS_MAX as usize)];
                self.letters.push_back(Opened {
                    number: record.offset,
                    first: part,
                    pieces,
                });
                self.letters.len() - 1
            }
        };
        let pieces = &mut self.letters.get_mut(at)?.pieces;
        *pieces.get_mut(place)? = Some((key, value));
        if pieces.iter().any(Option::is_none) {
            return None;
        }
        let Opened {
            number,
            first: part,
            pieces,
        } = self.letters.remove(at)?;
        self.known.insert(part.id.clone());
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for (of_key, of_value) in pieces.into_iter().flatten() {
            key.extend(of_key);
            value.extend(of_value);
        }
        Some(Entry::Letter(Kept {
            number,
            letter: DeadLetter {
                stage: part.stage,
                at_ms: part.at_ms,
                source: part.source,
                reason: part.reason,
                key: part.key_hex.map(|_| key),
                value: part.value_hex.map(|_| value),
            },
            id: part.id,
        }))
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(*byte)])
        .collect()
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::RECORD_BYTES_MAX;

    fn letter(key: Option<Vec<u8>>, value: Option<Vec<u8>>) -> DeadLetter {
        DeadLetter {
            stage: Stage::Decode,
            at_ms: 7,
            source: Source::Record {
                topic: "t".to_owned(),
                partition: 1,
                offset: 9,
            },
            reason: "bad".to_owned(),
            key,
            value,
        }
    }

    fn log() -> (tempfile::TempDir, std::sync::Arc<dyn Log>) {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("log.db").display());
        let log = crate::log::open(&url).unwrap();
        log.create_topic("p.dead-letters", 1).unwrap();
        (folder, log)
    }

    fn all(log: &dyn Log) -> Vec<Entry> {
        let mut all = Vec::new();
        let mut keep = |entry| {
            all.push(entry);
            Ok(())
        };
        read(log, "p.dead-letters", &mut keep).unwrap();
        all
    }

    #[test]
    fn every_byte_comes_back_whatever_the_size_and_each_letter_once() {
        let (_folder, log) = log();
        let large = (0..RECORD_BYTES_MAX).map(|n| (n % 251) as u8).collect();
        let letters = [
            letter(None, None),
            letter(Some(Vec::new()), Some(Vec::new())),
            letter(Some(b"k".to_vec()), None),
            letter(Some(vec![1; RECORD_BYTES_MAX]), Some(b"\xff\"".to_vec())),
            letter(Some(b"k".to_vec()), Some(large)),
            letter(None, Some(vec![1; PART_BYTES_MAX + 1])),
        ];
        let mut producer = log.producer().unwrap();
        for _crash in 0..2 {
            for letter in &letters {
                producer.append(&letter.records("p.dead-letters")).unwrap();
            }
        }
        producer
            .append(&[replayed("p.dead-letters", "some", 8, "put back")])
            .unwrap();
        let found = all(log.as_ref());
        assert_eq!(found.len(), letters.len() + 1);
        for (entry, letter) in found.iter().zip(&letters) {
            let Entry::Letter(kept) = entry else {
                panic!("{entry:?}");
            };
            assert_eq!((&kept.letter, &kept.id), (letter, &letter.id()));
        }
        assert!(matches!(found.last(), Some(Entry::Replayed { id, .. }) if id == "some"));
    }

    #[test]
    fn what_is_no_letter_is_passed_over() {
        let (_folder, log) = log();
        let mut producer = log.producer().unwrap();
        for value in [&b"{}"[..], b"\xff", b"", br#"{"id": "x", "part": 0}"#] {
            let mut record = letter(None, None).records("p.dead-letters").remove(0);
            record.value = Some(value.to_vec());
            producer.append(&[record]).unwrap();
        }
        assert_eq!(all(log.as_ref()), []);
        let (_other, empty) = log_without_topic();
        assert_eq!(all(empty.as_ref()), []);
    }

    fn log_without_topic() -> (tempfile::TempDir, std::sync::Arc<dyn Log>) {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("log.db").display());
        (folder, crate::log::open(&url).unwrap())
    }

    #[test]
    fn when_it_was_written_does_not_make_it_another() {
        let first = letter(None, Some(b"v".to_vec()));
        let again = DeadLetter {
            at_ms: 900,
            reason: "worded otherwise".to_owned(),
            ..first.clone()
        };
        assert_eq!(first.id(), again.id());
        assert_ne!(first.id(), letter(Some(b"v".to_vec()), None).id());
        assert_ne!(letter(None, None).id(), letter(None, Some(Vec::new())).id());
    }
}
