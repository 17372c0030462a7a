//! Accumulable aggregates: counts, sums, averages, `bool_*`, `bit_*` and statistics, kept as
//! differences.
//!
//! The [`Totals`] of a group form a commutative group under addition. A retraction adds the
//! negation. Differential dataflow only adds the totals up, so a group with many changes costs no
//! more than another. All sums are exact: sums of integers and decimals
//! ([`tidemill_state::value::int_sum`]), and sums of floating-point numbers
//! ([`tidemill_state::value::float_sum`]). Therefore a result does not depend on the order of rows,
//! or on the number of workers.
//!
//! An aggregate has one cell, or one for each sum that a statistic needs ([`super::statistics`]).

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float32Array, Float64Array, Int64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, i256};
use tidemill_functions::averaged;
use tidemill_ir::AggregateFunction;
use tidemill_log::{Error, Kind, Result};
use tidemill_state::value::bit_counts::BitCounts;
use tidemill_state::value::float_sum::FloatAdder;
use tidemill_state::value::int_sum::IntAdder;
use tidemill_state::value::totals::{Cell, Sum, Totals};

use super::rows::Rows;
use super::statistics;
use super::statistics::Terms;

/// An aggregate's argument column, cast to the type in which it is added.
enum Input {
    /// `count(*)`.
    Rows,
    /// `count(x)`.
    NotNull(ArrayRef),
    /// Integers of any width, as 64 bits.
    Int(Int64Array),
    /// The digits of decimals.
    Decimal(Decimal128Array),
    /// Floating-point numbers, as 64 bits.
    Float(Float64Array),
    /// The arguments of `bool_and` and `bool_or`; sums count the true ones.
    Bool(BooleanArray),
    /// The arguments of `bit_and`, `bit_or` and `bit_xor`, as 64 bits.
    Bits(Int64Array),
}

/// One accumulable aggregate of a view.
#[derive(Debug, Clone)]
pub(crate) struct Accumulator {
    /// Which aggregate it is.
    function: AggregateFunction,
    /// The argument's type; `None` for `count(*)`.
    argument: Option<DataType>,
    /// The type of the result.
    output: DataType,
}

impl Accumulator {
    /// The accumulator of an aggregate over an argument type, with its output type.
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

