//! Sources: the partitions that a worker owns, read, decoded and held back until their epoch is
//! bound.
//!
//! A worker reads ahead of the binder. What it has decoded it keeps as [`Cut`]s, and reports how
//! far each partition got; when an epoch comes back from the binder, the cuts at or below its ends
//! are released. While epochs of an earlier run are replayed the order is turned round: the ends
//! are known first, and cuts are made exactly at them, so that a replay is identical.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tidemill_log::log::{OwnedRecord, Reader};

use crate::Result;
use crate::journal::Binding;
use crate::render::context::Refusal;

pub(crate) mod gather;
pub(crate) mod operator;

use gather::Gather;

/// Most records read in one go: bounds a batch, and how long a worker does not step.
pub(crate) const RECORDS_PER_POLL_MAX: usize = 32_768;

/// Decoded records that belong to one epoch as a whole.
pub(crate) struct Cut<T> {
    /// One past the last record, of every partition that has a record in it.
    pub(crate) ends: BTreeMap<u32, i64>,
    /// What the records became.
    pub(crate) items: Vec<T>,
    /// Records that could not be decoded.
    pub(crate) refusals: Vec<Refusal>,
    /// Records in all.
    pub(crate) records: usize,
    /// Timestamps of the oldest and newest record.
    pub(crate) span_ms: Option<(i64, i64)>,
}

/// One worker's partitions of one topic.
pub(crate) struct Partitions<G: Gather> {
    topic: String,
    reader: Option<Box<dyn Reader>>,
    gather: G,
    /// The next offset of each owned partition: everything below it is in a cut or released.
    positions: BTreeMap<u32, i64>,
    /// Records read beyond the epoch being replayed.
    ahead: BTreeMap<u32, VecDeque<OwnedRecord>>,
    /// Cuts that wait for their epoch, oldest first.
    waiting: VecDeque<Cut<G::Item>>,
}

impl<G: Gather> Partitions<G> {
    /// Partitions with where each starts; `reader` reads just them (none when there are none).
    pub(crate) fn new(
        topic: &str,
        reader: Option<Box<dyn Reader>>,
        from: &[(u32, i64)],
        gather: G,
    ) -> Self {
        Self {
            topic: topic.to_owned(),
            reader,
            gather,
            positions: from.iter().copied().collect(),
            ahead: BTreeMap::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Records waiting for their epoch.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.iter().map(|cut| cut.records).sum()
    }

    /// Asks for a call when records arrive.
    pub(crate) fn on_arrival(&mut self, wake: Arc<dyn Fn() + Send + Sync>) {
        if let Some(reader) = &mut self.reader {
            reader.on_arrival(wake);
        }
    }

    /// Reads what is there, up to a limit, into one more waiting cut. None when nothing was.
    pub(crate) fn read(&mut self) -> Result<Option<&Cut<G::Item>>> {
        let mut last = BTreeMap::new();
        for (_, records) in std::mem::take(&mut self.ahead) {
            for record in records {
                last.insert(record.partition, record.offset + 1);
                self.gather.push(gather::borrowed(&record));
            }
        }
        if let Some(reader) = &mut self.reader {
            let gather = &mut self.gather;
            let mut current: Option<(u32, i64)> = None;
            reader.poll(RECORDS_PER_POLL_MAX, Duration::ZERO, &mut |record| {
                match &mut current {
                    Some((partition, end)) if *partition == record.partition => {
                        *end = record.offset + 1;
                    }
                    _ => {
                        last.extend(current);
                        current = Some((record.partition, record.offset + 1));
                    }
                }
                gather.push(record);
            })?;
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
        let all = binding.ends.get(&self.topic).unwrap_or(&empty);
        let ends: BTreeMap<u32, i64> = all
            .iter()
            .filter(|(partition, _)| self.positions.contains_key(partition))
            .map(|(partition, end)| (*partition, *end))
            .collect();
        self.take_ahead(&ends);
        if !self.reached(&ends)
            && let Some(reader) = &mut self.reader
        {
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
                        .push_back(gather::owned(&record));
                }
            })?;
        }
        if self.reached(&ends) {
            // Offsets may have gaps (compaction, transactions): what is below the end is done.
            self.positions
                .extend(ends.iter().map(|(partition, end)| (*partition, *end)));
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
                self.gather.push(gather::borrowed(record));
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
        let mut refusals = gathered.refusals;
        refusals
            .iter_mut()
            .for_each(|refusal| refusal.topic.clone_from(&self.topic));
        Ok(Cut {
            ends,
            items: gathered.items,
            refusals,
            records: gathered.records,
            span_ms: gathered.span_ms,
        })
    }

    /// Takes the waiting cuts that a bound epoch holds.
    pub(crate) fn release(&mut self, binding: &Binding) -> Vec<Cut<G::Item>> {
        let Some(bound) = binding.ends.get(&self.topic) else {
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
