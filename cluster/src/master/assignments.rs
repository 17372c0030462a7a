//! What a worker shall have, as a function of the state: of each half of a job the generation that
//! is written down and not to end, and of it the processes that were placed on this worker.

use std::collections::BTreeMap;

use super::component::Half;
use super::durable::{Durable, Run};
use crate::protocol::{JobSpec, Part, ProcessAssignment, ProcessKey};

/// The processes of `worker`.
pub(super) fn of(
    written: &Durable,
    halves: &BTreeMap<(String, Part), Half>,
    worker: &str,
) -> Vec<ProcessAssignment> {
    let mut orders = Vec::new();
    for (job, part, record) in written.records() {
        let Some(run) = record.run.as_ref().filter(|run| !run.ending) else {
            continue;
        };
        let here = run.workers.iter().enumerate();
        for (index, _) in here.filter(|(_, (id, _))| id == worker) {
            orders.extend(order((written, halves), job, part, run, index));
        }
    }
    orders
}

fn order(
    (written, halves): (&Durable, &BTreeMap<(String, Part), Half>),
    job: &str,
    part: Part,
    run: &Run,
    index: usize,
) -> Option<ProcessAssignment> {
    let planned = written.jobs.get(job)?;
    let spec = run.spec.as_ref().unwrap_or(&planned.spec);
    let half = halves.get(&(job.to_owned(), part));
    // Only when it is written down that it shall go: a drain cannot be taken back.
    let drain = half.is_some_and(|half| half.drains) && planned.must_go(part);
    Some(ProcessAssignment {
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
