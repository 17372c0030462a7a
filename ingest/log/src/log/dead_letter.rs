//! Dead letters: input and rows that a stage cannot use, in one form for all stages, in one topic
//! per pipeline.
//!
//! A [`DeadLetter`] becomes one or more records of the topic [`topic_of`] the pipeline
//! ([`DeadLetter::records`]). [`read`] gives the letters back, with the notes that say which were
//! replayed. `docs/dead-letters.md` documents the JSON form of the records.
//!
//! Invariants:
//! 1. No byte of the refused input is lost: input too large for one record is written in parts.
//! 2. The same refusal has the same id whenever it is written. So a letter that was written again
//!    after a crash is one letter for all who read through [`read`].

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::log::{Log, Record, RecordRef};
use crate::{Error, Kind, Result};

/// Largest number of bytes of a key, and of a value, in one part. As hexadecimal digits both fit in
/// one record.
const PART_BYTES_MAX: usize = 192 * 1024;
/// Largest value, in bytes, that is repeated as text for people who look at the topic.
const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Largest number of characters of a reason, and of the key of a row in a source.
const TEXT_CHARS_MAX: usize = 10_000;
/// How many records of each partition [`read`] looks at: the newest ones.
pub const READ_RECORDS_MAX: i64 = 100_000;
/// Number of letters whose parts are collected at the same time.
const OPEN_LETTERS_MAX: usize = 16;
/// [`read`] fails when a topic that has records delivers none in this time.
const READ_PATIENCE: Duration = Duration::from_secs(20);

/// The topic of a pipeline's dead letters.
pub fn topic_of(pipeline: &str) -> String {
    format!("{pipeline}.dead-letters")
}

/// The stage that refused the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// A page that the API refuses for good.
    Fetch,
    /// A record of a page that does not fit the table.
    Land,
    /// A row change with a value that cannot be represented.
    Capture,
    /// A row change that the log does not accept.
    Publish,
    /// A record of a topic that is not a row.
    Decode,
    /// A row for which an expression of a view fails.
    Evaluate,
    /// A row of a view that its table cannot hold.
    Serve,
}

impl Stage {
    /// All stages, from the API to the views.
    pub const ALL: [Stage; 7] = [
        Stage::Fetch,
        Stage::Land,
        Stage::Capture,
        Stage::Publish,
        Stage::Decode,
        Stage::Evaluate,
        Stage::Serve,
    ];

    /// The name in a letter.
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

/// The origin of the refused input.
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
    /// A change of a row of a captured table.
    Change {
        /// The table.
        table: String,
        /// The key of the row, as text.
        key: String,
        /// The commit in the source: an LSN, or the change id of SQLite.
        commit: u64,
        /// The number of the change within its commit.
        index: u64,
    },
    /// A page of the API.
    Page {
        /// The URL that was requested.
        url: String,
        /// The number of the page.
        page: u64,
    },
    /// A row on its way to a view.
    Row {
        /// The view, where the stage knows it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        view: Option<String>,
        /// The epoch of the row.
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

/// Refused input and the reason.
///
/// ```
/// use tidemill_log::log::dead_letter::{DeadLetter, Entry, Source, Stage, read, topic_of};
///
/// # fn main() -> tidemill_log::Result<()> {
/// let folder = tempfile::tempdir().expect("a folder");
/// let url = format!("sqlite://{}", folder.path().join("log.db").display());
/// let log = tidemill_log::log::open(&url)?;
/// let topic = topic_of("shop");
/// log.create_topic(&topic, 1)?;
/// let letter = DeadLetter {
///     stage: Stage::Decode,
///     at_ms: 1_700_000_000_000,
///     source: Source::Record { topic: "users".into(), partition: 0, offset: 7 },
///     reason: "not JSON".into(),
///     key: None,
///     value: Some(b"{".to_vec()),
/// };
/// log.producer()?.append(&letter.records(&topic))?;
///
/// let mut found = Vec::new();
/// read(log.as_ref(), &topic, &mut |entry| {
///     if let Entry::Letter(kept) = entry {
///         found.push(kept.letter);
///     }
///     Ok(())
/// })?;
/// assert_eq!(found, [letter]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The stage that refused the input.
    pub stage: Stage,
    /// When, in milliseconds since 1970-01-01 UTC; in the dataflow the epoch.
    pub at_ms: i64,
    /// The origin of the input.
    pub source: Source,
    /// Why the stage cannot use it.
    pub reason: String,
    /// The key of the record, unchanged.
    pub key: Option<Vec<u8>>,
    /// The input, unchanged: the value of a record, a record of a page, a row as text.
    pub value: Option<Vec<u8>>,
}

/// The JSON form of one record of the topic: one part of a letter.
#[derive(Debug, Serialize, Deserialize)]
struct Part {
    id: String,
    stage: Stage,
    at_ms: i64,
    source: Source,
    reason: String,
    /// This part of the key, in hexadecimal digits; null when the input has no key.
    key_hex: Option<String>,
    /// This part of the value, in hexadecimal digits; null when the input has no value.
    value_hex: Option<String>,
    /// The whole value as text, in the first part and when it is short text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_text: Option<String>,
    /// The number of this part, from 1.
    part: usize,
    /// How many parts the letter has.
    parts: usize,
}

/// The JSON form of the note that a letter was replayed.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// The id of the letter.
    replayed: String,
    at_ms: i64,
    how: String,
}

