//! What every sink does, run on all engines: SQLite always, Cassandra when
//! `TIDEMILL_TEST_CASSANDRA` names a node, PostgreSQL when `TIDEMILL_TEST_POSTGRES` names a
//! database.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use arrow::array::{
    ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array,
    Float64Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray, UInt64Array,
    new_null_array,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit};
use arrow::record_batch::RecordBatch;
use proptest::prelude::*;
use tempfile::TempDir;
use tidemill_ir::Epoch;
use tidemill_log::{Kind, Result};
use tidemill_sinks::{Frontier, Refused, Sink, Table, Writes};

mod postgres;
mod refused;

static NUMBER: AtomicUsize = AtomicUsize::new(0);
const PATIENCE: Duration = Duration::from_secs(60);

/// An engine under test, empty when made.
struct Engine {
    name: &'static str,
    url: String,
    sink: Arc<dyn Sink>,
    _folder: TempDir,
}

impl Engine {
    fn cassandra(&self) -> bool {
        self.name == "cassandra"
    }

    /// Whether the sink takes the epochs of a view in order, from one worker.
    fn in_order(&self) -> bool {
        self.sink.is_transactional("counts")
    }
}

/// A schema of its own in PostgreSQL; `None` without a server.
fn postgres(test: &str) -> Option<String> {
    let Ok(base) = std::env::var("TIDEMILL_TEST_POSTGRES") else {
        left_out(test, "PostgreSQL", "TIDEMILL_TEST_POSTGRES");
        return None;
    };
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let sign = if base.contains('?') { '&' } else { '?' };
    let process = std::process::id();
    Some(format!("{base}{sign}schema=sink_{process}_{number}"))
}

/// Says that a test does not run on an engine, past the harness, which hides what a passing test
/// prints.
fn left_out(test: &str, engine: &str, variable: &str) {
    let line = format!("left out: {test} on {engine} needs {variable} (run ./test)\n");
    let _unseen = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}

fn engines(test: &str) -> Vec<Engine> {
    let folder = TempDir::new().unwrap();
    let url = format!("sqlite://{}", folder.path().join("sink.db").display());
    let mut engines = vec![("sqlite", url, folder)];
    engines.extend(postgres(test).map(|url| ("postgres", url, TempDir::new().unwrap())));
    match std::env::var("TIDEMILL_TEST_CASSANDRA") {
        Ok(base) => {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let url = format!(
                "{}/sink_{}_{number}",
                base.trim_end_matches('/'),
                std::process::id()
            );
            engines.push(("cassandra", url, TempDir::new().unwrap()));
        }
        Err(_) => left_out(test, "Cassandra", "TIDEMILL_TEST_CASSANDRA"),
    }
    engines
        .into_iter()
        .map(|(name, url, folder)| Engine {
            name,
            sink: tidemill_sinks::open(&url).unwrap(),
            url,
            _folder: folder,
        })
        .collect()
}

fn table(name: &str, fields: Vec<Field>, primary_key: Vec<usize>, partition: usize) -> Table {
    Table {
        name: name.into(),
        schema: Arc::new(Schema::new(fields)),
        primary_key,
        partition_columns: partition,
        fingerprint: 0xfeed_0000_0000_0001,
    }
}

