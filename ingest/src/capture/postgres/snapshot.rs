//! The initial snapshot: all rows of the tables at the consistent point of a new slot.
//!
//! In: a new slot. Out: a truncate of each table, then its rows, in batches. The rows are read with
//! a cursor in the snapshot that the slot exported (`EXPORT_SNAPSHOT`). All changes have the LSN
//! just before the slot's consistent point: after everything captured earlier, before everything
//! that the new slot sends.

use std::sync::Arc;

use postgres::error::SqlState;
use postgres::{Client, SimpleQueryMessage};
use tidemill_log::envelope::event::{Change, Op, Position, Value};
use tidemill_log::failpoint;
use tidemill_log::schema::TableSchema;

use super::catalog::{Table, quote};
use super::sql_error;
use super::stream::NewSlot;
use super::values::{RowError, key_of_row, row_of};
use crate::capture::postgres::catalog::shape::Shape;
use crate::capture::{BATCH, Captured, withhold};
use crate::{Error, Kind, Result};

/// A snapshot that is being read.
pub(super) struct Snapshot {
    /// The session whose transaction has the exported snapshot.
    client: Client,
    /// The tables, each with its shape when the slot was created.
    tables: Vec<(Table, Shape)>,
    /// Index of the table that is being read.
    current: usize,
    /// Whether its cursor is open.
    open: bool,
    /// Whether the truncates were returned.
    begun: bool,
    /// The position of the next change.
    position: Position,
    /// Time of the snapshot, in microseconds since 1970, as the commit time of its changes.
    taken_us: i64,
}

impl Snapshot {
    /// Imports the snapshot of the new slot into `client`, a session for this purpose.
    ///
    /// # Errors
    /// `Data` when the snapshot does not exist any more; `Retry` when the server cannot be reached.
    pub(super) fn begin(
        mut client: Client,
        slot: &NewSlot,
        tables: Vec<(Table, Shape)>,
    ) -> Result<Self> {
        client
            .batch_execute(&format!(
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
                 SET TRANSACTION SNAPSHOT '{}'",
                slot.snapshot
            ))
            .map_err(|error| sql_error("taking over the slot's snapshot".to_owned(), error))?;
        Ok(Self {
            client,
            tables,
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

    /// The position of the last change that was returned.
    pub(super) fn last(&self) -> Position {
        Position {
            index: self.position.index.saturating_sub(1),
            ..self.position
        }
    }

    /// The next batch; empty at the end of the snapshot.
    ///
    /// # Errors
    /// `Retry` when a table was altered before it was read, or the server cannot be reached.
    pub(super) fn next(&mut self) -> Result<Vec<Captured>> {
        let mut out = Vec::new();
        if !self.begun {
            self.begun = true;
            for (table, _) in self.tables.clone() {
                let change = self.change(&table.schema, Op::Truncate, None);
                out.push(Captured::Change(change));
            }
            return Ok(out);
        }
        while out.is_empty() {
            let Some((table, shape)) = self.tables.get(self.current).cloned() else {
                break;
            };
            if !self.open {
                self.open(&table, &shape)?;
            }
            self.read(&table, &mut out)?;
        }
        Ok(out)
    }

    /// A change at the next position.
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

    /// Opens the cursor over a table; from then on its lock keeps the table from being rewritten. A
    /// table that was rewritten since the snapshot was taken would appear empty, so its files are
    /// compared.
    fn open(&mut self, table: &Table, taken: &Shape) -> Result<()> {
        let columns = table.schema.columns.iter();
        let columns: Vec<_> = columns.map(|column| quote(&column.name)).collect();
        let declared = self.client.batch_execute(&format!(
            "DECLARE _tidemill NO SCROLL CURSOR FOR SELECT {} FROM {}",
            columns.join(", "),
            table.quoted()
        ));
        let name = &table.schema.name;
        let altered = || {
            let what = format!("table `{name}` was altered before its snapshot was read");
            Error::new(Kind::Retry, what)
        };
        if let Err(error) = declared {
            let gone = [SqlState::UNDEFINED_COLUMN, SqlState::UNDEFINED_TABLE];
            return Err(match error.code() {
                Some(code) if gone.contains(code) => altered(),
                _ => sql_error(format!("reading table `{name}`"), error),
            });
        }
        if !Shape::read(&mut self.client, table)?.is_stored_as(taken) {
            return Err(altered());
        }
        self.open = true;
        Ok(())
    }

    /// Fetches a batch of the table's rows. At its end, goes on to the next table.
    fn read(&mut self, table: &Table, out: &mut Vec<Captured>) -> Result<()> {
        let failed = |error| sql_error(format!("reading table `{}`", table.schema.name), error);
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
