//! A cluster of the real binary: a master, workers that each have an address of their own, and
//! what happens when processes are killed or frozen and networks are cut, on the real services.

#![allow(clippy::unwrap_used)]

#[path = "../harness/mod.rs"]
mod harness;

mod failures;
mod fleet;
mod jobs;
mod network;
