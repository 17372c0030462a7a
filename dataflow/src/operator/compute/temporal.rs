//! Temporal filter: the rows for which comparisons with `now()` are true, as time passes.
//!
//! The comparisons give each row an interval of epochs ([`TemporalBound`]). The operator adds the
//! row at the first bound epoch of the interval, and removes it at the first one after it. It asks
//! the binder for an epoch at the next such time ([`crate::epoch::ticks`]), so a row leaves a view
//! although no record arrives.
//!
//! ```text
//! rows ─► restore ─► exchange by the row's owner ─► stash by epoch
//!                     tick e, input complete ─► rows of e:   valid at e    ─► output
//!                                                  │         valid later   ─► held until `from`
//!                                                  │         no longer     ─► dropped
//!                                               held rows whose time is e or earlier ─► output
//! ```
//!
//! State: each row whose next change is still to come, with the time of that change. A row that is
//! no longer valid is dropped, in memory and in the next checkpoint, and so is its later deletion.
//! What is restored are the rows of the checkpoint that are valid at its epoch or later. From these
//! the output at that epoch follows, as for other stateful operators.
//!
//! Frontier contract: the operator holds a capability just past the last tick that it has taken.
//! A tick is taken when the input frontier has passed it. The capability is dropped after the last
//! tick of the run. Therefore a row has the timestamp of a bound epoch, on all workers the same.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Date32Type, SchemaRef, TimestampMicrosecondType};
use tidemill_ir::row::{Row, RowCodec};
use tidemill_ir::{DAY, Epoch, TemporalBound};
use tidemill_log::{Error, Kind, Result};
use timely::dataflow::operators::Operator;

use crate::chunk::{Chunk, ChunkStream};
use crate::context::Context;
use crate::context::site::Site;
use crate::operator::arrange::KeyUpdate;
use crate::operator::arrange::restore::{Tap, restore};
use crate::operator::distinct::encoded;
use crate::stats::operators::Size;

/// Most rows of a chunk of the output.
const CHUNK_ROWS_MAX: usize = 8_192;

/// Renders a temporal filter of rows with the columns of `schema`.
///
/// # Errors
/// `Bug` when a column has a type that cannot be encoded.
pub(crate) fn temporal<'scope>(
    input: ChunkStream<'scope>,
    context: &Rc<Context>,
    schema: &SchemaRef,
    bounds: &[TemporalBound],
    site: Option<Site>,
) -> Result<ChunkStream<'scope>> {
    let rows = encoded(input, context, schema)?;
    let epoch_of = |update: &KeyUpdate| update.1;
    let rows = restore(rows, context, site.as_ref(), epoch_of, |epoch, entry| {
        ((entry.key, ()), epoch, entry.change)
    });
    let scope = rows.scope();
    let peers = scope.peers();
    let route = move |((row, ()), _, _): &KeyUpdate| row.owner(peers);
    let pact = Context::crossing(context, route);
    let mut filter = Filter {
        bounds: bounds.to_vec(),
        codec: RowCodec::new(Arc::clone(schema))?,
        stash: BTreeMap::new(),
        held: Held::default(),
        last: None,
        tap: site.map(|site| Tap::new(context, site)),
    };
    let context = Rc::clone(context);
    Ok(rows.unary_frontier(pact, "Temporal", move |cap, info| {
        context.wake_at_start(scope.activator_for(Rc::clone(&info.address)));
        let size = context.meter.state(info.global_id);
        let ticks = Rc::clone(&context.ticks);
        let listener = ticks.listen(scope.activator_for(info.address));
        let mut cap = Some(cap);
        move |(input, frontier), output| {
            input.for_each(|_, updates| filter.stash(updates));
            let Some(held) = &mut cap else { return };
            let is_complete = |epoch: Epoch| !frontier.less_equal(&epoch);
            while let Some(epoch) = ticks.next(listener, is_complete) {
                held.downgrade(&epoch);
                match filter.tick(epoch) {
                    Ok(chunks) => output.session(&*held).give_iterator(chunks.into_iter()),
                    Err(error) => context.fail(error),
                }
                held.downgrade(&(epoch + 1));
            }
            // Nothing comes before the first tick, which is after epoch 0.
            if context.started() && *held.time() == 0 && ticks.is_idle(listener) {
                held.downgrade(&1);
            }
            size.set(filter.held.size());
            ticks.want(listener, filter.wanted());
            if let (Some(tap), Some(last)) = (&mut filter.tap, filter.last) {
                tap.seal(|epoch| epoch <= last);
            }
            if ticks.is_over(listener) {
                cap = None;
            }
        }
    }))
}

