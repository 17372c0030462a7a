//! State Minting: the dataflow's journal makes the next generation, which fences all generations
//! before it.
//!
//! Goes to Starting when the generation is minted and its processes can be placed, to Waiting or
//! Stopped when it is not needed or cannot be placed any more, to BackingOff after a temporary
//! error, and to Failed after a permanent one.

use std::sync::Arc;

use super::super::event::Action;
use super::super::times::MINT_AGAIN;
use super::{BackingOff, Component, Here, Stage};

/// Limit of generations that are minted in a row because the journal's number is not above the last
/// known one.
const BEHIND_MAX: u64 = 1000;

/// Waiting for the journal.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Minting {
    /// The record's revision at the request. After another revision the job may have another
    /// journal.
    revision: u64,
    /// Generations so far whose number was already used: the journal is not the one of before.
    behind: u64,
}

impl Minting {
    /// Asks for a generation. The request is written down before it is carried out, each time.
    /// Therefore a master that was replaced notices that before it fences what the other master
    /// runs.
    pub(super) fn begin(here: &mut Here<'_>) -> Stage {
        Self::ask(here, 0)
    }

    /// Sends the request; `behind` counts the requests before it.
    fn ask(here: &mut Here<'_>, behind: u64) -> Stage {
        let revision = here.record.revision;
        here.record.minting = true;
        here.actions.push(Action::Mint {
            job: here.job.to_owned(),
            spec: Arc::clone(here.spec),
        });
        Stage::Minting(Self { revision, behind })
    }

    /// The next state, or `None` to wait for the journal.
    pub(super) fn next(self, component: &mut Component, here: &mut Here<'_>) -> Option<Stage> {
        // Waits for the result also when the generation is not wanted any more: a generation that
        // is minted later would fence the next one.
        let minted = component.minted.take()?;
        if !here.wanted || here.record.revision != self.revision {
            here.record.minting = false;
            return Some(here.rest());
        }
        let minted = match minted {
            Ok(minted) => minted,
            Err(why) if why.may_mend => {
                let until = here.now + MINT_AGAIN;
                let why = Some(why.what);
                here.record.minting = false;
                let revision = here.record.revision;
                return Some(Stage::BackingOff(BackingOff {
                    until,
                    revision,
                    why,
                }));
            }
            Err(why) => {
                here.record.minting = false;
                here.record.failed = Some(why.what);
                return Some(Stage::Failed);
            }
        };
        if minted.generation <= here.record.generation {
            if self.behind < BEHIND_MAX {
                return Some(Self::ask(here, self.behind + 1));
            }
            let (minted, ran) = (minted.generation, here.record.generation);
            here.record.minting = false;
            here.record.failed = Some(format!(
                "its journal is at generation {minted}, while generation {ran} ran already: is it \
                 another store than before?"
            ));
            return Some(Stage::Failed);
        }
        match here.place() {
            Ok(placement) => Some(here.start(minted.generation, placement, minted.secret)),
            Err(_) => {
                here.record.generation = minted.generation;
                here.record.minting = false;
                Some(here.rest())
            }
        }
    }
}
