//! What a worker shall have, as a function of the state: of each half of a job the generation that
//! is written down and not to end, and of it the processes that were placed on this worker.

use super::durable::Run;
use super::state::State;
use crate::protocol::{JobSpec, Order, Part, ProcessKey};

/// The processes of `worker`.
pub(super) fn of(state: &State, worker: &str) -> Vec<Order> {
    let mut orders = Vec::new();
    for (job, part, record) in state.written.records() {
        let Some(run) = record.run.as_ref().filter(|run| !run.ending) else {
            continue;
        };
        let here = run.workers.iter().enumerate();
        for (index, _) in here.filter(|(_, (id, _))| id == worker) {
            orders.extend(order(state, job, part, run, index));
        }
    }
    orders
}

fn order(state: &State, job: &str, part: Part, run: &Run, index: usize) -> Option<Order> {
    let written = state.written.jobs.get(job)?;
    let spec = run.spec.as_ref().unwrap_or(&written.spec);
    let half = state.halves.get(&(job.to_owned(), part));
    // Only when it is written down that it shall go: a drain cannot be taken back.
    let drain = half.is_some_and(|half| half.drains) && written.must_go(part);
    Some(Order {
        key: ProcessKey {
            job: job.to_owned(),
            part,
            generation: run.generation,
            index,
        },
        spec: JobSpec::clone(spec),
        threads: run.threads,
        processes: run.workers.len(),
        secret: run.secret.clone(),
        peers: half.and_then(|half| half.peers.clone()),
        drain,
    })
}
