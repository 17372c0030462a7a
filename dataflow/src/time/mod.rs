//! Time: how records come to belong to epochs, and when an epoch is done.
//!
//! A control dataflow ([`control`]) runs beside the job's. This is the commit protocol of an epoch
//! `e`, from top to bottom; each arrow waits for what is above it:
//!
//! ```text
//! every worker                      worker 0                          durable
//! ------------                      --------                          -------
//! source::partitions reads ahead
//!   Report: ends, positions  ---->  binder: closes e
//!                                     binding of e  --------------->  journal
//! source::operator releases  <----  control: Bind(e) to all workers
//!   rows of e through exchange
//!   and render
//! render::sink_operator  -------------------------------------------> sink: rows, version e
//!   frontier passes e        ---->  frontier_writer  --------------->  sink: frontier row at e
//!                                     binder: e is durable
//!
//! at a checkpoint c:
//! render::restore::Tap seals
//!   changes through c        ---->  checkpoints: all processes wrote, the sink has c
//!                                     checkpoint::writer  ---------->  store: parts, manifest
//!                                                                      journal: checkpoint c
//! ```
//!
//! A start takes the newest checkpoint and the bindings after it from the journal, and replays them
//! exactly: the sink takes a row of an epoch again without effect. A job goes on where it stopped
//! only when its topics and tables still hold what it relies on ([`resume`]).
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
