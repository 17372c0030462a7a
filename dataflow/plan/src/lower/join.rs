//! Planning of joins: from an inner join of the logical plan to [`RelOp::Join`].
//!
//! Input: an inner join whose equalities the optimizer has extracted from its condition. Output: a
//! [`RelOp::Join`] on these equalities, with the rest of the condition as filters above it. A join
//! without any equality would pair every row with every other row at each change, so it is refused.
//!
//! ```text
//! Join on a.id = b.id, filter a.x < b.y     Compute filter: x < y
//!   a                                   ─►    Join keys (id, id)
//!   b                                           a, b
//! ```

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion_common::{NullEquality, Result, internal_err, not_impl_err, plan_err};
use datafusion_expr::logical_plan::Join;
use datafusion_expr::{JoinType, LogicalPlan};
use tidemill_ir::{Rel, RelOp};

use crate::lower::{Inputs, Pending, distinctly_named};

impl Inputs<'_> {
    /// Lowers an inner join.
    ///
    /// # Errors
    /// A plan error for outer joins, and for joins without an equality.
    ///
    /// The columns of the result are those of the left side, then those of the right side. A name
    /// that occurs again gets a number.
    pub(crate) fn join(&self, join: &Join) -> Result<Pending> {
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
