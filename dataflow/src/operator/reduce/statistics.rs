//! Statistics: variances, deviations, covariances and regressions, from exact sums.
//!
//! The sums of `x`, `y` and of their products are exact. A statistic is a quotient of polynomials
//! of these sums; it is rounded once ([`super::ratio`]). Therefore it does not depend on the order
//! of rows. With `n` pairs:
//!
//! ```text
//! A = n Σx² - (Σx)²      B = n Σy² - (Σy)²      C = n Σxy - Σx Σy
//! variance A / n(n-1)    slope C / A            r² = C² / AB
//! ```
//!
//! Variances of numerics are PostgreSQL's, digit by digit ([`tidemill_functions::deviation`]).
//! PostgreSQL computes those of floating-point numbers row by row, so its last digits depend on
//! the order of rows. As in PostgreSQL, a statistic over an infinity or NaN is NaN, a statistic
//! over too few rows is null, and so is the slope of a vertical line.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type};
use num_bigint::BigInt;
use tidemill_functions::{Deviation, Sums, deviation};
use tidemill_ir::AggregateFunction as Function;
use tidemill_log::{Error, Kind, Result};
use tidemill_state::value::float_sum::{FloatAdder, FloatSum};
use tidemill_state::value::int_sum::IntAdder;
use tidemill_state::value::totals::{Cell, Sum};

use super::ratio::{Exact, ratio};
use super::rows::Rows;

/// Digits of a numeric whose square fits an `i128`.
const NARROW_DIGITS: u8 = 19;

/// One of the sums over the pairs of a group. A variance has `x` alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Term {
    /// Σx.
    X,
    /// Σy.
    Y,
    /// Σx².
    XX,
    /// Σy².
    YY,
    /// Σxy.
    XY,
}

/// The sums that a statistic is computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    /// Whether the arguments are `(y, x)`; otherwise there is only `x`.
    pairs: bool,
    /// The sums, in the order of their cells. All cells count the same rows.
    list: &'static [Term],
}

impl Terms {
    /// The sums of a function; `None` if it is no statistic.
    pub(crate) fn of(function: Function) -> Option<Self> {
        use Term::{X, XX, XY, Y, YY};
        let pairs = function.is_of_pairs();
        let list: &[Term] = match function {
            Function::VarPop | Function::VarSamp | Function::StddevPop | Function::StddevSamp => {
                &[X, XX]
            }
            Function::RegrSxx => &[X, XX],
            Function::RegrSyy => &[Y, YY],
            Function::RegrCount | Function::RegrAvgx => &[X],
            Function::RegrAvgy => &[Y],
            Function::CovarPop | Function::CovarSamp | Function::RegrSxy => &[X, Y, XY],
            Function::RegrSlope | Function::RegrIntercept => &[X, Y, XX, XY],
            Function::Corr | Function::RegrR2 => &[X, Y, XX, YY, XY],
            _ => return None,
        };
        Some(Self { pairs, list })
    }

    /// The sums, in the order of their cells.
    pub(crate) fn list(self) -> &'static [Term] {
        self.list
    }

    /// The cell of a sum.
    fn cell(self, term: Term, cells: &[Cell]) -> Option<&Cell> {
        cells.get(self.list.iter().position(|own| *own == term)?)
    }
}

impl Term {
    /// Adds up the term's products by group, and counts the rows whose arguments are not null.
    ///
    /// # Errors
    /// `Bug` when an argument has another type than planned.
    pub(crate) fn add_up(
        self,
        columns: &[ArrayRef],
        rows: Rows<'_>,
        groups: usize,
    ) -> Result<Vec<(i64, Sum)>> {
        let (x, y) = match columns {
            [x] => (x, x),
            [y, x] => (x, y),
            _ => return Err(Error::new(Kind::Bug, "a statistic has no arguments")),
        };
        let (one, other) = match self {
            Term::X => (x, None),
            Term::Y => (y, None),
            Term::XX => (x, Some(x)),
            Term::YY => (y, Some(y)),
            Term::XY => (x, Some(y)),
        };
        match (one.data_type(), other) {
            (DataType::Decimal128(..), None) => {
                let values = one.as_primitive::<Decimal128Type>().iter();
                Ok(rows.add_up(values, groups, IntAdder::add, |sum| sum.finish().into()))
            }
            (DataType::Decimal128(precision, _), Some(_)) => {
                Ok(squares(one, *precision, rows, groups))
            }
            (DataType::Float64, None) => {
                let values = one.as_primitive::<Float64Type>().iter();
                let total = |sum: FloatAdder| Sum::Float(Box::new(sum.finish()));
                Ok(rows.add_up(values, groups, FloatAdder::add, total))
            }
            (DataType::Float64, Some(other)) => {
                let ones = one.as_primitive::<Float64Type>().iter();
                let others = other.as_primitive::<Float64Type>().iter();
                let values = ones.zip(others).map(|(one, other)| one.zip(other));
                let add = |sum: &mut FloatSum, (one, other), times| {
                    sum.add_product(one, other, times);
                };
                Ok(rows.add_up(values, groups, add, |sum| Sum::Float(Box::new(sum))))
            }
            (kind, _) => {
                let what = format!("a statistic of {kind} reached the renderer");
                Err(Error::new(Kind::Bug, what))
            }
        }
    }
}

