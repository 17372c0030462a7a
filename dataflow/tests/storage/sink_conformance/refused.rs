//! Rows that a table refuses for what they hold: the rest is written, nothing older is left of
//! them, and what is wrong with the table itself is an error.

use super::*;

/// `texts(key…, v text)`.
fn texts(keys: &[&str], partition: usize) -> Table {
    let fields = keys.iter().chain(&["v"]);
    let fields = fields.map(|name| column(name, DataType::Utf8)).collect();
    table("texts", fields, (0..keys.len()).collect(), partition)
}

/// A row of texts of these lengths, told apart from others by `sign`.
fn long(table: &Table, lengths: &[usize], sign: &str) -> RecordBatch {
    let texts = lengths.iter().map(|length| {
        let text = sign.repeat(*length);
        Arc::new(StringArray::from(vec![text])) as ArrayRef
    });
    RecordBatch::try_new(Arc::clone(&table.schema), texts.collect()).unwrap()
}

#[test]
fn a_refused_row_is_told_and_nothing_older_is_left_of_it() {
    for engine in engines("a_refused_row_is_told_and_nothing_older_is_left_of_it") {
        let sink = &*engine.sink;
        let table = texts(&["k"], 1);
        sink.prepare("job", std::slice::from_ref(&table)).unwrap();
        let (small, reason) = match engine.name {
            "cassandra" => (9 << 20, "oversized mutation"),
            "postgres" => {
                let rule = "ALTER TABLE texts ADD CONSTRAINT thirteen CHECK (length(v) <> 13)";
                postgres::client(&engine.url).batch_execute(rule).unwrap();
                (13, "thirteen")
            }
            _ => {
                let file = engine.url.trim_start_matches("sqlite://");
                let rule = "CREATE TRIGGER rule BEFORE INSERT ON texts WHEN length(new.v) = 13
                    BEGIN SELECT RAISE(ABORT, 'thirteen'); END";
                rusqlite::Connection::open(file)
                    .unwrap()
                    .execute_batch(rule)
                    .unwrap();
                (13, "thirteen")
            }
        };
        let row = |length| long(&table, &[1, length], "a");
        let both = |epoch, length| {
            let rows = [row(length), long(&table, &[1, 2], "b")];
            insert(&table, epoch, concat_batches(&table.schema, &rows).unwrap())
        };
        write(sink, both(10, 1)).unwrap();
        assert_eq!(
            sink.read_back()
                .unwrap()
                .read(&table, 10)
                .unwrap()
                .num_rows(),
            2
        );
        // Also when it is written once more.
        for _twice in 0..2 {
            let refused = write(sink, both(20, small)).unwrap();
            let [one] = refused.as_slice() else {
                panic!("{}: {refused:?}", engine.name);
            };
            assert_eq!(one.row, row(small));
            assert!(
                one.reason.contains(reason),
                "{}: {}",
                engine.name,
                one.reason
            );
            let left = sink.read_back().unwrap().read(&table, 10).unwrap();
            assert_eq!(sorted(&left), sorted(&long(&table, &[1, 2], "b")));
        }
        // An older epoch does not bring it back, a later one does.
        write(sink, both(15, 1)).unwrap();
        assert_eq!(
            sink.read_back()
                .unwrap()
                .read(&table, 10)
                .unwrap()
                .num_rows(),
            1
        );
        write(sink, both(30, 1)).unwrap();
        assert_eq!(
            sink.read_back()
                .unwrap()
                .read(&table, 10)
                .unwrap()
                .num_rows(),
            2
        );
    }
}

#[test]
fn what_is_wrong_with_the_table_is_no_refusal() {
    for engine in engines("what_is_wrong_with_the_table_is_no_refusal") {
        let sink = &*engine.sink;
        sink.prepare("job", &[counts()]).unwrap();
        write(sink, writes(10, &[(row("a", 1), None)], &[])).unwrap();
        sink.drop_view("job", "counts").unwrap();
        let error = write(sink, writes(20, &[(row("a", 2), None)], &[])).unwrap_err();
        assert_eq!(error.kind(), Kind::Data, "{error}");
        assert!(error.to_string().contains("counts"), "{error}");
    }
}

/// Key columns, how many of them are the partition key, and rows as the lengths of their texts.
type Case = (&'static [&'static str], usize, &'static [&'static [usize]]);

