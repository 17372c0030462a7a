//! Group totals: the difference type of an aggregating arrangement, one cell per aggregate.
//!
//! All sums are exact, so a retraction removes exactly what was added.
//!
//! ```text
//! a row with arguments a, b  ─►  rows: 1, cells: [count 1, sum a] [count 1, sum b]
//! the same row retracted     ─►  the same, with every number negated
//! ```
//!
//! A group whose totals are zero has no row in the result, and the arrangement drops it.

use arrow::datatypes::i256;
use differential_dataflow::difference::{IsZero, Semigroup};
use num_bigint::BigInt;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::bit_counts::BitCounts;
use super::flat::{ByteSink, Flat, Malformed, Read, Reader};
use super::float_sum::FloatSum;
use super::int_sum::{Int, Wide};

/// The totals of a group's rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Totals {
    /// The number of rows in the group.
    pub rows: i64,
    /// One cell per aggregate, or several for an aggregate over several sums; missing cells count
    /// as zero.
    pub cells: SmallVec<[Cell; 2]>,
}

/// The totals of one aggregate's arguments.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cell {
    /// The number of arguments that are not null.
    pub count: i64,
    /// Their sum; for `bool_and` and `bool_or` the number of true ones.
    pub sum: Sum,
}

/// A sum, of the kind that its aggregate needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Sum {
    /// No sum: a count needs none.
    #[default]
    None,
    /// Integers, unscaled decimals, and the number of true booleans.
    Int(Int),
    /// Floating-point numbers.
    Float(Box<FloatSum>),
    /// Integers and unscaled decimals beyond an `i128`.
    Wide(Box<Wide>),
    /// The bits of integers.
    Bits(Box<BitCounts>),
}

impl Sum {
    /// Whether the sum is zero.
    pub fn is_zero(&self) -> bool {
        match self {
            Sum::None => true,
            Sum::Int(sum) => i128::from(*sum) == 0,
            Sum::Float(sum) => sum.is_zero(),
            Sum::Wide(_) => false,
            Sum::Bits(counts) => counts.is_zero(),
        }
    }

    /// The sum of integers; `None` for other kinds.
    fn int(&self) -> Option<i256> {
        match self {
            Sum::Int(sum) => Some(i256::from_i128((*sum).into())),
            Sum::Wide(sum) => Some((**sum).into()),
            Sum::None | Sum::Float(_) | Sum::Bits(_) => None,
        }
    }

    /// Adds a sum of the same kind.
    ///
    /// A sum that no longer fits an `i128` becomes [`Sum::Wide`], and one that fits again becomes
    /// [`Sum::Int`], so that equal sums are equal values.
    fn add(&mut self, other: &Sum) {
        match (&mut *self, other) {
            (_, Sum::None) => {}
            (Sum::None, other) => *self = other.clone(),
            (Sum::Float(mine), Sum::Float(theirs)) => mine.merge(theirs),
            (Sum::Bits(mine), Sum::Bits(theirs)) => mine.merge(theirs),
            (Sum::Int(mine), Sum::Int(theirs))
                if let Some(sum) = i128::from(*mine).checked_add((*theirs).into()) =>
            {
                *mine = sum.into();
            }
            (mine, theirs) => match (mine.int(), theirs.int()) {
                (Some(one), Some(two)) => *mine = one.wrapping_add(two).into(),
                // All sums of one aggregate are of one kind.
                _ => debug_assert!(false, "cannot add {theirs:?} to {mine:?}"),
            },
        }
    }
}

impl From<i256> for Sum {
    fn from(sum: i256) -> Self {
        match sum.to_i128() {
            Some(sum) => Sum::Int(sum.into()),
            None => Sum::Wide(Box::new(sum.into())),
        }
    }
}

impl Flat for Totals {
    const LEAST: usize = 2;

    fn lay(&self, to: &mut impl ByteSink) {
        self.rows.lay(to);
        self.cells.lay(to);
    }

