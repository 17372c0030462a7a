//! State that the listener and the connectors of a process share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::hello::{Identity, Secret};
use super::refusal::Refusals;
use super::roster::Roster;
use super::tls::Tls;

/// State that the listener and the connectors share.
pub(super) struct Shared {
    /// The identity of this process.
    pub(super) me: Identity,
    /// The secret of the job, and TLS if the mesh uses it.
    pub(super) secret: Secret,
    /// TLS, if the mesh uses it.
    pub(super) tls: Option<Tls>,
    /// Which processes are connected.
    pub(super) roster: Arc<Roster>,
    /// The log of refused connections.
    pub(super) refusals: Refusals,
    /// Why the last attempt to reach a process failed, by index.
    pub(super) troubles: Mutex<BTreeMap<usize, String>>,
}

impl Shared {
    /// Records why process `index` could not be reached.
    pub(super) fn trouble(&self, index: usize, why: &str) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.insert(index, why.to_owned());
    }

    /// The error for missing processes, with the reason as far as it is known.
    pub(super) fn unreachable(&self, missing: Vec<usize>) -> Unreachable {
        let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let each = missing.iter().map(|index| match troubles.get(index) {
            Some(why) if *index < self.me.process => format!("process {index} {why}"),
            _ => format!("process {index} did not connect"),
        });
        Unreachable {
            why: each.collect::<Vec<_>>().join("; "),
            indices: missing,
        }
    }
}

/// Error: processes of the job could not be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreachable {
    /// The indices of the missing processes.
    pub indices: Vec<usize>,
    /// The reason for each, in words.
    pub(super) why: String,
}

impl std::fmt::Display for Unreachable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "not all processes of the job can be reached: {}",
            self.why
        )
    }
}
