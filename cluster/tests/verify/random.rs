//! Random tables of random types, random changes of their rows and their definitions, while the
//! pipeline runs and while it was killed; PostgreSQL's own answers are the judge at rest.

use std::fmt::Write as _;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::harness::database::Database;
use crate::harness::{Place, Process, seed, until};
use crate::people::PATIENCE;

/// Tables of one round.
const TABLES: usize = 100;
/// Statements of one round.
const STATEMENTS: usize = 4_000;
/// Rounds; each has other tables. Set for a longer run.
const ROUNDS: &str = "TIDEMILL_TEST_ROUNDS";

/// A column's type: as PostgreSQL writes it, values of it, and whether a view compares it.
struct Type {
    name: &'static str,
    values: &'static [&'static str],
    groups: bool,
}

const fn groups(name: &'static str, values: &'static [&'static str]) -> Type {
    Type {
        name,
        values,
        groups: true,
    }
}

const fn passes(name: &'static str, values: &'static [&'static str]) -> Type {
    Type {
        name,
        values,
        groups: false,
    }
}

const TYPES: [Type; 19] = [
    groups("smallint", &["-32768", "0", "32767"]),
    groups("int", &["-2147483648", "-1", "0", "7", "2147483647"]),
    groups("bigint", &["-9007199254740993", "0", "9223372036854775807"]),
    groups("boolean", &["true", "false"]),
    groups(
        "text",
        &["''", "'a'", "'A'", "'ß🌊'", "'a b'", "repeat('x', 3000)"],
    ),
    groups("varchar(9)", &["'o''brien'", "'back\\slash'", "' '"]),
    groups("numeric(12, 3)", &["0", "-0.001", "999999999.999", "1.5"]),
    groups("date", &["'0001-01-01'", "'1970-01-01'", "'9999-12-31'"]),
    groups(
        "timestamp",
        &["'1969-12-31 23:59:59.999'", "'2024-02-29'", "'2262-04-12'"],
    ),
    groups(
        "timestamptz",
        &["'2024-03-31 02:30+02'", "'1900-01-01 00:00Z'"],
    ),
    groups("uuid", &["'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"]),
    passes("real", &["0.1", "-3.4e38", "1e-40", "'NaN'"]),
    passes("double precision", &["0.1", "1e308", "'-Infinity'", "-0.0"]),
    passes("bytea", &["''", "'\\x00ff'"]),
    passes("jsonb", &["'{\"b\": 1.50, \"a\": [null]}'", "'\"\"'"]),
    passes("numeric", &["1.10", "1e50", "-0.00000000000000000001"]),
    passes("interval", &["'1 day'", "'24:00:00'", "'-1 mon 2 days'"]),
    passes("int[]", &["'{}'", "'{1,NULL,3}'"]),
    passes("time", &["'00:00'", "'23:59:59.999999'"]),
];

/// How many of [`TYPES`] may be a key's.
const KEYS: usize = 11;

/// What a view makes of a column's name: names that some tool on the way does not take as it is.
const NAMES: [&str; 6] = ["plain", "first name", "größe", "2nd", "SELECT", "e-mail"];

/// A table as it is now.
struct Random {
    name: String,
    columns: Vec<(String, &'static Type)>,
    /// How many of the columns are the key.
    key: usize,
    added: usize,
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Random {
    fn new(name: String, rng: &mut StdRng) -> Self {
        let key = rng.random_range(1..=2);
        let all = rng.random_range(key + 1..key + 7);
        let columns = (0..all).map(|index| {
            let among = if index < key { KEYS } else { TYPES.len() };
            let odd = NAMES.choose(rng).unwrap();
            (format!("{odd}{index}"), &TYPES[rng.random_range(0..among)])
        });
        Self {
            columns: columns.collect(),
            name,
            key,
            added: 0,
        }
    }

    fn create(&self, rng: &mut StdRng) -> String {
        let name = quote(&self.name);
        let columns = self.columns.iter();
        let columns = columns.map(|(column, kind)| format!("{} {}", quote(column), kind.name));
        let columns: Vec<String> = columns.collect();
        let key: Vec<String> = self.columns[..self.key]
            .iter()
            .map(|(column, _)| quote(column))
            .collect();
        let mut sql = format!(
            "CREATE TABLE {name} ({}, PRIMARY KEY ({}));",
            columns.join(", "),
            key.join(", ")
        );
        if rng.random_ratio(1, 2) {
            write!(sql, "ALTER TABLE {name} REPLICA IDENTITY FULL;").unwrap();
        }
        sql
    }

    /// `views.sql` over it: all columns as they are, and an aggregate by a column that compares.
    fn views(&self, number: usize, topic: &str) -> String {
        let columns = self.columns.iter().enumerate();
        let passed: Vec<String> = columns
            .map(|(index, (column, _))| format!("{} AS c{index}", quote(column)))
            .collect();
        let key: Vec<String> = (0..self.key).map(|index| format!("c{index}")).collect();
        let mut sql = format!(
            "CREATE TABLE t{number} WITH (topic = '{topic}');
             CREATE MATERIALIZED VIEW all{number} WITH (primary_key = '{}') AS
               SELECT {} FROM t{number};\n",
            key.join(", "),
            passed.join(", ")
        );
        let by = self.columns.iter().rfind(|(_, kind)| kind.groups);
        if let Some((by, _)) = by {
            let rest: String = self.columns.iter().enumerate().fold(
                String::new(),
                |mut rest, (index, (column, kind))| {
                    let column = quote(column);
                    write!(rest, ", count({column}) AS n{index}").unwrap();
                    if kind.groups && !matches!(kind.name, "boolean" | "uuid") {
                        write!(
                            rest,
                            ", min({column}) AS l{index}, max({column}) AS g{index}"
                        )
                        .unwrap();
                    }
                    rest
                },
            );
            let by = quote(by);
            writeln!(
                sql,
                "CREATE MATERIALIZED VIEW by{number} WITH (primary_key = 'k') AS
                   SELECT {by} AS k, count(*) AS n{rest} FROM t{number}
                   WHERE {by} IS NOT NULL GROUP BY {by};"
            )
            .unwrap();
        }
        sql
    }

    fn value(&self, index: usize, rng: &mut StdRng) -> String {
        let (_, kind) = self.columns[index];
        if index >= self.key && rng.random_ratio(1, 4) {
            return "NULL".to_owned();
        }
        match kind.name {
            "int" | "bigint" | "smallint" if rng.random_ratio(2, 3) => {
                rng.random_range(0..40).to_string()
            }
            "text" if rng.random_ratio(2, 3) => format!("'t{}'", rng.random_range(0..40)),
            _ => (*kind.values.choose(rng).unwrap()).to_owned(),
        }
    }

    /// One random statement.
    fn statement(&mut self, rng: &mut StdRng) -> String {
        let name = quote(&self.name);
        let some = format!(
            "ctid IN (SELECT ctid FROM {name} ORDER BY random() LIMIT {})",
            rng.random_range(1..4)
        );
        match rng.random_range(0..100) {
            0..50 => {
                let values: Vec<String> = (0..self.columns.len())
                    .map(|it| self.value(it, rng))
                    .collect();
                let columns = self.columns.iter().map(|(column, _)| quote(column));
                let columns: Vec<String> = columns.collect();
                format!(
                    "INSERT INTO {name} ({}) VALUES ({}) ON CONFLICT DO NOTHING",
                    columns.join(", "),
                    values.join(", ")
                )
            }
            50..75 => {
                let column = rng.random_range(0..self.columns.len());
                let (value, column) = (self.value(column, rng), quote(&self.columns[column].0));
                format!("UPDATE {name} SET {column} = {value} WHERE {some}")
            }
            75..93 => format!("DELETE FROM {name} WHERE {some}"),
            93 => format!("TRUNCATE {name}"),
            94 => format!("BEGIN; DELETE FROM {name}; ROLLBACK"),
            95 => format!("VACUUM FULL {name}"),
            _ => self.alter(rng),
        }
    }

    /// A change of the table that no view is concerned with.
    fn alter(&mut self, rng: &mut StdRng) -> String {
        let name = quote(&self.name);
        self.added += 1;
        match rng.random_range(0..4) {
            0 => {
                let kind = TYPES.choose(rng).unwrap().name;
                format!("ALTER TABLE {name} ADD COLUMN extra{} {kind}", self.added)
            }
            1 => format!(
                "ALTER TABLE {name} DROP COLUMN IF EXISTS extra{}",
                self.added - 1
            ),
            2 => format!("ALTER TABLE {name} REPLICA IDENTITY FULL"),
            _ => format!("ALTER TABLE {name} REPLICA IDENTITY DEFAULT"),
        }
    }
}

/// One round's pipeline.
struct Round {
    place: Place,
    database: Database,
    tables: Vec<Random>,
}

impl Round {
    fn new(rng: &mut StdRng) -> Option<Self> {
        let services = Place::services("random")?;
        let mut place = Place::embedded("random");
        place.use_postgres(&services.database);
        let mut database = Database::open(&services.database);
        let names = (0..TABLES).map(|number| format!("{}_{number}", place.name));
        let tables: Vec<Random> = names.map(|name| Random::new(name, rng)).collect();
        let (mut views, mut captured) = (String::new(), Vec::new());
        for (number, table) in tables.iter().enumerate() {
            let create = table.create(rng);
            assert!(database.execute(&create), "{create}");
            views += &table.views(number, &table.name);
            captured.push(format!("\"{}\"", table.name));
        }
        place.write(
            "ingest.toml",
            &format!("[capture]\ntables = [{}]\n", captured.join(", ")),
        );
        place.write("views.sql", &views);
        Some(Self {
            place,
            database,
            tables,
        })
    }

    /// Some random statements; those that PostgreSQL refuses change nothing.
    fn change(&mut self, count: usize, rng: &mut StdRng) {
        for _ in 0..count {
            let table = rng.random_range(0..self.tables.len());
            let statement = self.tables[table].statement(rng);
            if !self.database.execute(&statement) {
                self.database.execute("ROLLBACK");
            }
        }
    }

    /// At rest every view is what PostgreSQL answers.
    fn is_right(&mut self, run: &mut Process) {
        let views = (0..self.tables.len()).map(|number| format!("all{number}"));
        let views: Vec<String> = views.collect();
        let views: Vec<&str> = views.iter().map(String::as_str).collect();
        until("the views are there", PATIENCE, || {
            run.runs();
            self.place.are_there(&views).then_some(())
        });
        // As long as a busy machine takes to read many altered tables anew; what is right ends
        // at once.
        let settle = ["--from-source", "--settle", "60s"];
        let mut verify = self.place.start("verify", &settle);
        let ended = verify.end(PATIENCE);
        run.runs();
        assert!(ended.success(), "{}\n{}", verify.said(), run.said());
    }

    fn end(mut self) {
        let names: Vec<String> = self.tables.iter().map(|it| quote(&it.name)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.database.clean(&self.place.name, &names);
    }
}

#[test]
fn random_tables_and_changes_are_what_postgresql_says() {
    let mut rng = StdRng::seed_from_u64(seed("random tables"));
    let rounds = std::env::var(ROUNDS).map_or(1, |rounds| rounds.parse().unwrap());
    for _ in 0..rounds {
        let Some(mut round) = Round::new(&mut rng) else {
            return;
        };
        round.change(STATEMENTS / 4, &mut rng);
        let mut run = round.place.start("run", &[]);
        round.change(STATEMENTS / 4, &mut rng);
        round.is_right(&mut run);
        round.change(STATEMENTS / 4, &mut rng);
        run.kill();
        round.change(STATEMENTS / 8, &mut rng);
        let mut run = round.place.start("run", &[]);
        round.change(STATEMENTS / 8, &mut rng);
        round.is_right(&mut run);
        run.stop("TERM");
        round.end();
    }
}
