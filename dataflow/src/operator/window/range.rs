//! RANGE frames with offsets: bounds at a distance of the ORDER BY value.
//!
//! | ORDER BY | compared as |
//! |---|---|
//! | integers, numerics | their digits at one scale, in 256 bits |
//! | floating-point numbers | `double precision`, NaN above all numbers |
//! | dates and timestamps | microseconds since 1970 |
//!
//! Nulls are peers of one another, and are before or after all other rows.
//!
//! Source: PostgreSQL's `in_range` functions (`int8.c`, `numeric.c`, `float.c`, `timestamp.c`), and
//! `update_frameheadpos` and `update_frametailpos` (`nodeWindowAgg.c`). A bound of a date or a
//! timestamp that is out of range, for which PostgreSQL fails, is before or after all rows here.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Decimal128Type, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType, i256,
};
use tidemill_functions::shifted;
use tidemill_ir::{Frame, FrameBound, FrameOffset, OrderBy};
use tidemill_log::{Error, Kind, Result};

/// The ORDER BY values of rows, with the bounds of a frame.
pub(super) struct Axis {
    /// The values.
    values: Values,
    /// Whether the greatest value is first.
    descending: bool,
    /// Whether nulls are before all other values.
    nulls_first: bool,
    /// The bound at the start.
    start: Option<Step>,
    /// The bound at the end.
    end: Option<Step>,
}

/// Values in the form in which they are compared; `None` is null.
enum Values {
    /// Integers and numerics: the digits at one scale.
    Exact(Vec<Option<i256>>),
    /// Floating-point numbers.
    Double(Vec<Option<f64>>),
    /// Dates and timestamps: microseconds since 1970.
    Time(Vec<Option<i64>>),
}

/// A distance from the row's value.
struct Step {
    /// Whether the bound is before the row in the order.
    preceding: bool,
    /// The distance, in the form of the values.
    distance: Distance,
}

/// A distance between values.
enum Distance {
    /// Of digits at the scale of the values.
    Exact(i256),
    /// Of floating-point numbers.
    Double(f64),
    /// Months, days and microseconds.
    Time(i32, i32, i64),
}

/// 10^`exponent`.
fn power(exponent: i32) -> i256 {
    i256::from_i128(10).wrapping_pow(u32::try_from(exponent).unwrap_or(0))
}

impl Axis {
    /// The values of `column`, which is ordered by `by`, with the bounds of `frame`.
    ///
    /// # Errors
    /// `Bug` when the planner let a type or an offset through that cannot be compared here.
    pub(super) fn new(by: &OrderBy, column: &ArrayRef, frame: &Frame) -> Result<Self> {
        let to = |kind: &DataType| cast(column, kind).map_err(tidemill_ir::row::bug);
        let offsets = [&frame.start, &frame.end].into_iter();
        let scales = offsets.filter_map(|bound| match offset(bound) {
            Some((_, FrameOffset::Number { scale, .. })) => Some(i32::from(scale)),
            _ => None,
        });
        let scale = scales.max().unwrap_or(0);
        let (values, scale) = match column.data_type() {
            DataType::Decimal128(_, own) => {
                let own = i32::from(*own);
                let scale = scale.max(own);
                let digits = column.as_primitive::<Decimal128Type>().iter();
                let digit = |it: i128| i256::from_i128(it).wrapping_mul(power(scale - own));
                (
                    Values::Exact(digits.map(|it| it.map(digit)).collect()),
                    scale,
                )
            }
            kind if kind.is_integer() => {
                let wide = to(&DataType::Int64)?;
                let wide = wide.as_primitive::<Int64Type>().iter();
                let digit = |it: i64| i256::from_i128(it.into()).wrapping_mul(power(scale));
                (Values::Exact(wide.map(|it| it.map(digit)).collect()), scale)
            }
            kind if kind.is_floating() => {
                let wide = to(&DataType::Float64)?;
                let wide = wide.as_primitive::<Float64Type>().iter().collect();
                (Values::Double(wide), scale)
            }
            kind @ (DataType::Date32 | DataType::Timestamp(..)) => {
                let zone = match kind {
                    DataType::Timestamp(_, zone) => zone.clone(),
                    _ => None,
                };
                let stamps = to(&DataType::Timestamp(TimeUnit::Microsecond, zone))?;
                let stamps = stamps.as_primitive::<TimestampMicrosecondType>();
                (Values::Time(stamps.iter().collect()), scale)
            }
            kind => return Err(unknown(&format!("RANGE over {kind}"))),
        };
        let step = |bound: &FrameBound| -> Result<Option<Step>> {
            let Some((preceding, offset)) = offset(bound) else {
                return Ok(None);
            };
            let distance = distance(offset, &values, scale)?;
            Ok(Some(Step {
                preceding,
                distance,
            }))
        };
        let (start, end) = (step(&frame.start)?, step(&frame.end)?);
        Ok(Self {
            values,
            descending: by.descending,
            nulls_first: by.nulls_first,
            start,
            end,
        })
    }

