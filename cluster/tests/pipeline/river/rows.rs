//! What a view holds in Cassandra, and what PostgreSQL answers to the view's own SQL, both as
//! sorted rows of text.
//!
//! The text is exact: numbers without trailing zeros, doubles with all their digits, timestamps as
//! milliseconds. Where PostgreSQL averages integers it answers with a decimal of 16 digits or more,
//! whose nearest double may be the neighbour of the exact quotient that a view holds: there, and
//! there alone, one unit in the last place is allowed.

use postgres::Client;
use postgres::types::Type;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::frame::response::result::{ColumnType, NativeType};
use scylla::value::{CqlDate, CqlTimestamp, CqlValue, Row};
use tokio::runtime::Runtime;

use crate::river::child::Tidemill;

/// Rows as text; a null is none.
pub(crate) type Rows = Vec<Vec<Option<String>>>;

/// A view as `views.sql` says it.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) name: String,
    pub(crate) sql: String,
}

impl View {
    /// The views of a `views.sql` that are written somewhere.
    pub(crate) fn all(views: &str) -> Vec<Self> {
        let statements = views.split("CREATE MATERIALIZED VIEW ").skip(1);
        statements
            .map(|statement| {
                let (head, rest) = statement.split_once(") AS").unwrap();
                let (sql, _) = rest.split_once(';').unwrap();
                let name = head.split_whitespace().next().unwrap().to_owned();
                let sql = sql.trim().to_owned();
                Self { name, sql }
            })
            .collect()
    }
}

/// A column as Cassandra has it.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: NativeType,
}

/// A keyspace, read with a client of its own.
pub(crate) struct Keyspace {
    name: String,
    runtime: Runtime,
    session: Session,
}

impl Keyspace {
    pub(crate) fn new(cassandra: &str, name: &str) -> Self {
        let nodes = cassandra.trim_start_matches("cassandra://");
        let nodes: Vec<&str> = nodes.trim_end_matches('/').split(',').collect();
        let runtime = Runtime::new().unwrap();
        let session = SessionBuilder::new().known_nodes(nodes);
        let session = runtime.block_on(session.build()).unwrap();
        Self {
            name: name.to_owned(),
            runtime,
            session,
        }
    }

    fn query(&self, cql: &str) -> Result<(Vec<Column>, Vec<Row>), String> {
        let asked = self.session.query_unpaged(cql, ());
        let answer = self.runtime.block_on(asked).map_err(|e| e.to_string())?;
        let answer = answer.into_rows_result().map_err(|e| e.to_string())?;
        let columns = answer.column_specs().iter().map(|spec| Column {
            name: spec.name().to_owned(),
            kind: match spec.typ() {
                ColumnType::Native(kind) => kind.clone(),
                other => panic!("{}: {other:?} is no column of ours", spec.name()),
            },
        });
        let columns = columns.collect();
        let rows = answer.rows::<Row>().unwrap();
        Ok((columns, rows.map(Result::unwrap).collect()))
    }

    /// The columns and rows of a view, or why it cannot be read (it may not be there yet).
    pub(crate) fn read(&self, view: &str) -> Result<(Vec<Column>, Rows), String> {
        let (columns, rows) = self.query(&format!("SELECT * FROM \"{}\".\"{view}\"", self.name))?;
        Ok((columns, texts(rows)))
    }

    /// The rows of a view that must be there.
    pub(crate) fn rows(&self, view: &str) -> Rows {
        self.read(view).unwrap().1
    }

    /// Of each row its key and when each of its other columns was written.
    pub(crate) fn written(&self, view: &str) -> Rows {
        let (keys, others) = self.columns(view);
        let times = others.iter().map(|name| format!("WRITETIME(\"{name}\")"));
        let asked: Vec<String> = keys.into_iter().chain(times).collect();
        let asked = asked.join(", ");
        let cql = format!("SELECT {asked} FROM \"{}\".\"{view}\"", self.name);
        texts(self.query(&cql).unwrap().1)
    }

