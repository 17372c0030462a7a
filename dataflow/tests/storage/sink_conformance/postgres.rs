//! What the PostgreSQL sink does beside: epochs and frontier in one transaction, fencing, types.

use super::*;
use ::postgres::NoTls;
use tidemill_sinks::Unclaimed;

/// A client in the schema of a sink's URL.
pub(super) fn client(url: &str) -> ::postgres::Client {
    let (place, schema) = url.split_once("schema=").unwrap();
    let mut client = ::postgres::Client::connect(&place[..place.len() - 1], NoTls).unwrap();
    client
        .batch_execute(&format!("SET search_path = {schema}"))
        .unwrap();
    client
}

/// A sink that prepared `counts`, and the URL of its schema; `None` without a server.
fn prepared(test: &str) -> Option<(String, Arc<dyn Sink>)> {
    let url = postgres(test)?;
    let sink = tidemill_sinks::open(&url).unwrap();
    sink.prepare("job", &[counts()]).unwrap();
    Some((url, sink))
}

fn epoch_of(sink: &dyn Sink) -> Option<Epoch> {
    sink.frontiers("job").unwrap()["counts"].epoch
}

#[test]
fn the_frontier_moves_with_the_rows() {
    let Some((_, sink)) = prepared("the_frontier_moves_with_the_rows") else {
        return;
    };
    let one = [(row("a", 1), None)];
    write(&*sink, writes(10, &one, &[])).unwrap();
    assert_eq!(epoch_of(&*sink), Some(10));
    // An epoch without changes of this view moves it as well.
    sink.advance("job", &[0], 12).unwrap();
    assert_eq!(epoch_of(&*sink), Some(12));
    write(&*sink, writes(11, &[(row("a", 9), None)], &[])).unwrap();
    assert_eq!(contents(&*sink)["a"], Some(1), "epoch 11 is complete");
}

#[test]
fn the_frontier_waits_until_refused_rows_are_reported() {
    let Some((url, sink)) = prepared("the_frontier_waits_until_refused_rows_are_reported") else {
        return;
    };
    let rule = "ALTER TABLE counts ADD CONSTRAINT small CHECK (n < 100)";
    client(&url).batch_execute(rule).unwrap();
    let two = [(row("a", 1), None), (row("b", 100), None)];
    let refused = write(&*sink, writes(10, &two, &[])).unwrap();
    assert_eq!(refused.len(), 1);
    assert!(refused[0].reason.contains("small"), "{}", refused[0].reason);
    assert_eq!(epoch_of(&*sink), None, "the row is not reported yet");
    write(&*sink, writes(20, &[(row("c", 3), None)], &[])).unwrap();
    assert_eq!(epoch_of(&*sink), None);
    // Another process, after a crash, is told again.
    let again = tidemill_sinks::open(&url).unwrap();
    again.prepare("job", &[counts()]).unwrap();
    assert_eq!(write(&*again, writes(10, &two, &[])).unwrap().len(), 1);
    write(&*again, writes(20, &[(row("c", 3), None)], &[])).unwrap();
    again.advance("job", &[0], 20).unwrap();
    assert_eq!(epoch_of(&*again), Some(20));
    write(&*again, writes(30, &[(row("d", 4), None)], &[])).unwrap();
    assert_eq!(epoch_of(&*again), Some(30));
    let found: Vec<_> = contents(&*again).into_keys().collect();
    assert_eq!(found, ["a", "c", "d"]);
}

#[test]
fn one_refused_row_of_many_is_found() {
    let Some((url, sink)) = prepared("one_refused_row_of_many_is_found") else {
        return;
    };
    let rule = "ALTER TABLE counts ADD CONSTRAINT odd CHECK (n NOT IN (777, 4242))";
    client(&url).batch_execute(rule).unwrap();
    let rows: Vec<Row> = (0..5_000i64).map(|n| row(&format!("key {n}"), n)).collect();
    let rows = batch(&counts(), &rows);
    let refused = write(&*sink, insert(&counts(), 1, rows)).unwrap();
    let numbers = refused
        .iter()
        .map(|it| it.row.column(1).as_primitive::<Int64Type>().value(0));
    assert_eq!(numbers.collect::<Vec<_>>(), [777, 4242]);
    assert_eq!(contents(&*sink).len(), 4_998);
}

#[test]
fn an_older_generation_is_fenced() {
    let Some((url, old)) = prepared("an_older_generation_is_fenced") else {
        return;
    };
    old.fence(7);
    write(&*old, writes(10, &[(row("a", 1), None)], &[])).unwrap();
    let new = tidemill_sinks::open(&url).unwrap();
    new.prepare("job", &[counts()]).unwrap();
    new.fence(8);
    // Until the new one writes, the old one may: both write the same epochs.
    write(&*old, writes(20, &[(row("b", 2), None)], &[])).unwrap();
    write(&*new, writes(20, &[(row("b", 2), None)], &[])).unwrap();
    write(&*new, writes(30, &[(row("c", 3), None)], &[])).unwrap();
    let late = write(&*old, writes(40, &[(row("d", 4), None)], &[])).unwrap_err();
    assert_eq!(late.kind(), Kind::Fence, "{late}");
    assert!(late.to_string().contains("generation 8"), "{late}");
    let late = old.advance("job", &[0], 50).unwrap_err();
    assert_eq!(late.kind(), Kind::Fence, "{late}");
    let found: Vec<_> = contents(&*new).into_keys().collect();
    assert_eq!(found, ["a", "b", "c"]);
    assert_eq!(epoch_of(&*new), Some(30));
}

