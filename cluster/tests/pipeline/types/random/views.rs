//! Random views over a random table: what docs/types.md says is right of its columns' types.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};

use super::kinds::may;
use super::table::{Column, Table, quote};
use crate::types::cells::Operation;
use crate::types::cells::Operation::{
    Distinct, Equal, Group, In, IsNull, Join, Key, Less, MinMax, Order,
};

/// Views of a table beside the one of all its columns.
const VIEWS: usize = 1;

/// A view; PostgreSQL is asked the same SQL.
pub(super) struct View {
    pub(super) name: String,
    pub(super) key: String,
    pub(super) sql: String,
}

impl View {
    /// The statement in `views.sql`.
    pub(super) fn statement(&self) -> String {
        format!(
            "CREATE MATERIALIZED VIEW {} WITH (primary_key = '{}') AS {};\n",
            self.name, self.key, self.sql
        )
    }
}

/// What makes a view of a table, if its columns allow it.
type Form = fn(&Table, &Table, &mut StdRng) -> Option<(String, String)>;

const FORMS: [(&str, Form); 7] = [
    ("grouped", Table::grouped),
    ("filtered", Table::filtered),
    ("joined", Table::joined),
    ("distinct", Table::distinct),
    ("placed", Table::placed),
    ("first", Table::first),
    ("both", Table::both),
];

impl Table {
    /// The views over it, some beside `other`.
    pub(super) fn views(&self, other: &Self, rng: &mut StdRng) -> Vec<View> {
        let view = |form: &str, (key, sql)| View {
            name: format!("{form}{}", self.number),
            key,
            sql,
        };
        let mut views = vec![view("every", self.every())];
        let mut forms = FORMS;
        forms.shuffle(rng);
        for (name, form) in forms {
            if views.len() <= VIEWS
                && let Some(made) = form(self, other, rng)
            {
                views.push(view(name, made));
            }
        }
        views
    }

    /// A random column whose type may be used so.
    fn that(&self, operations: &[Operation], rng: &mut StdRng) -> Option<&Column> {
        let keys = operations.contains(&Key);
        let may = |column: &&Column| {
            operations.iter().all(|it| may(column.kind, *it)) && (!keys || self.may_key(column))
        };
        let all: Vec<&Column> = self.columns.iter().filter(may).collect();
        all.choose(rng).copied()
    }

    /// The key's columns of `alias`, named for the view, and their names there.
    fn keys(&self, alias: &str) -> (String, String) {
        let key = self.columns[..self.key].iter().enumerate();
        let named = key.map(|(at, column)| {
            let name = format!("{alias}{at}");
            (format!("{alias}.{} AS {name}", quote(&column.name)), name)
        });
        let (selected, names): (Vec<String>, Vec<String>) = named.unzip();
        (selected.join(", "), names.join(", "))
    }

    fn every(&self) -> (String, String) {
        let columns = self.columns.iter().enumerate();
        let columns = columns.map(|(at, column)| format!("{} AS c{at}", quote(&column.name)));
        let columns: Vec<String> = columns.collect();
        let key: Vec<String> = (0..self.key).map(|at| format!("c{at}")).collect();
        let sql = format!("SELECT {} FROM {}", columns.join(", "), self.name());
        (key.join(", "), sql)
    }

    fn grouped(&self, _: &Self, rng: &mut StdRng) -> Option<(String, String)> {
        let by = quote(&self.that(&[Group, Key], rng)?.name);
        let mut outputs = vec![format!("{by} AS k"), "count(*) AS n".to_owned()];
        for (at, column) in self.columns.iter().enumerate() {
            let c = quote(&column.name);
            outputs.push(format!("count({c}) AS n{at}"));
            if may(column.kind, MinMax) {
                outputs.push(format!("min({c}) AS l{at}, max({c}) AS g{at}"));
            }
            if may(column.kind, Distinct) {
                outputs.push(format!("count(DISTINCT {c}) AS d{at}"));
            }
        }
        let (outputs, name) = (outputs.join(", "), self.name());
        let having = ["", "", " HAVING count(*) > 1"].choose(rng).unwrap();
        let sql =
            format!("SELECT {outputs} FROM {name} WHERE {by} IS NOT NULL GROUP BY {by}{having}");
        Some(("k".to_owned(), sql))
    }

