//! The message browser: records of a topic from an offset, from a time, or the newest ones.
//!
//! No consumer group is joined and nothing is committed. A request looks at a limited number of
//! records and bytes, for a limited time. The answer says where the next request goes on, and why
//! this one ended.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use tidemill_log::log::{Header, PartitionRange, RecordRef};

use crate::decoded::{Decoded, Decoder};
use crate::refusal::{Answer, Refusal};
use crate::{Inspected, topics};

/// Messages of an answer, unless the request says how many.
const MESSAGES: usize = 50;
/// Limit of messages of an answer.
const MESSAGES_MAX: usize = 500;
/// Limit of messages of an answer of JSON lines.
const LINES_MAX: usize = 10_000;
/// Limit of records that a request looks at.
const LOOKED_RECORDS_MAX: u64 = 100_000;
/// Limit of keys and values that a request looks at, in bytes.
const LOOKED_BYTES_MAX: usize = 64 << 20;
/// Limit of keys and values of an answer, in bytes.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Limit of the text of a key, a value or a header, in bytes; JSON lines hold the whole text.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// How long a request reads.
const READ_WAIT: Duration = Duration::from_secs(5);

/// Which messages are asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    /// This partition alone.
    partition: Option<u32>,
    /// From this offset on; needs a partition unless all begin there.
    offset: Option<i64>,
    /// From this time on, in ms since 1970.
    at_ms: Option<i64>,
    /// From these offsets on: `partition:offset,…`, as `next` of an answer has them.
    from: Option<String>,
    /// Only messages whose key, value or headers contain this text, in upper or lower case.
    filter: Option<String>,
    /// How many messages.
    limit: Option<usize>,
    /// As JSON lines, which a browser saves.
    #[serde(default)]
    pub(crate) lines: bool,
}

/// Why an answer ends where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Ended {
    /// At the ends of the partitions.
    End,
    /// As many messages as were asked for.
    Limit,
    /// As many records or bytes as a request may look at.
    Bound,
    /// The time of a request is over.
    Time,
}

/// A message.
#[derive(Debug, Serialize)]
struct Message {
    partition: u32,
    offset: i64,
    /// The time of the record, in ms since 1970.
    at_ms: i64,
    /// The key; null if there is none.
    key: Option<Decoded>,
    /// The value; null is a tombstone.
    value: Option<Decoded>,
    headers: Vec<(String, Option<Decoded>)>,
}

/// Messages of a topic.
#[derive(Debug, Serialize)]
pub(crate) struct Page {
    topic: String,
    messages: Vec<Message>,
    /// Where each partition that was asked for goes on.
    next: BTreeMap<u32, i64>,
    /// Records that were looked at.
    looked: u64,
    ended: Ended,
}

impl Asked {
    /// Whether the newest messages are asked for.
    fn is_newest(&self) -> bool {
        self.offset.is_none() && self.at_ms.is_none() && self.from.is_none()
    }

    /// How many messages the answer has at most.
    fn limit(&self) -> usize {
        let most = if self.lines { LINES_MAX } else { MESSAGES_MAX };
        self.limit.unwrap_or(MESSAGES).clamp(1, most)
    }

    /// The offsets of `from`.
    fn listed(&self) -> Answer<Option<BTreeMap<u32, i64>>> {
        let Some(from) = &self.from else {
            return Ok(None);
        };
        let pairs = from.split(',').map(|pair| {
            let (partition, offset) = pair.split_once(':')?;
            Some((partition.trim().parse().ok()?, offset.trim().parse().ok()?))
        });
        let wrong = || {
            let why = format!("from: `{from}`: expected partition:offset,…, such as 0:12,1:7");
            Refusal::Wrong(why)
        };
        pairs.collect::<Option<_>>().map(Some).ok_or_else(wrong)
    }
}