    /// Casts an argument column to the type in which it is added.
    ///
    /// # Errors
    /// `Bug` when the planner let an aggregate through that this module cannot compute.
    fn input(&self, column: Option<&ArrayRef>) -> Result<Input> {
        use AggregateFunction as F;
        let Some(column) = column else {
            return Ok(Input::Rows);
        };
        let to = |kind: &DataType| cast(column, kind).map_err(tidemill_ir::row::bug);
        Ok(match (self.function, column.data_type()) {
            (F::Count, _) => Input::NotNull(Arc::clone(column)),
            (F::BoolAnd | F::BoolOr, _) => Input::Bool(column.as_boolean().clone()),
            (F::BitAnd | F::BitOr | F::BitXor, _) => {
                Input::Bits(to(&DataType::Int64)?.as_primitive::<Int64Type>().clone())
            }
            (_, DataType::Decimal128(..)) => {
                Input::Decimal(column.as_primitive::<Decimal128Type>().clone())
            }
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

    /// The number of cells that the aggregate has in a group's totals.
    pub(crate) fn cells(&self) -> usize {
        Terms::of(self.function).map_or(1, |terms| terms.list().len())
    }

    /// Adds columns to the totals of groups. `rows` says which group each row belongs to and how
    /// many times it counts. `cell` is the index of the aggregate's first cell in each group's
    /// cells, which must be empty. The groups' own rows must be counted already.
    ///
    /// # Errors
    /// `Bug` when an argument column has another type than planned.
    pub(crate) fn accumulate(
        &self,
        columns: &[ArrayRef],
        rows: Rows<'_>,
        totals: &mut [Totals],
        cell: usize,
    ) -> Result<()> {
        let groups = totals.len();
        if let Some(terms) = Terms::of(self.function) {
            for (at, term) in terms.list().iter().enumerate() {
                let sums = term.add_up(columns, rows, groups)?;
                place(sums, totals, cell + at);
            }
            return Ok(());
        }
        let int = |sum: IntAdder| Sum::from(sum.finish());
        let sums = match self.input(columns.first())? {
            Input::Rows => totals.iter().map(|t| (t.rows, Sum::None)).collect(),
            Input::NotNull(a) => {
                let valid = (0..a.len()).map(|row| a.is_valid(row).then_some(()));
                rows.add_up(valid, groups, |(), (), _| (), |()| Sum::None)
            }
            Input::Int(a) => rows.add_up(a.iter(), groups, IntAdder::add, int),
            Input::Decimal(a) => rows.add_up(a.iter(), groups, IntAdder::add, int),
            Input::Bool(a) => rows.add_up(a.iter(), groups, IntAdder::add, int),
            Input::Float(a) => {
                let float = |sum: FloatAdder| Sum::Float(Box::new(sum.finish()));
                rows.add_up(a.iter(), groups, FloatAdder::add, float)
            }
            Input::Bits(a) => {
                let add = |counts: &mut BitCounts, value: i64, times| {
                    counts.add(value.cast_unsigned(), times);
                };
                rows.add_up(a.iter(), groups, add, |counts| Sum::Bits(Box::new(counts)))
            }
        };
        place(sums, totals, cell);
        Ok(())
    }

    /// The aggregate's value for each group. The second result lists the groups whose value does
    /// not fit the output type; their value is null.
    ///
    /// # Errors
    /// `Bug` when the values cannot become a column of the output type.
    pub(crate) fn finish<'a>(
        &self,
        totals: impl Iterator<Item = &'a Totals>,
        cell: usize,
    ) -> Result<(ArrayRef, Vec<usize>)> {
        use AggregateFunction as F;
        if let Some(terms) = Terms::of(self.function) {
            let cells = totals.map(|t| t.cells.get(cell..).unwrap_or_default());
            return statistics::finish(self.function, terms, cells, self.kinds());
        }
        let empty = Cell::default();
        let cells = totals.map(|t| t.cells.get(cell).unwrap_or(&empty));
        let mut overflow = Vec::new();
        let float = |c: &Cell| c.float().map(|sum| (sum, c.count));
        let divided = |(sum, count): (Option<f64>, i64)| sum.map(|sum| sum / count as f64);
        let array: ArrayRef = match (self.function, &self.output) {
            (F::Count, _) => Arc::new(cells.map(|c| Some(c.count)).collect::<Int64Array>()),
            (F::BoolAnd, _) => Arc::new(
                cells
                    .map(|c| c.truth(|t, n| t == n))
                    .collect::<BooleanArray>(),
            ),
            (F::BoolOr, _) => Arc::new(
                cells
                    .map(|c| c.truth(|t, _| t > i256::ZERO))
                    .collect::<BooleanArray>(),
            ),
            (F::BitAnd | F::BitOr | F::BitXor, kind) => {
                let bits = cells.map(|c| {
                    let bits = match self.function {
                        F::BitAnd => c.bits(|count, all| count == all),
                        F::BitOr => c.bits(|count, _| count > 0),
                        _ => c.bits(|count, _| count % 2 != 0),
                    };
                    bits.map(u64::cast_signed)
                });
                let bits: ArrayRef = Arc::new(bits.collect::<Int64Array>());
                cast(&bits, kind).map_err(tidemill_ir::row::bug)?
            }
            (F::Sum, DataType::Float64) => {
                let sums = fit(cells, &mut overflow, Cell::float, |sum| sum);
                Arc::new(sums.collect::<Float64Array>())
            }
            (F::Sum, DataType::Float32) => {
                let sums = fit(cells, &mut overflow, Cell::float, |sum| sum.and_then(real));
                Arc::new(sums.collect::<Float32Array>())
            }
            (F::Avg, DataType::Float64) => {
                let averages = fit(cells, &mut overflow, float, divided);
                Arc::new(averages.collect::<Float64Array>())
            }
            (F::Sum, DataType::Int64) => {
                let narrow = |sum: i256| i64::try_from(sum.to_i128()?).ok();
                let sums = fit(cells, &mut overflow, Cell::int, narrow);
                Arc::new(sums.collect::<Int64Array>())
            }
            (F::Sum | F::Avg, DataType::Decimal128(precision, scale)) => {
                let to = (*precision, *scale);
                let value = |c: &Cell| c.int().map(|sum| (sum, c.count));
                let narrow = |(sum, count)| self.decimal(sum, count, to);
                let values = fit(cells, &mut overflow, value, narrow).collect::<Decimal128Array>();
                Arc::new(
                    values
                        .with_precision_and_scale(*precision, *scale)
                        .map_err(tidemill_ir::row::bug)?,
                )
            }
            (function, kind) => {
                let what = format!("{function:?} into {kind} reached the renderer");
                return Err(Error::new(Kind::Bug, what));
            }
        };
        Ok((array, overflow))
    }

    /// The types of the argument and of the result.
    fn kinds(&self) -> (Option<&DataType>, &DataType) {
        (self.argument.as_ref(), &self.output)
    }

    /// The digits of a sum or an average in a decimal of precision and scale `to`; `None` if the
    /// value does not fit.
    fn decimal(&self, sum: i256, count: i64, to: (u8, i8)) -> Option<i128> {
        let sum = sum.to_i128()?;
        let digits = match (self.function, &self.argument) {
            (AggregateFunction::Avg, Some(DataType::Decimal128(_, from))) => {
                averaged(sum, *from, count, to)?
            }
            _ => sum,
        };
        let limit = 10i128.pow(u32::from(to.0));
        (digits.unsigned_abs() < limit.unsigned_abs()).then_some(digits)
    }
}

/// Puts the sums of groups into a cell that is empty.
fn place(sums: Vec<(i64, Sum)>, totals: &mut [Totals], cell: usize) {
    for (totals, (count, sum)) in totals.iter_mut().zip(sums) {
        if let Some(place) = totals.cells.get_mut(cell)
            && (count != 0 || !sum.is_zero())
        {
            *place = Cell { count, sum };
        }
    }
}

/// A sum as `real`; `None` if it is finite and out of the range of `real`.
fn real(sum: f64) -> Option<f32> {
    let real = sum as f32;
    (real.is_finite() || !sum.is_finite()).then_some(real)
}

/// Values narrowed to the output type. The index of each value that does not fit goes to
/// `overflow`.
fn fit<'a, W, V>(
    cells: impl Iterator<Item = &'a Cell>,
    overflow: &mut Vec<usize>,
    value: impl Fn(&Cell) -> Option<W>,
    narrow: impl Fn(W) -> Option<V>,
) -> impl Iterator<Item = Option<V>> {
    cells.enumerate().map(move |(index, cell)| {
        let narrowed = narrow(value(cell)?);
        if narrowed.is_none() {
            overflow.push(index);
        }
        narrowed
    })
}
