//! Exact sums of integers and of the digits of decimals. A numeric has up to 38 digits, and two of
//! those may already be more than an `i128` holds.
//!
//! A sum that fits an `i128` is always one ([`Int`]), and a [`Wide`] one otherwise: equal sums are
//! equal values, so that what is taken back leaves nothing.

use arrow::datatypes::i256;
use serde::{Deserialize, Serialize};

use super::flat::{ByteSink, Flat, Read, Reader};

/// An `i128` that is aligned as a word is. Cells are moved and compared all day, and are a third
/// smaller this way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "i128", into = "i128")]
pub(crate) struct Int {
    high: i64,
    low: u64,
}

impl From<i128> for Int {
    fn from(value: i128) -> Self {
        Self {
            high: (value >> 64) as i64,
            low: value as u64,
        }
    }
}

impl From<Int> for i128 {
    fn from(int: Int) -> Self {
        (Self::from(int.high) << 64) | Self::from(int.low)
    }
}

/// A sum that does not fit an `i128`: more than 2¹²⁷ by at most as many rows as an `i64` counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Wide {
    high: i128,
    /// The lower 128 bits.
    low: i128,
}

impl From<i256> for Wide {
    fn from(value: i256) -> Self {
        let (low, high) = value.to_parts();
        let low = low.cast_signed();
        Self { high, low }
    }
}

impl From<Wide> for i256 {
    fn from(wide: Wide) -> Self {
        Self::from_parts(wide.low.cast_unsigned(), wide.high)
    }
}

impl Flat for Wide {
    const LEAST: usize = 2;

    fn lay(&self, to: &mut impl ByteSink) {
        self.high.lay(to);
        self.low.lay(to);
    }

    fn read(from: &mut Reader<'_>) -> Read<Self> {
        Ok(Self {
            high: Flat::read(from)?,
            low: Flat::read(from)?,
        })
    }
}

/// A sum in the making.
#[derive(Debug, Clone, Default)]
pub(crate) struct IntAdder {
    near: i128,
    /// What did not fit beside the other.
    far: Option<Box<i256>>,
}

impl IntAdder {
    /// Adds `value` `times` times (takes it back for negative `times`).
    #[inline]
    pub(crate) fn add(&mut self, value: impl Into<i128>, times: i64) {
        let value = value.into();
        let sum = value
            .checked_mul(i128::from(times))
            .and_then(|product| self.near.checked_add(product));
        match sum {
            Some(sum) => self.near = sum,
            None => self.add_far(value, times),
        }
    }

    #[cold]
    fn add_far(&mut self, value: i128, times: i64) {
        let times = i256::from_i128(i128::from(times));
        let product = i256::from_i128(value).wrapping_mul(times);
        let far = self.far.get_or_insert_default();
        **far = far.wrapping_add(product);
    }

    /// The sum of all values.
    pub(crate) fn finish(self) -> i256 {
        let near = i256::from_i128(self.near);
        self.far.map_or(near, |far| far.wrapping_add(near))
    }
}
