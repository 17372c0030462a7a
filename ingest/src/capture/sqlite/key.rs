//! A table's primary key in SQL: whether a row of this key is in the table.
//!
//! SQLite takes texts of a collation such as `NOCASE` for one key although they are not the same
//! bytes. Such keys are compared as they are written.

use rusqlite::Transaction;
use tidemill_log::schema::TableSchema;

use super::sql::quote;
use super::{KEY_COLUMNS_MAX, sql_error};
use crate::{Error, Kind, Result};

/// The key of one table.
pub(super) struct Key<'a> {
    table: &'a TableSchema,
    loose: bool,
}

impl<'a> Key<'a> {
    /// # Errors
    /// [`Kind::Data`] for a key of more columns than can be noted.
    pub(super) fn of(transaction: &Transaction<'_>, table: &'a TableSchema) -> Result<Self> {
        let columns = table.key.len();
        if columns > KEY_COLUMNS_MAX {
            let what = format!(
                "table `{}` has a primary key of {columns} columns; a table with at most \
                 {KEY_COLUMNS_MAX} can be captured",
                table.name
            );
            return Err(Error::new(Kind::Data, what));
        }
        let loose = transaction
            .query_row(
                "SELECT count(*) > 0
                 FROM pragma_index_list(?) AS list, pragma_index_xinfo(list.name) AS info
                 WHERE list.origin = 'pk' AND info.key AND info.coll <> 'BINARY'",
                [&table.name],
                |row| row.get(0),
            )
            .map_err(|error| sql_error("reading a table's primary key", error))?;
        Ok(Self { table, loose })
    }

    /// Whether SQLite takes keys for the same that we tell apart.
    pub(super) fn is_loose(&self) -> bool {
        self.loose
    }

    /// The key's columns of a row: `OLD`, `NEW`, or the table.
    pub(super) fn columns(&self, row: &str) -> Vec<String> {
        let key = self.table.key.iter();
        let columns = key.filter_map(|&index| self.table.columns.get(index));
        columns
            .map(|column| format!("{row}.{}", quote(&column.name)))
            .collect()
    }

    /// The columns of a note that hold a key.
    pub(super) fn places(&self) -> Vec<String> {
        let all = 0..self.table.key.len();
        all.map(|index| format!("k{index}")).collect()
    }

    /// The same of the note with this alias.
    pub(super) fn places_of(&self, note: &str) -> Vec<String> {
        let places = self.places();
        places.iter().map(|it| format!("{note}.{it}")).collect()
    }

    /// Whether two rows have one key.
    pub(super) fn same(&self, left: &[String], right: &[String]) -> String {
        let each = left.iter().zip(right).map(|(left, right)| {
            let exactly = match self.loose {
                true => format!(" AND quote({left}) = quote({right})"),
                false => String::new(),
            };
            format!("{left} IS {right}{exactly}")
        });
        each.collect::<Vec<_>>().join(" AND ")
    }

    /// Whether the table's row is the one of this key.
    pub(super) fn at(&self, key: &[String]) -> String {
        self.same(&self.columns(&quote(&self.table.name)), key)
    }

    /// Whether the table has a row of this key.
    pub(super) fn is_there(&self, key: &[String]) -> String {
        let (name, at) = (quote(&self.table.name), self.at(key));
        format!("EXISTS (SELECT 1 FROM {name} WHERE {at})")
    }
}
