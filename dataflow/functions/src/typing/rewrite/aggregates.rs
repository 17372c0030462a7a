//! Aggregates: their arguments checked, and cast to the types that the dataflow computes in.
//!
//! | function | argument is cast to |
//! |---|---|
//! | `sum` of bigint; `avg`, variances and deviations of int and bigint | numeric |
//! | `avg`, variances and deviations of real | double precision |
//! | functions of pairs, `percentile_cont` | double precision |
//!
//! ORDER BY inside a function stays only where it has an effect: in `string_agg`, in what collects
//! documents, and in WITHIN GROUP.

use arrow::datatypes::DataType;
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::expr::{AggregateFunction as Call, Sort};
use datafusion_expr::{Expr, lit};
use tidemill_ir::{AggregateFunction as Function, types};

use super::constant::evaluated;
use super::{Scope, refused, text_known};
use crate::entry::Kind;
use crate::typing::resolve::{Argument, implicit};
use crate::value::decimal::digits_depend_on_value;

impl Scope {
    /// Checks an aggregate's arguments, and casts them to the types that it is computed in.
    pub(super) fn aggregate(&self, mut call: Call) -> Result<Expr> {
        let filter = call.params.filter.take();
        let filter = filter.map(|filter| self.boolean(*filter, "FILTER").map(Box::new));
        call.params.filter = filter.transpose()?;
        let Some(function) = Function::named(call.func.name()) else {
            return Ok(Expr::AggregateFunction(call));
        };
        ordered_by_arguments(function, &call)?;
        if function.is_document() {
            return self.document_aggregate(function, call);
        }
        let count = call.params.args.len();
        let mut arguments = std::mem::take(&mut call.params.args).into_iter().peekable();
        let mut args = Vec::with_capacity(count);
        if function.is_of_pairs() {
            for argument in arguments {
                self.taken(function, &argument)?;
                args.push(self.implicitly(argument, Kind::Double)?);
            }
        } else {
            if let Some(argument) = arguments.next() {
                args.push(self.first(function, argument)?);
            }
            if let Some(direct) = arguments.next_if(|_| function.is_collected()) {
                args.push(self.direct(function, direct)?);
            }
            args.extend(arguments);
        }
        let order = std::mem::take(&mut call.params.order_by);
        call.params.order_by = match args.first() {
            Some(value) if function.is_ordered_set() => {
                let by = |by: Sort| Sort::new(value.clone(), by.asc, by.nulls_first);
                order.into_iter().map(by).collect()
            }
            _ if function == Function::StringAgg => self.sorted(order)?,
            _ => Vec::new(),
        };
        call.params.args = args;
        Ok(Expr::AggregateFunction(call))
    }

    /// Checks that the function takes an argument of this type.
    fn taken(&self, function: Function, argument: &Expr) -> Result<()> {
        let argument = self.argument(argument)?;
        let kind = argument.known().and_then(Kind::of);
        if kind.is_some_and(|kind| takes(function, kind)) || function == Function::Count {
            return Ok(());
        }
        let is = argument
            .known()
            .map_or_else(|| "unknown".to_owned(), types::name);
        refused(format!(
            "{}({is}) is not supported: cast the argument",
            function.name()
        ))
    }

    /// The first argument, cast to the type that is computed in.
    fn first(&self, function: Function, argument: Expr) -> Result<Expr> {
        if function == Function::StringAgg && self.argument(&argument)? == Argument::Unknown {
            return Ok(text_known(self.coerced(argument, &DataType::Utf8)?));
        }
        self.taken(function, &argument)?;
        let argument_kind = self.argument(&argument)?;
        let kind = argument_kind.known().and_then(Kind::of);
        let divides = function == Function::Avg || function.is_variance();
        // Integers and numerics are added up as numerics, and reals as doubles.
        let to = match kind {
            Some(Kind::Long) if function == Function::Sum => Kind::Numeric,
            Some(Kind::Int | Kind::Long) if divides => Kind::Numeric,
            Some(Kind::Real) if divides => Kind::Double,
            Some(_) if function == Function::PercentileCont => Kind::Double,
            _ => {
                if divides {
                    divisible(function, argument_kind.known())?;
                }
                return Ok(argument);
            }
        };
        self.implicitly(argument, to)
    }

