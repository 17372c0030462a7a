//! GROUP BY: a reduce, split into parts by kind of aggregate.
//!
//! - *totals*: `count`, `sum`, `avg`, `bool_*`, `bit_*` and statistics are kept as differences
//!   ([`accumulate`]). Rows are combined per batch before they cross workers.
//! - *first*: each `min` or `max` is the first of the group's sorted values
//!   ([`crate::operator::top_k::scan`]).
//! - *collected*: `string_agg`, `mode` and percentiles are computed from all of the group's sorted
//!   values ([`collected`]). Those over the same sorted values are one part.
//! - *distinct totals*: aggregates over DISTINCT are totals over the distinct (group, arguments).
//!
//! ```text
//!              ┌─► totals ───────────────────────────────┐
//! rows ────────┼─► first: min(x)  (arranged by group)    ├─► collate by group ─► rows
//! evaluated    ├─► collected: mode of z (arranged)       │
//!              └─► distinct (group, y) ─► totals of y ───┘
//! ```
//!
//! With a single part there is no collate. Every part has exactly one row for each group that has
//! rows, so the collate step waits until a group has a row of each part.

pub(crate) mod accumulate;
pub(crate) mod collected;
pub(crate) mod grouping;
pub(crate) mod min_max;
pub(crate) mod ratio;
pub(crate) mod rows;
pub(crate) mod seed;
pub(crate) mod statistics;
pub(crate) mod totals;
pub(crate) mod values;

use std::rc::Rc;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use differential_dataflow::VecCollection;
use differential_dataflow::trace::implementations::{ValBuilder, ValSpine};
use grouping::{Grouping, PartRows};
use tidemill_ir::row::{Order, Row, RowCodec, batch, nullable};
use tidemill_ir::{Aggregate, AggregateFunction, Epoch, Scalar};
use tidemill_log::Result;
use timely::dataflow::Scope;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator;

use super::argument::{Arguments, evaluated};
use super::compute::chunks::chunks;
use super::compute::column;
use super::distinct::distinct;
use crate::chunk::{Chunk, ChunkStream};
use crate::context::site::Site;
use crate::context::{Context, Sites};
use crate::operator::arrange::memory_size;

/// The input of a reduce.
pub(crate) struct Input<'a, 'scope> {
    /// The rows.
    pub(crate) rows: ChunkStream<'scope>,
    /// The schema of the rows.
    pub(crate) schema: &'a SchemaRef,
    /// Where the state of the parts is kept; `None` if it is computed from other state.
    pub(crate) sites: Option<&'a Sites>,
}

/// One part of a reduce.
struct Part {
    /// The indices of the aggregates that the part computes.
    fills: Vec<usize>,
    /// How the part keeps its state.
    kind: PartKind,
}

/// How a part keeps its state; see the module.
enum PartKind {
    /// Totals by group, added up as differences.
    Totals,
    /// The first value by group in this order: `min` or `max`.
    First(Order),
    /// All values by group, sorted.
    Collected,
    /// Totals over the distinct values of the arguments.
    DistinctTotals,
}

