//! What the listener and the connectors of a process share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::hello::{Identity, Secret};
use super::refusal::Refusals;
use super::roster::Roster;
use super::tls::Tls;

/// What listener and connectors share.
pub(super) struct Shared {
    pub(super) me: Identity,
    pub(super) secret: Secret,
    pub(super) tls: Option<Tls>,
    pub(super) roster: Arc<Roster>,
    pub(super) refusals: Refusals,
    /// Why each process was not reached, by index.
    pub(super) troubles: Mutex<BTreeMap<usize, String>>,
}

impl Shared {
    pub(super) fn trouble(&self, index: usize, why: &str) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.insert(index, why.to_owned());
    }

    /// Which processes are missing, and why as far as that is known.
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

/// Processes of the job that could not be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unreachable {
    pub(crate) indices: Vec<usize>,
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