    /// The first of the rows that is not before the start of the frame of `row`.
    pub(super) fn start(&self, row: usize, mut rows: Range<usize>) -> usize {
        let Some(step) = &self.start else {
            return rows.start;
        };
        let inside = |other: usize| match (self.is_null(other), self.is_null(row)) {
            (false, false) => self.in_range(other, row, step, false),
            (null, current) if self.nulls_first => !null || current,
            (null, current) => null || !current,
        };
        rows.find(|other| inside(*other)).unwrap_or(rows.end)
    }

    /// The first of the rows that is after the end of the frame of `row`.
    pub(super) fn end(&self, row: usize, mut rows: Range<usize>) -> usize {
        let Some(step) = &self.end else {
            return rows.end;
        };
        let inside = |other: usize| match (self.is_null(other), self.is_null(row)) {
            (false, false) => self.in_range(other, row, step, true),
            (null, _) if self.nulls_first => null,
            (_, current) => current,
        };
        rows.find(|other| !inside(*other)).unwrap_or(rows.end)
    }

    /// Whether the value of a row is null.
    fn is_null(&self, row: usize) -> bool {
        match &self.values {
            Values::Exact(values) => values[row].is_none(),
            Values::Double(values) => values[row].is_none(),
            Values::Time(values) => values[row].is_none(),
        }
    }

    /// Whether `row` is not before (or, with `less`, not after) the bound of the frame of `base`.
    fn in_range(&self, row: usize, base: usize, step: &Step, less: bool) -> bool {
        // In a descending order, before is greater.
        let subtract = step.preceding != self.descending;
        let less = less != self.descending;
        match (&self.values, &step.distance) {
            (Values::Exact(values), Distance::Exact(distance)) => {
                let (Some(value), Some(base)) = (values[row], values[base]) else {
                    return false;
                };
                let bound = match subtract {
                    true => base.wrapping_sub(*distance),
                    false => base.wrapping_add(*distance),
                };
                if less { value <= bound } else { value >= bound }
            }
            (Values::Double(values), Distance::Double(distance)) => {
                let (Some(value), Some(base)) = (values[row], values[base]) else {
                    return false;
                };
                match (value.is_nan(), base.is_nan()) {
                    (true, true) => true,
                    (true, false) => !less,
                    (false, true) => less,
                    (false, false) => {
                        let bound = match subtract {
                            true => base - distance,
                            false => base + distance,
                        };
                        if less { value <= bound } else { value >= bound }
                    }
                }
            }
            (Values::Time(values), Distance::Time(months, days, micros)) => {
                let (Some(value), Some(base)) = (values[row], values[base]) else {
                    return false;
                };
                let by = match subtract {
                    true => (-months, -days, -micros),
                    false => (*months, *days, *micros),
                };
                match shifted(base, by) {
                    Some(bound) => {
                        if less {
                            value <= bound
                        } else {
                            value >= bound
                        }
                    }
                    // The bound is before all values if it was subtracted, and else after them.
                    None => less != subtract,
                }
            }
            _ => false,
        }
    }
}

/// The offset of a bound, and whether it is before the row.
fn offset(bound: &FrameBound) -> Option<(bool, FrameOffset)> {
    match bound {
        FrameBound::Preceding(FrameOffset::Count(_))
        | FrameBound::Following(FrameOffset::Count(_)) => None,
        FrameBound::Preceding(offset) => Some((true, *offset)),
        FrameBound::Following(offset) => Some((false, *offset)),
        _ => None,
    }
}

/// A distance in the form of the values, whose digits have this scale.
fn distance(offset: FrameOffset, values: &Values, scale: i32) -> Result<Distance> {
    match (offset, values) {
        (FrameOffset::Number { digits, scale: own }, Values::Exact(_)) => {
            let digits = i256::from_i128(digits);
            Ok(Distance::Exact(
                digits.wrapping_mul(power(scale - i32::from(own))),
            ))
        }
        (offset @ FrameOffset::Number { .. }, Values::Double(_)) => {
            let distance = offset.to_string().parse();
            let distance = distance.map_err(|_| unknown(&format!("the offset {offset}")))?;
            Ok(Distance::Double(distance))
        }
        (
            FrameOffset::Interval {
                months,
                days,
                micros,
            },
            Values::Time(_),
        ) => Ok(Distance::Time(months, days, micros)),
        (offset, _) => Err(unknown(&format!("the offset {offset}"))),
    }
}

/// The error of a frame that the planner should have refused.
fn unknown(what: &str) -> Error {
    Error::new(Kind::Bug, format!("{what} reached the renderer"))
}