/// Renders a reduce of `input`; `schema` has the keys, then the aggregates.
///
/// # Errors
/// `Bug` when an expression has no type over the input, or a type that cannot be encoded.
pub(crate) fn reduce<'scope>(
    scope: Scope<'scope, Epoch>,
    input: Input<'_, 'scope>,
    context: &Rc<Context>,
    keys: &[Scalar],
    aggregates: &[Aggregate],
    schema: &SchemaRef,
) -> Result<ChunkStream<'scope>> {
    let sites = input.sites;
    let (input, input_schema, keys, aggregates) = if parts(aggregates).len() > 1 {
        evaluated((input.rows, input.schema), context, keys, aggregates)?
    } else {
        let schema = Arc::clone(input.schema);
        (input.rows, schema, keys.to_vec(), aggregates.to_vec())
    };
    let schema = nullable(schema);
    let key_schema = Arc::new(Schema::new(schema.fields()[..keys.len()].to_vec()));
    let grouping = Grouping {
        scope,
        context: Rc::clone(context),
        keys: key_schema,
    };
    let parts = parts(&aggregates);
    let mut rows = Vec::new();
    let mut codecs = Vec::new();
    for part in &parts {
        let with: Vec<Aggregate> = part.fills.iter().map(|i| aggregates[*i].clone()).collect();
        let outputs = part
            .fills
            .iter()
            .map(|i| schema.field(keys.len() + i).clone());
        let outputs: SchemaRef = Arc::new(Schema::new(outputs.collect::<Vec<Field>>()));
        // All collected aggregates of a part are computed from the same arguments.
        let read = match part.kind {
            PartKind::Collected => &with[..1],
            _ => with.as_slice(),
        };
        let arguments = Arguments::new(context.view(), &input_schema, &keys, read)?;
        codecs.push(RowCodec::new(Arc::clone(&outputs))?);
        let (grouping, input, site) = (&grouping, input.clone(), sites.map(|s| s.site(None)));
        let site = site.as_ref();
        rows.push(match part.kind {
            PartKind::Totals => totals::totals(grouping, input, arguments, outputs, site)?,
            PartKind::First(order) => {
                min_max::min_max(grouping, input, arguments, order, outputs, site)?
            }
            PartKind::Collected => {
                let input = collected::Input {
                    rows: input,
                    arguments,
                    aggregates: &with,
                };
                collected::collected(grouping, input, outputs, site)?
            }
            PartKind::DistinctTotals => {
                let (pairs, over) = distinct_pairs(grouping, input, arguments, &with, site)?;
                totals::totals(grouping, pairs, over, outputs, None)?
            }
        });
    }
    let order: Vec<usize> = parts.into_iter().flat_map(|part| part.fills).collect();
    let together = match rows.len() {
        1 => rows.remove(0).map(|(key, part)| (key, vec![part])),
        count => collate(rows, count, context),
    };
    output(&grouping, together, codecs, order, schema)
}

/// Splits aggregates into parts: all plain totals are one part, all totals over the same distinct
/// arguments and filter are one part, all collected aggregates over the same sorted values are one
/// part, and each `min` and `max` is a part of its own.
fn parts(aggregates: &[Aggregate]) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for (index, aggregate) in aggregates.iter().enumerate() {
        let kind = match aggregate.function {
            AggregateFunction::Min => PartKind::First(Order::Ascending),
            AggregateFunction::Max => PartKind::First(Order::Descending),
            function if function.is_collected() => PartKind::Collected,
            _ if aggregate.distinct && !aggregate.arguments.is_empty() => PartKind::DistinctTotals,
            _ => PartKind::Totals,
        };
        let joined = parts.iter_mut().find(|part| match (&part.kind, &kind) {
            (PartKind::Totals, PartKind::Totals) => true,
            (PartKind::DistinctTotals, PartKind::DistinctTotals) => {
                let with = &aggregates[part.fills[0]];
                texts(&with.arguments) == texts(&aggregate.arguments)
                    && texts(with.filter.as_slice()) == texts(aggregate.filter.as_slice())
            }
            (PartKind::Collected, PartKind::Collected) => {
                collected::alike(&aggregates[part.fills[0]], aggregate)
            }
            _ => false,
        });
        match joined {
            Some(part) => part.fills.push(index),
            None => parts.push(Part {
                fills: vec![index],
                kind,
            }),
        }
    }
    parts
}

/// The texts of expressions; equal expressions have equal texts.
fn texts(scalars: &[Scalar]) -> Vec<&str> {
    scalars.iter().map(|scalar| scalar.text.as_str()).collect()
}

