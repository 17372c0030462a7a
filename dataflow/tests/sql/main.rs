//! SQL: what the planner makes of it, and that every function, operator and view has PostgreSQL's
//! answer.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod plan;
mod values;
mod views;
