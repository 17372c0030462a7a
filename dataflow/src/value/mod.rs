//! Values that flow between operators, cross workers and are stored in checkpoints, with their
//! bytes. Nothing in this module knows an operator.

pub(crate) mod flat;
pub(crate) mod float_sum;
pub(crate) mod int_sum;
pub(crate) mod keyed;
pub(crate) mod source_position;
pub(crate) mod totals;
