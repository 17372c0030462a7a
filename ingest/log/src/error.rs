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
    refused: bool,
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
            refused: false,
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
            refused: false,
            what: what.into(),
            source: Some(source.into()),
        }
    }

    /// The same, as the answer of a service that does not let us in, or not do what was asked for.
    #[must_use]
    pub fn refused_if(self, refused: bool) -> Self {
        Self { refused, ..self }
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether a service does not let us in, or not do what was asked for: somebody changed a
    /// password or a right. It is an error of kind `Data` for whoever has never used the service,
    /// and one to wait for who has.
    pub fn is_refused(&self) -> bool {
        self.refused
    }

    /// Whether the service may be waited for by one who has used it before.
    pub fn may_pass(&self) -> bool {
        self.kind == Kind::Retry || self.refused
    }
}
