//! State entries of a site, and how changes add up to state.
//!
//! An entry is a key, a value under this key, and a change. State is the sum of all changes that
//! were ever made. Sites differ only in how their changes add up ([`Change`]).
//!
//! Entries are encoded one after the other in postcard's wire format
//! (<https://postcard.jamesmunns.com/wire-format>), in which equal keys and values are equal bytes.
//! Therefore entries are added up in their encoded form, one shard at a time ([`Sums`]). The lookup
//! table of one shard fits the processor's cache, and no row is copied.

use std::marker::PhantomData;

use differential_dataflow::difference::{IsZero, Semigroup};
use hashbrown::HashMap;
use hashbrown::hash_map::Entry as Slot;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tidemill_ir::row::Row;
use tidemill_log::{Error, Kind, Result};

use crate::value::source_position::ChangeOrder;
use crate::value::totals::Totals;

/// The number of shards of a site's state. The shard is the top 8 bits of the key's hash. Workers
/// share the shards, so a restart may use another number of workers than the run that wrote them.
pub(super) const SHARDS: usize = 256;

/// How the changes of a site add up. The names are written into files, so they never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sum {
    /// Multisets of rows: the change is an [`isize`] that is added to the row's count.
    Counts,
    /// Aggregates: the change is added to a group's [`Totals`].
    Totals,
    /// The last row of a key wins: [`Latest`].
    Latest,
}

/// A change of one entry.
pub trait Change: Clone + Serialize + DeserializeOwned + Send + 'static {
    /// How changes of this type add up.
    const SUM: Sum;
    /// Adds a change that came after this one.
    fn then(&mut self, later: Self);
    /// Whether the sum is nothing, so that its entry can be left out. `whole` says that the sum
    /// contains all earlier changes of the entry.
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

/// The newest state of a key, and the partition that it came from. The variants are encoded by
/// their order, so the order never changes. Earlier versions wrote the first two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Latest {
    /// The key has no row.
    Nothing,
    /// A row, from this partition, of a record without a source position.
    Row(u32, Row),
    /// A row, or its deletion, with the order of the change. A deletion is kept because an older
    /// change of the key may still arrive from another partition.
    Ranked(u32, ChangeOrder, Option<Row>),
    /// The key is in error: its newest change could not be published, or could not be decoded.
    Refused(u32, ChangeOrder),
    /// The key is in error, and has a [`crate::value::partial`] row.
    Partial(u32, ChangeOrder, Row),
}

impl Change for Latest {
    const SUM: Sum = Sum::Latest;
    fn then(&mut self, later: Self) {
        *self = later;
    }
    fn is_nothing(&self, whole: bool) -> bool {
        whole && *self == Latest::Nothing
    }
}

/// A key, a value under it (empty where the key says everything), and a change of the two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<C> {
    /// The key, encoded.
    pub key: Row,
    /// The value, encoded.
    pub value: Row,
    /// How the number of the pair, or its value, changes.
    pub change: C,
}

/// Changes that wait for the next checkpoint: encoded when they arrive, by shard.
pub struct Changes<C> {
    /// One per shard, by shard number.
    shards: Vec<Waiting>,
    /// The type of the changes.
    change: PhantomData<C>,
}

/// Changes of one shard.
#[derive(Default)]
struct Waiting {
    /// The encoded entries.
    block: Block,
    /// The size of the block, in bytes, after it was last added up.
    left: usize,
}

/// A shard's changes are not added up before they have this many bytes.
const WAITING_BYTES: usize = 16 * 1024;

impl<C> Default for Changes<C> {
    fn default() -> Self {
        Self {
            shards: Vec::new(),
            change: PhantomData,
        }
    }
}

impl<C: Change> Changes<C> {
    /// Takes in a change. The changes of a shard are added up whenever their size has doubled.
    /// Therefore repeated changes of the same entries take at most about twice the room of these
    /// entries.
    ///
    /// # Errors
    /// `Bug` when the change cannot be encoded.
    pub fn add(&mut self, key: &Row, value: &Row, change: &C) -> Result<()> {
        if self.shards.is_empty() {
            self.shards.resize_with(SHARDS, Waiting::default);
        }
        let Some(waiting) = self.shards.get_mut(shard(key)) else {
            return Ok(());
        };
        waiting.block.push(key, value, change)?;
        if waiting.block.bytes.len() >= 2 * waiting.left.max(WAITING_BYTES / 2) {
            let all = std::iter::once(waiting.block.bytes.as_slice());
            waiting.block = added_up::<C>(all, false)?;
            waiting.left = waiting.block.bytes.len();
        }
        Ok(())
    }

