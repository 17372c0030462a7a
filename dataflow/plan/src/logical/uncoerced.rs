//! Guard against implicit casts of the library.
//!
//! Types follow PostgreSQL's rules from [`tidemill_functions`] on. DataFusion's analyzer has rules
//! of its own for implicit casts. A view in which it would add a cast is refused.
//!
//! The comparison is by the sets of casts before and after. A cast of NULL does not count, because
//! NULL has every type.

use std::collections::HashSet;

use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{Result, plan_err};
use datafusion_expr::{Expr, LogicalPlan};

/// The casts in a plan.
///
/// Each different cast is in the set once.
fn casts(plan: &LogicalPlan) -> Result<HashSet<Expr>> {
    let mut found = HashSet::new();
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if matches!(expr, Expr::Cast(_) | Expr::TryCast(_)) {
                    found.insert(expr.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(found)
}

/// The result of `analyze`, if it adds no cast to the plan.
///
/// # Errors
/// A plan error that names the expression to be cast.
pub(crate) fn analyzed(
    plan: LogicalPlan,
    analyze: impl FnOnce(LogicalPlan) -> Result<LogicalPlan>,
) -> Result<LogicalPlan> {
    let before = casts(&plan)?;
    let plan = analyze(plan)?;
    let after = casts(&plan)?;
    // NULL has any type.
    let null = |cast: &Expr| match cast {
        Expr::Cast(cast) => matches!(&*cast.expr, Expr::Literal(value, _) if value.is_null()),
        _ => false,
    };
    let mut added = after.iter().filter(|cast| !before.contains(*cast));
    match added.find(|cast| !null(cast)) {
        Some(Expr::Cast(cast)) => plan_err!(
            "`{}` is of another type than is taken here: cast it",
            cast.expr
        ),
        Some(_) => plan_err!("a value is of another type than is taken here: cast it"),
        None => Ok(plan),
    }
}
