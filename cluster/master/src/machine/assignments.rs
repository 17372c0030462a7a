//! The assignment of a worker, computed from the state: the processes that the worker must run.
//!
//! A process is in the assignment when its component has a generation that is written down, is not
//! ending, and was placed on this worker. The function keeps no state: equal states give equal
//! assignments.

use std::collections::BTreeMap;

use tidemill_protocol::{JobSpec, Part, ProcessAssignment, ProcessKey};

use super::component::Component;
use super::durable::{Durable, Run};

/// The processes that `worker` must run, over all jobs, in the order of [`Durable::records`].
pub(crate) fn of(
    written: &Durable,
    components: &BTreeMap<(String, Part), Component>,
    worker: &str,
) -> Vec<ProcessAssignment> {
    let mut orders = Vec::new();
    for (job, part, record) in written.records() {
        let Some(run) = record.run.as_ref().filter(|run| !run.ending) else {
            continue;
        };
        let here = run.workers.iter().enumerate();
        for (index, _) in here.filter(|(_, (id, _))| id == worker) {
            orders.extend(order((written, components), job, part, run, index));
        }
    }
    orders
}

/// Process `index` of one generation; `None` when the job was removed.
fn order(
    (written, components): (&Durable, &BTreeMap<(String, Part), Component>),
    job: &str,
    part: Part,
    run: &Run,
    index: usize,
) -> Option<ProcessAssignment> {
    let planned = written.jobs.get(job)?;
    let spec = run.spec.as_ref().unwrap_or(&planned.spec);
    let component = components.get(&(job.to_owned(), part));
    // A drain cannot be taken back, so it is sent only after the reason for it is written down.
    let drain = component.is_some_and(|component| component.drains) && planned.must_go(part);
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
        peers: component.and_then(|component| component.peers.clone()),
        drain,
    })
}
