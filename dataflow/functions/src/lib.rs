//! The function table (`tidemill-functions`): all scalar functions, operators and casts that a view
//! may use.
//!
//! An `entry::Entry` is one name with one list of argument types. SQL that matches no entry is
//! refused by name; nothing is accepted by default. Every entry gives PostgreSQL's result or fails
//! the row. The tests in `tests/sql/values` iterate over the table and compare each entry with a
//! real PostgreSQL. Where the implementation of DataFusion or Arrow was shown to be equal, the
//! entry uses it (`entry::Body`). Everything else is Tidemill's own code, one file for each
//! family of functions.
//!
//! ```text
//! SQL ─► names: stand-ins ─► pass ─► rewrite ─► resolve: entry, casts ─► native: evaluation
//!        (planner)           node by node       (PostgreSQL's rules)     over Arrow's columns
//! ```
//!
//! `rewrite` replaces what DataFusion's planner made by calls of entries. It runs before all
//! rules of the optimizer, so that constants are folded by the same code that evaluates rows.
//!
//! # Invariants
//!
//! - **Same result or failed row.** An entry never returns a value that PostgreSQL would not
//!   return. If Tidemill cannot compute PostgreSQL's result, the row fails with a reason and
//!   becomes a dead letter. Entries for which this happens with values that PostgreSQL evaluates
//!   are marked `narrower`.
//! - **Immutable.** An entry depends only on its arguments: there is no session, no clock and no
//!   random number. The settings that PostgreSQL reads from the session are constants here:
//!   `TimeZone` UTC, `DateStyle` ISO, `IntervalStyle` postgres, `bytea_output` hex,
//!   `extra_float_digits` 1.
//! - **No panic on data.** A body returns `Err` for every value that it cannot evaluate.
//!
//! # Example
//!
//! Which overloads of `round` a view may call:
//!
//! ```
//! let supported = tidemill_functions::supported();
//! let round = supported.iter().filter(|entry| entry.name == "round");
//! let takes: Vec<String> = round
//!     .map(|entry| entry.takes.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", "))
//!     .collect();
//! assert_eq!(takes, ["numeric", "numeric, int", "double precision"]);
//! ```

mod aggregate;
mod casts;
pub mod chain;
mod compare;
mod entry;
mod json;
mod numeric;
mod text;
mod time;
mod typing;
mod value;

pub use aggregate::deviation::{Deviation, Sums, deviation};
pub use aggregate::{averaged, declared};
pub use casts::{JSON, JSONB};
pub use entry::Kind;
pub use text::arrays::ARRAY;
pub use time::dates::shifted;
pub use typing::names::{ROW, function, function_names, named};
pub use typing::native::operator_text;
pub use typing::pass::typed;
pub use typing::resolve::{Supported, supported};
pub use typing::window::{WINDOW_FUNCTIONS, window, window_call};
