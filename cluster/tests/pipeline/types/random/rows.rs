//! Random changes of a table's rows.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::table::{Table, quote};

impl Table {
    /// A random value of a column, as SQL writes it.
    fn value(&self, index: usize, rng: &mut StdRng) -> String {
        let kind = self.columns[index].kind;
        if index >= self.key && rng.random_ratio(1, 4) {
            return "NULL".to_owned();
        }
        match kind.name {
            "int" | "bigint" | "smallint" | "small" | "oid" if rng.random_ratio(3, 4) => {
                rng.random_range(0..40).to_string()
            }
            "text" | "varchar(9)" if rng.random_ratio(1, 2) => {
                format!("'t{}'", rng.random_range(0..20))
            }
            "numeric(12,3)" if rng.random_ratio(1, 2) => {
                format!("{}.5", rng.random_range(-9..9))
            }
            _ => (*kind.values.choose(rng).unwrap()).to_owned(),
        }
    }

    fn row(&self, rng: &mut StdRng) -> String {
        let values = (0..self.columns.len()).map(|index| self.value(index, rng));
        format!("({})", values.collect::<Vec<_>>().join(", "))
    }

    /// An `INSERT` of so many rows; those whose key is there change one.
    pub(super) fn insert(&self, rows: usize, rng: &mut StdRng) -> String {
        let columns = self.columns.iter().map(|column| quote(&column.name));
        let columns: Vec<String> = columns.collect();
        let rows: Vec<String> = (0..rows).map(|_| self.row(rng)).collect();
        let conflict = match rng.random_ratio(1, 3) && rows.len() == 1 {
            true => {
                let last = columns.last().unwrap();
                let key = self.key_list();
                format!("({key}) DO UPDATE SET {last} = excluded.{last}")
            }
            false => "DO NOTHING".to_owned(),
        };
        format!(
            "INSERT INTO {} ({}) VALUES {} ON CONFLICT {conflict}",
            self.name(),
            columns.join(", "),
            rows.join(", ")
        )
    }

    /// A random statement, or a transaction of some.
    pub(super) fn change(&self, rng: &mut StdRng) -> String {
        let name = self.name();
        match rng.random_range(0..100) {
            0..35 => self.insert(1, rng),
            35..45 => {
                let rows = rng.random_range(2..6);
                self.insert(rows, rng)
            }
            45..75 => self.update(rng),
            75..85 => format!("DELETE FROM {name} WHERE {}", self.some(rng)),
            85..88 => self.swap(rng),
            88..92 => {
                let (one, other) = (self.insert(2, rng), self.update(rng));
                format!("BEGIN; {one}; {other}; ROLLBACK")
            }
            92..97 => {
                let (one, other) = (self.insert(1, rng), self.insert(1, rng));
                format!(
                    "BEGIN; {one}; SAVEPOINT s; DELETE FROM {name}; ROLLBACK TO s; {other};
                     SAVEPOINT s; {}; RELEASE s; COMMIT",
                    self.update(rng)
                )
            }
            97 => format!("TRUNCATE {name}"),
            98 => format!("BEGIN; TRUNCATE {name}; {}; COMMIT", self.insert(3, rng)),
            // A row that goes and comes again in one transaction.
            _ => format!(
                "BEGIN; CREATE TEMP TABLE kept ON COMMIT DROP AS SELECT * FROM {name} LIMIT 2;
                 DELETE FROM {name}; INSERT INTO {name} SELECT * FROM kept; COMMIT"
            ),
        }
    }

    /// A condition that holds for a few rows.
    fn some(&self, rng: &mut StdRng) -> String {
        let name = self.name();
        format!(
            "({key}) IN (SELECT {key} FROM {name} ORDER BY md5(({key})::text || '{}') LIMIT {})",
            rng.random_range(0..1000),
            rng.random_range(1..4),
            key = self.key_list()
        )
    }

    fn update(&self, rng: &mut StdRng) -> String {
        let column = rng.random_range(0..self.columns.len());
        let (value, name) = (self.value(column, rng), quote(&self.columns[column].name));
        format!(
            "UPDATE {} SET {name} = {value} WHERE {}",
            self.name(),
            self.some(rng)
        )
    }

    /// Two columns of a type change places, or two rows their first key.
    fn swap(&self, rng: &mut StdRng) -> String {
        let name = self.name();
        let pairs = self
            .columns
            .iter()
            .enumerate()
            .skip(self.key)
            .flat_map(|(at, one)| {
                let others = self.columns[at + 1..].iter();
                let others = others.filter(|other| other.kind.name == one.kind.name);
                others.map(move |other| (quote(&one.name), quote(&other.name)))
            });
        let pairs: Vec<(String, String)> = pairs.collect();
        if let Some((one, other)) = pairs.choose(rng) {
            return format!("UPDATE {name} SET {one} = {other}, {other} = {one}");
        }
        let k = quote(&self.columns[0].name);
        match self.columns[0].kind.name {
            "int" | "bigint" => {
                let (a, b) = (rng.random_range(0..20), rng.random_range(0..20));
                format!(
                    "BEGIN; UPDATE {name} SET {k} = -77 WHERE {k} = {a};
                     UPDATE {name} SET {k} = {a} WHERE {k} = {b};
                     UPDATE {name} SET {k} = {b} WHERE {k} = -77; COMMIT"
                )
            }
            _ => self.update(rng),
        }
    }
}
