//! Expressions with their text, and the order that an ORDER BY gives.

use std::fmt;
use std::sync::Arc;

use datafusion_physical_expr::PhysicalExpr;

/// An expression, with the text that `explain` shows.
#[derive(Debug, Clone)]
pub struct Scalar {
    /// The expression, evaluated on batches of the input.
    pub expr: Arc<dyn PhysicalExpr>,
    /// The expression as SQL-like text.
    pub text: String,
}

/// One expression of an ORDER BY.
#[derive(Debug, Clone)]
pub struct OrderBy {
    /// The expression by which rows are compared.
    pub scalar: Scalar,
    /// Whether the greatest value is first.
    pub descending: bool,
    /// Whether nulls are before all other values.
    pub nulls_first: bool,
}

impl fmt::Display for OrderBy {
    /// Names the place of nulls only if it is not PostgreSQL's default.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.scalar.text)?;
        f.write_str(if self.descending { " DESC" } else { "" })?;
        f.write_str(match (self.nulls_first, self.descending) {
            (true, false) => " NULLS FIRST",
            (false, true) => " NULLS LAST",
            _ => "",
        })
    }
}
