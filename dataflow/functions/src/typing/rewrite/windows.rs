//! Typing of window functions: their arguments, their constants and their frames.
//!
//! A call becomes a function that holds its constants and its frame ([`crate::typing::window`]),
//! over arguments of the types that PostgreSQL gives them. A condition of FILTER becomes a CASE of
//! the argument, because no aggregate counts nulls.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::expr::{AggregateFunction, Case, Sort, WindowFunction};
use datafusion_expr::{
    AggregateUDF, Expr, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition,
    lit,
};
use std::sync::Arc;
use tidemill_ir::{AggregateFunction as Known, Frame, FrameBound, FrameOffset, FrameUnits};
use tidemill_ir::{WindowCall, types};

use super::{Scope, evaluated, refused, text_known};
use crate::entry::Kind;
use crate::typing::window::typed;

/// Microseconds of each unit of time that an offset can have.
const TIMES: [(&str, i64); 4] = [
    ("second", 1_000_000),
    ("minute", 60_000_000),
    ("hour", 3_600_000_000),
    ("microsecond", 1),
];

impl Scope {
    /// Types a window function whose arguments have their types already. `row_number` keeps its
    /// form.
    pub(super) fn window(&self, call: WindowFunction) -> Result<Expr> {
        let WindowFunction { fun, mut params } = call;
        let name = fun.name().to_owned();
        if name == "row_number" {
            return Ok(Expr::from(WindowFunction { fun, params }));
        }
        let args = std::mem::take(&mut params.args);
        let (function, args) = match &fun {
            WindowFunctionDefinition::AggregateUDF(aggregate) => {
                let filter = params.filter.take().map(|filter| *filter);
                self.windowed(aggregate, args, filter)?
            }
            WindowFunctionDefinition::WindowUDF(_) => self.positional(&name, args)?,
        };
        let result = match function {
            WindowCall::Ntile(_) => DataType::Int32,
            WindowCall::PercentRank | WindowCall::CumeDist => DataType::Float64,
            WindowCall::RowNumber | WindowCall::Rank | WindowCall::DenseRank => DataType::Int64,
            WindowCall::Aggregate(_) => match &fun {
                WindowFunctionDefinition::AggregateUDF(aggregate) => {
                    let kinds = args.iter().map(|arg| self.kind(arg));
                    aggregate.return_type(&kinds.collect::<Result<Vec<_>>>()?)?
                }
                WindowFunctionDefinition::WindowUDF(_) => DataType::Null,
            },
            _ => match args.first() {
                Some(value) => self.kind(value)?,
                None => DataType::Null,
            },
        };
        let frame = self.frame(&params.window_frame, &params.order_by)?;
        params.args = args;
        params.window_frame = WindowFrame::new(None);
        params.distinct = false;
        params.null_treatment = None;
        let fun = WindowFunctionDefinition::WindowUDF(typed(function, frame, result));
        Ok(Expr::from(WindowFunction { fun, params }))
    }

    /// The function and the argument of an aggregate with OVER.
    fn windowed(
        &self,
        aggregate: &Arc<AggregateUDF>,
        mut args: Vec<Expr>,
        filter: Option<Expr>,
    ) -> Result<(WindowCall, Vec<Expr>)> {
        let function = match aggregate.name() {
            "count" => Known::Count,
            "sum" => Known::Sum,
            "avg" => Known::Avg,
            "min" => Known::Min,
            "max" => Known::Max,
            "bool_and" => Known::BoolAnd,
            "bool_or" => Known::BoolOr,
            name => {
                return refused(format!(
                    "window function `{name}` is not supported in views"
                ));
            }
        };
        // The star of `count(*)`.
        #[expect(deprecated, reason = "the planner still makes it")]
        let star = |arg: &Expr| matches!(arg, Expr::Wildcard { .. });
        if args.iter().any(star) {
            args = vec![lit(1)];
        }
        let plain = AggregateFunction::new_udf(
            Arc::clone(aggregate),
            args,
            false,
            filter.map(Box::new),
            Vec::new(),
            None,
        );
        let Expr::AggregateFunction(call) = self.aggregate(plain)? else {
            return refused(format!("{} is no aggregate", aggregate.name()));
        };
        let mut args = call.params.args;
        if args.len() > 1 {
            return refused(format!(
                "{} of several arguments is not supported",
                aggregate.name()
            ));
        }
        let literal = |arg: &Expr| matches!(arg, Expr::Literal(value, _) if !value.is_null());
        if function == Known::Count && args.iter().all(literal) {
            args.clear();
        }
        if let Some(filter) = call.params.filter {
            let value = args.pop().unwrap_or(lit(true));
            let pair = (filter, Box::new(value));
            args.push(Expr::Case(Case::new(None, vec![pair], None)));
        }
        Ok((WindowCall::Aggregate(function), args))
    }

