//! Aggregates that live in the difference: counts, sums, averages, bool_and and bool_or.
//!
//! A group's [`Totals`] form a commutative group under addition, so a retraction is the addition
//! of the negation and a hot group costs nothing: differential dataflow only ever adds them up.
//! Integers and decimals are added modulo 2¹²⁸, which is exact for every sum that fits; floats are
//! added exactly ([`FloatSum`]).

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, UInt64Type};
use differential_dataflow::difference::{IsZero, Semigroup};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::float_sum::{FloatAdder, FloatSum};
use crate::exchange::{Flat, Malformed, Read, Reader, Sink};
use crate::plan::functions::averaged;
use crate::plan::ir::AggregateFunction;
use crate::{Error, Kind, Result};

/// What one group's rows add up to.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Totals {
    /// Rows in the group.
    pub(crate) rows: i64,
    /// One cell an aggregate.
    pub(crate) cells: SmallVec<[Cell; 2]>,
}

/// What one aggregate's arguments add up to.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Cell {
    /// Arguments that are not null.
    count: i64,
    /// Their sum; for bool_and and bool_or the number of those that are true.
    sum: Sum,
}

/// A sum, of the kind its aggregate needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Sum {
    /// Counts need none.
    #[default]
    None,
    /// Integers, unscaled decimals, and how many booleans are true.
    Int(Int),
    /// Floats.
    Float(Box<FloatSum>),
}

/// An `i128` that is aligned as a word is. Cells are moved and compared all day, and are a third
/// smaller this way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "i128", into = "i128")]
struct Int {
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

impl Sum {
    fn is_zero(&self) -> bool {
        match self {
            Sum::None => true,
            Sum::Int(sum) => i128::from(*sum) == 0,
            Sum::Float(sum) => sum.is_zero(),
        }
    }

    fn add(&mut self, other: &Sum) {
        match (&mut *self, other) {
            (_, Sum::None) => {}
            (Sum::None, other) => *self = other.clone(),
            (Sum::Int(mine), Sum::Int(theirs)) => {
                *mine = i128::from(*mine).wrapping_add((*theirs).into()).into();
            }
            (Sum::Float(mine), Sum::Float(theirs)) => mine.merge(theirs),
            // One aggregate makes one kind of sum.
            (mine, theirs) => debug_assert!(false, "cannot add {theirs:?} to {mine:?}"),
        }
    }
}

impl Flat for Totals {
    const LEAST: usize = 2;

    fn lay(&self, to: &mut impl Sink) {
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

    fn lay(&self, to: &mut impl Sink) {
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
        }
    }

