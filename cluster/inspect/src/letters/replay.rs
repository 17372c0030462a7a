//! Replays dead letters to where they came from.
//!
//! Invariant: a record is not put back behind a newer record of its key, unless forced.
//!
//! | stage and source of a letter | what a replay does |
//! |---|---|
//! | a record of a topic | appends the record to its partition again |
//! | landing: a record of the API | lands it in its table again |
//! | fetching: a page | makes the page due again in the ledger |
//! | publishing: a change of a row | nothing; the user changes the row |
//! | writing: a row of a view | nothing; the user corrects the record, the row or the view |

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use jiff::Timestamp;
use serde_json::value::RawValue;
use tidemill_ingest::{land, schedule};
use tidemill_log::envelope::Decoder;
use tidemill_log::log::dead_letter::{DeadLetter, Kept, Source, Stage};
use tidemill_log::log::{OwnedRecord, Record, dead_letter};

use super::{Letters, time};

/// How long a read may take without a record from a partition that has some.
const READ_PATIENCE: Duration = Duration::from_secs(20);
/// The ledger needs a lease time. A replay never claims a page, so the value does not matter.
const LEASE: Duration = Duration::from_secs(60);

/// The result of replaying one letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The letter was replayed; the text says how.
    Done(String),
    /// The letter was left as it is; the text says why.
    Left(String),
}

impl Letters {
    /// Replays one letter by its stage and source, and writes the note.
    ///
    /// # Errors
    /// A service fails. The letter may be replayed without a note then.
    pub fn replay(&self, kept: &Kept, force: bool) -> anyhow::Result<Outcome> {
        if let Some((at_ms, how)) = self.replayed.get(&kept.id)
            && !force
        {
            let at = time(*at_ms);
            return Ok(Outcome::Left(format!(
                "it was replayed at {at} ({how}); --force replays it again"
            )));
        }
        let letter = &kept.letter;
        let outcome = match (&letter.stage, &letter.source) {
            (_, Source::Record { .. }) => self.put_back(letter, force)?,
            (Stage::Land, _) => self.land(letter)?,
            (Stage::Fetch, Source::Page { page, .. }) => self.ask_again(*page)?,
            (_, Source::Change { table, key, .. }) => Outcome::Left(format!(
                "it is a row of table {table}: change the row with key {key}, and the change is \
                 captured"
            )),
            _ => Outcome::Left(
                "it is a row on its way to a view: correct the record or the row that it comes \
                 from, or the view"
                    .to_owned(),
            ),
        };
        if let Outcome::Done(how) = &outcome {
            let now = Timestamp::now().as_millisecond();
            let note = dead_letter::replayed(&self.topic, &kept.id, now, how);
            self.log.producer()?.append(&[note])?;
        }
        Ok(outcome)
    }

    /// Appends a record to the partition from which it came.
    ///
    /// # Errors
    /// The topic or the log fails.
    fn put_back(&self, letter: &DeadLetter, force: bool) -> anyhow::Result<Outcome> {
        let Source::Record {
            topic,
            partition,
            offset,
        } = &letter.source
        else {
            bail!("the letter names no topic");
        };
        if let Some(key) = letter.key.as_deref().filter(|_| !force)
            && let Some(newer) = self.newer(topic, *partition, *offset, key)?
        {
            return Ok(Outcome::Left(format!(
                "topic {topic}, partition {partition} holds a newer record of its key, at offset \
                 {newer}; --force puts it behind that one"
            )));
        }
        let record = Record {
            topic: topic.clone(),
            partition: Some(*partition),
            key: letter.key.clone(),
            value: self.value_to_put_back(letter, topic, *partition, *offset)?,
            timestamp_ms: Timestamp::now().as_millisecond(),
        };
        self.log.producer()?.append(&[record])?;
        Ok(Outcome::Done(format!(
            "put back into topic {topic}, partition {partition}"
        )))
    }

    /// The value to append. A record that a capture published is marked as put back, because
    /// otherwise the dataflow drops it as a duplicate behind newer changes.
    fn value_to_put_back(
        &self,
        letter: &DeadLetter,
        topic: &str,
        partition: u32,
        offset: i64,
    ) -> anyhow::Result<Option<Vec<u8>>> {
        let in_wire_format = letter
            .value
            .as_ref()
            .filter(|value| value.first() == Some(&0));
        let Some(value) = in_wire_format else {
            return Ok(letter.value.clone());
        };
        let record = OwnedRecord {
            partition,
            offset,
            timestamp_ms: letter.at_ms,
            key: letter.key.clone(),
            value: Some(value.clone()),
        };
        let registry = tidemill_log::registry::open(&self.connections.registry)?;
        let put_back = Decoder::new(topic, registry).put_back(&record)?;
        Ok(put_back.or(record.value))
    }

