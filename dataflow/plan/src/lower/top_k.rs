//! Planning of LIMIT and `row_number()`: both become a [`RelOp::TopK`].
//!
//! A `row_number()` begins as a top-k without a limit, whose last column is the row number. Filters
//! above it that compare the number with constants become its offset and limit:
//!
//! ```text
//! SELECT … FROM (SELECT …, row_number() OVER (PARTITION BY g ORDER BY x) AS n …) WHERE n <= 10
//!   ─► Filter n <= 10 over TopK { limit: None, ranked }  ─►  TopK { limit: 10, ranked }
//! ```
//!
//! Without such a filter all rows are numbered, and a single row may renumber all others of its
//! group. A row number that nothing reads is removed.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion_common::{DFSchemaRef, Result, ScalarValue, not_impl_err};
use datafusion_expr::expr::{Sort as SortExpr, WindowFunction};
use datafusion_expr::logical_plan::{FetchType, Limit, SkipType, Window};
use datafusion_expr::{Expr, LogicalPlan, Operator};
use tidemill_ir::{OrderBy, Rel, RelOp, Scalar};

use crate::catalog::row_number;
use crate::lower::{Inputs, Pending, distinctly_named};

/// Which rows of each group are kept.
#[derive(Clone, Copy)]
struct Kept {
    /// The number of rows skipped first.
    offset: u64,
    /// The number of rows kept after that; `None` for all.
    limit: Option<u64>,
}

/// The groups and the order of a top-k.
struct Looked<'a> {
    /// The expressions that rows are grouped by.
    partition: &'a [Expr],
    /// The order within a group.
    order: &'a [SortExpr],
}

impl Inputs<'_> {
    /// Lowers a LIMIT, with the ORDER BY below it.
    ///
    /// # Errors
    /// When the limit or the offset is not a number, or a part of the query cannot be represented.
    pub(crate) fn limit(&self, limit: &Limit) -> Result<Pending> {
        let (SkipType::Literal(offset), FetchType::Literal(count)) =
            (limit.get_skip_type()?, limit.get_fetch_type()?)
        else {
            return not_impl_err!("LIMIT and OFFSET take numbers in views");
        };
        let kept = Kept {
            offset: offset as u64,
            limit: count.map(|count| count as u64),
        };
        self.first_rows(&limit.input, kept)
    }

    /// Projections between the limit and its order are computed only for the rows that are kept.
    fn first_rows(&self, plan: &LogicalPlan, kept: Kept) -> Result<Pending> {
        if let LogicalPlan::Projection(projection) = plan {
            let rows = self.first_rows(&projection.input, kept)?;
            return rows.projected(&projection.expr, &projection.schema);
        }
        let (input, order) = match plan {
            LogicalPlan::Sort(sort) => (sort.input.as_ref(), sort.expr.as_slice()),
            other => (other, [].as_slice()),
        };
        let partition = &[];
        top_k(self.lower(input)?, &Looked { partition, order }, kept, None)
    }

    /// Lowers a window whose only function is `row_number()`.
    ///
    /// # Errors
    /// When a part of the query cannot be represented.
    pub(super) fn numbered(&self, window: &Window, call: &WindowFunction) -> Result<Pending> {
        let looked = Looked {
            partition: &call.params.partition_by,
            order: &call.params.order_by,
        };
        let all = Kept {
            offset: 0,
            limit: None,
        };
        top_k(
            self.lower(&window.input)?,
            &looked,
            all,
            Some(&window.schema),
        )
    }
}

