//! The sink operator: writes the net changes of each epoch of a view to the sink.
//!
//! ```text
//! changes ─► exchange by primary key ─► stash by epoch
//!    frontier passes e ─► net effect per key ─► sink.write(e) ─► durable ─► capability dropped
//! ```
//!
//! Frontier contract: changes are stashed by epoch under a retained capability. When the input
//! frontier passes an epoch, the net effect of the epoch is given to the sink. The capability is
//! dropped when the sink has the epoch durably. Therefore the output frontier says what is durable
//! in the sink.
//!
//! Invariants:
//! 1. There is at most one operation per primary key and epoch.
//! 2. Epochs at or below the sink's frontier are not written again.
//! 3. If the sink is transactional, one worker has all rows of the view, and gives the sink one
//!    write an epoch, in the order of epochs.
//! 4. These rows are withheld, counted, and treated as if they did not exist: rows with the same
//!    primary key as another row (key conflict), rows whose key contains null, because no sink
//!    could find them again, and rows whose values the table cannot hold. Therefore an earlier row
//!    of their key is deleted, and a later row of it is written.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use arrow::array::{Array, BooleanArray};
use arrow::datatypes::Schema;
use hashbrown::HashMap;
use tidemill_ir::row::{Encoded, Row, RowCodec};
use tidemill_ir::{Epoch, Output, View};
use tidemill_log::{Error, Kind, Result, failpoint, lock};
use tidemill_sinks::{Refused, Sink, Table, Writes};
use tidemill_state::checkpoint::{Entry, Reader};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::{Capability, Operator};
use timely::dataflow::{Scope, StreamVec};

use super::arrange::restore::{Tap, restore};
use crate::chunk::{Chunk, ChunkStream};
use crate::context::site::Site;
use crate::context::{Context, WITHHELD_LETTERS_MAX};
use crate::stats::operators::Size;

/// A change of a view: primary key, whole row, epoch, difference.
type Change = (Row, Row, Epoch, i64);

/// The reason for withholding a row whose key contains null.
const NO_KEY: &str = "its primary key holds null";
/// The reason for withholding rows in a key conflict.
const CONFLICT: &str = "several rows have this primary key; all of them are withheld";

/// Epochs whose write has ended, with the rows that the sink refused, or the error.
type Written = Arc<Mutex<Vec<(Epoch, Result<Vec<Refused>>)>>>;

/// Renders the sink of a view. `table` is the index of its table among the sink's tables. The
/// returned stream carries no data; its frontier is what is durable. `site` is set if the rows do
/// not come from state. It keeps the rows by primary key, or only their number if the plan proves
/// that keys are unique.
///
/// # Errors
/// `Bug` when the view has no output, or a column has a type that cannot be encoded.
pub(crate) fn serve<'scope>(
    input: ChunkStream<'scope>,
    context: &Rc<Context>,
    view: &View,
    table: usize,
    site: Option<Site>,
) -> Result<StreamVec<'scope, Epoch, ()>> {
    let Some(output) = view.output.clone() else {
        return Err(Error::new(
            Kind::Bug,
            format!("view `{}` has no output", view.name),
        ));
    };
    let schema = &view.rel.schema;
    let key_fields: Vec<_> = output
        .primary_key
        .iter()
        .map(|column| schema.field(*column).clone())
        .collect();
    let (failing, scope) = (Rc::clone(context), input.scope());
    let unique = output.unique;
    let (counted, kept) = if unique { (site, None) } else { (None, site) };
    let mut keying = Keying {
        definition: Table::of(view, &output),
        table,
        keys: RowCodec::new(Arc::new(Schema::new(key_fields)))?,
        rows: RowCodec::new(Arc::clone(schema))?,
        output,
        counted: counted.map(|site| Counted::new(context, site, scope)),
    };
    let keyed = input.unary_frontier(Pipeline, "KeyedRows", move |_, info| {
        failing.wake_at_start(scope.activator_for(info.address));
        move |(input, frontier), sending| {
            if let Some(counted) = &mut keying.counted {
                counted.restore(&keying.definition.name, &failing);
            }
            input.for_each(|cap, chunks| {
                let mut session = sending.session(&cap);
                for chunk in chunks.drain(..) {
                    match keying.encode(chunk, &failing) {
                        Ok(Some((keys, rows, chunk))) => {
                            let changes = chunk.diffs.iter().enumerate();
                            session.give_iterator(changes.map(|(index, diff)| {
                                (keys.row(index), rows.row(index), chunk.epoch, *diff)
                            }));
                        }
                        Ok(None) => {}
                        Err(error) => failing.fail(error),
                    }
                }
            });
            if let Some(counted) = &mut keying.counted {
                counted.tap.seal(|epoch| !frontier.less_equal(&epoch));
            }
        }
    });
    let keyed = restore(
        keyed,
        context,
        kept.as_ref(),
        |change: &Change| change.2,
        kept_row,
    );
    let state = if unique { None } else { Some(HashMap::new()) };
    let net = Net {
        state,
        size: Size::default(),
        codec: RowCodec::new(Arc::clone(schema))?,
        conflicts: 0,
        shared: Vec::new(),
        table,
        tap: kept.map(|site| Tap::new(context, site)),
    };
    Ok(write(keyed, context, view, net))
}