    /// The names of the key columns, quoted, and of the others.
    fn columns(&self, view: &str) -> (Vec<String>, Vec<String>) {
        let cql = format!(
            "SELECT column_name, kind FROM system_schema.columns \
             WHERE keyspace_name = '{}' AND table_name = '{view}'",
            self.name
        );
        let (mut keys, mut others) = (Vec::new(), Vec::new());
        for row in texts(self.query(&cql).unwrap().1) {
            let name = row[0].clone().unwrap();
            match row[1].as_deref() {
                Some("regular") => others.push(name),
                _ => keys.push(format!("\"{name}\"")),
            }
        }
        (keys, others)
    }

    /// Away with all of it; a keyspace that is not there is as well.
    pub(crate) fn drop_keyspace(&self) {
        let cql = format!("DROP KEYSPACE IF EXISTS \"{}\"", self.name);
        let dropped = self.session.query_unpaged(cql, ());
        if let Err(error) = self.runtime.block_on(dropped) {
            eprintln!("keyspace {}: not dropped: {error}", self.name);
        }
    }
}

fn texts(rows: Vec<Row>) -> Rows {
    let text = |row: Row| {
        row.columns
            .into_iter()
            .map(|value| value.map(text))
            .collect()
    };
    let mut rows: Rows = rows.into_iter().map(text).collect();
    rows.sort();
    rows
}

fn text(value: CqlValue) -> String {
    match value {
        CqlValue::Boolean(bool) => bool.to_string(),
        CqlValue::Int(number) => number.to_string(),
        CqlValue::BigInt(number) => number.to_string(),
        CqlValue::Double(number) => format!("{number:?}"),
        CqlValue::Float(number) => format!("{:?}", f64::from(number)),
        CqlValue::Text(text) => text,
        CqlValue::Empty => String::new(),
        CqlValue::Timestamp(CqlTimestamp(ms)) => ms.to_string(),
        CqlValue::Date(CqlDate(days)) => (i64::from(days) - (1 << 31)).to_string(),
        CqlValue::Decimal(number) => {
            let (bytes, scale) = number.as_signed_be_bytes_slice_and_exponent();
            let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
            let unscaled = bytes
                .iter()
                .fold(if negative { -1 } else { 0 }, |sum, byte| {
                    (sum << 8) | i128::from(*byte)
                });
            decimal(unscaled, usize::try_from(scale).unwrap())
        }
        other => panic!("{other:?} is no value of ours"),
    }
}

/// A decimal without trailing zeros.
fn decimal(unscaled: i128, scale: usize) -> String {
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let fraction = fraction.trim_end_matches('0');
    let sign = if unscaled < 0 { "-" } else { "" };
    match fraction {
        "" => format!("{sign}{whole}"),
        _ => format!("{sign}{whole}.{fraction}"),
    }
}

/// What PostgreSQL answers to `sql`, in the columns and types that Cassandra has, and of each
/// column whether it is an average that PostgreSQL rounded to a decimal.
pub(crate) fn answer(client: &mut Client, sql: &str, columns: &[Column]) -> (Rows, Vec<bool>) {
    answered(client, sql, columns).unwrap()
}

/// The same, or why the columns are not those that PostgreSQL answers with.
fn answered(
    client: &mut Client,
    sql: &str,
    columns: &[Column],
) -> Result<(Rows, Vec<bool>), String> {
    let prepared = client.prepare(sql).unwrap();
    assert_eq!(prepared.columns().len(), columns.len(), "columns of {sql}");
    let rounded = |column: &Column| {
        let found = prepared.columns().iter().find(|c| c.name() == column.name);
        let found = found.ok_or_else(|| format!("no column {} in {sql}", column.name))?;
        Ok(column.kind == NativeType::Double && *found.type_() == Type::NUMERIC)
    };
    let rounded = columns.iter().map(rounded).collect::<Result<_, String>>()?;
    let asked: Vec<String> = columns.iter().map(asked).collect();
    let wrapped = format!("SELECT {} FROM ({sql}) AS answer", asked.join(", "));
    let mut rows: Rows = Vec::new();
    for row in client.query(&wrapped, &[]).map_err(|e| e.to_string())? {
        let value = |(at, column): (usize, &Column)| {
            let text: Option<String> = row.get(at);
            text.map(|text| match column.kind {
                NativeType::Double | NativeType::Float => {
                    format!("{:?}", text.parse::<f64>().unwrap())
                }
                _ => text,
            })
        };
        rows.push(columns.iter().enumerate().map(value).collect());
    }
    rows.sort();
    Ok((rows, rounded))
}

