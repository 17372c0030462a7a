//! One pipeline, embedded and on the real services: what its sources, types and views do, what it
//! shows while it runs, how it reaches its services, and what it does with bad input.

// Clippy spares unwraps in test functions but not in what they call.
#![allow(clippy::unwrap_used)]

#[path = "../harness/mod.rs"]
mod harness;

mod bad_input;
mod observe;
mod river;
mod secure;
mod types;
mod upstream;
mod verify;