    /// The offset of the last record with this key after `offset`; `None` if there is none.
    ///
    /// # Errors
    /// The partition gives no records for [`READ_PATIENCE`].
    fn newer(
        &self,
        topic: &str,
        partition: u32,
        offset: i64,
        key: &[u8],
    ) -> anyhow::Result<Option<i64>> {
        let ranges = self.log.ranges(topic)?;
        let range = ranges.iter().find(|range| range.partition == partition);
        let range = range.with_context(|| format!("topic {topic} has no partition {partition}"))?;
        let from = range.low.max(offset + 1);
        if from >= range.high {
            return Ok(None);
        }
        let mut reader = self.log.reader(topic, &[(partition, from)])?;
        let (mut newer, mut next) = (None, from);
        let mut heard = Instant::now();
        while next < range.high {
            let count = reader.poll(1_000, Duration::from_millis(100), &mut |record| {
                next = record.offset + 1;
                if record.key.is_some_and(|it| same_key(it, key)) {
                    newer = Some(record.offset);
                }
            })?;
            if count > 0 {
                heard = Instant::now();
            } else if heard.elapsed() > READ_PATIENCE {
                bail!("topic {topic}, partition {partition} gave no records in {READ_PATIENCE:?}");
            }
        }
        Ok(newer)
    }

    /// Lands a record of the API in its table again.
    ///
    /// # Errors
    /// The pipeline fetches nothing any more, or the database does not answer.
    fn land(&self, letter: &DeadLetter) -> anyhow::Result<Outcome> {
        let ingest = self.folder.ingest()?;
        let feed = ingest
            .feed
            .context("the pipeline fetches nothing any more")?;
        let value = letter.value.clone().unwrap_or_default();
        let record = String::from_utf8(value).context("the record is not text")?;
        let record = RawValue::from_string(record).context("the record is not JSON")?;
        let mut landing = land::open(&self.connections.database, &feed.land)?;
        let table = &feed.land.table;
        Ok(match landing.again(&record)? {
            Ok(landed) if landed.inserted > 0 => {
                Outcome::Done(format!("landed in table {table} as a new row"))
            }
            Ok(landed) if landed.updated > 0 => {
                Outcome::Done(format!("landed in table {table}, where it changed its row"))
            }
            Ok(_) => Outcome::Done(format!("landed in table {table}, whose row was so already")),
            Err(why) => Outcome::Left(format!("it is refused again: {why}")),
        })
    }

    /// Makes a page due again in the ledger.
    ///
    /// # Errors
    /// The pipeline fetches nothing any more, or the database does not answer.
    fn ask_again(&self, page: u64) -> anyhow::Result<Outcome> {
        let ingest = self.folder.ingest()?;
        let feed = ingest
            .feed
            .context("the pipeline fetches nothing any more")?;
        let (database, name) = (&self.connections.database, &self.folder.name);
        let mut ledger = schedule::open(database, name, &feed.schedule, LEASE)?;
        Ok(match ledger.again(page)? {
            true => Outcome::Done(format!("page {page} is due again")),
            false => Outcome::Left(format!("page {page} is due or done already")),
        })
    }
}

/// Whether two keys are equal. In Confluent's wire format the ids of their schemas may differ.
fn same_key(one: &[u8], other: &[u8]) -> bool {
    let bare = |key: &[u8]| match key.split_at_checked(5) {
        Some(([0, ..], bare)) if !bare.is_empty() => bare.to_vec(),
        _ => key.to_vec(),
    };
    one == other || bare(one) == bare(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_compared_without_their_schemas() {
        assert!(same_key(b"a", b"a"));
        assert!(!same_key(b"a", b"b"));
        assert!(same_key(b"\0\0\0\0\x01key", b"\0\0\0\0\x09key"));
        assert!(!same_key(b"\0\0\0\0\x01key", b"\0\0\0\0\x01kez"));
        assert!(!same_key(b"\0\0\0\0\x01", b"\0\0\0\0\x02"));
    }
}
