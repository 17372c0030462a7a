//! The partitions that a worker owns: read, decoded and held back until their epoch is bound.
//!
//! A worker reads ahead of the binder. What it has decoded it keeps as [`Cut`]s, and reports how
//! far each partition got; when an epoch comes back from the binder, the cuts at or below its ends
//! are released. While epochs of an earlier run are replayed the order is turned round: the ends
//! are known first, and cuts are made exactly at them, so that a replay is identical.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tidemill_log::log::{Log, OwnedRecord, Reader};

use crate::Result;
use crate::context::Refusal;
use crate::journal::Binding;
use crate::time::commits::Commits;
use crate::time::messages::Held;
use crate::value::source_position::SourcePosition;

use super::record_batcher::{self, Gather};

/// Most records read in one go: bounds a batch, and how long a worker does not step.
pub(crate) const RECORDS_PER_POLL_MAX: usize = 32_768;
/// Bytes of records after which no more are read in one go.
const BYTES_PER_POLL_MAX: usize = 8 << 20;
/// Records between two looks at those bytes.
const RECORDS_PER_LOOK: usize = 1_024;

/// Decoded records that belong to one epoch as a whole.
pub(crate) struct Cut<T> {
    /// One past the last record, of every partition that has a record in it.
    pub(crate) ends: BTreeMap<u32, i64>,
    /// The newest change of each of these partitions there, where their records have places.
    pub(crate) places: BTreeMap<u32, SourcePosition>,
    /// What the records became.
    pub(crate) items: Vec<T>,
    /// Records that could not be decoded.
    pub(crate) refusals: Vec<Refusal>,
    /// Records in all.
    pub(crate) records: usize,
    /// Bytes of their keys and values.
    pub(crate) bytes: usize,
    /// Of the records, those that were dropped as copies of earlier ones.
    pub(crate) copies: usize,
    /// When its records were committed.
    pub(crate) commits: Commits,
}

/// Which partitions of a topic a worker owns, and how it reads them.
pub(crate) struct Assigned {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) topic: String,
    /// The source's index in the plan, so that topics of one partition go to several workers.
    pub(crate) source: usize,
    pub(crate) worker: usize,
    pub(crate) workers: usize,
}

impl Assigned {
    /// The partitions of `held` that are this worker's, with where each begins.
    fn own<'a>(&self, held: impl Iterator<Item = &'a Held>) -> Vec<(u32, i64)> {
        let own =
            |held: &&Held| (held.partition as usize + self.source) % self.workers == self.worker;
        held.filter(own)
            .map(|held| (held.partition, held.low))
            .collect()
    }
}

/// Something to call when records arrive.
type Wake = Arc<dyn Fn() + Send + Sync>;

/// One worker's partitions of one topic.
pub(crate) struct Partitions<G: Gather> {
    assigned: Assigned,
    /// One of the partitions that were there at the start, and one each time some were added.
    readers: Vec<Box<dyn Reader>>,
    wake: Option<Wake>,
    /// No reader misses an arrival.
    woken: bool,
    gather: G,
    /// The next offset of each owned partition: everything below it is in a cut or released.
    positions: BTreeMap<u32, i64>,
    /// Records read beyond the epoch being replayed.
    ahead: BTreeMap<u32, VecDeque<OwnedRecord>>,
    /// Cuts that wait for their epoch, oldest first.
    waiting: VecDeque<Cut<G::Item>>,
}

impl<G: Gather> Partitions<G> {
    /// This worker's share of the partitions that are there; `places` are the newest changes before
    /// where each begins.
    pub(crate) fn open(
        assigned: Assigned,
        held: &[Held],
        places: BTreeMap<u32, SourcePosition>,
        mut gather: G,
    ) -> Result<Self> {
        if let Some(newest) = gather.newest() {
            newest.begin(places);
        }
        let mut partitions = Self {
            assigned,
            readers: Vec::new(),
            wake: None,
            woken: true,
            gather,
            positions: BTreeMap::new(),
            ahead: BTreeMap::new(),
            waiting: VecDeque::new(),
        };
        partitions.add(held)?;
        Ok(partitions)
    }

    /// Takes this worker's share of partitions that were added.
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

    pub(crate) fn topic(&self) -> &str {
        &self.assigned.topic
    }

