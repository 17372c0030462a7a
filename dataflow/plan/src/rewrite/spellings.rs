//! PostgreSQL's other spellings: what DataFusion's planner takes in one way only, written in this
//! way.
//!
//! | written | becomes |
//! |---|---|
//! | `'1 day'::interval`, `CAST('1 day' AS interval)` | `INTERVAL '1 day'` |
//! | `x = ANY (ARRAY[a, b])`, `x <> ALL (ARRAY[a, b])` | `x IN (a, b)`, `x NOT IN (a, b)` |
//! | `x > ANY (ARRAY[a, b])`, `x > ALL (ARRAY[a, b])` | `x > a OR x > b`, `x > a AND x > b` |
//! | `x LIKE ANY (ARRAY[a, b])` | `x LIKE a OR x LIKE b` |
//! | <code>@ x</code>, <code>\|/ x</code>, <code>~ x</code> | `abs(x)`, `sqrt(x)`, `x # -1` |
//! | `CURRENT_TIMESTAMP`, `transaction_timestamp()`, `statement_timestamp()` | `now()` |
//! | `CURRENT_DATE`, `LOCALTIMESTAMP` | `CAST(now() AS date)`, `CAST(now() AS timestamp)` |
//! | `date_trunc('day', at, zone)` | `date_trunc('day', at AT TIME ZONE zone) AT TIME ZONE zone` |
//!
//! An array of no elements has no such form and stays as it is, so that it is refused by name. So
//! does `date_trunc` in a zone for hours and less: where clocks are set back, an hour occurs twice,
//! and the local time alone does not tell which one is meant.

use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{
    ArrayElemTypeDef, BinaryOperator, CastKind, DataType, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, Interval, ObjectName, Query,
    TimezoneInfo, UnaryOperator, Value, VisitMut, VisitorMut,
};
use tidemill_functions::chain::chained;

use crate::catalog::now::NAME;
use crate::script::{normal, single};

/// The units of `date_trunc` that begin at a midnight.
const OF_DAYS: [&str; 8] = [
    "day",
    "week",
    "month",
    "quarter",
    "year",
    "decade",
    "century",
    "millennium",
];

/// Writes every such expression in the other way.
pub(crate) fn written(query: &mut Query) {
    let _visited: ControlFlow<()> = query.visit(&mut Spellings);
}

/// The visitor that writes out the expressions, from the inside to the outside.
struct Spellings;

impl VisitorMut for Spellings {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Some(other) = spelled(expr) {
            *expr = other;
        }
        ControlFlow::Continue(())
    }
}

/// The other form of an expression, if it has one.
fn spelled(expr: &Expr) -> Option<Expr> {
    match expr {
        Expr::Cast {
            kind: CastKind::Cast | CastKind::DoubleColon,
            expr,
            data_type,
            array: false,
            format: None,
        } => interval(expr, data_type),
        Expr::AnyOp {
            left,
            compare_op,
            right,
            ..
        } => any(left, compare_op, elements(right)?),
        Expr::AllOp {
            left,
            compare_op,
            right,
        } => all(left, compare_op, elements(right)?),
        Expr::Like { any: true, .. } | Expr::ILike { any: true, .. } => like_any(expr),
        Expr::UnaryOp { op, expr } => unary(*op, expr),
        Expr::Function(call) => trunc_in_zone(call).or_else(|| clock(call)),
        _ => None,
    }
}

/// Another name of `now()`, at the same place of the file.
fn clock(call: &Function) -> Option<Expr> {
    let empty = match &call.args {
        FunctionArguments::None => true,
        FunctionArguments::List(list) => list.args.is_empty() && list.clauses.is_empty(),
        FunctionArguments::Subquery(_) => false,
    };
    let name = single(&call.name).filter(|_| empty && call.over.is_none())?;
    let called = |called: &str| {
        let ident = Ident {
            value: called.to_owned(),
            ..name.clone()
        };
        Box::new(Expr::Function(Function {
            name: ObjectName::from(vec![ident]),
            args: FunctionArguments::List(FunctionArgumentList {
                duplicate_treatment: None,
                args: Vec::new(),
                clauses: Vec::new(),
            }),
            ..call.clone()
        }))
    };
    let cast = |data_type: DataType| Expr::Cast {
        kind: CastKind::Cast,
        expr: called(NAME),
        data_type,
        array: false,
        format: None,
    };
    match normal(name).as_str() {
        "current_timestamp" | "transaction_timestamp" | "statement_timestamp" => {
            Some(*called(NAME))
        }
        "current_date" => Some(cast(DataType::Date)),
        "localtimestamp" => Some(cast(DataType::Timestamp(None, TimezoneInfo::None))),
        _ => None,
    }
}

/// The text of a literal.
fn text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

/// A text that is cast to an interval.
fn interval(expr: &Expr, data_type: &DataType) -> Option<Expr> {
    let whole = DataType::Interval {
        fields: None,
        precision: None,
    };
    (text(expr).is_some() && *data_type == whole).then(|| {
        Expr::Interval(Interval {
            value: Box::new(expr.clone()),
            leading_field: None,
            leading_precision: None,
            last_field: None,
            fractional_seconds_precision: None,
        })
    })
}