    fn read(from: &mut Reader<'_>) -> Read<Self> {
        Ok(Self {
            count: Flat::read(from)?,
            sum: match from.byte()? {
                0 => Sum::None,
                1 => Sum::Int(i128::read(from)?.into()),
                2 => Sum::Float(Flat::read(from)?),
                _ => return Err(Malformed("a sum of no kind")),
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

/// An aggregate's argument column, ready to be added.
enum Input {
    /// `count(*)`.
    Rows,
    /// `count(x)`.
    NotNull(ArrayRef),
    Int(Int64Array),
    Unsigned(UInt64Array),
    Decimal(Decimal128Array),
    Float(Float64Array),
    Bool(BooleanArray),
}

/// Where the rows of a batch belong.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// Each row's group.
    pub(crate) groups: &'a [u32],
    /// Each row's multiplicity.
    pub(crate) times: &'a [i64],
}

impl Rows<'_> {
    /// Adds up the values of each of so many groups, and counts those that are not null. Totals
    /// are made at the end, so that the loop over rows touches nothing but plain sums.
    fn add_up<V, S: Clone + Default>(
        self,
        values: impl Iterator<Item = Option<V>>,
        groups: usize,
        add: impl Fn(&mut S, V, i64),
        total: impl Fn(S) -> Sum,
    ) -> Vec<(i64, Sum)> {
        let mut sums = vec![(0, S::default()); groups];
        for ((value, &group), &times) in values.zip(self.groups).zip(self.times) {
            if let (Some(value), Some((count, sum))) = (value, sums.get_mut(group as usize)) {
                *count += times;
                add(sum, value, times);
            }
        }
        let sums = sums.into_iter();
        sums.map(|(count, sum)| (count, total(sum))).collect()
    }
}

fn add_int<V: Into<i128>>(sum: &mut i128, value: V, times: i64) {
    *sum = sum.wrapping_add(value.into().wrapping_mul(i128::from(times)));
}

/// One aggregate of the accumulating kind.
#[derive(Debug, Clone)]
pub(crate) struct Accumulator {
    function: AggregateFunction,
    /// The argument's type; none for `count(*)`.
    argument: Option<DataType>,
    output: DataType,
}

impl Accumulator {
    pub(crate) fn new(
        function: AggregateFunction,
        argument: Option<DataType>,
        output: DataType,
    ) -> Self {
        Self {
            function,
            argument,
            output,
        }
    }

    fn input(&self, column: Option<&ArrayRef>) -> Result<Input> {
        use AggregateFunction as F;
        let Some(column) = column else {
            return Ok(Input::Rows);
        };
        let to = |kind: &DataType| cast(column, kind).map_err(crate::row::bug);
        Ok(match (self.function, column.data_type()) {
            (F::Count, _) => Input::NotNull(Arc::clone(column)),
            (F::BoolAnd | F::BoolOr, _) => Input::Bool(column.as_boolean().clone()),
            (_, DataType::Decimal128(..)) => {
                Input::Decimal(column.as_primitive::<Decimal128Type>().clone())
            }
            (_, DataType::UInt64) => Input::Unsigned(column.as_primitive::<UInt64Type>().clone()),
            (_, kind) if kind.is_integer() => {
                Input::Int(to(&DataType::Int64)?.as_primitive::<Int64Type>().clone())
            }
            (_, kind) if kind.is_floating() => Input::Float(
                to(&DataType::Float64)?
                    .as_primitive::<Float64Type>()
                    .clone(),
            ),
            (function, kind) => {
                let what = format!("{function:?} over {kind} reached the renderer");
                return Err(Error::new(Kind::Bug, what));
            }
        })
    }

    /// Adds up a column by groups: `rows` says which group each row belongs to and how many times
    /// it counts. `cell` is this aggregate's place in each group's cells, empty so far; the groups'
    /// own rows are counted already.
    pub(crate) fn accumulate(
        &self,
        column: Option<&ArrayRef>,
        rows: Rows<'_>,
        totals: &mut [Totals],
        cell: usize,
    ) -> Result<()> {
        let groups = totals.len();
        let int = |sum: i128| Sum::Int(sum.into());
        let sums = match self.input(column)? {
            Input::Rows => totals.iter().map(|t| (t.rows, Sum::None)).collect(),
            Input::NotNull(a) => {
                let valid = (0..a.len()).map(|row| a.is_valid(row).then_some(()));
                rows.add_up(valid, groups, |(), (), _| (), |()| Sum::None)
            }
            Input::Int(a) => rows.add_up(a.iter(), groups, add_int, int),
            Input::Unsigned(a) => rows.add_up(a.iter(), groups, add_int, int),
            Input::Decimal(a) => rows.add_up(a.iter(), groups, add_int, int),
            Input::Bool(a) => rows.add_up(a.iter(), groups, add_int, int),
            Input::Float(a) => {
                let float = |sum: FloatAdder| Sum::Float(Box::new(sum.finish()));
                rows.add_up(a.iter(), groups, FloatAdder::add, float)
            }
        };
        for (totals, (count, sum)) in totals.iter_mut().zip(sums) {
            if let Some(place) = totals.cells.get_mut(cell)
                && (count != 0 || !sum.is_zero())
            {
                *place = Cell { count, sum };
            }
        }
        Ok(())
    }

    /// The aggregate's value for each group. `rows_less` is what to take off the group's row count
    /// (a seed row that keeps the one group of an aggregate without keys alive). Where a value does
    /// not fit the output type its group's index is in the second result.
    pub(crate) fn finish<'a>(
        &self,
        totals: impl Iterator<Item = &'a Totals>,
        cell: usize,
    ) -> Result<(ArrayRef, Vec<usize>)> {
        use AggregateFunction as F;
        let empty = Cell::default();
        let cells = totals.map(|t| t.cells.get(cell).unwrap_or(&empty));
        let mut overflow = Vec::new();
        let array: ArrayRef = match (self.function, &self.output) {
            (F::Count, _) => Arc::new(cells.map(|c| Some(c.count)).collect::<Int64Array>()),
            (F::BoolAnd, _) => Arc::new(
                cells
                    .map(|c| c.truth(|t, n| t == n))
                    .collect::<BooleanArray>(),
            ),
            (F::BoolOr, _) => Arc::new(
                cells
                    .map(|c| c.truth(|t, _| t > 0))
                    .collect::<BooleanArray>(),
            ),
            (F::Sum, DataType::Float64) => {
                Arc::new(cells.map(|c| c.float(1)).collect::<Float64Array>())
            }
            (F::Avg, DataType::Float64) => {
                Arc::new(cells.map(|c| c.float(c.count)).collect::<Float64Array>())
            }
            (F::Sum, DataType::Int64) => Arc::new(
                fit(cells, &mut overflow, |c| c.int(), i64::try_from).collect::<Int64Array>(),
            ),
            (F::Sum, DataType::UInt64) => Arc::new(
                fit(cells, &mut overflow, |c| c.int(), u64::try_from).collect::<UInt64Array>(),
            ),
            (F::Sum | F::Avg, DataType::Decimal128(precision, scale)) => {
                let from = match (self.function, &self.argument) {
                    (F::Avg, Some(DataType::Decimal128(_, from))) => Some(*from),
                    _ => None,
                };
                let limit = 10i128.pow(u32::from(*precision));
                let value = |c: &Cell| c.int().map(|sum| (sum, c.count));
                let scaled = |(sum, count): (i128, i64)| {
                    let value = match from {
                        Some(from) => averaged(sum, from, count, (*precision, *scale)),
                        None => Some(sum),
                    };
                    let fits = value.filter(|v| v.unsigned_abs() < limit.unsigned_abs());
                    fits.ok_or(())
                };
                let values = fit(cells, &mut overflow, value, scaled).collect::<Decimal128Array>();
                Arc::new(
                    values
                        .with_precision_and_scale(*precision, *scale)
                        .map_err(crate::row::bug)?,
                )
            }
            (function, kind) => {
                let what = format!("{function:?} into {kind} reached the renderer");
                return Err(Error::new(Kind::Bug, what));
            }
        };
        Ok((array, overflow))
    }
}

/// Values narrowed to the output type; the index of each that does not fit goes to `overflow`.
fn fit<'a, W, V, E>(
    cells: impl Iterator<Item = &'a Cell>,
    overflow: &mut Vec<usize>,
    value: impl Fn(&Cell) -> Option<W>,
    narrow: impl Fn(W) -> std::result::Result<V, E>,
) -> impl Iterator<Item = Option<V>> {
    cells.enumerate().map(move |(index, cell)| {
        let narrowed = value(cell).map(&narrow)?;
        narrowed.map_err(|_| overflow.push(index)).ok()
    })
}

impl Cell {
    fn int(&self) -> Option<i128> {
        match (&self.sum, self.count) {
            (_, 0) => None,
            (Sum::Int(sum), _) => Some((*sum).into()),
            _ => Some(0),
        }
    }

    fn float(&self, divisor: i64) -> Option<f64> {
        match (&self.sum, self.count) {
            (_, 0) => None,
            (Sum::Float(sum), _) => Some(sum.value() / divisor as f64),
            (Sum::Int(sum), _) => Some(i128::from(*sum) as f64 / divisor as f64),
            (Sum::None, _) => Some(0.0),
        }
    }

    fn truth(&self, test: impl Fn(i128, i128) -> bool) -> Option<bool> {
        self.int().map(|trues| test(trues, i128::from(self.count)))
    }
}

#[cfg(test)]
impl Cell {
    pub(crate) fn counted(count: i64) -> Self {
        let sum = Sum::None;
        Self { count, sum }
    }

    pub(crate) fn added(count: i64, sum: i128) -> Self {
        let sum = Sum::Int(sum.into());
        Self { count, sum }
    }

    pub(crate) fn added_floats(count: i64, sum: FloatSum) -> Self {
        let sum = Sum::Float(Box::new(sum));
        Self { count, sum }
    }
}
