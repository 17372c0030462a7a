//! Restoring a site's state: the entries of all runs, added up shard by shard, in sorted order.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use tidemill_ir::row::Row;
use tidemill_log::{Error, Kind, Result};

use super::change::{Change, Entry, SHARDS, Sum, Sums, bug};
use super::part::{OpenPart, damaged};
use super::{Run, State};
use crate::store::Store;

/// Bytes that are read and added up in one step, unless a single shard has more.
const STEP_BYTES: u64 = 4 * 1024 * 1024;

/// Entries that are handed over in one step.
const STEP_ENTRIES: usize = 16 * 1024;

/// Reads a worker's share of a site's state. The share is read shard by shard, and then handed over
/// in the order of keys and values. The arrangement that takes the entries in has to sort them, and
/// finds them sorted.
///
/// Memory: all encoded entries of the share are in memory until the reader is dropped.
pub struct Reader<C> {
    /// The shards that are still to be read.
    shards: Shards,
    /// The entries that were read so far: encoded, each key and value once.
    entries: Vec<u8>,
    /// The remaining entries in sorted order; `None` while shards are being read.
    sorted: Option<std::vec::IntoIter<EntryOffset>>,
    /// The type of the changes.
    change: PhantomData<C>,
}

/// The offset of an entry, with the first 16 bytes of its key, which tell nearly all entries apart.
struct EntryOffset {
    /// The first 16 bytes of the key, so that comparing numbers orders keys.
    key: [u64; 2],
    /// The offset of the entry in the entries that were read, in bytes.
    at: usize,
}

impl<C: Change> Reader<C> {
    /// Opens the share of worker `index` of `peers`: a contiguous range of the 256 shards.
    ///
    /// # Errors
    /// `Bug` when the site's state is of another kind than `C`. Otherwise as `OpenPart::open`.
    pub fn share(store: Arc<dyn Store>, state: &State, index: usize, peers: usize) -> Result<Self> {
        if state.sum != C::SUM {
            let what = "a checkpoint holds another kind of state than its site";
            return Err(Error::new(Kind::Bug, what));
        }
        let shards = index * SHARDS / peers..(index + 1) * SHARDS / peers;
        Ok(Self {
            shards: Shards::open(store, C::SUM, &state.runs, shards)?,
            entries: Vec::new(),
            sorted: None,
            change: PhantomData,
        })
    }

    /// Does one bounded step. Returns the next entries, which may be none yet, and `None` after the
    /// last.
    ///
    /// # Errors
    /// `Data` when a part is damaged. Otherwise as the store's reads.
    pub fn step(&mut self) -> Result<Option<Vec<Entry<C>>>> {
        if let Some(read) = self.shards.next()? {
            self.take(read)?;
            return Ok(Some(Vec::new()));
        }
        let Some(sorted) = &mut self.sorted else {
            self.sorted = Some(self.sort()?.into_iter());
            return Ok(Some(Vec::new()));
        };
        let entries = sorted.take(STEP_ENTRIES);
        let entries = entries.map(|place| entry(&self.entries, place.at));
        let entries: Vec<Entry<C>> = entries.collect::<Result<_>>()?;
        Ok((!entries.is_empty()).then_some(entries))
    }

    /// Adds up the entries that several runs have of the same shards.
    fn take(&mut self, read: Vec<Read>) -> Result<()> {
        let mut sums = Sums::<C>::default();
        for (name, bytes) in &read {
            sums.add(bytes)
                .map_err(|error| damaged(name, &error.to_string()))?;
        }
        self.entries.extend(sums.into_block(true)?.bytes);
        Ok(())
    }

