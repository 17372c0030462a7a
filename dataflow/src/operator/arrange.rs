//! Arrangements: sorted, indexed traces of values by key, both as row-encoded bytes.
//!
//! [`arrange_values`] and [`arrange_keys`] make every arrangement of a dataflow that has a site,
//! and keep its state through restarts ([`restore`]). [`Layout`] says how the columns of a
//! relation become keys and values, and [`Decoder`] converts them back. A column that is a key, or
//! by which the values are sorted, is stored only there.
//!
//! ```text
//! updates ─► restore ─► exchange by the key's owner ─► batcher ─► trace (spine of batches)
//!            at the checkpoint's epoch                               └─► tap: next checkpoint
//! ```

pub(crate) mod memory_size;
pub(crate) mod merge_batcher;
pub(crate) mod restore;

use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::buffer::NullBuffer;
use arrow::compute::SortOptions;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion_physical_expr::expressions::Column;
use differential_dataflow::difference::Semigroup;
use differential_dataflow::operators::ThresholdTotal;
use differential_dataflow::operators::arrange::arrangement::arrange_core;
use differential_dataflow::operators::arrange::{Arranged, TraceAgent};
use differential_dataflow::trace::TraceReader;
use differential_dataflow::trace::implementations::{KeyBuilder, KeySpine, ValSpine};
use differential_dataflow::{ExchangeData, VecCollection};
use merge_batcher::{KeyBatcher, ValBatcher};
use restore::{restore, tap};
use tidemill_ir::row::{Row, RowCodec};
use tidemill_ir::{Epoch, OrderBy, Scalar};
use tidemill_log::Result;
use tidemill_state::checkpoint::Change;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator;

use super::argument::numbered;
use super::compute::{Stage, column};
use crate::chunk::ChunkStream;
use crate::chunk::time::{Round, Time};
use crate::context::Context;
use crate::context::site::Site;
use crate::exchange::Crosses;

/// A key with a value, its time, and how often it is added (positive) or removed (negative).
pub(crate) type Update<T = Epoch> = ((Row, Row), T, isize);

/// A key with its difference, in the form of a key-only arrangement.
pub(crate) type KeyUpdate<T = Epoch> = ((Row, ()), T, isize);

/// The trace of an arrangement of values by key.
pub(crate) type Values<T = Epoch> = TraceAgent<ValSpine<Row, Row, T, isize>>;

/// A batch of that trace.
pub(crate) type Batch<T = Epoch> = <Values<T> as TraceReader>::Batch;

/// The trace of an arrangement of keys without values, with differences of type `C`.
pub(crate) type Keys<C, T = Epoch> = TraceAgent<KeySpine<Row, T, C>>;

/// A timestamp by which rows can be arranged. Operators that are generic over it run within a
/// recursion too.
pub(crate) trait Arranges: Time {
    /// Arranges values by key on the worker that owns each key. Only an [`Epoch`] has sites.
    fn arrange_values<'scope>(
        updates: StreamVec<'scope, Self, Update<Self>>,
        name: &str,
        context: &Rc<Context>,
        site: Option<&Site>,
    ) -> Arranged<'scope, Values<Self>>;

    /// Arranges keys on the worker that owns each key. Only an [`Epoch`] has sites.
    fn arrange_keys<'scope>(
        updates: StreamVec<'scope, Self, KeyUpdate<Self>>,
        name: &str,
        context: &Rc<Context>,
        site: Option<&Site>,
    ) -> Arranged<'scope, Keys<isize, Self>>;

    /// Adds up the equal keys of each time. No trace is kept. Only an [`Epoch`] has sites.
    fn added_up<'scope>(
        updates: StreamVec<'scope, Self, KeyUpdate<Self>>,
        name: &str,
        context: &Rc<Context>,
        site: Option<&Site>,
    ) -> VecCollection<'scope, Self, Row, isize>;

    /// Each key once, for as long as its count is positive.
    fn distinct<'scope>(
        keys: Arranged<'scope, Keys<isize, Self>>,
        context: &Rc<Context>,
    ) -> VecCollection<'scope, Self, Row, isize>;
}

