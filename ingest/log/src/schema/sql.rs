//! Names in SQL.

/// A name as a quoted identifier, in SQL and CQL alike: keeps its case and its special characters.
#[must_use]
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
