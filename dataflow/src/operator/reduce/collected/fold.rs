//! One group's sorted values, folded to the results of collected aggregates.

use std::ops::ControlFlow;

use differential_dataflow::trace::BatchCursor;
use differential_dataflow::trace::cursor::{Cursor, CursorList};
use tidemill_ir::Epoch;
use tidemill_ir::row::{Row, RowCodec};
use tidemill_log::Result;

use super::texts::Texts;
use super::wanted::Wanted;
use crate::operator::arrange::{Batch, Values};

/// The result of one aggregate.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Given {
    /// No value was there.
    Null,
    /// One of the values.
    Value(Row),
    /// A point between two values: its distance from the first, as a fraction.
    Between(Row, Row, f64),
    /// A text.
    Text(String),
}

/// The results of a group.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Folded {
    /// The group has no rows.
    Empty,
    /// One result for each aggregate.
    Given(Vec<Given>),
    /// The result of the aggregate with this index is too long.
    Refused(usize),
}

/// A group in a trace, whose cursor is at the group's key.
pub(crate) struct Group<'a, 'b> {
    /// The cursor over the values.
    cursor: &'b mut CursorList<BatchCursor<Values>>,
    /// The batches that the cursor reads.
    storage: &'a Vec<Batch>,
    /// The value of rows that do not count.
    null: &'b Row,
}

impl<'a, 'b> Group<'a, 'b> {
    /// The group at the cursor's key.
    pub(crate) fn new(
        cursor: &'b mut CursorList<BatchCursor<Values>>,
        storage: &'a Vec<Batch>,
        null: &'b Row,
    ) -> Self {
        Self {
            cursor,
            storage,
            null,
        }
    }

    /// Calls `each` with the values in order and how often each is there, counting updates at the
    /// `included` times alone. Returns whether the group has rows. Rows that do not count are not
    /// among the values.
    fn each(
        &mut self,
        included: &impl Fn(&Epoch) -> bool,
        mut each: impl FnMut(&'a Row, u64) -> ControlFlow<()>,
    ) -> bool {
        let mut any = false;
        self.cursor.rewind_vals(self.storage);
        while let Some(value) = self.cursor.get_val(self.storage) {
            let mut count = 0;
            self.cursor.map_times(self.storage, |time, diff| {
                if included(time) {
                    count += *diff;
                }
            });
            let count = u64::try_from(count).unwrap_or(0);
            any |= count > 0;
            if count > 0 && value != self.null && each(value, count).is_break() {
                break;
            }
            self.cursor.step_val(self.storage);
        }
        any
    }
}

/// Computes the results of a group. `decoding` is the codec of values, and which column is the
/// text.
///
/// # Errors
/// `Bug` when a value cannot be decoded.
pub(crate) fn folded<'a>(
    group: &mut Group<'a, '_>,
    wanted: &[Wanted],
    decoding: (&RowCodec, usize),
    included: &impl Fn(&Epoch) -> bool,
) -> Result<Folded> {
    let mut all = 0_u64;
    let mut most: Option<(&'a Row, u64)> = None;
    let mut texts = Texts::new(wanted, decoding);
    let mut failed = None;
    let any = group.each(included, |value, count| {
        all = all.saturating_add(count);
        // Of equally frequent values the first one stays.
        if most.is_none_or(|(_, times)| count > times) {
            most = Some((value, count));
        }
        match texts.add(value, count) {
            Ok(true) => ControlFlow::Continue(()),
            Ok(false) => ControlFlow::Break(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    if !any {
        return Ok(Folded::Empty);
    }
    let texts = match texts.finish()? {
        Ok(texts) => texts,
        Err(index) => return Ok(Folded::Refused(index)),
    };
    let mut given: Vec<Given> = vec![Given::Null; wanted.len()];
    if all > 0 {
        percentiles(group, wanted, all, included, &mut given);
        for (index, text) in texts {
            if let Some(given) = given.get_mut(index) {
                *given = Given::Text(text);
            }
        }
        for (wanted, given) in wanted.iter().zip(&mut given) {
            if let (Wanted::Mode, Some((value, _))) = (wanted, most) {
                *given = Given::Value(value.clone());
            }
        }
    }
    Ok(Folded::Given(given))
}

/// The positions of a percentile among `all` values, counted from 0, and the distance of the result
/// from the first one, as PostgreSQL's `percentile_disc_final` and `percentile_cont_final_common`
/// compute them. `None` for other aggregates.
fn positions(wanted: &Wanted, all: u64) -> Option<(u64, u64, f64)> {
    match wanted {
        Wanted::Discrete(fraction) => {
            let place = (fraction * all as f64).ceil() as u64;
            let place = place.clamp(1, all) - 1;
            Some((place, place, 0.0))
        }
        Wanted::Continuous(fraction) => {
            let place = fraction * (all - 1) as f64;
            let (low, high) = (place.floor(), place.ceil());
            Some((low as u64, high as u64, place - low))
        }
        Wanted::Mode | Wanted::Text { .. } | Wanted::Document(_) => None,
    }
}

/// Finds the values of all percentiles in one walk.
fn percentiles<'a>(
    group: &mut Group<'a, '_>,
    wanted: &[Wanted],
    all: u64,
    included: &impl Fn(&Epoch) -> bool,
    given: &mut [Given],
) {
    let positions: Vec<_> = wanted.iter().map(|wanted| positions(wanted, all)).collect();
    let last = positions.iter().flatten().map(|(_, high, _)| *high).max();
    let Some(last) = last else {
        return;
    };
    let mut found: Vec<(Option<&'a Row>, Option<&'a Row>)> = vec![(None, None); positions.len()];
    let mut passed = 0_u64;
    group.each(included, |value, count| {
        let range = passed..passed.saturating_add(count);
        passed = range.end;
        for (position, found) in positions.iter().zip(&mut found) {
            if let Some((low, high, _)) = position {
                if range.contains(low) {
                    found.0 = Some(value);
                }
                if range.contains(high) {
                    found.1 = Some(value);
                }
            }
        }
        match passed > last {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    let results = wanted.iter().zip(positions).zip(found).zip(given);
    for (((wanted, position), found), given) in results {
        if let (Some((_, _, distance)), (Some(low), Some(high))) = (position, found) {
            *given = match wanted {
                Wanted::Continuous(_) => Given::Between(low.clone(), high.clone(), distance),
                _ => Given::Value(low.clone()),
            };
        }
    }
}