/// Builds a top-k. With `numbered`, the scope whose last column is the row number, the top-k has
/// this column too.
///
/// The input is materialised, because keys and order may be expressions over its columns.
fn top_k(
    input: Pending,
    looked: &Looked<'_>,
    kept: Kept,
    numbered: Option<&DFSchemaRef>,
) -> Result<Pending> {
    let input = input.materialised()?;
    let scalar = |expr: &Expr| -> Result<Scalar> { input.scalar(&input.bind(expr)?) };
    let partition = looked.partition.iter().map(scalar).collect::<Result<_>>()?;
    let order = looked.order.iter().map(|by| {
        Ok(OrderBy {
            scalar: scalar(&by.expr)?,
            descending: !by.asc,
            nulls_first: by.nulls_first,
        })
    });
    let order = order.collect::<Result<_>>()?;
    let fields = input.base.schema.fields().iter();
    let mut fields: Vec<Field> = fields.map(|field| field.as_ref().clone()).collect();
    if numbered.is_some() {
        fields.push(Field::new(row_number::NAME, DataType::Int64, false));
    }
    let rel = Rel {
        schema: Arc::new(Schema::new(distinctly_named(fields))),
        op: RelOp::TopK {
            input: Box::new(input.base),
            partition,
            order,
            offset: kept.offset,
            limit: kept.limit,
            ranked: numbered.is_some(),
        },
    };
    Ok(Pending::of(
        rel,
        Arc::clone(numbered.unwrap_or(&input.scope)),
    ))
}

impl Pending {
    /// The name of the column with the row number, if `base` has one.
    pub(crate) fn number(&self) -> Option<&str> {
        match &self.base.op {
            RelOp::TopK { ranked: true, .. } => {
                let last = self.base.schema.fields().last();
                last.map(|field| field.name().as_str())
            }
            _ => None,
        }
    }

    /// Takes a bound condition on the row number into the top-k. Returns false if it is no such
    /// condition.
    ///
    /// Several conditions narrow the range: `n > 2 AND n <= 5` gives offset 2 and limit 3.
    pub(crate) fn takes(&mut self, condition: &Expr) -> bool {
        let Some((from, to)) = self.number().and_then(|number| range(condition, number)) else {
            return false;
        };
        if let RelOp::TopK { offset, limit, .. } = &mut self.base.op {
            let end = limit.map_or(u64::MAX, |limit| offset.saturating_add(limit));
            *offset = (*offset).max(u64::try_from(from.saturating_sub(1)).unwrap_or(0));
            let end = end.min(u64::try_from(to).unwrap_or(0));
            *limit = (end < i64::MAX as u64).then(|| end.saturating_sub(*offset));
        }
        true
    }

    /// Returns itself, without a row number that nothing reads.
    pub(crate) fn settled(mut self) -> Self {
        let Some(number) = self.number() else {
            return self;
        };
        let mut exprs = self.outputs.iter().chain(&self.filters);
        let read = exprs.any(|expr| expr.column_refs().iter().any(|read| read.name == number));
        if let (RelOp::TopK { ranked, .. }, false) = (&mut self.base.op, read) {
            *ranked = false;
            let fields = self.base.schema.fields();
            let others = fields.iter().take(fields.len() - 1).map(Arc::clone);
            self.base.schema = Arc::new(Schema::new(others.collect::<Vec<_>>()));
        }
        self
    }
}

/// The least and the greatest number for which a comparison with constants is true.
///
/// Both ends are included. `None` for any other condition, which then stays a filter.
fn range(condition: &Expr, number: &str) -> Option<(i64, i64)> {
    let is_number = |expr: &Expr| matches!(expr, Expr::Column(column) if column.name == number);
    match condition {
        Expr::Between(between) if !between.negated && is_number(&between.expr) => {
            Some((integer(&between.low)?, integer(&between.high)?))
        }
        Expr::BinaryExpr(binary) => {
            let (op, value) = if is_number(&binary.left) {
                (binary.op, integer(&binary.right)?)
            } else if is_number(&binary.right) {
                (binary.op.swap()?, integer(&binary.left)?)
            } else {
                return None;
            };
            Some(match op {
                Operator::Eq => (value, value),
                Operator::Lt => (i64::MIN, value.saturating_sub(1)),
                Operator::LtEq => (i64::MIN, value),
                Operator::Gt => (value.saturating_add(1), i64::MAX),
                Operator::GtEq => (value, i64::MAX),
                _ => return None,
            })
        }
        _ => None,
    }
}

/// The value of an integer literal.
fn integer(expr: &Expr) -> Option<i64> {
    let Expr::Literal(value, _) = expr else {
        return None;
    };
    match value
        .data_type()
        .is_integer()
        .then(|| value.cast_to(&DataType::Int64))
    {
        Some(Ok(ScalarValue::Int64(value))) => value,
        _ => None,
    }
}
