//! Row counts of views, consistent at one epoch.
//!
//! Input: changes of row counts with their epochs, from all workers of a process, and the frontier
//! of epochs that are complete in all views. Output: counts of complete epochs: the newest, and
//! those at the last boundaries of [`BOUNDARY`]. As long as epochs go by, the processes of a job
//! have the same boundaries, so their counts can be added up. (An epoch is the time in ms at which
//! it was closed.)
//!
//! Invariants:
//! 1. A count before `t` includes all changes of epochs before `t`, and no later change.
//! 2. The number of waiting changes is bounded by the epochs in flight.

use std::collections::BTreeMap;

use tidemill_ir::Epoch;

/// Time between the boundaries at which counts are kept, in ms.
const BOUNDARY: Epoch = 1_000;
/// The number of boundaries that are kept.
const BOUNDARIES_MAX: usize = 3;

/// The number of rows of each view.
pub type CountByView = BTreeMap<String, i64>;

/// The row counts of the views in one process.
#[derive(Debug, Default)]
pub struct RowCounts {
    /// The counts of all epochs before the frontier.
    rows: CountByView,
    /// All epochs before this one are complete.
    frontier: Epoch,
    /// Changes of the frontier's epoch and later ones.
    waiting: BTreeMap<Epoch, CountByView>,
    /// The counts before each of the last boundaries.
    boundaries: BTreeMap<Epoch, CountByView>,
}

impl RowCounts {
    /// Registers the views, with zero rows.
    pub(crate) fn begin<'a>(&mut self, views: impl Iterator<Item = &'a str>) {
        self.rows = views.map(|view| (view.to_owned(), 0)).collect();
    }

    /// Adds rows to a view at an epoch; `rows` is negative for retractions.
    pub(crate) fn add(&mut self, view: &str, epoch: Epoch, rows: i64) {
        if rows != 0 && self.rows.contains_key(view) {
            let waiting = self.waiting.entry(epoch).or_default();
            *waiting.entry(view.to_owned()).or_default() += rows;
        }
    }

    /// Records that all epochs before `frontier` are complete. Returns the counts if they may have
    /// changed.
    pub(crate) fn settle(&mut self, frontier: Epoch) -> Option<CountByView> {
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

    /// Adds the waiting changes of epochs before `end`.
    fn take_before(&mut self, end: Epoch) {
        let later = self.waiting.split_off(&end);
        for (view, more) in std::mem::replace(&mut self.waiting, later)
            .into_values()
            .flatten()
        {
            *self.rows.entry(view).or_default() += more;
        }
    }

    /// The known counts, each by the epoch that it includes everything before. Counts of two
    /// processes with the same key include the same epochs.
    pub fn points(&self) -> BTreeMap<Epoch, CountByView> {
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

    fn rows(a: i64, b: i64) -> CountByView {
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
