//! Connections to services: TLS, users and passwords, and that no secret is ever printed.

#![allow(clippy::unwrap_used)]

#[path = "../harness/mod.rs"]
mod harness;

mod call;
mod certificates;
mod given;
mod registry;
mod services;
