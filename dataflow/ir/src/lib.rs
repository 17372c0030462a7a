//! The intermediate representation (IR) of a job (`tidemill-ir`): what the planner gives to the
//! renderer, and rows as bytes.
//!
//! A [`Job`] is a list of sources, and a list of views in the order of their dependencies. A view
//! is a tree of [`Rel`] nodes, and each node knows its output schema. Expressions are DataFusion
//! physical expressions, bound to the columns of their input by position: pure, immutable,
//! evaluated on whole batches. No type of timely or differential appears here.

mod calls;
pub mod explain;
mod fingerprint;
mod job;
pub mod json;

mod rel;
pub mod row;
mod scalar;
mod source;
pub mod types;
mod unique;

pub use calls::aggregate::{Aggregate, AggregateFunction};
pub use calls::window::{Frame, FrameBound, FrameOffset, FrameUnits, WindowCall, WindowFunction};
pub use explain::explain;
pub use fingerprint::{fingerprint, identity, repeats, state_of};
pub use job::{Job, Output, View, is_sink_name, reads};
pub use rel::temporal::{Clock, Comparison, DAY, TemporalBound};
pub use rel::{JoinKey, JoinKind, Rel, RelOp, SetKind};
pub use scalar::{OrderBy, Scalar};
pub use source::{
    Binary, Digits, Envelope, Format, KeySchema, Missing, Source, Spelling, TimestampUnit,
};
pub use unique::is_unique;

/// A timestamp of the job: ms since 1970-01-01T00:00:00Z, strictly increasing. At one epoch, all
/// views show the same prefix of the input.
pub type Epoch = u64;
