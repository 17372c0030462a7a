//! The first value of each key's sorted values: min, and max over values sorted downwards.
//!
//! Reads the arrangement's trace in place of keeping state of its own: because epochs are totally
//! ordered and values are sorted in the trace, the first value whose count is positive is found by
//! a short walk, however many values the key has, and a retraction of it finds the next one the
//! same way. (Differential's `reduce` would present all values of the key at each change.)
//!
//! Frontier contract: for each batch of the arrangement, output at the epochs in it, under the
//! capabilities it came with. The trace is compacted to just below the batch's upper, so that what
//! came before a later batch can be told from that batch by its time.

use differential_dataflow::operators::arrange::{Arranged, TraceAgent};
use differential_dataflow::trace::cursor::{Cursor, Navigable, cursor_list};
use differential_dataflow::trace::implementations::ValSpine;
use differential_dataflow::trace::{BatchCursor, TraceReader};
use differential_dataflow::{AsCollection, VecCollection};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::{CapabilitySet, Operator};
use timely::progress::Antichain;

use crate::Epoch;
use crate::row::Row;

/// Values by key, both sorted.
pub(crate) type Values = TraceAgent<ValSpine<Row, Row, Epoch, isize>>;

/// Each key with its first value.
pub(crate) fn first_total<'scope>(
    arranged: Arranged<'scope, Values>,
) -> VecCollection<'scope, Epoch, (Row, Row), isize> {
    let mut trace = arranged.trace.clone();
    let stream = arranged
        .stream
        .unary_frontier(Pipeline, "FirstTotal", move |_, _| {
            let mut upper = Antichain::from_elem(0);
            move |(input, _frontier), output| {
                let lower = upper.clone();
                let mut caps = CapabilitySet::new();
                let mut batches = Vec::new();
                input.for_each(|cap, spans| {
                    for cap in cap.retain_stamp(0).iter() {
                        caps.insert(cap.clone());
                    }
                    for span in spans.drain(..) {
                        upper.clone_from(span.upper());
                        batches.extend(span.inner);
                    }
                });
                if !caps.is_empty()
                    && let Some(held) = trace.batches_through(upper.borrow())
                {
                    let mut session = output.session(&caps);
                    changes(batches, held, &lower, |update| session.give(update));
                }
                trace.advance_upper(&mut upper);
                trace.set_logical_compaction(just_below(&upper).borrow());
                trace.set_physical_compaction(upper.borrow());
            }
        });
    stream.as_collection()
}

fn just_below(upper: &Antichain<Epoch>) -> Antichain<Epoch> {
    upper.iter().map(|epoch| epoch.saturating_sub(1)).collect()
}

type Batch = <Values as TraceReader>::Batch;

/// How the first values of the keys in `new` change. `held` are all batches including the new
/// ones; updates from before them have times below `lower`.
fn changes(
    new: Vec<Batch>,
    held: Vec<Batch>,
    lower: &Antichain<Epoch>,
    mut give: impl FnMut(((Row, Row), Epoch, isize)),
) {
    let (mut changed, changed_in) = cursor_list(new);
    let (mut all, all_in) = cursor_list(held);
    let mut epochs = Vec::new();
    while let Some(key) = changed.get_key(&changed_in) {
        epochs.clear();
        while changed.get_val(&changed_in).is_some() {
            changed.map_times(&changed_in, |time, _| epochs.push(*time));
            changed.step_val(&changed_in);
        }
        epochs.sort_unstable();
        epochs.dedup();
        all.seek_key(&all_in, key);
        if all.get_key(&all_in) == Some(key) {
            let mut before = first(&mut all, &all_in, |time| !lower.less_equal(time));
            for &epoch in &epochs {
                let now = first(&mut all, &all_in, |time| *time <= epoch);
                if now != before {
                    if let Some(old) = before.take() {
                        give(((key.clone(), old), epoch, -1));
                    }
                    if let Some(new) = now.clone() {
                        give(((key.clone(), new), epoch, 1));
                    }
                    before = now;
                }
            }
        }
        changed.step_key(&changed_in);
    }
}

/// The first value of the cursor's key that is there when only updates at `included` times count.
fn first(
    cursor: &mut differential_dataflow::trace::cursor::CursorList<BatchCursor<Values>>,
    storage: &Vec<Batch>,
    included: impl Fn(&Epoch) -> bool,
) -> Option<Row>
where
    Batch: Navigable,
{
    cursor.rewind_vals(storage);
    while let Some(value) = cursor.get_val(storage) {
        let mut count = 0;
        cursor.map_times(storage, |time, diff| {
            if included(time) {
                count += *diff;
            }
        });
        if count > 0 {
            return Some(value.clone());
        }
        cursor.step_val(storage);
    }
    None
}
