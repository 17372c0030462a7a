//! The pipelines of `examples` against PostgreSQL: their tables are loaded and changed in rounds,
//! and after each round every view is what PostgreSQL answers.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value as Json, json};
use tidemill_log::log::Record;

use crate::views::bundle::View;
use crate::views::oracle::Oracle;
use crate::views::river::River;

/// Of a run that none is given to.
const SEED: u64 = 20_261_129;

/// The rows of each table by primary key.
pub(crate) type Tables = BTreeMap<&'static str, BTreeMap<Vec<i64>, Json>>;

/// The keys of a table whose rows changed, and their new rows; none for a row that is gone.
type Changes<'a> = Vec<(&'a Vec<i64>, Option<&'a Json>)>;

/// An example, and what becomes of its tables.
pub(crate) struct Example {
    /// Its folder.
    pub(crate) folder: &'static str,
    /// The columns of each table's primary key.
    pub(crate) keys: &'static [(&'static str, &'static [&'static str])],
    /// Parts of its queries that PostgreSQL does not have, and the same by hand.
    pub(crate) by_hand: &'static [(&'static str, &'static str)],
    /// How often the tables change. The first change fills them.
    pub(crate) rounds: usize,
    /// How long a change may take to be in all views.
    pub(crate) patience: Duration,
    /// Indexes that PostgreSQL needs besides those of the keys, to answer in reasonable time.
    pub(crate) indexes: &'static [&'static str],
    /// Views that may be empty after every round, because their conditions are rarely met by
    /// chance.
    pub(crate) empty_max: usize,
}

/// A key as an object of its columns.
fn named(columns: &[&str], key: &[i64]) -> Json {
    let named = columns.iter().zip(key);
    let named = named.map(|(column, value)| ((*column).to_owned(), json!(value)));
    Json::Object(named.collect())
}

/// What makes one state of a table from another.
fn changes<'a>(
    old: &'a BTreeMap<Vec<i64>, Json>,
    new: &'a BTreeMap<Vec<i64>, Json>,
) -> Changes<'a> {
    let there = new.iter().filter(|(key, row)| old.get(*key) != Some(*row));
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    let there = there.map(|(key, row)| (key, Some(row)));
    there.chain(gone.map(|key| (key, None))).collect()
}

impl Example {
    /// Tables without rows.
    pub(crate) fn nothing(&self) -> Tables {
        let names = self.keys.iter().map(|(name, _)| *name);
        names.map(|name| (name, BTreeMap::new())).collect()
    }

    /// The records of a table's changes.
    fn records(table: &str, columns: &[&str], changes: &Changes<'_>) -> Vec<Record> {
        let record = |(key, row): &(&Vec<i64>, Option<&Json>)| Record {
            topic: table.to_owned(),
            partition: None,
            key: Some(named(columns, key).to_string().into_bytes()),
            value: row.map(|row| row.to_string().into_bytes()),
            timestamp_ms: 0,
        };
        changes.iter().map(record).collect()
    }

    /// The SQL of the pipeline, its tables with their columns, and its views.
    pub(crate) fn read(&self) -> (String, Vec<(String, String)>, Vec<View>) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
        let sql = std::fs::read_to_string(path.join(self.folder).join("views.sql")).unwrap();
        let (mut tables, mut views) = (Vec::new(), Vec::new());
        for (part, _) in self.by_hand {
            assert!(sql.contains(part), "no query has {part}");
        }
        for statement in sql.split(";\n") {
            if let Some((_, table)) = statement.split_once("CREATE TABLE ") {
                let (name, columns) = table.split_once(" (").unwrap();
                let (columns, _) = columns.split_once(",\n    PRIMARY KEY").unwrap();
                tables.push((name.to_owned(), columns.to_owned()));
            }
            if let Some((_, view)) = statement.split_once("CREATE MATERIALIZED VIEW ") {
                let (head, select) = view.split_once(" AS\n").unwrap();
                let by_hand = self.by_hand.iter();
                let by_hand = by_hand.fold(select.to_owned(), |select, (part, by_hand)| {
                    select.replace(part, by_hand)
                });
                views.push(View {
                    name: head.split(' ').next().unwrap().to_owned(),
                    create: statement.to_owned(),
                    select: by_hand,
                });
            }
        }
        (sql, tables, views)
    }

    /// Changes the tables by `next`, which gets the number of the round, and compares the views
    /// after each round. `name` is that of the test.
    pub(crate) fn compared(
        &self,
        name: &str,
        (workers, restarts): (usize, bool),
        mut next: impl FnMut(&mut StdRng, &mut Tables, usize),
    ) {
        let Some(mut oracle) = Oracle::connect(name) else {
            return;
        };
        let seed = std::env::var("TIDEMILL_TEST_SEED").map_or(SEED, |seed| seed.parse().unwrap());
        let mut rng = StdRng::seed_from_u64(seed);
        let (sql, columns, views) = self.read();
        let pairs: Vec<(&str, &str)> = columns.iter().map(|(a, b)| (&**a, &**b)).collect();
        oracle.tables(&pairs);
        let pairs: Vec<(&str, &str)> = views.iter().map(|v| (&*v.name, &*v.select)).collect();
        oracle.views(&pairs);
        for (table, columns) in self.keys {
            oracle.index(&format!("{table} ({})", columns.join(", ")));
        }
        self.indexes.iter().for_each(|index| oracle.index(index));
        let mut river = River::new(&sql, workers);
        river.patience = self.patience;
        for (table, _) in self.keys {
            river.log().create_topic(table, 2).unwrap();
        }
        let mut producer = river.log().producer().unwrap();
        let (mut before, mut tables) = (self.nothing(), self.nothing());
        let mut seen = vec![false; views.len()];
        river.start();
        for round in 0..self.rounds {
            next(&mut rng, &mut tables, round);
            for (table, columns) in self.keys {
                let changes = changes(&before[table], &tables[table]);
                let keys: Json = changes.iter().map(|(key, _)| named(columns, key)).collect();
                let rows: Json = changes
                    .iter()
                    .filter_map(|(_, row)| *row)
                    .cloned()
                    .collect();
                oracle.change(table, columns, &keys, &rows);
                for records in Self::records(table, columns, &changes).chunks(10_000) {
                    producer.append(records).unwrap();
                }
            }
            before.clone_from(&tables);
            river.settle();
            for (view, seen) in views.iter().zip(&mut seen) {
                let answer = oracle.answer(view, &river.table(&view.name));
                *seen |= answer.as_ref().is_some_and(|answer| answer.all > 0);
                let wrong = river.differences(&view.name, &answer).join("\n");
                assert!(wrong.is_empty(), "seed {seed}, round {round}:\n{wrong}");
            }
            assert_eq!(river.dead_letters(), 0, "{:?}", river.reasons());
            if restarts {
                river.rest();
                river.stop();
                river.start();
            }
        }
        river.stop();
        let seen = views.iter().zip(&seen);
        let empty: Vec<&str> = seen
            .filter(|(_, seen)| !**seen)
            .map(|(v, _)| &*v.name)
            .collect();
        assert!(empty.len() <= self.empty_max, "never had a row: {empty:?}");
    }
}
