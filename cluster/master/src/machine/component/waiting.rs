//! State Waiting: the component is wanted and not placed yet, for example because slots are
//! missing.
//!
//! The dataflow goes to Minting as soon as it could be placed. The ingest takes no slot and has no
//! journal, so it goes to Starting at once, with a number of the master's own counter.

use tidemill_protocol::Part;

use super::super::durable::Run;
use super::super::placement;
use super::super::placement::Placement;
use super::super::times::JOINING;
use super::{Here, Minting, Stage, Starting};

/// Waiting for workers or for slots.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Waiting {
    /// What the component waits for, in words for the user.
    pub(crate) why: Option<String>,
}

impl Waiting {
    /// The next state, or `None` to stay.
    pub(super) fn next(self, here: &mut Here<'_>) -> Option<Stage> {
        if !here.wanted {
            return Some(here.rest());
        }
        let placed = match here.now < here.started + JOINING {
            true => Err("the master has just started and waits for its workers".to_owned()),
            false => here.place(),
        };
        match (placed, here.part) {
            (Err(why), _) => {
                let waiting = Self { why: Some(why) };
                (waiting != self).then_some(Stage::Waiting(waiting))
            }
            (Ok(placement), Part::Ingest) => {
                *here.ingests += 1;
                let generation = *here.ingests;
                Some(here.start(generation, placement, String::new()))
            }
            (Ok(_), Part::Dataflow) => Some(Minting::begin(here)),
        }
    }
}

impl Here<'_> {
    /// Where the component's processes could be placed now. An ingest goes to the worker with the
    /// most free slots.
    ///
    /// # Errors
    ///
    /// Nothing can be placed; the text tells the user why.
    pub(super) fn place(&self) -> Result<Placement, String> {
        match self.part {
            Part::Dataflow => {
                let apart = |a: &str, b: &str| self.apart.is(a, b, self.now);
                let (wanted, waits) = (self.spec.workers, self.spec.wait_for_slots);
                placement::place(&self.free, wanted, waits, &apart)
            }
            Part::Ingest => {
                // Where most is free.
                let most = self.free.iter().max_by_key(|free| free.slots);
                let most = most.ok_or("no worker is there; start one with `tidemill worker`")?;
                Ok(Placement {
                    threads: 1,
                    workers: vec![(most.worker.clone(), most.name.clone())],
                })
            }
        }
    }

    /// Records a new generation. The generation is assigned to workers as soon as the record is
    /// durable.
    pub(super) fn start(&mut self, generation: u64, placed: Placement, secret: String) -> Stage {
        self.record.generation = generation;
        self.record.minting = false;
        self.record.run = Some(Run {
            generation,
            revision: self.record.revision,
            ending: false,
            workers: placed.workers,
            threads: placed.threads,
            secret,
            spec: None,
        });
        Stage::Starting(Starting { since: self.now })
    }
}