fn column(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

/// `counts(name text key, n bigint)`.
fn counts() -> Table {
    let fields = vec![column("name", DataType::Utf8), column("n", DataType::Int64)];
    table("counts", fields, vec![0], 1)
}

type Row = (String, Option<i64>);

fn row(name: &str, n: impl Into<Option<i64>>) -> Row {
    (name.into(), n.into())
}

fn batch(table: &Table, rows: &[Row]) -> RecordBatch {
    let names = StringArray::from_iter_values(rows.iter().map(|r| &r.0));
    let numbers = Int64Array::from_iter(rows.iter().map(|r| r.1));
    let columns: Vec<ArrayRef> = vec![Arc::new(names), Arc::new(numbers)];
    RecordBatch::try_new(Arc::clone(&table.schema), columns).unwrap()
}

fn nothing(table: &Table, rows: usize) -> RecordBatch {
    let fields = table.schema.fields().iter();
    let columns = fields
        .map(|f| new_null_array(f.data_type(), rows))
        .collect();
    RecordBatch::try_new(Arc::clone(&table.schema), columns).unwrap()
}

/// Rows to insert (each with what it replaces) and rows to delete.
fn writes(epoch: Epoch, upserts: &[(Row, Option<Row>)], deletes: &[Row]) -> Writes {
    let table = counts();
    let new: Vec<Row> = upserts.iter().map(|u| u.0.clone()).collect();
    let old: Vec<RecordBatch> = upserts
        .iter()
        .map(|(_, old)| match old {
            Some(old) => batch(&table, std::slice::from_ref(old)),
            None => nothing(&table, 1),
        })
        .collect();
    Writes {
        table: 0,
        epoch,
        upserts: batch(&table, &new),
        replaced: concat_batches(&table.schema, &old).unwrap(),
        deletes: batch(&table, deletes),
    }
}

fn start(sink: &dyn Sink, writes: Writes) -> Receiver<Result<Vec<Refused>>> {
    let (sender, receiver) = channel();
    sink.write(writes, Box::new(move |result| sender.send(result).unwrap()));
    receiver
}

/// Writes and waits for the answer.
fn write(sink: &dyn Sink, writes: Writes) -> Result<Vec<Refused>> {
    let answer = start(sink, writes).recv_timeout(PATIENCE);
    answer.expect("done was not called")
}

fn insert(table: &Table, epoch: Epoch, rows: RecordBatch) -> Writes {
    Writes {
        table: 0,
        epoch,
        replaced: nothing(table, rows.num_rows()),
        upserts: rows,
        deletes: nothing(table, 0),
    }
}

fn contents(sink: &dyn Sink) -> BTreeMap<String, Option<i64>> {
    let rows = sink.read_back().unwrap().read(&counts(), 100_000).unwrap();
    let numbers = rows.column(1).as_primitive::<Int64Type>();
    let names = rows.column(0).as_string::<i32>();
    names
        .iter()
        .zip(numbers)
        .map(|(name, n)| (name.unwrap().to_owned(), n))
        .collect()
}

fn expect(engine: &Engine, rows: &[Row]) {
    let want: BTreeMap<_, _> = rows.iter().cloned().collect();
    assert_eq!(contents(&*engine.sink), want, "{}", engine.name);
}

#[test]
fn rows_are_inserted_replaced_and_deleted() {
    for engine in engines("rows_are_inserted_replaced_and_deleted") {
        let sink = &*engine.sink;
        assert_eq!(sink.prepare("job", &[counts()]).unwrap(), [None]);
        let first = [
            (row("a", 1), None),
            (row("b", 2), None),
            (row("c", None), None),
        ];
        write(sink, writes(10, &first, &[])).unwrap();
        expect(&engine, &[row("a", 1), row("b", 2), row("c", None)]);
        let second = [
            (row("a", 5), Some(row("a", 1))),
            (row("b", None), Some(row("b", 2))),
        ];
        write(sink, writes(20, &second, &[row("c", None)])).unwrap();
        expect(&engine, &[row("a", 5), row("b", None)]);
        write(sink, writes(30, &[(row("c", 9), None)], &[row("a", 5)])).unwrap();
        expect(&engine, &[row("b", None), row("c", 9)]);
        // Nothing at all is durable at once.
        write(sink, writes(40, &[], &[])).unwrap();
    }
}

#[test]
fn an_epoch_again_and_an_older_epoch_change_nothing() {
    for engine in engines("an_epoch_again_and_an_older_epoch_change_nothing") {
        let sink = &*engine.sink;
        sink.prepare("job", &[counts()]).unwrap();
        let first = writes(10, &[(row("a", 1), None), (row("b", 1), None)], &[]);
        let second = writes(20, &[(row("a", 2), Some(row("a", 1)))], &[row("b", 1)]);
        let third = writes(30, &[(row("b", 3), None)], &[]);
        let end = [row("a", 2), row("b", 3)];
        for step in [&first, &second, &third, &first, &second, &second, &third] {
            write(sink, step.clone()).unwrap();
        }
        expect(&engine, &end);
        // The same after a restart, with the frontier beyond them.
        sink.advance("job", &[0], 30).unwrap();
        let again = tidemill_sinks::open(&engine.url).unwrap();
        again.prepare("job", &[counts()]).unwrap();
        for step in [first, second, third] {
            write(&*again, step).unwrap();
            expect(&engine, &end);
        }
    }
}

#[test]
fn a_column_that_was_null_gets_no_tombstone() {
    for engine in engines("a_column_that_was_null_gets_no_tombstone") {
        if !engine.cassandra() {
            continue;
        }
        let sink = &*engine.sink;
        sink.prepare("job", &[counts()]).unwrap();
        // A tombstone of epoch 20 would hide a value of epoch 10 that comes later.
        write(sink, writes(20, &[(row("unset", None), None)], &[])).unwrap();
        let cleared = (row("cleared", None), Some(row("cleared", 1)));
        write(sink, writes(20, &[cleared], &[])).unwrap();
        let late = [(row("unset", 7), None), (row("cleared", 7), None)];
        write(sink, writes(10, &late, &[])).unwrap();
        expect(&engine, &[row("unset", 7), row("cleared", None)]);
    }
}

#[test]
fn the_frontier_moves_and_never_back() {
    for engine in engines("the_frontier_moves_and_never_back") {
        let sink = &*engine.sink;
        let fingerprint = counts().fingerprint;
        let at = |epoch| Some(Frontier { epoch, fingerprint });
        let look = |job: &str| sink.prepare(job, &[counts()]).unwrap()[0];
        assert_eq!(look("job"), None);
        assert_eq!(look("job"), at(None), "begun, and nothing complete");
        sink.advance("job", &[0], 1000).unwrap();
        assert_eq!(look("job"), at(Some(1000)));
        sink.advance("job", &[0], 999).unwrap();
        assert_eq!(look("job"), at(Some(1000)), "{}", engine.name);
        sink.advance("job", &[0], 1001).unwrap();
        assert_eq!(look("job"), at(Some(1001)));
        assert_eq!(look("another job"), None);
        assert_eq!(
            sink.advance("job", &[7], 1002).unwrap_err().kind(),
            Kind::Bug
        );
    }
}

#[test]
fn workers_that_begin_at_once_find_each_others_tables() {
    for engine in engines("workers_that_begin_at_once") {
        let tables: Vec<Table> = (0..5)
            .map(|number| Table {
                name: format!("counts_{number}"),
                ..counts()
            })
            .collect();
        std::thread::scope(|scope| {
            let workers = (0..6).map(|_| {
                scope.spawn(|| {
                    let sink = tidemill_sinks::open(&engine.url).unwrap();
                    sink.filled_by().unwrap();
                    sink.prepare("job", &tables).unwrap()
                })
            });
            for worker in workers.collect::<Vec<_>>() {
                assert_eq!(worker.join().unwrap().len(), tables.len());
            }
        });
    }
}

#[test]
fn a_table_that_differs_is_refused_with_the_reason() {
    let differing = |fields, key, partition| table("counts", fields, key, partition);
    let (text, long) = (DataType::Utf8, DataType::Int64);
    let cases = [
        (
            differing(
                vec![column("name", text.clone()), column("n", DataType::Float64)],
                vec![0],
                1,
            ),
            ["`counts`", "`n`"],
        ),
        (
            differing(
                vec![
                    column("name", text.clone()),
                    column("n", long.clone()),
                    column("extra", long.clone()),
                ],
                vec![0],
                1,
            ),
            ["`extra`", "missing"],
        ),
        (
            differing(
                vec![column("name", text.clone()), column("n", long.clone())],
                vec![0, 1],
                1,
            ),
            ["primary key is (name)", "(name, n)"],
        ),
    ];
    for engine in engines("a_table_that_differs_is_refused_with_the_reason") {
        engine.sink.prepare("job", &[counts()]).unwrap();
        for (table, says) in &cases {
            let error = engine
                .sink
                .prepare("job", std::slice::from_ref(table))
                .unwrap_err();
            assert_eq!(error.kind(), Kind::Data);
            let text = error.to_string();
            for part in says.iter().chain(&["drop the table", "another name"]) {
                assert!(
                    text.contains(part),
                    "{}: {text} without {part}",
                    engine.name
                );
            }
        }
        // A view with fewer columns fits: the rest is somebody else's.
        let fewer = differing(vec![column("name", text.clone())], vec![0], 1);
        engine.sink.prepare("job", &[fewer]).unwrap();
    }
}

/// Every type that a view can have, under names that need quoting.
fn every_type() -> (Table, RecordBatch) {
    let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let fields = vec![
        column("Select \"it\"", DataType::Utf8),
        column("order", DataType::Boolean),
        column("Int", DataType::Int32),
        column("int", DataType::Int64),
        column("u", DataType::UInt64),
        column("f", DataType::Float32),
        column("d", DataType::Float64),
        column("b'lob", DataType::Binary),
        column("date", DataType::Date32),
        column("ts tz", micros),
        column("ts", DataType::Timestamp(TimeUnit::Microsecond, None)),
        column("dec", DataType::Decimal128(20, 3)),
    ];
    let stamps = vec![Some(1_600_000_000_123_000), Some(-86_400_000_000), None];
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["k1", "ключ 'two'", "k\"3"])),
        Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])),
        Arc::new(Int32Array::from(vec![Some(i32::MIN), Some(i32::MAX), None])),
        Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(i64::MAX), None])),
        Arc::new(UInt64Array::from(vec![
            Some(0),
            Some(i64::MAX as u64),
            None,
        ])),
        Arc::new(Float32Array::from(vec![Some(1.5), Some(f32::MIN), None])),
        Arc::new(Float64Array::from(vec![
            Some(0.1),
            Some(f64::INFINITY),
            None,
        ])),
        Arc::new(BinaryArray::from(vec![
            Some(&b"\0\xff"[..]),
            Some(b""),
            None,
        ])),
        Arc::new(Date32Array::from(vec![Some(0), Some(-25_567), None])),
        Arc::new(TimestampMicrosecondArray::from(stamps.clone()).with_timezone("UTC")),
        Arc::new(TimestampMicrosecondArray::from(stamps)),
        Arc::new(
            Decimal128Array::from(vec![Some(-12_345), Some(1_500), None])
                .with_precision_and_scale(20, 3)
                .unwrap(),
        ),
    ];
    // SQLite knows no two columns that differ in case alone.
    let mut fields = fields;
    fields[3] = column("Long", DataType::Int64);
    let table = table("Every_Type", fields, vec![0], 1);
    let rows = RecordBatch::try_new(Arc::clone(&table.schema), arrays).unwrap();
    (table, rows)
}

