//! Expressions as SQL-like text, which `explain` shows and the fingerprint covers.
//!
//! Changing a text here changes fingerprints, and views with such expressions fill again.
//!
//! Input: a bound expression. Output: one line of text, which nothing parses.

use arrow::datatypes::DataType;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, ScalarValue};
use datafusion_expr::Expr;
use tidemill_functions::operator_text;
use tidemill_ir::types;

/// An expression as SQL-like text: literals, casts and lists as SQL writes them.
///
/// An expression of DataFusion that has no form of its own here is written as DataFusion writes it.
pub(crate) fn text(expr: &Expr) -> String {
    let readable = expr.clone().transform_up(|expr| {
        let text = match &expr {
            Expr::Literal(value, _) => literal(value),
            Expr::Cast(cast) => Some(cast_text("CAST", &cast.expr, cast.field.data_type())),
            Expr::TryCast(cast) => Some(cast_text("TRY_CAST", &cast.expr, cast.field.data_type())),
            Expr::ScalarFunction(call) => operator_text(call),
            Expr::InList(list) => {
                let not = if list.negated { "NOT " } else { "" };
                let items: Vec<String> = list.list.iter().map(Expr::to_string).collect();
                Some(format!("{} {not}IN ({})", list.expr, items.join(", ")))
            }
            _ => None,
        };
        Ok(match text {
            Some(text) => Transformed::yes(Expr::Column(Column::from_name(text))),
            None => Transformed::no(expr),
        })
    });
    readable.map_or_else(|_| expr.to_string(), |readable| readable.data.to_string())
}

/// A cast as SQL writes it.
///
/// `to` is written with its SQL name.
fn cast_text(function: &str, expr: &Expr, to: &DataType) -> String {
    format!("{function}({expr} AS {})", types::name(to))
}

/// A literal as SQL writes it; `None` for types that have no such form.
///
/// Texts are in single quotes, with quotes doubled. Dates, timestamps and intervals have their type
/// before them.
fn literal(value: &ScalarValue) -> Option<String> {
    if value.is_null() {
        return Some("NULL".to_owned());
    }
    let quoted = |kind: &str| match value.cast_to(&DataType::Utf8) {
        Ok(ScalarValue::Utf8(Some(text))) => Some(format!("{kind}'{}'", text.replace('\'', "''"))),
        _ => None,
    };
    match value.data_type() {
        DataType::Utf8 => quoted(""),
        types::JSON => quoted("json "),
        types::JSONB => quoted("jsonb "),
        DataType::Date32 | DataType::Date64 => quoted("DATE "),
        DataType::Timestamp(_, _) => quoted("TIMESTAMP "),
        DataType::Interval(_) => quoted("INTERVAL "),
        DataType::Decimal128(_, _) => match value.cast_to(&DataType::Utf8) {
            Ok(ScalarValue::Utf8(text)) => text,
            _ => None,
        },
        DataType::Float64 => match value {
            ScalarValue::Float64(number) => number.map(|number| format!("{number:?}")),
            _ => None,
        },
        DataType::Boolean => Some(value.to_string()),
        kind if kind.is_integer() => Some(value.to_string()),
        _ => None,
    }
}
