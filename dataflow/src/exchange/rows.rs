//! The container in which values cross: as they are within a process, as bytes between processes.
//!
//! As bytes: eight that name the codec, eight that count the values, the values as the codec lays
//! them, and zeros up to a multiple of eight.

use std::io::Write;

use timely::Accountable;
use timely::bytes::arc::Bytes;
use timely::dataflow::channels::ContainerBytes;

use super::{Checked, Codec, Crosses, Engine, Malformed};
use crate::{Error, Kind, Result};

/// Bytes before the values.
const HEADER: usize = 16;

/// A batch of values on its way.
pub enum Rows<D> {
    /// Here, to be laid out by this codec should they leave the process.
    Values(Vec<D>, Engine),
    /// Come from another process, and not looked at yet.
    Bytes(Bytes),
}

/// The codec's tag and the number of values; the values' bytes.
fn opened(bytes: &[u8]) -> Result<(u64, usize, &[u8])> {
    let header = bytes.split_first_chunk::<8>().and_then(|(tag, rest)| {
        let (count, values) = rest.split_first_chunk::<8>()?;
        let count = usize::try_from(u64::from_le_bytes(*count)).ok()?;
        Some((u64::from_le_bytes(*tag), count, values))
    });
    header.ok_or_else(|| Malformed("no header").into())
}

impl<D: Crosses> Rows<D> {
    /// The values; bytes must be of the codec `engine`.
    pub(super) fn into_values(self, engine: Engine) -> Result<Vec<D>> {
        let bytes = match self {
            Rows::Values(values, _) => return Ok(values),
            Rows::Bytes(bytes) => bytes,
        };
        let (tag, count, values) = opened(&bytes)?;
        if tag != tag_of::<D>(engine) {
            let what = format!(
                "rows of another process came laid out otherwise than by codec `{engine}`: start \
                 all processes of a job from one build, with the same --codec"
            );
            return Err(Error::new(Kind::Bug, what));
        }
        match engine {
            Engine::Checked => Checked::read(values, count),
            Engine::Abomonation => D::Trusted::read(values, count),
        }
    }
}

fn tag_of<D: Crosses>(engine: Engine) -> u64 {
    match engine {
        Engine::Checked => <Checked as Codec<D>>::TAG,
        Engine::Abomonation => D::Trusted::TAG,
    }
}

impl<D> Accountable for Rows<D> {
    fn record_count(&self) -> i64 {
        match self {
            Rows::Values(values, _) => values.record_count(),
            // What has no header is an error as soon as it is pulled, so it may not seem empty.
            Rows::Bytes(bytes) => opened(bytes).map_or(1, |(_, count, _)| count as i64),
        }
    }
}

impl<D: Crosses> ContainerBytes for Rows<D> {
    fn from_bytes(bytes: Bytes) -> Self {
        Rows::Bytes(bytes)
    }

    fn length_in_bytes(&self) -> usize {
        let length = match self {
            Rows::Values(values, Engine::Checked) => Checked::length(values),
            Rows::Values(values, Engine::Abomonation) => D::Trusted::length(values),
            Rows::Bytes(bytes) => return bytes.len(),
        };
        HEADER + length.next_multiple_of(8)
    }

    /// # Panics
    /// When `writer` has not room for what `length_in_bytes` told.
    fn into_bytes<W: Write>(&self, writer: &mut W) {
        let written = (|| {
            let (values, engine) = match self {
                Rows::Values(values, engine) => (values, *engine),
                Rows::Bytes(bytes) => return writer.write_all(bytes),
            };
            writer.write_all(&tag_of::<D>(engine).to_le_bytes())?;
            writer.write_all(&(values.len() as u64).to_le_bytes())?;
            let length = match engine {
                Engine::Checked => Checked::write(values, writer)?,
                Engine::Abomonation => D::Trusted::write(values, writer)?,
            };
            writer.write_all(&[0; 8][..length.next_multiple_of(8) - length])
        })();
        // Timely reserved as many bytes as it was told, in memory.
        written.unwrap_or_else(|error| unreachable!("rows are longer than their length: {error}"));
    }
}
