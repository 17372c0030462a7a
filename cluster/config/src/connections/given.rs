//! A connection's value and where it was given.

/// A value and where it was given, for messages.
pub(super) struct Given {
    pub(super) value: String,
    pub(super) place: String,
    /// The name of the flag, if it was given by a flag.
    pub(super) flag: Option<String>,
}