    fn filtered(&self, _: &Self, rng: &mut StdRng) -> Option<(String, String)> {
        let (operation, column) = match rng.random_range(0..4) {
            0 => (Equal, self.that(&[Equal], rng)?),
            1 => (In, self.that(&[In], rng)?),
            2 => (Less, self.that(&[Less], rng)?),
            _ => (IsNull, self.that(&[IsNull], rng)?),
        };
        let c = quote(&column.name);
        // As PostgreSQL writes them: texts that it writes otherwise are refused by name.
        let values = column.kind.values;
        let (one, two) = (values[0], values[1.min(values.len() - 1)]);
        let condition = match operation {
            Equal => format!("{c} = {one}"),
            In => format!("{c} IN ({one}, {two})"),
            Less => format!("NOT {c} < {two}"),
            _ => format!("{c} IS NULL"),
        };
        let ((keys, names), name) = (self.keys("a"), self.name());
        let sql = format!("SELECT {keys}, a.{c} AS v FROM {name} a WHERE {condition}");
        Some((names, sql))
    }

    fn joined(&self, other: &Self, rng: &mut StdRng) -> Option<(String, String)> {
        let column = self.that(&[Join], rng)?;
        let same = |it: &&Column| it.kind.name == column.kind.name;
        let (other, beside) = match other.columns.iter().find(same) {
            Some(beside) => (other, beside),
            None => (self, column),
        };
        let ((ours, our_names), (theirs, their_names)) = (self.keys("a"), other.keys("b"));
        let sql = format!(
            "SELECT {ours}, {theirs} FROM {} a JOIN {} b ON a.{} = b.{}",
            self.name(),
            other.name(),
            quote(&column.name),
            quote(&beside.name)
        );
        Some((format!("{our_names}, {their_names}"), sql))
    }

    fn distinct(&self, _: &Self, rng: &mut StdRng) -> Option<(String, String)> {
        let c = quote(&self.that(&[Group, Key], rng)?.name);
        let sql = format!(
            "SELECT DISTINCT {c} AS k FROM {} WHERE {c} IS NOT NULL",
            self.name()
        );
        Some(("k".to_owned(), sql))
    }

    /// How rows of the table are ordered, if its key can be.
    fn order(&self, rng: &mut StdRng) -> Option<String> {
        let key = &self.columns[..self.key];
        let orders = key.iter().all(|column| may(column.kind, Order));
        let by = quote(&self.that(&[Order], rng)?.name);
        let direction = ["", " DESC", " DESC NULLS LAST", " NULLS FIRST"].choose(rng)?;
        orders.then(|| format!("{by}{direction}, {}", self.key_list()))
    }

    fn placed(&self, _: &Self, rng: &mut StdRng) -> Option<(String, String)> {
        let by = quote(&self.that(&[Group], rng)?.name);
        let ((keys, names), order) = (self.keys("a"), self.order(rng)?);
        let sql = format!(
            "SELECT {names}, place FROM (SELECT {keys}, row_number() OVER (PARTITION BY {by} ORDER \
             BY {order}) AS place FROM {} a) AS places WHERE place <= 2",
            self.name()
        );
        Some((names, sql))
    }

    fn first(&self, _: &Self, rng: &mut StdRng) -> Option<(String, String)> {
        let ((keys, names), order) = (self.keys("a"), self.order(rng)?);
        let sql = format!(
            "SELECT {keys} FROM {} a ORDER BY {order} LIMIT 3",
            self.name()
        );
        Some((names, sql))
    }

    fn both(&self, other: &Self, _: &mut StdRng) -> Option<(String, String)> {
        let (one, two) = (&self.columns[0], &other.columns[0]);
        (one.kind.name == two.kind.name).then(|| {
            let sql = format!(
                "SELECT k, count(*) AS n FROM (SELECT {} AS k FROM {} UNION ALL SELECT {} AS k \
                 FROM {}) AS both_of_them GROUP BY k",
                quote(&one.name),
                self.name(),
                quote(&two.name),
                other.name()
            );
            ("k".to_owned(), sql)
        })
    }
}
