//! Samples of how many records each component has processed, from which `status` computes rates.
//!
//! In: the record counters of the last heartbeats. Out: one sample for each component in its
//! [`Component`](crate::machine::component::Half), which computes the rate over the last samples.

use tidemill_protocol::Part;

use crate::machine::State;
use crate::machine::status::processes;

impl State {
    /// Adds one sample of each component. Called on every tick.
    pub(crate) fn sample(&mut self) {
        let names: Vec<(String, Part)> = self.components.keys().cloned().collect();
        for (name, part) in names {
            let records = records_of(self, &name, part);
            if let Some(component) = self.components.get_mut(&(name, part)) {
                component.sample(self.now, records);
            }
        }
    }
}

/// The sum of the record counters in the last heartbeats of a component's processes.
fn records_of(state: &State, name: &str, part: Part) -> u64 {
    let run = state
        .durable
        .jobs
        .get(name)
        .and_then(|job| job.record(part).run.as_ref());
    let told = run
        .map(|run| processes(state, name, part, run))
        .unwrap_or_default();
    told.iter()
        .filter_map(|(_, beat)| beat.as_ref())
        .map(|beat| beat.records)
        .sum()
}
