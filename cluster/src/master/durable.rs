//! What the master may not forget: the jobs, what they should be, and for each half of a job the
//! last generation and where it was placed.
//!
//! Written whole, as JSON, before anything is done about a change (see `book`). Only data.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::protocol::{Failure, JobSpec, Part, WorkerId};

/// One document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Durable {
    /// The master that wrote it.
    pub(crate) by: Author,
    /// Generations of ingests that were begun, over all jobs.
    pub(crate) ingests: u64,
    pub(crate) jobs: BTreeMap<String, Job>,
}

/// A master, from its start to its end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Author {
    /// Its generation: one above that of the master before.
    pub(crate) generation: u64,
    /// The number of the first document that it wrote. (Earlier versions counted generations so.)
    #[serde(default)]
    pub(crate) number: u64,
    pub(crate) host: String,
    pub(crate) process: u32,
    /// Where it listens.
    pub(crate) listen: String,
    /// Tells two masters apart that are the same in all else.
    pub(crate) random: u64,
}

/// A job that was submitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Job {
    #[serde(with = "shared")]
    pub(crate) spec: Arc<JobSpec>,
    /// Whether it shall run.
    pub(crate) runs: bool,
    pub(crate) dataflow: Record,
    pub(crate) ingest: Record,
}

/// One half of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Rises when a generation that runs is no longer the right one, so that it is drained.
    pub(crate) revision: u64,
    /// The last generation that was minted.
    pub(crate) generation: u64,
    /// A next generation is about to be minted.
    pub(crate) minting: bool,
    /// The generation that was ordered and has not ended yet.
    pub(crate) run: Option<Run>,
    /// Generations that ended by themselves since it was last submitted or restarted by hand.
    pub(crate) restarts: u64,
    /// Those of them without one in between that lived.
    pub(crate) in_a_row: u32,
    /// What the last of them said last, and how often in a row.
    pub(crate) repeated: Option<(String, u32)>,
    /// Why it is given up.
    pub(crate) failed: Option<String>,
    /// How generations ended, newest first.
    pub(crate) failures: Vec<Failure>,
}

/// A generation, and where its processes are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) generation: u64,
    /// Of the [`Record`] when it was placed.
    pub(crate) revision: u64,
    /// Nobody shall have it any more: it is never ordered again.
    pub(crate) ending: bool,
    /// The worker of each process, and what people call it.
    pub(crate) workers: Vec<(WorkerId, String)>,
    pub(crate) threads: usize,
    pub(crate) secret: String,
    /// What it was started with, when that is no longer what the job is.
    #[serde(with = "shared_if_any", default)]
    pub(crate) spec: Option<Arc<JobSpec>>,
}

impl Job {
    pub(crate) fn record(&self, part: Part) -> &Record {
        match part {
            Part::Dataflow => &self.dataflow,
            Part::Ingest => &self.ingest,
        }
    }

    pub(crate) fn record_mut(&mut self, part: Part) -> &mut Record {
        match part {
            Part::Dataflow => &mut self.dataflow,
            Part::Ingest => &mut self.ingest,
        }
    }

    /// Whether this half shall run. In a job that is to stop the views go on until the ingest has
    /// ended, so that they take all that it published.
    pub(crate) fn wants(&self, part: Part) -> bool {
        match (self.runs, part) {
            (true, Part::Dataflow) => true,
            (true, Part::Ingest) => self.spec.ingest,
            (false, Part::Dataflow) => self.dataflow.run.is_some() && self.ingest.run.is_some(),
            (false, Part::Ingest) => false,
        }
    }

    /// Whether what runs of this half is to make room: for another generation, or for none.
    pub(crate) fn must_go(&self, part: Part) -> bool {
        let record = self.record(part);
        let run = record.run.as_ref();
        !self.wants(part) || run.is_none_or(|run| run.revision != record.revision)
    }
}

impl Run {
    /// Slots that it takes of a worker.
    pub(crate) fn slots_of(&self, part: Part, worker: &str) -> usize {
        if part == Part::Ingest {
            return 0;
        }
        let there = self.workers.iter().filter(|(id, _)| id == worker);
        there.count() * self.threads
    }

    /// Process `index` in words.
    pub(crate) fn process(&self, index: usize) -> String {
        let name = self.workers.get(index).map_or("?", |(_, name)| name);
        format!("process {index} on {name}")
    }
}

impl Durable {
    /// Every half of every job.
    pub(crate) fn records(&self) -> impl Iterator<Item = (&str, Part, &Record)> {
        self.jobs.iter().flat_map(|(name, job)| {
            let both = [Part::Ingest, Part::Dataflow];
            both.map(|part| (name.as_str(), part, job.record(part)))
        })
    }
}

mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::protocol::JobSpec;

    pub(super) fn serialize<S: Serializer>(
        spec: &Arc<JobSpec>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        spec.as_ref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<JobSpec>, D::Error> {
        JobSpec::deserialize(deserializer).map(Arc::new)
    }
}

mod shared_if_any {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::protocol::JobSpec;

    pub(super) fn serialize<S: Serializer>(
        spec: &Option<Arc<JobSpec>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        spec.as_deref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Arc<JobSpec>>, D::Error> {
        Ok(Option::<JobSpec>::deserialize(deserializer)?.map(Arc::new))
    }
}
