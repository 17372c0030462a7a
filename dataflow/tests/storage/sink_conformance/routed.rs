//! The sinks of one job as one: each view goes to the sink that it names.

use tidemill_log::health::Health;

use super::*;

/// A job whose views `here` and `there` have the table `(name text key, n bigint)`.
fn job() -> tidemill_ir::Job {
    let sql = "CREATE TABLE t (name text, n bigint) WITH (format = 'json');
        CREATE MATERIALIZED VIEW here WITH (primary_key = 'name') AS SELECT name, n FROM t;
        CREATE MATERIALIZED VIEW there WITH (primary_key = 'name', sink = 'other') AS
            SELECT name, n FROM t;";
    tidemill_plan::compile(sql, "views.sql", None).unwrap()
}

fn of(url: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("other".to_owned(), url.to_owned())])
}

#[test]
fn each_view_goes_to_its_sink() {
    let all = engines("each_view_goes_to_its_sink");
    let first = &all[0];
    for other in &all[1..] {
        // The tables of a test before are left out.
        first.sink.drop_view("job", "here").unwrap();
        let health = Health::default();
        let both = tidemill_sinks::open_all(&first.url, &of(&other.url), &job(), &health).unwrap();
        let tables = ["there", "here"].map(|name| Table {
            name: name.to_owned(),
            ..counts()
        });
        assert_eq!(both.prepare("job", &tables).unwrap(), [None, None]);
        for (index, name) in [(0, "over there"), (1, "here")] {
            let rows = batch(&counts(), &[row(name, 1)]);
            let insert = insert(&counts(), 5, rows);
            write(
                &*both,
                Writes {
                    table: index,
                    ..insert
                },
            )
            .unwrap();
        }
        both.advance("job", &[0, 1], 7).unwrap();
        let epochs = both.frontiers("job").unwrap();
        let epochs: Vec<_> = epochs
            .iter()
            .map(|(view, at)| (view.as_str(), at.epoch))
            .collect();
        assert_eq!(epochs, [("here", Some(7)), ("there", Some(7))]);
        for (sink, table) in [(&other.sink, &tables[0]), (&first.sink, &tables[1])] {
            assert_eq!(sink.frontiers("job").unwrap().len(), 1);
            let alone = sink.read_back().unwrap().read(table, 10).unwrap();
            let together = both.read_back().unwrap().read(table, 10).unwrap();
            assert_eq!((alone.num_rows(), &alone), (1, &together));
        }
        assert_eq!(both.is_transactional("there"), other.in_order());
        assert!(!both.is_transactional("here"));
        let unprepared = both.advance("job", &[2], 8).unwrap_err();
        assert_eq!(unprepared.kind(), Kind::Bug);
        both.drop_view("job", "there").unwrap();
        assert!(!other.sink.is_there("there").unwrap());
        assert!(first.sink.is_there("here").unwrap());
    }
}

#[test]
fn a_sink_that_is_not_given_is_named() {
    let none = BTreeMap::new();
    let error = tidemill_sinks::unknown(&job(), &none).unwrap().to_string();
    assert!(
        error.contains("view `there` goes to sink `other`"),
        "{error}"
    );
    assert!(error.contains("TIDEMILL_SINK_OTHER_URL"), "{error}");
    assert!(tidemill_sinks::unknown(&job(), &of("sqlite://x")).is_none());
}
