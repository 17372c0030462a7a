//! The landing database as somebody else changes and reads it: PostgreSQL, or an SQLite file.

use std::collections::BTreeSet;

use rusqlite::types::ValueRef;

use super::{PATIENCE, until};

/// The landing database, as somebody else changes and reads it.
pub(crate) enum Database {
    Sqlite(rusqlite::Connection),
    Postgres(Box<postgres::Client>),
}

impl Database {
    pub(crate) fn open(url: &str) -> Self {
        match url.strip_prefix("sqlite://") {
            Some(file) => Self::Sqlite(tidemill_log::sqlite::connect(file).unwrap()),
            None => {
                let client = postgres::Client::connect(url, postgres::NoTls).unwrap();
                Self::Postgres(Box::new(client))
            }
        }
    }

    pub(crate) fn execute(&mut self, sql: &str) -> bool {
        match self {
            Self::Sqlite(file) => file.execute_batch(sql).is_ok(),
            Self::Postgres(client) => client.batch_execute(sql).is_ok(),
        }
    }

    pub(crate) fn rows(&mut self, sql: &str) -> BTreeSet<Vec<String>> {
        match self {
            Self::Sqlite(file) => {
                let mut query = file.prepare(sql).unwrap();
                let columns = query.column_count();
                let rows = query.query_map([], |row| {
                    (0..columns)
                        .map(|column| Ok(text(row.get_ref(column)?)))
                        .collect()
                });
                rows.unwrap().map(Result::unwrap).collect()
            }
            Self::Postgres(client) => {
                let messages = client.simple_query(sql).unwrap();
                let rows = messages.iter().filter_map(|message| match message {
                    postgres::SimpleQueryMessage::Row(row) => Some(row),
                    _ => None,
                });
                let text = |row: &postgres::SimpleQueryRow, column| {
                    row.get(column).unwrap_or_default().to_owned()
                };
                rows.map(|row| (0..row.len()).map(|column| text(row, column)).collect())
                    .collect()
            }
        }
    }

    /// Leaves nothing of a pipeline in a PostgreSQL that others use too.
    pub(crate) fn clean(&mut self, pipeline: &str, tables: &[&str]) {
        let slot = format!("tidemill_{pipeline}");
        until("the replication slot is free", PATIENCE, || {
            let drop = format!(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                 WHERE slot_name = '{slot}'"
            );
            self.execute(&drop).then_some(())
        });
        self.execute(&format!("DROP PUBLICATION IF EXISTS {slot}"));
        for table in tables {
            self.execute(&format!("DROP TABLE {table}"));
        }
    }
}

fn text(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(text) | ValueRef::Blob(text) => String::from_utf8_lossy(text).into_owned(),
    }
}
