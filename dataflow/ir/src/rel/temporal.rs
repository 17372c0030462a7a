//! Temporal filters: from which epoch on, and until which one, a comparison with `now()` is true.
//!
//! `now()` of an epoch is the epoch itself, which is a time in ms. A clock expression such as
//! `now() - INTERVAL '1 hour'` never goes back when the epoch goes on. Therefore a comparison of it
//! with a value of a row is true in one interval of epochs, and [`TemporalBound::valid`] computes
//! the interval of a value:
//!
//! ```text
//! expires_at > now()                     ──────────●            until expires_at
//! created_at <= now()                              ●──────────  from created_at
//! created_at > now() - INTERVAL '1 hour' ──────────────●        until created_at + 1 hour
//! ```

use std::ops::Range;

use crate::Epoch;

/// Microseconds of a millisecond, which is the unit of epochs.
const MILLISECOND: i128 = 1_000;
/// Microseconds of a day.
pub const DAY: i64 = 86_400_000_000;

/// A clock expression: `now()` moved, cut to a unit, and moved again.
///
/// At epoch `e` its value is `floor((1000 e + before) / unit) × unit + after`, in microseconds
/// since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// What is added before the cut, in microseconds.
    pub before: i64,
    /// The unit that the time is cut to, in microseconds; at least 1.
    pub unit: i64,
    /// What is added after the cut, in microseconds.
    pub after: i64,
}

impl Clock {
    /// `now()`.
    pub const NOW: Self = Self {
        before: 0,
        unit: 1,
        after: 0,
    };

    /// The expression with some microseconds added; `None` if the sum is out of range.
    #[must_use]
    pub fn moved(self, micros: i64) -> Option<Self> {
        match self.unit {
            1 => Some(Self {
                before: self.before.checked_add(micros)?,
                ..self
            }),
            _ => Some(Self {
                after: self.after.checked_add(micros)?,
                ..self
            }),
        }
    }

    /// The expression cut to a unit of so many microseconds; `None` if it has been cut and moved
    /// before, so that one cut does not express both.
    #[must_use]
    pub fn cut(self, unit: i64) -> Option<Self> {
        let cuts_again = self.after == 0 && unit % self.unit == 0;
        (unit > 0 && cuts_again).then_some(Self { unit, ..self })
    }

    /// The first epoch at which `unit` has passed `units` times, as the expression counts them.
    fn reaches(self, units: i128) -> Epoch {
        let micros = units * i128::from(self.unit) - i128::from(self.before);
        let epoch = -(-micros).div_euclid(MILLISECOND);
        match Epoch::try_from(epoch) {
            Ok(epoch) => epoch,
            Err(_) if epoch < 0 => 0,
            Err(_) => Epoch::MAX,
        }
    }

    /// The first epoch at which the expression is `micros` or later.
    fn at_least(self, micros: i64) -> Epoch {
        let rest = i128::from(micros) - i128::from(self.after);
        self.reaches(-(-rest).div_euclid(i128::from(self.unit)))
    }

    /// The first epoch at which the expression is later than `micros`.
    fn beyond(self, micros: i64) -> Epoch {
        let rest = i128::from(micros) - i128::from(self.after);
        self.reaches(rest.div_euclid(i128::from(self.unit)) + 1)
    }
}

/// How a value of a row is compared with a clock expression; the value is on the left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `value < clock`.
    Less,
    /// `value <= clock`.
    LessOrEqual,
    /// `value = clock`.
    Equal,
    /// `value >= clock`.
    GreaterOrEqual,
    /// `value > clock`.
    Greater,
}

/// One condition of a temporal filter.
#[derive(Debug, Clone)]
pub struct TemporalBound {
    /// The column of the input that is compared: a date or a timestamp.
    pub column: usize,
    /// How it is compared.
    pub comparison: Comparison,
    /// What it is compared with.
    pub clock: Clock,
    /// The condition as SQL-like text.
    pub text: String,
}

