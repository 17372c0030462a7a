//! A part: one file of state entries, cut into shards.
//!
//! ```text
//! ┌────────┬────────┬───────────────┬──────────────────┬─────────────────┬─────────┬─────────┬───
//! │ "TMCP" │ format │ header length │ header's XXH3-64 │ header          │ shard i │ shard j │ …
//! │ 4      │ u32 LE │ u32 LE, bytes │ u64 LE           │ (postcard)      │ entries │ entries │
//! └────────┴────────┴───────────────┴──────────────────┴─────────────────┴─────────┴─────────┴───
//! ```
//!
//! The header lists each shard that has entries, with their number, bytes and checksum (XXH3-64).
//! Therefore a reader of a few shards reads only those, and still detects damage in them.

use serde::{Deserialize, Serialize};
use tidemill_log::{Error, Kind, Result};
use xxhash_rust::xxh3::xxh3_64;

use super::change::{Block, SHARDS, Sum};
use super::{FORMAT_MIN, PART_FORMAT};
use crate::store::Store;

/// The first bytes of every part.
const MAGIC: &[u8; 4] = b"TMCP";
/// Bytes before the header.
const LEAD: usize = 20;

/// The description of a part in a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    /// The object's name.
    pub(crate) name: String,
    /// The object's size, in bytes.
    pub(crate) bytes: u64,
    /// The number of entries in the part.
    pub(crate) entries: u64,
    /// The offset of the first entry, in bytes: the size of everything before the entries.
    pub(crate) header: u64,
    /// The first and the last shard that have entries in the part.
    pub(crate) shards: (u8, u8),
}

/// The header of a part.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    /// How the entries add up.
    sum: Sum,
    /// The shards that have entries, by ascending number.
    shards: Vec<Shard>,
}

/// One shard of a part: its number, entries, bytes and checksum (XXH3-64 of its entries).
#[derive(Debug, Serialize, Deserialize)]
struct Shard {
    /// The shard's number.
    number: u8,
    /// The number of entries.
    entries: u64,
    /// The size of the entries, in bytes.
    bytes: u64,
    /// XXH3-64 of the entries.
    checksum: u64,
}

/// Encodes the blocks of all shards as a part called `name`; `None` if there are no entries.
///
/// # Errors
/// `Bug` when the header cannot be encoded.
pub(super) fn encode(name: String, sum: Sum, blocks: &[Block]) -> Result<Option<(Part, Vec<u8>)>> {
    let filled = (0..=u8::MAX).zip(blocks).filter(|(_, b)| b.entries > 0);
    let shards: Vec<Shard> = filled
        .map(|(number, block)| Shard {
            number,
            entries: block.entries,
            bytes: block.bytes.len() as u64,
            checksum: xxh3_64(&block.bytes),
        })
        .collect();
    let (Some(first), Some(last)) = (shards.first(), shards.last()) else {
        return Ok(None);
    };
    let numbers = (first.number, last.number);
    let header = postcard::to_allocvec(&Header { sum, shards })
        .map_err(|error| Error::with_source(Kind::Bug, "a part's header", error))?;
    let mut bytes = Vec::with_capacity(
        LEAD + header.len() + blocks.iter().map(|block| block.bytes.len()).sum::<usize>(),
    );
    bytes.extend(MAGIC);
    bytes.extend(PART_FORMAT.to_le_bytes());
    // A header has at most 256 shards of a few bytes.
    bytes.extend((header.len() as u32).to_le_bytes());
    bytes.extend(xxh3_64(&header).to_le_bytes());
    bytes.extend(&header);
    let start = bytes.len() as u64;
    blocks.iter().for_each(|block| bytes.extend(&block.bytes));
    let part = Part {
        name,
        bytes: bytes.len() as u64,
        entries: blocks.iter().map(|block| block.entries).sum(),
        header: start,
        shards: numbers,
    };
    Ok(Some((part, bytes)))
}

/// A part whose header was read and checked.
pub(super) struct OpenPart {
    /// The name of the object.
    name: String,
    /// For each shard number: its entry in the header and its offset in bytes; `None` without
    /// entries.
    shards: Vec<Option<(Shard, u64)>>,
}

