//! Pauses between attempts: exponential backoff with jitter.
//!
//! Each pause is half fixed and half random ("equal jitter" in Brooker, *Exponential Backoff And
//! Jitter*, 2015), so that clients that failed together do not try again together.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How soon a stop is seen during a pause.
const STOP_LOOK: Duration = Duration::from_millis(20);

/// The pauses between the attempts of one operation.
///
/// ```
/// use std::time::Duration;
/// use tidemill_log::backoff::Backoff;
///
/// let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(5));
/// let first = backoff.pause();
/// assert!((Duration::from_millis(10)..=Duration::from_millis(20)).contains(&first));
/// assert!(backoff.pause() >= Duration::from_millis(20));
/// ```
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    /// Pauses of at most `first`, then of twice as much each time, and never of more than `max`.
    #[must_use]
    pub fn new(first: Duration, max: Duration) -> Self {
        Self { next: first, max }
    }

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let whole = self.next;
        self.next = whole.saturating_mul(2).min(self.max);
        whole / 2 + (whole / 2).mul_f64(rand::random::<f64>())
    }

    /// Sleeps for the next pause, or until `stop` is set.
    pub fn sleep(&mut self, stop: &AtomicBool) {
        sleep(self.pause(), stop);
    }
}

/// Sleeps for `wait`, or until `stop` is set.
pub fn sleep(wait: Duration, stop: &AtomicBool) {
    let end = Instant::now() + wait;
    while !stop.load(Ordering::Relaxed) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(STOP_LOOK));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(350));
        for whole in [100, 200, 350, 350] {
            let pause = backoff.pause();
            assert!((ms(whole / 2)..=ms(whole)).contains(&pause), "{pause:?}");
        }
    }

    #[test]
    fn a_stop_ends_a_pause() {
        let began = Instant::now();
        let mut backoff = Backoff::new(Duration::from_secs(600), Duration::from_secs(600));
        backoff.sleep(&AtomicBool::new(true));
        assert!(began.elapsed() < Duration::from_secs(300));
    }
}