impl Arranges for Epoch {
    fn arrange_values<'scope>(
        updates: StreamVec<'scope, Self, Update>,
        name: &str,
        context: &Rc<Context>,
        site: Option<&Site>,
    ) -> Arranged<'scope, Values> {
        arrange_values(updates, name, context, site)
    }

    fn arrange_keys<'scope>(
        updates: StreamVec<'scope, Self, KeyUpdate>,
        name: &str,
        context: &Rc<Context>,
        site: Option<&Site>,
    ) -> Arranged<'scope, Keys<isize>> {
        arrange_keys(updates, name, context, site)
    }

    fn added_up<'scope>(
        updates: StreamVec<'scope, Self, KeyUpdate>,
        name: &str,
        context: &Rc<Context>,
        site: Option<&Site>,
    ) -> VecCollection<'scope, Self, Row, isize> {
        let keys = restored_keys(updates, name, context, site);
        keys.as_collection(|row, ()| row.clone())
    }

    fn distinct<'scope>(
        keys: Arranged<'scope, Keys<isize>>,
        _context: &Rc<Context>,
    ) -> VecCollection<'scope, Self, Row, isize> {
        keys.distinct_total_core::<isize>()
    }
}

/// Within a recursion nothing is kept through a restart: it is computed again from what enters it.
impl Arranges for Round {
    fn arrange_values<'scope>(
        updates: StreamVec<'scope, Self, Update<Self>>,
        name: &str,
        context: &Rc<Context>,
        site: Option<&Site>,
    ) -> Arranged<'scope, Values<Self>> {
        debug_assert!(site.is_none(), "a recursion keeps no state");
        values_by_key(updates, name, context)
    }

    fn arrange_keys<'scope>(
        updates: StreamVec<'scope, Self, KeyUpdate<Self>>,
        name: &str,
        context: &Rc<Context>,
        site: Option<&Site>,
    ) -> Arranged<'scope, Keys<isize, Self>> {
        debug_assert!(site.is_none(), "a recursion keeps no state");
        let arranged = keys_alone(updates, name, context);
        context.meter.trace(&arranged.trace, memory_size::keys);
        arranged
    }

    fn added_up<'scope>(
        updates: StreamVec<'scope, Self, KeyUpdate<Self>>,
        name: &str,
        context: &Rc<Context>,
        site: Option<&Site>,
    ) -> VecCollection<'scope, Self, Row, isize> {
        debug_assert!(site.is_none(), "a recursion keeps no state");
        let keys = keys_alone(updates, name, context);
        keys.as_collection(|row, ()| row.clone())
    }

    fn distinct<'scope>(
        keys: Arranged<'scope, Keys<isize, Self>>,
        context: &Rc<Context>,
    ) -> VecCollection<'scope, Self, Row, isize> {
        type Builder = KeyBuilder<Row, Round, isize>;
        type Spine = KeySpine<Row, Round, isize>;
        let once = keys.reduce_abelian::<_, Builder, Spine, _, _>(
            "Distinct",
            |_row, counts, output| {
                if counts.first().is_some_and(|(_, count)| *count > 0) {
                    output.push(((), 1));
                }
            },
            |updates, key, changes| {
                updates.clear();
                let changes = changes.drain(..);
                updates.extend(changes.map(|((), time, diff)| ((key.clone(), ()), time, diff)));
            },
        );
        context.meter.trace(&once.trace, memory_size::keys);
        once.as_collection(|row, ()| row.clone())
    }
}

/// Arranges keys on the worker that owns each key, with differences of any type. If there is a
/// site, the state is restored from it and kept at it.
pub(crate) fn arrange_keys<'scope, C: Change + ExchangeData + Semigroup>(
    updates: StreamVec<'scope, Epoch, ((Row, ()), Epoch, C)>,
    name: &str,
    context: &Rc<Context>,
    site: Option<&Site>,
) -> Arranged<'scope, Keys<C>>
where
    ((Row, ()), Epoch, C): Crosses,
{
    let arranged = restored_keys(updates, name, context, site);
    context.meter.trace(&arranged.trace, memory_size::keys);
    arranged
}

/// [`arrange_keys`] without its memory being measured. The measure would keep the trace when
/// nothing else does.
fn restored_keys<'scope, C: Change + ExchangeData + Semigroup>(
    updates: StreamVec<'scope, Epoch, ((Row, ()), Epoch, C)>,
    name: &str,
    context: &Rc<Context>,
    site: Option<&Site>,
) -> Arranged<'scope, Keys<C>>
where
    ((Row, ()), Epoch, C): Crosses,
{
    let of = |update: &((Row, ()), Epoch, C)| update.1;
    let updates = restore(updates, context, site, of, |epoch, entry| {
        ((entry.key, ()), epoch, entry.change)
    });
    let arranged = keys_alone(updates, name, context);
    tap(arranged.stream.clone(), context, site, |()| Row::default());
    arranged
}

