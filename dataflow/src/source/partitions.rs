//! The partitions that a worker owns: reads them ahead of the binder and holds rows until released.
//!
//! Live, the worker decodes what it reads into micro-batches ([`MicroBatch`]) and reports how far
//! each partition got. When the binder's epoch arrives, the micro-batches at or below its end
//! offsets are released. While epochs of an earlier run are replayed, the order is the opposite:
//! the end offsets are known first, and micro-batches are cut exactly at them. Therefore a replay
//! is identical.
//!
//! ```text
//! live:    read ─► Cut [10, 17) ─► report 17 ─► Bind(e: 17) ─► release
//! replay:  Bind(e: 17) from the journal ─► read to 17 ─► Cut [10, 17) ─► release at e
//!                                              └─ records from 17 on wait in `ahead`
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tidemill_log::Result;
use tidemill_log::log::{Log, OwnedRecord, Reader};
use tidemill_state::journal::Binding;
use tidemill_state::value::source_position::SourcePosition;

use super::record_batcher;
use super::record_batcher::RecordBatcher;
use crate::context::Refusal;
use crate::epoch::commits::Commits;
use crate::epoch::messages::Held;

/// Most records per poll. Bounds the size of a batch, and the time that the worker does not step.
pub(crate) const RECORDS_PER_POLL_MAX: usize = 32_768;
/// A poll reads no more records after this many bytes of values.
const BYTES_PER_POLL_MAX: usize = 8 << 20;
/// Records between two checks of those bytes.
const RECORDS_PER_LOOK: usize = 1_024;

/// A micro-batch: decoded records that belong to one epoch as a whole.
pub(crate) struct MicroBatch<T> {
    /// The end offset (one past the last record) of each partition with a record in the
    /// micro-batch.
    pub(crate) ends: BTreeMap<u32, i64>,
    /// The source position of the newest change of each of these partitions at its end, for records
    /// that carry source positions.
    pub(crate) positions: BTreeMap<u32, SourcePosition>,
    /// The decoded rows, as the operator sends them.
    pub(crate) items: Vec<T>,
    /// Records that could not be decoded; they become dead letters.
    pub(crate) refusals: Vec<Refusal>,
    /// The number of records, with refused and duplicate ones.
    pub(crate) records: usize,
    /// Bytes of the records' keys and values.
    pub(crate) bytes: usize,
    /// The number of records that were dropped as duplicates.
    pub(crate) duplicates: usize,
    /// The commit times of the records.
    pub(crate) commits: Commits,
}

/// Which partitions of a topic a worker owns: (partition + source index) modulo the workers.
pub(crate) struct Assigned {
    /// The log that is read.
    pub(crate) log: Arc<dyn Log>,
    /// The topic.
    pub(crate) topic: String,
    /// The source's index in the plan. It spreads topics with one partition over the workers.
    pub(crate) source: usize,
    /// This worker's index.
    pub(crate) worker: usize,
    /// The number of workers of the job.
    pub(crate) workers: usize,
}

impl Assigned {
    /// Those of the partitions `held` that this worker owns, each with its first offset.
    fn own<'a>(&self, held: impl Iterator<Item = &'a Held>) -> Vec<(u32, i64)> {
        let own =
            |held: &&Held| (held.partition as usize + self.source) % self.workers == self.worker;
        held.filter(own)
            .map(|held| (held.partition, held.low))
            .collect()
    }
}

/// A callback for the arrival of records.
type Wake = Arc<dyn Fn() + Send + Sync>;

/// The partitions of one topic that one worker owns.
pub(crate) struct Partitions<G: RecordBatcher> {
    /// The topic and the worker's share of it.
    assigned: Assigned,
    /// One reader for the partitions that existed at the start, and one more for each later
    /// addition.
    readers: Vec<Box<dyn Reader>>,
    /// Called when records arrive.
    wake: Option<Wake>,
    /// Whether every reader calls for every arrival.
    woken: bool,
    /// Decodes records.
    batcher: G,
    /// The next offset of each owned partition. Everything below is in a micro-batch or released.
    positions: BTreeMap<u32, i64>,
    /// Records that were read beyond the epoch being replayed, by partition.
    ahead: BTreeMap<u32, VecDeque<OwnedRecord>>,
    /// Micro-batches that wait for their epoch, oldest first.
    waiting: VecDeque<MicroBatch<G::Item>>,
}