fn asked(column: &Column) -> String {
    let name = format!("\"{}\"", column.name);
    match column.kind {
        NativeType::Int | NativeType::BigInt | NativeType::Decimal => {
            format!("trim_scale({name}::numeric)::text")
        }
        NativeType::Double | NativeType::Float => format!("{name}::float8::text"),
        NativeType::Timestamp => format!("trim_scale(extract(epoch FROM {name}) * 1000)::text"),
        NativeType::Date => format!("({name} - date '1970-01-01')::text"),
        _ => format!("{name}::text"),
    }
}

/// How two sets of rows differ; none when they do not.
pub(crate) fn difference(found: &Rows, expected: &Rows, rounded: &[bool]) -> Option<String> {
    let same = |a: &Vec<Option<String>>, b: &Vec<Option<String>>| {
        a.iter().zip(b).zip(rounded).all(|((a, b), rounded)| {
            a == b || *rounded && matches!((a, b), (Some(a), Some(b)) if neighbours(a, b))
        })
    };
    let differs = found.iter().zip(expected).find(|(a, b)| !same(a, b));
    if found.len() == expected.len() && differs.is_none() {
        return None;
    }
    let (found_rows, expected_rows) = (found.len(), expected.len());
    Some(format!(
        "{found_rows} rows in Cassandra, {expected_rows} in PostgreSQL; the first that differ: \
         {differs:?}"
    ))
}

/// Whether two doubles are at most one unit in the last place apart.
fn neighbours(a: &str, b: &str) -> bool {
    let bits = |text: &str| text.parse::<f64>().map(|number| number.to_bits() as i64);
    matches!((bits(a), bits(b)), (Ok(a), Ok(b)) if a.abs_diff(b) <= 1)
}

/// How a view in Cassandra differs from PostgreSQL's answer to its SQL.
pub(crate) fn unlike(keyspace: &Keyspace, client: &mut Client, view: &View) -> Option<String> {
    let name = &view.name;
    match keyspace.read(name) {
        Err(error) => Some(format!("{name}: {error}")),
        Ok((columns, found)) => {
            let differs = match answered(client, &view.sql, &columns) {
                Ok((expected, rounded)) => difference(&found, &expected, &rounded),
                Err(other) => Some(other),
            };
            differs.map(|what| format!("{name}: {what}"))
        }
    }
}

/// Waits until every view is what PostgreSQL answers to its SQL.
#[track_caller]
pub(crate) fn settle(
    tidemill: &mut Tidemill,
    keyspace: &Keyspace,
    client: &mut Client,
    views: &[View],
) {
    let mut last = String::new();
    for view in views {
        let what = format!("view {} as PostgreSQL answers", view.name);
        tidemill.until(&what, || match unlike(keyspace, client, view) {
            None => Some(()),
            Some(now) => {
                if now != last {
                    eprintln!("{now}");
                    last = now;
                }
                None
            }
        });
    }
    expect_alike(keyspace, client, views);
}

/// Every view is what PostgreSQL answers to its SQL.
#[track_caller]
pub(crate) fn expect_alike(keyspace: &Keyspace, client: &mut Client, views: &[View]) {
    let unlike: Vec<String> = views
        .iter()
        .filter_map(|view| unlike(keyspace, client, view))
        .collect();
    assert!(unlike.is_empty(), "{}", unlike.join("\n"));
}

#[test]
fn decimals_have_no_trailing_zeros() {
    assert_eq!(decimal(1230, 2), "12.3");
    assert_eq!(decimal(-5, 2), "-0.05");
    assert_eq!(decimal(700, 2), "7");
    assert_eq!(decimal(0, 2), "0");
}

#[test]
fn a_difference_is_found() {
    let rows = |text: &str| vec![vec![Some(text.to_owned())]];
    assert_eq!(difference(&rows("1.5"), &rows("1.5"), &[false]), None);
    assert!(difference(&rows("1.5"), &rows("1.6"), &[true]).is_some());
    assert!(difference(&rows("1.5"), &Vec::new(), &[false]).is_some());
    let next = f64::from_bits(1.5_f64.to_bits() + 1).to_string();
    assert_eq!(difference(&rows("1.5"), &rows(&next), &[true]), None);
    assert!(difference(&rows("1.5"), &rows(&next), &[false]).is_some());
}