/// Turns a view's chunks into keys and rows.
struct Keying {
    /// The view's table.
    definition: Table,
    /// The table's index among the sink's tables.
    table: usize,
    /// The view's primary key, and whether the plan proves that it is unique.
    output: Output,
    /// The codec of primary keys.
    keys: RowCodec,
    /// The codec of whole rows.
    rows: RowCodec,
    /// The row count of a view whose rows need not be kept.
    counted: Option<Counted>,
}

impl Keying {
    /// The rows that can be written, with their keys; `None` if the sink has the whole chunk
    /// already.
    fn encode(
        &mut self,
        chunk: Chunk,
        context: &Context,
    ) -> Result<Option<(Encoded, Encoded, Chunk)>> {
        let counted = self.counted.as_mut();
        if counted.is_some_and(|counted| !counted.add(&chunk)) {
            return Ok(None);
        }
        let chunk = holdable(chunk, &self.definition, context)?;
        if self.output.unique && context.is_served(self.table, chunk.epoch) {
            let rows = chunk.diffs.iter().sum();
            context.count_rows(&self.definition.name, chunk.epoch, rows);
            return Ok(None);
        }
        let (columns, count) = (chunk.batch.columns(), chunk.diffs.len());
        let key = self.output.primary_key.iter();
        let key: Vec<_> = key.map(|column| Arc::clone(&columns[*column])).collect();
        let keys = self.keys.encode(&key, count)?;
        let rows = self.rows.encode(columns, count)?;
        Ok(Some((keys, rows, chunk)))
    }
}

/// The rows of a chunk that the view's table can hold. The others are counted and become dead
/// letters.
fn holdable(chunk: Chunk, table: &Table, context: &Context) -> Result<Chunk> {
    let unfit = unfit(&chunk, table, &*context.sink)?;
    if unfit.is_empty() {
        return Ok(chunk);
    }
    let diff = |row: usize| chunk.diffs.get(row).copied().unwrap_or(0);
    let rows: i64 = unfit.keys().map(|row| diff(*row)).sum();
    let new = || unfit.iter().filter(|(row, _)| diff(**row) > 0);
    let more: i64 = new().map(|(row, _)| diff(*row)).sum();
    context.count_rows(&table.name, chunk.epoch, rows);
    context.count_withheld(&table.name, u64::try_from(more).unwrap_or(0));
    context.count_unfit(&table.name, rows);
    let reasons: BTreeSet<&str> = new().map(|(_, reason)| reason.as_str()).collect();
    let count = chunk.diffs.len();
    for why in reasons {
        let is_it = |row| diff(row) > 0 && unfit.get(&row).is_some_and(|reason| reason == why);
        let these: BooleanArray = (0..count).map(|row| Some(is_it(row))).collect();
        let rows = chunk.filter(&these)?.batch;
        context.withhold(&table.name, chunk.epoch, &rows, rows.num_rows(), why);
    }
    let held: BooleanArray = (0..count)
        .map(|row| Some(!unfit.contains_key(&row)))
        .collect();
    chunk.filter(&held)
}

