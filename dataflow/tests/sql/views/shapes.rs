//! Random queries: subqueries, common table expressions, joins, groups, first rows and unions, in
//! each other and above each other, over three small tables and two views.
//!
//! Every query has one answer: rows that LIMIT or `row_number()` choose among are ordered by all
//! their columns.

mod nested;
mod recursive;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};

mod windows;

/// What the queries read. The views come after the tables.
pub(crate) const TABLES: [(&str, &str); 3] = [
    ("one", "id int, a int, b int, s text"),
    ("two", "id int, b int, c int, s text"),
    ("three", "a int, id int, d int"),
];
pub(crate) const VIEWS: [(&str, &str); 2] = [
    (
        "grouped",
        "SELECT b, count(*) AS n, max(c) AS c FROM two GROUP BY b",
    ),
    (
        "firsts",
        "SELECT DISTINCT ON (a) a, b, s FROM one ORDER BY a, b DESC, s, id",
    ),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Int,
    Text,
}

#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

/// A query and its columns, whose names differ.
pub(crate) struct Query {
    pub(crate) sql: String,
    pub(crate) columns: Vec<Column>,
}

/// A relation in FROM.
struct From {
    sql: String,
    alias: String,
    columns: Vec<Column>,
}

pub(crate) struct Shapes<'a> {
    rng: &'a mut StdRng,
    aliases: usize,
    /// Common table expressions in scope.
    ctes: Vec<(String, Vec<Column>)>,
}

const NAMES: [&str; 6] = ["a", "b", "c", "s", "id", "x"];

fn relation(name: &str) -> Vec<Column> {
    let columns: &[(&str, Kind)] = match name {
        "one" => &[
            ("id", Kind::Int),
            ("a", Kind::Int),
            ("b", Kind::Int),
            ("s", Kind::Text),
        ],
        "two" => &[
            ("id", Kind::Int),
            ("b", Kind::Int),
            ("c", Kind::Int),
            ("s", Kind::Text),
        ],
        "three" => &[("a", Kind::Int), ("id", Kind::Int), ("d", Kind::Int)],
        "grouped" => &[("b", Kind::Int), ("n", Kind::Int), ("c", Kind::Int)],
        _ => &[("a", Kind::Int), ("b", Kind::Int), ("s", Kind::Text)],
    };
    let column = |(name, kind): &(&str, Kind)| Column {
        name: (*name).to_owned(),
        kind: *kind,
    };
    columns.iter().map(column).collect()
}

impl<'a> Shapes<'a> {
    pub(crate) fn new(rng: &'a mut StdRng) -> Self {
        Self {
            rng,
            aliases: 0,
            ctes: Vec::new(),
        }
    }

    /// A query that nests this deep at most.
    pub(crate) fn query(&mut self, depth: usize) -> Query {
        match self.rng.random_range(0..28) {
            0..3 => self.filter(depth),
            3..5 => self.project(depth),
            5 => self.distinct(depth),
            6..9 => self.distinct_on(depth),
            9..12 => self.group(depth),
            12 => self.whole(depth),
            22..24 => self.outer_join(depth),
            24 => self.lateral(depth),
            13..15 => self.union(depth),
            15..17 => self.join(depth),
            17 => self.merged(depth),
            18..20 => self.limit(depth),
            20 => self.numbered(depth),
            21 => self.windows(depth),
            25..27 => self.recursive(depth),
            _ => self.with(depth),
        }
    }

    fn yes(&mut self, chance: f64) -> bool {
        self.rng.random_bool(chance)
    }

    fn alias(&mut self) -> String {
        self.aliases += 1;
        format!("q{}", self.aliases)
    }

    fn from(&mut self, depth: usize) -> From {
        let alias = self.alias();
        if let (Some((name, columns)), true) = (self.ctes.last().cloned(), self.yes(0.5)) {
            let sql = format!("{name} AS {alias}");
            return From {
                sql,
                alias,
                columns,
            };
        }
        if depth == 0 || self.yes(0.2) {
            let names = ["one", "one", "two", "two", "three", "grouped", "firsts"];
            let free = |name: &&str| !self.ctes.iter().any(|(cte, _)| cte == name);
            let names: Vec<&str> = names.into_iter().filter(free).collect();
            let name = *names.choose(self.rng).unwrap();
            return From {
                sql: format!("{name} AS {alias}"),
                alias,
                columns: relation(name),
            };
        }
        let query = self.query(depth - 1);
        From {
            sql: format!("({}) AS {alias}", query.sql),
            alias,
            columns: query.columns,
        }
    }

