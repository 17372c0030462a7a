//! The journal is told of the next generation, which fences the ones before it.

use std::sync::Arc;

use super::super::event::Action;
use super::super::times::MINT_AGAIN;
use super::{BackingOff, Half, Here, Stage};

/// Generations in a row that a journal may mint below the last one that is known.
const BEHIND_MAX: u64 = 1000;

/// Waiting for the journal.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Minting {
    /// Of the record then: with another one it may be another journal.
    revision: u64,
    /// Generations that were minted and had been before: it is another journal.
    behind: u64,
}

impl Minting {
    /// Asks for a generation. That one is asked for is written down first, each time, so that a
    /// master that was replaced finds out before it disturbs what the other one runs.
    pub(super) fn begin(here: &mut Here<'_>) -> Stage {
        Self::ask(here, 0)
    }

    fn ask(here: &mut Here<'_>, behind: u64) -> Stage {
        let revision = here.record.revision;
        here.record.minting = true;
        here.actions.push(Action::Mint {
            job: here.job.to_owned(),
            spec: Arc::clone(here.spec),
        });
        Stage::Minting(Self { revision, behind })
    }

    pub(super) fn next(self, half: &mut Half, here: &mut Here<'_>) -> Option<Stage> {
        // Also when it is not wanted any more: what is minted later would fence the next one.
        let minted = half.minted.take()?;
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
