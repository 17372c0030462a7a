//! Window scan: the rows of the partitions that change, before and after each change.
//!
//! For functions that read rows within a fixed distance only, the rows of a partition that are
//! farther from every changed row than that are left out, because their results stay.

use std::ops::Range;

use differential_dataflow::trace::BatchCursor;
use differential_dataflow::trace::cursor::{Cursor, CursorList, cursor_list};
use tidemill_ir::row::Row;
use tidemill_ir::{Epoch, FrameBound, FrameOffset, FrameUnits, WindowCall, WindowFunction};
use timely::progress::Antichain;

use super::partitions::{Change, Listed};
use crate::operator::arrange::{Batch, Values};

/// After how many rows the partitions that were listed so far are evaluated.
const BATCH_ROWS: usize = 8192;

/// Lists the partitions in which `new` changes a row, and gives them to `evaluate`, some at a time.
/// `held` are all batches of the trace, with the new ones. Updates from before the new batches have
/// times below `lower`. `reach` is the distance of the rows that the functions read, if it is
/// fixed.
pub(super) fn changes(
    new: Vec<Batch>,
    held: Vec<Batch>,
    lower: &Antichain<Epoch>,
    reach: Option<usize>,
    mut evaluate: impl FnMut(&Listed<'_>),
) {
    let (mut changed, changed_in) = cursor_list(new);
    let (mut all, all_in) = cursor_list(held);
    let mut listed = Listed::default();
    let mut epochs: Vec<Epoch> = Vec::new();
    let (mut before, mut now) = (Vec::new(), Vec::new());
    while let Some(key) = changed.get_key(&changed_in) {
        epochs.clear();
        while changed.get_val(&changed_in).is_some() {
            changed.map_times(&changed_in, |time, _| epochs.push(*time));
            changed.step_val(&changed_in);
        }
        epochs.sort_unstable();
        epochs.dedup();
        all.seek_key(&all_in, key);
        if let Some(key) = all.get_key(&all_in).filter(|found| *found == key) {
            let earlier = |time: &Epoch| !lower.less_equal(time);
            walk(&mut all, &all_in, earlier, &mut before);
            for epoch in &epochs {
                walk(&mut all, &all_in, |time| time <= epoch, &mut now);
                listed.add(key, *epoch, &before, &now, reach);
                std::mem::swap(&mut before, &mut now);
                if listed.rows.len() >= BATCH_ROWS {
                    evaluate(&listed);
                    listed.clear();
                }
            }
        }
        changed.step_key(&changed_in);
    }
    if !listed.changes.is_empty() {
        evaluate(&listed);
    }
}

/// The rows of the cursor's key, counting only updates at `included` times.
fn walk<'a>(
    cursor: &mut CursorList<BatchCursor<Values>>,
    storage: &'a Vec<Batch>,
    included: impl Fn(&Epoch) -> bool,
    rows: &mut Vec<&'a Row>,
) {
    rows.clear();
    cursor.rewind_vals(storage);
    while let Some(value) = cursor.get_val(storage) {
        let mut count = 0;
        cursor.map_times(storage, |time, diff| {
            if included(time) {
                count += *diff;
            }
        });
        let count = usize::try_from(count).unwrap_or(0);
        rows.extend(std::iter::repeat_n(value, count));
        cursor.step_val(storage);
    }
}

