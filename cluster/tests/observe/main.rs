//! What a running process shows over HTTP, on the embedded engines: readiness, metrics that add up
//! to what was put in, and that nobody who connects can disturb it.

#![allow(clippy::unwrap_used)]

#[path = "../harness/mod.rs"]
mod harness;

mod dataflow;
mod exposition;
mod garbage;
mod river;
mod web;
