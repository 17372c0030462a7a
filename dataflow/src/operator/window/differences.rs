//! Differences: which rows of a partition have other results than before.
//!
//! Both lists are sorted by value. Rows with equal values are compared by their results, each of
//! which counts as often as it is there.

use std::ops::Range;

use tidemill_ir::Epoch;
use tidemill_ir::row::Encoded;

use super::partitions::Listed;

/// A row that is added or removed.
#[derive(Clone, Copy)]
pub(super) struct Given {
    /// The row, as an index into all rows.
    pub(super) row: usize,
    /// 1 or -1.
    pub(super) diff: i64,
    /// The function whose result is out of range, for a row that is left out.
    pub(super) left_out: Option<usize>,
}

/// Gives the differences of all changes. `results` are the results of each row, and `left_out` says
/// for which rows one is out of range. The removal of such a row is not given, because it was never
/// added.
pub(super) fn differences(
    listed: &Listed<'_>,
    results: &Encoded,
    left_out: &[Option<usize>],
    mut give: impl FnMut(Epoch, Given),
) {
    let result = |row: usize| (left_out[row], results.bytes(row));
    for change in &listed.changes {
        let mut one = |row: usize, diff: i64| {
            let left_out = left_out[row];
            if left_out.is_none() || diff > 0 {
                give(
                    change.epoch,
                    Given {
                        row,
                        diff,
                        left_out,
                    },
                );
            }
        };
        let (mut before, mut now) = (change.before.clone(), change.now.clone());
        while !before.is_empty() || !now.is_empty() {
            let least = match (before.is_empty(), now.is_empty()) {
                (false, true) => listed.rows[before.start],
                (true, _) => listed.rows[now.start],
                (false, false) => listed.rows[before.start].min(listed.rows[now.start]),
            };
            let equal = |rows: &mut Range<usize>| {
                let start = rows.start;
                while rows.start < rows.end && listed.rows[rows.start] == least {
                    rows.start += 1;
                }
                start..rows.start
            };
            let (old, new) = (equal(&mut before), equal(&mut now));
            let mut old: Vec<usize> = old.collect();
            let mut new: Vec<usize> = new.collect();
            old.sort_by_key(|row| result(*row));
            new.sort_by_key(|row| result(*row));
            let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
            loop {
                match (old.peek(), new.peek()) {
                    (Some(was), Some(is)) if result(*was) == result(*is) => {
                        old.next();
                        new.next();
                    }
                    (Some(was), Some(is)) if result(*was) > result(*is) => {
                        one(*is, 1);
                        new.next();
                    }
                    (Some(was), _) => {
                        one(*was, -1);
                        old.next();
                    }
                    (None, Some(is)) => {
                        one(*is, 1);
                        new.next();
                    }
                    (None, None) => break,
                }
            }
        }
    }
}
