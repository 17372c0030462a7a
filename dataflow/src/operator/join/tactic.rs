//! Join tactic: which rows of the two sides are paired, in bounded pieces.
//!
//! [`Nested`] tells differential's join driver how to pair a fresh batch of one side with what is
//! held of the other side. It ends a piece after [`PAIRS_MAX`] pairs or [`BYTES_MAX`] bytes, and
//! continues where it stopped, also in the middle of a key. Therefore a hot key blocks neither its
//! worker nor fills the memory.
//!
//! ```text
//! fresh batch (left)           held trace (right)
//! key a: x, y          ×       key a: 1, 2, 3      ─►  (a,x,1) (a,x,2) │ piece ends: PAIRS_MAX
//!                                                      (a,x,3) (a,y,1) (a,y,2) (a,y,3)
//! key c: z                     key b: 4            ─►  seek: no pair
//! ```
//!
//! Invariants:
//! 1. A pair is at the later of the epochs of its two rows. Within a recursion it is at the least
//!    round that is not before the rounds of both.
//! 2. Each pair of updates is given exactly once.

use std::cmp::Ordering;

use differential_dataflow::consolidation::consolidate;
use differential_dataflow::operators::join::{Fresh, JoinTactic};
use differential_dataflow::trace::BatchCursor;
use differential_dataflow::trace::cursor::{Cursor, CursorList, cursor_list};
use tidemill_ir::Epoch;
use tidemill_ir::row::Row;
use timely::container::Accountable;

use crate::chunk::time::Time;
use crate::operator::arrange::{Batch, Values};

/// Most pairs in one piece.
const PAIRS_MAX: usize = 1024;

/// Most bytes in one piece; the last pair may exceed them.
const BYTES_MAX: usize = 256 * 1024;

/// The number of records that each piece counts as for the driver. The driver yields to other
/// operators after a million records, that is, after about 16 pieces.
const PIECE_RECORDS: i64 = 1_000_000 / 16;

/// A piece of a join's output: pairs of rows as bytes.
pub(crate) struct Pairs<T = Epoch> {
    /// Key, left row and right row of each pair, one after the other.
    bytes: Vec<u8>,
    /// One per pair.
    ends: Vec<Ends<T>>,
}

impl<T> Default for Pairs<T> {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            ends: Vec::new(),
        }
    }
}

/// The ends of the three parts of a pair in the bytes, its epoch and its difference.
struct Ends<T> {
    /// Where the key ends.
    key: usize,
    /// Where the left row ends.
    left: usize,
    /// Where the right row ends.
    right: usize,
    /// The later of the times of the two rows.
    epoch: T,
    /// The product of the differences of the two rows.
    diff: isize,
}

/// One pair of rows with an equal key.
pub(crate) struct Pair<'a, T = Epoch> {
    /// The key, encoded.
    pub(crate) key: &'a [u8],
    /// The left row, encoded.
    pub(crate) left: &'a [u8],
    /// The right row, encoded.
    pub(crate) right: &'a [u8],
    /// The later of the times of the two rows.
    pub(crate) epoch: T,
    /// The product of the differences of the two rows.
    pub(crate) diff: isize,
}

impl<T> Accountable for Pairs<T> {
    fn record_count(&self) -> i64 {
        if self.ends.is_empty() {
            0
        } else {
            PIECE_RECORDS
        }
    }
}

impl<T: Time> Pairs<T> {
    /// Whether the piece has reached a limit.
    fn is_full(&self) -> bool {
        self.ends.len() >= PAIRS_MAX || self.bytes.len() >= BYTES_MAX
    }

    /// Appends a pair.
    fn push(&mut self, key: &Row, left: &Row, right: &Row, epoch: T, diff: isize) {
        let mut end = |row: &Row| {
            self.bytes.extend_from_slice(row.bytes());
            self.bytes.len()
        };
        let (key, left, right) = (end(key), end(left), end(right));
        self.ends.push(Ends {
            key,
            left,
            right,
            epoch,
            diff,
        });
    }

    /// The pairs, sorted by epoch.
    pub(crate) fn by_epoch(&self) -> Vec<Pair<'_, T>> {
        let mut start = 0;
        let pairs = self.ends.iter().map(|ends| {
            let pair = Pair {
                key: &self.bytes[start..ends.key],
                left: &self.bytes[ends.key..ends.left],
                right: &self.bytes[ends.left..ends.right],
                epoch: ends.epoch,
                diff: ends.diff,
            };
            start = ends.right;
            pair
        });
        let mut pairs: Vec<Pair<'_, T>> = pairs.collect();
        pairs.sort_by_key(|pair| pair.epoch);
        pairs
    }
}

/// The tactic: nested loops over the values of each key that both sides have.
pub(crate) struct Nested;