impl DeadLetter {
    /// Identifies the letter: a 128-bit hash of stage, origin, key and value, in hexadecimal
    /// digits. Time and reason do not count, so the same refusal has the same id after a restart.
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

    /// The records of the letter, to be appended in this order: one, or several for large input.
    /// The key of each is the letter's id.
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
            source: shortened(&self.source),
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

    /// The value as text, if it is short text.
    fn text(&self) -> Option<String> {
        let value = self.value.as_deref()?;
        let value = (value.len() <= TEXT_BYTES_MAX).then_some(value)?;
        std::str::from_utf8(value).ok().map(str::to_owned)
    }
}

/// The record that notes that the letter `id` was replayed; `how` says how.
pub fn replayed(topic: &str, id: &str, at_ms: i64, how: &str) -> Record {
    let note = Note {
        replayed: id.to_owned(),
        at_ms,
        how: how.to_owned(),
    };
    record(topic, id, at_ms, &note)
}

/// A record of the topic with `what` as its JSON value.
fn record(topic: &str, id: &str, at_ms: i64, what: &impl Serialize) -> Record {
    Record {
        topic: topic.to_owned(),
        // The key keeps the records of a letter in one partition.
        partition: None,
        key: Some(id.as_bytes().to_vec()),
        // This cannot fail: the value holds numbers, texts and options only.
        value: serde_json::to_vec(what).ok(),
        timestamp_ms: at_ms,
    }
}

/// The origin with the key cut to [`TEXT_CHARS_MAX`].
fn shortened(source: &Source) -> Source {
    let mut source = source.clone();
    if let Source::Change { key, .. } = &mut source {
        *key = key.chars().take(TEXT_CHARS_MAX).collect();
    }
    source
}

/// A letter as read from the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The letter's number for commands: the offset of its first record.
    pub number: i64,
    /// The letter's id.
    pub id: String,
    /// The letter.
    pub letter: DeadLetter,
}

/// An entry of the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A letter; each letter is reported once.
    Letter(Kept),
    /// The note that a letter was replayed.
    Replayed {
        /// The letter's id.
        id: String,
        /// When, in milliseconds since 1970-01-01 UTC.
        at_ms: i64,
        /// How it was replayed.
        how: String,
    },
}

/// Calls `each` with the letters and notes among the newest [`READ_RECORDS_MAX`] records of each
/// partition, oldest first within a partition. Other records are skipped. A topic that does not
/// exist has no entries.
///
/// # Errors
/// Those of the log and of `each`; `Retry` when the topic delivers no record for 20 s.
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
    let mut open = Assembler::default();
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
            let what = format!("topic `{topic}` delivered no record for {READ_PATIENCE:?}");
            return Err(Error::new(Kind::Retry, what));
        }
    }
    Ok(())
}

/// A letter whose parts are being collected.
struct Partial {
    /// Offset of the part that came first.
    number: i64,
    /// The part that came first.
    first: Part,
    /// Key and value bytes of each part; `None` until the part came.
    pieces: Vec<Option<(Vec<u8>, Vec<u8>)>>,
}

/// Collects the parts of letters, and drops letters that came before.
#[derive(Default)]
struct Assembler {
    /// Letters with missing parts, the oldest first; the oldest is dropped when there are too many.
    letters: VecDeque<Partial>,
    /// Ids of the complete letters.
    known: HashSet<String>,
}

impl Assembler {
    /// The entry that a record completes.
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
                self.letters.push_back(Partial {
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
        let Partial {
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

/// Bytes as hexadecimal digits in lower case.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(*byte)])
        .collect()
}

/// The bytes of hexadecimal digits; `None` for anything else.
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
    fn other_records_are_skipped() {
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
    fn the_id_ignores_time_and_reason() {
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
