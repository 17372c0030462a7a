//! Landing in the embedded SQLite file.
//!
//! Columns are declared with the types that the capture reads back (`UUID`, `TIMESTAMPTZ`, …);
//! SQLite itself stores text and numbers.

use rusqlite::types::{Null, ToSqlOutput};
use rusqlite::{CachedStatement, Connection, Transaction, TransactionBehavior};
use serde_json::value::RawValue;
use tidemill_log::failpoint;
use tidemill_log::schema::ColumnType;

use super::record::ColumnValue;
use super::{
    Attempt, Fitted, Found, Landed, Landing, Refused, Row, columns, declared, ended, fit, key_hash,
    listed, mismatch,
};
use crate::config::{Land, LandColumn};
use crate::database::{quoted, sqlite_failed};
use crate::fetch::Page;
use crate::schedule::Claim;
use crate::schedule::sqlite::finish;
use crate::{Error, Kind, Result};

/// A landing in SQLite.
pub(super) struct SqliteLanding {
    connection: Connection,
    /// The table.
    land: Land,
    /// The upsert statement.
    upsert: String,
    /// A query whether a key exists.
    exists: String,
}

/// The declared type of a column in SQLite.
fn type_of(column: &LandColumn) -> String {
    let name = match column.kind {
        ColumnType::Bool => "BOOLEAN",
        ColumnType::Int => "INT",
        ColumnType::Long => "BIGINT",
        ColumnType::Float => "FLOAT",
        ColumnType::Double => "DOUBLE",
        ColumnType::Text | ColumnType::Source(_) => "TEXT",
        ColumnType::Uuid => "UUID",
        ColumnType::Json => "JSON",
        ColumnType::Bytes => "BLOB",
        ColumnType::Date => "DATE",
        ColumnType::Timestamp => "TIMESTAMP",
        ColumnType::Timestamptz => "TIMESTAMPTZ",
        ColumnType::Decimal { precision, scale } => return format!("DECIMAL({precision},{scale})"),
    };
    name.to_owned()
}

impl SqliteLanding {
    /// Opens the file, and creates or compares the table.
    pub(super) fn open(file: &str, land: &Land, begins_with: &[Row<'_>]) -> Result<Self> {
        let mut connection = tidemill_log::sqlite::connect(file)?;
        let failed = |error| sqlite_failed(&format!("table `{}`", land.table), error);
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        if !check(&transaction, land)? {
            transaction.execute_batch(&create(land)).map_err(failed)?;
            fill(&transaction, land, begins_with).map_err(failed)?;
        }
        transaction.commit().map_err(failed)?;
        let (table, key) = (quoted(&land.table), quoted(&land.key));
        let at = land
            .columns
            .iter()
            .position(|column| column.name == land.key);
        let at = at.unwrap_or_default();
        Ok(Self {
            connection,
            land: land.clone(),
            upsert: upsert(land),
            exists: format!("SELECT 1 FROM {table} WHERE {key} = ?{}", at + 1),
        })
    }
}

/// SQL: creates the table.
fn create(land: &Land) -> String {
    let (table, declared) = (quoted(&land.table), declared(land, type_of));
    format!("CREATE TABLE {table} ({declared})")
}

/// Writes the first rows of a new table.
fn fill(connection: &Connection, land: &Land, rows: &[Row<'_>]) -> rusqlite::Result<()> {
    let mut upsert = connection.prepare(&upsert(land))?;
    for row in rows {
        for (at, value) in row.values.iter().enumerate() {
            upsert.raw_bind_parameter(at + 1, cell(value))?;
        }
        upsert.raw_execute()?;
    }
    Ok(())
}

/// Compares an existing table with `land`; false when it does not exist.
fn check(connection: &Connection, land: &Land) -> Result<bool> {
    let table = &land.table;
    let select = "SELECT name, type, \"notnull\", dflt_value IS NOT NULL, pk
        FROM pragma_table_info(?1) ORDER BY pk";
    let read = || -> rusqlite::Result<Vec<(Found, bool)>> {
        let mut statement = connection.prepare(select)?;
        let rows = statement.query_map([table], |row| {
            let found = Found {
                name: row.get(0)?,
                kind: row.get(1)?,
                not_null: row.get(2)?,
                has_default: row.get(3)?,
            };
            Ok((found, row.get::<_, i64>(4)? > 0))
        })?;
        rows.collect()
    };
    let rows = read().map_err(|error| sqlite_failed(&format!("columns of `{table}`"), error))?;
    if rows.is_empty() {
        return Ok(false);
    }
    let keys = rows.iter().filter(|(_, key)| *key);
    let key: Vec<String> = keys.map(|(found, _)| found.name.clone()).collect();
    let found: Vec<Found> = rows.into_iter().map(|(found, _)| found).collect();
    match mismatch(land, &found, &key, type_of) {
        None => Ok(true),
        Some(what) => Err(Error::new(
            Kind::Data,
            format!("SQLite table `{table}`: {what}"),
        )),
    }
}

/// SQL: the upsert of one row.
fn upsert(land: &Land) -> String {
    let columns = columns(land);
    let values: Vec<String> = (1..=columns.len()).map(|at| format!("?{at}")).collect();
    let (table, names) = (quoted(&land.table), listed(&columns, ""));
    let on_conflict = super::on_conflict(land, &columns, "IS NOT");
    let values = values.join(", ");
    format!("INSERT INTO {table} AS old {names} VALUES ({values}) {on_conflict}")
}

impl SqliteLanding {
    /// Begins a transaction, which holds the write lock of the file.
    fn begin(&mut self, doing: &str) -> Result<(Parts<'_>, Transaction<'_>)> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|error| sqlite_failed(doing, error))?;
        let parts = Parts {
            land: &self.land,
            upsert: &self.upsert,
            exists: &self.exists,
        };
        Ok((parts, transaction))
    }
}

