//! What SQL does with a column: one query an operation, the same for a view and for PostgreSQL.

use crate::types::kinds::Kind;

/// A column that operations are done with.
pub(crate) struct Subject<'a> {
    pub(crate) table: &'a str,
    pub(crate) column: String,
    /// The number of its rows.
    pub(crate) group: usize,
    /// Values of it, as SQL literals.
    pub(crate) one: &'a str,
    pub(crate) other: &'a str,
}

/// What is done with a column of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Pass,
    Equal,
    In,
    Less,
    IsNull,
    Group,
    Join,
    Order,
    MinMax,
    Distinct,
    /// The primary key of a view.
    Key,
    /// The primary key of the captured table.
    SourceKey,
}

use Operation::{
    Distinct, Equal, Group, In, IsNull, Join, Key, Less, MinMax, Order, Pass, SourceKey,
};

pub(crate) const OPERATIONS: [Operation; 12] = [
    Pass, Equal, In, Less, IsNull, Group, Join, Order, MinMax, Distinct, Key, SourceKey,
];

impl Operation {
    /// The heading of its column in docs/types.md.
    pub(crate) fn heading(self) -> &'static str {
        match self {
            Pass => "passed on",
            Equal => "`=`",
            In => "`IN`",
            Less => "`<`",
            IsNull => "`IS NULL`",
            Group => "`GROUP BY`",
            Join => "join",
            Order => "`ORDER BY`, top-k",
            MinMax => "`min`, `max`",
            Distinct => "`count(DISTINCT)`",
            Key => "key of a view",
            SourceKey => "key of the captured table",
        }
    }

    /// The query over table `t`, and the primary key of its answer. Answers but those of `Pass`,
    /// `MinMax` and the keys are numbers, so that those of all types fit one view.
    pub(crate) fn query(self, kind: &Kind) -> (String, &'static str) {
        let literal = |at: usize| kind.values[at.min(kind.values.len() - 1)];
        self.over(&Subject {
            table: "t",
            column: kind.column(),
            group: kind.group(),
            one: literal(0),
            other: literal(1),
        })
    }

    /// The same over a column of any table.
    pub(crate) fn over(self, subject: &Subject<'_>) -> (String, &'static str) {
        let Subject {
            table,
            column: c,
            group: g,
            one,
            other,
        } = subject;
        let cell = g * 100 + self as usize;
        let rows = |condition: String| {
            let query =
                format!("SELECT {cell} AS cell, id FROM {table} WHERE g = {g} AND {condition}");
            (query, "cell, id")
        };
        match self {
            Pass => (format!("SELECT id, {c} FROM {table}"), "id"),
            Equal => rows(format!("{c} = {one}")),
            In => rows(format!("{c} IN ({one}, {other})")),
            Less => rows(format!("{c} < {one}")),
            IsNull => rows(format!("{c} IS NULL")),
            Group => {
                let query = format!(
                    "SELECT {cell} AS cell, min(id) AS least, max(id) AS most, count(*) AS n
                     FROM {table} WHERE g = {g} GROUP BY {c}"
                );
                (query, "cell, least")
            }
            Join => {
                let query = format!(
                    "SELECT {cell} AS cell, a.id AS one, b.id AS other FROM {table} a JOIN {table} b
                     ON a.{c} = b.{c} WHERE a.g = {g} AND b.g = {g}"
                );
                (query, "cell, one, other")
            }
            Order => {
                let query = format!(
                    "SELECT {cell} AS cell, up AS place, id FROM (SELECT id, row_number() OVER
                       (PARTITION BY g ORDER BY {c}, id) AS up FROM {table} WHERE g = {g}) AS placed
                     WHERE up <= 5
                     UNION ALL
                     SELECT {cell} AS cell, -down AS place, id FROM (SELECT id, row_number() OVER
                       (PARTITION BY g ORDER BY {c} DESC NULLS LAST, id) AS down FROM {table}
                        WHERE g = {g}) AS placed WHERE down <= 5"
                );
                (query, "cell, place")
            }
            MinMax => {
                let extremes = format!("min({c}) AS min_{c}, max({c}) AS max_{c}");
                (format!("SELECT g, {extremes} FROM {table} GROUP BY g"), "g")
            }
            Distinct => {
                let query = format!(
                    "SELECT {cell} AS cell, count(DISTINCT {c}) AS n FROM {table} WHERE g = {g}
                     GROUP BY g"
                );
                (query, "cell")
            }
            Key => {
                let query = format!(
                    "SELECT {c} AS k, count(*) AS n FROM {table} WHERE g = {g} AND {c} IS NOT NULL
                     GROUP BY {c}"
                );
                (query, "k")
            }
            SourceKey => (format!("SELECT n, k FROM k{g}"), "n"),
        }
    }

    /// The same question in other words, for types that PostgreSQL has no such operator or
    /// aggregate of, though it compares their values.
    pub(crate) fn in_other_words(self, kind: &Kind) -> Option<String> {
        let (c, g) = (kind.column(), kind.group());
        let cell = g * 100 + self as usize;
        let query = self.query(kind).0;
        match (self, kind.name) {
            // A domain over an enum has no operators.
            (Equal | In | Less | Join, "feeling") => {
                let names = [format!("a.{c}"), format!("b.{c}"), format!(" {c} ")];
                Some(names.iter().fold(query, |query, name| {
                    query.replace(name.as_str(), &format!(" CAST({} AS mood) ", name.trim()))
                }))
            }
            (MinMax, _) => {
                let of = |order: &str| {
                    format!(
                        "(array_agg({c} ORDER BY {c} {order}) FILTER (WHERE {c} IS NOT NULL))[1]"
                    )
                };
                let (least, most) = (of("ASC"), of("DESC"));
                Some(format!(
                    "SELECT g, {least} AS min_{c}, {most} AS max_{c} FROM t GROUP BY g"
                ))
            }
            (Distinct, _) => Some(format!(
                "SELECT {cell} AS cell, (SELECT count(*) FROM (SELECT {c} FROM t
                   WHERE g = {g} AND {c} IS NOT NULL GROUP BY {c}) AS x) AS n"
            )),
            _ => None,
        }
    }
}
