//! REPLACE conflicts: captures rows that SQLite deletes because another row takes a UNIQUE value.
//!
//! SQLite fires no DELETE trigger for such rows (unless `recursive_triggers` is on; SQLite's
//! documentation of "ON CONFLICT", REPLACE). So a trigger before the change notes the rows that may
//! be deleted, and the trigger after the change captures the deletion of those whose key is gone:
//!
//! ```text
//! INSERT OR REPLACE ─► BEFORE: note rows ─► rows deleted, NEW inserted ─► user's triggers ─► AFTER
//! ```
//!
//! A note belongs to the unique values that `NEW` takes. So a user's trigger that changes this
//! table or another one in between does not disturb the note. `INSERT OR IGNORE` fires the first
//! trigger only. Its note is deleted with the next change of the same values, or when the capture
//! records its progress.

use rusqlite::Transaction;
use tidemill_log::schema::TableSchema;

use super::key::Key;
use super::sql::{quote, row_json, text};
use super::{NOW_US, sql_error};
use crate::{Error, Kind, Result};

/// The UNIQUE indexes of a table, apart from a primary key that needs none of this.
pub(super) struct Unique {
    /// For each index its name and its columns with their collations.
    indexes: Vec<(String, Vec<(String, String)>)>,
}

impl Unique {
    /// Reads the unique indexes; `None` when there is none.
    ///
    /// # Errors
    /// [`Kind::Data`] for an index over an expression, whose columns are unknown.
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

    /// SQL: whether a row of the table has unique values that `NEW` takes.
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

    /// SQL: the unique values that `NEW` takes, as one text.
    fn values(&self) -> String {
        let all = self.indexes.iter().flat_map(|(_, columns)| columns);
        let quoted = all.map(|(column, _)| format!("quote(NEW.{})", quote(column)));
        quoted.collect::<Vec<_>>().join(" || ',' || ")
    }

    /// SQL: the notes that belong to `NEW`.
    fn mine(&self, table: &TableSchema) -> String {
        let (name, values) = (text(&table.name), self.values());
        format!("table_name = {name} AND taken = {values}")
    }

    /// SQL of the BEFORE trigger: notes the rows that `NEW` may displace.
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

    /// First SQL of the AFTER trigger: captures the deletion of the noted rows whose key is gone,
    /// and deletes the notes.
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
