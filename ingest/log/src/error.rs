//! The error type of all crates: what failed, and whether a retry can help.
//!
//! The caller decides by [`Error::kind`]: it retries, gives the input up, or ends the process.

/// What the caller of a failed operation can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The service cannot be reached or is not ready: try again after a backoff.
    Retry,
    /// The data or the configuration is wrong: another attempt fails in the same way.
    Data,
    /// A newer generation has taken over: stop, and write nothing more.
    Fence,
    /// An invariant of this program does not hold. No input should be able to cause this.
    Bug,
}

/// An error of any stage, from fetching to serving.
///
/// `Display` shows one fragment in lower case that names what failed and where. The cause, if there
/// is one, is the `source`; `Display` does not print it.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Error {
    /// What the caller can do.
    kind: Kind,
    /// See [`Error::is_refused`].
    refused: bool,
    /// The fragment that `Display` shows.
    what: String,
    /// The cause, for logs that print the whole chain.
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of the given kind. `what` is a fragment in lower case that names what failed and
    /// where: ``topic `t`: cannot append``.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self {
            kind,
            refused: false,
            what: what.into(),
            source: None,
        }
    }

    /// Like [`Error::new`], with the cause.
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

    /// The same error, marked as a refusal when `refused` is true; see [`Error::is_refused`].
    #[must_use]
    pub fn refused_if(self, refused: bool) -> Self {
        Self { refused, ..self }
    }

    /// What the caller can do.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether a service refused the credentials or lacks a privilege of ours.
    ///
    /// At a first connection a refusal is a wrong configuration (kind `Data`). For a process that
    /// used the service before, somebody changed a password or a privilege meanwhile, and the
    /// process waits until it is changed back.
    pub fn is_refused(&self) -> bool {
        self.refused
    }

    /// Whether a process that used the service before retries: the error is of kind `Retry`, or a
    /// refusal.
    pub fn may_pass(&self) -> bool {
        self.kind == Kind::Retry || self.refused
    }
}
