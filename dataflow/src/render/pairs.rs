//! The pairs of a join: which left and right rows meet, as bytes.
//!
//! [`Nested`] tells differential's join driver how to pair a fresh batch of one side with what is
//! held of the other. It stops after [`PAIRS_MAX`] pairs or [`BYTES_MAX`] bytes and goes on where
//! it stopped, in the middle of a key as well: a hot key holds neither its worker nor memory.
//!
//! Invariants: a pair is at the later of its rows' epochs; each pair of updates is given once.

use std::cmp::Ordering;

use differential_dataflow::consolidation::consolidate;
use differential_dataflow::operators::join::{Fresh, JoinTactic};
use differential_dataflow::trace::BatchCursor;
use differential_dataflow::trace::cursor::{Cursor, CursorList, cursor_list};
use timely::container::Accountable;

use super::arrange::{Batch, Values};
use crate::Epoch;
use crate::row::Row;

/// Most pairs in one piece.
const PAIRS_MAX: usize = 1024;

/// Most bytes in one piece, but for the last pair.
const BYTES_MAX: usize = 256 * 1024;

/// As how many records each piece counts. The driver goes on until it has given a million, then
/// lets other operators run: about sixteen pieces.
const PIECE_RECORDS: i64 = 1_000_000 / 16;

/// A piece of a join's pairs.
#[derive(Default)]
pub(crate) struct Pairs {
    /// Key, left and right row of each pair, one after the other.
    bytes: Vec<u8>,
    ends: Vec<Ends>,
}

/// Where the parts of a pair end in the bytes, its epoch and its difference.
struct Ends {
    key: usize,
    left: usize,
    right: usize,
    epoch: Epoch,
    diff: isize,
}

/// One pair.
pub(crate) struct Pair<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) left: &'a [u8],
    pub(crate) right: &'a [u8],
    pub(crate) epoch: Epoch,
    pub(crate) diff: isize,
}

impl Accountable for Pairs {
    fn record_count(&self) -> i64 {
        if self.ends.is_empty() {
            0
        } else {
            PIECE_RECORDS
        }
    }
}

impl Pairs {
    fn is_full(&self) -> bool {
        self.ends.len() >= PAIRS_MAX || self.bytes.len() >= BYTES_MAX
    }

    fn push(&mut self, key: &Row, left: &Row, right: &Row, epoch: Epoch, diff: isize) {
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

    /// The pairs, in order of their epochs.
    pub(crate) fn by_epoch(&self) -> Vec<Pair<'_>> {
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
        let mut pairs: Vec<Pair<'_>> = pairs.collect();
        pairs.sort_by_key(|pair| pair.epoch);
        pairs
    }
}

/// Pairs every fresh value of a key with every held value of it.
pub(crate) struct Nested;

impl JoinTactic<Epoch, Batch, Batch, Pairs> for Nested {
    fn prep(
        &mut self,
        left: Vec<Batch>,
        right: Vec<Batch>,
        fresh: Fresh,
        meet: Epoch,
    ) -> Box<dyn Iterator<Item = Pairs>> {
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

struct Side {
    cursor: CursorList<BatchCursor<Values>>,
    batches: Vec<Batch>,
}

impl Side {
    fn new(batches: Vec<Batch>) -> Self {
        let (cursor, batches) = cursor_list(batches);
        Self { cursor, batches }
    }
}

/// The times of the value under the cursor, none before `meet`.
fn load(
    cursor: &mut CursorList<BatchCursor<Values>>,
    batches: &Vec<Batch>,
    meet: Epoch,
    times: &mut Vec<(Epoch, isize)>,
) {
    times.clear();
    cursor.map_times(batches, |time, diff| times.push(((*time).max(meet), *diff)));
    consolidate(times);
}

/// Pairs that are still to be given, as an iterator of pieces.
struct Work {
    fresh: Side,
    held: Side,
    fresh_is_left: bool,
    /// No pair is before this: what is held from before can as well be from then.
    meet: Epoch,
    /// The times of the fresh value that is being paired; empty between two of them.
    fresh_times: Vec<(Epoch, isize)>,
    held_times: Vec<(Epoch, isize)>,
}

impl Iterator for Work {
    type Item = Pairs;

    fn next(&mut self) -> Option<Pairs> {
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

impl Work {
    /// Pairs what is left of the values of a key; false when the piece is full before the end.
    fn pair_key(&mut self, pairs: &mut Pairs) -> bool {
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
                        pairs.push(key, left, right, *at.max(also), diff * times);
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
