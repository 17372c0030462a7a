//! Lag: since when the oldest input that is not processed yet has been known.
//!
//! In: observations of the end of the input (end offsets of a topic, an LSN of a WAL), each with
//! its time. Out: the time of the oldest observation whose end is not reached. An observation that
//! fails is not a lag of zero: from then on the lag is unknown.
//!
//! ```text
//! observed end      5 at 100 ms      9 at 300 ms      9 at 400 ms
//! processed to 4    ├─ oldest end not reached: 5, waits since 100 ms
//! processed to 5                     ├─ oldest: 9, waits since 300 ms
//! processed to 9                                      no lag
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Number of observations that are kept. When there are more, every second one is dropped.
const MARKS_MAX: usize = 64;
/// An observation that takes longer counts as failed.
const LOOK_WAIT: Duration = Duration::from_secs(5);

/// The observations whose ends are not reached yet, oldest first. `M` is the position of an end.
///
/// ```
/// use tidemill_log::health::lag::Waits;
///
/// let mut waits = Waits::default();
/// waits.seen(100, 5);
/// waits.seen(300, 9);
/// assert_eq!(waits.oldest(|end| *end <= 4), Some(100));
/// assert_eq!(waits.oldest(|end| *end <= 9), None);
/// ```
#[derive(Debug)]
pub struct Waits<M> {
    /// Time (ms since 1970) and end of each observation.
    marks: VecDeque<(u64, M)>,
    /// When the end was observed last, or else when the first observation began.
    seen_ms: Option<u64>,
    /// Whether the last observation failed.
    failing: bool,
    /// Since when an observation is under way.
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
    /// An observation begins at `now_ms`.
    pub fn looks(&mut self, now_ms: u64) {
        self.seen_ms.get_or_insert(now_ms);
        self.looking = Some(Instant::now());
    }

    /// The observation succeeded: at `at_ms` the input ended at `end`.
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

    /// The observation failed.
    pub fn unseen(&mut self) {
        (self.failing, self.looking) = (true, None);
    }

    /// The time of the oldest observed end that is not `reached`, in ms since 1970; `None` when all
    /// ends are reached.
    pub fn oldest(&mut self, reached: impl Fn(&M) -> bool) -> Option<u64> {
        while self.marks.len() > 1 && self.marks.front().is_some_and(|(_, end)| reached(end)) {
            self.marks.pop_front();
        }
        // The newest end stays, to be compared with the next observation.
        let (at, end) = self.marks.front()?;
        (!reached(end)).then_some(*at)
    }

    /// Whether an observation was ever begun.
    pub fn are_there(&self) -> bool {
        self.seen_ms.is_some()
    }

    /// Since when the end of the input is unknown, in ms since 1970; `None` when the last
    /// observation succeeded.
    pub fn unknown_since(&self) -> Option<u64> {
        let late = self.looking.is_some_and(|at| at.elapsed() >= LOOK_WAIT);
        self.seen_ms.filter(|_| self.failing || late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_the_oldest_end_not_reached() {
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
    fn lag_is_unknown_after_a_failed_or_slow_observation() {
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
    fn observations_are_bounded_and_keep_the_oldest() {
        let mut waits = Waits::default();
        (1..10_000).for_each(|at| waits.seen(at, at));
        assert!(waits.marks.len() <= MARKS_MAX);
        assert_eq!(waits.oldest(|_| false), Some(1));
    }
}
