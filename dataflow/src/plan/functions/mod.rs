//! The table of scalar functions, operators and casts: what a view may call, and how it is
//! evaluated.
//!
//! An [`entry::Entry`] is one name with one list of argument types. SQL that matches no entry is
//! refused by name: nothing is accepted by default. Every entry gives PostgreSQL's answer or fails
//! the row; `tests/sql/values` iterates over the table and compares each with a real PostgreSQL.
//! Where the library's implementation was shown equal, the entry names it ([`entry::Body`]);
//! everything else is our own code, a file a family.
//!
//! [`rewrite`] replaces what DataFusion's planner made by calls of entries, before any rule of the
//! optimizer runs, so that constants are folded by the same code that rows are evaluated with.

mod aggregate;
mod arithmetic;
mod calendar;
mod casts;
mod compare;
mod dates;
mod datum;
mod decimal;
mod entry;
mod extract;
mod format;
mod like;
mod names;
mod native;
mod numbers;
mod numeric;
mod parse;
mod pass;
mod regex;
mod resolve;
mod rewrite;
mod table;
mod text;
mod to_char;
mod to_date;
mod zones;

pub(crate) use aggregate::averaged;
pub(super) use aggregate::{average, sum};
pub use entry::Kind;
pub(super) use names::{Names, named};
pub(super) use native::operator_text;
pub(super) use pass::typed;
pub use resolve::{Supported, supported};
