//! Primary keys in SQL: whether a table has a row of a key.
//!
//! Under a collation such as `NOCASE` SQLite takes texts for equal that differ in their bytes. The
//! keys of such tables are compared byte by byte too (`quote()`), because the log does.

use rusqlite::Transaction;
use tidemill_log::schema::TableSchema;

use super::sql::quote;
use super::{KEY_COLUMNS_MAX, sql_error};
use crate::{Error, Kind, Result};

/// The primary key of one table.
pub(super) struct Key<'a> {
    /// The table.
    table: &'a TableSchema,
    /// See [`Key::is_loose`].
    loose: bool,
}

impl<'a> Key<'a> {
    /// Reads the collations of the key.
    ///
    /// # Errors
    /// [`Kind::Data`] for a key with more columns than can be noted.
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

    /// Whether SQLite takes keys for equal that differ in the log.
    pub(super) fn is_loose(&self) -> bool {
        self.loose
    }

    /// SQL: the columns of the key in a row, which is `OLD`, `NEW` or the table.
    pub(super) fn columns(&self, row: &str) -> Vec<String> {
        let key = self.table.key.iter();
        let columns = key.filter_map(|&index| self.table.columns.get(index));
        columns
            .map(|column| format!("{row}.{}", quote(&column.name)))
            .collect()
    }

    /// The columns of `_tidemill_replaced` that hold a key.
    pub(super) fn places(&self) -> Vec<String> {
        let all = 0..self.table.key.len();
        all.map(|index| format!("k{index}")).collect()
    }

    /// The same columns with an alias before them.
    pub(super) fn places_of(&self, note: &str) -> Vec<String> {
        let places = self.places();
        places.iter().map(|it| format!("{note}.{it}")).collect()
    }

    /// SQL: whether two rows have the same key.
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

    /// SQL: whether the row of the table has this key.
    pub(super) fn at(&self, key: &[String]) -> String {
        self.same(&self.columns(&quote(&self.table.name)), key)
    }

    /// SQL: whether the table has a row with this key.
    pub(super) fn is_there(&self, key: &[String]) -> String {
        let (name, at) = (quote(&self.table.name), self.at(key));
        format!("EXISTS (SELECT 1 FROM {name} WHERE {at})")
    }
}
