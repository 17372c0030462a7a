//! SQLite's columns hold values of any storage class: each is in the views as SQLite shows it, or
//! its row is a dead letter that names the column. SQLite itself answers the views' SQL.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use rusqlite::Connection;
use tidemill_log::log::dead_letter::Source as Origin;

use crate::harness::{PATIENCE, Place, until};
use crate::types::page;

/// A declared type.
struct Declared {
    column: &'static str,
    /// As `CREATE TABLE` declares it.
    name: &'static str,
    /// As literals.
    values: &'static [&'static str],
    dead: &'static [&'static str],
    /// How SQLite shows a value of the table as the view has it.
    shown: &'static str,
    /// Whether views may compare it.
    compares: bool,
}

const PLAIN: Declared = Declared {
    column: "",
    name: "",
    values: &[],
    dead: &[],
    shown: "quote(c)",
    compares: true,
};

const DECLARED: [Declared; 13] = [
    Declared {
        column: "i",
        name: "INTEGER",
        values: &[
            "7",
            "9223372036854775807",
            "-9223372036854775808",
            "'12'",
            "7.0",
        ],
        dead: &["'abc'", "1.5", "9223372036854775808", "x'00'"],
        ..PLAIN
    },
    Declared {
        column: "r",
        name: "REAL",
        values: &["3", "0.1", "9007199254740993", "1e999", "'2.5'", "5e-324"],
        dead: &["'abc'", "'Inf'", "'NaN'", "x'00'"],
        ..PLAIN
    },
    Declared {
        column: "n",
        name: "NUMERIC",
        values: &["9", "10", "0.1", "1.0", "'abc'"],
        dead: &["x'00'"],
        shown: "quote(CAST(c AS TEXT))",
        compares: false,
    },
    Declared {
        column: "d",
        name: "DECIMAL(10,2)",
        values: &["1.5", "0.1", "7", "12345678.25", "1.50"],
        dead: &["0.125", "'abc'", "100000000", "x'00'"],
        shown: "quote(printf('%.2f', c))",
        ..PLAIN
    },
    Declared {
        column: "c",
        name: "TEXT",
        values: &["'a'", "5", "''", "'a' || char(0) || 'b'", "'é'", "'a '"],
        dead: &["x'ff'", "CAST(x'ff' AS TEXT)"],
        shown: "hex(c)",
        ..PLAIN
    },
    Declared {
        column: "b",
        name: "BLOB",
        values: &["x'00ff'", "x''"],
        dead: &["'abc'", "5", "1.5"],
        ..PLAIN
    },
    Declared {
        column: "y",
        name: "",
        values: &["5", "'five'", "1.5"],
        dead: &["x'00'"],
        shown: "quote(CAST(c AS TEXT))",
        compares: false,
    },
    Declared {
        column: "f",
        name: "BOOLEAN",
        values: &["1", "0"],
        dead: &["2", "'maybe'", "x'00'"],
        ..PLAIN
    },
    Declared {
        column: "dt",
        name: "DATE",
        values: &["'2000-01-02'", "'9999-12-31'"],
        dead: &["20000102", "'2000-01-02 03:04'", "'0000-01-01'", "'soon'"],
        ..PLAIN
    },
    Declared {
        column: "ts",
        name: "TIMESTAMP",
        values: &[
            "'2000-01-02 03:04:05.5'",
            "'2000-01-02T03:04'",
            "'2000-01-02'",
        ],
        dead: &[
            "1714979289",
            "'2000-01-02T03:04:05+02:00'",
            "'2000-01-02 03:04:05.1234567'",
            "'2000-01-02 23:59:60'",
        ],
        shown: "strftime('%Y-%m-%d %H:%M:%f', c)",
        ..PLAIN
    },
    Declared {
        column: "tz",
        name: "TIMESTAMPTZ",
        values: &["'2000-01-02T03:04:05+02:00'", "'2000-01-02T01:04:05Z'"],
        dead: &["'2000-01-02 03:04:05'", "1714979289"],
        shown: "strftime('%Y-%m-%d %H:%M:%f', c)",
        ..PLAIN
    },
    Declared {
        column: "u",
        name: "UUID",
        values: &[
            "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
            "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'",
        ],
        dead: &["'nobody'", "5", "x'00'"],
        shown: "quote(lower(c))",
        ..PLAIN
    },
    Declared {
        column: "j",
        name: "JSON",
        values: &["'{\"a\": 1}'", "5", "0.1"],
        dead: &["x'00'"],
        shown: "quote(CAST(c AS TEXT))",
        compares: false,
    },
];

/// What both sides are asked: the values as they are shown, then how they fall into groups. One
/// text of a group of equal values is as good as another.
fn questions(declared: &Declared, passed: &str, grouped: &str) -> Vec<String> {
    let Declared { column, shown, .. } = declared;
    let shown = shown.replace("(c", &format!("({column}"));
    let shown = shown.replace(", c)", &format!(", {column})"));
    let mut all = vec![format!(
        "SELECT id, {shown} FROM {passed} WHERE {column} IS NOT NULL"
    )];
    if declared.compares {
        all.push(grouped.to_owned());
    }
    all
}

fn rows(file: &Connection, sql: &str) -> Option<BTreeSet<Vec<String>>> {
    let mut query = file.prepare(sql).ok()?;
    let columns = query.column_count();
    let rows = query.query_map([], |row| {
        let cells = (0..columns).map(|at| {
            let value: rusqlite::types::Value = row.get(at)?;
            Ok(format!("{value:?}"))
        });
        cells.collect()
    });
    Some(rows.unwrap().map(Result::unwrap).collect())
}

