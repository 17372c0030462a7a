//! Planning of UNION ALL, INTERSECT and EXCEPT: the columns of all inputs get one schema.
//!
//! A column is nullable if it is in any input. All inputs get the names of the operation, so that
//! they have one schema. A union of constant rows is constant.

use std::sync::Arc;

use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Schema};
use datafusion_common::{DFSchemaRef, Result, internal_err};
use datafusion_expr::logical_plan::{Extension, Union};
use datafusion_expr::{ExprSchemable, LogicalPlan};
use tidemill_ir::{Rel, RelOp};

use super::{Inputs, Pending, distinctly_named, recursion, renamed};
use crate::rewrite::recursion::{RecursiveUnion, WorkTable};
use crate::rewrite::set_operations::SetOperation;

impl Inputs<'_> {
    /// Lowers a UNION ALL.
    ///
    /// # Errors
    /// When a part of the query cannot be represented.
    pub(super) fn union(&self, union: &Union) -> Result<Pending> {
        let inputs = union.inputs.iter().map(AsRef::as_ref);
        let inputs = self.alike(inputs, &union.schema)?;
        let Some(first) = inputs.first() else {
            return internal_err!("a union has no input");
        };
        let schema = Arc::clone(&first.schema);
        let op = match constant(&inputs) {
            Some(batches) => RelOp::Values {
                rows: concat_batches(&schema, batches)?,
            },
            None => RelOp::Union { inputs },
        };
        Ok(Pending::of(Rel { schema, op }, Arc::clone(&union.schema)))
    }

    /// Lowers INTERSECT, EXCEPT and WITH RECURSIVE.
    ///
    /// # Errors
    /// When a part of the query cannot be represented.
    pub(super) fn extension(&self, extension: &Extension) -> Result<Pending> {
        if let Some(recursion) = RecursiveUnion::in_node(extension) {
            return self.recursion(recursion);
        }
        if let Some(table) = WorkTable::in_node(extension) {
            return Ok(recursion::work_table(table));
        }
        let Some(operation) = SetOperation::in_node(extension) else {
            return internal_err!("`{}` is no operation here", extension.node.name());
        };
        let inputs = [&operation.left, &operation.right].into_iter();
        let mut inputs = self.alike(inputs, &operation.schema)?.into_iter();
        let (Some(left), Some(right)) = (inputs.next(), inputs.next()) else {
            return internal_err!("a set operation has two inputs");
        };
        let rel = Rel {
            schema: Arc::clone(&left.schema),
            op: RelOp::SetOp {
                kind: operation.kind,
                left: Box::new(left),
                right: Box::new(right),
            },
        };
        Ok(Pending::of(rel, Arc::clone(&operation.schema)))
    }

    /// Lowers inputs to relations of one schema.
    pub(super) fn alike<'a>(
        &self,
        inputs: impl Iterator<Item = &'a LogicalPlan>,
        scope: &DFSchemaRef,
    ) -> Result<Vec<Rel>> {
        let mut rels = Vec::new();
        for input in inputs {
            let mut pending = self.lower(input)?;
            let df = pending.df()?;
            for (output, field) in pending.outputs.iter_mut().zip(scope.fields()) {
                *output = output.clone().cast_to(field.data_type(), &df)?;
            }
            rels.push(pending.finish()?);
        }
        let fields = scope.fields().iter().enumerate();
        let fields = fields.map(|(index, field)| {
            let nullable = rels.iter().any(|rel| rel.schema.field(index).is_nullable());
            Field::new(field.name(), field.data_type().clone(), nullable)
        });
        let schema = Arc::new(Schema::new(distinctly_named(fields.collect())));
        let rels = rels.into_iter().map(|rel| renamed(rel, &schema));
        rels.collect()
    }
}

/// The rows of relations that are all constant.
fn constant(rels: &[Rel]) -> Option<Vec<&arrow::record_batch::RecordBatch>> {
    let rows = |rel| match rel {
        &Rel {
            op: RelOp::Values { ref rows },
            ..
        } => Some(rows),
        _ => None,
    };
    rels.iter().map(rows).collect()
}