    fn of<'c>(&mut self, columns: &'c [Column], kind: Kind) -> Option<&'c Column> {
        let all: Vec<&Column> = columns.iter().filter(|c| c.kind == kind).collect();
        all.choose(self.rng).copied()
    }

    /// A column, with its table or without.
    fn column(&mut self, from: &From, kind: Kind) -> Option<String> {
        let name = self.of(&from.columns, kind)?.name.clone();
        Some(match self.yes(0.5) {
            true => format!("{}.{name}", from.alias),
            false => name,
        })
    }

    fn number(&mut self, from: &From) -> String {
        let k = self.rng.random_range(-2..3);
        let Some(column) = self.column(from, Kind::Int) else {
            return k.to_string();
        };
        match self.rng.random_range(0..10) {
            0 => format!("{column}+{k}"),
            1 => format!("-{column}"),
            2 => format!("{column}*{k}"),
            3 => format!("coalesce({column}, {k})"),
            4 => format!("CASE WHEN {column}>{k} THEN {column} ELSE {k} END"),
            5 => k.to_string(),
            _ => column,
        }
    }

    fn text(&mut self, from: &From) -> String {
        match self.column(from, Kind::Text) {
            Some(column) if self.yes(0.2) => format!("coalesce({column}, 'z')"),
            Some(column) => column,
            None => "'y'".to_owned(),
        }
    }

    fn value(&mut self, from: &From, kind: Kind) -> String {
        match kind {
            Kind::Int => self.number(from),
            Kind::Text => self.text(from),
        }
    }

    fn condition(&mut self, from: &From) -> String {
        let k = self.rng.random_range(-2..3);
        let number = self.number(from);
        match self.rng.random_range(0..16) {
            0 => format!("{number} IS NULL"),
            1 => format!("{number} IN ({k}, 1)"),
            2 => format!("{number} NOT IN ({k}, 2)"),
            3 => format!("{number} BETWEEN {k} AND 2"),
            4 => format!("NOT ({})", self.condition(from)),
            5 => format!("({} OR {})", self.condition(from), self.condition(from)),
            6 => format!("{} AND {}", self.condition(from), self.condition(from)),
            7 => format!("{} = 'y'", self.text(from)),
            8 => (*["true", "false", "NULL", "1=2", "1<2"]
                .choose(self.rng)
                .unwrap())
            .to_owned(),
            9 => format!("{number} IS DISTINCT FROM {}", self.number(from)),
            10 => format!("{number} = {}", self.number(from)),
            11 => format!("{} LIKE '%y'", self.text(from)),
            12 if self.yes(0.5) => self.nested_condition(from),
            _ => {
                let op = *["<", ">", "=", "<>", "<=", ">="].choose(self.rng).unwrap();
                match self.yes(0.5) {
                    true => format!("{number}{op}{k}"),
                    false => format!("{number} {op} {k}"),
                }
            }
        }
    }

    fn filtering(&mut self, from: &From, chance: f64) -> String {
        match self.yes(chance) {
            true => format!(" WHERE {}", self.condition(from)),
            false => String::new(),
        }
    }

    /// Names for columns, some of which the relation below has for others.
    fn names(&mut self, count: usize) -> Vec<String> {
        let mut names = NAMES.map(str::to_owned).to_vec();
        names.shuffle(self.rng);
        names.truncate(count);
        names
    }

    /// A SELECT list of expressions over a relation.
    fn list(&mut self, from: &From) -> (Vec<String>, Vec<Column>) {
        let count = self.rng.random_range(1..5);
        let (mut items, mut columns) = (Vec::new(), Vec::new());
        for name in self.names(count) {
            let kind = *[Kind::Int, Kind::Int, Kind::Text].choose(self.rng).unwrap();
            let value = match kind == Kind::Int && self.yes(0.1) {
                true => self.nested_number(from),
                false => self.value(from, kind),
            };
            items.push(format!("{value} AS {name}"));
            columns.push(Column { name, kind });
        }
        (items, columns)
    }

    /// Every column, each ascending or descending, nulls at either end.
    fn order(&mut self, from: &From, first: &[String]) -> String {
        let mut rest: Vec<String> = from
            .columns
            .iter()
            .map(|column| format!("{}.{}", from.alias, column.name))
            .filter(|column| !first.contains(column))
            .collect();
        rest.shuffle(self.rng);
        let all = [first, &rest].concat();
        let ways = ["", " ASC", " DESC", " NULLS FIRST", " DESC NULLS LAST"];
        let by = all.iter().map(|column| {
            let way = ways.choose(self.rng).unwrap();
            format!("{column}{way}")
        });
        by.collect::<Vec<_>>().join(", ")
    }

    fn limits(&mut self) -> String {
        let limit = *[0, 1, 1, 2, 3, 5].choose(self.rng).unwrap();
        match self.rng.random_range(0..5) {
            0 => format!("LIMIT {limit} OFFSET {}", self.rng.random_range(0..3)),
            1 => format!("OFFSET {}", self.rng.random_range(0..4)),
            _ => format!("LIMIT {limit}"),
        }
    }

    fn filter(&mut self, depth: usize) -> Query {
        let from = self.from(depth);
        let star = match self.yes(0.3) {
            true => format!("{}.*", from.alias),
            false => "*".to_owned(),
        };
        Query {
            sql: format!(
                "SELECT {star} FROM {} WHERE {}",
                from.sql,
                self.condition(&from)
            ),
            columns: from.columns,
        }
    }

    fn project(&mut self, depth: usize) -> Query {
        let from = self.from(depth);
        let (items, columns) = self.list(&from);
        let filter = self.filtering(&from, 0.4);
        Query {
            sql: format!("SELECT {} FROM {}{filter}", items.join(", "), from.sql),
            columns,
        }
    }

    fn distinct(&mut self, depth: usize) -> Query {
        let from = self.from(depth);
        let (items, columns) = self.list(&from);
        let filter = self.filtering(&from, 0.3);
        Query {
            sql: format!(
                "SELECT DISTINCT {} FROM {}{filter}",
                items.join(", "),
                from.sql
            ),
            columns,
        }
    }

    fn distinct_on(&mut self, depth: usize) -> Query {
        let from = self.from(depth);
        let count = self.rng.random_range(1..3);
        let mut on: Vec<String> = from
            .columns
            .choose_multiple(self.rng, count)
            .map(|column| format!("{}.{}", from.alias, column.name))
            .collect();
        on.sort();
        let order = self.order(&from, &on);
        let (items, columns) = match self.yes(0.5) {
            true => {
                let all = from.columns.clone();
                (vec![format!("{}.*", from.alias)], all)
            }
            false => self.list(&from),
        };
        let filter = self.filtering(&from, 0.3);
        let limit = match self.yes(0.25) {
            true => format!(" {}", self.limits()),
            false => String::new(),
        };
        // A name of the SELECT list hides the column that ORDER BY means.
        Query {
            sql: format!(
                "SELECT DISTINCT ON ({}) {} FROM {}{filter} ORDER BY {order}{limit}",
                on.join(", "),
                items.join(", "),
                from.sql
            ),
            columns,
        }
    }

    fn group(&mut self, depth: usize) -> Query {
        let from = self.from(depth);
        let count = self.rng.random_range(1..4);
        let (mut items, mut columns, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        let names = ["k0", "k1", "k2", "n0", "n1"].map(str::to_owned);
        for name in names.iter().take(count) {
            let kind = *[Kind::Int, Kind::Int, Kind::Text].choose(self.rng).unwrap();
            let key = match self.yes(0.8) {
                true => self.column(&from, kind),
                false => Some(self.value(&from, kind)),
            };
            // A constant is a position in GROUP BY.
            let key = key.filter(|key| key.contains(|c: char| c.is_alphabetic() && c != 'y'));
            let Some(key) = key else { continue };
            items.push(format!("{key} AS {name}"));
            let name = name.clone();
            columns.push(Column { name, kind });
            keys.push(match self.rng.random_range(0..6) {
                0 => items.len().to_string(),
                _ => key.clone(),
            });
            if self.yes(0.25) {
                keys.push(key);
            }
        }
        keys.shuffle(self.rng);
        let having = match self.rng.random_range(0..6) {
            0 => " HAVING count(*)>1".to_owned(),
            1 => format!(" HAVING {}", self.having(&from)),
            _ => String::new(),
        };
        let filter = self.filtering(&from, 0.3);
        for name in names.iter().skip(3).take(self.rng.random_range(0..3)) {
            items.push(format!("{} AS {name}", self.aggregate(&from)));
            let (name, kind) = (name.clone(), Kind::Int);
            columns.push(Column { name, kind });
        }
        if items.is_empty() {
            return self.whole(depth);
        }
        let by = match keys.is_empty() {
            true => String::new(),
            false => format!(" GROUP BY {}", keys.join(", ")),
        };
        let list = items.join(", ");
        Query {
            sql: format!("SELECT {list} FROM {}{filter}{by}{having}", from.sql),
            columns,
        }
    }

    fn having(&mut self, from: &From) -> String {
        let always = ["true", "false", "NULL", "1=2"].choose(self.rng).unwrap();
        let aggregate = self.aggregate(from);
        match self.rng.random_range(0..4) {
            0 => (*always).to_owned(),
            1 => format!("{aggregate} IS NULL"),
            2 => format!("{aggregate}>-1 OR {always}"),
            _ => format!("{aggregate}>-1"),
        }
    }

    fn aggregate(&mut self, from: &From) -> String {
        let number = self.number(from);
        match self.rng.random_range(0..12) {
            8..12 => self.rare_aggregate(from, &number),
            0 | 1 => "count(*)".to_owned(),
            2 => format!("count({number})"),
            3 => format!("count(DISTINCT {number})"),
            4 => format!("sum({number})"),
            5 => format!("max({number})"),
            6 => format!("min({number}) FILTER (WHERE {})", self.condition(from)),
            _ => format!("count(*) FILTER (WHERE {})", self.condition(from)),
        }
    }

    /// Statistics and ordered aggregates, as whole numbers.
    fn rare_aggregate(&mut self, from: &From, number: &str) -> String {
        let (other, text) = (self.number(from), self.text(from));
        match self.rng.random_range(0..12) {
            0 => format!("bit_and({number})"),
            1 => format!("bit_or({number})"),
            2 => format!("bit_xor({number})"),
            3 => format!("CAST(round(stddev_pop({number})*100) AS int)"),
            4 => format!("CAST(round(variance(DISTINCT {number})*100) AS int)"),
            5 => format!("regr_count({number}, {other})"),
            6 => format!("CAST(regr_avgx({number}, {other})*1000+0.3 AS int)"),
            7 => format!("mode() WITHIN GROUP (ORDER BY {number} DESC)"),
            8 => format!("percentile_disc(0.4) WITHIN GROUP (ORDER BY {number})"),
            9 => format!("CAST(percentile_cont(0.5) WITHIN GROUP (ORDER BY {number})*2 AS int)"),
            10 => format!("length(string_agg({text}, '-' ORDER BY {number}, {text}))"),
            _ => format!("ascii(reverse(string_agg(DISTINCT {text}, '')))"),
        }
    }

    /// Aggregates without GROUP BY.
    fn whole(&mut self, depth: usize) -> Query {
        let from = self.from(depth);
        let (one, two) = (self.aggregate(&from), self.aggregate(&from));
        let filter = self.filtering(&from, 0.4);
        let having = match self.yes(0.4) {
            true => format!(" HAVING {}", self.having(&from)),
            false => String::new(),
        };
        let column = |name: &str| Column {
            name: name.to_owned(),
            kind: Kind::Int,
        };
        Query {
            sql: format!(
                "SELECT {one} AS m0, {two} AS m1 FROM {}{filter}{having}",
                from.sql
            ),
            columns: vec![column("m0"), column("m1")],
        }
    }

    fn union(&mut self, depth: usize) -> Query {
        let kinds = [Kind::Int, Kind::Text, Kind::Int];
        let count = self.rng.random_range(1..4);
        let names = self.names(count);
        let mut sql = String::new();
        for input in 0..self.rng.random_range(2..4) {
            let from = self.from(depth.min(1));
            let items: Vec<String> = names
                .iter()
                .zip(kinds)
                .map(|(name, kind)| format!("{} AS {name}", self.value(&from, kind)))
                .collect();
            let filter = self.filtering(&from, 0.3);
            let select = match self.yes(0.15) {
                true => self.rows(&kinds, names.len()),
                false => format!("SELECT {} FROM {}{filter}", items.join(", "), from.sql),
            };
            let select = match input {
                // The first query names the columns.
                0 => format!("SELECT {} FROM {}{filter}", items.join(", "), from.sql),
                _ => select,
            };
            if input > 0 {
                let operations = [
                    " UNION ALL ",
                    " UNION ",
                    " INTERSECT ",
                    " INTERSECT ALL ",
                    " EXCEPT ",
                    " EXCEPT ALL ",
                ];
                sql += operations.choose(self.rng).unwrap();
            }
            sql += &match self.yes(0.2) {
                true => format!("({select} ORDER BY {} LIMIT 2)", self.order_by(names.len())),
                false => select,
            };
        }
        let columns = names.into_iter().zip(kinds);
        Query {
            sql,
            columns: columns.map(|(name, kind)| Column { name, kind }).collect(),
        }
    }

    /// VALUES of these kinds.
    fn rows(&mut self, kinds: &[Kind], columns: usize) -> String {
        let mut rows = Vec::new();
        for _ in 0..self.rng.random_range(1..4) {
            let values = kinds.iter().take(columns).map(|kind| match kind {
                _ if self.rng.random_bool(0.2) => "NULL".to_owned(),
                Kind::Int => self.rng.random_range(-2..3).to_string(),
                Kind::Text => (*["'x'", "'y'"].choose(self.rng).unwrap()).to_owned(),
            });
            rows.push(format!("({})", values.collect::<Vec<_>>().join(", ")));
        }
        format!("VALUES {}", rows.join(", "))
    }

    /// All columns by their positions.
    fn order_by(&mut self, columns: usize) -> String {
        let mut positions: Vec<String> = (1..=columns).map(|at| at.to_string()).collect();
        positions.shuffle(self.rng);
        positions.join(", ")
    }

    fn join(&mut self, depth: usize) -> Query {
        let (left, right) = (self.from(depth), self.from(depth.saturating_sub(1)));
        let kind = match self.yes(0.8) {
            true => Kind::Int,
            false => Kind::Text,
        };
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
        let both = |kind| {
            [&left, &right]
                .iter()
                .all(|f| f.columns.iter().any(|c| c.kind == kind))
        };
        let kind = if both(kind) { kind } else { Kind::Int };
        if !both(kind) {
            return self.filter(depth);
        }
        let mut key = |from: &From| {
            let column = self.of(&from.columns, kind).unwrap();
            format!("{}.{}", from.alias, column.name)
        };
        let (one, other) = (key(&left), key(&right));
        let more = (key(&left), key(&right));
        let mut conditions = vec![match self.rng.random_range(0..5) {
            0 => format!("{one} IS NOT DISTINCT FROM {other}"),
            _ => format!("{one}={other}"),
        }];
        let op = *["=", "<", "<>", "IS NOT DISTINCT FROM"]
            .choose(self.rng)
            .unwrap();
        if self.yes(0.4) {
            conditions.push(format!("{} {op} {}", more.0, more.1));
        }
        for from in [&left, &right] {
            if self.yes(0.4) {
                let of = self.of(&from.columns, Kind::Int).map(|c| c.name.clone());
                let k = self.rng.random_range(-2..2);
                conditions.extend(of.map(|name| format!("{}.{name}>{k}", from.alias)));
            }
        }
        let list = items.join(", ");
        let (one, two) = (&left.sql, &right.sql);
        let sql = match self.rng.random_range(0..3) {
            0 => format!(
                "SELECT {list} FROM {one}, {two} WHERE {}",
                conditions.join(" AND ")
            ),
            1 => {
                let on = conditions.remove(0);
                conditions.push("true".to_owned());
                let filter = conditions.join(" AND ");
                format!("SELECT {list} FROM {one} JOIN {two} ON {on} WHERE {filter}")
            }
            _ => format!(
                "SELECT {list} FROM {one} JOIN {two} ON {}",
                conditions.join(" AND ")
            ),
        };
        Query { sql, columns }
    }

    /// `*` over USING or NATURAL, whose columns have other names otherwise.
    fn merged(&mut self, depth: usize) -> Query {
        let mut sides = Vec::new();
        for names in [["v", "g", "h", "w"], ["m", "h", "g", "o"]] {
            let from = self.from(depth.min(1));
            let (mut items, mut columns) = (Vec::new(), Vec::new());
            for name in names {
                let kind = match name {
                    "h" | "w" => Kind::Text,
                    _ => Kind::Int,
                };
                let value = match self.column(&from, kind) {
                    Some(column) => column,
                    None => self.value(&from, kind),
                };
                items.push(format!("{value} AS {name}"));
                let name = name.to_owned();
                columns.push(Column { name, kind });
            }
            let alias = self.alias();
            let sql = format!("(SELECT {} FROM {}) AS {alias}", items.join(", "), from.sql);
            sides.push((sql, alias, columns));
        }
        let right = sides.pop().unwrap();
        let left = sides.pop().unwrap();
        let both = |columns: &[&str]| -> Vec<Column> {
            let find = |name: &&str| {
                let all = left.2.iter().chain(&right.2);
                all.clone()
                    .find(|column| column.name == *name)
                    .unwrap()
                    .clone()
            };
            columns.iter().map(find).collect()
        };
        let (join, columns) = match self.rng.random_range(0..4) {
            0 => ("NATURAL JOIN", both(&["g", "h", "v", "w", "m", "o"])),
            1 => ("JOIN USING (h, g)", both(&["h", "g", "v", "w", "m", "o"])),
            _ => ("JOIN USING (g, h)", both(&["g", "h", "v", "w", "m", "o"])),
        };
        let (join, using) = join
            .split_once(" USING")
            .map_or((join, String::new()), |(join, by)| {
                (join, format!(" USING{by}"))
            });
        let filter = match self.rng.random_range(0..3) {
            0 => format!(" WHERE {}.g>-1", right.1),
            1 => " WHERE g<>0".to_owned(),
            _ => String::new(),
        };
        Query {
            sql: format!("SELECT * FROM {} {join} {}{using}{filter}", left.0, right.0),
            columns,
        }
    }

    fn limit(&mut self, depth: usize) -> Query {
        let from = self.from(depth);
        let order = self.order(&from, &[]);
        let (items, columns) = match self.yes(0.6) {
            true => (vec!["*".to_owned()], from.columns.clone()),
            false => self.list(&from),
        };
        let filter = self.filtering(&from, 0.3);
        let (list, limits) = (items.join(", "), self.limits());
        Query {
            sql: format!(
                "SELECT {list} FROM {}{filter} ORDER BY {order} {limits}",
                from.sql
            ),
            columns,
        }
    }

    fn numbered(&mut self, depth: usize) -> Query {
        let from = self.from(depth);
        let by = from.columns.choose(self.rng).unwrap().name.clone();
        let by = format!("{}.{by}", from.alias);
        let order = self.order(&from, &[]);
        let filter = self.filtering(&from, 0.3);
        let numbered = format!(
            "SELECT {}.*, row_number() OVER (PARTITION BY {by} ORDER BY {order}) AS place FROM \
             {}{filter}",
            from.alias, from.sql
        );
        let alias = self.alias();
        let above = From {
            sql: format!("({numbered}) AS {alias}"),
            alias,
            columns: from.columns,
        };
        let (items, columns) = self.list(&above);
        let k = self.rng.random_range(1..4);
        let and = match self.yes(0.5) {
            true => format!(" AND {}", self.condition(&above)),
            false => String::new(),
        };
        let end = ["place<=", "place = ", "place<"].choose(self.rng).unwrap();
        let list = items.join(", ");
        Query {
            sql: format!("SELECT {list} FROM {} WHERE {end}{k}{and}", above.sql),
            columns,
        }
    }

    fn with(&mut self, depth: usize) -> Query {
        let inner = self.query(depth.saturating_sub(1));
        let name = (*["one", "shared", "two"].choose(self.rng).unwrap()).to_owned();
        self.ctes.push((name.clone(), inner.columns));
        let query = self.query(depth.saturating_sub(1));
        self.ctes.pop();
        // The name means the expression in the query and the table in the expression itself.
        Query {
            sql: format!("WITH {name} AS ({}) {}", inner.sql, query.sql),
            columns: query.columns,
        }
    }
}
