//! Rows that `REPLACE` removes because another row takes their value of a UNIQUE column.
//!
//! SQLite fires no DELETE trigger for them (unless `recursive_triggers` is on). So a trigger before
//! the change notes the rows that may go, and the one after it captures the deletion of those whose
//! key is gone.
//!
//! ```text
//! INSERT OR REPLACE ─► before: notes ─► rows go, NEW comes ─► the user's triggers ─► after
//! ```
//!
//! A note belongs to the values that `NEW` takes: a trigger of the user's that changes this or
//! another table meanwhile leaves it alone, or captures what it is about. `INSERT OR IGNORE` fires
//! the first trigger alone; the note that it leaves goes with the next change of the same values,
//! or when the capture writes down its progress.

use rusqlite::Transaction;
use tidemill_log::schema::TableSchema;

use super::key::Key;
use super::sql::{quote, row_json, text};
use super::{NOW_US, sql_error};
use crate::{Error, Kind, Result};

/// The unique columns of a table besides a key that SQL itself tells apart.
pub(super) struct Unique {
    /// Of each unique index, its columns with their collations.
    indexes: Vec<(String, Vec<(String, String)>)>,
}

impl Unique {
    /// None when there are no such columns.
    ///
    /// # Errors
    /// [`Kind::Data`] for an index over an expression, which tells no columns.
    pub(super) fn of(
        transaction: &Transaction<'_>,
        table: &TableSchema,
        key: &Key<'_>,
    ) -> Result<Option<Self>> {
        let failed = |error| sql_error("reading a table's unique indexes", error);
        let mut statement = transaction
            .prepare(
                "SELECT list.name, info.name, info.coll
                 FROM pragma_index_list(?1) AS list, pragma_index_xinfo(list.name) AS info
                 WHERE list.\"unique\" AND (list.origin <> 'pk' OR ?2) AND info.key
                 ORDER BY list.seq, info.seqno",
            )
            .map_err(failed)?;
        let rows = statement.query_map((&table.name, key.is_loose()), |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        });
        let columns: Vec<(String, Option<String>, String)> =
            rows.and_then(Iterator::collect).map_err(failed)?;
        let mut indexes: Vec<(String, Vec<(String, String)>)> = Vec::new();
        for (index, column, collation) in columns {
            let Some(column) = column else {
                let what = format!(
                    "table `{}` has the unique index `{index}` over an expression, of whose \
                     REPLACE no trigger tells; make it an index over columns",
                    table.name
                );
                return Err(Error::new(Kind::Data, what));
            };
            match indexes.last_mut().filter(|(name, _)| *name == index) {
                Some((_, columns)) => columns.push((column, collation)),
                None => indexes.push((index, vec![(column, collation)])),
            }
        }
        Ok((!indexes.is_empty()).then_some(Self { indexes }))
    }

    /// SQL for whether a row of the table has values that the row `NEW` takes.
    fn taken(&self, table: &str) -> String {
        let each = self.indexes.iter().map(|(_, columns)| {
            let same = columns.iter().map(|(column, collation)| {
                let (column, collation) = (quote(column), quote(collation));
                format!("{table}.{column} COLLATE {collation} = NEW.{column}")
            });
            format!("({})", same.collect::<Vec<_>>().join(" AND "))
        });
        each.collect::<Vec<_>>().join(" OR ")
    }

    /// SQL for the values that the row `NEW` takes, as one text.
    fn values(&self) -> String {
        let all = self.indexes.iter().flat_map(|(_, columns)| columns);
        let quoted = all.map(|(column, _)| format!("quote(NEW.{})", quote(column)));
        quoted.collect::<Vec<_>>().join(" || ',' || ")
    }

    /// SQL for the notes that belong to the row `NEW`.
    fn mine(&self, table: &TableSchema) -> String {
        let (name, values) = (text(&table.name), self.values());
        format!("table_name = {name} AND taken = {values}")
    }

    /// The body of the trigger before a change: notes the rows that `NEW` may displace.
    pub(super) fn noted(&self, table: &TableSchema, key: &Key<'_>) -> String {
        let (name, literal) = (quote(&table.name), text(&table.name));
        let (row, mine) = (row_json(table, &name), self.mine(table));
        let (places, columns) = (key.places().join(", "), key.columns(&name).join(", "));
        let (values, taken) = (self.values(), self.taken(&name));
        format!(
            "INSERT INTO _tidemill_replaced (table_name, taken, row, {places}) \
             SELECT {literal}, {values}, {row}, {columns} FROM {name} WHERE ({taken}) \
             AND NOT EXISTS (SELECT 1 FROM _tidemill_replaced AS noted \
             WHERE {mine} AND noted.row = {row})"
        )
    }

    /// What the trigger after a change does first: captures the deletion of the noted rows whose
    /// key is gone, and forgets the notes.
    pub(super) fn captured(&self, table: &TableSchema, key: &Key<'_>) -> String {
        let (literal, mine) = (text(&table.name), self.mine(table));
        let is_there = key.is_there(&key.places_of("gone"));
        format!(
            "INSERT INTO _tidemill_changes (table_name, op, before, after, committed_us) \
             SELECT {literal}, 'd', gone.row, NULL, {NOW_US} FROM _tidemill_replaced AS gone \
             WHERE {mine} AND NOT {is_there}; \
             DELETE FROM _tidemill_replaced WHERE {mine}; "
        )
    }
}
