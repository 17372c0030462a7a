//! Planning of WITH RECURSIVE: the two terms get one schema, and the recursive term is checked.
//!
//! The dataflow computes the recursive term of all rows that the work table has held so far, where
//! PostgreSQL computes it of the rows of the last iteration. Both give the same rows if each row of
//! the term's result comes from one row of the work table. Filters, projections and most joins are
//! such; what compares rows of the work table with each other is not, and is refused.
//!
//! | over the work table | accepted |
//! |---|---|
//! | filter, projection, UNION ALL | yes |
//! | inner join with other relations | yes |
//! | left, semi and anti join | if the work table is on the left |
//! | DISTINCT | if the recursive query is a UNION, because a row counts once anyway |
//! | EXISTS, IN and scalar subqueries that read it | if what they compute is accepted here |
//! | aggregates, LIMIT, window functions, INTERSECT, EXCEPT, another recursion | no |

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion_common::{Result, internal_err, not_impl_err};
use tidemill_ir::{JoinKind, Rel, RelOp};

use super::{Inputs, Pending};
use crate::rewrite::recursion::{RecursiveUnion, WorkTable};

impl Inputs<'_> {
    /// Lowers a recursive query.
    ///
    /// # Errors
    /// A plan error when the recursive term has an operator that compares rows of the work table,
    /// or when a part of the query cannot be represented.
    pub(super) fn recursion(&self, recursion: &RecursiveUnion) -> Result<Pending> {
        let inputs = [&recursion.base, &recursion.step].into_iter();
        let mut inputs = self.alike(inputs, &recursion.schema)?.into_iter();
        let (Some(base), Some(step)) = (inputs.next(), inputs.next()) else {
            return internal_err!("a recursive query has two terms");
        };
        let distinct = recursion.distinct;
        checked(&step, distinct, Part::Rows)?;
        let rel = Rel {
            schema: Arc::clone(&base.schema),
            op: RelOp::Recursion {
                base: Box::new(base),
                step: Box::new(step),
                distinct,
            },
        };
        Ok(Pending::of(rel, Arc::clone(&recursion.schema)))
    }
}

/// Lowers the work table. Its columns may all be null.
pub(super) fn work_table(table: &WorkTable) -> Pending {
    let fields = table.schema.fields().iter();
    let fields = fields.map(|field| field.as_ref().clone().with_nullable(true));
    let fields: Vec<Field> = super::distinctly_named(fields.collect());
    let rel = Rel {
        schema: Arc::new(Schema::new(fields)),
        op: RelOp::WorkTable,
    };
    Pending::of(rel, Arc::clone(&table.schema))
}

/// What a part of a recursive term computes of the work table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Rows of the term's result, each from one row of the work table.
    Rows,
    /// Rows for each distinct value of columns of the work table, which a subquery of an expression
    /// reads. They depend on the value alone, and not on how often or when it came.
    Domain,
}

/// Checks the operators of a recursive term that read the work table. `distinct` is whether the
/// recursive query is a UNION.
fn checked(rel: &Rel, distinct: bool, part: Part) -> Result<()> {
    if !rel.reads_work_table() {
        return Ok(());
    }
    if let Some(what) = refused(rel, distinct, part) {
        return not_impl_err!("{what} not supported in views yet");
    }
    // A term reads the work table once in FROM. What joins its rows with the work table again is a
    // subquery of an expression.
    if let RelOp::Join { left, right, .. } = &rel.op
        && left.reads_work_table()
    {
        checked(left, distinct, part)?;
        return checked(right, distinct, Part::Domain);
    }
    let mut inputs = rel.op.inputs().into_iter();
    inputs.try_for_each(|input| checked(input, distinct, part))
}

/// The words for an operator that a recursive term may not have over the work table.
fn refused(rel: &Rel, distinct: bool, part: Part) -> Option<&'static str> {
    match &rel.op {
        RelOp::Join {
            kind, left, right, ..
        } => {
            let other_side = right.reads_work_table() && !left.reads_work_table();
            let outer = other_side && *kind != JoinKind::Inner && part == Part::Rows;
            outer.then_some("a recursive reference within an outer join is")
        }
        RelOp::Distinct { .. } if !distinct && part == Part::Rows => {
            Some("DISTINCT or GROUP BY in the recursive term of UNION ALL is")
        }
        RelOp::Temporal { .. } => Some("a comparison with `now()` of the recursive reference is"),
        RelOp::Reduce { .. } => Some("an aggregate over the recursive reference is"),
        RelOp::TopK { .. } => {
            Some("LIMIT, DISTINCT ON or row_number over the recursive reference is")
        }
        RelOp::Window { .. } => Some("a window function over the recursive reference is"),
        RelOp::SetOp { .. } => Some("INTERSECT or EXCEPT of the recursive reference is"),
        RelOp::Recursion { .. } => Some("a recursive query over the rows of another one is"),
        RelOp::Source { .. }
        | RelOp::View { .. }
        | RelOp::Values { .. }
        | RelOp::WorkTable
        | RelOp::Compute { .. }
        | RelOp::Union { .. }
        | RelOp::Distinct { .. } => None,
    }
}
