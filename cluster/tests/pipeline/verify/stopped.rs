//! The job is stopped; somebody changes its tables.

use std::collections::BTreeMap;

use crate::harness::{Place, until};
use crate::verify::damage::Tables;
use crate::verify::people::{PATIENCE, VIEWS, arrived, equal, journal, settle, write};

/// The tables of a job that so many people settled in, and that is stopped.
fn filled(place: &Place, workers: &str, people: &[(&str, i64)]) -> Tables {
    write(place);
    let mut job = place.start("dataflow", &["-w", workers]);
    for (country, count) in people {
        settle(place, country, *count);
    }
    until("the tables are there", PATIENCE, || {
        job.runs();
        place.are_there(&VIEWS).then_some(())
    });
    let tables = Tables::of(place);
    arrived(place, &tables, "mark-1");
    job.stop("TERM");
    tables
}

/// Versions of rows, by view and key.
type Versions = BTreeMap<&'static str, BTreeMap<String, String>>;

/// Versions of all views' rows, each view's of one of its columns.
fn versions(tables: &Tables) -> Versions {
    let columns = ["age", "people", "age", "continent", "page"];
    let views = VIEWS.into_iter().zip(columns);
    views
        .map(|(view, column)| (view, tables.versions(view, column)))
        .collect()
}

/// Damages four rows of one view and one of each other, in a table's every way.
fn damage(tables: &Tables) {
    tables.run("DELETE FROM everyone WHERE id = 'Iceland-003'");
    tables.run("UPDATE everyone SET age = 1 WHERE id = 'Iceland-004'");
    tables.run("UPDATE everyone SET score = null WHERE id = 'Iceland-005'");
    tables.insert("everyone", "id, age", "'ghost', 99");
    tables.run("UPDATE by_country SET people = 7 WHERE country = 'Iceland'");
    tables.run("DELETE FROM oldest WHERE country = 'Iceland' AND place = 2");
    tables.insert("placed", "id, continent", "'ghost', 'nowhere'");
    tables.run("UPDATE visits SET page = null WHERE id = 'Iceland-006'");
}

/// The cells of a line of the table that is printed.
fn cells(said: &str, begin: &[&str]) -> Vec<String> {
    let rows = said
        .lines()
        .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    let row = rows.into_iter().find(|row| row.starts_with(begin));
    let row = row.unwrap_or_else(|| panic!("{begin:?} is missing in:\n{said}"));
    row.into_iter()
        .skip(begin.len())
        .map(str::to_owned)
        .collect()
}

#[test]
fn damage_is_named_and_mended_and_nothing_else_is_touched() {
    for place in Place::all("damaged") {
        let tables = filled(&place, "2", &[("Iceland", 30), ("Malta", 20)]);
        let before = journal(&place);
        let said = place.start("verify", &[]).ends(0, PATIENCE);
        assert!(equal(&said).values().all(|equal| *equal), "{said}");
        assert!(said.contains("everyone: 51 rows equal"), "{said}");

        let right = versions(&tables);
        damage(&tables);
        told(&place);
        mended(&place, &tables, &right);
        assert_eq!(journal(&place), before, "verifying changed the journal");
        goes_on(&place, &tables);
    }
}

/// What [`damage`] did is told, and nothing else.
fn told(place: &Place) {
    let said = place.start("verify", &[]).ends(4, PATIENCE);
    let counted = [
        (
            "everyone",
            "4 differences",
            "1 missing, 1 extra, 2 different",
        ),
        (
            "by_country",
            "1 difference",
            "0 missing, 0 extra, 1 different",
        ),
        ("oldest", "1 difference", "1 missing, 0 extra, 0 different"),
        ("placed", "1 difference", "0 missing, 1 extra, 0 different"),
        ("visits", "1 difference", "0 missing, 0 extra, 1 different"),
    ];
    for (view, all, each) in counted {
        let line = said
            .lines()
            .find(|line| line.starts_with(&format!("{view}: {all} ")));
        assert!(
            line.is_some_and(|line| line.ends_with(each)),
            "{view}: {each}?\n{said}"
        );
    }
    let differ = |begin: &[&str]| cells(&said, begin);
    assert_eq!(differ(&["missing", "Iceland-003"]), ["", "", ""]);
    assert_eq!(differ(&["different", "Iceland-004"]), ["age", "1", "24"]);
    assert_eq!(
        differ(&["different", "Iceland-005", "score", "null"]).len(),
        1
    );
    assert_eq!(differ(&["different", "Iceland", "people"]), ["7", "30"]);
    assert_eq!(differ(&["missing", "Iceland", "2"]), ["", "", ""]);
    assert_eq!(differ(&["different", "Iceland-006", "page"]), ["null", "/"]);
    let objects = place
        .start("verify", &["visits", "--json"])
        .ends(4, PATIENCE);
    assert!(
        objects.contains(
            &[
                r#"{"columns":{"page":{"is":null,"should_be":"/"}},"#,
                r#""difference":"different","key":{"id":"Iceland-006"},"view":"visits"}"#
            ]
            .concat()
        ),
        "{objects}"
    );
    let from_log = place
        .start("verify", &["--from-log", "--limit", "1"])
        .ends(4, PATIENCE);
    assert!(
        from_log.contains("(1 of 4 differences; --limit shows more)"),
        "{from_log}"
    );
}

