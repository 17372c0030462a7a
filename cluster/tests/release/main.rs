//! What is released, as users meet it: the command line, the documentation's commands, packages,
//! images and compose files, the package for Airflow; and the rules that its source code keeps.

// Clippy spares unwraps in test functions but not in what they call.
#![allow(clippy::unwrap_used)]

#[path = "../harness/mod.rs"]
mod harness;

mod airflow;
mod cli;
mod compose;
mod containers;
mod layers;
mod packages;
mod readme;
mod tidy;
