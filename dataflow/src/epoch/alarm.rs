//! A timer that wakes an operator, with at most a few timers alive at a time.
//!
//! Timely keeps every timer that it is given (`activate_after`). An operator that sets a timer in
//! each schedule call would keep one timer alive for every call within one interval, and an idle
//! worker would spend as much time on these timers as on its former load. An [`Alarm`] sets a timer
//! only if no earlier one is pending.

use std::time::{Duration, Instant};

use timely::scheduling::Activator;

/// Wakes one operator after a time.
pub(crate) struct Alarm {
    /// Wakes the operator.
    activator: Activator,
    /// When the earliest pending timer goes off.
    at: Option<Instant>,
}

impl Alarm {
    /// An alarm without a pending timer.
    pub(crate) fn new(activator: Activator) -> Self {
        Self {
            activator,
            at: None,
        }
    }

    /// Wakes the operator after `wait` or earlier.
    pub(crate) fn within(&mut self, wait: Duration) {
        let now = Instant::now();
        if is_needed(self.at, now, wait) {
            self.at = Some(now + wait);
            self.activator.activate_after(wait);
        }
    }

    /// Wakes the operator in the worker's next round, after the operators that are scheduled
    /// already.
    pub(crate) fn now(&self) {
        self.activator.activate();
    }
}

/// Whether a new timer is needed: none is pending, or the pending one goes off too late.
fn is_needed(set: Option<Instant>, now: Instant, wait: Duration) -> bool {
    set.is_none_or(|at| at <= now || at > now + wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_timer_is_enough_until_it_went_off() {
        let now = Instant::now();
        let later = |ms| now + Duration::from_millis(ms);
        let wait = Duration::from_millis(50);
        assert!(is_needed(None, now, wait));
        assert!(!is_needed(Some(later(50)), later(10), wait), "set already");
        assert!(is_needed(Some(later(50)), later(50), wait), "it went off");
        assert!(is_needed(Some(later(500)), later(10), wait), "too late");
    }
}
