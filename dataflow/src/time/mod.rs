//! Time: how records come to belong to epochs.
//!
//! A control dataflow ([`control`]) runs beside the job's: workers report how far they have read,
//! worker 0 binds what was reported to the next epoch ([`binder`]), and tells all workers the
//! binding once the journal has it. A job goes on where it stopped only when its topics and tables
//! still hold what it relies on ([`resume`]).
//!
//! Invariants: epochs strictly increase; no row of an epoch is released before its binding is
//! durable; a binding holds whole batches of every worker, and the source positions at their ends.

pub(crate) mod alarm;
pub(crate) mod binder;
pub(crate) mod catch_up;
pub(crate) mod checkpoints;
pub(crate) mod commits;
pub(crate) mod control;
pub(crate) mod lap;
pub(crate) mod messages;
pub(crate) mod resume;
