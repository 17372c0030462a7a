//! Partitioner and size limit of records, the same for all engines.
//!
//! Kafka's Java client chooses the partition `murmur2(key) & 0x7fffffff % partitions`
//! (`BuiltInPartitioner.partitionForKey`). The embedded log and the publisher do the same, so that
//! the content of a partition does not depend on who wrote the topic.

use super::Record;
use crate::{Error, Kind, Result};

/// Largest number of bytes of a record, key and value together. Kafka's default limit of a message
/// (`message.max.bytes`) is a little larger.
pub const RECORD_BYTES_MAX: usize = 1_000_000;

/// The partition of `key` in a topic of `partitions` partitions (0 counts as 1), as Kafka's Java
/// client chooses it.
///
/// ```
/// assert_eq!(tidemill_log::log::partition_of(b"foobar", 1), 0);
/// assert!(tidemill_log::log::partition_of(b"foobar", 12) < 12);
/// ```
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions.max(1)
}

/// Refuses a batch with a record that is too large, before any record is written. So the caller can
/// set that record aside and append the others.
pub(crate) fn check_sizes(records: &[Record]) -> Result<()> {
    match records
        .iter()
        .find(|record| size(record) > RECORD_BYTES_MAX)
    {
        Some(record) => Err(too_large(record)),
        None => Ok(()),
    }
}

/// The error of a record that is larger than the log accepts.
pub(crate) fn too_large(record: &Record) -> Error {
    let key = record.key.as_deref().map_or_else(
        || "none".to_owned(),
        |key| format!("`{}`", key.get(..64).unwrap_or(key).escape_ascii()),
    );
    let what = format!(
        "topic `{}`: the record with key {key} has {} bytes, more than the log takes \
         (at most {RECORD_BYTES_MAX}, or the topic's max.message.bytes)",
        record.topic,
        size(record),
    );
    Error::new(Kind::Data, what)
}

/// Bytes of key and value.
fn size(record: &Record) -> usize {
    let bytes = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
    bytes(&record.key) + bytes(&record.value)
}

/// MurmurHash2, 32 bits, with the seed of Kafka's `Utils.murmur2`.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in words.by_ref() {
        let word = word
            .iter()
            .rev()
            .fold(0u32, |all, byte| all << 8 | u32::from(*byte));
        let mixed = word.wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ (mixed ^ mixed >> 24).wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let tail = rest
            .iter()
            .rev()
            .fold(0u32, |all, byte| all << 8 | u32::from(*byte));
        hash = (hash ^ tail).wrapping_mul(M);
    }
    hash = (hash ^ hash >> 13).wrapping_mul(M);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vectors of Kafka's `UtilsTest.testMurmur2`.
    #[test]
    fn murmur2_agrees_with_kafka() {
        let known: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (
                b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            (b"abc", 479_470_107),
        ];
        for (key, hash) in known {
            assert_eq!(murmur2(key) as i32, hash, "{}", key.escape_ascii());
        }
    }

    #[test]
    fn a_partition_is_never_out_of_range() {
        for partitions in 0..9 {
            assert!(partition_of(b"21", partitions) < partitions.max(1));
        }
    }
}