/// The sums of the squares of decimals.
fn squares(column: &ArrayRef, precision: u8, rows: Rows<'_>, groups: usize) -> Vec<(i64, Sum)> {
    let values = column.as_primitive::<Decimal128Type>().iter();
    if precision <= NARROW_DIGITS {
        let add = |sum: &mut IntAdder, value: i128, times| sum.add(value * value, times);
        return rows.add_up(values, groups, add, |sum| sum.finish().into());
    }
    let add = |sum: &mut FloatSum, value, times| sum.add_whole_product(value, value, times);
    rows.add_up(values, groups, add, |sum| Sum::Float(Box::new(sum)))
}

/// The values of a statistic, and the indices of groups whose value does not fit the output type.
///
/// # Errors
/// `Bug` when the output type is not the statistic's.
pub(crate) fn finish<'a>(
    function: Function,
    terms: Terms,
    groups: impl Iterator<Item = &'a [Cell]>,
    (argument, output): (Option<&DataType>, &DataType),
) -> Result<(ArrayRef, Vec<usize>)> {
    let mut left_out = Vec::new();
    let array: ArrayRef = match (output, argument) {
        (DataType::Int64, _) => Arc::new(Int64Array::from_iter_values(groups.map(counted))),
        (DataType::Decimal128(precision, scale), Some(DataType::Decimal128(_, from))) => {
            let values = groups.enumerate().map(|(index, cells)| {
                if counted(cells) < least(function) {
                    return None;
                }
                let value = numeric(function, terms, (cells, *from), (*precision, *scale));
                if value.is_none() {
                    left_out.push(index);
                }
                value
            });
            let values = values.collect::<Decimal128Array>();
            let values = values.with_precision_and_scale(*precision, *scale);
            Arc::new(values.map_err(tidemill_ir::row::bug)?)
        }
        (DataType::Float64, _) => {
            let values = groups.enumerate().map(|(index, cells)| {
                if counted(cells) < least(function) {
                    return None;
                }
                let value = Moments::of(terms, cells).value(function);
                if value == Value::Beyond {
                    left_out.push(index);
                }
                value.number()
            });
            Arc::new(values.collect::<Float64Array>())
        }
        (kind, _) => {
            let what = format!("{function:?} into {kind} reached the renderer");
            return Err(Error::new(Kind::Bug, what));
        }
    };
    Ok((array, left_out))
}

/// The number of rows that count.
fn counted(cells: &[Cell]) -> i64 {
    cells.first().map_or(0, |cell| cell.count)
}

/// The least number of rows over which a statistic is not null.
fn least(function: Function) -> i64 {
    match function {
        Function::VarSamp | Function::StddevSamp | Function::CovarSamp => 2,
        _ => 1,
    }
}

/// The digits of a deviation of numerics; `None` if it does not fit.
fn numeric(
    function: Function,
    terms: Terms,
    (cells, scale): (&[Cell], i8),
    to: (u8, i8),
) -> Option<i128> {
    let whole = |term| {
        let (digits, exponent) = terms.cell(term, cells).map(Cell::exact).unwrap_or_default();
        digits << exponent
    };
    let sums = Sums {
        count: counted(cells),
        sum: whole(Term::X),
        squares: whole(Term::XX),
        scale,
    };
    let which = Deviation {
        sample: matches!(function, Function::VarSamp | Function::StddevSamp),
        root: matches!(function, Function::StddevPop | Function::StddevSamp),
    };
    deviation(which, &sums, to)
}

/// The value of a statistic of floating-point numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Value {
    /// This number, which may be NaN.
    Number(f64),
    /// Null: the statistic is not defined for the rows.
    Null,
    /// The number is finite and too large for a double.
    Beyond,
}

impl Value {
    /// The number, if there is one.
    fn number(self) -> Option<f64> {
        match self {
            Value::Number(number) => Some(number),
            Value::Null | Value::Beyond => None,
        }
    }

    /// The square root.
    fn root(self) -> Self {
        match self {
            Value::Number(number) => Value::Number(number.sqrt()),
            other => other,
        }
    }
}

/// The exact sums of a group, and what follows from them.
struct Moments<'a> {
    /// Which sums there are.
    terms: Terms,
    /// The cells of the sums.
    cells: &'a [Cell],
    /// The number of rows.
    count: BigInt,
}

