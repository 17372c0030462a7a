//! The state of a job, and of each component of it: one type for the master, the commands, the
//! metrics, the pages and the tests.
//!
//! In JSON a state is its name. [`JobState::ALL`] is the order of the documentation.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The state of a job or of its ingest, in one word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// The views are live, and everything that feeds them is up.
    Running,
    /// The views are live, and something that feeds them is not.
    Degraded,
    /// The processes start, connect, or restore their state.
    Starting,
    /// Slots are missing; of an ingest: it waits for a service or for its lease.
    Waiting,
    /// What was read is completed; then the processes end.
    Draining,
    /// A generation failed, and the next one begins.
    Restarting,
    /// Stopped, because somebody asked for it.
    #[default]
    Stopped,
    /// Ended for good, until somebody restarts it.
    Failed,
}

impl JobState {
    /// All states.
    pub const ALL: [Self; 8] = [
        Self::Running,
        Self::Degraded,
        Self::Starting,
        Self::Waiting,
        Self::Draining,
        Self::Restarting,
        Self::Stopped,
        Self::Failed,
    ];

    /// The name, as in JSON, metrics and pages.
    ///
    /// ```
    /// use tidemill_protocol::JobState;
    /// assert_eq!(JobState::Degraded.name(), "degraded");
    /// ```
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Degraded => "degraded",
            Self::Starting => "starting",
            Self::Waiting => "waiting",
            Self::Draining => "draining",
            Self::Restarting => "restarting",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }

    /// Whether the views are served and follow their input.
    #[must_use]
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Running | Self::Degraded)
    }

    /// Whether the job has ended and does not start again by itself.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Stopped | Self::Failed)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// For comparing with JSON in tests and scripts.
impl PartialEq<JobState> for serde_json::Value {
    fn eq(&self, state: &JobState) -> bool {
        self.as_str() == Some(state.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_in_json_is_its_name() {
        for state in JobState::ALL {
            let text = serde_json::to_value(state).unwrap();
            assert_eq!(text, state);
            assert_eq!(serde_json::from_value::<JobState>(text).unwrap(), state);
        }
    }
}