/// The elements of an array that is written out; those of `ARRAY[…]::type[]` are cast.
fn elements(array: &Expr) -> Option<Vec<Expr>> {
    match array {
        Expr::Nested(inner) => elements(inner),
        Expr::Array(array) if !array.elem.is_empty() => Some(array.elem.clone()),
        Expr::Cast {
            kind: kind @ (CastKind::Cast | CastKind::DoubleColon),
            expr,
            data_type: DataType::Array(ArrayElemTypeDef::SquareBracket(of, _)),
            format: None,
            ..
        } => {
            let cast = |element: Expr| Expr::Cast {
                kind: kind.clone(),
                expr: Box::new(nested(element)),
                data_type: of.as_ref().clone(),
                array: false,
                format: None,
            };
            Some(elements(expr)?.into_iter().map(cast).collect())
        }
        _ => None,
    }
}

/// `left op ANY (elements)`.
fn any(left: &Expr, op: &BinaryOperator, elements: Vec<Expr>) -> Option<Expr> {
    if *op == BinaryOperator::Eq {
        return Some(in_list(left, elements, false));
    }
    joined(left, op, elements, BinaryOperator::Or)
}

/// `left op ALL (elements)`.
fn all(left: &Expr, op: &BinaryOperator, elements: Vec<Expr>) -> Option<Expr> {
    if *op == BinaryOperator::NotEq {
        return Some(in_list(left, elements, true));
    }
    joined(left, op, elements, BinaryOperator::And)
}

/// `left IN (list)`.
fn in_list(left: &Expr, list: Vec<Expr>, negated: bool) -> Expr {
    nested(Expr::InList {
        expr: Box::new(left.clone()),
        list,
        negated,
    })
}

/// `left op a OR left op b …`, or with AND.
fn joined(
    left: &Expr,
    op: &BinaryOperator,
    elements: Vec<Expr>,
    with: BinaryOperator,
) -> Option<Expr> {
    let compared = |element: Expr| nested(binary(left.clone(), op.clone(), nested(element)));
    let compared = elements.into_iter().map(compared).collect();
    chained(compared, |a, b| binary(a, with.clone(), b)).map(nested)
}

/// `x LIKE a OR x LIKE b …` of `x LIKE ANY (ARRAY[a, b])`; with NOT, each of them is negated.
fn like_any(expr: &Expr) -> Option<Expr> {
    let patterns = match expr {
        Expr::Like { pattern, .. } | Expr::ILike { pattern, .. } => elements(pattern)?,
        _ => return None,
    };
    let like = |pattern: Expr| {
        let mut one = expr.clone();
        if let Expr::Like {
            any, pattern: of, ..
        }
        | Expr::ILike {
            any, pattern: of, ..
        } = &mut one
        {
            *any = false;
            **of = pattern;
        }
        nested(one)
    };
    let each = patterns.into_iter().map(like).collect();
    chained(each, |a, b| binary(a, BinaryOperator::Or, b)).map(nested)
}

/// An operator before its operand, as a function or as an operator between two.
fn unary(op: UnaryOperator, expr: &Expr) -> Option<Expr> {
    let operand = nested(expr.clone());
    match op {
        UnaryOperator::PGAbs => Some(call("abs", operand)),
        UnaryOperator::PGSquareRoot => Some(call("sqrt", operand)),
        UnaryOperator::BitwiseNot => {
            let one = Expr::Value(Value::Number("1".to_owned(), false).into());
            let all_bits = Expr::UnaryOp {
                op: UnaryOperator::Minus,
                expr: Box::new(one),
            };
            let flipped = binary(operand, BinaryOperator::PGBitwiseXor, nested(all_bits));
            Some(nested(flipped))
        }
        _ => None,
    }
}

/// `date_trunc` with a time zone, by the local time in the zone.
fn trunc_in_zone(call: &Function) -> Option<Expr> {
    let FunctionArguments::List(list) = &call.args else {
        return None;
    };
    let [unit, at, zone] = list.args.as_slice() else {
        return None;
    };
    let is_trunc = call.name.to_string().eq_ignore_ascii_case("date_trunc");
    let (at, zone) = (argument(at)?, argument(zone)?);
    let of_days = text(argument(unit)?)?;
    let of_days = OF_DAYS.iter().any(|it| it.eq_ignore_ascii_case(of_days));
    // A zone that is computed has no other form.
    if !is_trunc || !of_days || text(zone).is_none() {
        return None;
    }
    let in_zone = |expr: Expr| Expr::AtTimeZone {
        timestamp: Box::new(nested(expr)),
        time_zone: Box::new(zone.clone()),
    };
    // A date or a timestamp without zone becomes an instant first, as PostgreSQL has it.
    let instant = Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(nested(at.clone())),
        data_type: DataType::Timestamp(None, TimezoneInfo::Tz),
        array: false,
        format: None,
    };
    let mut local = call.clone();
    if let FunctionArguments::List(list) = &mut local.args {
        list.args = vec![unit.clone(), unnamed(in_zone(instant))];
    }
    Some(nested(in_zone(Expr::Function(local))))
}

/// An argument without a name.
fn argument(argument: &FunctionArg) -> Option<&Expr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}

/// An expression as an argument.
fn unnamed(expr: Expr) -> FunctionArg {
    FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
}

/// A call of a function with one argument.
fn call(name: &str, argument: Expr) -> Expr {
    let list = FunctionArgumentList {
        duplicate_treatment: None,
        args: vec![unnamed(argument)],
        clauses: Vec::new(),
    };
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(list),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// `left op right`.
fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp {
        left: Box::new(left),
        op,
        right: Box::new(right),
    }
}

/// An expression in parentheses.
fn nested(expr: Expr) -> Expr {
    Expr::Nested(Box::new(expr))
}