    fn read(from: &mut Reader<'_>) -> Read<Self> {
        Ok(Self {
            rows: Flat::read(from)?,
            cells: Flat::read(from)?,
        })
    }
}

impl Flat for Cell {
    const LEAST: usize = 2;

    fn lay(&self, to: &mut impl ByteSink) {
        self.count.lay(to);
        match &self.sum {
            Sum::None => to.put(&[0]),
            Sum::Int(sum) => {
                to.put(&[1]);
                i128::from(*sum).lay(to);
            }
            Sum::Float(sum) => {
                to.put(&[2]);
                sum.lay(to);
            }
            Sum::Wide(sum) => {
                to.put(&[3]);
                sum.lay(to);
            }
            Sum::Bits(counts) => {
                to.put(&[4]);
                counts.lay(to);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Read<Self> {
        Ok(Self {
            count: Flat::read(from)?,
            sum: match from.byte()? {
                0 => Sum::None,
                1 => Sum::Int(i128::read(from)?.into()),
                2 => Sum::Float(Flat::read(from)?),
                3 => Sum::Wide(Flat::read(from)?),
                4 => Sum::Bits(Flat::read(from)?),
                _ => return Err(Malformed("an unknown sum tag")),
            },
        })
    }
}

impl IsZero for Totals {
    fn is_zero(&self) -> bool {
        self.rows == 0 && self.cells.iter().all(|c| c.count == 0 && c.sum.is_zero())
    }
}

impl Semigroup for Totals {
    fn plus_equals(&mut self, other: &Self) {
        self.rows += other.rows;
        if self.cells.len() < other.cells.len() {
            self.cells.resize(other.cells.len(), Cell::default());
        }
        for (mine, theirs) in self.cells.iter_mut().zip(&other.cells) {
            mine.count += theirs.count;
            mine.sum.add(&theirs.sum);
        }
    }
}

impl Cell {
    /// The sum of integers; `None` if no argument was not null.
    pub fn int(&self) -> Option<i256> {
        match self.count {
            0 => None,
            _ => Some(self.sum.int().unwrap_or(i256::ZERO)),
        }
    }

    /// The sum of floats; `None` if no argument was not null, `Some(None)` if it is out of range.
    pub fn float(&self) -> Option<Option<f64>> {
        match (&self.sum, self.count) {
            (_, 0) => None,
            (Sum::Float(sum), _) => Some(sum.ranged()),
            _ => Some(Some(0.0)),
        }
    }

    /// The exact sum as digits and a power of two: `digits` × 2^`exponent`. Floats that are not
    /// finite do not count.
    pub fn exact(&self) -> (BigInt, i32) {
        match &self.sum {
            Sum::None | Sum::Bits(_) => (BigInt::ZERO, 0),
            Sum::Int(sum) => (i128::from(*sum).into(), 0),
            Sum::Wide(sum) => {
                let bytes = i256::from(**sum).to_le_bytes();
                (BigInt::from_signed_bytes_le(&bytes), 0)
            }
            Sum::Float(sum) => sum.exact(),
        }
    }

    /// Whether an argument is infinite or no number.
    pub fn is_special(&self) -> bool {
        matches!(&self.sum, Sum::Float(sum) if sum.is_special())
    }

    /// The bits whose count passes a test, which gets it with the number of arguments; `None` if no
    /// argument was not null.
    pub fn bits(&self, test: impl Fn(i64, i64) -> bool) -> Option<u64> {
        match (&self.sum, self.count) {
            (_, 0) => None,
            (Sum::Bits(counts), all) => Some(counts.bits(|count| test(count, all))),
            _ => Some(0),
        }
    }

    /// A test of the number of true arguments and their count; `None` if no argument was not null.
    pub fn truth(&self, test: impl Fn(i256, i256) -> bool) -> Option<bool> {
        let count = i256::from_i128(i128::from(self.count));
        self.int().map(|trues| test(trues, count))
    }
}