    /// The blocks of all shards, by shard, not completely added up; none if there were no changes.
    pub fn into_blocks(self) -> Vec<Block> {
        self.shards.into_iter().map(|one| one.block).collect()
    }
}

/// The shard of a key: the top 8 bits of its hash.
fn shard(key: &Row) -> usize {
    (key.shard() >> 56) as usize
}

/// The error of an entry that cannot be encoded or decoded.
pub(super) fn bug(error: postcard::Error) -> Error {
    Error::with_source(Kind::Bug, "a checkpoint's entry", error)
}

/// Encoded entries of one shard.
#[derive(Debug, Clone, Default)]
pub struct Block {
    /// The number of entries.
    pub(super) entries: u64,
    /// The entries, encoded one after the other.
    pub(super) bytes: Vec<u8>,
}

impl Block {
    /// Encodes an entry at the end of the block.
    fn push<C: Change>(&mut self, key: &Row, value: &Row, change: &C) -> Result<()> {
        let bytes = std::mem::take(&mut self.bytes);
        self.bytes = postcard::to_extend(&(key, value, change), bytes).map_err(bug)?;
        self.entries += 1;
        Ok(())
    }

    /// Appends entries that came later.
    pub(super) fn append(&mut self, other: Block) {
        self.entries += other.entries;
        if self.bytes.is_empty() {
            self.bytes = other.bytes;
        } else {
            self.bytes.extend(other.bytes);
        }
    }
}

/// Encoded entries, added up by key and value in a hash table.
pub(super) struct Sums<'a, C>(HashMap<&'a [u8], C>);

impl<C> Default for Sums<'_, C> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<'a, C: Change> Sums<'a, C> {
    /// Takes in encoded entries, which must be newer than all entries before.
    ///
    /// # Errors
    /// The entries cannot be decoded.
    pub(super) fn add(&mut self, mut bytes: &'a [u8]) -> std::result::Result<(), postcard::Error> {
        while !bytes.is_empty() {
            let (_, rest) = postcard::take_from_bytes::<(&[u8], &[u8])>(bytes)?;
            let key = bytes.get(..bytes.len() - rest.len()).unwrap_or_default();
            let (change, rest) = postcard::take_from_bytes::<C>(rest)?;
            match self.0.entry(key) {
                Slot::Occupied(mut known) => known.get_mut().then(change),
                Slot::Vacant(slot) => drop(slot.insert(change)),
            }
            bytes = rest;
        }
        Ok(())
    }

    /// The entries whose sum is not nothing; `whole` says that they contain all earlier changes.
    ///
    /// # Errors
    /// `Bug` when an entry cannot be encoded.
    pub(super) fn into_block(self, whole: bool) -> Result<Block> {
        let mut block = Block::default();
        for (key, change) in self.0 {
            if !change.is_nothing(whole) {
                block.bytes.extend(key);
                block.bytes = postcard::to_extend(&change, block.bytes).map_err(bug)?;
                block.entries += 1;
            }
        }
        Ok(block)
    }
}

/// Adds up encoded entries of a shard, given from the oldest on.
///
/// # Errors
/// `Bug` when an entry cannot be decoded.
pub(super) fn add_up<'a>(
    sum: Sum,
    blocks: impl Iterator<Item = &'a [u8]>,
    whole: bool,
) -> Result<Block> {
    match sum {
        Sum::Counts => added_up::<isize>(blocks, whole),
        Sum::Totals => added_up::<Totals>(blocks, whole),
        Sum::Latest => added_up::<Latest>(blocks, whole),
    }
}

/// Adds up the entries of encoded blocks, which are given oldest first.
fn added_up<'a, C: Change>(blocks: impl Iterator<Item = &'a [u8]>, whole: bool) -> Result<Block> {
    let mut sums = Sums::<C>::default();
    for bytes in blocks {
        sums.add(bytes).map_err(bug)?;
    }
    sums.into_block(whole)
}
