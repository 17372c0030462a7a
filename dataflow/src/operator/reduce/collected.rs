//! Collected aggregates: `string_agg`, `json_agg`, `mode` and percentiles, computed from all sorted
//! values of a group.
//!
//! The values are arranged by group in the order of the aggregate ([`super::values`]). At each
//! epoch in which a group changes, its values are read in order from the trace, and the aggregates
//! are computed anew. The operator keeps no state of its own, and its work is proportional to the
//! size of the groups that change. Rows without a value are kept as nulls, which count for the
//! group alone.
//!
//! ```text
//! rows ─► ArrangeCollected (group, sorted values) ─► Collect: old and new results of each group
//!         ─► FinishCollected: results as columns
//! ```
//!
//! Frontier contract: that of [`crate::operator::top_k::scan`].

pub(crate) mod fold;
pub(crate) mod texts;
pub(crate) mod wanted;

use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch, RecordBatchOptions, StringArray};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Float64Type, Schema, SchemaRef};
use differential_dataflow::AsCollection;
use differential_dataflow::trace::cursor::{Cursor, cursor_list};
use fold::{Folded, Given, Group, folded};
use tidemill_ir::row::{Row, RowCodec};
use tidemill_ir::{Aggregate, AggregateFunction, Epoch, OrderBy, Scalar, types};
use tidemill_log::{Error, Kind, Result};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator;
use timely::progress::Antichain;
use wanted::{Form, Wanted};

use super::grouping::{Grouping, PartRows};
use super::values::{Sorted, arranged_values};
use crate::chunk::ChunkStream;
use crate::context::Context;
use crate::context::site::Site;
use crate::operator::argument::{Arguments, value_column};
use crate::operator::arrange::Batch;
use crate::operator::compute::evaluate;
use crate::operator::top_k::scan::each_change;

/// The input of a part.
pub(crate) struct Input<'a, 'scope> {
    /// The rows.
    pub(crate) rows: ChunkStream<'scope>,
    /// The arguments of the first aggregate, which all aggregates share.
    pub(crate) arguments: Arguments,
    /// The aggregates.
    pub(crate) aggregates: &'a [Aggregate],
}

/// An update: a group, the results of its aggregates, with epoch and difference.
type Update = ((Row, Vec<Given>), Epoch, isize);

/// Whether two aggregates are computed from the same sorted values.
pub(crate) fn alike(one: &Aggregate, other: &Aggregate) -> bool {
    let order = |aggregate: &Aggregate| -> Vec<String> {
        aggregate.order.iter().map(OrderBy::to_string).collect()
    };
    let text = |scalar: Option<&Scalar>| scalar.map(|scalar| scalar.text.clone());
    order(one) == order(other)
        && text(one.arguments.first()) == text(other.arguments.first())
        && text(one.filter.as_ref()) == text(other.filter.as_ref())
}

/// Renders the aggregates; `outputs` are their columns.
///
/// # Errors
/// `Bug` when a key or a value has a type that cannot be encoded, or a literal is none.
pub(crate) fn collected<'scope>(
    grouping: &Grouping<'scope>,
    input: Input<'_, 'scope>,
    outputs: SchemaRef,
    site: Option<&Site>,
) -> Result<PartRows<'scope>> {
    let Some(first) = input.aggregates.first() else {
        return Err(Error::new(Kind::Bug, "a part has no aggregate"));
    };
    let value = value_column(first);
    let sorted = Sorted {
        options: options(first, input.arguments.first_kinds().len()),
        kinds: input.arguments.first_kinds(),
    };
    let wanted = input.aggregates.iter().map(wanted);
    let wanted: Vec<Wanted> = wanted.collect::<Result<_>>()?;
    let collect = Collect {
        null: sorted.null()?,
        codec: sorted.codec()?,
        value,
        wanted,
        outputs: Arc::clone(&outputs),
        context: Rc::clone(&grouping.context),
        view: grouping.context.view(),
    };
    let source = (input.rows, input.arguments);
    let arranged = arranged_values(grouping, source, &sorted, "ArrangeCollected", site)?;
    let results = each_change(arranged, "Collect", move |new, held, lower, give| {
        collect.changes(new, held, lower, give);
    });
    let finish = Finish {
        values: sorted.codec()?,
        value,
        encoder: RowCodec::new(outputs)?,
    };
    let context = Rc::clone(&grouping.context);
    let rows = results.unary(Pipeline, "FinishCollected", move |_, _| {
        move |input, output| {
            input.for_each(|cap, updates: &mut Vec<Update>| {
                let mut session = output.session(&cap);
                match finish.rows(updates) {
                    Ok(rows) => session.give_iterator(
                        updates
                            .drain(..)
                            .zip(rows)
                            .map(|(((key, _), time, diff), row)| ((key, row), time, diff)),
                    ),
                    Err(error) => context.fail(error),
                }
            });
        }
    });
    Ok(rows.as_collection())
}

