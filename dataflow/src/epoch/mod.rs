//! Epochs: how offsets are bound to an epoch, released, and reported durable (the commit protocol).
//!
//! A control dataflow ([`control`]) runs beside the dataflow of the job. This is the commit
//! protocol of an epoch `e`, from top to bottom. Each arrow waits for what is above it:
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
//! A start reads the newest checkpoint and the bindings after it from the journal, and replays
//! these epochs exactly. Writing a row of an epoch into the sink a second time has no effect. A job
//! resumes only if its topics and its tables still hold what the job relies on ([`resume`]).
//!
//! An operator whose output changes as time passes asks the binder for an epoch at a time, and
//! learns which epochs are bound ([`ticks`]). The time of an epoch is the epoch itself, in ms since
//! 1970, so a replay gives `now()` the same values.
//!
//! Invariants:
//! 1. Epochs strictly increase.
//! 2. No row of an epoch is released before the binding of the epoch is durable in the journal.
//! 3. A binding ends between two reported batches of a worker, never within a batch, and it holds
//!    the source positions at its end offsets.

pub(crate) mod alarm;
pub(crate) mod binder;
pub(crate) mod catch_up;
pub(crate) mod checkpoints;
pub(crate) mod commits;
pub(crate) mod control;
pub(crate) mod lap;
pub(crate) mod messages;
pub(crate) mod resume;
pub(crate) mod ticks;