/// The rows that no table can hold, or not this one, each with the reason.
fn unfit(chunk: &Chunk, table: &Table, sink: &dyn Sink) -> Result<BTreeMap<usize, String>> {
    let unfit = sink.unfit(table, &chunk.batch)?.into_iter();
    let mut unfit: BTreeMap<_, _> = unfit.map(|unfit| (unfit.row, unfit.reason)).collect();
    let key = table.primary_key.iter();
    for column in key.filter_map(|column| chunk.batch.columns().get(*column)) {
        if column.null_count() > 0 {
            let null = (0..column.len()).filter(|row| column.is_null(*row));
            unfit.extend(null.map(|row| (row, NO_KEY.to_owned())));
        }
    }
    Ok(unfit)
}

/// The operator `Serve`: stashes changes by epoch, nets them, and writes them.
fn write<'scope>(
    keyed: StreamVec<'scope, Epoch, Change>,
    context: &Rc<Context>,
    view: &View,
    mut net: Net,
) -> StreamVec<'scope, Epoch, ()> {
    let context = Rc::clone(context);
    let name = view.name.clone();
    let scope = keyed.scope();
    let peers = scope.peers();
    // A transactional sink takes the epochs of a view from one worker, in order.
    let alone = context.sink.is_transactional(&name);
    let writer = Row::new(name.as_bytes()).owner(peers);
    let pact = Context::crossing(&context, move |(key, _, _, _): &Change| match alone {
        true => writer,
        false => key.owner(peers),
    });
    keyed.unary_frontier(pact, "Serve", move |_, info| {
        let wake = Arc::new(scope.worker().sync_activator_for(info.address.to_vec()));
        let done: Written = Arc::default();
        let mut stashes: BTreeMap<Epoch, (Capability<Epoch>, Vec<Change>)> = BTreeMap::new();
        let mut writing: BTreeMap<Epoch, Capability<Epoch>> = BTreeMap::new();
        let size = net
            .state
            .is_some()
            .then(|| context.meter.state(info.global_id));
        move |(input, frontier), output| {
            // The stream carries no data; only its capabilities matter.
            let _: &mut timely::dataflow::operators::generic::OutputBuilderSession<
                '_,
                Epoch,
                timely::container::CapacityContainerBuilder<Vec<()>>,
            > = output;
            let written = std::mem::take(&mut *lock(&done));
            for (epoch, result) in written {
                // The dead letters of refused rows must be durable before the epoch is complete.
                let refused = result.unwrap_or_else(|error| context.fail(error));
                context.refused(&name, epoch, &refused);
                drop(writing.remove(&epoch));
            }
            input.for_each(|cap, changes| {
                for change in changes.drain(..) {
                    let epoch = change.2;
                    let stash = stashes
                        .entry(epoch)
                        .or_insert_with(|| (cap.delayed(&epoch, 0), Vec::new()));
                    stash.1.push(change);
                }
            });
            while let Some(entry) = stashes.first_entry()
                && !frontier.less_equal(entry.key())
            {
                let (epoch, (cap, changes)) = entry.remove_entry();
                let writes = match net.take(epoch, changes, &context, &name) {
                    Ok(writes) => writes,
                    Err(error) => context.fail(error),
                };
                if let Some(size) = &size {
                    size.set(net.size);
                }
                if let Some(writes) = writes
                    && !context.is_served(net.table, epoch)
                {
                    writing.insert(epoch, cap);
                    let (done, wake) = (Arc::clone(&done), Arc::clone(&wake));
                    let stats = Arc::clone(&context.stats);
                    let begun = stats.sink.begin(&writes);
                    failpoint::hit(failpoint::SINK_BEFORE_WRITE);
                    context.sink.write(
                        writes,
                        Box::new(move |result| {
                            failpoint::hit(failpoint::SINK_AFTER_WRITE);
                            stats.sink.end(begun, result.is_ok());
                            lock(&done).push((epoch, result));
                            // The worker may have ended at shutdown. Then nobody waits.
                            let _gone = wake.activate();
                        }),
                    );
                }
            }
            if let Some(tap) = &mut net.tap {
                tap.seal(|epoch| !frontier.less_equal(&epoch));
            }
        }
    })
}

