//! Merge batcher: sorts the updates of an arrangement before they become a batch.
//!
//! Differential dataflow merges sorted chains pairwise, so each update is moved and compared once
//! per level. A restored checkpoint arrives in sorted order: each of its chains begins after the
//! previous one ends. Such chains are concatenated here without looking at their updates.

use differential_dataflow::batcher::merge::chunker::ContainerChunker;
use differential_dataflow::batcher::merge::vec::VecMerger;
use differential_dataflow::batcher::merge::{Extractor, MergeBatcher, Merger};
use differential_dataflow::difference::Semigroup;
use differential_dataflow::trace::implementations::{KeyBuilder, ValBuilder};
use timely::PartialOrder;
use timely::progress::Antichain;
use timely::progress::frontier::AntichainRef;

/// The batcher of keys without values.
pub(crate) type KeyBatcher<K, T, R> = MergeBatcher<
    ContainerChunker<Vec<((K, ()), T, R)>>,
    ChainMerger<(K, ()), T, R>,
    KeyBuilder<K, T, R>,
>;

/// The batcher of values by key.
pub(crate) type ValBatcher<K, V, T, R> = MergeBatcher<
    ContainerChunker<Vec<((K, V), T, R)>>,
    ChainMerger<(K, V), T, R>,
    ValBuilder<K, V, T, R>,
>;

/// Merges chains. If one chain ends before the other begins, they are concatenated instead.
pub(crate) struct ChainMerger<D, T, R>(VecMerger<D, T, R>);

impl<D, T, R> Default for ChainMerger<D, T, R> {
    fn default() -> Self {
        Self(VecMerger::default())
    }
}

/// A sorted list of updates, in chunks.
type Chain<D, T, R> = Vec<Vec<(D, T, R)>>;

/// Whether the last update of `one` is before the first of `other`; false if a chain is empty.
fn precedes<D: Ord, T: Ord, R>(one: &Chain<D, T, R>, other: &Chain<D, T, R>) -> bool {
    let last = one.last().and_then(|chunk| chunk.last());
    let first = other.first().and_then(|chunk| chunk.first());
    match (last, first) {
        (Some((d1, t1, _)), Some((d2, t2, _))) => (d1, t1) < (d2, t2),
        _ => false,
    }
}

impl<D, T, R> Merger for ChainMerger<D, T, R>
where
    D: Ord + Clone + 'static,
    T: Ord + Clone + PartialOrder + 'static,
    R: Semigroup + 'static,
{
    type Chunk = Vec<(D, T, R)>;

    fn merge(
        &mut self,
        list1: Chain<D, T, R>,
        list2: Chain<D, T, R>,
        output: &mut Chain<D, T, R>,
        stash: &mut Chain<D, T, R>,
    ) {
        if precedes(&list2, &list1) {
            output.extend(list2);
            output.extend(list1);
        } else if precedes(&list1, &list2) {
            output.extend(list1);
            output.extend(list2);
        } else {
            self.0.merge(list1, list2, output, stash);
        }
    }

    fn len(chunk: &Self::Chunk) -> usize {
        VecMerger::<D, T, R>::len(chunk)
    }
}

impl<D, T, R> Extractor for ChainMerger<D, T, R>
where
    D: Ord + Clone + 'static,
    T: Ord + Clone + PartialOrder + 'static,
    R: Semigroup + 'static,
{
    type Time = T;

    fn extract(
        &mut self,
        merged: Chain<D, T, R>,
        upper: AntichainRef<'_, T>,
        frontier: &mut Antichain<T>,
        readied: &mut Chain<D, T, R>,
        kept: &mut Chain<D, T, R>,
        stash: &mut Chain<D, T, R>,
    ) {
        self.0
            .extract(merged, upper, frontier, readied, kept, stash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(one: &[&[u8]], other: &[&[u8]]) -> Vec<Vec<u8>> {
        let chain = |keys: &[&[u8]]| -> Chain<u8, u64, isize> {
            let chunk = |keys: &&[u8]| keys.iter().map(|key| (*key, 7, 1)).collect();
            keys.iter().map(chunk).collect()
        };
        let (mut output, mut stash) = (Vec::new(), Vec::new());
        let mut merger = ChainMerger::default();
        merger.merge(chain(one), chain(other), &mut output, &mut stash);
        let keys =
            |chunk: Vec<(u8, u64, isize)>| chunk.into_iter().map(|update| update.0).collect();
        output.into_iter().map(keys).collect()
    }

    #[test]
    fn chains_that_follow_one_another_are_joined_and_others_merged() {
        let joined = vec![vec![1, 2], vec![3], vec![4, 5]];
        assert_eq!(merged(&[&[1, 2], &[3]], &[&[4, 5]]), joined);
        assert_eq!(merged(&[&[4, 5]], &[&[1, 2], &[3]]), joined);
        let flat = |chain: Vec<Vec<u8>>| chain.concat();
        assert_eq!(flat(merged(&[&[1, 4]], &[&[2, 5]])), [1, 2, 4, 5]);
        assert_eq!(flat(merged(&[&[1, 4]], &[&[4, 5]])), [1, 4, 5]);
        assert_eq!(flat(merged(&[], &[&[4, 5]])), [4, 5]);
    }
}