/// The sort options of the `columns` of a value: those of the order, and ascending for the value
/// itself where it is no part of the order.
fn options(aggregate: &Aggregate, columns: usize) -> Vec<SortOptions> {
    let order = aggregate.order.iter().map(|by| SortOptions {
        descending: by.descending,
        nulls_first: by.nulls_first,
    });
    let ascending = SortOptions {
        descending: false,
        nulls_first: false,
    };
    order
        .chain(std::iter::repeat(ascending))
        .take(columns)
        .collect()
}

/// What an aggregate wants of the sorted values.
fn wanted(aggregate: &Aggregate) -> Result<Wanted> {
    let direct = aggregate.arguments.get(1).map(literal).transpose()?;
    let missing = || Error::new(Kind::Bug, format!("`{aggregate}` has no literal"));
    let fraction = || -> Result<f64> {
        let literal = direct
            .as_ref()
            .and_then(|l| l.as_primitive_opt::<Float64Type>());
        Ok(literal.ok_or_else(missing)?.value(0))
    };
    Ok(match aggregate.function {
        AggregateFunction::Mode => Wanted::Mode,
        AggregateFunction::PercentileCont => Wanted::Continuous(fraction()?),
        AggregateFunction::PercentileDisc => Wanted::Discrete(fraction()?),
        function if function.is_document() => Wanted::Document(Form {
            object: matches!(
                function,
                AggregateFunction::JsonObjectAgg | AggregateFunction::JsonbObjectAgg
            ),
            binary: matches!(
                function,
                AggregateFunction::JsonbAgg | AggregateFunction::JsonbObjectAgg
            ),
            distinct: aggregate.distinct,
        }),
        AggregateFunction::StringAgg => {
            let separator = direct.as_ref().and_then(|l| l.as_string_opt::<i32>());
            Wanted::Text {
                separator: separator.ok_or_else(missing)?.value(0).to_owned(),
                distinct: aggregate.distinct,
            }
        }
        other => {
            let what = format!("{other:?} is not collected");
            return Err(Error::new(Kind::Bug, what));
        }
    })
}

/// The value of a literal, as a column of one row.
fn literal(scalar: &Scalar) -> Result<ArrayRef> {
    let one_row = RecordBatchOptions::new().with_row_count(Some(1));
    let schema = Arc::new(Schema::empty());
    let row = RecordBatch::try_new_with_options(schema, Vec::new(), &one_row);
    evaluate(scalar, &row.map_err(tidemill_ir::row::bug)?)
}

/// Computes the aggregates of groups from the trace.
struct Collect {
    /// The value of rows that do not count.
    null: Row,
    /// The codec of values.
    codec: RowCodec,
    /// Which column of a value is the argument.
    value: usize,
    /// What the aggregates want.
    wanted: Vec<Wanted>,
    /// The columns of the aggregates.
    outputs: SchemaRef,
    /// What operators share.
    context: Rc<Context>,
    /// The view's name.
    view: Arc<str>,
}