/// The batch's rows, sorted by their text.
fn sorted(rows: &RecordBatch) -> Vec<String> {
    let mut lines: Vec<String> = (0..rows.num_rows())
        .map(|i| format!("{:?}", rows.slice(i, 1).columns()))
        .collect();
    lines.sort();
    lines
}

#[test]
fn every_type_and_odd_names_come_back() {
    for engine in engines("every_type_and_odd_names_come_back") {
        let sink = &*engine.sink;
        let (table, rows) = every_type();
        sink.prepare("job", std::slice::from_ref(&table)).unwrap();
        // An existing table of these types passes the check.
        sink.prepare("job", std::slice::from_ref(&table)).unwrap();
        write(sink, insert(&table, 5, rows.clone())).unwrap();
        let back = sink.read_back().unwrap().read(&table, 10).unwrap();
        assert_eq!(sorted(&back), sorted(&rows), "{}", engine.name);
        assert_eq!(
            sink.read_back()
                .unwrap()
                .read(&table, 2)
                .unwrap()
                .num_rows(),
            2
        );
        assert_eq!(
            sink.read_back()
                .unwrap()
                .read(&table, 0)
                .unwrap()
                .num_rows(),
            0
        );
        let delete = Writes {
            deletes: rows.clone(),
            ..insert(&table, 6, rows.slice(0, 0))
        };
        write(sink, delete).unwrap();
        assert_eq!(
            sink.read_back()
                .unwrap()
                .read(&table, 10)
                .unwrap()
                .num_rows(),
            0
        );
    }
}

