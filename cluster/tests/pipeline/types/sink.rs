//! A view's rows as the sink holds them, written as PostgreSQL writes the values. No code of the
//! pipeline reads them.

use std::fmt::Write as _;

use postgres::types::Type;
use rusqlite::types::Value;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::value::{CqlDate, CqlTimestamp, CqlValue, Row};
use tokio::runtime::Runtime;

use crate::types::source::{Column, Rows};

/// Where views are kept.
pub(crate) enum Sink {
    File(String),
    Cassandra {
        keyspace: String,
        runtime: Runtime,
        session: Box<Session>,
    },
}

impl Sink {
    pub(crate) fn open(url: &str) -> Self {
        if let Some(file) = url.strip_prefix("sqlite://") {
            return Self::File(file.to_owned());
        }
        let (nodes, keyspace) = url.rsplit_once('/').unwrap();
        let nodes = nodes.trim_start_matches("cassandra://").split(',');
        let runtime = Runtime::new().unwrap();
        let session = SessionBuilder::new().known_nodes(nodes);
        let session = runtime.block_on(session.build()).unwrap();
        Self::Cassandra {
            keyspace: keyspace.to_owned(),
            runtime,
            session: Box::new(session),
        }
    }

    /// Digits of a second that its timestamps have.
    pub(crate) fn digits(&self) -> usize {
        match self {
            Self::File(_) => 6,
            Self::Cassandra { .. } => 3,
        }
    }

    /// Whether a value can be the key of a row. Cassandra has no empty key, and none of a moment
    /// that it does not keep.
    pub(crate) fn takes_as_key(&self, text: &str, kind: &Type) -> bool {
        let Self::Cassandra { .. } = self else {
            return true;
        };
        let (_, fraction) = text.split_once('.').unwrap_or_default();
        let is_fine = fraction.trim_end_matches("+00").len() > 3;
        let is_moment = matches!(*kind, Type::TIMESTAMP | Type::TIMESTAMPTZ);
        let is_empty = matches!(text, "" | "\\x");
        !(is_empty || is_moment && is_fine)
    }

    /// A connection for many views: to the file, which takes long to learn of all of its tables.
    pub(crate) fn connection(&self) -> Option<rusqlite::Connection> {
        let Self::File(file) = self else { return None };
        let file = rusqlite::Connection::open(file).unwrap();
        let patience = std::time::Duration::from_secs(20);
        file.busy_timeout(patience).unwrap();
        Some(file)
    }

    /// The rows of a view; none while it is not there.
    pub(crate) fn rows(&self, view: &str, columns: &[Column]) -> Option<Rows> {
        self.rows_by(self.connection().as_ref(), view, columns)
    }

    /// The same, by a connection that is there.
    pub(crate) fn rows_by(
        &self,
        connection: Option<&rusqlite::Connection>,
        view: &str,
        columns: &[Column],
    ) -> Option<Rows> {
        let names = columns.iter().map(|column| format!("\"{}\"", column.name));
        let names = names.collect::<Vec<_>>().join(", ");
        match self {
            Self::File(_) => {
                let sql = format!("SELECT {names} FROM {view}");
                let mut query = connection?.prepare(&sql).ok()?;
                let rows = query.query_map([], |row| {
                    let cells = columns.iter().enumerate();
                    let cells = cells.map(|(at, column)| Ok(of_file(row.get(at)?, &column.kind)));
                    cells.collect()
                });
                Some(rows.unwrap().map(Result::unwrap).collect())
            }
            Self::Cassandra {
                keyspace,
                runtime,
                session,
            } => {
                let cql = format!("SELECT {names} FROM \"{keyspace}\".\"{view}\"");
                let answer = runtime.block_on(session.query_unpaged(cql, ())).ok()?;
                let answer = answer.into_rows_result().unwrap();
                let rows = answer.rows::<Row>().unwrap().map(|row| {
                    let cells = row.unwrap().columns.into_iter().zip(columns);
                    cells
                        .map(|(value, column)| value.map(|it| of_cassandra(it, &column.kind)))
                        .collect()
                });
                Some(rows.collect())
            }
        }
    }

    /// Leaves nothing behind.
    pub(crate) fn drop_all(&self) {
        if let Self::Cassandra {
            keyspace,
            runtime,
            session,
        } = self
        {
            let cql = format!("DROP KEYSPACE IF EXISTS \"{keyspace}\"");
            runtime.block_on(session.query_unpaged(cql, ())).unwrap();
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("\\x".to_owned(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

fn of_file(value: Value, kind: &Type) -> Option<String> {
    Some(match (value, kind) {
        (Value::Null, _) => return None,
        (Value::Integer(number @ 0..=1), &Type::BOOL) => ["f", "t"][number as usize].to_owned(),
        (Value::Integer(number), _) => number.to_string(),
        (Value::Real(number), &Type::FLOAT4) => (number as f32).to_string(),
        (Value::Real(number), _) => number.to_string(),
        (Value::Blob(bytes), _) => hex(&bytes),
        (Value::Text(text), &Type::TIMESTAMP) => text.replace('T', " "),
        (Value::Text(text), &Type::TIMESTAMPTZ) => text.replace('T', " ") + "+00",
        (Value::Text(text), _) => text,
    })
}

fn of_cassandra(value: CqlValue, kind: &Type) -> String {
    match value {
        CqlValue::Boolean(bool) => ["f", "t"][usize::from(bool)].to_owned(),
        CqlValue::Int(number) => number.to_string(),
        CqlValue::BigInt(number) => number.to_string(),
        CqlValue::Double(number) => number.to_string(),
        CqlValue::Float(number) => number.to_string(),
        CqlValue::Text(text) => text,
        CqlValue::Blob(bytes) => hex(&bytes),
        CqlValue::Empty => String::new(),
        CqlValue::Timestamp(CqlTimestamp(ms)) => {
            let zone = if *kind == Type::TIMESTAMPTZ {
                "+00"
            } else {
                ""
            };
            let epoch = jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0);
            let at = epoch.checked_add(jiff::SignedDuration::from_millis(ms));
            at.unwrap().to_string().replace('T', " ") + zone
        }
        CqlValue::Date(CqlDate(days)) => {
            let days = i64::from(days) - (1 << 31);
            let epoch = jiff::civil::date(1970, 1, 1);
            let date = epoch.checked_add(jiff::Span::new().days(days));
            date.unwrap().to_string()
        }
        CqlValue::Decimal(number) => {
            let (bytes, scale) = number.as_signed_be_bytes_slice_and_exponent();
            let first = bytes.first().is_some_and(|first| first & 0x80 != 0);
            let digits = bytes
                .iter()
                .fold(if first { -1_i128 } else { 0 }, |sum, byte| {
                    (sum << 8) | i128::from(*byte)
                });
            point(digits, usize::try_from(scale).unwrap())
        }
        other => panic!("{other:?} is no value of these views"),
    }
}

fn point(unscaled: i128, scale: usize) -> String {
    let sign = if unscaled < 0 { "-" } else { "" };
    let digits = unscaled.unsigned_abs();
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let point = if scale > 0 { "." } else { "" };
    format!("{sign}{whole}{point}{fraction}")
}
