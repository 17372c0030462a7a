//! What a job keeps: the conformance suite of the sinks, formats of earlier versions, a full disk.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod full_disk;
mod sink_conformance;
mod upgrade;