impl<G: RecordBatcher> Partitions<G> {
    /// Opens this worker's share of the partitions; `positions` are the source positions of the
    /// newest changes before the offset at which each partition begins.
    ///
    /// # Errors
    /// As `Log::reader`.
    pub(crate) fn open(
        assigned: Assigned,
        held: &[Held],
        positions: BTreeMap<u32, SourcePosition>,
        mut batcher: G,
    ) -> Result<Self> {
        if let Some(newest) = batcher.newest() {
            newest.begin(positions);
        }
        let mut partitions = Self {
            assigned,
            readers: Vec::new(),
            wake: None,
            woken: true,
            batcher,
            positions: BTreeMap::new(),
            ahead: BTreeMap::new(),
            waiting: VecDeque::new(),
        };
        partitions.add(held)?;
        Ok(partitions)
    }

    /// Opens this worker's share of partitions that were added to the topic. Known ones are
    /// skipped.
    ///
    /// # Errors
    /// As `Log::reader`.
    pub(crate) fn add(&mut self, held: &[Held]) -> Result<()> {
        let known = |held: &&Held| self.positions.contains_key(&held.partition);
        let from = self.assigned.own(held.iter().filter(|held| !known(held)));
        if from.is_empty() {
            return Ok(());
        }
        let mut reader = self.assigned.log.reader(&self.assigned.topic, &from)?;
        if let Some(wake) = &self.wake {
            self.woken &= reader.on_arrival(Arc::clone(wake));
        }
        self.readers.push(reader);
        self.positions.extend(from);
        Ok(())
    }

    /// The topic.
    pub(crate) fn topic(&self) -> &str {
        &self.assigned.topic
    }

