//! Functions, operators and casts of `json` and `jsonb`.
//!
//! A `json` is kept as it is written. A `jsonb` is kept as [`tidemill_ir::json::Document`] writes
//! it, which is PostgreSQL's form, so the parts of its text have that form too. A captured column
//! of either type is a json here, because its text does not tell the type: the operators that give
//! parts of a text are right for both, and the others take a jsonb.

pub(crate) mod access;
pub(crate) mod build;
pub(crate) mod casts;
pub(crate) mod change;
pub(crate) mod contain;