    /// The offsets of all entries, sorted by key and value.
    fn sort(&self) -> Result<Vec<EntryOffset>> {
        let mut places = Vec::new();
        let mut rest = self.entries.as_slice();
        while !rest.is_empty() {
            let at = self.entries.len() - rest.len();
            let ((key, _), after) = names(rest)?;
            let key = [first(key), first(key.get(8..).unwrap_or_default())];
            places.push(EntryOffset { key, at });
            (_, rest) = postcard::take_from_bytes::<C>(after).map_err(bug)?;
        }
        let whole = |place: &EntryOffset| names(self.entries.get(place.at..).unwrap_or_default());
        let whole = |place: &EntryOffset| whole(place).map(|(names, _)| names).unwrap_or_default();
        places.sort_unstable_by(|a, b| a.key.cmp(&b.key).then_with(|| whole(a).cmp(&whole(b))));
        Ok(places)
    }
}

/// The first eight bytes as a number that sorts as the bytes do.
fn first(bytes: &[u8]) -> u64 {
    let mut first = [0; 8];
    first
        .iter_mut()
        .zip(bytes)
        .for_each(|(to, byte)| *to = *byte);
    u64::from_be_bytes(first)
}

/// The key and the value of an entry, and the bytes after them.
type Names<'a> = ((&'a [u8], &'a [u8]), &'a [u8]);

/// The key and value of an entry, and the bytes after them.
fn names(bytes: &[u8]) -> Result<Names<'_>> {
    postcard::take_from_bytes(bytes).map_err(bug)
}

/// The entry at an offset of encoded entries.
fn entry<C: Change>(bytes: &[u8], at: usize) -> Result<Entry<C>> {
    let ((key, value), rest) = names(bytes.get(at..).unwrap_or_default())?;
    let (change, _) = postcard::take_from_bytes(rest).map_err(bug)?;
    let (key, value) = (Row::new(key), Row::new(value));
    Ok(Entry { key, value, change })
}

/// A part's name, and the encoded entries that were read from it.
pub(super) type Read = (String, Vec<u8>);

/// A range of shards of some runs, read in ascending order.
pub(super) struct Shards {
    /// The state store.
    store: Arc<dyn Store>,
    /// The opened parts of each run, oldest run first.
    runs: Vec<Vec<OpenPart>>,
    /// The shards that are still to be read.
    rest: Range<usize>,
}

impl Shards {
    /// Opens the parts of `runs` that have entries in `shards`.
    ///
    /// # Errors
    /// As [`OpenPart::open`].
    pub(super) fn open(
        store: Arc<dyn Store>,
        sum: Sum,
        runs: &[Run],
        shards: Range<usize>,
    ) -> Result<Self> {
        let open = |run: &Run| {
            let wanted = run.parts.iter().filter(|part| {
                let (first, last) = part.shards;
                usize::from(first) < shards.end && usize::from(last) >= shards.start
            });
            wanted
                .map(|part| OpenPart::open(&*store, part, sum))
                .collect()
        };
        let runs = runs.iter().map(open).collect::<Result<_>>()?;
        Ok(Self {
            store,
            runs,
            rest: shards,
        })
    }

    /// Reads the next shards, up to [`STEP_BYTES`]; `None` after the last.
    fn next(&mut self) -> Result<Option<Vec<Read>>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let first = self.rest.start;
        let mut bytes = 0;
        while let Some(shard) = self.rest.next() {
            bytes += self.size(shard);
            if bytes + self.size(self.rest.start) > STEP_BYTES {
                break;
            }
        }
        self.read(first..self.rest.start).map(Some)
    }

    /// Reads a range of shards from all runs, the oldest run first.
    pub(super) fn read(&self, shards: Range<usize>) -> Result<Vec<Read>> {
        let read = |part: &OpenPart| {
            let bytes = part.read(&*self.store, shards.clone())?;
            Ok((part.name().to_owned(), bytes))
        };
        let parts = self.runs.iter().flatten();
        parts.map(read).collect()
    }

    /// The size of a shard in all runs, in bytes.
    fn size(&self, shard: usize) -> u64 {
        let parts = self.runs.iter().flatten();
        parts.map(|part| part.size(shard)).sum()
    }
}
