//! The topics of a job: partitions with their offsets, sizes and rates.
//!
//! A job's topics are those that its views read, those that its ingest publishes, and the topic of
//! its dead letters. Other topics of the log are not shown.
//!
//! Kafka's clients cannot ask for the size of a topic on disk. So the size is an estimate: the
//! number of records times the mean size of the newest ones, before compression. The rate counts
//! records by their own time, which is the commit time for captured changes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tidemill_log::health::now_ms;
use tidemill_log::log::{Log, PartitionRange, dead_letter};

use crate::refusal::{Answer, Refusal};
use crate::{Inspected, locked};

/// The newest records of each partition whose sizes are looked at.
const SAMPLE_RECORDS: i64 = 100;
/// Limit of the bytes that are read for that.
const SAMPLE_BYTES_MAX: usize = 4 << 20;
/// How long reading them may take.
const SAMPLE_WAIT: Duration = Duration::from_secs(1);
/// How long a mean size is kept.
const SAMPLE_KEPT: Duration = Duration::from_secs(60);
/// The rate is that of the last minute.
const RATE_MS: u64 = 60_000;

/// The mean size of a topic's newest records, and when they were read.
pub(crate) type Sizes = HashMap<String, (Instant, Option<f64>)>;

/// A topic of a job.
#[derive(Debug, Serialize)]
pub(crate) struct Topic {
    /// The name.
    name: String,
    /// What the job does with the topic.
    uses: Vec<String>,
    /// The partitions; empty when the topic is not there.
    partitions: Vec<Partition>,
    /// The offsets that the topic holds: an upper bound of its records.
    records: u64,
    /// Keys and values of the records in bytes, about; absent when unknown.
    bytes_about: Option<u64>,
    /// Records with a time in the last minute, a second; absent when unknown.
    records_per_s: Option<f64>,
    /// Why there is less than that; absent when all is there.
    problem: Option<String>,
}

/// A partition of a topic.
#[derive(Debug, Serialize)]
struct Partition {
    /// The number.
    partition: u32,
    /// The first offset.
    low: i64,
    /// The offset of the next record.
    high: i64,
    /// Records that are not in every view yet; absent when this process does not know.
    behind: Option<u64>,
}

/// The topics of a job.
#[derive(Debug, Serialize)]
pub(crate) struct Topics {
    topics: Vec<Topic>,
    /// Why topics of views may be missing: the plan is not known yet.
    problem: Option<String>,
}

/// All topics.
pub(crate) fn all(job: &Inspected) -> Answer<Topics> {
    let (names, problem) = names(job)?;
    let log = job.log()?;
    let topics = names.into_iter();
    let topics = topics.map(|(name, uses)| job.topic(log.as_ref(), name, uses));
    Ok(Topics {
        topics: topics.collect::<Answer<_>>()?,
        problem,
    })
}

/// One topic.
pub(crate) fn one(job: &Inspected, topic: &str) -> Answer<Topic> {
    let uses = uses(job, topic)?;
    job.topic(job.log()?.as_ref(), topic.to_owned(), uses)
}

/// What the job does with a topic.
///
/// # Errors
/// `Missing` for a topic that is not the job's.
pub(crate) fn uses(job: &Inspected, topic: &str) -> Answer<Vec<String>> {
    let (mut names, problem) = names(job)?;
    names.remove(topic).ok_or_else(|| {
        let name = &job.name;
        let why = problem.map_or_else(String::new, |why| format!(" ({why})"));
        Refusal::Missing(format!("topic `{topic}` is none of job `{name}`{why}"))
    })
}

/// Topics, each with what the job does with it.
pub(crate) type Names = BTreeMap<String, Vec<String>>;

/// The job's topics, each with what the job does with it; and why some may be missing.
pub(crate) fn names(job: &Inspected) -> Answer<(Names, Option<String>)> {
    let mut names = Names::new();
    let mut add = |topic: String, used: String| names.entry(topic).or_default().push(used);
    if let Some(ingest) = job.folder.ingest_if_any()? {
        let naming = ingest.publish.naming();
        for table in ingest.tables() {
            let (schema, bare) = table.split_once('.').unwrap_or(("public", &table));
            add(
                naming.topic_of(schema, bare),
                format!("changes of table {table}"),
            );
        }
    }
    let problem = match job.plan() {
        Ok(plan) => {
            for source in plan.iter().flat_map(|plan| &plan.sources) {
                add(source.topic.clone(), format!("read as {}", source.name));
            }
            None
        }
        Err(refusal) => Some(format!("the views cannot be planned now: {refusal}")),
    };
    add(dead_letter::topic_of(&job.name), "dead letters".to_owned());
    Ok((names, problem))
}

