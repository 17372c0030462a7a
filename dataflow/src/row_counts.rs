//! Row counts of views, all of one epoch.
//!
//! In flow changes of row counts, each with its epoch, from all workers of a process, and the
//! frontier of the epochs that are complete in all views. Out flow counts of whole epochs: the
//! newest, and those at the last boundaries of [`BOUNDARY`], which every process of a job has in
//! common while epochs go by. An epoch is the time in milliseconds that it was closed at.
//!
//! Invariants: (1) a count before `t` has all changes of epochs before `t` and none of a later one;
//! (2) what waits is bounded by the epochs in flight.

use std::collections::BTreeMap;

use crate::Epoch;

/// Milliseconds between the points at which counts are kept.
const BOUNDARY: Epoch = 1_000;
/// Boundaries that are kept.
const BOUNDARIES_MAX: usize = 3;

/// Rows of each view.
pub type Rows = BTreeMap<String, i64>;

/// The row counts of a process's views.
#[derive(Debug, Default)]
pub struct RowCounts {
    /// Of all epochs before the frontier.
    rows: Rows,
    frontier: Epoch,
    /// Changes of later epochs.
    waiting: BTreeMap<Epoch, Rows>,
    /// The counts before each of the last boundaries.
    boundaries: BTreeMap<Epoch, Rows>,
}

impl RowCounts {
    /// Begins to count for these views.
    pub(crate) fn begin<'a>(&mut self, views: impl Iterator<Item = &'a str>) {
        self.rows = views.map(|view| (view.to_owned(), 0)).collect();
    }

    /// A view has so many rows more since an epoch, or fewer.
    pub(crate) fn add(&mut self, view: &str, epoch: Epoch, rows: i64) {
        if rows != 0 && self.rows.contains_key(view) {
            let waiting = self.waiting.entry(epoch).or_default();
            *waiting.entry(view.to_owned()).or_default() += rows;
        }
    }

    /// All epochs before `frontier` are complete. The counts, if they may have changed.
    pub(crate) fn settle(&mut self, frontier: Epoch) -> Option<Rows> {
        let first = self.waiting.first_key_value();
        if frontier <= self.frontier && first.is_none_or(|(epoch, _)| *epoch >= frontier) {
            return None;
        }
        let boundary = frontier - frontier % BOUNDARY;
        if boundary > self.frontier {
            self.take_before(boundary);
            self.boundaries.insert(boundary, self.rows.clone());
            while self.boundaries.len() > BOUNDARIES_MAX {
                self.boundaries.pop_first();
            }
        }
        self.take_before(frontier);
        self.frontier = self.frontier.max(frontier);
        Some(self.rows.clone())
    }

    fn take_before(&mut self, end: Epoch) {
        let later = self.waiting.split_off(&end);
        for (view, more) in std::mem::replace(&mut self.waiting, later)
            .into_values()
            .flatten()
        {
            *self.rows.entry(view).or_default() += more;
        }
    }

    /// The counts that are known, each with the time that all its epochs are before: two processes
    /// that have one of the same time tell of the same epochs.
    pub fn points(&self) -> BTreeMap<Epoch, Rows> {
        let mut points = self.boundaries.clone();
        points.insert(self.frontier, self.rows.clone());
        points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts() -> RowCounts {
        let mut counts = RowCounts::default();
        counts.begin(["a", "b"].into_iter());
        counts
    }

    fn rows(a: i64, b: i64) -> Rows {
        [("a".to_owned(), a), ("b".to_owned(), b)].into()
    }

    #[test]
    fn counts_are_of_whole_epochs() {
        let mut counts = counts();
        assert_eq!(counts.points(), [(0, rows(0, 0))].into());
        counts.add("a", 1_500, 3);
        assert_eq!(counts.settle(0), None);
        // The other view has not come so far.
        assert_eq!(counts.settle(1_500), Some(rows(0, 0)));
        counts.add("b", 1_500, 2);
        counts.add("a", 2_500, 1);
        counts.add("unknown", 2_500, 1);
        assert_eq!(counts.settle(2_400), Some(rows(3, 2)));
        assert_eq!(counts.settle(2_400), None);
        counts.add("b", 2_600, -1);
        assert_eq!(counts.settle(9_900), Some(rows(4, 1)));
        let points = [
            (1_000, rows(0, 0)),
            (2_000, rows(3, 2)),
            (9_000, rows(4, 1)),
            (9_900, rows(4, 1)),
        ];
        assert_eq!(counts.points(), points.into());
    }

    #[test]
    fn processes_whose_frontiers_differ_have_a_boundary_in_common() {
        let (mut first, mut second) = (counts(), counts());
        for epoch in 1..500 {
            for counts in [&mut first, &mut second] {
                counts.add("a", epoch * 10, 1);
            }
        }
        first.settle(4_990);
        second.settle(4_010);
        let (first, second) = (first.points(), second.points());
        let common = first.keys().rev().find(|at| second.contains_key(*at));
        assert_eq!(common, Some(&4_000));
        assert_eq!(first.get(&4_000), second.get(&4_000));
    }

    #[test]
    fn a_late_count_is_taken_and_boundaries_are_bounded() {
        let mut counts = counts();
        (0..100).for_each(|n| drop(counts.settle(n * 1_000 + 1)));
        assert_eq!(counts.points().len(), BOUNDARIES_MAX + 1);
        counts.add("a", 5, 1);
        assert_eq!(counts.settle(99_001), Some(rows(1, 0)));
    }
}
