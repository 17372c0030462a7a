//! Reading a site's state back: the runs' entries shard by shard, added up.

use std::ops::Range;
use std::sync::Arc;

use super::change::{Change, Changes, Entry, SHARDS, decode};
use super::part::{OpenPart, damaged};
use super::{Run, State};
use crate::store::Store;
use crate::{Error, Kind, Result};

/// Bytes that are read and added up in one go, unless one shard alone has more.
const STEP_BYTES: u64 = 4 * 1024 * 1024;

/// Some shards of a site, read a step at a time.
pub(crate) struct Reader<C> {
    store: Arc<dyn Store>,
    runs: Vec<Vec<OpenPart>>,
    shards: Range<usize>,
    /// Whether the first run is the site's first, so that nothing came before.
    whole: bool,
    changes: std::marker::PhantomData<C>,
}

impl<C: Change> Reader<C> {
    /// The share of worker `index` of `peers`.
    pub(crate) fn share(
        store: Arc<dyn Store>,
        state: &State,
        index: usize,
        peers: usize,
    ) -> Result<Self> {
        if state.sum != C::SUM {
            let what = "a checkpoint holds another kind of state than its site";
            return Err(Error::new(Kind::Bug, what));
        }
        let shards = index * SHARDS / peers..(index + 1) * SHARDS / peers;
        Self::open(store, &state.runs, shards, true)
    }

    pub(super) fn open(
        store: Arc<dyn Store>,
        runs: &[Run],
        shards: Range<usize>,
        whole: bool,
    ) -> Result<Self> {
        let open = |run: &Run| {
            let wanted = run.parts.iter().filter(|part| {
                let (first, last) = part.shards;
                usize::from(first) < shards.end && usize::from(last) >= shards.start
            });
            wanted
                .map(|part| OpenPart::open(&*store, part, C::SUM))
                .collect()
        };
        let runs = runs.iter().map(open).collect::<Result<_>>()?;
        Ok(Self {
            store,
            runs,
            shards,
            whole,
            changes: std::marker::PhantomData,
        })
    }

    /// The entries of the next few shards; none after the last.
    pub(crate) fn step(&mut self) -> Result<Option<Vec<Entry<C>>>> {
        if self.shards.is_empty() {
            return Ok(None);
        }
        let first = self.shards.start;
        let mut bytes = 0;
        while let Some(shard) = self.shards.next() {
            bytes += self.size(shard);
            if bytes + self.size(self.shards.start) > STEP_BYTES {
                break;
            }
        }
        let shards = first..self.shards.start;
        let mut changes = Changes::<C>::default();
        for part in self.runs.iter().flatten() {
            let bytes = part.read(&*self.store, shards.clone())?;
            decode(&bytes, |entry| changes.push(entry))
                .map_err(|error| damaged(part.name(), &error.to_string()))?;
        }
        Ok(Some(changes.into_entries(self.whole).collect()))
    }

    fn size(&self, shard: usize) -> u64 {
        let parts = self.runs.iter().flatten();
        parts.map(|part| part.size(shard)).sum()
    }
}
