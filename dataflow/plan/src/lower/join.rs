//! Planning of joins: from a join of the logical plan to [`RelOp::Join`].
//!
//! Input: a join whose equalities the optimizer has extracted from its condition. Output: a
//! [`RelOp::Join`] on these equalities. The rest of the condition of an inner join is a filter
//! above the join; that of the other joins belongs to the join itself, because it decides which
//! rows have a partner.
//!
//! ```text
//! Join on a.id = b.id, filter a.x < b.y     Compute filter: x < y
//!   a                                   ─►    Join keys (id, id)
//!   b                                           a, b
//! ```
//!
//! A right join is a left join with its sides exchanged. A full join is a left join, and the right
//! rows that have no partner, with nulls for the left columns.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion_common::{DFSchema, NullEquality, Result, ScalarValue, internal_err, not_impl_err};
use datafusion_expr::expr::BinaryExpr;
use datafusion_expr::logical_plan::Join;
use datafusion_expr::utils::split_conjunction;
use datafusion_expr::{Expr, JoinType, LogicalPlan, Operator};
use tidemill_ir::{JoinKey, JoinKind, Rel, RelOp, Scalar};

use crate::lower::{Inputs, Pending, distinctly_named};
use crate::push::position;

/// The two sides of a join, and its condition.
struct Sides<'a> {
    /// The left side, materialised.
    left: Pending,
    /// The right side, materialised.
    right: Pending,
    /// The equalities, each with whether null equals null: one expression for each side.
    equal: Vec<(&'a Expr, &'a Expr, bool)>,
    /// The other conditions, over both sides.
    others: Vec<&'a Expr>,
}

impl Inputs<'_> {
    /// Lowers a join.
    ///
    /// # Errors
    /// A plan error for a kind of join that SQL does not write.
    ///
    /// The columns of the result are those of the left side, then those of the right side. A name
    /// that occurs again gets a number.
    pub(crate) fn join(&self, join: &Join) -> Result<Pending> {
        let sides = self.sides(join)?;
        let columns = sides.left.base.schema.fields().len();
        match join.join_type {
            JoinType::Inner => {
                let joined = sides.rel(JoinKind::Inner, &[])?;
                let joined = Pending::of(joined, Arc::clone(&join.schema));
                let others = sides.others.into_iter().cloned();
                match others.reduce(Expr::and) {
                    Some(condition) => joined.filtered(&condition),
                    None => Ok(joined),
                }
            }
            JoinType::Left => {
                let joined = sides.rel(JoinKind::Left, &sides.conditions()?)?;
                Ok(Pending::of(joined, Arc::clone(&join.schema)))
            }
            JoinType::Right => {
                let joined = sides.exchanged();
                let joined = joined.rel(JoinKind::Left, &joined.conditions()?)?;
                let others = joined.schema.fields().len() - columns;
                let order = (others..others + columns).chain(0..others);
                reordered(joined, order.map(Some), join)
            }
            JoinType::Full => self.full(join, sides),
            JoinType::LeftSemi => {
                let joined = sides.rel(JoinKind::Semi, &sides.conditions()?)?;
                Ok(Pending::of(joined, Arc::clone(&join.schema)))
            }
            JoinType::LeftAnti => {
                let joined = sides.rel(JoinKind::Anti, &sides.conditions()?)?;
                Ok(Pending::of(joined, Arc::clone(&join.schema)))
            }
            other => not_impl_err!("{other} JOIN is not supported in views yet"),
        }
    }

    /// Lowers a full join: a left join, and the right rows without a partner.
    fn full(&self, join: &Join, sides: Sides<'_>) -> Result<Pending> {
        let columns = sides.left.base.schema.fields().len();
        let left = sides.rel(JoinKind::Left, &sides.conditions()?)?;
        let alone = sides.exchanged();
        let alone = alone.rel(JoinKind::Anti, &alone.conditions()?)?;
        let others = alone.schema.fields().len();
        let order = (0..columns).map(|_| None).chain((0..others).map(Some));
        let alone = reordered(alone, order, join)?.finish()?;
        let left = Pending::of(left, Arc::clone(&join.schema)).finish()?;
        let fields = left.schema.fields().iter();
        let fields = fields.map(|field| field.as_ref().clone().with_nullable(true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let inputs = [left, alone].map(|input| super::renamed(input, &schema));
        let rel = Rel {
            schema,
            op: RelOp::Union {
                inputs: inputs.into_iter().collect::<Result<_>>()?,
            },
        };
        Ok(Pending::of(rel, Arc::clone(&join.schema)))
    }

    /// Lowers both sides of a join, and divides its condition.
    fn sides<'j>(&self, join: &'j Join) -> Result<Sides<'j>> {
        let side = |plan: &LogicalPlan| self.lower(plan)?.materialised();
        let (left, right) = (side(&join.left)?, side(&join.right)?);
        let nulls_equal = join.null_equality == NullEquality::NullEqualsNull;
        let on = join.on.iter();
        let mut equal: Vec<_> = on.map(|(left, right)| (left, right, nulls_equal)).collect();
        let mut others = Vec::new();
        for condition in join.filter.iter().flat_map(split_conjunction) {
            match equality(condition, &left.scope, &right.scope) {
                Some(pair) => equal.push(pair),
                None => others.push(condition),
            }
        }
        Ok(Sides {
            left,
            right,
            equal,
            others,
        })
    }
}

