//! The durable state of the master: the jobs, their desired state, and the last generation and
//! placement of each component.
//!
//! The state is one JSON document. The document is written as a whole, before the master acts on a
//! change (see [`crate::state_log`]). This module contains only data and simple questions about it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidemill_protocol::{Failure, JobSpec, Part, WorkerId};

/// The whole document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Durable {
    /// The master that wrote this document.
    pub(crate) by: Author,
    /// Generations of ingests that were begun, over all jobs. Numbers the next one.
    pub(crate) ingests: u64,
    /// The jobs, by name.
    pub(crate) jobs: BTreeMap<String, Job>,
    /// The workers on which nothing is placed, because somebody drained them.
    #[serde(default)]
    pub(crate) drained: BTreeSet<WorkerId>,
}

/// Identity of one master process, from its start to its end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Author {
    /// The master's generation: one above that of the master before it. A fencing generation:
    /// workers drop assignments of a lower one.
    pub(crate) generation: u64,
    /// The number of the first document that this master wrote. (Earlier versions used this number
    /// as the generation.)
    #[serde(default)]
    pub(crate) number: u64,
    /// Host name, process id and listen address, for messages.
    pub(crate) host: String,
    pub(crate) process: u32,
    /// The address at which the master listens, `IP:PORT`.
    pub(crate) listen: String,
    /// A random number: tells masters apart that are equal in everything else.
    pub(crate) random: u64,
}

/// A job that was submitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The current definition, as submitted or rescaled.
    #[serde(with = "shared")]
    pub(crate) spec: Arc<JobSpec>,
    /// Desired state: whether the job shall run. `stop` sets it to false.
    pub(crate) runs: bool,
    /// What is kept of the dataflow, and below of the ingest.
    pub(crate) dataflow: Record,
    pub(crate) ingest: Record,
}

/// What is kept of one component of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The revision of the component. A generation that was placed at a lower revision is drained
    /// and replaced.
    pub(crate) revision: u64,
    /// The last generation number: the journal's for a dataflow, [`Durable::ingests`] for an
    /// ingest.
    pub(crate) generation: u64,
    /// Whether the master is about to ask the journal for the next generation.
    pub(crate) minting: bool,
    /// The generation that was assigned and has not ended yet.
    pub(crate) run: Option<Run>,
    /// Generations that failed since the job was last submitted or restarted by hand.
    pub(crate) restarts: u64,
    /// Failures in a row: of those, the ones without a generation in between that lived for
    /// `LIVED_MIN`.
    pub(crate) in_a_row: u32,
    /// The last error message, and how many times in a row generations ended with it.
    pub(crate) repeated: Option<(String, u32)>,
    /// The reason why the component was given up; `None` while it is tried.
    pub(crate) failed: Option<String>,
    /// The last failures, newest first, at most `FAILURES_KEPT_MAX`.
    pub(crate) failures: Vec<Failure>,
}

/// A generation of a component, and the placement of its processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// The generation's number, as in each of its [`tidemill_protocol::ProcessKey`]s.
    pub(crate) generation: u64,
    /// The [`Record`]'s revision when the generation was placed.
    pub(crate) revision: u64,
    /// The generation is ending. It is removed from all assignments and never assigned again.
    pub(crate) ending: bool,
    /// The worker of each process, by index: its id and its name.
    pub(crate) workers: Vec<(WorkerId, String)>,
    /// Worker threads of each process.
    pub(crate) threads: usize,
    /// The secret with which the processes authenticate each other: hexadecimal digits, new in each
    /// generation; empty for an ingest.
    pub(crate) secret: String,
    /// The definition with which the generation was started, when the job's definition has changed
    /// since.
    #[serde(with = "shared_if_any", default)]
    pub(crate) spec: Option<Arc<JobSpec>>,
}

impl Job {
    /// The record of a component.
    pub(crate) fn record(&self, part: Part) -> &Record {
        match part {
            Part::Dataflow => &self.dataflow,
            Part::Ingest => &self.ingest,
        }
    }

    /// The record of a component, to change it.
    pub(crate) fn record_mut(&mut self, part: Part) -> &mut Record {
        match part {
            Part::Dataflow => &mut self.dataflow,
            Part::Ingest => &mut self.ingest,
        }
    }

    /// Whether the component shall run now. When a job stops, its dataflow runs until the ingest
    /// has ended, so that the views take everything that the ingest published.
    pub(crate) fn wants(&self, part: Part) -> bool {
        match (self.runs, part) {
            (true, Part::Dataflow) => true,
            (true, Part::Ingest) => self.spec.ingest,
            (false, Part::Dataflow) => self.dataflow.run.is_some() && self.ingest.run.is_some(),
            (false, Part::Ingest) => false,
        }
    }

    /// Whether the running generation must drain: the component is not wanted any more, or a newer
    /// revision replaces it.
    pub(crate) fn must_go(&self, part: Part) -> bool {
        let record = self.record(part);
        let run = record.run.as_ref();
        !self.wants(part) || run.is_none_or(|run| run.revision != record.revision)
    }
}

impl Run {
    /// Slots that this generation takes on `worker`. An ingest takes none.
    pub(crate) fn slots_of(&self, part: Part, worker: &str) -> usize {
        if part == Part::Ingest {
            return 0;
        }
        let there = self.workers.iter().filter(|(id, _)| id == worker);
        there.count() * self.threads
    }

    /// Process `index` in words, as in `process 1 on node2`.
    pub(crate) fn process(&self, index: usize) -> String {
        let name = self.workers.get(index).map_or("?", |(_, name)| name);
        format!("process {index} on {name}")
    }
}

impl Durable {
    /// The records of both components of every job: by job name, the ingest first.
    pub(crate) fn records(&self) -> impl Iterator<Item = (&str, Part, &Record)> {
        self.jobs.iter().flat_map(|(name, job)| {
            let both = [Part::Ingest, Part::Dataflow];
            both.map(|part| (name.as_str(), part, job.record(part)))
        })
    }
}

/// Serializes the job inside the `Arc` as if there were no `Arc`.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use tidemill_protocol::JobSpec;

    pub(crate) fn serialize<S: Serializer>(
        spec: &Arc<JobSpec>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        spec.as_ref().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<JobSpec>, D::Error> {
        JobSpec::deserialize(deserializer).map(Arc::new)
    }
}

/// The same for an `Option`.
mod shared_if_any {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use tidemill_protocol::JobSpec;

    pub(crate) fn serialize<S: Serializer>(
        spec: &Option<Arc<JobSpec>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        spec.as_deref().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Arc<JobSpec>>, D::Error> {
        Ok(Option::<JobSpec>::deserialize(deserializer)?.map(Arc::new))
    }
}