/// What a scan hands over.
fn scan(sink: &dyn Sink, table: &Table, keys: Option<&RecordBatch>) -> Result<RecordBatch> {
    let mut pages = Vec::new();
    sink.read_back()
        .unwrap()
        .scan(table, keys, &mut |scanned| {
            assert_eq!(scanned.odd, []);
            pages.push(scanned.rows);
            Ok(())
        })?;
    Ok(concat_batches(&table.schema, &pages).unwrap())
}

#[test]
fn a_scan_is_what_was_stored_and_finds_keys() {
    for engine in engines("a_scan_is_what_was_stored_and_finds_keys") {
        let sink = &*engine.sink;
        let (table, rows) = every_type();
        assert!(scan(sink, &table, None).is_err(), "there is no table yet");
        sink.prepare("job", std::slice::from_ref(&table)).unwrap();
        write(sink, insert(&table, 5, rows.clone())).unwrap();
        let all = scan(sink, &table, None).unwrap();
        let stored = sink.read_back().unwrap().stored(&table, &rows).unwrap();
        assert_eq!(sorted(&all), sorted(&stored), "{}", engine.name);
        let one = scan(sink, &table, Some(&rows.slice(1, 1))).unwrap();
        assert_eq!(sorted(&one), sorted(&stored.slice(1, 1)));
        let delete = Writes {
            deletes: rows.slice(1, 1),
            ..insert(&table, 6, rows.slice(0, 0))
        };
        write(sink, delete).unwrap();
        let left = scan(sink, &table, Some(&rows)).unwrap();
        assert_eq!(left.num_rows(), rows.num_rows() - 1);
    }
}