/// A change from a row that a checkpoint kept.
fn kept_row(epoch: Epoch, entry: Entry<isize>) -> Change {
    (entry.key, entry.value, epoch, entry.change as i64)
}

/// The row count of a view whose rows need not be kept, through restarts.
struct Counted {
    /// Where the count is kept.
    site: Site,
    /// The changes of the count.
    tap: Tap<isize>,
    /// This worker's index, and the number of workers.
    worker: (usize, usize),
    /// `None` until the start is known; then the checkpoint's epoch, if there is a checkpoint.
    restored: Option<Option<Epoch>>,
}

impl Counted {
    /// A count that has not been restored yet.
    fn new(context: &Rc<Context>, site: Site, scope: Scope<'_, Epoch>) -> Self {
        Self {
            tap: Tap::new(context, site.clone()),
            site,
            worker: (scope.index(), scope.peers()),
            restored: None,
        }
    }

    /// Restores the count once the start is known.
    fn restore(&mut self, view: &str, context: &Context) {
        if self.restored.is_some() || !context.started() {
            return;
        }
        let state = context.restored(&self.site);
        self.restored = Some(state.as_ref().map(|(epoch, _)| *epoch));
        let Some((epoch, state)) = state else { return };
        let (index, peers) = self.worker;
        let count = || -> Result<()> {
            let mut reader = Reader::share(Arc::clone(&context.store), &state, index, peers)?;
            while let Some(entries) = reader.step()? {
                let rows = entries
                    .iter()
                    .map(|entry: &Entry<isize>| entry.change as i64);
                context.count_rows(view, epoch, rows.sum());
            }
            Ok(())
        };
        if let Err(error) = count() {
            context.fail(error);
        }
    }

    /// Counts the rows of a chunk. Returns false if the checkpoint contains them already.
    fn add(&mut self, chunk: &Chunk) -> bool {
        if self.restored.flatten() >= Some(chunk.epoch) {
            return false;
        }
        let rows: i64 = chunk.diffs.iter().sum();
        let one = Row::default();
        self.tap.add(chunk.epoch, &one, &one, &(rows as isize));
        true
    }
}

/// Computes the net changes of an epoch.
struct Net {
    /// Rows by primary key with their counts; `None` if the plan proves that keys are unique.
    state: Option<HashMap<Row, BTreeMap<Row, i64>>>,
    /// The memory size of `state`.
    size: Size,
    /// The codec of whole rows.
    codec: RowCodec,
    /// The number of keys in conflict since this epoch, and a row of some of them.
    conflicts: u64,
    /// Rows of some of these keys, for the report.
    shared: Vec<Row>,
    /// The table's index among the sink's tables.
    table: usize,
    /// Keeps the state, if it does not come from other state.
    tap: Option<Tap<isize>>,
}

/// What happens to a primary key in an epoch: its row before and after.
struct Operation {
    /// The row before the epoch; `None` if the key had no row.
    old: Option<Row>,
    /// The row after the epoch; `None` if the key is deleted.
    new: Option<Row>,
}

impl Net {
    /// Takes in the changes of an epoch: keeps and counts them, and reports conflicts. Returns what
    /// must be written; `None` if nothing changes.
    fn take(
        &mut self,
        epoch: Epoch,
        changes: Vec<Change>,
        context: &Context,
        view: &str,
    ) -> Result<Option<Writes>> {
        let rows: i64 = changes.iter().map(|change| change.3).sum();
        if let Some(tap) = &mut self.tap {
            for (key, row, epoch, diff) in &changes {
                tap.add(*epoch, key, row, &(*diff as isize));
            }
        }
        let writes = self.writes(epoch, changes)?;
        context.count_rows(view, epoch, rows);
        context.count_withheld(view, self.conflicts);
        self.tell_conflicts(context, view, epoch)?;
        Ok(writes)
    }

