//! The error of all crates: what went wrong, and what the caller can do about it.

/// What a caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The other side is not there or not ready: try again later.
    Retry,
    /// The data or the configuration is wrong: trying again changes nothing.
    Data,
    /// A newer generation owns this: stop.
    Fence,
    /// An invariant of ours does not hold.
    Bug,
}

/// An error of any stage, from fetching to serving.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Error {
    kind: Kind,
    what: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of the given kind; `what` is a lower-case fragment naming what and where.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            source: None,
        }
    }

    /// Like [`Error::new`], keeping the cause.
    pub fn with_source(
        kind: Kind,
        what: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            kind,
            what: what.into(),
            source: Some(source.into()),
        }
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}