impl TemporalBound {
    /// The epochs at which the condition is true of a value, in microseconds since 1970.
    ///
    /// ```
    /// use tidemill_ir::{Clock, Comparison, TemporalBound};
    ///
    /// let until = TemporalBound {
    ///     column: 0,
    ///     comparison: Comparison::Greater,
    ///     clock: Clock::NOW,
    ///     text: "expires_at > now()".to_owned(),
    /// };
    /// // At epoch 5, now() is 5,000 microseconds, which is not before 5,000.
    /// assert_eq!(until.valid(5_000), 0..5);
    /// assert_eq!(until.valid(5_001), 0..6);
    /// ```
    #[must_use]
    pub fn valid(&self, micros: i64) -> Range<Epoch> {
        let clock = self.clock;
        match self.comparison {
            Comparison::Less => clock.beyond(micros)..Epoch::MAX,
            Comparison::LessOrEqual => clock.at_least(micros)..Epoch::MAX,
            Comparison::Equal => clock.at_least(micros)..clock.beyond(micros),
            Comparison::GreaterOrEqual => 0..clock.beyond(micros),
            Comparison::Greater => 0..clock.at_least(micros),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of a clock expression, as its definition says.
    fn at(clock: Clock, epoch: Epoch) -> i64 {
        let micros = epoch as i64 * 1_000 + clock.before;
        micros.div_euclid(clock.unit) * clock.unit + clock.after
    }

    #[test]
    fn the_interval_is_where_the_comparison_is_true() {
        let hour = 3_600_000_000;
        let clocks = [
            Clock::NOW,
            Clock::NOW.moved(-1_500).unwrap(),
            Clock::NOW.cut(10_000).unwrap(),
            Clock::NOW.moved(3_001).unwrap().cut(7_000).unwrap(),
            Clock::NOW.cut(4_000).unwrap().moved(-2_500).unwrap(),
        ];
        for clock in clocks {
            for micros in (-3_000..60_000).step_by(500).chain([1, 999, 1_001]) {
                for comparison in [
                    Comparison::Less,
                    Comparison::LessOrEqual,
                    Comparison::Equal,
                    Comparison::GreaterOrEqual,
                    Comparison::Greater,
                ] {
                    let bound = TemporalBound {
                        column: 0,
                        comparison,
                        clock,
                        text: String::new(),
                    };
                    let valid = bound.valid(micros);
                    for epoch in 0..80 {
                        let now = at(clock, epoch);
                        let is_true = match comparison {
                            Comparison::Less => micros < now,
                            Comparison::LessOrEqual => micros <= now,
                            Comparison::Equal => micros == now,
                            Comparison::GreaterOrEqual => micros >= now,
                            Comparison::Greater => micros > now,
                        };
                        let within = valid.contains(&epoch);
                        assert_eq!(within, is_true, "{bound:?} {micros} at {epoch}");
                    }
                }
            }
        }
        assert_eq!(Clock::NOW.moved(-hour).unwrap().at_least(0), 3_600_000);
    }

    #[test]
    fn values_out_of_all_epochs_are_always_or_never_valid() {
        let bound = |comparison| TemporalBound {
            column: 0,
            comparison,
            clock: Clock::NOW.moved(i64::MIN).unwrap(),
            text: String::new(),
        };
        assert!(!bound(Comparison::Greater).valid(i64::MAX).is_empty());
        assert!(bound(Comparison::Greater).valid(i64::MIN).is_empty());
        assert_eq!(bound(Comparison::Less).valid(i64::MIN).start, 1);
        assert!(Clock::NOW.moved(i64::MAX).unwrap().moved(1).is_none());
        assert!(
            Clock::NOW
                .cut(DAY)
                .unwrap()
                .moved(1)
                .unwrap()
                .cut(DAY)
                .is_none()
        );
        assert!(Clock::NOW.cut(DAY).unwrap().cut(1_000).is_none());
    }
}