impl<'a> Listed<'a> {
    /// Adds a change of a partition from `before` to `now`.
    fn add(
        &mut self,
        key: &'a Row,
        epoch: Epoch,
        before: &[&'a Row],
        now: &[&'a Row],
        reach: Option<usize>,
    ) {
        let (kept_before, kept_now) = match reach {
            Some(reach) => near(before, now, reach),
            None if before == now => (0..0, 0..0),
            None => (0..before.len(), 0..now.len()),
        };
        let before = self.partition(key, before.get(kept_before).unwrap_or_default());
        let now = self.partition(key, now.get(kept_now).unwrap_or_default());
        self.changes.push(Change { epoch, before, now });
    }

    /// Adds the rows of a partition.
    fn partition(&mut self, key: &'a Row, rows: &[&'a Row]) -> Range<usize> {
        let start = self.rows.len();
        self.rows.extend_from_slice(rows);
        self.bounds.push(start..self.rows.len());
        self.partition_keys.push(key);
        start..self.rows.len()
    }
}

/// The rows of both lists that are near a change: twice as near as the functions reach, because the
/// results of rows within reach may change, and they are computed from rows within reach of those.
/// The results at the edges of both ranges lack the same rows, so they do not differ.
fn near(before: &[&Row], now: &[&Row], reach: usize) -> (Range<usize>, Range<usize>) {
    let pairs = before.iter().zip(now);
    let head = pairs.take_while(|(old, new)| old == new).count();
    let pairs = before.iter().skip(head).rev();
    let pairs = pairs.zip(now.iter().skip(head).rev());
    let tail = pairs.take_while(|(old, new)| old == new).count();
    if head == before.len() && head == now.len() {
        return (0..0, 0..0);
    }
    let around = reach.saturating_mul(2).saturating_add(1);
    let (start, end) = (head.saturating_sub(around), tail.saturating_sub(around));
    (start..before.len() - end, start..now.len() - end)
}

/// How many rows away the rows are that the functions read; `None` if that depends on the rows.
pub(super) fn reach(functions: &[WindowFunction]) -> Option<usize> {
    let each = functions.iter().map(|function| {
        let far = |offset: i32| usize::try_from(offset.unsigned_abs()).ok();
        match function.call {
            WindowCall::Lag(offset) | WindowCall::Lead(offset) => far(offset),
            call if call.is_framed() && function.frame.units == FrameUnits::Rows => {
                let (start, end) = (&function.frame.start, &function.frame.end);
                Some(distance(start)?.max(distance(end)?))
            }
            _ => None,
        }
    });
    each.collect::<Option<Vec<usize>>>()?.into_iter().max()
}

/// The distance of a bound in rows; `None` if it is not bounded.
fn distance(bound: &FrameBound) -> Option<usize> {
    match bound {
        FrameBound::CurrentRow => Some(0),
        FrameBound::Preceding(FrameOffset::Count(count))
        | FrameBound::Following(FrameOffset::Count(count)) => usize::try_from(*count).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(bytes: &[u8]) -> Vec<Row> {
        bytes.iter().map(|byte| Row::new(&[*byte])).collect()
    }

    /// The sum of the rows within `reach` of each row, with the row.
    fn results<'a>(rows: &[&'a Row], reach: usize) -> Vec<(&'a Row, u32)> {
        let sum = |at: usize| {
            let from = at.saturating_sub(reach);
            let near = rows.iter().take(at + reach + 1).skip(from);
            near.map(|row| u32::from(row.bytes()[0]) + 1).sum()
        };
        rows.iter()
            .enumerate()
            .map(|(at, row)| (*row, sum(at)))
            .collect()
    }

    /// The results that only one of both lists has.
    fn differing<'a>(
        before: &[&'a Row],
        now: &[&'a Row],
        reach: usize,
    ) -> Vec<((&'a Row, u32), i32)> {
        let mut counts = std::collections::BTreeMap::new();
        for (rows, diff) in [(before, -1), (now, 1)] {
            for result in results(rows, reach) {
                *counts.entry(result).or_insert(0) += diff;
            }
        }
        counts
            .into_iter()
            .filter(|(_, count)| *count != 0)
            .collect()
    }

    proptest! {
        #[test]
        fn the_rows_near_a_change_differ_as_all_rows_do(
            mut before in prop::collection::vec(0..12_u8, 0..40),
            removed in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
            added in prop::collection::vec(0..12_u8, 0..3),
            reach in 0..4_usize,
        ) {
            before.sort_unstable();
            let mut now = before.clone();
            for index in removed.iter().filter(|_| !before.is_empty()) {
                if !now.is_empty() {
                    now.remove(index.index(now.len()));
                }
            }
            now.extend(added);
            now.sort_unstable();
            let (before, now) = (rows(&before), rows(&now));
            let before: Vec<&Row> = before.iter().collect();
            let now: Vec<&Row> = now.iter().collect();
            let (old, new) = near(&before, &now, reach);
            prop_assert_eq!(
                differing(&before[old], &now[new], reach),
                differing(&before, &now, reach)
            );
        }
    }
}
