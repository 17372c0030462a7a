//! What each collected aggregate is computed from.

/// What an aggregate wants of the sorted values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Wanted {
    /// The most frequent value.
    Mode,
    /// The value at a fraction, interpolated.
    Continuous(f64),
    /// The first value at or behind a fraction.
    Discrete(f64),
    /// All texts in one.
    Text {
        /// What is between two texts.
        separator: String,
        /// Whether equal texts are taken once.
        distinct: bool,
    },
}