impl OpenPart {
    /// Reads the header and checks it against the manifest's description.
    ///
    /// # Errors
    /// `Data` when the header is damaged, of an unknown format or of another kind of state.
    /// Otherwise as the store's reads.
    pub(super) fn open(store: &dyn Store, part: &Part, sum: Sum) -> Result<Self> {
        let name = &part.name;
        let lead = store.get_range(name, 0..part.header)?;
        let field = |range: std::ops::Range<usize>| lead.get(range);
        if field(0..4) != Some(MAGIC.as_slice()) {
            return Err(damaged(name, "it does not begin as a part does"));
        }
        let format = field(4..8).and_then(|b| b.try_into().ok());
        let format = format.map_or(0, u32::from_le_bytes);
        if !(FORMAT_MIN..=PART_FORMAT).contains(&format) {
            let what = format!("its format is {format}, not {FORMAT_MIN} to {PART_FORMAT}");
            return Err(damaged(name, &what));
        }
        let length = field(8..12).and_then(|b| b.try_into().ok());
        if length.map(u32::from_le_bytes).map(u64::from) != Some(part.header - LEAD as u64) {
            return Err(damaged(name, "its header's length is wrong"));
        }
        let checksum = field(12..LEAD).and_then(|b| b.try_into().ok());
        let header = lead.get(LEAD..).unwrap_or_default();
        if checksum.map(u64::from_le_bytes) != Some(xxh3_64(header)) {
            return Err(damaged(name, "its header's checksum is wrong"));
        }
        let header: Header =
            postcard::from_bytes(header).map_err(|error| damaged(name, &error.to_string()))?;
        if header.sum != sum {
            return Err(damaged(name, "it holds another kind of state"));
        }
        let mut shards: Vec<_> = (0..SHARDS).map(|_| None).collect();
        let mut at = part.header;
        for shard in header.shards {
            let (number, bytes) = (usize::from(shard.number), shard.bytes);
            if let Some(place) = shards.get_mut(number) {
                *place = Some((shard, at));
            }
            at += bytes;
        }
        if at != part.bytes {
            return Err(damaged(name, "its size is not what its header says"));
        }
        let name = name.clone();
        Ok(Self { name, shards })
    }

    /// The name of the object.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The size of a shard's entries, in bytes.
    pub(super) fn size(&self, shard: usize) -> u64 {
        let known = self.shards.get(shard).and_then(Option::as_ref);
        known.map_or(0, |(shard, _)| shard.bytes)
    }

    /// Reads the entries of a range of shards in one request, and compares their checksums.
    ///
    /// # Errors
    /// `Data` when a checksum is wrong or the file is cut short. Otherwise as the store's reads.
    pub(super) fn read(
        &self,
        store: &dyn Store,
        shards: std::ops::Range<usize>,
    ) -> Result<Vec<u8>> {
        let known = self.shards.get(shards).unwrap_or_default();
        let mut known = known.iter().flatten().peekable();
        let Some((_, start)) = known.peek() else {
            return Ok(Vec::new());
        };
        let start = *start;
        let end = known.clone().last().map_or(start, |(s, at)| at + s.bytes);
        let bytes = store.get_range(&self.name, start..end)?;
        let mut rest = bytes.as_slice();
        for (shard, _) in known {
            let size = usize::try_from(shard.bytes).unwrap_or(usize::MAX);
            let Some((entries, after)) = rest.split_at_checked(size) else {
                return Err(damaged(&self.name, "it is cut short"));
            };
            if xxh3_64(entries) != shard.checksum {
                let what = format!("the checksum of shard {} is wrong", shard.number);
                return Err(damaged(&self.name, &what));
            }
            rest = after;
        }
        Ok(bytes)
    }
}

/// The `Data` error of a file that is not what was written.
pub(super) fn damaged(name: &str, what: &str) -> Error {
    Error::new(
        Kind::Data,
        format!("checkpoint file `{name}` is damaged: {what}"),
    )
}
