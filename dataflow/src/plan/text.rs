//! Expressions as SQL-like text: what `explain` shows and the fingerprint covers.

use std::fmt;

use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, ScalarValue};
use datafusion_expr::Expr;

use super::ir::{Aggregate, AggregateFunction};

/// SQL-like text of an expression; literals as SQL writes them.
pub(super) fn text(expr: &Expr) -> String {
    let readable = expr.clone().transform_down(|expr| {
        Ok(match &expr {
            Expr::Literal(value, _) => match literal(value) {
                Some(text) => Transformed::yes(Expr::Column(Column::from_name(text))),
                None => Transformed::no(expr),
            },
            _ => Transformed::no(expr),
        })
    });
    readable.map_or_else(|_| expr.to_string(), |readable| readable.data.to_string())
}

fn literal(value: &ScalarValue) -> Option<String> {
    if value.is_null() {
        return Some("NULL".to_owned());
    }
    match value {
        ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
            Some(format!("'{}'", text.replace('\'', "''")))
        }
        ScalarValue::Boolean(_) => Some(value.to_string()),
        _ if value.data_type().is_integer() => Some(value.to_string()),
        ScalarValue::Float64(Some(number)) => Some(format!("{number:?}")),
        _ => None,
    }
}

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.function {
            AggregateFunction::Count => "count",
            AggregateFunction::Sum => "sum",
            AggregateFunction::Avg => "avg",
            AggregateFunction::Min => "min",
            AggregateFunction::Max => "max",
            AggregateFunction::BoolAnd => "bool_and",
            AggregateFunction::BoolOr => "bool_or",
        };
        let distinct = if self.distinct { "DISTINCT " } else { "" };
        let argument = self.argument.as_ref();
        let argument = argument.map_or("*", |argument| argument.text.as_str());
        write!(f, "{name}({distinct}{argument})")?;
        match &self.filter {
            Some(filter) => write!(f, " FILTER (WHERE {})", filter.text),
            None => Ok(()),
        }
    }
}
