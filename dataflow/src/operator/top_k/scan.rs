//! Top-k scan: the first values of each key in a sorted trace, for top-k, `min` and `max`.
//!
//! The operator reads the arrangement's trace and keeps no state of its own. Epochs are totally
//! ordered, and the values of a key are sorted in the trace. A short walk from the beginning finds
//! the first values with a positive count, however many values the key has. After a retraction, the
//! same walk finds the next value. (Differential's `reduce` would present all values of the key at
//! each change.) A change behind the last value that is given needs no walk.
//!
//! ```text
//! key k, values in order:   3    7    7    9   12 …
//! offset 1, limit 2:        skip │ 7, 7 given │ not read
//!                                  ranges of row numbers [1, 3)
//! ```
//!
//! Frontier contract: for each batch of the arrangement, output is at the epochs in the batch,
//! under the capabilities that came with it. The trace is compacted to just below the batch's upper
//! frontier, so that updates from before a later batch can be told from that batch by their time.

use std::cmp::Ordering;

use differential_dataflow::operators::arrange::Arranged;
use differential_dataflow::trace::cursor::{Cursor, CursorList, cursor_list};
use differential_dataflow::trace::{BatchCursor, TraceReader};
use tidemill_ir::Epoch;
use tidemill_ir::row::Row;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::{CapabilitySet, Operator};
use timely::progress::Antichain;

use crate::operator::arrange::{Batch, Values};

/// Which values of a key are given. A value with a count of `n` counts as `n` values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept {
    /// The number of values that are skipped at the beginning.
    pub(crate) offset: u64,
    /// The number of values that are given after those; `None` for all.
    pub(crate) limit: Option<u64>,
    /// Whether each value is given with its row number from 1. If not, the number is 0.
    pub(crate) numbered: bool,
}

impl Kept {
    /// Only the first value.
    pub(crate) const FIRST: Self = Self {
        offset: 0,
        limit: Some(1),
        numbered: false,
    };

    /// The end of the given values, as a number of values from the beginning.
    fn end(&self) -> u64 {
        let end = self.limit.map(|limit| self.offset.saturating_add(limit));
        end.unwrap_or(u64::MAX)
    }
}

/// An update: a key, one of its first values and that value's number, with epoch and difference.
pub(crate) type First = ((Row, Row, i64), Epoch, isize);

/// The first values of each key, as updates.
pub(crate) fn first<'scope>(
    arranged: Arranged<'scope, Values>,
    kept: Kept,
) -> StreamVec<'scope, Epoch, First> {
    each_change(arranged, "First", move |new, held, lower, give| {
        changes(new, held, lower, kept, give);
    })
}

/// Derives output from an arrangement alone, each time that the arrangement has new batches.
/// `logic` gets these batches, all batches of the trace with the new ones, the frontier below which
/// the updates from before the new batches are, and what takes the output.
pub(crate) fn each_change<'scope, D: Clone + 'static>(
    arranged: Arranged<'scope, Values>,
    name: &str,
    mut logic: impl FnMut(Vec<Batch>, Vec<Batch>, &Antichain<Epoch>, &mut dyn FnMut(D)) + 'static,
) -> StreamVec<'scope, Epoch, D> {
    let mut trace = arranged.trace.clone();
    arranged
        .stream
        .unary_frontier::<CapacityContainerBuilder<Vec<D>>, _, _, _>(Pipeline, name, move |_, _| {
            let mut upper = Antichain::from_elem(0);
            move |(input, _frontier), output| {
                let lower = upper.clone();
                let mut caps = CapabilitySet::new();
                let mut batches = Vec::new();
                input.for_each(|cap, spans| {
                    for cap in cap.retain_stamp(0).iter() {
                        caps.insert(cap.clone());
                    }
                    for span in spans.drain(..) {
                        upper.clone_from(span.upper());
                        batches.extend(span.inner);
                    }
                });
                if !caps.is_empty()
                    && let Some(held) = trace.batches_through(upper.borrow())
                {
                    let mut session = output.session(&caps);
                    logic(batches, held, &lower, &mut |update| session.give(update));
                }
                trace.advance_upper(&mut upper);
                trace.set_logical_compaction(just_below(&upper).borrow());
                trace.set_physical_compaction(upper.borrow());
            }
        })
}

/// The frontier one epoch before `upper`.
fn just_below(upper: &Antichain<Epoch>) -> Antichain<Epoch> {
    upper.iter().map(|epoch| epoch.saturating_sub(1)).collect()
}

