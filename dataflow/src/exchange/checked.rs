//! The checked codec: values in flat form ([`tidemill_state::value::flat`]), one after the other,
//! validated.
//!
//! Invariants:
//! 1. Bytes are read as exactly the values that they were made from, or refused.
//! 2. No bytes cause a panic. Reading allocates at most a few times the length of the bytes.

use std::io::{self, BufWriter, Write};

use tidemill_log::Result;
use tidemill_state::value::flat::{ByteSink, Flat, Malformed, Reader};

use super::Codec;

/// Counts bytes without writing them.
struct Length(usize);

impl ByteSink for Length {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// Size of the buffer in front of the writer, in bytes.
const TOGETHER: usize = 4096;

/// Writes, counts what was written, and keeps the last error.
struct Writing<W: Write> {
    /// The buffered writer.
    to: BufWriter<W>,
    /// The number of bytes written.
    written: usize,
    /// The last error.
    failed: Option<io::Error>,
}

impl<W: Write> ByteSink for Writing<W> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.written += bytes.len();
        if let Err(error) = self.to.write_all(bytes) {
            self.failed = Some(error);
        }
    }
}

/// The codec that validates everything it reads. The default.
#[derive(Debug)]
pub struct Checked;

impl<D: Flat> Codec<D> for Checked {
    const TAG: u64 = u64::from_le_bytes(*b"tmflat.1");

    fn length(values: &[D]) -> usize {
        let mut length = Length(0);
        values.iter().for_each(|value| value.lay(&mut length));
        length.0
    }

    fn write<W: Write>(values: &[D], to: &mut W) -> io::Result<usize> {
        let mut writing = Writing {
            to: BufWriter::with_capacity(TOGETHER, to),
            written: 0,
            failed: None,
        };
        values.iter().for_each(|value| value.lay(&mut writing));
        writing.to.flush()?;
        writing.failed.map_or(Ok(writing.written), Err)
    }

    fn read(bytes: &[u8], count: usize) -> Result<Vec<D>> {
        if count > bytes.len() / D::LEAST.max(1) {
            return Err(Malformed("more values than the bytes can hold").into());
        }
        let mut from = Reader::new(bytes);
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            values.push(D::read(&mut from)?);
        }
        if from.rest().len() >= 8 || from.rest().iter().any(|byte| *byte != 0) {
            return Err(Malformed("bytes after the last value").into());
        }
        Ok(values)
    }
}
