//! Window functions as the planner knows them: names, argument types and result types.
//!
//! The SQL planner gets a stand-in for each name ([`window`]). The typing pass replaces each call
//! by a [`WindowUDF`] that holds the function with its constant arguments and its frame
//! ([`window_call`]), so that no rule of the library reads or changes a frame. The dataflow
//! evaluates the functions ([`tidemill_ir::WindowFunction`]).
//!
//! | function | arguments | result |
//! |---|---|---|
//! | `rank`, `dense_rank` | | bigint |
//! | `percent_rank`, `cume_dist` | | double precision |
//! | `ntile` | a constant int | int |
//! | `lag`, `lead` | value, constant int, default | type of value and default |
//! | `first_value`, `last_value` | value | type of the value |
//! | `nth_value` | value, constant int | type of the value |
//!
//! `row_number` has a function of its own in the planner, because it may become a top-k.

use std::any::Any;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{Result, internal_err};
use datafusion_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion_expr::{
    PartitionEvaluator, Signature, TypeSignature, Volatility, WindowUDF, WindowUDFImpl,
};
use tidemill_ir::{Frame, WindowCall};

/// The names of the window functions that are no aggregates, without `row_number`, in alphabetical
/// order.
pub const WINDOW_FUNCTIONS: [&str; 10] = [
    "cume_dist",
    "dense_rank",
    "first_value",
    "lag",
    "last_value",
    "lead",
    "nth_value",
    "ntile",
    "percent_rank",
    "rank",
];

/// A window function by name, before its arguments have types.
#[derive(Debug, PartialEq, Eq, Hash)]
struct StandIn {
    /// The function's name.
    name: &'static str,
    /// Any arguments. The typing pass checks them.
    signature: Signature,
}

/// A window function with everything but its value arguments.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Typed {
    /// The function, with its constant arguments.
    call: WindowCall,
    /// The rows that it reads.
    frame: Frame,
    /// The type of the result.
    result: DataType,
    /// Arguments of the types that the typing pass gave them.
    signature: Signature,
}

/// Any number of arguments of any types.
fn any() -> Signature {
    let any = TypeSignature::OneOf(vec![TypeSignature::Nullary, TypeSignature::VariadicAny]);
    Signature::new(any, Volatility::Immutable)
}

/// The stand-in of a window function that is no aggregate; `None` for other names.
///
/// `name` is in lower case. `row_number` has no stand-in.
///
/// ```
/// assert!(tidemill_functions::window("rank").is_some());
/// assert!(tidemill_functions::window("round").is_none());
/// ```
pub fn window(name: &str) -> Option<Arc<WindowUDF>> {
    let name = WINDOW_FUNCTIONS.iter().find(|known| **known == name)?;
    let signature = any();
    Some(Arc::new(WindowUDF::from(StandIn { name, signature })))
}

/// The function that a typed call stands for, with its frame; `None` for other functions.
pub fn window_call(function: &WindowUDF) -> Option<(WindowCall, &Frame)> {
    let inner: &dyn Any = function.inner().as_ref();
    let typed = inner.downcast_ref::<Typed>()?;
    Some((typed.call, &typed.frame))
}

/// The typed form of a window function.
pub(crate) fn typed(call: WindowCall, frame: Frame, result: DataType) -> Arc<WindowUDF> {
    let signature = any();
    Arc::new(WindowUDF::from(Typed {
        call,
        frame,
        result,
        signature,
    }))
}

impl WindowUDFImpl for StandIn {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(
        &self,
        _: PartitionEvaluatorArgs<'_>,
    ) -> Result<Box<dyn PartitionEvaluator>> {
        internal_err!("{} is rendered, not evaluated", self.name)
    }

    /// The type as far as it is known before the arguments have theirs.
    fn field(&self, field: WindowUDFFieldArgs<'_>) -> Result<FieldRef> {
        let kind = match (self.name, field.input_fields()) {
            ("percent_rank" | "cume_dist", _) => DataType::Float64,
            ("ntile", _) => DataType::Int32,
            ("rank" | "dense_rank", _) | (_, []) => DataType::Int64,
            (_, [value, ..]) => value.data_type().clone(),
        };
        Ok(Arc::new(Field::new(field.name(), kind, true)))
    }
}

impl WindowUDFImpl for Typed {
    fn name(&self) -> &str {
        self.call.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(
        &self,
        _: PartitionEvaluatorArgs<'_>,
    ) -> Result<Box<dyn PartitionEvaluator>> {
        internal_err!("{} is rendered, not evaluated", self.name())
    }

    fn field(&self, field: WindowUDFFieldArgs<'_>) -> Result<FieldRef> {
        let kind = self.result.clone();
        Ok(Arc::new(Field::new(field.name(), kind, true)))
    }
}
