//! Random queries with WITH RECURSIVE. A column counts the iterations, so that they end.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::{Column, Kind, Query, Shapes};

impl Shapes<'_> {
    /// A recursion over numbers, with one way of reading other rows in its recursive term.
    pub(super) fn recursive(&mut self, depth: usize) -> Query {
        let (base, other) = (self.from(depth), self.from(0));
        let name = self.alias();
        let start = self.number(&base);
        let filter = self.filtering(&base, 0.4);
        let all = ["", " ALL"].choose(self.rng).unwrap();
        let most = self.rng.random_range(1..4);
        let next = self.number(&other);
        let key = self.number(&other);
        let filtered = self.condition(&other);
        let (next, from, more) = match self.rng.random_range(0..7) {
            0 => (
                next,
                format!("{name} JOIN {} ON {key} = {name}.n", other.sql),
                String::new(),
            ),
            1 => (
                next,
                format!("{}, {name}", other.sql),
                format!(" AND {key} = {name}.n"),
            ),
            2 => {
                let join = format!("{name} LEFT JOIN {} ON {key} = {name}.n", other.sql);
                (
                    format!("coalesce({next}, {name}.n - 1)"),
                    join,
                    String::new(),
                )
            }
            3 => {
                let join = format!("{} RIGHT JOIN {name} ON {key} > {name}.n", other.sql);
                (format!("coalesce({next}, {name}.n)"), join, String::new())
            }
            4 => {
                let not = ["", "NOT "].choose(self.rng).unwrap();
                let exists = format!("SELECT 1 FROM {} WHERE {key} = {name}.n", other.sql);
                let exists = format!(" AND {not}EXISTS ({exists} AND {filtered})");
                (format!("{name}.n + 1"), name.clone(), exists)
            }
            5 => {
                let not = ["", "NOT "].choose(self.rng).unwrap();
                let within = format!("SELECT {key} FROM {} WHERE {filtered}", other.sql);
                let within = format!(" AND {name}.n {not}IN ({within})");
                (format!("{name}.n - 1"), name.clone(), within)
            }
            _ => (
                format!("{name}.n * 2"),
                name.clone(),
                format!(" AND {name}.n < 20"),
            ),
        };
        let sql = format!(
            "WITH RECURSIVE {name}(n, i) AS (SELECT ({start})::int, 0 FROM {}{filter} UNION{all} \
             SELECT ({next})::int, {name}.i + 1 FROM {from} WHERE {name}.i < {most}{more}) \
             SELECT n, i FROM {name}",
            base.sql
        );
        let column = |name: &str| Column {
            name: name.to_owned(),
            kind: Kind::Int,
        };
        Query {
            sql,
            columns: vec![column("n"), column("i")],
        }
    }
}
