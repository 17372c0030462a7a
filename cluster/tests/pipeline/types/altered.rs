//! A column's type changed while the pipeline runs: the views are right under the new type, or the
//! job ends and names the column, and is planned anew. Nothing is kept under the old type's rules.

use std::time::{Duration, Instant};

use crate::harness::{PATIENCE, Place, Process};
use crate::types::same::difference;
use crate::types::sink::Sink;
use crate::types::source::Source;

/// What becomes of a job whose column changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It goes on, and its views are right.
    GoesOn,
    /// It ends and names the column; started again it is right.
    PlannedAnew,
    /// It ends and names the column; the views' SQL is refused under the new type.
    RefusedAnew,
}

use Outcome::{GoesOn, PlannedAnew, RefusedAnew};

struct Case {
    /// What the database has before.
    setup: &'static str,
    /// The column's type, and values of it.
    kind: &'static str,
    values: [&'static str; 3],
    alter: &'static str,
    /// The column in the view, and whether the view groups by it.
    groups: bool,
    outcome: Outcome,
}

const OPEN: Case = Case {
    setup: "",
    kind: "text",
    values: ["'a'", "'A'", "'b'"],
    alter: "",
    groups: false,
    outcome: GoesOn,
};

const WITHOUT_A_REWRITE: [Case; 6] = [
    Case {
        setup: "CREATE EXTENSION citext",
        alter: "ALTER TABLE t ALTER c TYPE citext",
        groups: true,
        outcome: RefusedAnew,
        ..OPEN
    },
    Case {
        setup: "CREATE EXTENSION citext",
        alter: "ALTER TABLE t ALTER c TYPE citext",
        outcome: PlannedAnew,
        ..OPEN
    },
    Case {
        setup: "CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2',
                deterministic = false)",
        alter: "ALTER TABLE t ALTER c TYPE text COLLATE loose",
        groups: true,
        outcome: RefusedAnew,
        ..OPEN
    },
    Case {
        setup: "CREATE TYPE mood AS ENUM ('sad', 'glad')",
        kind: "mood",
        values: ["'sad'", "'glad'", "'sad'"],
        alter: "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'",
        groups: true,
        ..OPEN
    },
    Case {
        setup: "CREATE TYPE pair AS (a int, b int)",
        kind: "pair",
        values: ["'(1,2)'", "'(3,4)'", "NULL"],
        alter: "ALTER TYPE pair ADD ATTRIBUTE c int",
        ..OPEN
    },
    Case {
        kind: "varchar(9)",
        alter: "ALTER TABLE t ALTER c TYPE text",
        groups: true,
        ..OPEN
    },
];

const WITH_A_REWRITE: [Case; 7] = [
    Case {
        setup: "CREATE TYPE mood AS ENUM ('one', 'two')",
        kind: "int",
        values: ["1", "2", "1"],
        alter: "ALTER TABLE t ALTER c TYPE mood
                USING CASE c WHEN 1 THEN 'one'::mood ELSE 'two' END",
        groups: true,
        outcome: PlannedAnew,
    },
    Case {
        kind: "numeric(12,2)",
        values: ["1.10", "2.20", "1.1"],
        alter: "ALTER TABLE t ALTER c TYPE double precision",
        groups: true,
        outcome: PlannedAnew,
        ..OPEN
    },
    Case {
        kind: "numeric(12,2)",
        values: ["1.10", "2.20", "1.1"],
        alter: "ALTER TABLE t ALTER c TYPE numeric; UPDATE t SET c = 1.100 WHERE id = 1",
        groups: true,
        outcome: RefusedAnew,
        ..OPEN
    },
    Case {
        kind: "timestamp",
        values: ["'2024-01-01'", "'2024-01-02'", "NULL"],
        alter: "ALTER TABLE t ALTER c TYPE timestamptz USING c AT TIME ZONE 'Asia/Tokyo'",
        outcome: PlannedAnew,
        ..OPEN
    },
    Case {
        kind: "bigint",
        values: ["1", "2", "1"],
        alter: "ALTER TABLE t ALTER c TYPE timestamp USING to_timestamp(c)",
        outcome: PlannedAnew,
        ..OPEN
    },
    Case {
        kind: "char(5)",
        values: ["'a'", "'b'", "'a '"],
        alter: "ALTER TABLE t ALTER c TYPE text",
        groups: true,
        outcome: PlannedAnew,
        ..OPEN
    },
    Case {
        values: [
            "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'",
            "NULL",
            "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
        ],
        alter: "ALTER TABLE t ALTER c TYPE uuid USING c::uuid",
        groups: true,
        outcome: PlannedAnew,
        ..OPEN
    },
];

/// Asks until the view is PostgreSQL's answer, or the process has ended.
fn settles(source: &mut Source, sink: &Sink, sql: &str, process: &mut Process) -> bool {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if process.ended().is_some() {
            return false;
        }
        let (columns, expected) = source.answer(sql);
        let found = sink.rows("v", &columns);
        let differs = found.as_ref().map_or_else(
            || Some("is not there".to_owned()),
            |found| difference(found, &expected, &columns, sink.digits()),
        );
        let Some(differs) = differs else { return true };
        assert!(Instant::now() < deadline, "{differs}\n{}", process.said());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn is_never_silently_kept(case: &Case) {
    let Some(mut source) = Source::new("altered") else {
        return;
    };
    let mut place = Place::embedded("altered");
    place.use_postgres(&source.url);
    let [one, two, three] = case.values;
    source.run(case.setup);
    source.run(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, c {});
         INSERT INTO t VALUES (1, {one}), (2, {two}), (3, {three})",
        case.kind
    ));
    let (sql, key) = match case.groups {
        true => (
            "SELECT min(id) AS id, count(*) AS n FROM t GROUP BY c",
            "id",
        ),
        false => ("SELECT id, c FROM t", "id"),
    };
    // What the registry refuses is another test's: here every type reaches the views.
    place.write(
        "ingest.toml",
        "[capture]\ntables = [\"t\"]\n[publish]\ncompatibility = \"none\"\n",
    );
    place.write(
        "views.sql",
        &format!(
            "CREATE TABLE t WITH (topic = 't');
             CREATE MATERIALIZED VIEW v WITH (primary_key = '{key}') AS {sql};"
        ),
    );
    let sink = Sink::open(&place.sink);
    let mut run = place.start("run", &[]);
    assert!(settles(&mut source, &sink, sql, &mut run), "{}", run.said());
    source.run(case.alter);
    if case.outcome == GoesOn {
        assert!(settles(&mut source, &sink, sql, &mut run), "{}", run.said());
        run.stop("TERM");
        return;
    }
    let said = run.ends(1, PATIENCE);
    assert!(
        said.contains("column `c`") && said.contains("table `t`"),
        "{said}"
    );
    let mut run = place.start("run", &[]);
    if case.outcome == RefusedAnew {
        let said = run.ends(1, PATIENCE);
        assert!(
            said.contains("column `c` is of PostgreSQL's type"),
            "{said}"
        );
        return;
    }
    assert!(settles(&mut source, &sink, sql, &mut run), "{}", run.said());
    run.stop("TERM");
}

#[test]
fn a_type_that_changes_without_a_rewrite_is_noticed() {
    WITHOUT_A_REWRITE.iter().for_each(is_never_silently_kept);
}

#[test]
fn a_type_that_changes_with_a_rewrite_is_noticed() {
    WITH_A_REWRITE.iter().for_each(is_never_silently_kept);
}