#[test]
fn a_scan_has_many_pages() {
    for engine in engines("a_scan_has_many_pages") {
        let sink = &*engine.sink;
        sink.prepare("job", &[counts()]).unwrap();
        let rows: Vec<Row> = (0..12_000i64)
            .map(|n| row(&format!("key {n}"), n))
            .collect();
        let rows = batch(&counts(), &rows);
        write(sink, insert(&counts(), 1, rows.clone())).unwrap();
        let all = scan(sink, &counts(), None).unwrap();
        assert_eq!(sorted(&all), sorted(&rows));
        let found = scan(sink, &counts(), Some(&rows.slice(500, 11_000))).unwrap();
        assert_eq!(sorted(&found), sorted(&rows.slice(500, 11_000)));
    }
}

#[test]
fn a_repair_wins_over_others_and_loses_to_the_next_epoch() {
    for engine in engines("a_repair_wins_over_others_and_loses_to_the_next_epoch") {
        let sink = &*engine.sink;
        sink.prepare("job", &[counts()]).unwrap();
        let first = [
            (row("a", 1), None),
            (row("b", 1), None),
            (row("c", 1), None),
        ];
        write(sink, writes(10, &first, &[])).unwrap();
        sink.advance("job", &[0], 10).unwrap();
        // Somebody writes over the rows at a time between epochs 10 and 20.
        let damage = |epoch, deletes: &[Row]| {
            let upserts = [(row("a", 9), Some(row("a", 1))), (row("d", 4), None)];
            write(sink, writes(epoch, &upserts, deletes)).unwrap();
        };
        let damaged = [row("a", 9), row("b", 1), row("d", 4)];
        let right = [row("a", 1), row("b", 1), row("c", 1)];
        let repair = |epoch, over_newer| {
            let upserts = [(row("a", 1), Some(row("a", 9))), (row("c", 1), None)];
            let repair = writes(epoch, &upserts, &[row("d", 4)]);
            sink.read_back()
                .unwrap()
                .repair(repair, over_newer)
                .unwrap();
        };
        damage(15, &[row("c", 1)]);
        repair(10, false);
        expect(&engine, &damaged);
        repair(20, false);
        expect(&engine, &right);
        // The next epochs win, whatever they do.
        let next = [(row("a", 2), Some(row("a", 1))), (row("d", 5), None)];
        write(sink, writes(21, &next, &[row("c", 1)])).unwrap();
        expect(&engine, &[row("a", 2), row("b", 1), row("d", 5)]);
        damage(1_000, &[]);
        // What nobody wrote later is repaired. A transactional sink has no versions of rows, and
        // an epoch later than the repair was written.
        repair(30, false);
        let later = [row("a", 9), row("b", 1), row("d", 4)];
        let repaired = [&later[..], &[row("c", 1)]].concat();
        expect(&engine, if engine.in_order() { &later } else { &repaired });
        repair(30, true);
        expect(&engine, &right);
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as Epoch + 1;
        write(sink, writes(now, &next, &[row("c", 1)])).unwrap();
        expect(&engine, &[row("a", 2), row("b", 1), row("d", 5)]);
    }
}

