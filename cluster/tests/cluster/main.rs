//! A cluster of the real binary. [`failures`] and [`jobs`] run a master and workers that each have
//! an address of their own, on the real services: processes are killed or frozen, networks are
//! cut. [`master`], [`worker`] and [`mesh`] test each kind of process beside a test that plays the
//! others.

// Clippy spares unwraps in test functions but not in what they call.
#![allow(clippy::unwrap_used)]

#[path = "../harness/mod.rs"]
mod harness;

mod failures;
mod fleet;
mod jobs;
mod master;
mod mesh;
mod network;
mod worker;