/// A given value with the range of its numbers from 0, which is longer than one if its count is.
struct Placed<'a> {
    /// The value.
    value: &'a Row,
    /// The number of its first row, counted from 0.
    from: u64,
    /// The number after that of its last row.
    to: u64,
}

/// Computes how the first values of the keys in `new` change. `held` are all batches of the trace,
/// with the new ones. Updates from before the new batches have times below `lower`.
fn changes(
    new: Vec<Batch>,
    held: Vec<Batch>,
    lower: &Antichain<Epoch>,
    kept: Kept,
    give: &mut dyn FnMut(First),
) {
    let (mut changed, changed_in) = cursor_list(new);
    let (mut all, all_in) = cursor_list(held);
    // The epochs of a key's changes, each with the first value that changes in it.
    let mut epochs: Vec<(Epoch, &Row)> = Vec::new();
    let (mut before, mut now) = (Vec::new(), Vec::new());
    while let Some(key) = changed.get_key(&changed_in) {
        epochs.clear();
        while let Some(value) = changed.get_val(&changed_in) {
            changed.map_times(&changed_in, |time, _| epochs.push((*time, value)));
            changed.step_val(&changed_in);
        }
        epochs.sort_unstable();
        epochs.dedup_by_key(|(epoch, _)| *epoch);
        all.seek_key(&all_in, key);
        if all.get_key(&all_in) == Some(key) {
            let earlier = |time: &Epoch| !lower.less_equal(time);
            let mut full = walk(&mut all, &all_in, kept, earlier, &mut before);
            for &(epoch, least) in &epochs {
                if full && before.last().is_none_or(|last| last.value < least) {
                    continue;
                }
                full = walk(&mut all, &all_in, kept, |time| *time <= epoch, &mut now);
                differences(&before, &now, kept.numbered, |value, number, diff| {
                    give(((key.clone(), value.clone(), number), epoch, diff));
                });
                std::mem::swap(&mut before, &mut now);
            }
        }
        changed.step_key(&changed_in);
    }
}

/// Finds the first values of the cursor's key, counting only updates at `included` times. Returns
/// true if there may be more values behind the last one.
fn walk<'a>(
    cursor: &mut CursorList<BatchCursor<Values>>,
    storage: &'a Vec<Batch>,
    kept: Kept,
    included: impl Fn(&Epoch) -> bool,
    placed: &mut Vec<Placed<'a>>,
) -> bool {
    placed.clear();
    cursor.rewind_vals(storage);
    let end = kept.end();
    let mut passed: u64 = 0;
    while passed < end {
        let Some(value) = cursor.get_val(storage) else {
            return false;
        };
        let mut count = 0;
        cursor.map_times(storage, |time, diff| {
            if included(time) {
                count += *diff;
            }
        });
        let from = passed.max(kept.offset);
        passed = passed.saturating_add(u64::try_from(count).unwrap_or(0));
        let to = passed.min(end);
        if from < to {
            placed.push(Placed { value, from, to });
        }
        cursor.step_val(storage);
    }
    true
}