/// The messages that are asked for.
///
/// # Errors
/// `Missing` when the topic is not the job's, or is not there; `Wrong` for a partition that it does
/// not have.
pub(crate) fn browse(job: &Inspected, topic: &str, asked: &Asked) -> Answer<Page> {
    let (log, mut ranges) = topics::open(job, topic)?;
    if let Some(partition) = asked.partition {
        ranges.retain(|range| range.partition == partition);
        if ranges.is_empty() {
            let why = format!("topic `{topic}` has no partition {partition}");
            return Err(Refusal::Wrong(why));
        }
    }
    let listed = asked.listed()?;
    let times: BTreeMap<u32, i64> = match asked.at_ms {
        Some(at_ms) => log.offsets_at(topic, at_ms)?.into_iter().collect(),
        None => BTreeMap::new(),
    };
    let limit = i64::try_from(asked.limit()).unwrap_or(i64::MAX);
    let first = |range: &PartitionRange| {
        let first = match (&listed, asked.offset, times.get(&range.partition)) {
            (Some(listed), _, _) => *listed.get(&range.partition)?,
            (None, Some(offset), _) => offset,
            (None, None, Some(offset)) => *offset,
            // A filter looks further back for its messages.
            (None, None, None) if asked.filter.is_some() => {
                let most = i64::try_from(LOOKED_RECORDS_MAX).unwrap_or(i64::MAX);
                range.high - most / i64::try_from(ranges.len().max(1)).unwrap_or(1)
            }
            (None, None, None) => range.high - limit,
        };
        Some((range.partition, first.clamp(range.low, range.high)))
    };
    let from: Vec<_> = ranges.iter().filter_map(first).collect();
    let mut collector = Collector::new(asked, Decoder::new(job.registry()?), &from);
    let unread: Vec<_> = from
        .iter()
        .copied()
        .filter(|(partition, offset)| {
            let has = |it: &PartitionRange| it.partition == *partition && *offset < it.high;
            ranges.iter().any(has)
        })
        .collect();
    let is_read = log.scan(topic, &unread, READ_WAIT, &mut |record, headers| {
        collector.take(&record, headers)
    })?;
    Ok(collector.page(topic, is_read))
}

/// Collects the messages of one answer.
struct Collector<'a> {
    asked: &'a Asked,
    /// The text of the filter in lower case.
    filter: Option<String>,
    decoder: Decoder,
    messages: Vec<Message>,
    /// Bytes of the collected messages.
    bytes: usize,
    /// Records that were looked at, and their bytes.
    looked: (u64, usize),
    next: BTreeMap<u32, i64>,
    /// Why no more records are taken.
    ended: Option<Ended>,
}

impl<'a> Collector<'a> {
    fn new(asked: &'a Asked, decoder: Decoder, from: &[(u32, i64)]) -> Self {
        let filter = asked.filter.as_ref().filter(|it| !it.is_empty());
        Self {
            asked,
            filter: filter.map(|it| it.to_lowercase()),
            decoder,
            messages: Vec::new(),
            bytes: 0,
            looked: (0, 0),
            next: from.iter().copied().collect(),
            ended: None,
        }
    }

    /// Takes a record; false when it is the last one.
    fn take(&mut self, record: &RecordRef<'_>, headers: &[Header]) -> bool {
        let size = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        self.looked = (self.looked.0 + 1, self.looked.1 + size);
        self.next.insert(record.partition, record.offset + 1);
        let message = self.message(record, headers);
        if self.matches(&message) {
            self.bytes += size;
            self.messages.push(message);
            self.drop_oldest();
        }
        let is_full = self.messages.len() >= self.asked.limit() && !self.asked.is_newest();
        if is_full {
            self.ended = Some(Ended::Limit);
        } else if self.bytes > ANSWER_BYTES_MAX
            || self.looked.0 >= LOOKED_RECORDS_MAX
            || self.looked.1 > LOOKED_BYTES_MAX
        {
            self.ended = Some(Ended::Bound);
        }
        self.ended.is_none()
    }

    /// Of the newest messages only as many are kept as were asked for, of each partition.
    fn drop_oldest(&mut self) {
        let Some(partition) = self.messages.last().map(|it| it.partition) else {
            return;
        };
        let of = |it: &Message| it.partition == partition;
        let count = self.messages.iter().filter(|it| of(it)).count();
        if self.asked.is_newest()
            && count > self.asked.limit()
            && let Some(oldest) = self.messages.iter().position(of)
        {
            let oldest = self.messages.remove(oldest);
            let size = |it: &Option<Decoded>| it.as_ref().map_or(0, |it| it.bytes);
            let size = size(&oldest.key) + size(&oldest.value);
            self.bytes = self.bytes.saturating_sub(size);
        }
    }

