//! From `views.sql` to the IR.
//!
//! The text is cut into statements ([`script`]); `CREATE TABLE`s become the catalog's tables
//! ([`table`], with columns from the registry), and each view's query is checked for what is not
//! supported ([`refuse`]), planned and optimised by DataFusion ([`logical`]) and lowered to the IR
//! ([`lower`]). Nothing is approximated: what the IR cannot say is refused by name and place.
//!
//! Views are all planned before the first is lowered: a source's columns are those that any view
//! uses.

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