#[test]
fn a_table_that_was_made_anew_takes_no_writes_of_before() {
    let Some((url, old)) = prepared("a_table_that_was_made_anew_takes_no_writes_of_before") else {
        return;
    };
    write(&*old, writes(10, &[(row("a", 1), None)], &[])).unwrap();
    let new = tidemill_sinks::open(&url).unwrap();
    new.drop_view("job", "counts").unwrap();
    assert_eq!(new.prepare("job", &[counts()]).unwrap(), [None]);
    let late = write(&*old, writes(20, &[(row("b", 2), None)], &[])).unwrap_err();
    assert_eq!(late.kind(), Kind::Fence, "{late}");
    assert_eq!(contents(&*new), BTreeMap::new());
}

#[test]
fn a_table_of_others_is_told_from_one_of_a_job() {
    let Some((url, sink)) = prepared("a_table_of_others_is_told_from_one_of_a_job") else {
        return;
    };
    assert_eq!(sink.unclaimed("counts").unwrap(), Unclaimed::None);
    write(&*sink, writes(10, &[(row("a", 1), None)], &[])).unwrap();
    assert_eq!(sink.unclaimed("counts").unwrap(), Unclaimed::Ours);
    let mut client = client(&url);
    let other = "CREATE TABLE other (k text PRIMARY KEY); INSERT INTO other VALUES ('x')";
    client.batch_execute(other).unwrap();
    assert_eq!(sink.unclaimed("other").unwrap(), Unclaimed::Foreign);
    assert!(sink.is_there("other").unwrap());
    assert!(!sink.is_there("nothing").unwrap());
    let filled = sink.filled_by().unwrap();
    assert_eq!(filled.keys().collect::<Vec<_>>(), ["counts"]);
}

#[test]
fn columns_have_the_types_of_postgresql() {
    let Some(url) = postgres("columns_have_the_types_of_postgresql") else {
        return;
    };
    let sink = tidemill_sinks::open(&url).unwrap();
    let (table, rows) = every_type();
    sink.prepare("job", std::slice::from_ref(&table)).unwrap();
    write(&*sink, insert(&table, 5, rows)).unwrap();
    let types = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute
                 WHERE attrelid = '\"Every_Type\"'::regclass AND attnum > 0 ORDER BY attnum";
    let mut client = client(&url);
    let found = client.query(types, &[]).unwrap();
    let found: Vec<String> = found.iter().map(|row| row.get(0)).collect();
    let expected = [
        "text",
        "boolean",
        "integer",
        "bigint",
        "bigint",
        "real",
        "double precision",
        "bytea",
        "date",
        "timestamp with time zone",
        "timestamp without time zone",
        "numeric(20,3)",
    ];
    assert_eq!(found, expected);
    let texts = "SELECT date::text, (\"ts tz\" AT TIME ZONE 'UTC')::text, ts::text, dec::text
                 FROM \"Every_Type\" WHERE \"Int\" < 0";
    let row = client.query_one(texts, &[]).unwrap();
    let found: Vec<String> = (0..4).map(|column| row.get(column)).collect();
    let at = "2020-09-13 12:26:40.123";
    assert_eq!(found, ["1970-01-01", at, at, "-12.345"]);
}

#[test]
fn what_another_wrote_is_odd_and_not_taken_for_a_row() {
    let Some(url) = postgres("what_another_wrote_is_odd_and_not_taken_for_a_row") else {
        return;
    };
    let sink = tidemill_sinks::open(&url).unwrap();
    let kinds = [
        ("k", DataType::Int32),
        ("d", DataType::Date32),
        ("t", DataType::Timestamp(TimeUnit::Microsecond, None)),
        ("n", DataType::Decimal128(10, 2)),
    ];
    let fields = kinds.into_iter().map(|(name, kind)| column(name, kind));
    let odd = table("odd", fields.collect(), vec![0], 1);
    sink.prepare("job", std::slice::from_ref(&odd)).unwrap();
    let rows = "INSERT INTO odd VALUES (1, 'infinity', NULL, NULL), (2, NULL, '-infinity', NULL),
                (3, NULL, NULL, 'NaN'), (4, '2000-01-01', '2000-01-01', 1.5)";
    client(&url).batch_execute(rows).unwrap();
    let mut found = Vec::new();
    let each = &mut |scanned: tidemill_sinks::Scanned| {
        assert_eq!(scanned.rows.num_rows(), 4);
        found.extend(scanned.odd.iter().map(|odd| (odd.row, odd.column)));
        Ok(())
    };
    sink.read_back().unwrap().scan(&odd, None, each).unwrap();
    found.sort_unstable();
    assert_eq!(found, [(0, 1), (1, 2), (2, 3)]);
}