    /// The number of records that wait for their epoch, and their bytes.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let cuts = self.waiting.iter();
        cuts.fold((0, 0), |(records, bytes), cut| {
            (records + cut.records, bytes + cut.bytes)
        })
    }

    /// Sets the callback for the arrival of records.
    pub(crate) fn on_arrival(&mut self, wake: Wake) {
        for reader in &mut self.readers {
            self.woken &= reader.on_arrival(Arc::clone(&wake));
        }
        self.wake = Some(wake);
    }

    /// Fingerprints by schema id of schemas that no run has read records with so far.
    pub(crate) fn noted(&mut self) -> BTreeMap<u32, i64> {
        self.batcher.noted()
    }

    /// Whether the callback is called for every record that arrives, so that polling is not needed.
    pub(crate) fn is_woken(&self) -> bool {
        self.woken
    }

    /// Reads what the log has, up to a limit, into one more waiting micro-batch; `None` if there
    /// was nothing.
    ///
    /// # Errors
    /// Errors of the log and of the decoder. The job ends with them.
    pub(crate) fn read(&mut self) -> Result<Option<&MicroBatch<G::Item>>> {
        let mut last = BTreeMap::new();
        for (_, records) in std::mem::take(&mut self.ahead) {
            for record in records {
                last.insert(record.partition, record.offset + 1);
                self.batcher.push(record_batcher::borrowed(&record));
            }
        }
        for reader in &mut self.readers {
            let batcher = &mut self.batcher;
            let mut current: Option<(u32, i64)> = None;
            let (mut records, mut bytes) = (0, 0);
            while records < RECORDS_PER_POLL_MAX && bytes < BYTES_PER_POLL_MAX {
                let read = reader.poll(RECORDS_PER_LOOK, Duration::ZERO, &mut |record| {
                    match &mut current {
                        Some((partition, end)) if *partition == record.partition => {
                            *end = record.offset + 1;
                        }
                        _ => {
                            last.extend(current);
                            current = Some((record.partition, record.offset + 1));
                        }
                    }
                    bytes += record.value.map_or(0, <[u8]>::len);
                    batcher.push(record);
                })?;
                records += read;
                if read < RECORDS_PER_LOOK {
                    break;
                }
            }
            last.extend(current);
        }
        if last.is_empty() {
            return Ok(None);
        }
        self.positions
            .extend(last.iter().map(|(partition, end)| (*partition, *end)));
        let cut = self.cut(last)?;
        self.waiting.push_back(cut);
        Ok(self.waiting.back())
    }

    /// Reads towards the end offsets of an epoch that an earlier run bound. Returns the micro-batch
    /// when all of the epoch was read, and `None` when more must be read.
    ///
    /// # Errors
    /// Errors of the log and of the decoder. The job ends with them.
    pub(crate) fn replay(&mut self, binding: &Binding) -> Result<Option<MicroBatch<G::Item>>> {
        let empty = BTreeMap::new();
        let all = binding.ends.get(&self.assigned.topic).unwrap_or(&empty);
        let ends: BTreeMap<u32, i64> = all
            .iter()
            .filter(|(partition, _)| self.positions.contains_key(partition))
            .map(|(partition, end)| (*partition, *end))
            .collect();
        if let Some(newest) = self.batcher.newest() {
            newest.replay(binding, &self.assigned.topic, &ends);
        }
        self.take_ahead(&ends);
        let mut readers = std::mem::take(&mut self.readers);
        for reader in &mut readers {
            if self.reached(&ends) {
                break;
            }
            let (batcher, ahead, positions) =
                (&mut self.batcher, &mut self.ahead, &mut self.positions);
            reader.poll(RECORDS_PER_POLL_MAX, Duration::ZERO, &mut |record| {
                let end = ends.get(&record.partition).copied().unwrap_or(i64::MIN);
                if record.offset < end {
                    positions.insert(record.partition, record.offset + 1);
                    batcher.push(record);
                } else {
                    ahead
                        .entry(record.partition)
                        .or_default()
                        .push_back(record_batcher::owned(&record));
                }
            })?;
        }
        self.readers = readers;
        if self.reached(&ends) {
            // Offsets may have gaps (compaction, transactions), so everything below the end counts
            // as read.
            self.positions
                .extend(ends.iter().map(|(partition, end)| (*partition, *end)));
            if let Some(newest) = self.batcher.newest() {
                newest.replayed(binding, &self.assigned.topic, &ends);
            }
            return self.cut(ends).map(Some);
        }
        Ok(None)
    }

    /// Takes records of the epoch being replayed from those that were read too early.
    fn take_ahead(&mut self, ends: &BTreeMap<u32, i64>) {
        for (partition, end) in ends {
            let Some(records) = self.ahead.get_mut(partition) else {
                continue;
            };
            while let Some(record) = records.front()
                && record.offset < *end
            {
                self.positions.insert(*partition, record.offset + 1);
                self.batcher.push(record_batcher::borrowed(record));
                records.pop_front();
            }
        }
        self.ahead.retain(|_, records| !records.is_empty());
    }

    /// Whether every partition has been read through its end offset.
    fn reached(&self, ends: &BTreeMap<u32, i64>) -> bool {
        ends.iter().all(|(partition, end)| {
            self.ahead.contains_key(partition)
                || self
                    .positions
                    .get(partition)
                    .is_some_and(|position| position >= end)
        })
    }

    /// Closes the micro-batch of everything decoded since the last one.
    fn cut(&mut self, ends: BTreeMap<u32, i64>) -> Result<MicroBatch<G::Item>> {
        let batched = self.batcher.finish()?;
        let newest = self.batcher.newest();
        let positions = newest.map_or_else(BTreeMap::new, |newest| newest.at(ends.keys()));
        let mut refusals = batched.refusals;
        refusals
            .iter_mut()
            .for_each(|refusal| refusal.topic.clone_from(&self.assigned.topic));
        Ok(MicroBatch {
            ends,
            positions,
            items: batched.items,
            refusals,
            records: batched.records,
            bytes: batched.bytes,
            duplicates: batched.duplicates,
            commits: batched.commits,
        })
    }

    /// Takes the waiting micro-batches that a bound epoch contains.
    pub(crate) fn release(&mut self, binding: &Binding) -> Vec<MicroBatch<G::Item>> {
        let Some(bound) = binding.ends.get(&self.assigned.topic) else {
            return Vec::new();
        };
        let mut released = Vec::new();
        while let Some(cut) = self.waiting.front() {
            // The binder binds offsets that were reported, and each report covers a whole
            // micro-batch.
            let whole = cut
                .ends
                .iter()
                .all(|(p, end)| bound.get(p).is_some_and(|b| b >= end));
            if !whole {
                break;
            }
            released.extend(self.waiting.pop_front());
        }
        released
    }
}