impl<T: Time> JoinTactic<T, Batch<T>, Batch<T>, Pairs<T>> for Nested {
    fn prep(
        &mut self,
        left: Vec<Batch<T>>,
        right: Vec<Batch<T>>,
        fresh: Fresh,
        meet: T,
    ) -> Box<dyn Iterator<Item = Pairs<T>>> {
        let fresh_is_left = matches!(fresh, Fresh::Input0);
        let (fresh, held) = match fresh_is_left {
            true => (left, right),
            false => (right, left),
        };
        Box::new(Work {
            fresh: Side::new(fresh),
            held: Side::new(held),
            fresh_is_left,
            meet,
            fresh_times: Vec::new(),
            held_times: Vec::new(),
        })
    }
}

/// A cursor over the batches of one side.
struct Side<T: Time> {
    /// The position in the batches.
    cursor: CursorList<BatchCursor<Values<T>>>,
    /// The batches, which are the storage of the cursor.
    batches: Vec<Batch<T>>,
}

impl<T: Time> Side<T> {
    /// A cursor at the first key of the batches.
    fn new(batches: Vec<Batch<T>>) -> Self {
        let (cursor, batches) = cursor_list(batches);
        Self { cursor, batches }
    }
}

/// Loads the times and differences of the value under the cursor. Times before `meet` count as
/// `meet`.
fn load<T: Time>(
    cursor: &mut CursorList<BatchCursor<Values<T>>>,
    batches: &Vec<Batch<T>>,
    meet: T,
    times: &mut Vec<(T, isize)>,
) {
    times.clear();
    cursor.map_times(batches, |time, diff| times.push((time.join(&meet), *diff)));
    consolidate(times);
}

/// The pairs of one fresh batch that are still to be given, as an iterator of pieces.
struct Work<T: Time> {
    /// The new batches.
    fresh: Side<T>,
    /// The trace of the other side, up to the new batches.
    held: Side<T>,
    /// Which side is fresh.
    fresh_is_left: bool,
    /// No pair is before this epoch: all rows that are held from before count as from this epoch.
    meet: T,
    /// The times of the fresh value that is being paired; empty between two values.
    fresh_times: Vec<(T, isize)>,
    /// The times of the held value that is being paired.
    held_times: Vec<(T, isize)>,
}

impl<T: Time> Iterator for Work<T> {
    type Item = Pairs<T>;

    fn next(&mut self) -> Option<Pairs<T>> {
        let mut pairs = Pairs::default();
        loop {
            let Self { fresh, held, .. } = self;
            let key = fresh.cursor.get_key(&fresh.batches);
            let (Some(key), Some(other)) = (key, held.cursor.get_key(&held.batches)) else {
                return (!pairs.ends.is_empty()).then_some(pairs);
            };
            match key.cmp(other) {
                Ordering::Less => fresh.cursor.seek_key(&fresh.batches, other),
                Ordering::Greater => held.cursor.seek_key(&held.batches, key),
                Ordering::Equal => {
                    if !self.pair_key(&mut pairs) {
                        return Some(pairs);
                    }
                    let Self { fresh, held, .. } = self;
                    fresh.cursor.step_key(&fresh.batches);
                    held.cursor.step_key(&held.batches);
                }
            }
        }
    }
}