/// An arrangement of keys, on the worker that owns each key.
fn keys_alone<'scope, T: Time, C: ExchangeData + Semigroup>(
    updates: StreamVec<'scope, T, ((Row, ()), T, C)>,
    name: &str,
    context: &Rc<Context>,
) -> Arranged<'scope, Keys<C, T>>
where
    ((Row, ()), T, C): Crosses,
{
    let peers = updates.scope().peers();
    let route = move |((key, ()), _, _): &((Row, ()), T, C)| key.owner(peers);
    let pact = Context::crossing(context, route);
    type Batcher<T, C> = KeyBatcher<Row, T, C>;
    type Spine<T, C> = KeySpine<Row, T, C>;
    arrange_core::<_, _, Batcher<T, C>, Spine<T, C>>(updates, pact, name, Batcher::new)
}

/// Arranges values by key on the worker that owns each key. If there is a site, the state is
/// restored from it and kept at it.
pub(crate) fn arrange_values<'scope>(
    updates: StreamVec<'scope, Epoch, Update>,
    name: &str,
    context: &Rc<Context>,
    site: Option<&Site>,
) -> Arranged<'scope, Values> {
    let of = |update: &Update| update.1;
    let updates = restore(updates, context, site, of, |epoch, entry| {
        ((entry.key, entry.value), epoch, entry.change)
    });
    let arranged = values_by_key(updates, name, context);
    tap(arranged.stream.clone(), context, site, Row::clone);
    arranged
}

/// An arrangement of values by key, on the worker that owns each key.
fn values_by_key<'scope, T: Time>(
    updates: StreamVec<'scope, T, Update<T>>,
    name: &str,
    context: &Rc<Context>,
) -> Arranged<'scope, Values<T>>
where
    Update<T>: Crosses,
{
    type Batcher<T> = ValBatcher<Row, Row, T, isize>;
    type Spine<T> = ValSpine<Row, Row, T, isize>;
    let peers = updates.scope().peers();
    let pact = Context::crossing(context, move |((key, _), _, _): &Update<T>| {
        key.owner(peers)
    });
    let arranged = arrange_core::<_, _, Batcher<T>, Spine<T>>(updates, pact, name, Batcher::new);
    context.meter.trace(&arranged.trace, memory_size::values);
    arranged
}

/// What happens to rows whose key contains null.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NullKeys {
    /// The rows in which one of these key columns is null are left out, as a join on `=` needs.
    Dropped(Vec<usize>),
    /// Null is a key like any other, as GROUP BY and `IS NOT DISTINCT FROM` need.
    Kept,
}

/// Where a column of the input is stored: at this index of the keys or of the values.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// Index of the key's column.
    Key(usize),
    /// Index of the value's column.
    Value(usize),
}

/// How rows become keys and values.
pub(crate) struct Layout {
    /// The expressions of the keys, then those of the values.
    outputs: Vec<Scalar>,
    /// The schema of keys.
    keys: SchemaRef,
    /// The schema of values.
    values: SchemaRef,
    /// The sort order of each column of the values.
    sorted: Vec<SortOptions>,
    /// For each column of the input: where it is stored.
    places: Vec<Place>,
}

impl Layout {
    /// A layout of `input` by `keys`. The values of a key sort by `order`, then by their other
    /// columns.
    ///
    /// # Errors
    /// `Bug` when an expression has no type over the input.
    pub(crate) fn new(input: &SchemaRef, keys: &[Scalar], order: &[OrderBy]) -> Result<Self> {
        let plain = |scalar: &Scalar, index: usize| {
            let column = scalar.expr.downcast_ref::<Column>();
            column.is_some_and(|column| column.index() == index)
        };
        let mut outputs = keys.to_vec();
        outputs.extend(order.iter().map(|by| by.scalar.clone()));
        let mut sorted: Vec<SortOptions> = order.iter().map(options).collect();
        let mut places = Vec::new();
        for index in 0..input.fields().len() {
            let key = keys.iter().position(|key| plain(key, index));
            let by = || order.iter().position(|by| plain(&by.scalar, index));
            places.push(
                match key.map(Place::Key).or_else(|| by().map(Place::Value)) {
                    Some(place) => place,
                    None => {
                        outputs.push(column(input, index));
                        sorted.push(ASCENDING);
                        Place::Value(sorted.len() - 1)
                    }
                },
            );
        }
        let all = numbered(&outputs, input)?;
        let (keys, values) = all.fields().split_at(keys.len());
        Ok(Self {
            keys: Arc::new(Schema::new(keys.to_vec())),
            values: Arc::new(Schema::new(values.to_vec())),
            outputs,
            sorted,
            places,
        })
    }

    /// The codecs of keys and of values.
    fn codecs(&self) -> Result<(RowCodec, RowCodec)> {
        let keys = RowCodec::new(Arc::clone(&self.keys))?;
        let values = RowCodec::sorted(Arc::clone(&self.values), self.sorted.iter().copied())?;
        Ok((keys, values))
    }