    /// The function and the value arguments of a window function that is no aggregate.
    fn positional(&self, name: &str, args: Vec<Expr>) -> Result<(WindowCall, Vec<Expr>)> {
        let counts = match name {
            "ntile" | "first_value" | "last_value" => 1..=1,
            "nth_value" => 2..=2,
            "lag" | "lead" => 1..=3,
            _ => 0..=0,
        };
        if !counts.contains(&args.len()) {
            let (least, most) = counts.into_inner();
            let takes = match least == most {
                true => least.to_string(),
                false => format!("{least} to {most}"),
            };
            let is = args.len();
            return refused(format!("{name} takes {takes} arguments, not {is}"));
        }
        let mut args = args.into_iter();
        let mut next = || args.next();
        Ok(match name {
            "rank" => (WindowCall::Rank, Vec::new()),
            "dense_rank" => (WindowCall::DenseRank, Vec::new()),
            "percent_rank" => (WindowCall::PercentRank, Vec::new()),
            "cume_dist" => (WindowCall::CumeDist, Vec::new()),
            "ntile" => {
                let buckets = self.constant(name, next())?;
                (WindowCall::Ntile(positive(name, buckets)?), Vec::new())
            }
            "first_value" => (WindowCall::FirstValue, self.value(next())),
            "last_value" => (WindowCall::LastValue, self.value(next())),
            "nth_value" => {
                let value = self.value(next());
                let number = self.constant(name, next())?;
                (WindowCall::NthValue(positive(name, number)?), value)
            }
            "lag" | "lead" => {
                let value = self.value(next());
                let offset = match next() {
                    None => 1,
                    offset => self.constant(name, offset)?,
                };
                let values = value.into_iter().chain(next()).collect::<Vec<_>>();
                let values = match values.len() {
                    1 => values,
                    _ => self.alike(values, name)?,
                };
                let call = match name {
                    "lag" => WindowCall::Lag(offset),
                    _ => WindowCall::Lead(offset),
                };
                (call, values)
            }
            _ => {
                return refused(format!(
                    "window function `{name}` is not supported in views"
                ));
            }
        })
    }

    /// A value argument. A quoted literal is text, and so is NULL.
    fn value(&self, arg: Option<Expr>) -> Vec<Expr> {
        let null = |arg: &Expr| matches!(arg, Expr::Literal(ScalarValue::Null, _));
        let text = |arg: Expr| match null(&arg) {
            true => lit(ScalarValue::Utf8(None)),
            false => text_known(arg),
        };
        arg.map(text).into_iter().collect()
    }

    /// A constant argument.
    ///
    /// # Errors
    /// It is not a constant, is null or is no int.
    fn constant(&self, name: &str, arg: Option<Expr>) -> Result<i32> {
        let value = arg.map(|arg| match arg {
            Expr::Literal(value, _) => Ok(value),
            arg if arg.column_refs().is_empty() => evaluated(&arg),
            arg => refused(format!(
                "`{arg}` in {name} is not supported in views: write a number"
            )),
        });
        match value.transpose()? {
            Some(ScalarValue::Int32(Some(value))) => Ok(value),
            Some(value) => refused(format!(
                "{name} takes a whole number of int here, not {value}"
            )),
            None => refused(format!("{name} takes another argument")),
        }
    }

