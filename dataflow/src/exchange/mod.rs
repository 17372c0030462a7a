//! Data exchange between workers: the pact, the container and the codecs.
//!
//! A stateful operator's input, with the key by which it is exchanged ([`Crosses`]), goes to the
//! worker that owns the key. [`Crossing`] is the pact for timely. Within a process a batch is
//! handed over by pointer, as timely does. To another process it is serialized, one value after the
//! other, by one of two codecs:
//!
//! ```text
//! same process:   Vec<D> ──────────────── pointer ───────────────► Vec<D>
//! other process:  Vec<D> ─► tag, count, values as bytes ─► mesh ─► check ─► Vec<D>
//! ```
//!
//! - [`Checked`], the default, trusts no bytes. Bytes that it cannot have written end the job with
//!   an error. They never cause a panic, a read out of bounds, or an allocation of more than a few
//!   times their own length.
//! - [`abomonation`](https://docs.rs/abomonation), with the cargo feature of that name, copies the
//!   memory of values. It trusts the bytes, so it is only for processes of one build that have
//!   authenticated each other. Measurements: docs/decisions/0018-exchange-codec.md.
//!
//! Messages that are small or rare (the control dataflow) cross with timely's own serialization.

#[cfg(feature = "abomonation")]
mod abomonated;
mod checked;
mod pact;
mod rows;
#[cfg(test)]
mod tests;

use std::fmt::{Display, Formatter};
use std::io::{self, Write};
use std::str::FromStr;

#[cfg(feature = "abomonation")]
pub use abomonated::Abomonated;
pub use checked::Checked;
pub use pact::Crossing;
pub use tidemill_ir::row::Row;
pub use tidemill_state::value::flat::{ByteSink, Flat, Malformed, Read, Reader};

use tidemill_ir::Epoch;
use tidemill_log::{Error, Kind, Result};
use tidemill_state::value::keyed::Keyed;
use tidemill_state::value::totals::Totals;

use crate::chunk::time::Round;

/// Serializes batches of values, and reads them back.
pub trait Codec<D> {
    /// Written in front of the bytes to identify the codec. A codec refuses bytes with another tag.
    const TAG: u64;
    /// The number of bytes that `write` writes for these values.
    fn length(values: &[D]) -> usize;
    /// Writes the values and returns the number of bytes written.
    ///
    /// # Errors
    /// Those of `to`.
    fn write<W: Write>(values: &[D], to: &mut W) -> io::Result<usize>;
    /// Reads `count` values. Up to seven zero bytes may follow them.
    ///
    /// # Errors
    /// `Bug` when the bytes are not those of `count` values.
    fn read(bytes: &[u8], count: usize) -> Result<Vec<D>>;
}

/// A type of value that is exchanged between workers in large numbers.
pub trait Crosses: Flat + Send + 'static {
    /// The codec that is used where abomonation is asked for.
    type Trusted: Codec<Self>;
}

#[cfg(feature = "abomonation")]
type Trusted = Abomonated;
#[cfg(not(feature = "abomonation"))]
type Trusted = Checked;

/// A value by key: for joins, top-k, `min` and `max`.
impl Crosses for ((Row, Row), Epoch, isize) {
    type Trusted = Trusted;
}

/// A key without a value: for DISTINCT.
impl Crosses for ((Row, ()), Epoch, isize) {
    type Trusted = Trusted;
}

/// A value by key within a recursion.
impl Crosses for ((Row, Row), Round, isize) {
    type Trusted = Checked;
}

/// A key without a value within a recursion.
impl Crosses for ((Row, ()), Round, isize) {
    type Trusted = Checked;
}

/// A row by primary key: for the sink.
impl Crosses for (Row, Row, Epoch, i64) {
    type Trusted = Trusted;
}

/// A record of a keyed source: for the upsert.
impl Crosses for (Epoch, Keyed) {
    type Trusted = Trusted;
}

/// The totals of a group's rows in one batch. They are few, because they are combined before they
/// cross, and their memory is not a plain sequence of fields and bytes. Therefore they are always
/// checked.
impl Crosses for ((Row, ()), Epoch, Totals) {
    type Trusted = Checked;
}

/// The codec of a job's processes. All processes must use the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    /// The codec that validates what it reads.
    #[default]
    Checked,
    /// The codec that trusts what it reads; see [`Engine::permitted`].
    Abomonation,
}

impl Engine {
    /// The codec's name, as the flag `--codec` takes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Engine::Checked => "checked",
            Engine::Abomonation => "abomonation",
        }
    }

    /// Refuses abomonation if it is not built in, or if a stranger could pose as a process of the
    /// job. `trusted` says that the job has a single process, or that all processes prove to each
    /// other that they know a secret.
    ///
    /// # Errors
    /// `Data` when the codec is refused; the message says what would make it work.
    pub fn permitted(self, trusted: bool) -> Result<()> {
        if self == Engine::Checked {
            return Ok(());
        }
        if !cfg!(feature = "abomonation") {
            let what = "codec `abomonation` is not in this build: build with `cargo build \
                        --release --features abomonation`, or leave --codec out";
            return Err(Error::new(Kind::Data, what));
        }
        if !trusted {
            let what = "codec `abomonation` believes what arrives, and the job's processes have no \
                        secret to know each other by: give all of them the same \
                        TIDEMILL_MESH_SECRET, or leave --codec out";
            return Err(Error::new(Kind::Data, what));
        }
        Ok(())
    }
}

impl Display for Engine {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Engine {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let mut all = [Engine::Checked, Engine::Abomonation].into_iter();
        all.find(|engine| engine.name() == name).ok_or_else(|| {
            let what = format!("`{name}` is no codec: checked or abomonation is");
            Error::new(Kind::Data, what)
        })
    }
}
