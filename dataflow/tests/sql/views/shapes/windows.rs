//! Random queries with window functions.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::{Column, From, Kind, Query, Shapes};

impl Shapes<'_> {
    /// Window functions. Those that depend on the order of peers have no peers that differ.
    pub(super) fn windows(&mut self, depth: usize) -> Query {
        let from = self.from(depth);
        let (mut items, mut columns) = (Vec::new(), Vec::new());
        for column in &from.columns {
            if self.yes(0.6) {
                items.push(format!("{}.{}", from.alias, column.name));
                columns.push(column.clone());
            }
        }
        let free = |name: &&str| from.columns.iter().all(|column| column.name != *name);
        let names = ["w0", "w1", "w2", "w3", "w4", "w5", "w6", "w7", "w8"];
        let names = names
            .into_iter()
            .filter(free)
            .take(self.rng.random_range(1..4));
        for (at, name) in names.enumerate() {
            let (call, kind) = self.windowed(&from, at == 0);
            items.push(format!("{call} AS {name}"));
            let name = name.to_owned();
            columns.push(Column { name, kind });
        }
        let filter = self.filtering(&from, 0.3);
        let sql = format!("SELECT {} FROM {}{filter}", items.join(", "), from.sql);
        if self.yes(0.6) {
            return Query { sql, columns };
        }
        let alias = self.alias();
        let above = From {
            sql: format!("({sql}) AS {alias}"),
            alias,
            columns,
        };
        Query {
            sql: format!(
                "SELECT * FROM {} WHERE {}",
                above.sql,
                self.condition(&above)
            ),
            columns: above.columns,
        }
    }

    /// A window function with its window, and the kind of its result. Which of two equal rows is
    /// first is open, so that of several functions only one may be `positional`.
    fn windowed(&mut self, from: &From, positional: bool) -> (String, Kind) {
        let by = from.columns.choose(self.rng).unwrap().name.clone();
        let partition = match self.rng.random_range(0..3) {
            0 => String::new(),
            1 => format!("PARTITION BY {}.{by} ", from.alias),
            _ => format!("PARTITION BY {} ", self.number(from)),
        };
        let whole = self.order(from, &[]);
        let some = match self.yes(0.6) {
            true => format!("ORDER BY {}.{by}", from.alias),
            false => String::new(),
        };
        let (kind, k) = (self.of_kind(from), self.rng.random_range(0..3));
        let value = match self.column(from, kind) {
            Some(column) => column,
            None => return (format!("count(*) OVER ({partition}{some})"), Kind::Int),
        };
        let aggregate = loop {
            let aggregate = self.aggregate(from);
            if !aggregate.contains("DISTINCT") {
                break aggregate;
            }
        };
        let frame = self.frame();
        let least = if positional { 0 } else { 7 };
        match self.rng.random_range(least..13) {
            9 => (format!("rank() OVER ({partition}{some})"), Kind::Int),
            10 => (format!("dense_rank() OVER ({partition}{some})"), Kind::Int),
            0 => (
                format!("ntile({}) OVER ({partition}ORDER BY {whole})", k + 1),
                Kind::Int,
            ),
            1 => (
                format!("row_number() OVER ({partition}ORDER BY {whole})"),
                Kind::Int,
            ),
            2 => (
                format!("lag({value}, {k}) OVER ({partition}ORDER BY {whole})"),
                kind,
            ),
            3 => {
                let default = self.value(from, kind);
                let over = format!("({partition}ORDER BY {whole})");
                (format!("lead({value}, {k}, {default}) OVER {over}"), kind)
            }
            4 => {
                let which = ["first_value", "last_value"].choose(self.rng).unwrap();
                let over = format!("({partition}ORDER BY {whole} {frame})");
                (format!("{which}({value}) OVER {over}"), kind)
            }
            5 => {
                let over = format!("({partition}ORDER BY {whole} {frame})");
                (format!("nth_value({value}, {}) OVER {over}", k + 1), kind)
            }
            7 | 8 => (format!("{aggregate} OVER ({partition}{some})"), Kind::Int),
            11 | 12 => {
                let number = self.of(&from.columns, Kind::Int).map(|it| it.name.clone());
                let by = number.map_or("1".to_owned(), |name| format!("{}.{name}", from.alias));
                let way = ["", " DESC", " NULLS FIRST"].choose(self.rng).unwrap();
                let frame = match by.as_str() {
                    "1" => String::new(),
                    _ => format!("RANGE BETWEEN {k} PRECEDING AND 1 FOLLOWING"),
                };
                let over = format!("({partition}ORDER BY {by}{way} {frame})");
                (format!("{aggregate} OVER {over}"), Kind::Int)
            }
            _ => (
                format!("{aggregate} OVER ({partition}ORDER BY {whole} {frame})"),
                Kind::Int,
            ),
        }
    }

    /// A kind that a column of the relation has.
    fn of_kind(&mut self, from: &From) -> Kind {
        from.columns.choose(self.rng).unwrap().kind
    }

    fn frame(&mut self) -> String {
        let units = ["ROWS", "ROWS", "GROUPS"].choose(self.rng).unwrap();
        let k = self.rng.random_range(0..3);
        let bounds = match self.rng.random_range(0..6) {
            0 => format!("BETWEEN {k} PRECEDING AND CURRENT ROW"),
            1 => format!("BETWEEN {k} PRECEDING AND 1 FOLLOWING"),
            2 => format!("BETWEEN 1 FOLLOWING AND {k} FOLLOWING"),
            3 => format!("BETWEEN 2 PRECEDING AND {k} PRECEDING"),
            4 => "BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING".to_owned(),
            _ => "UNBOUNDED PRECEDING".to_owned(),
        };
        format!("{units} {bounds}")
    }
}