    /// A frame, with offsets of the kind that the ORDER BY value needs.
    fn frame(&self, frame: &WindowFrame, order: &[Sort]) -> Result<Frame> {
        let units = match frame.units {
            WindowFrameUnits::Rows => FrameUnits::Rows,
            WindowFrameUnits::Groups => FrameUnits::Groups,
            WindowFrameUnits::Range => FrameUnits::Range,
        };
        let offset = |value: &ScalarValue| -> Result<FrameOffset> {
            match (units, value, order) {
                (FrameUnits::Range, ScalarValue::Utf8(Some(text)), [by]) => {
                    offset(text, &self.kind(&by.expr)?)
                }
                (FrameUnits::Rows | FrameUnits::Groups, ScalarValue::UInt64(Some(count)), _) => {
                    Ok(FrameOffset::Count(*count))
                }
                _ => refused(format!("{value} is no offset of a frame")),
            }
        };
        let bound = |bound: &WindowFrameBound| -> Result<FrameBound> {
            Ok(match bound {
                WindowFrameBound::CurrentRow => FrameBound::CurrentRow,
                WindowFrameBound::Preceding(value) if value.is_null() => {
                    FrameBound::UnboundedPreceding
                }
                WindowFrameBound::Following(value) if value.is_null() => {
                    FrameBound::UnboundedFollowing
                }
                WindowFrameBound::Preceding(value) => FrameBound::Preceding(offset(value)?),
                WindowFrameBound::Following(value) => FrameBound::Following(offset(value)?),
            })
        };
        let (start, end) = (bound(&frame.start_bound)?, bound(&frame.end_bound)?);
        // Without ORDER BY, all rows are peers.
        let unbounded = (&start, &end)
            == (
                &FrameBound::UnboundedPreceding,
                &FrameBound::UnboundedFollowing,
            );
        let whole = order.is_empty() && (unbounded || units != FrameUnits::Rows);
        Ok(match whole {
            true => Frame::DEFAULT,
            false => Frame { units, start, end },
        })
    }
}

/// A number that is greater than zero.
fn positive(name: &str, number: i32) -> Result<i32> {
    match number {
        1.. => Ok(number),
        _ => refused(format!(
            "{name} takes a number greater than zero, not {number}"
        )),
    }
}

/// The offset of a RANGE frame for ORDER BY values of a type.
///
/// # Errors
/// The type has no offsets here, or the text is none of them.
fn offset(text: &str, kind: &DataType) -> Result<FrameOffset> {
    let found = match (Kind::of(kind), kind) {
        (Some(Kind::Int | Kind::Long), _) => number(text).filter(|(_, scale)| *scale == 0),
        (Some(Kind::Numeric | Kind::Real | Kind::Double), _) => number(text),
        (_, DataType::Date32 | DataType::Timestamp(TimeUnit::Microsecond, _)) => {
            return match interval(text) {
                Some(offset) => Ok(offset),
                None => refused(format!(
                    "`{text}` is no offset of RANGE over {}: write whole numbers of units, as in \
                     INTERVAL '1 day 2 hours'",
                    types::name(kind)
                )),
            };
        }
        _ => {
            return refused(format!(
                "RANGE with an offset over {} is not supported in views",
                types::name(kind)
            ));
        }
    };
    match found {
        Some((digits, scale)) => Ok(FrameOffset::Number { digits, scale }),
        None => refused(format!(
            "`{text}` is no offset of RANGE over {}",
            types::name(kind)
        )),
    }
}

/// The digits of a decimal literal, and how many of them are after the point.
fn number(text: &str) -> Option<(i128, u8)> {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    let digits = format!("{whole}{rest}");
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.len() <= 37;
    match plain {
        true => Some((digits.parse().ok()?, u8::try_from(rest.len()).ok()?)),
        false => None,
    }
}

/// An interval of whole numbers of units, each without a sign.
fn interval(text: &str) -> Option<FrameOffset> {
    let text = text.to_ascii_lowercase();
    let mut words = text.split_ascii_whitespace();
    let (mut months, mut days, mut micros) = (0_i32, 0_i32, 0_i64);
    let mut any = false;
    while let Some(number) = words.next() {
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let number: i32 = number.parse().ok()?;
        let unit = words.next()?;
        let unit = unit.strip_suffix('s').unwrap_or(unit);
        let times = TIMES.iter().find(|(name, _)| *name == unit);
        match (unit, times) {
            (_, Some((_, micro))) => {
                micros = micros.checked_add(i64::from(number).checked_mul(*micro)?)?;
            }
            ("year", _) => months = months.checked_add(number.checked_mul(12)?)?,
            ("month", _) => months = months.checked_add(number)?,
            ("week", _) => days = days.checked_add(number.checked_mul(7)?)?,
            ("day", _) => days = days.checked_add(number)?,
            _ => return None,
        }
        any = true;
    }
    any.then_some(FrameOffset::Interval {
        months,
        days,
        micros,
    })
}
