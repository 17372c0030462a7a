//! The SQL planner (`tidemill-plan`): from `views.sql` to the IR of a job.
//!
//! ```text
//! text ─► script (lexer, dialect, bounds, balance) ─► statements
//!      CREATE TABLE ─► table (options, types; registered: the registry's columns) ─► catalog
//!      CREATE VIEW  ─► refuse ─► logical (DataFusion, typed by functions) ─► lower ─► View
//!                                                           output, fingerprint ───┘
//! ```
//!
//! Nothing is approximated. What the IR cannot represent is refused by name and place (`refuse`).
//!
//! All views are planned before the first one is lowered, because a source has the columns that any
//! view uses.

mod catalog;
mod compile;
mod logical;
mod lower;
mod output;
mod push;
mod refuse;
mod rewrite;
mod script;
mod table;
mod unnest;

pub use compile::compile;
