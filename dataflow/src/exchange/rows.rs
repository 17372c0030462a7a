//! The exchange container: values as they are within a process, as bytes between processes.
//!
//! ```text
//! ┌──────────────┬──────────────┬─────────────────────────────┬─────────────────────┐
//! │ codec's tag  │ count        │ values, as the codec writes │ zeros to a multiple │
//! │ u64 LE       │ u64 LE       │ them                        │ of eight bytes      │
//! └──────────────┴──────────────┴─────────────────────────────┴─────────────────────┘
//! ```

use std::io::Write;

use tidemill_log::{Error, Kind, Result};
use timely::Accountable;
use timely::bytes::arc::Bytes;
use timely::dataflow::channels::ContainerBytes;

use super::{Checked, Codec, Crosses, Engine, Malformed};

/// Bytes before the values: tag and count.
const HEADER: usize = 16;

/// A batch of values between two workers.
pub enum Rows<D> {
    /// Values of this process, with the codec that serializes them if they leave the process.
    Values(Vec<D>, Engine),
    /// Bytes from another process that have not been read yet.
    Bytes(Bytes),
}

/// Splits a batch's bytes into the codec's tag, the number of values, and the values' bytes.
fn opened(bytes: &[u8]) -> Result<(u64, usize, &[u8])> {
    let header = bytes.split_first_chunk::<8>().and_then(|(tag, rest)| {
        let (count, values) = rest.split_first_chunk::<8>()?;
        let count = usize::try_from(u64::from_le_bytes(*count)).ok()?;
        Some((u64::from_le_bytes(*tag), count, values))
    });
    header.ok_or_else(|| Malformed("no header").into())
}

impl<D: Crosses> Rows<D> {
    /// The values. Bytes must have been written by the codec `engine`.
    ///
    /// # Errors
    /// `Bug` when they were written by another codec, or are malformed.
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

/// The tag of the codec that writes values of `D`.
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
            // Bytes without a header are an error as soon as they are read, so they must not seem
            // empty.
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
    /// If `writer` has less room than `length_in_bytes` returned.
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
        // Timely reserved `length_in_bytes` bytes of memory, so writing cannot fail.
        written.unwrap_or_else(|error| unreachable!("rows are longer than their length: {error}"));
    }
}