    /// Records waiting for their epoch, and their bytes.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let cuts = self.waiting.iter();
        cuts.fold((0, 0), |(records, bytes), cut| {
            (records + cut.records, bytes + cut.bytes)
        })
    }

    /// Asks for a call when records arrive.
    pub(crate) fn on_arrival(&mut self, wake: Wake) {
        for reader in &mut self.readers {
            self.woken &= reader.on_arrival(Arc::clone(&wake));
        }
        self.wake = Some(wake);
    }

    /// The schemas that no run read records with so far, by their ids.
    pub(crate) fn noted(&mut self) -> BTreeMap<u32, i64> {
        self.gather.noted()
    }

    /// Whether a call comes for every record that arrives.
    pub(crate) fn is_woken(&self) -> bool {
        self.woken
    }

    /// Reads what is there, up to a limit, into one more waiting cut. None when nothing was.
    pub(crate) fn read(&mut self) -> Result<Option<&Cut<G::Item>>> {
        let mut last = BTreeMap::new();
        for (_, records) in std::mem::take(&mut self.ahead) {
            for record in records {
                last.insert(record.partition, record.offset + 1);
                self.gather.push(record_batcher::borrowed(&record));
            }
        }
        for reader in &mut self.readers {
            let gather = &mut self.gather;
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
                    gather.push(record);
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

    /// Reads towards the ends of an epoch that an earlier run bound. The cut when all of it was
    /// read; none when more is to come.
    pub(crate) fn replay(&mut self, binding: &Binding) -> Result<Option<Cut<G::Item>>> {
        let empty = BTreeMap::new();
        let all = binding.ends.get(&self.assigned.topic).unwrap_or(&empty);
        let ends: BTreeMap<u32, i64> = all
            .iter()
            .filter(|(partition, _)| self.positions.contains_key(partition))
            .map(|(partition, end)| (*partition, *end))
            .collect();
        if let Some(newest) = self.gather.newest() {
            newest.replay(binding, &self.assigned.topic, &ends);
        }
        self.take_ahead(&ends);
        let mut readers = std::mem::take(&mut self.readers);
        for reader in &mut readers {
            if self.reached(&ends) {
                break;
            }
            let (gather, ahead, positions) =
                (&mut self.gather, &mut self.ahead, &mut self.positions);
            reader.poll(RECORDS_PER_POLL_MAX, Duration::ZERO, &mut |record| {
                let end = ends.get(&record.partition).copied().unwrap_or(i64::MIN);
                if record.offset < end {
                    positions.insert(record.partition, record.offset + 1);
                    gather.push(record);
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
            // Offsets may have gaps (compaction, transactions): what is below the end is done.
            self.positions
                .extend(ends.iter().map(|(partition, end)| (*partition, *end)));
            if let Some(newest) = self.gather.newest() {
                newest.replayed(binding, &self.assigned.topic, &ends);
            }
            return self.cut(ends).map(Some);
        }
        Ok(None)
    }

    fn take_ahead(&mut self, ends: &BTreeMap<u32, i64>) {
        for (partition, end) in ends {
            let Some(records) = self.ahead.get_mut(partition) else {
                continue;
            };
            while let Some(record) = records.front()
                && record.offset < *end
            {
                self.positions.insert(*partition, record.offset + 1);
                self.gather.push(record_batcher::borrowed(record));
                records.pop_front();
            }
        }
        self.ahead.retain(|_, records| !records.is_empty());
    }

    fn reached(&self, ends: &BTreeMap<u32, i64>) -> bool {
        ends.iter().all(|(partition, end)| {
            self.ahead.contains_key(partition)
                || self
                    .positions
                    .get(partition)
                    .is_some_and(|position| position >= end)
        })
    }

    fn cut(&mut self, ends: BTreeMap<u32, i64>) -> Result<Cut<G::Item>> {
        let gathered = self.gather.finish()?;
        let newest = self.gather.newest();
        let places = newest.map_or_else(BTreeMap::new, |newest| newest.at(ends.keys()));
        let mut refusals = gathered.refusals;
        refusals
            .iter_mut()
            .for_each(|refusal| refusal.topic.clone_from(&self.assigned.topic));
        Ok(Cut {
            ends,
            places,
            items: gathered.items,
            refusals,
            records: gathered.records,
            bytes: gathered.bytes,
            copies: gathered.copies,
            commits: gathered.commits,
        })
    }

    /// Takes the waiting cuts that a bound epoch holds.
    pub(crate) fn release(&mut self, binding: &Binding) -> Vec<Cut<G::Item>> {
        let Some(bound) = binding.ends.get(&self.assigned.topic) else {
            return Vec::new();
        };
        let mut released = Vec::new();
        while let Some(cut) = self.waiting.front() {
            // The binder binds what was reported, and reports are made of whole cuts.
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
