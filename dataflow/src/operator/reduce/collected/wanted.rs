//! What each collected aggregate is computed from.

/// The form in which documents become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    /// Whether members become an object, and not elements an array.
    pub(crate) object: bool,
    /// Whether the result is a jsonb, in which keys are sorted and stand once.
    pub(crate) binary: bool,
    /// Whether equal elements are taken once.
    pub(crate) distinct: bool,
}

/// What an aggregate wants of the sorted values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Wanted {
    /// The most frequent value.
    Mode,
    /// The value at a fraction, interpolated.
    Continuous(f64),
    /// The first value at or behind a fraction.
    Discrete(f64),
    /// All documents in one.
    Document(Form),
    /// All texts in one.
    Text {
        /// What is between two texts.
        separator: String,
        /// Whether equal texts are taken once.
        distinct: bool,
    },
}