#[test]
fn keys_of_several_columns_and_nothing_but_keys() {
    for engine in engines("keys_of_several_columns_and_nothing_but_keys") {
        let sink = &*engine.sink;
        let fields = vec![
            column("day", DataType::Date32),
            column("country", DataType::Utf8),
            column("rank", DataType::Int32),
        ];
        // The key is in another order than the columns; there are no other columns.
        let pairs = table("pairs", fields, vec![1, 0, 2], 2);
        sink.prepare("job", std::slice::from_ref(&pairs)).unwrap();
        sink.prepare("job", std::slice::from_ref(&pairs)).unwrap();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Date32Array::from(vec![1, 1, 2, 1])),
            Arc::new(StringArray::from(vec!["NL", "NL", "NL", "DE"])),
            Arc::new(Int32Array::from(vec![1, 2, 1, 1])),
        ];
        let rows = RecordBatch::try_new(Arc::clone(&pairs.schema), columns).unwrap();
        write(sink, insert(&pairs, 1, rows.clone())).unwrap();
        assert_eq!(
            sorted(&sink.read_back().unwrap().read(&pairs, 10).unwrap()),
            sorted(&rows)
        );
        let delete = Writes {
            deletes: rows.slice(1, 1),
            ..insert(&pairs, 2, rows.slice(0, 0))
        };
        write(sink, delete).unwrap();
        let left = concat_batches(&pairs.schema, [&rows.slice(0, 1), &rows.slice(2, 2)]).unwrap();
        assert_eq!(
            sorted(&sink.read_back().unwrap().read(&pairs, 10).unwrap()),
            sorted(&left)
        );
        if engine.cassandra() {
            let other = Table {
                partition_columns: 1,
                ..pairs.clone()
            };
            let error = sink.prepare("job", &[other]).unwrap_err();
            assert!(error.to_string().contains("partition key"), "{error}");
        }
    }
}