    /// The operations of an epoch: sorts the changes by key and adds up their differences.
    fn writes(&mut self, epoch: Epoch, mut changes: Vec<Change>) -> Result<Option<Writes>> {
        changes.sort_unstable();
        let mut operations = Vec::new();
        let mut rest = changes.into_iter().peekable();
        while let Some((key, row, _, diff)) = rest.next() {
            let mut rows = BTreeMap::from([(row, diff)]);
            while let Some((_, row, _, diff)) = rest.next_if(|next| next.0 == key) {
                *rows.entry(row).or_insert(0) += diff;
            }
            rows.retain(|_, sum| *sum != 0);
            if !rows.is_empty() {
                operations.push(self.operation(key, rows)?);
            }
        }
        self.batches(epoch, operations)
    }

    /// The operation of one key. Updates the rows of the key, and finds a key conflict.
    ///
    /// # Errors
    /// `Bug` when two rows share a key that the plan has proved unique.
    fn operation(&mut self, key: Row, changed: BTreeMap<Row, i64>) -> Result<Operation> {
        let Some(state) = &mut self.state else {
            let one = |sign: i64| {
                let mut rows = changed.iter().filter(|(_, sum)| **sum == sign);
                rows.next().map(|(row, _)| row.clone())
            };
            let operation = Operation {
                old: one(-1),
                new: one(1),
            };
            let both = usize::from(operation.old.is_some()) + usize::from(operation.new.is_some());
            if both != changed.len() {
                let what = "two rows of a view share a primary key that was proven unique";
                return Err(Error::new(Kind::Bug, what));
            }
            return Ok(operation);
        };
        let rows = state.entry(key.clone()).or_default();
        let old = alone(rows);
        let before = size_of_rows(&key, rows);
        for (row, sum) in changed {
            *rows.entry(row).or_insert(0) += sum;
        }
        rows.retain(|_, sum| *sum != 0);
        let (new, now) = (alone(rows), size_of_rows(&key, rows));
        self.size.rows = (self.size.rows + now.rows).saturating_sub(before.rows);
        self.size.bytes = (self.size.bytes + now.bytes).saturating_sub(before.bytes);
        if new.is_none() && !rows.is_empty() {
            self.conflicts += 1;
            if self.shared.len() < WITHHELD_LETTERS_MAX {
                self.shared.extend(rows.keys().next_back().cloned());
            }
        }
        if rows.is_empty() {
            state.remove(&key);
        }
        Ok(Operation { old, new })
    }

    /// Makes dead letters of rows that are withheld since this epoch.
    fn tell_conflicts(&mut self, context: &Context, view: &str, epoch: Epoch) -> Result<()> {
        let (count, shared) = (
            std::mem::take(&mut self.conflicts),
            std::mem::take(&mut self.shared),
        );
        if !shared.is_empty() {
            let rows = self.codec.decode(shared.iter())?;
            context.withhold(view, epoch, &rows, count as usize, CONFLICT);
        }
        Ok(())
    }

    /// The operations as Arrow batches: upserts with the rows that they replace, and deletes.
    fn batches(&self, epoch: Epoch, operations: Vec<Operation>) -> Result<Option<Writes>> {
        let changed = operations
            .iter()
            .filter(|operation| operation.old != operation.new);
        let (upserts, deletes): (Vec<_>, Vec<_>) = changed.partition(|o| o.new.is_some());
        if upserts.is_empty() && deletes.is_empty() {
            return Ok(None);
        }
        Ok(Some(Writes {
            table: self.table,
            epoch,
            upserts: self
                .codec
                .decode(upserts.iter().filter_map(|o| o.new.as_ref()))?,
            replaced: self
                .codec
                .decode_or_null(upserts.iter().map(|o| o.old.as_ref()))?,
            deletes: self
                .codec
                .decode(deletes.iter().filter_map(|o| o.old.as_ref()))?,
        }))
    }
}