/// The damaged rows are repaired, and no others are touched: those have the versions of `right`.
fn mended(place: &Place, tables: &Tables, right: &Versions) {
    // One view is repaired, then all.
    place
        .start("verify", &["visits", "--repair"])
        .ends(0, PATIENCE);
    place.start("verify", &["everyone"]).ends(4, PATIENCE);
    let said = place.start("verify", &["--repair"]).ends(0, PATIENCE);
    assert!(said.contains("everyone: 4 differences repaired"), "{said}");
    for more in [&[][..], &["--from-log"]] {
        let said = place.start("verify", more).ends(0, PATIENCE);
        assert!(equal(&said).values().all(|equal| *equal), "{said}");
    }
    let mended = ["Iceland-003", "Iceland-004", "Iceland-005", "Iceland-006"];
    let now = versions(tables);
    for (view, right) in right {
        for (key, version) in right {
            let is_mended = mended.contains(&key.as_str()) || key == "Iceland";
            let now = now[view].get(key);
            assert!(
                is_mended || now == Some(version),
                "{view} {key}: {now:?} {version}"
            );
        }
    }
}

/// The job's next writes win over the repair.
fn goes_on(place: &Place, tables: &Tables) {
    let mut job = place.start("dataflow", &["-w", "1"]);
    let changed = crate::verify::people::person(place, "Iceland-004", "Malta", 77);
    let gone = crate::verify::people::record(place, "people", "Iceland-003", None);
    place.append(&[changed, gone]);
    arrived(place, tables, "mark-2");
    until("the next change wins", PATIENCE, || {
        let ages = tables.cells("everyone", "age");
        let wins = ages.get("Iceland-004").is_some_and(|age| age == "77");
        (wins && !ages.contains_key("Iceland-003")).then_some(())
    });
    job.stop("TERM");
    let said = place.start("verify", &[]).ends(0, PATIENCE);
    assert!(equal(&said).values().all(|equal| *equal), "{said}");
}

#[test]
fn a_write_of_the_future_is_not_said_to_be_repaired() {
    for place in Place::all("future") {
        let tables = filled(&place, "1", &[("Iceland", 5)]);
        if tables.is_cassandra() {
            // The year 2100.
            tables.run(
                "UPDATE everyone USING TIMESTAMP 4102444800000000 SET age = 1 \
                 WHERE id = 'Iceland-001'",
            );
            let said = place
                .start("verify", &["everyone", "--repair"])
                .ends(4, PATIENCE);
            assert!(said.contains("everyone: 0 differences repaired"), "{said}");
            assert!(
                said.contains("1 difference left: somebody wrote there"),
                "{said}"
            );
            assert_eq!(
                cells(&said, &["different", "Iceland-001"]),
                ["age", "1", "21"]
            );
        } else {
            // The embedded file has no clock: whatever version a row claims, it is repaired.
            let age = "UPDATE everyone SET age = 'old', _epoch = 4102444800000";
            tables.run(&format!("{age} WHERE id = 'Iceland-001'"));
            tables.insert("everyone", "id", "'ghost'");
            tables.run("UPDATE everyone SET _epoch = 4102444800000 WHERE id = 'ghost'");
            let said = place
                .start("verify", &["everyone", "--repair"])
                .ends(0, PATIENCE);
            assert_eq!(
                cells(&said, &["different", "Iceland-001"]),
                ["age", "old", "21"]
            );
            assert!(said.contains("everyone: 2 differences repaired"), "{said}");
            goes_on(&place, &tables);
        }
    }
}
