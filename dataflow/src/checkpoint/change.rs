//! What a site's state is made of: entries that changes add up to.
//!
//! An entry is a key, a value within it and a change. State is the sum of all changes ever made;
//! how changes add up is the one thing in which sites differ ([`Change`]). Entries are encoded one
//! after the other in postcard's wire format (<https://postcard.jamesmunns.com/wire-format>), in
//! which equal keys and values are equal bytes. So entries are added up as they are, a shard at a
//! time ([`Sums`]): what is looked up then fits the processor's cache, and no row is copied.

use std::marker::PhantomData;

use differential_dataflow::difference::{IsZero, Semigroup};
use hashbrown::HashMap;
use hashbrown::hash_map::Entry as Slot;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::row::Row;
use crate::value::source_position::ChangeOrder;
use crate::value::totals::Totals;
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

/// What a key holds, and the partition that says so. The order is that of the numbers which the
/// variants are written as: earlier versions wrote the first two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Latest {
    /// There is none.
    Nothing,
    /// A row of a record that says nothing of its place.
    Row(u32, Row),
    /// A row, or that it was deleted: what came before that may still be read from another
    /// partition.
    Ranked(u32, ChangeOrder, Option<Row>),
    /// It has a row that could not be published, or decoded.
    Refused(u32, ChangeOrder),
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

/// A key, a value within it (empty where the key says all) and what becomes of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry<C> {
    pub(crate) key: Row,
    pub(crate) value: Row,
    pub(crate) change: C,
}

/// Changes for the next checkpoint: encoded as they come, by shard.
pub(crate) struct Changes<C> {
    shards: Vec<Waiting>,
    change: PhantomData<C>,
}

/// The changes of one shard.
#[derive(Default)]
struct Waiting {
    block: Block,
    /// Bytes that were left when they were last added up.
    left: usize,
}

/// A shard's changes are not added up before they have so many bytes.
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
    /// Takes a change. A shard's are added up when they have doubled, so that changes of the same
    /// entries over and over take no more room than twice those entries.
    pub(crate) fn add(&mut self, key: &Row, value: &Row, change: &C) -> Result<()> {
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

    /// A block a shard, not added up; none without changes.
    pub(crate) fn into_blocks(self) -> Vec<Block> {
        self.shards.into_iter().map(|one| one.block).collect()
    }
}

fn shard(key: &Row) -> usize {
    (key.shard() >> 56) as usize
}

pub(super) fn bug(error: postcard::Error) -> Error {
    Error::with_source(Kind::Bug, "a checkpoint's entry", error)
}

/// Encoded entries of one shard.
#[derive(Debug, Clone, Default)]
pub(crate) struct Block {
    pub(super) entries: u64,
    pub(super) bytes: Vec<u8>,
}

impl Block {
    fn push<C: Change>(&mut self, key: &Row, value: &Row, change: &C) -> Result<()> {
        let bytes = std::mem::take(&mut self.bytes);
        self.bytes = postcard::to_extend(&(key, value, change), bytes).map_err(bug)?;
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

/// Encoded entries, added up by key and value.
pub(super) struct Sums<'a, C>(HashMap<&'a [u8], C>);

impl<C> Default for Sums<'_, C> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<'a, C: Change> Sums<'a, C> {
    /// Takes entries that came after all that were taken before.
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

    /// The entries of which something is left; `whole` when all earlier changes are in them.
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

/// Adds up the encoded entries of a shard, from the oldest on.
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

fn added_up<'a, C: Change>(blocks: impl Iterator<Item = &'a [u8]>, whole: bool) -> Result<Block> {
    let mut sums = Sums::<C>::default();
    for bytes in blocks {
        sums.add(bytes).map_err(bug)?;
    }
    sums.into_block(whole)
}