/// What one worker has of the rows of a temporal filter.
struct Filter {
    /// The comparisons, all of which must be true.
    bounds: Vec<TemporalBound>,
    /// The codec of rows.
    codec: RowCodec,
    /// Changes of the input that no tick has taken yet, by epoch.
    stash: BTreeMap<Epoch, Vec<(Row, isize)>>,
    /// The rows that change later.
    held: Held,
    /// The last tick.
    last: Option<Epoch>,
    /// Collects the changes of the rows that are valid now or later, for the next checkpoint.
    tap: Option<Tap<isize>>,
}

impl Filter {
    /// Keeps changes of the input until their epoch is complete.
    fn stash(&mut self, updates: &mut Vec<KeyUpdate>) {
        for ((row, ()), epoch, diff) in updates.drain(..) {
            self.stash.entry(epoch).or_default().push((row, diff));
        }
    }

    /// The time at which the output changes next. Rows that are there before any epoch need one at
    /// once.
    fn wanted(&self) -> Option<Epoch> {
        match self.last {
            None if !self.stash.is_empty() => Some(1),
            _ => self.held.next(),
        }
    }

    /// Changes of the output at `epoch`, given that the input is complete through it.
    ///
    /// # Errors
    /// `Bug` when rows cannot be decoded, or have other columns than were planned.
    fn tick(&mut self, epoch: Epoch) -> Result<Vec<Chunk>> {
        let mut changes: HashMap<Row, isize> = HashMap::new();
        for (row, count, valid) in self.arrived(epoch)? {
            if valid.is_empty() || valid.end <= epoch {
                continue;
            }
            self.keep(epoch, &row, count);
            if valid.start <= epoch {
                *changes.entry(row.clone()).or_default() += count;
            }
            let next = match valid.start <= epoch {
                true => valid.end,
                false => valid.start,
            };
            self.held.add(next, row, count, valid.end);
        }
        while let Some((at, row, held)) = self.held.due(epoch) {
            let comes = at < held.until;
            let stays = held.until > epoch;
            if !stays {
                self.keep(epoch, &row, -held.count);
            }
            // A row whose whole interval has passed since the last tick was never shown.
            if comes == stays {
                let shown = if comes { held.count } else { -held.count };
                *changes.entry(row.clone()).or_default() += shown;
            }
            if stays {
                self.held.add(held.until, row, held.count, held.until);
            }
        }
        self.last = Some(epoch);
        changes.retain(|_, count| *count != 0);
        let changes: Vec<(Row, isize)> = changes.into_iter().collect();
        let chunks = changes.chunks(CHUNK_ROWS_MAX).map(|some| {
            let rows = some.iter().map(|(row, count)| (row, *count as i64));
            Chunk::decode(epoch, &self.codec, rows)
        });
        chunks.collect()
    }