/// The distinct (group, arguments), and the aggregates rewritten over them. Those with a null
/// argument stay: they count as nothing, but they keep their group in the part.
fn distinct_pairs<'scope>(
    grouping: &Grouping<'scope>,
    input: ChunkStream<'scope>,
    arguments: Arguments,
    aggregates: &[Aggregate],
    site: Option<&Site>,
) -> Result<(ChunkStream<'scope>, Arguments)> {
    let keys = grouping.keys.fields().len();
    let mut fields = grouping.keys.fields().to_vec();
    let kinds = arguments.first_kinds();
    fields.extend(kinds.iter().enumerate().map(|(index, kind)| {
        let name = format!("argument {index}");
        Arc::new(Field::new(name, kind.clone(), true))
    }));
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let context = Rc::clone(&grouping.context);
    let of = Arc::clone(&schema);
    let pairs = input.unary(Pipeline, "DistinctArguments", move |_, _| {
        move |input, output| {
            input.for_each(|cap, chunks| {
                let mut session = output.session(&cap);
                for chunk in chunks.drain(..) {
                    for columns in arguments.columns(&chunk, &context) {
                        let mut all = columns.keys;
                        all.extend(columns.arguments.into_iter().next().unwrap_or_default());
                        match batch(&of, all, columns.diffs.len()) {
                            Ok(batch) => session.give(Chunk {
                                epoch: chunk.epoch,
                                batch,
                                diffs: columns.diffs,
                            }),
                            Err(error) => context.fail(error),
                        }
                    }
                }
            });
        }
    });
    let pairs = distinct(pairs, &grouping.context, &schema, site)?;
    let columns: Vec<Scalar> = (0..keys).map(|index| column(&schema, index)).collect();
    let over = keys..keys + kinds.len();
    let rewritten: Vec<Aggregate> = aggregates
        .iter()
        .map(|aggregate| Aggregate {
            arguments: over.clone().map(|index| column(&schema, index)).collect(),
            filter: None,
            distinct: false,
            ..aggregate.clone()
        })
        .collect();
    let over = Arguments::new(grouping.context.view(), &schema, &columns, &rewritten)?;
    Ok((pairs, over))
}

/// Joins the parts of each group, in the order of the parts.
fn collate<'scope>(
    parts: Vec<PartRows<'scope>>,
    count: usize,
    context: &Context,
) -> VecCollection<'scope, Epoch, (Row, Vec<Row>), isize> {
    let numbered = parts.into_iter().enumerate().map(|(number, part)| {
        // A reduce has far fewer than 2³² parts.
        part.map(move |(key, row)| (key, (number as u32, row)))
    });
    let all = numbered.reduce(|all, part| all.concat(part));
    let all = all.unwrap_or_else(|| unreachable!("a reduce has at least one part"));
    let arranged = all.arrange_by_key_named("ArrangeCollate");
    context.meter.trace(&arranged.trace, memory_size::values);
    type Builder = ValBuilder<Row, Vec<Row>, Epoch, isize>;
    type Spine = ValSpine<Row, Vec<Row>, Epoch, isize>;
    let collated = arranged.reduce_abelian::<_, Builder, Spine, _, _>(
        "Collate",
        move |_key, parts: &[(&(u32, Row), isize)], out| {
            // While an epoch is being assembled, a part may be missing. At the end of the epoch
            // none is.
            if parts.len() == count {
                out.push((parts.iter().map(|((_, row), _)| row.clone()).collect(), 1));
            }
        },
        |built, key, updates| {
            built.clear();
            let updates = updates.drain(..);
            built.extend(updates.map(|(parts, epoch, diff)| ((key.clone(), parts), epoch, diff)));
        },
    );
    context.meter.trace(&collated.trace, memory_size::values);
    collated.as_collection(|key, parts| (key.clone(), parts.clone()))
}

/// Turns groups back to chunks. `order[i]` is the aggregate that column `i` of the parts computes.
fn output<'scope>(
    grouping: &Grouping<'scope>,
    groups: VecCollection<'scope, Epoch, (Row, Vec<Row>), isize>,
    codecs: Vec<RowCodec>,
    order: Vec<usize>,
    schema: SchemaRef,
) -> Result<ChunkStream<'scope>> {
    let keys = RowCodec::new(Arc::clone(&grouping.keys))?;
    let decode = move |epoch, groups: &[((Row, Vec<Row>), i64)]| -> Result<Chunk> {
        let mut columns = keys
            .decode(groups.iter().map(|((key, _), _)| key))?
            .columns()
            .to_vec();
        let mut parts = Vec::new();
        for (number, codec) in codecs.iter().enumerate() {
            let rows = groups.iter().map(|((_, parts), _)| &parts[number]);
            parts.extend(codec.decode(rows)?.columns().iter().cloned());
        }
        let mut placed: Vec<_> = order.iter().zip(parts).collect();
        placed.sort_by_key(|(aggregate, _)| **aggregate);
        columns.extend(placed.into_iter().map(|(_, column)| column));
        let batch = batch(&schema, columns, groups.len())?;
        let diffs = groups.iter().map(|(_, diff)| *diff).collect();
        Ok(Chunk {
            epoch,
            batch,
            diffs,
        })
    };
    Ok(chunks(
        groups.inner,
        "ReduceChunks",
        &grouping.context,
        decode,
    ))
}
