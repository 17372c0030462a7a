//! Merging a site's runs in the background, so that their number stays logarithmic in the state's
//! size and what was replaced or deleted leaves the store.
//!
//! Every run is kept at least as large as all newer ones together: the tiers of a
//! log-structured merge tree (O'Neil et al., "The log-structured merge-tree", 1996). So each entry
//! is rewritten a logarithmic number of times, and a small checkpoint rewrites little.

use std::sync::Arc;

use tidemill_log::failpoint;

use super::change::{Block, SHARDS, Sum, add_up};
use super::part::{self, Part};
use super::read::Shards;
use super::{Run, State};
use crate::Result;
use crate::store::Store;

/// A part is closed at the first shard that makes it larger than this.
const PART_BYTES: usize = 32 * 1024 * 1024;

/// The index of the first run that is to be merged with all newer ones, if any is.
pub(super) fn due(runs: &[Run]) -> Option<usize> {
    let mut newer = 0;
    let mut first = None;
    for (index, run) in runs.iter().enumerate().rev() {
        if newer > 0 && run.bytes() < newer {
            first = Some(index);
        }
        newer += run.bytes();
    }
    first
}

/// Merges the runs from `first` on into one.
pub(super) fn merge(
    store: &Arc<dyn Store>,
    state: &State,
    first: usize,
    name: impl Fn(usize) -> String,
) -> Result<Run> {
    let runs = state.runs.get(first..).unwrap_or_default();
    let shards = Shards::open(Arc::clone(store), state.sum, runs, 0..SHARDS)?;
    let mut out = Parts::new(&**store, state.sum, name);
    for shard in 0..SHARDS {
        let read = shards.read(shard..shard + 1)?;
        let blocks = read.iter().map(|(_, bytes)| bytes.as_slice());
        out.block(shard)
            .append(add_up(state.sum, blocks, first == 0)?);
        out.roll(false)?;
    }
    out.finish()
}

/// Writes blocks as parts of bounded size.
pub(super) struct Parts<'a, N> {
    store: &'a dyn Store,
    sum: Sum,
    name: N,
    blocks: Vec<Block>,
    written: Vec<Part>,
}

impl<'a, N: Fn(usize) -> String> Parts<'a, N> {
    pub(super) fn new(store: &'a dyn Store, sum: Sum, name: N) -> Self {
        Self {
            store,
            sum,
            name,
            blocks: vec![Block::default(); SHARDS],
            written: Vec::new(),
        }
    }

    /// The block of a shard.
    pub(super) fn block(&mut self, shard: usize) -> &mut Block {
        &mut self.blocks[shard % SHARDS]
    }

    /// Writes what there is as a part, when it is large enough or `all` of it is to be written.
    pub(super) fn roll(&mut self, all: bool) -> Result<()> {
        let bytes: usize = self.blocks.iter().map(|block| block.bytes.len()).sum();
        if bytes < PART_BYTES && !all {
            return Ok(());
        }
        let name = (self.name)(self.written.len());
        if let Some((part, bytes)) = part::encode(name, self.sum, &self.blocks)? {
            failpoint::hit(failpoint::CHECKPOINT_BEFORE_PART);
            self.store.put(&part.name, bytes)?;
            failpoint::hit(failpoint::CHECKPOINT_AFTER_PART);
            self.written.push(part);
        }
        // Only now: what could not be written stays for the next try.
        self.blocks.fill(Block::default());
        Ok(())
    }

    /// Writes the rest. All parts.
    pub(super) fn finish(&mut self) -> Result<Run> {
        self.roll(true)?;
        Ok(Run {
            parts: std::mem::take(&mut self.written),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(bytes: u64) -> Run {
        let part = Part {
            name: String::new(),
            bytes,
            entries: 1,
            header: 0,
            shards: (0, 255),
        };
        Run { parts: vec![part] }
    }

    #[test]
    fn small_runs_are_merged_before_large_ones() {
        let due = |sizes: &[u64]| super::due(&sizes.iter().map(|s| run(*s)).collect::<Vec<_>>());
        assert_eq!(due(&[]), None);
        assert_eq!(due(&[100]), None);
        assert_eq!(due(&[100, 1]), None);
        assert_eq!(due(&[100, 1, 1]), None);
        assert_eq!(due(&[100, 1, 1, 1]), Some(1));
        assert_eq!(due(&[100, 60, 50]), Some(0), "110 is more than 100");
        assert_eq!(due(&[200, 60, 40, 30]), Some(1), "70 is more than 60");
        assert_eq!(due(&[100, 60, 40]), None, "100 is no more than 100");
    }
}