    /// A record, decoded.
    fn message(&mut self, record: &RecordRef<'_>, headers: &[Header]) -> Message {
        let decoder = &mut self.decoder;
        let mut decoded = |bytes: Option<&[u8]>| bytes.map(|bytes| decoder.decoded(bytes));
        Message {
            partition: record.partition,
            offset: record.offset,
            at_ms: record.timestamp_ms,
            key: decoded(record.key),
            value: decoded(record.value),
            headers: headers
                .iter()
                .map(|(name, value)| (name.clone(), decoded(value.as_deref())))
                .collect(),
        }
    }

    /// Whether a message contains the text of the filter.
    fn matches(&self, message: &Message) -> bool {
        let Some(filter) = &self.filter else {
            return true;
        };
        let has = |it: &Option<Decoded>| {
            let it = it.as_ref();
            it.is_some_and(|it| it.text.to_lowercase().contains(filter))
        };
        let in_header = |(name, value): &(String, Option<Decoded>)| {
            name.to_lowercase().contains(filter) || has(value)
        };
        has(&message.key) || has(&message.value) || message.headers.iter().any(in_header)
    }

    /// The answer. The newest messages are in the order of their times, others in that of their
    /// offsets.
    fn page(mut self, topic: &str, is_read: bool) -> Page {
        let ended = match self.ended {
            Some(ended) => ended,
            None if is_read => Ended::End,
            None => Ended::Time,
        };
        if self.asked.is_newest() {
            self.messages
                .sort_by_key(|it| (it.at_ms, it.partition, it.offset));
            let surplus = self.messages.len().saturating_sub(self.asked.limit());
            self.messages.drain(..surplus);
        } else {
            self.messages.sort_by_key(|it| (it.partition, it.offset));
        }
        let most = match self.asked.lines {
            true => usize::MAX,
            false => TEXT_BYTES_MAX,
        };
        let cut = |it: Option<Decoded>| it.map(|it| it.cut(most));
        let messages = self.messages.into_iter().map(|message| Message {
            key: cut(message.key),
            value: cut(message.value),
            headers: message
                .headers
                .into_iter()
                .map(|(name, value)| (name, cut(value)))
                .collect(),
            ..message
        });
        Page {
            topic: topic.to_owned(),
            messages: messages.collect(),
            next: self.next,
            looked: self.looked.0,
            ended,
        }
    }
}

/// A message as a line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    partition: u32,
    offset: i64,
    at_ms: i64,
    key: Option<Box<RawValue>>,
    value: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_schema_id: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_schema_id: Option<u32>,
    headers: &'a [(String, Option<Decoded>)],
}

impl Page {
    /// The messages as JSON lines. If the partitions hold more, the last line says where to go on.
    pub(crate) fn lines(&self) -> String {
        let mut text = String::new();
        for message in &self.messages {
            let id = |it: &Option<Decoded>| it.as_ref().and_then(|it| it.schema_id);
            let line = Line {
                partition: message.partition,
                offset: message.offset,
                at_ms: message.at_ms,
                key: message.key.as_ref().map(Decoded::json),
                value: message.value.as_ref().map(Decoded::json),
                key_schema_id: id(&message.key),
                value_schema_id: id(&message.value),
                headers: &message.headers,
            };
            // A line that was written as JSON may have line ends between its values.
            let line = serde_json::to_string(&line).unwrap_or_default();
            text += &line.replace(['\n', '\r'], " ");
            text.push('\n');
        }
        if self.ended != Ended::End {
            let next = self.next.iter();
            let next: Vec<_> = next.map(|(it, offset)| format!("{it}:{offset}")).collect();
            text += &json!({ "goes_on_from": next.join(",") }).to_string();
            text.push('\n');
        }
        text
    }
}
