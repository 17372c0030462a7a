//! Random subqueries in expressions, outer joins and LATERAL.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::{Column, From, Kind, Query, Shapes};

impl Shapes<'_> {
    /// A relation for a subquery, with a condition that may read the rows around it.
    fn within(&mut self, outer: &From) -> (From, String) {
        let inner = self.from(0);
        let mut conditions = Vec::new();
        for _ in 0..self.rng.random_range(0..3) {
            let (own, other) = (
                self.of(&inner.columns, Kind::Int).cloned(),
                self.of(&outer.columns, Kind::Int).cloned(),
            );
            let op = *["=", "=", "=", "<", "<>", "IS NOT DISTINCT FROM"]
                .choose(self.rng)
                .unwrap();
            if let (Some(own), Some(other)) = (own, other) {
                conditions.push(format!(
                    "{}.{} {op} {}.{}",
                    inner.alias, own.name, outer.alias, other.name
                ));
            }
        }
        if self.yes(0.3) {
            conditions.push(format!("({})", self.condition(&inner)));
        }
        let filter = match conditions.is_empty() {
            true => String::new(),
            false => format!(" WHERE {}", conditions.join(" AND ")),
        };
        (inner, filter)
    }

    /// A condition on a row with a subquery.
    pub(super) fn nested_condition(&mut self, from: &From) -> String {
        let (inner, filter) = self.within(from);
        let x = self.column(from, Kind::Int).unwrap_or("1".to_owned());
        let value = self.number(&inner);
        let query = format!("(SELECT {value} FROM {}{filter})", inner.sql);
        match self.rng.random_range(0..7) {
            0 => format!("EXISTS {query}"),
            1 => format!("NOT EXISTS {query}"),
            2 => format!("{x} IN {query}"),
            3 => format!("{x} NOT IN {query}"),
            4 | 5 => {
                let op = *["=", "<>", "<", "<=", ">", ">="].choose(self.rng).unwrap();
                let which = *["ANY", "ALL"].choose(self.rng).unwrap();
                format!("{x} {op} {which} {query}")
            }
            _ => format!("{x} > {}", self.nested_number(from)),
        }
    }

    /// A number of a row by a subquery.
    pub(super) fn nested_number(&mut self, from: &From) -> String {
        let (inner, filter) = self.within(from);
        let of = self.number(&inner);
        if self.yes(0.2) {
            let mut order = self.order(&inner, &[]);
            if order.is_empty() {
                order = "1".to_owned();
            }
            let sql = &inner.sql;
            return format!("(SELECT {of} FROM {sql}{filter} ORDER BY {order} LIMIT 1)");
        }
        let call = match self.rng.random_range(0..6) {
            0 => "count(*)".to_owned(),
            1 => format!("count({of}) + 1"),
            2 => format!("coalesce(max({of}), -5)"),
            3 => format!("count(DISTINCT {of})"),
            4 => format!("min({of})"),
            _ => format!("max({of})"),
        };
        format!("(SELECT {call} FROM {}{filter})", inner.sql)
    }

    /// A left, right or full join.
    pub(super) fn outer_join(&mut self, depth: usize) -> Query {
        let (left, right) = (self.from(depth), self.from(depth.saturating_sub(1)));
        let (mut items, mut columns) = (Vec::new(), Vec::new());
        let sides = [&left, &right];
        for name in self.names(4) {
            let from = sides.choose(self.rng).unwrap();
            let Some(column) = from.columns.choose(self.rng) else {
                continue;
            };
            items.push(format!("{}.{} AS {name}", from.alias, column.name));
            let kind = column.kind;
            columns.push(Column { name, kind });
        }
        let kind = *["LEFT", "LEFT", "RIGHT", "FULL"].choose(self.rng).unwrap();
        let mut conditions = Vec::new();
        for number in 0..self.rng.random_range(1..3) {
            let own = self.of(&left.columns, Kind::Int).cloned();
            let other = self.of(&right.columns, Kind::Int).cloned();
            // PostgreSQL has no full join without an equality.
            let op = match kind == "FULL" || number == 0 {
                true => "=",
                false => *["=", "<", "IS NOT DISTINCT FROM"].choose(self.rng).unwrap(),
            };
            if let (Some(own), Some(other)) = (own, other) {
                conditions.push(format!(
                    "{}.{} {op} {}.{}",
                    left.alias, own.name, right.alias, other.name
                ));
            }
        }
        if conditions.is_empty() || items.is_empty() {
            return self.filter(depth);
        }
        for from in [&left, &right] {
            if kind != "FULL" && self.yes(0.3) {
                let of = self.of(&from.columns, Kind::Int).map(|c| c.name.clone());
                let k = self.rng.random_range(-2..2);
                conditions.extend(of.map(|name| format!("{}.{name}>{k}", from.alias)));
            }
        }
        let filter = match self.rng.random_range(0..4) {
            0 => {
                let from = if self.yes(0.5) { &left } else { &right };
                let name = self.of(&from.columns, Kind::Int).map(|c| c.name.clone());
                let test = *["IS NULL", "IS NOT NULL", "> 0"].choose(self.rng).unwrap();
                name.map_or(String::new(), |name| {
                    format!(" WHERE {}.{name} {test}", from.alias)
                })
            }
            _ => String::new(),
        };
        let sql = format!(
            "SELECT {} FROM {} {kind} JOIN {} ON {}{filter}",
            items.join(", "),
            left.sql,
            right.sql,
            conditions.join(" AND ")
        );
        Query { sql, columns }
    }

    /// The first rows, or the totals, of a subquery for each row.
    pub(super) fn lateral(&mut self, depth: usize) -> Query {
        let left = self.from(depth);
        let (inner, filter) = self.within(&left);
        let of = self.number(&inner);
        let query = match self.yes(0.5) {
            true => format!(
                "SELECT count(*) AS y, max({of}) AS z FROM {}{filter}",
                inner.sql
            ),
            false => {
                let order = self.order(&inner, &[]);
                let limit = self.rng.random_range(1..3);
                let sql = &inner.sql;
                format!(
                    "SELECT {of} AS y, 1 AS z FROM {sql}{filter} ORDER BY {order} LIMIT {limit}"
                )
            }
        };
        let alias = self.alias();
        let mut columns = vec![];
        let mut items = vec![];
        if let Some(own) = left.columns.first() {
            items.push(format!("{}.{} AS k0", left.alias, own.name));
            columns.push(Column {
                name: "k0".to_owned(),
                kind: own.kind,
            });
        }
        for name in ["y", "z"] {
            items.push(format!("{alias}.{name}"));
            columns.push(Column {
                name: name.to_owned(),
                kind: Kind::Int,
            });
        }
        let join = match self.yes(0.5) {
            true => format!("LEFT JOIN LATERAL ({query}) AS {alias} ON true"),
            false => format!("CROSS JOIN LATERAL ({query}) AS {alias}"),
        };
        let sql = format!("SELECT {} FROM {} {join}", items.join(", "), left.sql);
        Query { sql, columns }
    }
}
