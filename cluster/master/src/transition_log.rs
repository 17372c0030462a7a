//! The master's log lines about changes of the state: workers that come and go, state transitions
//! of components, and why generations ended.
//!
//! In: the state after each event. Out: log lines, at most one for each change. The log is how an
//! operator sees afterwards what the master decided, and when.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_protocol::{Failure, Part};

use crate::machine::State;
use crate::machine::component::Stage;

/// What was logged already, so that only changes are logged.
#[derive(Debug, Default)]
pub(super) struct Logged {
    /// The name of each present worker, by id.
    workers: BTreeMap<String, String>,
    /// The state, generation and newest failure of each component.
    components: BTreeMap<(String, Part), (&'static str, u64, Option<Failure>)>,
}

impl Logged {
    /// Logs what changed since the last call.
    pub(super) fn tell(&mut self, state: &State) {
        let present = state.roster.present();
        let present: BTreeSet<&str> = present.map(|it| it.report.worker.as_str()).collect();
        self.workers.retain(|id, name| {
            let stays = present.contains(id.as_str());
            if !stays {
                tracing::warn!(worker = %name, id, "worker is gone");
            }
            stays
        });
        for worker in state.roster.present() {
            let report = &worker.report;
            if !self.workers.contains_key(&report.worker) {
                let (id, slots, version) = (&report.worker, report.slots, &report.version);
                tracing::info!(worker = %report.name, %id, slots, %version, "worker is here");
                self.workers
                    .insert(report.worker.clone(), report.name.clone());
            }
        }
        self.components
            .retain(|component, _| state.components.contains_key(component));
        for ((job, part), component) in &state.components {
            let Some(record) = state.durable.jobs.get(job).map(|job| job.record(*part)) else {
                continue;
            };
            let word = word(&component.stage);
            let told = self.components.get(&(job.clone(), *part));
            let failure = record.failures.first();
            let known = told.and_then(|(_, _, failure)| failure.as_ref());
            if let Some(failure) = failure.filter(|it| told.is_some() && Some(*it) != known) {
                let (process, what) = (&failure.process, &failure.what);
                let generation = failure.generation;
                tracing::warn!(job, ?part, generation, "{process} {what}");
                for line in &failure.tail {
                    tracing::warn!(job, ?part, generation, "it said: {line}");
                }
            }
            let generation = record.generation;
            let is_new = told.is_none_or(|told| (told.0, told.1) != (word, generation));
            match &record.failed {
                _ if !is_new => {}
                Some(why) => tracing::error!(job, ?part, generation, "{word}: {why}"),
                None => tracing::info!(job, ?part, generation, "{word}"),
            }
            if is_new || known != failure {
                let now = (word, generation, failure.cloned());
                self.components.insert((job.clone(), *part), now);
            }
        }
    }
}

/// The word for a state in log lines.
fn word(stage: &Stage) -> &'static str {
    match stage {
        Stage::Stopped => "stopped",
        Stage::Failed => "failed",
        Stage::Waiting(_) => "waits",
        Stage::Minting(_) => "mints a generation",
        Stage::Starting(_) => "starts",
        Stage::Connecting(_) => "connects",
        Stage::Running(_) => "runs",
        Stage::Draining(_) => "drains",
        Stage::Ending(_) => "ends",
        Stage::BackingOff(_) => "pauses",
    }
}