impl<T: Time> Work<T> {
    /// Pairs the remaining values of the current key. Returns false if the piece is full before the
    /// end.
    fn pair_key(&mut self, pairs: &mut Pairs<T>) -> bool {
        let Self { fresh, held, .. } = self;
        while let Some(value) = fresh.cursor.get_val(&fresh.batches) {
            if self.fresh_times.is_empty() {
                load(
                    &mut fresh.cursor,
                    &fresh.batches,
                    self.meet,
                    &mut self.fresh_times,
                );
            }
            while let Some(other) = held.cursor.get_val(&held.batches) {
                if pairs.is_full() {
                    return false;
                }
                load(
                    &mut held.cursor,
                    &held.batches,
                    self.meet,
                    &mut self.held_times,
                );
                let Some(key) = fresh.cursor.get_key(&fresh.batches) else {
                    break;
                };
                let (left, right) = match self.fresh_is_left {
                    true => (value, other),
                    false => (other, value),
                };
                for (at, diff) in &self.fresh_times {
                    for (also, times) in &self.held_times {
                        pairs.push(key, left, right, at.join(also), diff * times);
                    }
                }
                held.cursor.step_val(&held.batches);
            }
            self.fresh_times.clear();
            fresh.cursor.step_val(&fresh.batches);
            held.cursor.rewind_vals(&held.batches);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::rc::Rc;

    use differential_dataflow::AsCollection;
    use differential_dataflow::operators::join::join_with_tactic;
    use proptest::prelude::*;
    use timely::container::CapacityContainerBuilder;
    use timely::dataflow::channels::pact::Pipeline;
    use timely::dataflow::operators::{Operator, Probe, vec::Input};

    use super::*;
    use crate::operator::arrange::Update;

    type Joined = ((Vec<u8>, Vec<u8>, Vec<u8>), Epoch, isize);

    /// Pairs of waves of both sides' updates, with the number of pairs in each piece. No wave has
    /// an epoch of the one before.
    fn joined(waves: Vec<[Vec<Update>; 2]>) -> (Vec<Joined>, Vec<usize>) {
        timely::execute_directly(move |worker| {
            let found = Rc::new(RefCell::new((Vec::new(), Vec::new())));
            let seen = Rc::clone(&found);
            let (mut inputs, probe) = worker.dataflow::<Epoch, _, _>(|scope| {
                let (left, left_updates) = scope.new_input();
                let (right, right_updates) = scope.new_input();
                let left_arranged = left_updates.as_collection().arrange_by_key();
                let right_arranged = right_updates.as_collection().arrange_by_key();
                let pairs = join_with_tactic(left_arranged, right_arranged, "Join", Nested);
                let pairs = pairs.unary::<CapacityContainerBuilder<Vec<()>>, _, _, _>(
                    Pipeline,
                    "Seen",
                    move |_, _| {
                        move |input, _| {
                            input.for_each(|_, pairs: &mut Pairs| {
                                let (all, sizes) = &mut *seen.borrow_mut();
                                sizes.push(pairs.ends.len());
                                all.extend(pairs.by_epoch().into_iter().map(|pair| {
                                    let Pair {
                                        key,
                                        left,
                                        right,
                                        epoch,
                                        diff,
                                    } = pair;
                                    ((key.to_vec(), left.to_vec(), right.to_vec()), epoch, diff)
                                }));
                            })
                        }
                    },
                );
                ([left, right], pairs.probe().0)
            });
            for wave in waves {
                let all = wave.iter().flatten();
                let end = all.map(|(_, epoch, _)| *epoch + 1).max();
                for (input, updates) in inputs.iter_mut().zip(wave) {
                    updates.into_iter().for_each(|update| input.send(update));
                    input.advance_to(end.unwrap_or(*input.time()));
                }
                worker.step_while(|| probe.less_than(inputs[0].time()));
            }
            found.take()
        })
    }

    fn net<D: Ord + Clone>(updates: &[(D, Epoch, isize)], through: Epoch) -> BTreeMap<D, isize> {
        let mut sums = BTreeMap::new();
        for (data, _, diff) in updates.iter().filter(|(_, at, _)| *at <= through) {
            *sums.entry(data.clone()).or_insert(0) += diff;
        }
        sums.retain(|_, sum| *sum != 0);
        sums
    }

    fn bytes(row: &Row) -> Vec<u8> {
        row.bytes().to_vec()
    }

    proptest! {
        #[test]
        fn pairs_are_those_of_all_rows_at_every_epoch(
            waves in prop::collection::vec(
                prop::array::uniform2(prop::collection::vec(
                    (0..3_u8, 0..6_u8, 0..4_u64, prop_oneof![Just(1), Just(-1), Just(2)]),
                    0..16,
                )),
                1..6,
            ),
        ) {
            let update = |number: usize, (key, value, epoch, diff): (u8, u8, u64, isize)| {
                let data = (Row::new(&[key]), Row::new(&[value, value]));
                (data, number as Epoch * 4 + epoch, diff)
            };
            let waves: Vec<[Vec<Update>; 2]> = waves.into_iter().enumerate().map(|(number, wave)| {
                wave.map(|side| side.into_iter().map(|one| update(number, one)).collect())
            }).collect();
            let side = |side: usize| -> Vec<Update> {
                waves.iter().flat_map(|wave| wave[side].clone()).collect()
            };
            let (left, right) = (side(0), side(1));
            let epochs = 4 * waves.len() as Epoch;
            let (found, _) = joined(waves);
            for epoch in 0..epochs {
                let mut expected = BTreeMap::new();
                for ((key, one), times) in net(&left, epoch) {
                    for ((other_key, other), more) in net(&right, epoch) {
                        if key == other_key {
                            let pair = (bytes(&key), bytes(&one), bytes(&other));
                            expected.insert(pair, times * more);
                        }
                    }
                }
                prop_assert_eq!(net(&found, epoch), expected, "at {}", epoch);
            }
        }
    }

    #[test]
    fn a_hot_key_is_paired_piece_by_piece() {
        let values = |count: u32| -> Vec<Update> {
            let value = |n: u32| ((Row::new(b"hot"), Row::new(&n.to_be_bytes())), 0, 1);
            (0..count).map(value).collect()
        };
        let (found, sizes) = joined(vec![[values(300), values(100)]]);
        assert_eq!(net(&found, 0).len(), 30_000);
        assert!(found.iter().all(|(_, _, diff)| *diff == 1));
        assert!(sizes.iter().all(|size| *size <= PAIRS_MAX), "{sizes:?}");
        assert!(sizes.len() >= 30_000 / PAIRS_MAX);
    }
}