impl<'a> Moments<'a> {
    /// The sums of a group.
    fn of(terms: Terms, cells: &'a [Cell]) -> Self {
        let count = counted(cells).into();
        Self {
            terms,
            cells,
            count,
        }
    }

    /// A sum; zero if the statistic does not need it.
    fn sum(&self, term: Term) -> Exact {
        let cell = self.terms.cell(term, self.cells);
        let (digits, exponent) = cell.map(Cell::exact).unwrap_or_default();
        Exact { digits, exponent }
    }

    /// Whether a value of `x` or `y` is infinite or no number.
    fn is_special(&self, term: Term) -> bool {
        let cell = self.terms.cell(term, self.cells);
        cell.is_some_and(Cell::is_special)
    }

    /// `n Σuv - Σu Σv`.
    fn spread(&self, product: Term, one: Term, other: Term) -> Exact {
        let scaled = self.sum(product).times(&self.count);
        scaled.minus(&self.sum(one).product(&self.sum(other)))
    }

    /// The spread of `x`.
    fn of_x(&self) -> Exact {
        self.spread(Term::XX, Term::X, Term::X)
    }

    /// The spread of `y`.
    fn of_y(&self) -> Exact {
        self.spread(Term::YY, Term::Y, Term::Y)
    }

    /// The common spread.
    fn of_both(&self) -> Exact {
        self.spread(Term::XY, Term::X, Term::Y)
    }

    /// The average of `x` or `y`, divided as `avg` divides.
    fn average(&self, term: Term) -> Value {
        let sum = self.terms.cell(term, self.cells).and_then(Cell::float);
        let count = counted(self.cells) as f64;
        match sum {
            Some(Some(sum)) => Value::Number(sum / count),
            Some(None) => Value::Beyond,
            None => Value::Null,
        }
    }

    /// A quotient, which is NaN if a value of the terms is special.
    fn quotient(&self, special: &[Term], above: &Exact, below: &Exact) -> Value {
        if special.iter().any(|term| self.is_special(*term)) {
            return Value::Number(f64::NAN);
        }
        ratio(above, below).map_or(Value::Beyond, Value::Number)
    }

    /// The value of a statistic over at least [`least`] rows.
    fn value(&self, function: Function) -> Value {
        use Term::{X, Y};
        let whole = Exact::from(self.count.clone());
        let squared = whole.times(&self.count);
        let sample = whole.times(&(&self.count - 1));
        match function {
            Function::VarPop => self.quotient(&[X], &self.of_x(), &squared),
            Function::VarSamp => self.quotient(&[X], &self.of_x(), &sample),
            Function::StddevPop => self.value(Function::VarPop).root(),
            Function::StddevSamp => self.value(Function::VarSamp).root(),
            Function::RegrSxx => self.quotient(&[X], &self.of_x(), &whole),
            Function::RegrSyy => self.quotient(&[Y], &self.of_y(), &whole),
            Function::RegrSxy => self.quotient(&[X, Y], &self.of_both(), &whole),
            Function::CovarPop => self.quotient(&[X, Y], &self.of_both(), &squared),
            Function::CovarSamp => self.quotient(&[X, Y], &self.of_both(), &sample),
            Function::RegrAvgx => self.average(X),
            Function::RegrAvgy => self.average(Y),
            _ => self.line(function),
        }
    }

    /// Whether all values of `x` or `y` are the same number.
    fn is_flat(&self, term: Term, spread: &Exact) -> bool {
        !self.is_special(term) && spread.is_zero()
    }

    /// The value of a statistic of the line through the pairs.
    fn line(&self, function: Function) -> Value {
        use Term::{X, Y};
        let (of_x, of_both) = (self.of_x(), self.of_both());
        if self.is_flat(X, &of_x) {
            return Value::Null;
        }
        match function {
            Function::RegrSlope => self.quotient(&[X, Y], &of_both, &of_x),
            Function::RegrIntercept => {
                let above = self.sum(Y).product(&of_x);
                let above = above.minus(&self.sum(X).product(&of_both));
                self.quotient(&[X, Y], &above, &of_x.times(&self.count))
            }
            _ => {
                let of_y = self.of_y();
                let flat = self.is_flat(Y, &of_y);
                if flat {
                    return match function {
                        Function::RegrR2 => Value::Number(1.0),
                        _ => Value::Null,
                    };
                }
                let above = of_both.product(&of_both);
                let squared = self.quotient(&[X, Y], &above, &of_x.product(&of_y));
                match (function, squared) {
                    (Function::RegrR2, squared) => squared,
                    (_, Value::Number(_)) if of_both.is_negative() => match squared.root() {
                        Value::Number(root) => Value::Number(-root),
                        other => other,
                    },
                    _ => squared.root(),
                }
            }
        }
    }
}
