//! Views beside what PostgreSQL answers to the same SQL, many at a time.

use std::collections::HashMap;

use postgres::SimpleQueryMessage;
use rusqlite::Connection;

use super::views::View;
use crate::types::same::difference;
use crate::types::sink::Sink;
use crate::types::source::{Column, Rows, Source, as_texts};

/// Views that PostgreSQL is asked for in one message.
const AT_A_TIME: usize = 50;

/// The types of the columns of queries, by their SQL.
#[derive(Default)]
pub(super) struct Judge {
    columns: HashMap<String, Vec<Column>>,
}

/// A view that is not yet what PostgreSQL answers.
pub(super) struct Awaited {
    pub(super) name: String,
    pub(super) sql: String,
    columns: Vec<Column>,
    expected: Rows,
}

impl Judge {
    /// Whether nobody was asked yet.
    pub(super) fn is_new(&self) -> bool {
        self.columns.is_empty()
    }

    /// Whether PostgreSQL can answer the view's SQL at all.
    pub(super) fn takes(&mut self, view: &View, source: &mut Source) -> bool {
        let prepared = source.client.prepare(&view.sql);
        let Ok(prepared) = prepared else { return false };
        // Some of what has types has no plan, as a window over types without an order.
        let planned = source.client.simple_query(&format!("EXPLAIN {}", view.sql));
        if planned.is_err() {
            return false;
        }
        let columns = prepared.columns().iter().map(|column| Column {
            name: column.name().to_owned(),
            kind: column.type_().clone(),
        });
        self.columns.insert(view.sql.clone(), columns.collect());
        true
    }

    /// PostgreSQL's answers of this moment.
    pub(super) fn answers(&self, views: &[&View], source: &mut Source) -> Vec<Awaited> {
        let mut all = Vec::new();
        for views in views.chunks(AT_A_TIME) {
            let asked = views.iter().map(|view| {
                let columns = &self.columns[&view.sql];
                format!("SELECT {} FROM ({}) AS answer", as_texts(columns), view.sql)
            });
            let asked = asked.collect::<Vec<_>>().join(";\n");
            let messages = source.client.simple_query(&asked);
            let messages = messages.unwrap_or_else(|error| panic!("{error:?}"));
            let mut rows = Rows::new();
            let mut views = views.iter();
            for message in messages {
                match message {
                    SimpleQueryMessage::Row(row) => {
                        let cells = (0..row.len()).map(|at| row.get(at).map(str::to_owned));
                        rows.push(cells.collect());
                    }
                    SimpleQueryMessage::CommandComplete(_) => {
                        let view = views.next().unwrap();
                        all.push(Awaited {
                            name: view.name.clone(),
                            sql: view.sql.clone(),
                            columns: self.columns[&view.sql].clone(),
                            expected: std::mem::take(&mut rows),
                        });
                    }
                    _ => {}
                }
            }
        }
        all
    }
}

impl Awaited {
    /// What differs from the view's table; none when nothing does.
    pub(super) fn differs(&self, sink: &Sink, by: Option<&Connection>) -> Option<String> {
        let Some(found) = sink.rows_by(by, &self.name, &self.columns) else {
            return Some("is not there".to_owned());
        };
        difference(&found, &self.expected, &self.columns, sink.digits())
    }
}
