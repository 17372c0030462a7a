//! Refusals of the mesh: the reasons in words for the log and as codes for the other side, and a
//! rate limit of their log lines.
//!
//! The code is one byte of the wire format ([`super::hello`]). A code keeps its meaning for all
//! versions, because the other side may be another version.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::limits::{HANDSHAKE_MAX, PENDING_MAX, VERSION};

/// Log lines of one kind of refusal within [`REFUSALS_EVERY`]. Further refusals are only counted.
const REFUSALS_TOLD_MAX: u32 = 5;
/// How long refusals are counted before the count is logged.
pub(super) const REFUSALS_EVERY: Duration = Duration::from_secs(60);

/// Why a connection was refused or failed. [`Refusal::kind`] has a word for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The other side does not speak the mesh's protocol.
    Garbage,
    /// The handshake was not done within [`HANDSHAKE_MAX`].
    Silent,
    /// The other side closed the connection during the handshake.
    Closed,
    /// A newer connection took the place of this one in the handshake.
    Crowded,
    /// The TLS handshake failed, with the library's reason.
    Tls(String),
    /// The other side speaks this version of the protocol.
    Version(u16),
    /// The other side is of this job.
    Job(String),
    /// The generations of the other side and of this process.
    Generation {
        /// Of the other side.
        its: u64,
        /// Of this process.
        own: u64,
    },
    /// The other side has another version of Tidemill, other views or another codec.
    Program,
    /// Processes and threads that each side was started for.
    Size {
        /// Of the other side: processes, threads.
        its: (usize, usize),
        /// Of this process: processes, threads.
        own: (usize, usize),
    },
    /// The indices in the hello do not fit: only a higher index connects to a lower one.
    Index {
        /// The index that the other side says it has.
        from: usize,
        /// The index that the other side looks for.
        to: usize,
    },
    /// The other side's proof is wrong.
    Secret,
    /// The process of this index is already connected.
    Connected(usize),
    /// The other side refused, with this code.
    ByPeer(u8),
    /// There is no connection at all.
    Unreached(String),
}

impl Refusal {
    /// The code that the other side receives; `None` when it does not speak the protocol or can no
    /// longer be told.
    pub(super) fn code(&self) -> Option<u8> {
        match self {
            Self::Version(_) => Some(1),
            Self::Job(_) => Some(2),
            Self::Generation { .. } => Some(3),
            Self::Program => Some(4),
            Self::Size { .. } => Some(5),
            Self::Index { .. } => Some(6),
            Self::Secret => Some(7),
            Self::Connected(_) => Some(8),
            Self::Garbage
            | Self::Silent
            | Self::Closed
            | Self::Crowded
            | Self::Tls(_)
            | Self::ByPeer(_)
            | Self::Unreached(_) => None,
        }
    }

    /// The refusal that a received code stands for. An unknown code is garbage.
    pub(super) fn told(code: u8) -> Self {
        match refused(code) {
            Some(_) => Self::ByPeer(code),
            None => Self::Garbage,
        }
    }

    /// The kind of the refusal, under which refusals are counted.
    fn kind(&self) -> &'static str {
        match self {
            Self::Garbage => "not the mesh's protocol",
            Self::Silent => "nothing said for too long",
            Self::Closed => "closed before the handshake was done",
            Self::Crowded => "too many at once",
            Self::Tls(_) => "TLS",
            Self::Version(_) => "another version of the protocol",
            Self::Job(_) => "another job",
            Self::Generation { .. } => "another generation",
            Self::Program => "another version of tidemill, other views or another --codec",
            Self::Size { .. } => "another number of processes or threads",
            Self::Index { .. } => "an index that cannot be",
            Self::Secret => "the secret is not known",
            Self::Connected(_) => "connected already",
            Self::ByPeer(_) => "refused by the other side",
            Self::Unreached(_) => "not reached",
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Garbage => f.write_str("it does not speak the mesh's protocol"),
            Self::Silent => write!(f, "its handshake was not done in {HANDSHAKE_MAX:?}"),
            Self::Closed => f.write_str("it closed the connection before the handshake was done"),
            Self::Crowded => write!(f, "more than {PENDING_MAX} handshakes at once"),
            Self::Tls(why) => write!(f, "TLS: {why}"),
            Self::Version(version) => write!(
                f,
                "it speaks version {version} of the mesh's protocol and this process {VERSION}: \
                 run the same tidemill everywhere"
            ),
            Self::Job(job) => write!(f, "it is of another job, {job:?}"),
            Self::Generation { its, own } => {
                write!(
                    f,
                    "it is of generation {its}, this process of generation {own}"
                )
            }
            Self::Program => {
                f.write_str("it has another version of tidemill, other views or another --codec")
            }
            Self::Size { its, own } => write!(
                f,
                "it was started for {} processes with {} threads, this one for {} with {}",
                its.0, its.1, own.0, own.1
            ),
            Self::Index { from, to } => {
                write!(
                    f,
                    "it is process {from} and looks for process {to}, which cannot be"
                )
            }
            Self::Secret => f.write_str("it does not know the mesh's secret"),
            Self::Connected(index) => write!(f, "process {index} is connected already"),
            Self::ByPeer(code) => {
                let why = refused(*code).unwrap_or_default();
                write!(f, "it refused this process: {why}")
            }
            Self::Unreached(why) => f.write_str(why),
        }
    }
}

