//! Values that flow between operators, cross workers and are stored in checkpoints, with their
//! bytes. Nothing in this module knows an operator.

pub mod bit_counts;
pub mod flat;
pub mod float_sum;
pub mod int_sum;
pub mod keyed;
pub mod partial;
pub mod source_position;
pub mod totals;