#[test]
fn what_is_told_to_be_unfit_is_what_the_service_refuses() {
    let cases: [Case; 4] = [
        (&["k"], 1, &[&[65_535, 1], &[65_536, 1], &[0, 1]]),
        (
            &["k", "l"],
            2,
            &[
                &[32_764, 32_765, 1],
                &[32_765, 32_765, 1],
                &[65_529, 0, 1],
                &[65_530, 0, 1],
                &[0, 0, 1],
            ],
        ),
        (
            &["k", "l", "m"],
            1,
            &[
                &[1, 32_767, 32_768, 1],
                &[1, 32_768, 32_768, 1],
                &[1, 0, 65_535, 1],
                &[1, 0, 0, 0],
                &[0, 1, 1, 1],
            ],
        ),
        (&["k"], 1, &[&[1, 1 << 20], &[1, 9 << 20], &[1, 17 << 20]]),
    ];
    for (keys, partition, rows) in cases {
        for engine in engines("what_is_told_to_be_unfit_is_what_the_service_refuses") {
            // How long a key may be there depends on how well it is compressed.
            if engine.name == "postgres" {
                continue;
            }
            let sink = &*engine.sink;
            let table = texts(keys, partition);
            sink.prepare("job", std::slice::from_ref(&table)).unwrap();
            for lengths in rows {
                let row = long(&table, lengths, "x");
                let unfit = sink.unfit(&table, &row).unwrap();
                let refused = write(sink, insert(&table, 10, row.clone())).unwrap();
                let both = (unfit.len(), refused.len());
                let expected = usize::from(!refused.is_empty());
                assert_eq!(both, (expected, expected), "{}: {lengths:?}", engine.name);
                // Deleting it is refused or does nothing, and ends nothing.
                let delete = Writes {
                    deletes: row,
                    ..insert(&table, 20, nothing(&table, 0))
                };
                write(sink, delete).unwrap();
            }
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
}

#[test]
fn instants_that_are_too_fine_for_a_key_are_unfit() {
    for engine in engines("instants_that_are_too_fine_for_a_key_are_unfit") {
        let kind = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let at = table(
            "at",
            vec![column("at", kind.clone()), column("v", kind)],
            vec![0],
            1,
        );
        let instants = |values: [i64; 4]| -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from(values.to_vec()).with_timezone("UTC"))
        };
        let columns = vec![instants([1_000, 1_001, -1, 0]), instants([1, 2, 3, 4])];
        let rows = RecordBatch::try_new(Arc::clone(&at.schema), columns).unwrap();
        let unfit = engine.sink.unfit(&at, &rows).unwrap();
        let unfit: Vec<usize> = unfit.iter().map(|unfit| unfit.row).collect();
        let expected: &[usize] = if engine.cassandra() { &[1, 2] } else { &[] };
        assert_eq!(unfit, expected);
    }
}

#[test]
fn keys_that_differ_behind_a_zero_character_are_two() {
    for engine in engines("keys_that_differ_behind_a_zero_character_are_two") {
        // PostgreSQL has no such text.
        if engine.name == "postgres" {
            continue;
        }
        let sink = &*engine.sink;
        sink.prepare("job", &[counts()]).unwrap();
        let (one, other) = (row("a\0b", 1), row("a\0c", 1));
        write(sink, writes(10, &[(one.clone(), None)], &[])).unwrap();
        write(sink, writes(30, &[], std::slice::from_ref(&one))).unwrap();
        // An epoch that arrives late: the other key has no later one.
        write(sink, writes(20, &[(one, None), (other.clone(), None)], &[])).unwrap();
        expect(&engine, &[other]);
    }
}

#[test]
fn the_least_and_greatest_of_each_type_come_back() {
    for engine in engines("the_least_and_greatest_of_each_type_come_back") {
        let sink = &*engine.sink;
        let kind = DataType::Timestamp(TimeUnit::Microsecond, None);
        let fields = vec![
            column("k", DataType::Utf8),
            column("whole", DataType::Decimal128(38, 0)),
            column("part", DataType::Decimal128(38, 38)),
            column("at", kind),
            column("day", DataType::Date32),
        ];
        let extremes = table("extremes", fields, vec![0], 1);
        sink.prepare("job", std::slice::from_ref(&extremes))
            .unwrap();
        let most = 10_i128.pow(38) - 1;
        // Of times the years 1 to 9999, which the embedded file reads back from text.
        let cases = [
            (most, 253_402_300_799_000_000, 2_932_896),
            (-most, -62_135_596_800_000_000, -719_162),
            (0, 0, 0),
        ];
        for (epoch, (number, at, day)) in (10..).zip(cases) {
            let decimal = |scale| -> ArrayRef {
                let numbers = Decimal128Array::from(vec![number]);
                Arc::new(numbers.with_precision_and_scale(38, scale).unwrap())
            };
            let columns: Vec<ArrayRef> = vec![
                Arc::new(StringArray::from(vec!["k"])),
                decimal(0),
                decimal(38),
                Arc::new(TimestampMicrosecondArray::from(vec![at])),
                Arc::new(Date32Array::from(vec![day])),
            ];
            let rows = RecordBatch::try_new(Arc::clone(&extremes.schema), columns).unwrap();
            let refused = write(sink, insert(&extremes, epoch, rows.clone())).unwrap();
            assert_eq!(refused.len(), 0, "{}: {refused:?}", engine.name);
            let stored = sink.read_back().unwrap().stored(&extremes, &rows).unwrap();
            let read = sink.read_back().unwrap().read(&extremes, 10).unwrap();
            assert_eq!(read.columns(), stored.columns(), "{}", engine.name);
        }
    }
}

#[test]
fn a_keyspace_with_other_replicas_is_refused() {
    for engine in engines("a_keyspace_with_other_replicas_is_refused") {
        if !engine.cassandra() {
            continue;
        }
        engine.sink.prepare("job", &[]).unwrap();
        for (setting, fits) in [
            ("replication=1", true),
            ("consistency=ONE", true),
            ("replication=2", false),
            ("replication=datacenter1:1", false),
        ] {
            let other = tidemill_sinks::open(&format!("{}?{setting}", engine.url)).unwrap();
            let prepared = other.prepare("job", &[]);
            assert_eq!(prepared.is_ok(), fits, "{setting}: {prepared:?}");
            if let Err(error) = prepared {
                assert_eq!(error.kind(), Kind::Data, "{error}");
                assert!(error.to_string().contains("ALTER KEYSPACE"), "{error}");
            }
        }
    }
}