#[test]
fn what_cannot_be_written_is_refused_and_the_rest_goes_on() {
    for engine in engines("what_cannot_be_written_is_refused_and_the_rest_goes_on") {
        let sink = &*engine.sink;
        let unprepared = write(sink, writes(1, &[(row("a", 1), None)], &[]));
        assert_eq!(unprepared.unwrap_err().kind(), Kind::Bug);
        sink.prepare("job", &[counts()]).unwrap();
        let error = write(sink, insert(&counts(), 2, nothing(&counts(), 1))).unwrap_err();
        assert_eq!(error.kind(), Kind::Data);
        assert!(
            error.to_string().contains("key column `name` is null"),
            "{error}"
        );
        write(sink, writes(3, &[(row("a", 1), None)], &[])).unwrap();
        expect(&engine, &[row("a", 1)]);

        let fields = vec![column("k", DataType::Utf8), column("u", DataType::UInt64)];
        let large = table("large", fields, vec![0], 1);
        sink.prepare("job", std::slice::from_ref(&large)).unwrap();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec!["k"])),
            Arc::new(UInt64Array::from(vec![u64::MAX])),
        ];
        let rows = RecordBatch::try_new(Arc::clone(&large.schema), columns).unwrap();
        let unfit = sink.unfit(&large, &rows).unwrap();
        assert!(unfit[0].reason.contains("column `u`"), "{unfit:?}");
        let error = write(sink, insert(&large, 4, rows)).unwrap_err();
        assert_eq!(error.kind(), Kind::Data);
        assert!(error.to_string().contains("`u`"), "{error}");

        let list = DataType::new_list(DataType::Int32, true);
        let fields = vec![column("k", DataType::Utf8), column("list", list)];
        let lists = table("lists", fields, vec![0], 1);
        let error = sink.prepare("job", &[lists]).unwrap_err();
        assert!(error.to_string().contains("cannot be served"), "{error}");
    }
}

#[test]
fn urls_that_name_no_sink_are_refused() {
    for url in [
        "nope",
        "sqlite://",
        "cassandra://host",
        "cassandra://h:x/k",
        "mysql://h/k",
        "postgres://h/d?schema=",
        "postgres://h/d?schema=A b",
    ] {
        let Err(error) = tidemill_sinks::open(url) else {
            panic!("{url} was opened");
        };
        assert_eq!(error.kind(), Kind::Data);
        assert!(error.to_string().contains("expected"), "{error}");
    }
}

#[test]
fn ten_thousand_rows_in_many_writes_arrive() {
    const WRITES: i64 = 10;
    const EACH: i64 = 1_000;
    for engine in engines("ten_thousand_rows_in_many_writes_arrive") {
        let sink = &*engine.sink;
        sink.prepare("job", &[counts()]).unwrap();
        let begun = Instant::now();
        let mut answers = Vec::new();
        for w in 0..WRITES {
            let rows: Vec<Row> = (0..EACH)
                .map(|i| row(&format!("key {}", w * EACH + i), w * EACH + i))
                .collect();
            let epoch = 100 + w as Epoch;
            answers.push(start(
                sink,
                insert(&counts(), epoch, batch(&counts(), &rows)),
            ));
        }
        for answer in answers {
            answer.recv_timeout(PATIENCE).unwrap().unwrap();
        }
        let rate = (WRITES * EACH) as f64 / begun.elapsed().as_secs_f64();
        eprintln!("{}: {rate:.0} upserts a second", engine.name);
        let all = contents(sink);
        assert_eq!(all.len() as i64, WRITES * EACH);
        assert!(all.iter().all(|(k, n)| *k == format!("key {}", n.unwrap())));
    }
}

