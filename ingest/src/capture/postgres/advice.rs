//! What an operator does when the tables have to be read again.

/// What to do when changes are gone.
pub(super) const ADVICE: &str = "; run `tidemill ingest --resnapshot` to read the tables again";
