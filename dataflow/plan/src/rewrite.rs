//! Rewrites of a parsed query before it is planned: SQL that DataFusion's planner does not take, or
//! takes in another meaning than PostgreSQL, written in another way.
//!
//! Input: a query that [`super::refuse`] has accepted. Output: a query with the same answer.

pub(crate) mod constants;
pub(crate) mod derived;
pub(crate) mod groups;
pub(crate) mod limits;
pub(crate) mod recursion;
pub(crate) mod row_in;
pub(crate) mod set_operations;
pub(crate) mod spellings;
pub(crate) mod time_windows;
pub(crate) mod wildcard;
pub(crate) mod windows;
