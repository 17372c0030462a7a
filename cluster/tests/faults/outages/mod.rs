//! Outages: every service that a pipeline uses is stopped, killed, frozen, or refuses, one at a
//! time and under load, in `tidemill run` and on a cluster. Each time status, readiness and metrics
//! are compared with what was done, and afterwards the views with PostgreSQL's answers.
//!
//! By default a part of the matrix runs; `./test --outages` runs all of it.

mod gate;
mod job;
mod matrix;
mod services;
