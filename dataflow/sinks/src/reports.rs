//! Health reports of one sink: the process's health, under the role of the sink.

use std::fmt::Display;

use tidemill_log::Result;
use tidemill_log::health::{Health, Role};

/// Where a sink reports whether its service takes statements.
#[derive(Clone)]
pub(super) struct Reports {
    /// The health of the process.
    health: Health,
    /// The role of this sink.
    role: Role,
}

impl Reports {
    /// Reports to `health` under `role`.
    pub(super) fn new(health: &Health, role: Role) -> Self {
        Self {
            health: health.clone(),
            role,
        }
    }

    /// `reporter` reached the service.
    pub(super) fn up(&self, reporter: &'static str) {
        self.health.up(self.role, reporter);
    }

    /// `reporter` did not reach the service.
    pub(super) fn down(&self, reporter: &'static str, why: &dyn Display) {
        self.health.down(self.role, reporter, why);
    }

    /// Reports the outcome of a call; see [`Health::note`].
    pub(super) fn note<T>(&self, reporter: &'static str, outcome: &Result<T>) {
        self.health.note(self.role, reporter, outcome);
    }
}

/// Reports that nobody reads.
impl Default for Reports {
    fn default() -> Self {
        Self::new(&Health::default(), Role::Views)
    }
}