/// What a code means, in the words of the side that receives it.
fn refused(code: u8) -> Option<&'static str> {
    Some(match code {
        1 => "it speaks another version of the mesh's protocol",
        2 => "it is of another job",
        3 => "it is of another generation",
        4 => "it has another version of tidemill, other views or another --codec",
        5 => "it was started for another number of processes or threads",
        6 => "it is another process than this one looks for, or takes this one for another",
        7 => "it has another mesh secret",
        8 => "a process of this index is connected already",
        _ => return None,
    })
}

/// The rate-limited log of refusals.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// By kind. An entry is removed when its period is over, so the map has at most one entry for
    /// each kind.
    kinds: Mutex<BTreeMap<&'static str, Told>>,
}

/// What was logged and counted of one kind.
#[derive(Debug)]
struct Told {
    /// When the first refusal of this period came.
    since: Instant,
    /// Lines that were logged.
    lines: u32,
    /// Refusals that were only counted.
    untold: u64,
    /// The address of the last refused connection.
    last: SocketAddr,
}

impl Refusals {
    /// Logs a refusal, or counts it when too many of its kind were logged.
    ///
    /// `peer` is the address of the refused connection. Strangers cannot fill the disk with log
    /// lines.
    pub(super) fn tell(&self, peer: SocketAddr, refusal: &Refusal) {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let told = kinds.entry(refusal.kind()).or_insert_with(|| Told {
            since: Instant::now(),
            lines: 0,
            untold: 0,
            last: peer,
        });
        told.last = peer;
        if told.lines < REFUSALS_TOLD_MAX {
            told.lines += 1;
            tracing::warn!(%peer, "refused a connection: {refusal}");
        } else {
            told.untold += 1;
        }
    }

    /// Logs the counts of periods that are over. Returns whether anything is left to be logged
    /// later.
    pub(super) fn sum_up(&self, every: Duration) -> bool {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        kinds.retain(|kind, told| {
            let over = told.since.elapsed() >= every;
            if over && told.untold > 0 {
                let (count, last) = (told.untold, told.last);
                tracing::warn!(count, %last, "refused more connections: {kind}");
            }
            !over
        });
        !kinds.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_refusals_some_are_told_and_all_are_counted() {
        let refusals = Refusals::default();
        let peer = SocketAddr::from(([127, 0, 0, 1], 9));
        for _ in 0..1000 {
            refusals.tell(peer, &Refusal::Garbage);
        }
        refusals.tell(peer, &Refusal::Secret);
        let counts = |kind: &str| {
            let kinds = refusals.kinds.lock().unwrap();
            kinds.get(kind).map(|told| (told.lines, told.untold))
        };
        assert_eq!(counts(Refusal::Garbage.kind()), Some((5, 995)));
        assert_eq!(counts(Refusal::Secret.kind()), Some((1, 0)));
        assert!(refusals.sum_up(REFUSALS_EVERY), "nothing is old enough");
        assert!(!refusals.sum_up(Duration::ZERO));
        assert_eq!(counts(Refusal::Garbage.kind()), None);
    }
}