#[test]
fn the_file_is_readable_with_sqlite_itself() {
    let engine = engines("the_file_is_readable_with_sqlite_itself").remove(0);
    let (table, rows) = every_type();
    engine
        .sink
        .prepare("job", std::slice::from_ref(&table))
        .unwrap();
    write(&*engine.sink, insert(&table, 5, rows)).unwrap();
    let file = engine.url.trim_start_matches("sqlite://");
    let found: (i64, String, String, String) = rusqlite::Connection::open(file)
        .unwrap()
        .query_row(
            "SELECT \"order\", date, \"ts tz\", dec FROM Every_Type WHERE \"Int\" < 0",
            [],
            |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)),
        )
        .unwrap();
    let want = (1, "1970-01-01", "2020-09-13T12:26:40.123", "-12.345");
    assert_eq!(found, (want.0, want.1.into(), want.2.into(), want.3.into()));
}

/// For each epoch, each key's new value: none leaves it, `Some(None)` deletes it.
type Change = Option<Option<Option<i64>>>;

const KEYS: usize = 3;

fn histories() -> impl Strategy<Value = (Vec<[Change; KEYS]>, Vec<usize>)> {
    let value = prop_oneof![Just(None), (0..9i64).prop_map(Some)];
    let change = prop_oneof![
        2 => Just(None),
        1 => Just(Some(None)),
        3 => value.prop_map(|v| Some(Some(v))),
    ];
    let epoch = proptest::array::uniform3(change);
    proptest::collection::vec(epoch, 1..6).prop_flat_map(|epochs| {
        // Every epoch arrives, and some arrive again, in any order.
        let twice: Vec<usize> = (0..epochs.len()).chain(0..epochs.len() / 2).collect();
        (Just(epochs), Just(twice).prop_shuffle())
    })
}

/// The writes of a history, and the rows it ends with.
fn replayable(case: usize, epochs: &[[Change; KEYS]]) -> (Vec<Writes>, Vec<Row>) {
    let mut now: [Option<Option<i64>>; KEYS] = [None; KEYS];
    let name = |key: usize| format!("{case}-{key}");
    let mut steps = Vec::new();
    for (i, changes) in epochs.iter().enumerate() {
        let (mut upserts, mut deletes) = (Vec::new(), Vec::new());
        for (key, change) in changes.iter().enumerate() {
            let old = now[key].map(|n| row(&name(key), n));
            match (change, old) {
                (Some(Some(n)), old) => {
                    upserts.push((row(&name(key), *n), old));
                    now[key] = Some(*n);
                }
                (Some(None), Some(old)) => {
                    deletes.push(old);
                    now[key] = None;
                }
                _ => {}
            }
        }
        let epoch = 1_000 + i as Epoch;
        let step = if upserts.is_empty() {
            Writes {
                deletes: batch(&counts(), &deletes),
                ..insert(&counts(), epoch, nothing(&counts(), 0))
            }
        } else {
            writes(epoch, &upserts, &deletes)
        };
        steps.push(step);
    }
    let end = (0..KEYS).filter_map(|k| now[k].map(|n| row(&name(k), n)));
    (steps, end.collect())
}

#[test]
fn epochs_in_any_order_end_the_same() {
    for engine in engines("epochs_in_any_order_end_the_same") {
        if engine.in_order() {
            continue;
        }
        let sink = &*engine.sink;
        sink.prepare("job", &[counts()]).unwrap();
        let case = AtomicUsize::new(0);
        let config = ProptestConfig {
            cases: 48,
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        proptest!(config, |((epochs, arrival) in histories())| {
            let case = case.fetch_add(1, Ordering::Relaxed);
            let (steps, end) = replayable(case, &epochs);
            // All at once: nothing but the versions orders them.
            let answers: Vec<_> = arrival.iter().map(|&i| start(sink, steps[i].clone())).collect();
            for answer in answers {
                answer.recv_timeout(PATIENCE).unwrap().unwrap();
            }
            let own = format!("{case}-");
            let mut found = contents(sink);
            found.retain(|name, _| name.starts_with(&own));
            prop_assert_eq!(found, end.into_iter().collect::<BTreeMap<_, _>>());
        });
    }
}