/// The two sides of a condition that is an equality between the sides of a join.
fn equality<'e>(
    condition: &'e Expr,
    left: &DFSchema,
    right: &DFSchema,
) -> Option<(&'e Expr, &'e Expr, bool)> {
    let Expr::BinaryExpr(BinaryExpr {
        left: one,
        op,
        right: other,
    }) = condition
    else {
        return None;
    };
    let nulls_equal = match op {
        Operator::Eq => false,
        Operator::IsNotDistinctFrom => true,
        _ => return None,
    };
    let of = |expr: &Expr, schema: &DFSchema| {
        let columns = expr.column_refs();
        !columns.is_empty() && columns.iter().all(|it| position(schema, it).is_some())
    };
    match (
        of(one, left) && of(other, right),
        of(one, right) && of(other, left),
    ) {
        (true, false) => Some((one, other, nulls_equal)),
        (false, true) => Some((other, one, nulls_equal)),
        _ => None,
    }
}

impl Sides<'_> {
    /// The same join with the sides exchanged.
    fn exchanged(&self) -> Self {
        let exchanged = |(one, other, nulls_equal): &(_, _, bool)| (*other, *one, *nulls_equal);
        Self {
            left: self.right.clone(),
            right: self.left.clone(),
            equal: self.equal.iter().map(exchanged).collect(),
            others: self.others.clone(),
        }
    }

    /// The keys of the join.
    fn keys(&self) -> Result<Vec<JoinKey>> {
        let mut keys = Vec::new();
        for (one, other, nulls_equal) in &self.equal {
            let left = self.left.scalar(&self.left.bind(one)?)?;
            let right = self.right.scalar(&self.right.bind(other)?)?;
            let kinds = (
                left.expr.data_type(&self.left.base.schema)?,
                right.expr.data_type(&self.right.base.schema)?,
            );
            if kinds.0 != kinds.1 {
                let (left, right) = (left.text, right.text);
                return internal_err!("`{left}` and `{right}` are of different types");
            }
            keys.push(JoinKey {
                left,
                right,
                nulls_equal: *nulls_equal,
            });
        }
        Ok(keys)
    }

    /// The conditions beside the keys, over the columns of both sides.
    fn conditions(&self) -> Result<Vec<Scalar>> {
        let scope = Arc::new(self.left.scope.join(&self.right.scope)?);
        let pairs = Rel {
            schema: Arc::new(Schema::new(self.fields())),
            op: RelOp::Union { inputs: Vec::new() },
        };
        let pairs = Pending::of(pairs, scope);
        let others = self.others.iter();
        let others = others.map(|condition| pairs.scalar(&pairs.bind(condition)?));
        others.collect()
    }

    /// The columns of a pair of rows.
    fn fields(&self) -> Vec<Field> {
        let fields = self.left.base.schema.fields().iter();
        let fields = fields.chain(self.right.base.schema.fields());
        distinctly_named(fields.map(|field| field.as_ref().clone()).collect())
    }

    /// The join as a relation.
    fn rel(&self, kind: JoinKind, conditions: &[Scalar]) -> Result<Rel> {
        let columns = self.left.base.schema.fields().len();
        let mut fields = self.fields();
        match kind {
            JoinKind::Inner => {}
            // A row without a partner has nulls.
            JoinKind::Left => {
                for field in fields.iter_mut().skip(columns) {
                    field.set_nullable(true);
                }
            }
            JoinKind::Semi | JoinKind::Anti => fields.truncate(columns),
        }
        Ok(Rel {
            schema: Arc::new(Schema::new(fields)),
            op: RelOp::Join {
                kind,
                left: Box::new(self.left.base.clone()),
                right: Box::new(self.right.base.clone()),
                keys: self.keys()?,
                conditions: conditions.to_vec(),
            },
        })
    }
}

/// The columns of `rel` in the order of the join's columns; `None` is a null.
fn reordered(rel: Rel, order: impl Iterator<Item = Option<usize>>, join: &Join) -> Result<Pending> {
    let all = Pending::of(rel, Arc::clone(&join.schema));
    let mut outputs = Vec::new();
    for (column, field) in order.zip(join.schema.fields()) {
        outputs.push(match column.and_then(|column| all.outputs.get(column)) {
            Some(output) => output.clone(),
            None => Expr::Literal(ScalarValue::try_from(field.data_type())?, None),
        });
    }
    Ok(Pending { outputs, ..all })
}
