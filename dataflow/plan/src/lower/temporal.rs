//! Planning of temporal filters: from comparisons with `now()` to [`RelOp::Temporal`].
//!
//! Input: the conditions of a filter that contain `now()`. Output: a node over the rows that pass
//! the other conditions. A value that is compared and is no column of the rows becomes one, which
//! is removed again above the filter:
//!
//! ```text
//!                                        Compute outputs: a, b
//! Filter a + b > now() AND c = 1   ─►      Temporal while: a + b > now()
//!   Projection a, b                          Compute filter: c = 1, outputs: a, b, a + b
//! ```
//!
//! A clock expression is followed from `now()` outwards: casts, an interval or days that are added
//! or subtracted, `date_trunc` and `AT TIME ZONE 'UTC'`. Months are refused, because they make it
//! go back: one month before March 30 09:00 is earlier than one month before March 29 10:00.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalMonthDayNano, Schema, TimeUnit};
use datafusion_common::{DFSchema, Result, ScalarValue, not_impl_err, plan_err};
use datafusion_expr::expr::{BinaryExpr, ScalarFunction};
use datafusion_expr::{Expr, Operator};
use tidemill_ir::{Clock, Comparison, DAY, Rel, RelOp, TemporalBound};

use super::{Pending, column, distinctly_named, text::text, window};
use crate::catalog::now;

/// Keeps the rows of `rows` for which all `conditions` are true, each of which contains `now()`.
///
/// # Errors
/// A plan error for a condition that is no comparison with a clock expression.
pub(super) fn filtered(rows: Pending, conditions: &[&Expr]) -> Result<Pending> {
    let columns = rows.outputs.len();
    let mut outputs = rows.outputs.clone();
    let mut bounds = Vec::new();
    for condition in conditions {
        let condition = rows.bind(condition)?;
        let (value, comparison, clock) = compared(&condition)?;
        let known = outputs.iter().position(|output| *output == value);
        let column = known.unwrap_or(outputs.len());
        if known.is_none() {
            outputs.push(value);
        }
        bounds.push(TemporalBound {
            column,
            comparison,
            clock,
            text: text(&condition),
        });
    }
    let names = window::names(&rows).into_iter();
    let more = outputs.iter().skip(columns).map(text);
    let fields = names.chain(more);
    let fields = fields.map(|name| Field::new(name, DataType::Null, true));
    let wide = Schema::new(distinctly_named(fields.collect()));
    let scope = Arc::clone(&rows.scope);
    let input = Pending {
        outputs,
        scope: Arc::new(DFSchema::try_from(wide)?),
        ..rows
    };
    let input = input.finish()?;
    for bound in &bounds {
        let kind = input.schema.field(bound.column).data_type();
        if !is_moment(kind) {
            return plan_err!("`{}` compares `now()` with no time", bound.text);
        }
    }
    let base = Rel {
        schema: Arc::clone(&input.schema),
        op: RelOp::Temporal {
            input: Box::new(input),
            bounds,
        },
    };
    let fields = base.schema.fields().iter().take(columns);
    Ok(Pending {
        outputs: fields.map(|field| column(field)).collect(),
        filters: Vec::new(),
        scope,
        base,
    })
}

/// Whether values of a type are a date or a point in time.
fn is_moment(kind: &DataType) -> bool {
    matches!(
        kind,
        DataType::Date32 | DataType::Timestamp(TimeUnit::Microsecond, _)
    )
}

/// A comparison with a clock expression, with the value on the left.
fn compared(condition: &Expr) -> Result<(Expr, Comparison, Clock)> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else {
        return not_impl_err!("{}", now::PLACES);
    };
    let (value, op, with) = match (now::mentions(left), now::mentions(right)) {
        (false, true) => (left, Some(*op), right),
        (true, false) => (right, op.swap(), left),
        _ => return not_impl_err!("{}", now::PLACES),
    };
    let comparison = match op {
        Some(Operator::Lt) => Comparison::Less,
        Some(Operator::LtEq) => Comparison::LessOrEqual,
        Some(Operator::Eq) => Comparison::Equal,
        Some(Operator::GtEq) => Comparison::GreaterOrEqual,
        Some(Operator::Gt) => Comparison::Greater,
        _ => return not_impl_err!("{}", now::PLACES),
    };
    Ok((value.as_ref().clone(), comparison, clock(with)?))
}

/// A clock expression.
///
/// # Errors
/// A plan error that names the part which is not supported.
fn clock(expr: &Expr) -> Result<Clock> {
    let unsupported = || {
        let what = text(expr);
        not_impl_err!("`{what}` is not supported in views: {}", now::CLOCKS)
    };
    let Expr::ScalarFunction(ScalarFunction { func, args }) = expr else {
        return unsupported();
    };
    let found = match (func.name(), args.as_slice()) {
        (now::NAME, []) => Some(Clock::NOW),
        ("CAST", [inner]) => {
            let of = clock(inner)?;
            match func.return_type(&[])? {
                DataType::Date32 => of.cut(DAY),
                kind if is_moment(&kind) => Some(of),
                _ => None,
            }
        }
        ("AT TIME ZONE", [inner, zone]) if is_utc(zone) => Some(clock(inner)?),
        ("date_trunc", [unit, inner]) => match unit_of(unit) {
            Some(unit) => clock(inner)?.cut(unit),
            None => None,
        },
        ("+", [inner, Expr::Literal(by, _)] | [Expr::Literal(by, _), inner]) => {
            clock(inner)?.moved(micros(by)?)
        }
        ("-", [inner, Expr::Literal(by, _)]) => match micros(by)?.checked_neg() {
            Some(by) => clock(inner)?.moved(by),
            None => None,
        },
        _ => None,
    };
    match found {
        Some(clock) => Ok(clock),
        None => unsupported(),
    }
}

/// Whether a time zone is UTC.
fn is_utc(zone: &Expr) -> bool {
    let Expr::Literal(ScalarValue::Utf8(Some(zone)), _) = zone else {
        return false;
    };
    zone.eq_ignore_ascii_case("utc")
}

/// The microseconds of a unit of `date_trunc` that always has as many.
fn unit_of(unit: &Expr) -> Option<i64> {
    let Expr::Literal(ScalarValue::Utf8(Some(unit)), _) = unit else {
        return None;
    };
    match unit.to_lowercase().as_str() {
        "second" => Some(1_000_000),
        "minute" => Some(60_000_000),
        "hour" => Some(3_600_000_000),
        "day" => Some(DAY),
        _ => None,
    }
}

/// The microseconds of an interval, or of a number of days that is added to a date.
fn micros(by: &ScalarValue) -> Result<i64> {
    let micros = match by {
        ScalarValue::IntervalMonthDayNano(Some(by)) if by.months != 0 => {
            return not_impl_err!("{}", now::MONTHS);
        }
        ScalarValue::IntervalMonthDayNano(Some(by)) => {
            let IntervalMonthDayNano {
                days, nanoseconds, ..
            } = by;
            i64::from(*days)
                .checked_mul(DAY)
                .and_then(|days| days.checked_add(nanoseconds / 1_000))
        }
        ScalarValue::Int32(Some(days)) => i64::from(*days).checked_mul(DAY),
        _ => None,
    };
    match micros {
        Some(micros) => Ok(micros),
        None => plan_err!("`{by}` cannot be added to `now()`"),
    }
}
