//! How many records the parts of jobs have processed, sampled for their rates.

use super::state::State;
use super::status::processes;
use crate::protocol::Part;

impl State {
    /// Keeps what rates are computed from.
    pub(super) fn sample(&mut self) {
        let names: Vec<(String, Part)> = self.halves.keys().cloned().collect();
        for (name, part) in names {
            let records = records_of(self, &name, part);
            if let Some(half) = self.halves.get_mut(&(name, part)) {
                half.sample(self.now, records);
            }
        }
    }
}

/// Records that the processes of a half told.
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
