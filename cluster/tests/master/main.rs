//! The real master, asked over HTTP as workers, clients and strangers ask it. The workers here are
//! this test itself, which speaks the protocol: what it reports is what the master knows.

#![allow(clippy::unwrap_used)]

#[path = "../harness/mod.rs"]
mod harness;

mod asking;
mod doors;
mod generations;
mod takeover;
