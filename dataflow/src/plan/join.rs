//! Joins, from the logical plan to the IR.
//!
//! In flows an inner join whose equalities the optimizer took out of its condition, out flows a
//! [`RelOp::Join`] on them with the rest of the condition as filters above. A join without any
//! equality would pair every row with every other at each change, and is refused.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion_common::{NullEquality, Result, internal_err, not_impl_err, plan_err};
use datafusion_expr::logical_plan::Join;
use datafusion_expr::{JoinType, LogicalPlan};

use super::ir::{Rel, RelOp};
use super::lower::{Inputs, Pending, distinctly_named};

impl Inputs<'_> {
    pub(super) fn join(&self, join: &Join) -> Result<Pending> {
        if join.join_type != JoinType::Inner {
            return not_impl_err!("{} JOIN is not supported in views yet", join.join_type);
        }
        if join.on.is_empty() {
            return plan_err!(
                "a join without an equality between its two sides is not supported: write \
                 JOIN … ON one.column = other.column"
            );
        }
        let side = |plan: &LogicalPlan| self.lower(plan)?.materialised();
        let (left, right) = (side(&join.left)?, side(&join.right)?);
        let mut keys = Vec::new();
        for (one, other) in &join.on {
            let one = left.scalar(&left.bind(one)?)?;
            let other = right.scalar(&right.bind(other)?)?;
            let kinds = (
                one.expr.data_type(&left.base.schema)?,
                other.expr.data_type(&right.base.schema)?,
            );
            if kinds.0 != kinds.1 {
                let (one, other) = (one.text, other.text);
                return internal_err!("`{one}` and `{other}` are of different types");
            }
            keys.push((one, other));
        }
        let fields = left.base.schema.fields().iter();
        let fields = fields.chain(right.base.schema.fields());
        let fields: Vec<Field> = fields.map(|field| field.as_ref().clone()).collect();
        let rel = Rel {
            schema: Arc::new(Schema::new(distinctly_named(fields))),
            op: RelOp::Join {
                left: Box::new(left.base),
                right: Box::new(right.base),
                keys,
                nulls_equal: join.null_equality == NullEquality::NullEqualsNull,
            },
        };
        let joined = Pending::of(rel, Arc::clone(&join.schema));
        match &join.filter {
            Some(condition) => joined.filtered(condition),
            None => Ok(joined),
        }
    }
}