/// The statements, borrowed beside a transaction.
struct Parts<'a> {
    land: &'a Land,
    upsert: &'a str,
    exists: &'a str,
}

impl Parts<'_> {
    /// Upserts the rows, at most `left` new ones. Rows that the database refuses are moved to
    /// `fitted.refused`.
    fn write(
        &self,
        transaction: &Transaction<'_>,
        fitted: &mut Fitted<'_>,
        mut left: u64,
        doing: &str,
    ) -> Result<Landed> {
        let failed = |error| sqlite_failed(doing, error);
        let mut landed = Landed {
            unchanged: fitted.replaced,
            ..Landed::default()
        };
        let mut statements = Statements {
            land: self.land,
            exists: transaction.prepare_cached(self.exists).map_err(failed)?,
            upsert: transaction.prepare_cached(self.upsert).map_err(failed)?,
        };
        for row in &fitted.rows {
            match statements.write(row, left > 0, &mut landed) {
                Ok(true) => left -= 1,
                Ok(false) => {}
                Err(error) if refuses_a_row(&error) => fitted.refused.push(Refused {
                    raw: row.raw.to_owned(),
                    reason: sqlite_failed("upsert", error).to_string(),
                }),
                Err(error) => return Err(failed(error)),
            }
        }
        landed.refused = fitted.refused.len() as u64;
        Ok(landed)
    }
}

impl Landing for SqliteLanding {
    fn attempt(
        &mut self,
        claim: &Claim,
        page: &Page,
        until: Option<u64>,
        known: usize,
    ) -> Result<Attempt> {
        let doing = format!("landing {}", page.url);
        let (parts, transaction) = self.begin(&doing)?;
        let mut fitted = fit(parts.land, &page.records);
        let mark = key_hash(&fitted);
        let left = match until {
            Some(until) => until.saturating_sub(count(&transaction, parts.land)?),
            None => u64::MAX,
        };
        let landed = parts.write(&transaction, &mut fitted, left, &doing)?;
        // A transaction that is dropped is rolled back.
        if fitted.refused.len() > known {
            return Ok(Attempt::Refused(fitted.refused));
        }
        let ended = ended(page, landed, mark);
        finish(&transaction, claim, &ended)?;
        failpoint::hit(failpoint::LAND_BEFORE_COMMIT);
        transaction
            .commit()
            .map_err(|error| sqlite_failed(&doing, error))?;
        failpoint::hit(failpoint::LAND_AFTER_COMMIT);
        Ok(Attempt::Landed(landed))
    }

    fn again(&mut self, record: &RawValue) -> Result<std::result::Result<Landed, String>> {
        let doing = "landing a record again";
        let (parts, transaction) = self.begin(doing)?;
        let records = [record.to_owned()];
        let mut fitted = fit(parts.land, &records);
        let landed = parts.write(&transaction, &mut fitted, u64::MAX, doing)?;
        transaction
            .commit()
            .map_err(|error| sqlite_failed(doing, error))?;
        Ok(fitted.refused.pop().map_or(Ok(landed), |it| Err(it.reason)))
    }

    fn total(&mut self) -> Result<u64> {
        count(&self.connection, &self.land)
    }
}

/// Number of rows in the table.
fn count(connection: &Connection, land: &Land) -> Result<u64> {
    let select = format!("SELECT count(*) FROM {}", quoted(&land.table));
    connection
        .query_row(&select, [], |row| row.get::<_, i64>(0))
        .map(|count| count as u64)
        .map_err(|error| sqlite_failed(&format!("counting table `{}`", land.table), error))
}

/// The prepared statements of one page.
struct Statements<'a> {
    land: &'a Land,
    /// Whether a key exists.
    exists: CachedStatement<'a>,
    /// The upsert.
    upsert: CachedStatement<'a>,
}

impl Statements<'_> {
    /// Upserts one row; a new one only when there is `room`. True when it was new.
    fn write(&mut self, row: &Row<'_>, room: bool, landed: &mut Landed) -> rusqlite::Result<bool> {
        for (at, (column, value)) in self.land.columns.iter().zip(&row.values).enumerate() {
            let cell = cell(value);
            if column.name == self.land.key {
                self.exists.raw_bind_parameter(at + 1, &cell)?;
            }
            self.upsert.raw_bind_parameter(at + 1, cell)?;
        }
        if self.land.document.is_some() {
            self.upsert
                .raw_bind_parameter(row.values.len() + 1, row.raw)?;
        }
        let known = self.exists.raw_query().next()?.is_some();
        if !known && !room {
            landed.trimmed = true;
            return Ok(false);
        }
        let written = self.upsert.raw_execute()?;
        match (known, written) {
            (false, _) => landed.inserted += 1,
            (true, 0) => landed.unchanged += 1,
            (true, _) => landed.updated += 1,
        }
        Ok(!known)
    }
}

/// A value as SQLite stores it.
fn cell(value: &ColumnValue) -> ToSqlOutput<'_> {
    match value {
        ColumnValue::Null => ToSqlOutput::from(Null),
        ColumnValue::Bool(bool) => (*bool).into(),
        ColumnValue::Whole(number) => (*number).into(),
        ColumnValue::Float(number) => (*number).into(),
        ColumnValue::Text(text) | ColumnValue::Json(text) => text.as_str().into(),
    }
}

/// Whether the error is about a row: a constraint, a size limit or a type.
fn refuses_a_row(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{ConstraintViolation, TooBig, TypeMismatch};
    let code = error.sqlite_error_code();
    matches!(code, Some(ConstraintViolation | TooBig | TypeMismatch))
}
