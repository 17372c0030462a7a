//! Somebody else at the views' tables, with CQL or SQL of their own.

use std::collections::BTreeMap;

use rusqlite::Connection;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::value::{CqlValue, Row};
use tokio::runtime::Runtime;

use crate::harness::Place;

/// A connection to the tables.
pub(crate) enum Tables {
    Sqlite(Connection),
    Cassandra(Runtime, Box<Session>),
}

impl Tables {
    /// Connects, once the keyspace is there.
    pub(crate) fn of(place: &Place) -> Self {
        if let Some(file) = place.sink.strip_prefix("sqlite://") {
            return Self::Sqlite(tidemill_log::sqlite::connect(file).unwrap());
        }
        let rest = place.sink.strip_prefix("cassandra://").unwrap();
        let (node, keyspace) = rest.split_once('/').unwrap();
        let runtime = Runtime::new().unwrap();
        let session = runtime.block_on(async {
            let session = SessionBuilder::new()
                .known_node(node)
                .build()
                .await
                .unwrap();
            session.use_keyspace(keyspace, true).await.unwrap();
            session
        });
        Self::Cassandra(runtime, Box::new(session))
    }

    pub(crate) fn is_cassandra(&self) -> bool {
        matches!(self, Self::Cassandra(..))
    }

    /// Runs a statement that both engines know.
    pub(crate) fn run(&self, statement: &str) {
        match self {
            Self::Sqlite(file) => file.execute_batch(statement).unwrap(),
            Self::Cassandra(runtime, session) => {
                runtime
                    .block_on(session.query_unpaged(statement, ()))
                    .unwrap();
            }
        }
    }

    /// Inserts a row of which only these columns are known.
    pub(crate) fn insert(&self, view: &str, columns: &str, values: &str) {
        match self {
            Self::Sqlite(_) => self.run(&format!(
                "INSERT INTO {view} ({columns}, _epoch) VALUES ({values}, 0)"
            )),
            Self::Cassandra(..) => {
                self.run(&format!("INSERT INTO {view} ({columns}) VALUES ({values})"));
            }
        }
    }

    /// By its first column, another column of each row; the last of several.
    pub(crate) fn cells(&self, view: &str, column: &str) -> BTreeMap<String, String> {
        let key = if view == "by_country" || view == "oldest" {
            "country"
        } else {
            "id"
        };
        self.pairs(&format!("SELECT {key}, {column} FROM {view}"))
    }

    /// When each row was written, as the engine keeps it.
    pub(crate) fn versions(&self, view: &str, column: &str) -> BTreeMap<String, String> {
        match self {
            Self::Sqlite(_) => self.cells(view, "_epoch || ' ' || rowid"),
            Self::Cassandra(..) => self.cells(view, &format!("WRITETIME({column})")),
        }
    }

    fn pairs(&self, select: &str) -> BTreeMap<String, String> {
        match self {
            Self::Sqlite(file) => {
                let mut query = file.prepare(select).unwrap();
                let pair = |row: &rusqlite::Row<'_>| {
                    let value: rusqlite::types::Value = row.get(1)?;
                    Ok((row.get(0)?, sqlite_text(&value)))
                };
                let pairs = query.query_map([], pair).unwrap();
                pairs.map(Result::unwrap).collect()
            }
            Self::Cassandra(runtime, session) => {
                let asked = session.query_unpaged(select, ());
                let answer = runtime.block_on(asked).unwrap().into_rows_result().unwrap();
                let pair = |row: Row| {
                    let mut texts = row.columns.into_iter().map(cql_text);
                    (texts.next().unwrap(), texts.next().unwrap())
                };
                answer
                    .rows::<Row>()
                    .unwrap()
                    .map(|row| pair(row.unwrap()))
                    .collect()
            }
        }
    }
}

fn sqlite_text(value: &rusqlite::types::Value) -> String {
    use rusqlite::types::Value;
    match value {
        Value::Null => "null".to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        Value::Blob(bytes) => format!("{bytes:?}"),
    }
}

fn cql_text(value: Option<CqlValue>) -> String {
    match value {
        None => "null".to_owned(),
        Some(CqlValue::Text(text)) => text,
        Some(CqlValue::BigInt(number)) => number.to_string(),
        Some(CqlValue::Int(number)) => number.to_string(),
        Some(other) => format!("{other:?}"),
    }
}
