//! Operators of smallints, which are stored as ints: results are limited to 16 bits as in
//! PostgreSQL.
//!
//! A field's metadata says that it is a smallint ([`types::ASKED`]). Input: a call whose arguments
//! are all smallints. Output: the call over ints, with a check of its result.

use datafusion_common::Result;
use datafusion_expr::{Expr, ExprSchemable, lit};

use super::{Scope, casts, types};

/// Whether it is the literal NULL.
fn is_null(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(value, _) if value.is_null())
}

impl Scope {
    /// Whether PostgreSQL has the operator for smallints, and these arguments are smallints.
    pub(super) fn gives_smallint(&self, name: &str, args: &[Expr]) -> bool {
        match (name, args) {
            ("<<" | ">>", [value, _]) => self.is_smallint(value),
            ("+" | "-" | "*" | "/" | "%" | "&" | "|" | "#" | "abs" | "mod", args) => {
                args.iter().all(|arg| self.is_smallint(arg))
            }
            _ => false,
        }
    }

    /// Whether a value, which is stored as an int, is a smallint in PostgreSQL.
    fn is_smallint(&self, expr: &Expr) -> bool {
        match expr {
            Expr::Case(case) => {
                let results = case.when_then_expr.iter().map(|(_, then)| then);
                let mut results = results.chain(&case.else_expr);
                results.all(|result| is_null(result) || self.is_smallint(result))
            }
            Expr::ScalarFunction(call)
                if matches!(
                    call.func.name(),
                    "coalesce" | "nullif" | "greatest" | "least"
                ) =>
            {
                let mut args = call.args.iter();
                args.all(|arg| is_null(arg) || self.is_smallint(arg))
            }
            expr => expr.to_field(&self.schema).is_ok_and(|(_, field)| {
                let asked = field.metadata().get(types::ASKED);
                asked.is_some_and(|asked| asked == casts::SMALLINT)
            }),
        }
    }

    /// The result of an operator of smallints. A left shift loses the bits above 16. Every other
    /// result that does not fit fails its row.
    pub(super) fn smallint(&self, name: &str, mut value: Expr) -> Result<Expr> {
        if name == "<<" {
            value = self.internal("<<", vec![value, lit(16_i32)])?;
            value = self.internal(">>", vec![value, lit(16_i32)])?;
        }
        self.internal(casts::SMALLINT, vec![value])
    }
}