    /// The constant behind the first argument: a separator, or a fraction.
    fn direct(&self, function: Function, argument: Expr) -> Result<Expr> {
        let name = function.name();
        let (cast, what) = match function {
            Function::StringAgg => match self.argument(&argument)? {
                Argument::Unknown | Argument::Known(DataType::Utf8) => {
                    (self.coerced(argument, &DataType::Utf8)?, "separator")
                }
                Argument::Known(other) => {
                    let is = types::name(&other);
                    return refused(format!("the separator of {name} is a text, not {is}"));
                }
            },
            _ => (self.implicitly(argument, Kind::Double)?, "fraction"),
        };
        if !cast.column_refs().is_empty() {
            return refused(format!("the {what} of {name} must be a constant"));
        }
        match evaluated(&cast)? {
            ScalarValue::Float64(Some(fraction)) if !(0.0..=1.0).contains(&fraction) => {
                refused(format!("the fraction of {name} must be from 0 to 1"))
            }
            ScalarValue::Float64(None) => refused(format!("the fraction of {name} is null")),
            // Without a separator, the texts follow each other.
            ScalarValue::Utf8(None) => Ok(lit("")),
            value => Ok(Expr::Literal(value, None)),
        }
    }

    /// Checks the expressions of an ORDER BY.
    pub(super) fn sorted(&self, order: Vec<Sort>) -> Result<Vec<Sort>> {
        for by in &order {
            let argument = self.argument(&by.expr)?;
            let kind = argument.known().and_then(Kind::of);
            let unordered = [Kind::Interval, Kind::Json, Kind::Jsonb, Kind::Texts];
            if kind.is_none_or(|kind| unordered.contains(&kind)) {
                let is = argument
                    .known()
                    .map_or_else(|| "unknown".to_owned(), types::name);
                return refused(format!(
                    "ORDER BY of {is} inside a function is not supported in views"
                ));
            }
        }
        Ok(order)
    }
}

/// Whether a function takes an argument of this kind.
fn takes(function: Function, kind: Kind) -> bool {
    match function {
        Function::Count => true,
        Function::Min | Function::Max => !matches!(
            kind,
            Kind::Bool | Kind::Bytes | Kind::Interval | Kind::Json | Kind::Jsonb | Kind::Texts
        ),
        Function::Mode | Function::PercentileDisc => !matches!(
            kind,
            Kind::Interval | Kind::Json | Kind::Jsonb | Kind::Texts
        ),
        Function::BoolAnd | Function::BoolOr => kind == Kind::Bool,
        Function::BitAnd | Function::BitOr | Function::BitXor => {
            matches!(kind, Kind::Int | Kind::Long)
        }
        Function::StringAgg => kind == Kind::Text,
        _ => implicit(kind, Kind::Double),
    }
}

/// Refuses averages and variances of numerics whose number of digits after the point depends on the
/// value, and variances with squares of more than 38 digits there.
fn divisible(function: Function, kind: Option<&DataType>) -> Result<()> {
    let name = function.name();
    match kind {
        Some(DataType::Decimal128(precision, scale))
            if digits_depend_on_value(*precision, *scale) =>
        {
            refused(format!(
                "how many digits PostgreSQL gives {name} of this numeric depends on its value: \
                 round it first, as in round(x, 6)"
            ))
        }
        Some(DataType::Decimal128(_, scale)) if *scale > 19 && function.is_variance() => {
            refused(format!(
                "{name} of a numeric with more than 19 digits after the point is not supported in \
                 views: round it, or cast it to double precision"
            ))
        }
        _ => Ok(()),
    }
}

/// Refuses ORDER BY of anything but the arguments in an aggregate over DISTINCT, as PostgreSQL
/// does.
fn ordered_by_arguments(function: Function, call: &Call) -> Result<()> {
    let mut order = call.params.order_by.iter();
    if call.params.distinct && !order.all(|by| call.params.args.contains(&by.expr)) {
        return refused(format!(
            "in {}(DISTINCT …), ORDER BY takes only the arguments",
            function.name()
        ));
    }
    Ok(())
}