impl Collect {
    /// Gives the changes of the results of all groups in the new batches; see
    /// [`crate::operator::top_k::scan::each_change`].
    fn changes(
        &self,
        new: Vec<Batch>,
        held: Vec<Batch>,
        lower: &Antichain<Epoch>,
        give: &mut dyn FnMut(Update),
    ) {
        let (mut changed, changed_in) = cursor_list(new);
        let (mut all, all_in) = cursor_list(held);
        let mut epochs: Vec<Epoch> = Vec::new();
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
                let mut group = Group::new(&mut all, &all_in, &self.null);
                let mut before = self.fold(&mut group, |time| !lower.less_equal(time));
                for &epoch in &epochs {
                    let now = self.fold(&mut group, |time| *time <= epoch);
                    if now == before {
                        continue;
                    }
                    match &now {
                        Folded::Refused(column) => self.refuse(key, epoch, *column),
                        Folded::Given(now) => give(((key.clone(), now.clone()), epoch, 1)),
                        Folded::Empty => {}
                    }
                    if let Folded::Given(before) = before {
                        give(((key.clone(), before), epoch, -1));
                    }
                    before = now;
                }
            }
            changed.step_key(&changed_in);
        }
    }

    /// The results of a group, from the updates at the `included` times.
    fn fold(&self, group: &mut Group<'_, '_>, included: impl Fn(&Epoch) -> bool) -> Folded {
        let decoding = (&self.codec, self.value);
        match folded(group, &self.wanted, decoding, &included) {
            Ok(folded) => folded,
            Err(error) => self.context.fail(error),
        }
    }

    /// Makes a dead letter of a group whose text is too long.
    fn refuse(&self, key: &Row, epoch: Epoch, column: usize) {
        let name = self.outputs.field(column).name();
        let most = texts::STRING_AGG_BYTES_MAX;
        let what = format!("`{name}` is longer than {most} bytes; the group is left out");
        let error = Error::new(Kind::Data, what);
        self.context.refuse(&self.view, epoch, key.bytes(), &error);
    }
}

/// Turns results into the encoded rows of the part.
struct Finish {
    /// The codec of values.
    values: RowCodec,
    /// Which column of a value is the argument.
    value: usize,
    /// The codec of the aggregates' columns.
    encoder: RowCodec,
}

impl Finish {
    /// The row of each update.
    fn rows(&self, updates: &[Update]) -> Result<Vec<Row>> {
        let columns = (0..self.encoder.schema().fields().len()).map(|column| {
            let given: Vec<&Given> = updates
                .iter()
                .filter_map(|((_, results), _, _)| results.get(column))
                .collect();
            self.column(&given, self.encoder.schema().field(column).data_type())
        });
        let columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
        let rows = self.encoder.encode(&columns, updates.len())?;
        Ok((0..rows.num_rows()).map(|row| rows.row(row)).collect())
    }

    /// The results of one aggregate as a column.
    fn column(&self, given: &[&Given], kind: &DataType) -> Result<ArrayRef> {
        let texts = || {
            given.iter().map(|given| match given {
                Given::Text(text) => Some(text.as_str()),
                _ => None,
            })
        };
        if texts().any(|text| text.is_some()) {
            // Documents have a type of their own.
            let texts = texts().collect::<StringArray>();
            return arrow::compute::cast(&texts, kind).map_err(tidemill_ir::row::bug);
        }
        let between = |given: &&Given| matches!(given, Given::Between(..));
        if given.iter().any(between) {
            return self.interpolated(given);
        }
        if types::is_document(kind) {
            return Ok(arrow::array::new_null_array(kind, given.len()));
        }
        let values = given.iter().map(|given| match given {
            Given::Value(row) => Some(row),
            _ => None,
        });
        let rows = self.values.decode_or_null(values)?;
        Ok(Arc::clone(rows.column(self.value)))
    }

    /// Values between two others, as PostgreSQL's `float8_lerp` computes them.
    fn interpolated(&self, given: &[&Given]) -> Result<ArrayRef> {
        let side = |pick: fn(&Given) -> Option<&Row>| -> Result<ArrayRef> {
            let rows = self
                .values
                .decode_or_null(given.iter().map(|given| pick(given)))?;
            Ok(Arc::clone(rows.column(self.value)))
        };
        let low = side(|given| match given {
            Given::Between(low, ..) => Some(low),
            _ => None,
        })?;
        let high = side(|given| match given {
            Given::Between(_, high, _) => Some(high),
            _ => None,
        })?;
        let floats = |column: &ArrayRef| column.as_primitive_opt::<Float64Type>().cloned();
        let (Some(low), Some(high)) = (floats(&low), floats(&high)) else {
            return Err(Error::new(Kind::Bug, "a percentile of other than doubles"));
        };
        let values = low.iter().zip(high.iter()).zip(given);
        let values = values.map(|((low, high), given)| match given {
            // One value needs no product, which would be NaN for infinities.
            Given::Between(_, _, 0.0) => low,
            Given::Between(_, _, proportion) => Some(low? + proportion * (high? - low?)),
            _ => None,
        });
        Ok(Arc::new(values.collect::<Float64Array>()))
    }
}
