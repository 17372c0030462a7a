//! The names of functions and operators, as DataFusion's planner asks for them.
//!
//! Input: a function call or an operator, as parsed. Output: a call of a stand-in
//! ([`tidemill_functions::named`]), which the typing pass replaces by an entry of the function
//! table. AND, OR and the comparisons keep the planner's own node.

use datafusion_common::{DFSchema, Result};
use datafusion_expr::Expr;
use datafusion_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion_sql::sqlparser::ast::BinaryOperator;
use tidemill_functions::named;

/// Plans operators, and calls with a syntax of their own, as calls of stand-ins.
#[derive(Debug)]
pub(crate) struct Names;

/// The name of an operator in the function table; None if the planner's own node is kept.
///
/// PostgreSQL's `^` is `power`. An operator without a name here reaches the typing pass, which
/// refuses it by name.
fn operator(operator: &BinaryOperator) -> Option<&'static str> {
    Some(match operator {
        BinaryOperator::Plus => "+",
        BinaryOperator::Minus => "-",
        BinaryOperator::Multiply => "*",
        BinaryOperator::Divide => "/",
        BinaryOperator::Modulo => "%",
        BinaryOperator::StringConcat => "||",
        BinaryOperator::BitwiseAnd => "&",
        BinaryOperator::BitwiseOr => "|",
        BinaryOperator::PGBitwiseXor => "#",
        BinaryOperator::PGBitwiseShiftLeft => "<<",
        BinaryOperator::PGBitwiseShiftRight => ">>",
        BinaryOperator::PGExp => "power",
        BinaryOperator::Arrow => "->",
        BinaryOperator::LongArrow => "->>",
        BinaryOperator::HashArrow => "#>",
        BinaryOperator::HashLongArrow => "#>>",
        BinaryOperator::HashMinus => "#-",
        BinaryOperator::AtArrow => "@>",
        BinaryOperator::ArrowAt => "<@",
        BinaryOperator::Question => "?",
        BinaryOperator::QuestionPipe => "?|",
        BinaryOperator::QuestionAnd => "?&",
        BinaryOperator::PGRegexMatch => "~",
        BinaryOperator::PGRegexIMatch => "~*",
        BinaryOperator::PGRegexNotMatch => "!~",
        BinaryOperator::PGRegexNotIMatch => "!~*",
        _ => return None,
    })
}

/// Syntax with keywords (`POSITION(a IN b)`, `EXTRACT(x FROM y)`, `SUBSTRING(a FROM b)`,
/// `OVERLAY(…)`, `(a, b)`) becomes a call too. The planner passes the arguments in the order of the
/// function of the same name.
impl ExprPlanner for Names {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        _: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        Ok(match operator(&expr.op) {
            Some(name) => PlannerResult::Planned(named(name, vec![expr.left, expr.right])),
            None => PlannerResult::Original(expr),
        })
    }

    fn plan_array_literal(
        &self,
        args: Vec<Expr>,
        _: &DFSchema,
    ) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(named(
            tidemill_functions::ARRAY,
            args,
        )))
    }

    fn plan_position(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(named("strpos", args)))
    }

    fn plan_extract(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(named("extract", args)))
    }

    fn plan_substring(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(named("substring", args)))
    }

    fn plan_overlay(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(named("overlay", args)))
    }

    fn plan_struct_literal(&self, args: Vec<Expr>, _: bool) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(named(tidemill_functions::ROW, args)))
    }
}
