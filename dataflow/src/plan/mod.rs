//! The SQL planner: from `views.sql` to the IR of a job.
//!
//! ```text
//! text ─► script (lexer, dialect, bounds, balance) ─► statements
//!      CREATE TABLE ─► table (options, types; registered: the registry's columns) ─► catalog
//!      CREATE VIEW  ─► refuse ─► logical (DataFusion, typed by functions) ─► lower ─► ir::View
//!                                                           output, fingerprint ───┘
//! ```
//!
//! Nothing is approximated. What the IR cannot represent is refused by name and place (`refuse`).
//!
//! All views are planned before the first one is lowered, because a source has the columns that any
//! view uses.

mod balance;
mod bounds;
mod catalog;
mod compile;
mod dialect;
pub(crate) mod explain;
mod fingerprint;
pub mod functions;
pub mod ir;
mod join;
mod keys;
mod lexer;
mod logical;
mod lower;
mod options;
mod output;
mod part;
mod push;
mod refuse;
mod registered;
mod row_number;
mod script;
mod shape;
mod simplify;
mod source_types;
mod table;
mod text;
mod top_k;
pub(crate) mod types;
mod uncoerced;
mod wildcard;

pub use compile::compile;
pub use explain::explain;
pub(crate) use fingerprint::state_of;
