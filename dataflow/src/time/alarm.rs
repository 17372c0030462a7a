//! Waking an operator later, with one timer at a time.
//!
//! Timely keeps every timer that it is given. An operator that asks at each scheduling to be
//! scheduled again would therefore keep as many timers alive as it ever was woken in one interval,
//! and an idle worker would be as busy with them as it once was with its load.

use std::time::{Duration, Instant};

use timely::scheduling::Activator;

/// Wakes one operator.
pub(crate) struct Alarm {
    activator: Activator,
    /// When the earliest timer goes off that was set.
    at: Option<Instant>,
}

impl Alarm {
    pub(crate) fn new(activator: Activator) -> Self {
        Self {
            activator,
            at: None,
        }
    }

    /// Wakes the operator after `wait` or before.
    pub(crate) fn within(&mut self, wait: Duration) {
        let now = Instant::now();
        if is_needed(self.at, now, wait) {
            self.at = Some(now + wait);
            self.activator.activate_after(wait);
        }
    }

    /// Wakes the operator as soon as the others were scheduled.
    pub(crate) fn now(&self) {
        self.activator.activate();
    }
}

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
