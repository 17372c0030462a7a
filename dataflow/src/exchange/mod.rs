//! How rows cross from one worker to another.
//!
//! In goes what a stateful operator is keyed by and what it keeps ([`Crosses`]); out it comes on
//! the worker that owns the key. [`Crossing`] is the pact for timely. Within a process a batch is
//! handed over by pointer, as timely does it; to another process it is laid flat into bytes, one
//! value after the other, and made anew there, by one of two codecs:
//! - [`Checked`], the default: nothing that arrives is believed. Bytes that it cannot have written
//!   end the job with an error; they never make it panic, read elsewhere, or allocate more than a
//!   few times their own length.
//! - [`abomonation`](https://docs.rs/abomonation), with the cargo feature of that name: values'
//!   memory as it is. Only for processes of one build that have proved who they are, as what
//!   arrives is believed. Numbers: docs/decisions/0018-exchange-codec.md.
//!
//! What is small or rare (what workers tell worker 0 and are told) crosses as timely does it alone.

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

pub use crate::row::Row;
pub use crate::value::flat::{ByteSink, Flat, Malformed, Read, Reader};
#[cfg(feature = "abomonation")]
pub use abomonated::Abomonated;
pub use checked::Checked;
pub use pact::Crossing;

use crate::value::keyed::Keyed;
use crate::value::totals::Totals;
use crate::{Epoch, Error, Kind, Result};

/// Lays batches of values into bytes and makes values of such bytes.
pub trait Codec<D> {
    /// Says in front of the bytes who laid them. Neither codec reads the other's.
    const TAG: u64;
    /// How many bytes `write` writes.
    fn length(values: &[D]) -> usize;
    /// Writes the values and returns how many bytes they took.
    ///
    /// # Errors
    /// Those of `to`.
    fn write<W: Write>(values: &[D], to: &mut W) -> io::Result<usize>;
    /// Reads `count` values, which up to seven zeros may follow.
    ///
    /// # Errors
    /// When the bytes are not those of so many values.
    fn read(bytes: &[u8], count: usize) -> Result<Vec<D>>;
}

/// A value that crosses workers in numbers.
pub trait Crosses: Flat + Send + 'static {
    /// What lays it out where abomonation is asked for.
    type Trusted: Codec<Self>;
}

#[cfg(feature = "abomonation")]
type Trusted = Abomonated;
#[cfg(not(feature = "abomonation"))]
type Trusted = Checked;

/// A value by key: into joins, first rows, min and max.
impl Crosses for ((Row, Row), Epoch, isize) {
    type Trusted = Trusted;
}

/// A key: into DISTINCT.
impl Crosses for ((Row, ()), Epoch, isize) {
    type Trusted = Trusted;
}

/// A row by primary key: into the sink.
impl Crosses for (Row, Row, Epoch, i64) {
    type Trusted = Trusted;
}

/// A record of a keyed source.
impl Crosses for (Epoch, Keyed) {
    type Trusted = Trusted;
}

/// What a group's rows of one batch add up to. They are few, as they are added up before they
/// cross, and their memory is no plain sequence of fields and bytes: always checked.
impl Crosses for ((Row, ()), Epoch, Totals) {
    type Trusted = Checked;
}

/// Which codec a job's processes use. All of them must use the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    /// Nothing that arrives is believed.
    #[default]
    Checked,
    /// Everything is: see [`Engine::permitted`].
    Abomonation,
}

impl Engine {
    /// As it is given by flag.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Engine::Checked => "checked",
            Engine::Abomonation => "abomonation",
        }
    }

    /// Refuses abomonation where it is not built in, or where anybody could pose as a process of
    /// the job: `trusted` says that there is one process alone, or that all prove to each other
    /// that they know a secret.
    ///
    /// # Errors
    /// When it is refused, with what would make it work.
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