/// The changes from `before` to `now`, which are both sorted by value.
fn differences(
    before: &[Placed<'_>],
    now: &[Placed<'_>],
    numbered: bool,
    mut give: impl FnMut(&Row, i64, isize),
) {
    let mut one = |value: &Row, old: (u64, u64), new: (u64, u64)| {
        if !numbered {
            // A range is at most as long as the number of rows in a trace, which is a difference's
            // type.
            let count = |(from, to): (u64, u64)| (to - from) as isize;
            let diff = count(new) - count(old);
            if diff != 0 {
                give(value, 0, diff);
            }
            return;
        }
        let within = |number: u64, (from, to): (u64, u64)| from <= number && number < to;
        for number in (old.0..old.1).filter(|number| !within(*number, new)) {
            give(value, number as i64 + 1, -1);
        }
        for number in (new.0..new.1).filter(|number| !within(*number, old)) {
            give(value, number as i64 + 1, 1);
        }
    };
    let (mut before, mut now) = (before.iter().peekable(), now.iter().peekable());
    loop {
        let order = match (before.peek(), now.peek()) {
            (Some(old), Some(new)) => old.value.cmp(new.value),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return,
        };
        let old = before.next_if(|_| order != Ordering::Greater);
        let new = now.next_if(|_| order != Ordering::Less);
        let range = |placed: Option<&Placed<'_>>| placed.map_or((0, 0), |p| (p.from, p.to));
        if let Some(placed) = old.or(new) {
            one(placed.value, range(old), range(new));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::rc::Rc;

    use differential_dataflow::AsCollection;
    use proptest::prelude::*;
    use timely::dataflow::operators::{Inspect, Probe, vec::Input};

    use super::*;
    use crate::operator::arrange::Update;

    fn row(byte: u8) -> Row {
        Row::new(&[byte])
    }

    /// What the operator gives for waves of updates; those of a wave arrive together, and no wave
    /// has an epoch of the one before.
    fn given(waves: Vec<Vec<Update>>, kept: Kept) -> Vec<First> {
        timely::execute_directly(move |worker| {
            let found = Rc::new(RefCell::new(Vec::new()));
            let seen = Rc::clone(&found);
            let (mut input, probe) = worker.dataflow::<Epoch, _, _>(|scope| {
                let (input, updates) = scope.new_input();
                let firsts = first(updates.as_collection().arrange_by_key(), kept);
                let firsts = firsts.inspect(move |first| seen.borrow_mut().push(first.clone()));
                (input, firsts.probe().0)
            });
            for wave in waves {
                let end = wave.iter().map(|(_, epoch, _)| *epoch + 1).max();
                wave.into_iter().for_each(|update| input.send(update));
                input.advance_to(end.unwrap_or(*input.time()));
                worker.step_while(|| probe.less_than(input.time()));
            }
            found.take()
        })
    }

    type Rows = BTreeMap<(Row, Row, i64), isize>;

    fn through<D: Ord + Clone>(updates: &[(D, Epoch, isize)], epoch: Epoch) -> BTreeMap<D, isize> {
        let mut sums = BTreeMap::new();
        for (data, _, diff) in updates.iter().filter(|(_, at, _)| *at <= epoch) {
            *sums.entry(data.clone()).or_insert(0) += diff;
        }
        sums.retain(|_, sum| *sum != 0);
        sums
    }

    /// The first values, from all values sorted.
    fn expected(held: &BTreeMap<(Row, Row), isize>, kept: Kept) -> Rows {
        let mut passed: BTreeMap<Row, u64> = BTreeMap::new();
        let mut rows = Rows::new();
        for ((key, value), count) in held {
            for _ in 0..*count {
                let passed = passed.entry(key.clone()).or_default();
                *passed += 1;
                if (kept.offset + 1..=kept.end()).contains(passed) {
                    let number = if kept.numbered { *passed as i64 } else { 0 };
                    *rows
                        .entry((key.clone(), value.clone(), number))
                        .or_default() += 1;
                }
            }
        }
        rows
    }

    proptest! {
        #[test]
        fn the_first_values_are_those_of_the_sorted_values_at_every_epoch(
            waves in prop::collection::vec(
                prop::collection::vec((0..3_u8, 0..8_u8, 0..4_u64, any::<bool>()), 0..24), 1..6),
            offset in 0..4_u64,
            limit in prop::option::of(0..5_u64),
            numbered in any::<bool>(),
        ) {
            let kept = Kept { offset, limit, numbered };
            let mut counts: BTreeMap<(u8, u8), isize> = BTreeMap::new();
            let mut epochs = Vec::new();
            for (number, mut wave) in waves.into_iter().enumerate() {
                wave.sort_by_key(|(_, _, epoch, _)| *epoch);
                let wave = wave.into_iter().map(|(key, value, epoch, adds)| {
                    let count = counts.entry((key, value)).or_default();
                    let diff = if adds || *count == 0 { 1 } else { -1 };
                    *count += diff;
                    ((row(key), row(value)), number as Epoch * 4 + epoch, diff)
                });
                epochs.push(wave.collect::<Vec<Update>>());
            }
            let updates = epochs.concat();
            let found = given(epochs, kept);
            for epoch in updates.iter().map(|(_, epoch, _)| *epoch) {
                let expected = expected(&through(&updates, epoch), kept);
                prop_assert_eq!(through(&found, epoch), expected, "at {}", epoch);
            }
            prop_assert!(found.iter().all(|(_, _, diff)| *diff != 0));
        }
    }

    #[test]
    fn a_change_behind_the_last_value_gives_nothing() {
        let kept = Kept {
            limit: Some(2),
            ..Kept::FIRST
        };
        let add = |value, epoch| ((row(0), row(value)), epoch, 1);
        let waves = vec![vec![add(1, 1), add(2, 1), add(3, 1)], vec![add(9, 2)]];
        assert!(given(waves, kept).iter().all(|(_, epoch, _)| *epoch == 1));
    }
}