fn group(declared: &Declared, table: &str) -> String {
    let column = declared.column;
    // The source's own equality: a UUID in capitals is one, and a moment is its instant.
    let by = match declared.name {
        "UUID" => format!("lower({column})"),
        "TIMESTAMPTZ" => format!("datetime({column})"),
        _ => column.to_owned(),
    };
    format!("SELECT min(id), count(*) FROM {table} WHERE {column} IS NOT NULL GROUP BY {by}")
}

/// Makes the table with its rows: how many have no form here.
fn fill(file: &Connection) -> usize {
    let columns = DECLARED.iter();
    let columns: String = columns
        .map(|it| format!(", {} {}", it.column, it.name))
        .collect();
    let mut sql = format!("CREATE TABLE t (id INTEGER PRIMARY KEY{columns}, dead INT);");
    let (mut id, mut count) = (0, 0);
    for declared in &DECLARED {
        let alive = declared.values.iter().map(|value| (value, 0));
        let dead = declared.dead.iter().map(|value| (value, 1));
        for (value, dead) in alive.chain(dead) {
            id += 1;
            count += dead;
            let column = declared.column;
            writeln!(
                sql,
                "INSERT INTO t (id, dead, {column}) VALUES ({id}, {dead}, {value});"
            )
            .unwrap();
        }
    }
    file.execute_batch(&sql).unwrap();
    count
}

fn views() -> String {
    let columns: Vec<&str> = DECLARED.iter().map(|it| it.column).collect();
    let mut sql = format!(
        "CREATE TABLE t WITH (topic = 't');
         CREATE MATERIALIZED VIEW passed WITH (primary_key = 'id') AS
           SELECT id, {} FROM t;\n",
        columns.join(", ")
    );
    for column in DECLARED.iter().filter(|it| it.compares).map(|it| it.column) {
        writeln!(
            sql,
            "CREATE MATERIALIZED VIEW by_{column} WITH (primary_key = 'least') AS
               SELECT min(id) AS least, count(*) AS n FROM t WHERE {column} IS NOT NULL
               GROUP BY {column};"
        )
        .unwrap();
    }
    sql
}

/// The list of docs/types.md.
fn list() -> String {
    let mut list = "| declared | passed on | compared, grouped, key | values | dead letters |\n\
                    |---|---|---|---|---|\n"
        .to_owned();
    for declared in &DECLARED {
        let quoted = |values: &[&str]| {
            let values = values.iter().map(|value| match value.contains('|') {
                true => format!("`{}`", value.replace('|', "\\|")),
                false => format!("`{value}`"),
            });
            values.collect::<Vec<_>>().join(", ")
        };
        let name = match declared.name {
            "" => "no type".to_owned(),
            name => format!("`{name}`"),
        };
        let compared = if declared.compares {
            "right"
        } else {
            "refused"
        };
        let (values, dead) = (quoted(declared.values), quoted(declared.dead));
        writeln!(list, "| {name} | right | {compared} | {values} | {dead} |").unwrap();
    }
    list
}

#[test]
fn every_storage_class_in_every_column_is_right_or_a_dead_letter() {
    let place = Place::embedded("affinities");
    let url = place.database.clone();
    let file = tidemill_log::sqlite::connect(url.strip_prefix("sqlite://").unwrap()).unwrap();
    let count = fill(&file);
    place.write("ingest.toml", "[capture]\ntables = [\"t\"]\n");
    for declared in DECLARED.iter().filter(|it| !it.compares) {
        let column = declared.column;
        place.write(
            "views.sql",
            &format!(
                "CREATE TABLE t WITH (topic = 't');
                 CREATE MATERIALIZED VIEW v WITH (primary_key = 'least') AS
                   SELECT min(id) AS least FROM t GROUP BY {column};"
            ),
        );
        let said = place.start("check", &[]).ends(1, PATIENCE);
        assert!(said.contains(&format!("column `{column}` is of")), "{said}");
    }
    place.write("views.sql", &views());
    let mut run = place.start("run", &[]);
    let alive = "(SELECT * FROM t WHERE NOT dead)";
    for declared in &DECLARED {
        let column = declared.column;
        let asked = questions(declared, alive, &group(declared, alive));
        let found = questions(
            declared,
            "passed",
            &format!("SELECT least, n FROM by_{column}"),
        );
        for (asked, found) in asked.iter().zip(&found) {
            let expected = rows(&file, asked).unwrap();
            let deadline = std::time::Instant::now() + PATIENCE;
            let mut last = None;
            while last.as_ref() != Some(&expected) {
                run.runs();
                assert!(
                    std::time::Instant::now() < deadline,
                    "{found}\n{last:?}, SQLite:\n{expected:?}"
                );
                std::thread::sleep(std::time::Duration::from_millis(50));
                last = rows(&file, found);
            }
        }
    }
    let letters = until("the dead letters are there", PATIENCE, || {
        let letters = place.dead_letters();
        (letters.len() >= count).then_some(letters)
    });
    assert_eq!(letters.len(), count);
    for kept in letters {
        let Origin::Change { key, .. } = kept.letter.source else {
            panic!("{:?}", kept.letter.source);
        };
        assert!(
            kept.letter.reason.contains("column `"),
            "{}",
            kept.letter.reason
        );
        let dead = rows(&file, &format!("SELECT dead FROM t WHERE id = {key}")).unwrap();
        assert!(
            dead.contains(&vec!["Integer(1)".to_owned()]),
            "row {key}: {}",
            kept.letter.reason
        );
    }
    run.stop("TERM");
    page::is_listed("list of SQLite's types", &list());
}