    /// The rows that the input gains or loses through `epoch`, with the epochs at which each is
    /// valid.
    fn arrived(&mut self, epoch: Epoch) -> Result<Vec<(Row, isize, Range<Epoch>)>> {
        let later = self.stash.split_off(&(epoch + 1));
        let mut sums: HashMap<Row, isize> = HashMap::new();
        for (row, diff) in std::mem::replace(&mut self.stash, later)
            .into_values()
            .flatten()
        {
            *sums.entry(row).or_default() += diff;
        }
        sums.retain(|_, count| *count != 0);
        if sums.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<(Row, isize)> = sums.into_iter().collect();
        let batch = self.codec.decode(rows.iter().map(|(row, _)| row))?;
        let mut valid = vec![0..Epoch::MAX; rows.len()];
        for bound in &self.bounds {
            let column = batch.columns().get(bound.column);
            let column = column.map(micros).transpose()?.flatten();
            let Some(column) = column else {
                let what = format!("`{}` compares no time", bound.text);
                return Err(Error::new(Kind::Bug, what));
            };
            for (valid, micros) in valid.iter_mut().zip(column) {
                // What is compared with null is not true.
                let of = micros.map_or(0..0, |micros| bound.valid(micros));
                *valid = valid.start.max(of.start)..valid.end.min(of.end);
            }
        }
        let rows = rows.into_iter().zip(valid);
        Ok(rows
            .map(|((row, count), valid)| (row, count, valid))
            .collect())
    }

    /// Counts a row for the next checkpoint.
    fn keep(&mut self, epoch: Epoch, row: &Row, count: isize) {
        if let Some(tap) = &mut self.tap {
            tap.add(epoch, row, &Row::default(), &count);
        }
    }
}

/// The values of a column in microseconds since 1970; `None` for a column without times.
fn micros(column: &ArrayRef) -> Result<Option<Vec<Option<i64>>>> {
    Ok(match column.data_type() {
        DataType::Date32 => {
            let days = column.as_primitive::<Date32Type>().iter();
            Some(
                days.map(|days| Some(i64::from(days?).saturating_mul(DAY)))
                    .collect(),
            )
        }
        DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, _) => {
            let times = column.as_primitive::<TimestampMicrosecondType>();
            Some(times.iter().collect())
        }
        _ => None,
    })
}

/// Rows whose next change is still to come, by the time of this change.
#[derive(Default)]
struct Held {
    /// The rows. The time in the key is the row's first valid epoch, or [`Later::until`].
    rows: BTreeMap<(Epoch, Row), Later>,
    /// Bytes of the rows.
    bytes: usize,
}

/// How often a row is there, and the first epoch at which it is no longer valid.
struct Later {
    /// The number of copies.
    count: isize,
    /// The first epoch at which the row is not valid any more.
    until: Epoch,
}

impl Held {
    /// Adds copies of a row that changes at `at`, or removes some. A row that never changes is not
    /// held.
    fn add(&mut self, at: Epoch, row: Row, count: isize, until: Epoch) {
        use std::collections::btree_map::Entry;
        if at == Epoch::MAX {
            return;
        }
        let bytes = row.bytes().len();
        match self.rows.entry((at, row)) {
            Entry::Vacant(entry) => {
                self.bytes += bytes;
                entry.insert(Later { count, until });
            }
            Entry::Occupied(mut entry) => {
                entry.get_mut().count += count;
                if entry.get().count == 0 {
                    self.bytes -= bytes;
                    entry.remove();
                }
            }
        }
    }

    /// The time of the next change.
    fn next(&self) -> Option<Epoch> {
        self.rows.first_key_value().map(|((at, _), _)| *at)
    }

    /// Removes a row that changes at `epoch` or earlier.
    fn due(&mut self, epoch: Epoch) -> Option<(Epoch, Row, Later)> {
        let entry = self.rows.first_entry()?;
        if entry.key().0 > epoch {
            return None;
        }
        let ((at, row), held) = entry.remove_entry();
        self.bytes -= row.bytes().len();
        Some((at, row, held))
    }

    /// The memory size.
    fn size(&self) -> Size {
        let each = size_of::<((Epoch, Row), Later)>();
        Size {
            rows: self.rows.len() as u64,
            bytes: (self.bytes + self.rows.len() * each) as u64,
        }
    }
}
