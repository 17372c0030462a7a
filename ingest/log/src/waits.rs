//! Lag: since when the oldest change that is known to be there waits.
//!
//! In flow looks at the end of what is to be processed (end offsets, an LSN), each with its time.
//! Out flows the time of the oldest look whose end was not reached yet. A look that fails is not
//! one at zero: what can be said then is only that nobody knows of anything since the last one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Looks that are kept; of more, every second one is forgotten.
const MARKS_MAX: usize = 64;
/// A look that takes longer counts as one that failed.
const LOOK_WAIT: Duration = Duration::from_secs(5);

/// The looks whose ends were not reached yet.
#[derive(Debug)]
pub struct Waits<M> {
    marks: VecDeque<(u64, M)>,
    /// When the end was seen last, or the first look began.
    seen_ms: Option<u64>,
    failing: bool,
    looking: Option<Instant>,
}

impl<M> Default for Waits<M> {
    fn default() -> Self {
        Self {
            marks: VecDeque::new(),
            seen_ms: None,
            failing: false,
            looking: None,
        }
    }
}

impl<M: PartialEq> Waits<M> {
    /// A look begins at `now_ms`.
    pub fn looks(&mut self, now_ms: u64) {
        self.seen_ms.get_or_insert(now_ms);
        self.looking = Some(Instant::now());
    }

    /// At `at_ms` the end was here.
    pub fn seen(&mut self, at_ms: u64, end: M) {
        (self.failing, self.looking) = (false, None);
        self.seen_ms = Some(at_ms);
        if self.marks.back().is_some_and(|(_, last)| *last == end) {
            return;
        }
        if self.marks.len() >= MARKS_MAX {
            let mut keep = false;
            self.marks.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.marks.push_back((at_ms, end));
    }

    /// The look failed.
    pub fn unseen(&mut self) {
        (self.failing, self.looking) = (true, None);
    }

    /// Since when the oldest end that is not `reached` is known; none when all are.
    pub fn oldest(&mut self, reached: impl Fn(&M) -> bool) -> Option<u64> {
        while self.marks.len() > 1 && self.marks.front().is_some_and(|(_, end)| reached(end)) {
            self.marks.pop_front();
        }
        // The last one stays, to be told from the next.
        let (at, end) = self.marks.front()?;
        (!reached(end)).then_some(*at)
    }

    /// Whether somebody looks.
    pub fn are_there(&self) -> bool {
        self.seen_ms.is_some()
    }

    /// Since when nobody knows what is there; none when the last look did.
    pub fn unknown_since(&self) -> Option<u64> {
        let late = self.looking.is_some_and(|at| at.elapsed() >= LOOK_WAIT);
        self.seen_ms.filter(|_| self.failing || late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_end_that_was_not_reached_waits() {
        let mut waits = Waits::default();
        assert_eq!(
            (waits.oldest(|_| true), waits.unknown_since()),
            (None, None)
        );
        waits.seen(100, 5);
        waits.seen(200, 5);
        waits.seen(300, 9);
        assert_eq!(waits.oldest(|end| *end <= 4), Some(100));
        assert_eq!(waits.oldest(|end| *end <= 5), Some(300));
        assert_eq!(waits.oldest(|end| *end <= 9), None);
        waits.seen(400, 9);
        assert_eq!(waits.oldest(|end| *end <= 9), None);
        waits.seen(500, 10);
        assert_eq!(waits.oldest(|end| *end <= 9), Some(500));
    }

    #[test]
    fn nobody_knows_after_a_look_that_failed_or_lasts() {
        let mut waits = Waits::default();
        waits.looks(100);
        assert_eq!(waits.unknown_since(), None);
        waits.unseen();
        assert_eq!(waits.unknown_since(), Some(100));
        waits.looks(200);
        assert_eq!(waits.unknown_since(), Some(100));
        waits.seen(200, 1);
        assert_eq!(waits.unknown_since(), None);
        waits.looks(300);
        waits.looking = Some(Instant::now() - LOOK_WAIT);
        assert_eq!(waits.unknown_since(), Some(200));
    }

    #[test]
    fn looks_are_bounded_and_the_oldest_stays() {
        let mut waits = Waits::default();
        (1..10_000).for_each(|at| waits.seen(at, at));
        assert!(waits.marks.len() <= MARKS_MAX);
        assert_eq!(waits.oldest(|_| false), Some(1));
    }
}
