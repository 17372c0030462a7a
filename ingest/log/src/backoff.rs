//! Pauses between attempts: exponential backoff with jitter.
//!
//! Each pause is half fixed and half random ("equal jitter" in Brooker, *Exponential Backoff And
//! Jitter*, 2015), so that clients that failed together do not try again together.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::{Error, Kind, Result};

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
    first: Duration,
    next: Duration,
    max: Duration,
}

impl Backoff {
    /// Pauses of at most `first`, then of twice as much each time, and never of more than `max`.
    #[must_use]
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self {
            first,
            next: first,
            max,
        }
    }

    /// The pauses after this many failed attempts, as for attempts that are counted in a table and
    /// go on in another process.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidemill_log::backoff::Backoff;
    ///
    /// let fresh = Backoff::new(Duration::from_millis(20), Duration::from_secs(5));
    /// let third = fresh.after(3).pause();
    /// assert!((Duration::from_millis(40)..=Duration::from_millis(80)).contains(&third));
    /// ```
    #[must_use]
    pub fn after(&self, attempts: u32) -> Self {
        let factor = 1u32 << attempts.saturating_sub(1).min(20);
        Self {
            next: self.first.saturating_mul(factor).min(self.max),
            ..*self
        }
    }

    /// Starts again with the first pause, after an attempt that succeeded.
    pub fn reset(&mut self) {
        self.next = self.first;
    }

    /// Whether no pause was taken yet, or none since the last [`Backoff::reset`].
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.next == self.first
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

/// The first pause between two attempts; the following ones double.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest pause between two attempts.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Retries `attempt` without limit while its errors [may pass](Error::may_pass): a service is away
/// or refuses, or a disk is full. It logs when it begins to wait, when the reason changes, and when
/// the attempt succeeds. `what` completes the sentence "cannot … yet".
///
/// # Errors
/// The first error that does not pass.
pub fn retry<T>(what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        // Nothing sets this flag, so `waited` always returns a result.
        let passes = Error::may_pass;
        if let Some(done) = waited(&AtomicBool::new(false), (what, passes), &mut attempt)? {
            return Ok(done);
        }
    }
}

/// As [`retry`], for a start: returns `None` when `stop` is set, and a refusal ends it.
///
/// # Errors
/// The first error whose kind is not `Retry`.
pub fn retry_unless<T>(
    stop: &AtomicBool,
    what: &str,
    attempt: impl FnMut() -> Result<T>,
) -> Result<Option<T>> {
    waited(stop, (what, |error| error.kind() == Kind::Retry), attempt)
}

/// Retries while `passes` is true for the error, until `stop` is set.
fn waited<T>(
    stop: &AtomicBool,
    (what, passes): (&str, fn(&Error) -> bool),
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<Option<T>> {
    let mut backoff = Backoff::new(RETRY_PAUSE_MIN, RETRY_PAUSE_MAX);
    let mut said = String::new();
    while !stop.load(Ordering::Relaxed) {
        match attempt() {
            Err(error) if passes(&error) => {
                let why = error.to_string();
                if said != why {
                    tracing::warn!(%error, "cannot {what} yet");
                    said = why;
                }
                backoff.sleep(stop);
            }
            Ok(done) if !said.is_empty() => {
                tracing::info!("could {what} at last");
                return Ok(Some(done));
            }
            outcome => return outcome.map(Some),
        }
    }
    Ok(None)
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
    fn attempts_counted_elsewhere_give_the_same_pauses() {
        let ms = Duration::from_millis;
        let fresh = Backoff::new(ms(200), Duration::from_secs(60));
        for (attempts, whole) in [(0, 200), (1, 200), (3, 800), (u32::MAX, 60_000)] {
            let pause = fresh.after(attempts).pause();
            assert!((ms(whole / 2)..=ms(whole)).contains(&pause), "{pause:?}");
        }
        let mut used = fresh.after(3);
        assert!(!used.is_fresh());
        used.reset();
        assert!(used.is_fresh() && used.pause() <= ms(200));
    }

    #[test]
    fn a_stop_ends_a_pause() {
        let began = Instant::now();
        let mut backoff = Backoff::new(Duration::from_secs(600), Duration::from_secs(600));
        backoff.sleep(&AtomicBool::new(true));
        assert!(began.elapsed() < Duration::from_secs(300));
    }
}