/// The memory size of a key with its rows.
fn size_of_rows(key: &Row, rows: &BTreeMap<Row, i64>) -> Size {
    let entry = size_of::<(Row, BTreeMap<Row, i64>)>() + key.bytes().len();
    let row = |row: &Row| size_of::<(Row, i64)>() + row.bytes().len();
    let all: usize = rows.keys().map(row).sum();
    Size {
        rows: rows.len() as u64,
        bytes: if rows.is_empty() { 0 } else { entry + all } as u64,
    }
}

/// The row of a key that has exactly one row, once.
fn alone(rows: &BTreeMap<Row, i64>) -> Option<Row> {
    match rows.first_key_value() {
        Some((row, 1)) if rows.len() == 1 => Some(row.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray, UInt64Array};
    use arrow::datatypes::{DataType, Field};
    use tidemill_ir::row::batch;

    fn net(unique: bool) -> Net {
        let schema = Arc::new(Schema::new(vec![
            Field::new("k", DataType::Utf8, true),
            Field::new("v", DataType::Int64, true),
        ]));
        let state = if unique { None } else { Some(HashMap::new()) };
        Net {
            state,
            size: Size::default(),
            codec: RowCodec::new(schema).unwrap(),
            conflicts: 0,
            shared: Vec::new(),
            table: 0,
            tap: None,
        }
    }

    fn change(net: &Net, key: &str, value: i64, diff: i64) -> Change {
        let columns: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(StringArray::from(vec![key])),
            Arc::new(Int64Array::from(vec![value])),
        ];
        (
            Row::new(key.as_bytes()),
            net.codec.encode(&columns, 1).unwrap().row(0),
            7,
            diff,
        )
    }

    fn shape(writes: &Option<Writes>) -> (usize, usize) {
        writes
            .as_ref()
            .map_or((0, 0), |w| (w.upserts.num_rows(), w.deletes.num_rows()))
    }

    #[test]
    fn rows_that_cannot_be_held_are_told_apart() {
        let key = StringArray::from(vec![Some("a"), Some(""), None]);
        let number = UInt64Array::from(vec![1, u64::MAX, 2]);
        let schema = Arc::new(Schema::new(vec![
            Field::new("k", DataType::Utf8, true),
            Field::new("u", DataType::UInt64, true),
        ]));
        let batch = batch(&schema, vec![Arc::new(key), Arc::new(number)], 3).unwrap();
        let chunk = Chunk::insertions(1, batch);
        let table = Table {
            name: "t".to_owned(),
            schema,
            primary_key: vec![0],
            partition_columns: 1,
            fingerprint: 0,
        };
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("sink.db").display());
        let unfit = unfit(&chunk, &table, &*tidemill_sinks::open(&url).unwrap()).unwrap();
        assert_eq!(unfit.keys().collect::<Vec<_>>(), [&1, &2]);
        assert!(unfit[&1].contains("column `u`"), "{unfit:?}");
        assert_eq!(unfit[&2], NO_KEY);
    }

    #[test]
    fn an_epoch_nets_to_one_operation_a_key() {
        let mut net = net(true);
        let changes = vec![
            change(&net, "a", 1, -1),
            change(&net, "a", 2, 1),
            change(&net, "b", 1, 1),
            change(&net, "b", 1, -1),
            change(&net, "c", 9, -1),
        ];
        let writes = net.writes(7, changes).unwrap();
        assert_eq!(shape(&writes), (1, 1), "a replaced, b nothing, c deleted");
        let replaced = &writes.unwrap().replaced;
        assert_eq!(replaced.column(1).as_ref(), &Int64Array::from(vec![1]));
    }

    #[test]
    fn two_rows_of_one_key_are_withheld_until_one_is_left() {
        let mut net = net(false);
        let first = vec![change(&net, "a", 1, 1)];
        assert_eq!(shape(&net.writes(1, first).unwrap()), (1, 0));
        let second = vec![change(&net, "a", 2, 1)];
        assert_eq!(shape(&net.writes(2, second).unwrap()), (0, 1), "withheld");
        assert_eq!(net.conflicts, 1);
        let gone = vec![change(&net, "a", 1, -1)];
        let writes = net.writes(3, gone).unwrap().unwrap();
        assert_eq!(
            writes.upserts.column(1).as_ref(),
            &Int64Array::from(vec![2])
        );
    }
}
