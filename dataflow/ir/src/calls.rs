//! Calls of functions of many rows: aggregates and window functions.

pub(crate) mod aggregate;
pub(crate) mod window;