    /// Encodes rows as updates. A row whose key or order cannot be evaluated becomes a dead letter.
    ///
    /// # Errors
    /// `Bug` when a type cannot be encoded.
    pub(crate) fn updates<'scope, T: Time>(
        &self,
        input: ChunkStream<'scope, T>,
        context: &Rc<Context>,
        nulls: NullKeys,
    ) -> Result<StreamVec<'scope, T, Update<T>>> {
        let (keys, values) = self.codecs()?;
        let fields = self.keys.fields().iter().chain(self.values.fields());
        let stage = Stage {
            view: context.view(),
            filters: Vec::new(),
            outputs: self.outputs.clone(),
            schema: Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>())),
        };
        let context = Rc::clone(context);
        Ok(input.unary(Pipeline, "KeysAndValues", move |_, _| {
            move |input, output| {
                input.for_each(|cap, chunks| {
                    let mut session = output.session(&cap);
                    for chunk in chunks.drain(..) {
                        let mut pieces = Vec::new();
                        stage.each(&chunk, &context, &mut pieces);
                        for piece in pieces {
                            let count = piece.diffs.len();
                            let columns = piece.batch.columns();
                            let (key, value) = columns.split_at(keys.schema().fields().len());
                            let missing = match &nulls {
                                NullKeys::Dropped(columns) => missing(key, columns),
                                NullKeys::Kept => None,
                            };
                            let encoded = keys.encode(key, count);
                            let encoded =
                                encoded.and_then(|keys| Ok((keys, values.encode(value, count)?)));
                            let (keys, values) = match encoded {
                                Ok(encoded) => encoded,
                                Err(error) => context.fail(error),
                            };
                            let whole = |row: &usize| {
                                missing.as_ref().is_none_or(|nulls| nulls.is_valid(*row))
                            };
                            session.give_iterator((0..count).filter(whole).map(|row| {
                                let diff = piece.diffs[row] as isize;
                                ((keys.row(row), values.row(row)), chunk.epoch, diff)
                            }));
                        }
                    }
                });
            }
        }))
    }

    /// The decoder that turns keys and values back to the input's columns.
    ///
    /// # Errors
    /// `Bug` when a type cannot be decoded.
    pub(crate) fn decoder(&self) -> Result<Decoder> {
        let (keys, values) = self.codecs()?;
        Ok(Decoder {
            keys,
            values,
            places: self.places.clone(),
        })
    }
}

/// The order of columns by which a value is not sorted otherwise.
const ASCENDING: SortOptions = SortOptions {
    descending: false,
    nulls_first: false,
};

/// The sort options of an ORDER BY item.
fn options(by: &OrderBy) -> SortOptions {
    SortOptions {
        descending: by.descending,
        nulls_first: by.nulls_first,
    }
}

/// A bitmap of the rows in which none of these columns is null; `None` if none contains a null.
fn missing(keys: &[ArrayRef], columns: &[usize]) -> Option<NullBuffer> {
    columns.iter().filter_map(|column| keys.get(*column)).fold(
        None,
        |all: Option<NullBuffer>, column| {
            NullBuffer::union(all.as_ref(), column.logical_nulls().as_ref())
        },
    )
}

/// Turns keys and values back to the columns of the arranged relation.
pub(crate) struct Decoder {
    /// The codec of keys.
    keys: RowCodec,
    /// The codec of values.
    values: RowCodec,
    /// Where each column of the relation is, in order.
    places: Vec<Place>,
}

impl Decoder {
    /// The input's columns, from the encoded keys and values of the same rows.
    ///
    /// # Errors
    /// `Bug` when bytes are not what the codec wrote.
    pub(crate) fn columns<'a>(
        &self,
        keys: impl Iterator<Item = &'a [u8]>,
        values: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Vec<ArrayRef>> {
        Ok(self.parts(keys, values)?.0)
    }

    /// The input's columns, and the columns of the values, which begin with those of the order.
    ///
    /// # Errors
    /// As [`Decoder::columns`].
    pub(crate) fn parts<'a>(
        &self,
        keys: impl Iterator<Item = &'a [u8]>,
        values: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(Vec<ArrayRef>, Vec<ArrayRef>)> {
        let read = |place: &Place| matches!(place, Place::Key(_));
        let keys = match self.places.iter().any(read) {
            true => Some(self.keys.decode_bytes(keys)?),
            false => None,
        };
        let values = self.values.decode_bytes(values)?;
        let columns = self.places.iter().filter_map(|place| match place {
            Place::Key(index) => Some(Arc::clone(keys.as_ref()?.column(*index))),
            Place::Value(index) => Some(Arc::clone(values.column(*index))),
        });
        Ok((columns.collect(), values.columns().to_vec()))
    }
}
