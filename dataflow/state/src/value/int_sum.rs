//! Exact sums of integers and of the digits of decimals.
//!
//! A decimal has up to 38 digits, and the sum of two of them may exceed an `i128`. A sum that fits
//! an `i128` is always stored as an [`Int`], and as a [`Wide`] otherwise. Therefore equal sums are
//! equal values, and retracting everything leaves zero.

use arrow::datatypes::i256;
use serde::{Deserialize, Serialize};

use super::flat::{ByteSink, Flat, Read, Reader};

/// An `i128` in two words, with the alignment of a word. Cells are moved and compared often, and
/// are a third smaller this way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "i128", into = "i128")]
pub struct Int {
    /// The upper 64 bits, with the sign.
    high: i64,
    /// The lower 64 bits.
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

/// A sum that does not fit an `i128`: at most 2¹²⁷ times the number of rows that an `i64` counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Wide {
    /// The upper 128 bits.
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

/// A sum under construction.
#[derive(Debug, Clone, Default)]
pub struct IntAdder {
    /// The sum, as long as it fits.
    near: i128,
    /// The sum of the values that no longer fitted.
    far: Option<Box<i256>>,
}

impl IntAdder {
    /// Adds `value` `times` times; a negative `times` retracts it.
    #[inline]
    pub fn add(&mut self, value: impl Into<i128>, times: i64) {
        let value = value.into();
        let sum = value
            .checked_mul(i128::from(times))
            .and_then(|product| self.near.checked_add(product));
        match sum {
            Some(sum) => self.near = sum,
            None => self.add_far(value, times),
        }
    }

    /// Adds a value with which the sum exceeds an `i128`.
    #[cold]
    fn add_far(&mut self, value: i128, times: i64) {
        let times = i256::from_i128(i128::from(times));
        let product = i256::from_i128(value).wrapping_mul(times);
        let far = self.far.get_or_insert_default();
        **far = far.wrapping_add(product);
    }

    /// The exact sum of all values.
    pub fn finish(self) -> i256 {
        let near = i256::from_i128(self.near);
        self.far.map_or(near, |far| far.wrapping_add(near))
    }
}
