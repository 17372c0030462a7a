//! Reading a site's state back: the runs' entries shard by shard, added up.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use super::change::{Change, Entry, SHARDS, Sum, Sums, bug};
use super::part::{OpenPart, damaged};
use super::{Run, State};
use crate::row::Row;
use crate::store::Store;
use crate::{Error, Kind, Result};

/// Bytes that are read and added up in one go, unless one shard alone has more.
const STEP_BYTES: u64 = 4 * 1024 * 1024;

/// Entries that are handed over in one go.
const STEP_ENTRIES: usize = 16 * 1024;

/// A worker's share of a site's state. It is read shard by shard and handed over in the order of
/// keys and values: what takes it in has to sort it, and finds it sorted.
pub(crate) struct Reader<C> {
    shards: Shards,
    /// What was read so far: encoded, each key and value once.
    entries: Vec<u8>,
    sorted: Option<std::vec::IntoIter<Place>>,
    change: PhantomData<C>,
}

/// Where an entry is, with the first bytes of its key, by which nearly all are told apart.
struct Place {
    key: [u64; 2],
    at: usize,
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
        Ok(Self {
            shards: Shards::open(store, C::SUM, &state.runs, shards)?,
            entries: Vec::new(),
            sorted: None,
            change: PhantomData,
        })
    }

    /// Goes on for a moment. The next entries, which may be none yet; nothing after the last.
    pub(crate) fn step(&mut self) -> Result<Option<Vec<Entry<C>>>> {
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

    /// Adds up what several runs have of the same shards.
    fn take(&mut self, read: Vec<Read>) -> Result<()> {
        let mut sums = Sums::<C>::default();
        for (name, bytes) in &read {
            sums.add(bytes)
                .map_err(|error| damaged(name, &error.to_string()))?;
        }
        self.entries.extend(sums.into_block(true)?.bytes);
        Ok(())
    }

    fn sort(&self) -> Result<Vec<Place>> {
        let mut places = Vec::new();
        let mut rest = self.entries.as_slice();
        while !rest.is_empty() {
            let at = self.entries.len() - rest.len();
            let ((key, _), after) = names(rest)?;
            let key = [first(key), first(key.get(8..).unwrap_or_default())];
            places.push(Place { key, at });
            (_, rest) = postcard::take_from_bytes::<C>(after).map_err(bug)?;
        }
        let whole = |place: &Place| names(self.entries.get(place.at..).unwrap_or_default());
        let whole = |place: &Place| whole(place).map(|(names, _)| names).unwrap_or_default();
        places.sort_unstable_by(|a, b| a.key.cmp(&b.key).then_with(|| whole(a).cmp(&whole(b))));
        Ok(places)
    }
}

/// The first eight bytes as a number that sorts as they do.
fn first(bytes: &[u8]) -> u64 {
    let mut first = [0; 8];
    first
        .iter_mut()
        .zip(bytes)
        .for_each(|(to, byte)| *to = *byte);
    u64::from_be_bytes(first)
}

/// An entry's key and value, and what comes after them.
type Names<'a> = ((&'a [u8], &'a [u8]), &'a [u8]);

fn names(bytes: &[u8]) -> Result<Names<'_>> {
    postcard::take_from_bytes(bytes).map_err(bug)
}

fn entry<C: Change>(bytes: &[u8], at: usize) -> Result<Entry<C>> {
    let ((key, value), rest) = names(bytes.get(at..).unwrap_or_default())?;
    let (change, _) = postcard::take_from_bytes(rest).map_err(bug)?;
    let (key, value) = (Row::new(key), Row::new(value));
    Ok(Entry { key, value, change })
}

/// A part's name, and the encoded entries that were read of it.
pub(super) type Read = (String, Vec<u8>);

/// Some shards of some runs, from the first on.
pub(super) struct Shards {
    store: Arc<dyn Store>,
    runs: Vec<Vec<OpenPart>>,
    rest: Range<usize>,
}

impl Shards {
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

    /// The next shards, as many as make a step; none after the last.
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

    /// Some shards, the oldest run first.
    pub(super) fn read(&self, shards: Range<usize>) -> Result<Vec<Read>> {
        let read = |part: &OpenPart| {
            let bytes = part.read(&*self.store, shards.clone())?;
            Ok((part.name().to_owned(), bytes))
        };
        let parts = self.runs.iter().flatten();
        parts.map(read).collect()
    }

    fn size(&self, shard: usize) -> u64 {
        let parts = self.runs.iter().flatten();
        parts.map(|part| part.size(shard)).sum()
    }
}
