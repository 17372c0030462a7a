//! `row_number()` as the SQL planner knows it: a name and a type. What it says is rendered as a
//! top-k ([`super::top_k`]), so nothing here is ever evaluated.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{Result, internal_err};
use datafusion_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion_expr::{PartitionEvaluator, Signature, Volatility, WindowUDFImpl};

/// The function's name in SQL.
pub(super) const NAME: &str = "row_number";

/// A row's number within its group, from 1.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct RowNumber {
    signature: Signature,
}

impl RowNumber {
    pub(super) fn new() -> Self {
        Self {
            signature: Signature::nullary(Volatility::Immutable),
        }
    }
}

impl WindowUDFImpl for RowNumber {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(
        &self,
        _: PartitionEvaluatorArgs<'_>,
    ) -> Result<Box<dyn PartitionEvaluator>> {
        internal_err!("row_number() is rendered, not evaluated")
    }

    /// As in PostgreSQL, a bigint.
    fn field(&self, field: WindowUDFFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(field.name(), DataType::Int64, false)))
    }
}