impl Inspected {
    /// A topic as the log holds it.
    ///
    /// # Errors
    /// The log does not answer.
    fn topic(&self, log: &dyn Log, name: String, uses: Vec<String>) -> Answer<Topic> {
        let mut topic = Topic {
            uses,
            partitions: Vec::new(),
            records: 0,
            bytes_about: None,
            records_per_s: None,
            problem: None,
            name,
        };
        if log.describe(&topic.name)?.is_none() {
            topic.problem = Some("the topic is not there; its writer creates it".to_owned());
            return Ok(topic);
        }
        let ranges = log.ranges(&topic.name)?;
        let behind = self.dataflow.as_ref().map(|stats| stats.behind());
        let behind = behind.as_ref().and_then(|all| all.get(&topic.name));
        let partitions = ranges.iter().map(|range| Partition {
            partition: range.partition,
            low: range.low,
            high: range.high,
            behind: behind.and_then(|all| all.get(&range.partition)).copied(),
        });
        topic.partitions = partitions.collect();
        topic.records = ranges.iter().map(held).sum();
        let mean = self.mean_size(log, &topic.name, &ranges)?;
        topic.bytes_about = mean.map(|mean| (mean * topic.records as f64) as u64);
        let since = i64::try_from(now_ms().saturating_sub(RATE_MS)).unwrap_or(0);
        match log.offsets_at(&topic.name, since) {
            Ok(first) => topic.records_per_s = Some(rate(&ranges, &first)),
            Err(error) => topic.problem = Some(format!("its rate is unknown: {error}")),
        }
        Ok(topic)
    }

    /// The mean size in bytes of the newest records; `None` for a topic without records.
    ///
    /// # Errors
    /// The log does not answer.
    fn mean_size(
        &self,
        log: &dyn Log,
        topic: &str,
        ranges: &[PartitionRange],
    ) -> Answer<Option<f64>> {
        let kept = locked(&self.sizes).get(topic).copied();
        if let Some((read, mean @ Some(_))) = kept
            && read.elapsed() < SAMPLE_KEPT
        {
            return Ok(mean);
        }
        let filled = ranges.iter().filter(|range| range.low < range.high);
        let from = filled.map(|range| {
            let newest = range.high.saturating_sub(SAMPLE_RECORDS);
            (range.partition, newest.max(range.low))
        });
        let from: Vec<_> = from.collect();
        let (mut count, mut bytes) = (0_usize, 0_usize);
        log.scan(topic, &from, SAMPLE_WAIT, &mut |record, _| {
            count += 1;
            bytes += record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
            bytes < SAMPLE_BYTES_MAX
        })?;
        let mean = (count > 0).then(|| bytes as f64 / count as f64);
        locked(&self.sizes).insert(topic.to_owned(), (Instant::now(), mean));
        Ok(mean)
    }
}

/// The offsets that a partition holds.
fn held(range: &PartitionRange) -> u64 {
    u64::try_from(range.high.saturating_sub(range.low)).unwrap_or(0)
}

/// Records a second, of those from `first` on, over the last minute.
fn rate(ranges: &[PartitionRange], first: &[(u32, i64)]) -> f64 {
    let of = |range: &PartitionRange| {
        let first = first.iter().find(|(it, _)| *it == range.partition);
        let first = first.map_or(range.high, |(_, offset)| *offset);
        range.high.saturating_sub(first.max(range.low)).max(0)
    };
    let records: i64 = ranges.iter().map(of).sum();
    records as f64 * 1000.0 / RATE_MS as f64
}

/// The log and the ranges of a topic of the job that is there.
///
/// # Errors
/// `Missing` when it is not the job's, or is not there.
pub(crate) fn open(job: &Inspected, topic: &str) -> Answer<(Arc<dyn Log>, Vec<PartitionRange>)> {
    uses(job, topic)?;
    let log = job.log()?;
    if log.describe(topic)?.is_none() {
        let why = format!("topic `{topic}` is not there; its writer creates it");
        return Err(Refusal::Missing(why));
    }
    let ranges = log.ranges(topic)?;
    Ok((log, ranges))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_minute() {
        let range = |partition, low, high| PartitionRange {
            partition,
            low,
            high,
        };
        let ranges = [range(0, 0, 100), range(1, 50, 80)];
        assert_eq!(rate(&ranges, &[(0, 70), (1, 20)]), 1.0);
        assert_eq!(rate(&ranges, &[(0, 100), (1, 80)]), 0.0);
        assert_eq!(ranges.iter().map(held).sum::<u64>(), 130);
    }
}
