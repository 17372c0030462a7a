//! The initial snapshot: every row of the tables as of the slot's beginning.
//!
//! A new slot flows in; a truncate of each table and then its rows flow out, in batches, read by a
//! cursor inside the exported snapshot. All have the position just before the slot's consistent
//! point: behind everything captured earlier, before everything that the new slot sends.

use std::sync::Arc;

use postgres::{Client, SimpleQueryMessage};
use tidemill_log::event::{Change, Op, Position, Value};
use tidemill_log::failpoint;
use tidemill_log::schema::TableSchema;

use super::catalog::{Table, quote};
use super::stream::NewSlot;
use super::{RowError, key_of_row, row_of, sql_error};
use crate::Result;
use crate::capture::{BATCH, Captured, withhold};

/// A snapshot being read.
pub(super) struct Snapshot {
    client: Client,
    tables: Vec<Table>,
    /// The table that is being read, and whether its cursor is open.
    current: usize,
    open: bool,
    begun: bool,
    position: Position,
    taken_us: i64,
}

impl Snapshot {
    /// Takes the new slot's snapshot over into `client`, which must be a session of its own.
    pub(super) fn begin(mut client: Client, slot: &NewSlot, tables: &[Table]) -> Result<Self> {
        client
            .batch_execute(&format!(
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
                 SET TRANSACTION SNAPSHOT '{}'",
                slot.snapshot
            ))
            .map_err(|error| sql_error("taking over the slot's snapshot".to_owned(), error))?;
        // Old snapshots see nothing of a table that is rewritten: from here on none is.
        for table in tables {
            client
                .batch_execute(&format!(
                    "LOCK TABLE {} IN ACCESS SHARE MODE",
                    table.quoted()
                ))
                .map_err(|error| {
                    sql_error(format!("locking table `{}`", table.schema.name), error)
                })?;
        }
        Ok(Self {
            client,
            tables: tables.to_vec(),
            current: 0,
            open: false,
            begun: false,
            position: Position {
                commit: slot.consistent.saturating_sub(1),
                index: 0,
            },
            taken_us: jiff::Timestamp::now().as_microsecond(),
        })
    }

    /// The position of the last change handed out.
    pub(super) fn last(&self) -> Position {
        Position {
            index: self.position.index.saturating_sub(1),
            ..self.position
        }
    }

    /// The next batch; empty when the snapshot is read to its end.
    pub(super) fn next(&mut self) -> Result<Vec<Captured>> {
        let mut out = Vec::new();
        if !self.begun {
            self.begun = true;
            for table in self.tables.clone() {
                let change = self.change(&table.schema, Op::Truncate, None);
                out.push(Captured::Change(change));
            }
            return Ok(out);
        }
        while out.is_empty() {
            let Some(table) = self.tables.get(self.current).cloned() else {
                break;
            };
            self.read(&table, &mut out)?;
        }
        Ok(out)
    }

    fn change(&mut self, table: &Arc<TableSchema>, op: Op, after: Option<Vec<Value>>) -> Change {
        let position = self.position;
        self.position.index += 1;
        Change {
            table: Arc::clone(table),
            op,
            before: None,
            after,
            position,
            transaction: 0,
            committed_us: self.taken_us,
            snapshot: true,
        }
    }

    /// Fetches up to a batch of the table's rows and goes on to the next table behind the last.
    fn read(&mut self, table: &Table, out: &mut Vec<Captured>) -> Result<()> {
        let failed = |error| sql_error(format!("reading table `{}`", table.schema.name), error);
        if !self.open {
            let columns: Vec<_> = table
                .schema
                .columns
                .iter()
                .map(|c| quote(&c.name))
                .collect();
            self.client
                .batch_execute(&format!(
                    "DECLARE _tidemill NO SCROLL CURSOR FOR SELECT {} FROM {}",
                    columns.join(", "),
                    table.quoted()
                ))
                .map_err(failed)?;
            self.open = true;
        }
        failpoint::hit(failpoint::CAPTURE_IN_SNAPSHOT);
        let fetched = self
            .client
            .simple_query(&format!("FETCH {BATCH} FROM _tidemill"));
        for message in fetched.map_err(failed)? {
            let SimpleQueryMessage::Row(row) = message else {
                continue;
            };
            let cells = (0..row.len()).map(|index| Ok::<_, RowError>(row.get(index)));
            match row_of(&table.schema, cells, self.position) {
                Ok(values) => {
                    let change = self.change(&table.schema, Op::Read, Some(values));
                    out.push(Captured::Change(change));
                }
                Err(RowError::Refused(mut refused)) => {
                    let cells = (0..row.len()).map(|index| Ok::<_, RowError>(row.get(index)));
                    let change = self.change(&table.schema, Op::Withheld, None);
                    refused.withheld = withhold(&change, key_of_row(&table.schema, cells));
                    out.push(Captured::Refused(*refused));
                }
                Err(RowError::Fatal(error)) => return Err(error),
            }
        }
        if out.is_empty() {
            self.client
                .batch_execute("CLOSE _tidemill")
                .map_err(failed)?;
            self.open = false;
            self.current += 1;
        }
        Ok(())
    }
}
