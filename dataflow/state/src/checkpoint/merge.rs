//! Compaction of a site's runs in the background.
//!
//! Merging keeps the number of runs logarithmic in the size of the state, and removes entries that
//! were replaced or deleted. Every run is kept at least as large as all newer runs together: the
//! tiers of a log-structured merge tree (O'Neil et al., "The log-structured merge-tree", 1996).
//! Therefore each entry is rewritten a logarithmic number of times, and a small checkpoint causes
//! little rewriting.

use std::sync::Arc;

use tidemill_log::{Result, failpoint};

use super::change::{Block, SHARDS, Sum, add_up};
use super::part::Part;
use super::read::Shards;
use super::{Run, State, part};
use crate::store::Store;

/// A part is closed at the first shard with which it has at least this many bytes.
const PART_BYTES: usize = 32 * 1024 * 1024;

/// The index of the first run that must be merged with all newer ones; `None` if no run must.
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

/// Merges the runs from index `first` on into one run. The result counts when a manifest names it.
///
/// # Errors
/// `Data` when a part is damaged. Otherwise as the store's reads and writes.
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

/// Writes the blocks of shards as parts of bounded size. Blocks must be added by ascending shard.
pub(super) struct Parts<'a, N> {
    /// The state store.
    store: &'a dyn Store,
    /// How the entries add up.
    sum: Sum,
    /// Gives the part with a number its name.
    name: N,
    /// The blocks that are not written yet, by shard.
    blocks: Vec<Block>,
    /// The parts that are written.
    written: Vec<Part>,
}

impl<'a, N: Fn(usize) -> String> Parts<'a, N> {
    /// No parts yet; `name` gives the part with a number its name.
    pub(super) fn new(store: &'a dyn Store, sum: Sum, name: N) -> Self {
        Self {
            store,
            sum,
            name,
            blocks: vec![Block::default(); SHARDS],
            written: Vec::new(),
        }
    }

    /// The block of a shard that the next part will contain.
    pub(super) fn block(&mut self, shard: usize) -> &mut Block {
        &mut self.blocks[shard % SHARDS]
    }

    /// Writes the collected blocks as a part if they are large enough, or if `all` is set.
    ///
    /// # Errors
    /// As [`crate::store::Store::put`]; the blocks stay, so the call may be repeated.
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
        // The blocks are emptied only now: after an error they stay for the next attempt.
        self.blocks.fill(Block::default());
        Ok(())
    }

    /// Writes the rest, and returns the run with all parts that were written.
    ///
    /// # Errors
    /// As those of the store; `Bug` when a header cannot be encoded.
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
