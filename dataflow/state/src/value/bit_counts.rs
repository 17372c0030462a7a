//! Counts of bits: how many arguments have each bit set, for `bit_and`, `bit_or` and `bit_xor`.
//!
//! Counts add up and are taken back as differences. Whether all, any, or an odd number of the
//! arguments have a bit is read from its count.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::flat::{ByteSink, Flat, Malformed, Read, Reader};

/// The bits of the widest argument.
const BITS: usize = 64;

/// How many arguments have each bit set, lowest first. The last count is not zero, so that equal
/// counts are equal values.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BitCounts(SmallVec<[i64; 2]>);

impl BitCounts {
    /// Adds the bits of `value` `times` times; a negative `times` retracts them.
    pub fn add(&mut self, value: u64, times: i64) {
        let width = (u64::BITS - value.leading_zeros()) as usize;
        if self.0.len() < width {
            self.0.resize(width, 0);
        }
        let mut left = value;
        while left != 0 {
            if let Some(count) = self.0.get_mut(left.trailing_zeros() as usize) {
                *count += times;
            }
            left &= left - 1;
        }
        self.trim();
    }

    /// Adds other counts.
    pub(crate) fn merge(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine += theirs;
        }
        self.trim();
    }

    /// Whether no argument has a bit set.
    pub(crate) fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    /// The bits whose count passes the test.
    pub fn bits(&self, test: impl Fn(i64) -> bool) -> u64 {
        let set = |bits: u64, (bit, count): (usize, &i64)| match test(*count) {
            true => bits | 1 << bit,
            false => bits,
        };
        self.0.iter().take(BITS).enumerate().fold(0, set)
    }

    /// Drops zeros at the end.
    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }
}

impl Flat for BitCounts {
    const LEAST: usize = 1;

    fn lay(&self, to: &mut impl ByteSink) {
        self.0.lay(to);
    }

    fn read(from: &mut Reader<'_>) -> Read<Self> {
        let counts: SmallVec<[i64; 2]> = Flat::read(from)?;
        if counts.len() > BITS {
            return Err(Malformed("counts of more than 64 bits"));
        }
        Ok(Self(counts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bits_are_those_of_the_values_that_stay(
            values in proptest::collection::vec(any::<u64>(), 1..20),
            gone in proptest::collection::vec(any::<u64>(), 0..20),
        ) {
            let mut counts = BitCounts::default();
            gone.iter().for_each(|value| counts.add(*value, 1));
            let mut other = BitCounts::default();
            values.iter().for_each(|value| other.add(*value, 1));
            gone.iter().for_each(|value| other.add(*value, -1));
            counts.merge(&other);
            let all = values.len() as i64;
            let fold = |with: fn(u64, u64) -> u64| values.iter().copied().reduce(with).unwrap();
            prop_assert_eq!(counts.bits(|count| count == all), fold(|a, b| a & b));
            prop_assert_eq!(counts.bits(|count| count > 0), fold(|a, b| a | b));
            prop_assert_eq!(counts.bits(|count| count % 2 != 0), fold(|a, b| a ^ b));
            values.iter().for_each(|value| counts.add(*value, -1));
            prop_assert!(counts.is_zero());
        }
    }
}
