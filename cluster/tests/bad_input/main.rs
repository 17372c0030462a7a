//! Input and surroundings that are wrong: a dead letter or a clear error, and all else flows on.

#![allow(clippy::unwrap_used)]

#[path = "../harness/mod.rs"]
mod harness;

mod refused;
mod topics;
