//! PostgreSQL's typing: which entry a call means, and the plan rewritten to calls of entries.

pub(crate) mod names;
pub(crate) mod native;
pub(crate) mod pass;
pub(crate) mod resolve;
pub(crate) mod rewrite;
pub(crate) mod table;
pub(crate) mod window;
