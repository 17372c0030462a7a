//! Crashes of the real binary at random moments: afterwards every view is what the SQL says.

#![allow(clippy::unwrap_used)]

#[path = "../harness/mod.rs"]
mod harness;

mod changed;
mod drained;
mod frozen;
mod peers;
mod river;
mod second;
mod zombie;
