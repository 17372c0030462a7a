//! What a site's state is made of: entries that changes add up to.
//!
//! An entry is a key, a value within it and a change. State is the sum of all changes ever made;
//! how changes add up is the one thing in which sites differ ([`Change`]). Entries are encoded one
//! after the other in postcard's wire format (<https://postcard.jamesmunns.com/wire-format>).

use differential_dataflow::difference::{IsZero, Semigroup};
use hashbrown::HashMap;
use hashbrown::hash_map::Entry as Slot;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::render::Totals;
use crate::row::Row;
use crate::{Error, Kind, Result};

/// Shards that state is cut into, by the high bits of its key's hash. Any number of workers share
/// them, so the number of workers may differ from that of the run that wrote them.
pub(super) const SHARDS: usize = 256;

/// How the changes of a site add up; written into its files, so numbers never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Sum {
    /// Rows counted: [`isize`].
    Counts,
    /// Aggregates: [`Totals`].
    Totals,
    /// The last row wins: [`Latest`].
    Latest,
}

/// A change of one entry.
pub(crate) trait Change: Clone + Serialize + DeserializeOwned + Send + 'static {
    /// How it adds up.
    const SUM: Sum;
    /// Adds a change that came later.
    fn then(&mut self, later: Self);
    /// Whether nothing is left; `whole` when all earlier changes are in it.
    fn is_nothing(&self, whole: bool) -> bool;
}

impl Change for isize {
    const SUM: Sum = Sum::Counts;
    fn then(&mut self, later: Self) {
        *self += later;
    }
    fn is_nothing(&self, _whole: bool) -> bool {
        *self == 0
    }
}

impl Change for Totals {
    const SUM: Sum = Sum::Totals;
    fn then(&mut self, later: Self) {
        self.plus_equals(&later);
    }
    fn is_nothing(&self, _whole: bool) -> bool {
        self.is_zero()
    }
}

/// The row of a key and the partition that it came from, or that there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Latest(pub(crate) Option<(u32, Row)>);

impl Change for Latest {
    const SUM: Sum = Sum::Latest;
    fn then(&mut self, later: Self) {
        *self = later;
    }
    fn is_nothing(&self, whole: bool) -> bool {
        whole && self.0.is_none()
    }
}

/// A key, a value within it (empty where the key says all) and what becomes of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry<C> {
    pub(crate) key: Row,
    pub(crate) value: Row,
    pub(crate) change: C,
}

/// Changes, added up by key and value.
pub(crate) struct Changes<C>(HashMap<(Row, Row), C>);

impl<C> Default for Changes<C> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<C: Change> Changes<C> {
    pub(crate) fn add(&mut self, key: &Row, value: &Row, change: C) {
        let (key, value) = (key.clone(), value.clone());
        self.push(Entry { key, value, change });
    }

    pub(super) fn push(&mut self, entry: Entry<C>) {
        match self.0.entry((entry.key, entry.value)) {
            Slot::Occupied(mut known) => known.get_mut().then(entry.change),
            Slot::Vacant(slot) => drop(slot.insert(entry.change)),
        }
    }

    /// The entries of which something is left.
    pub(super) fn into_entries(self, whole: bool) -> impl Iterator<Item = Entry<C>> {
        let left = self.0.into_iter();
        left.filter(move |(_, change)| !change.is_nothing(whole))
            .map(|((key, value), change)| Entry { key, value, change })
    }

    /// The entries by shard, encoded.
    pub(crate) fn into_shards(self) -> Result<Vec<Block>> {
        let mut blocks = vec![Block::default(); SHARDS];
        for entry in self.into_entries(false) {
            if let Some(block) = blocks.get_mut(shard(&entry.key)) {
                block.push(&entry)?;
            }
        }
        Ok(blocks)
    }
}

fn shard(key: &Row) -> usize {
    (key.shard() >> 56) as usize
}

/// Encoded entries of one shard.
#[derive(Debug, Clone, Default)]
pub(crate) struct Block {
    pub(super) entries: u64,
    pub(super) bytes: Vec<u8>,
}

impl Block {
    pub(super) fn push<C: Change>(&mut self, entry: &Entry<C>) -> Result<()> {
        let bytes = std::mem::take(&mut self.bytes);
        self.bytes = postcard::to_extend(entry, bytes)
            .map_err(|error| Error::with_source(Kind::Bug, "an entry cannot be encoded", error))?;
        self.entries += 1;
        Ok(())
    }

    pub(super) fn append(&mut self, other: Block) {
        self.entries += other.entries;
        if self.bytes.is_empty() {
            self.bytes = other.bytes;
        } else {
            self.bytes.extend(other.bytes);
        }
    }
}

/// Reads encoded entries back.
pub(super) fn decode<C: Change>(
    mut bytes: &[u8],
    mut take: impl FnMut(Entry<C>),
) -> std::result::Result<(), postcard::Error> {
    while !bytes.is_empty() {
        let (entry, rest) = postcard::take_from_bytes(bytes)?;
        take(entry);
        bytes = rest;
    }
    Ok(())
}
