//! Checks of existing tables that all engines share: columns, primary key, frontier rows.

use arrow::datatypes::DataType;
use tidemill_ir::Epoch;
use tidemill_log::Result;

use super::contract::{Frontier, Table};

pub(super) use tidemill_log::schema::sql::quoted;

/// The `Data` error of a table that is not what the view needs, with what users can do.
pub(super) fn mismatch(table: &str, problem: &str) -> tidemill_log::Error {
    tidemill_log::Error::new(
        tidemill_log::Kind::Data,
        format!("table `{table}`: {problem}; drop the table, or give the view another name"),
    )
}

/// A column of an existing table, with the engine's own type name.
pub(super) struct FoundColumn {
    /// The column's name.
    pub(super) name: String,
    /// The type as the catalog shows it.
    pub(super) sql_type: String,
    /// The column's position in the primary key; `None` for a column outside the key.
    pub(super) key: Option<usize>,
}

/// Checks the columns and the primary key of an existing table against what the view needs. More
/// columns are allowed; they belong to other writers and stay untouched.
///
/// # Errors
/// `Data` names the first column that is missing or has another type, or the key.
pub(super) fn check_existing(
    table: &Table,
    found: &[FoundColumn],
    need: impl Fn(&DataType) -> Result<String>,
) -> Result<()> {
    for field in table.schema.fields() {
        let needed = need(field.data_type())?;
        match found.iter().find(|c| c.name == *field.name()) {
            None => {
                let problem = format!("column `{}` ({needed}) is missing", field.name());
                return Err(mismatch(&table.name, &problem));
            }
            Some(column) if !column.sql_type.eq_ignore_ascii_case(&needed) => {
                let (name, is) = (&column.name, &column.sql_type);
                let problem = format!("column `{name}` is {is}, the view needs {needed}");
                return Err(mismatch(&table.name, &problem));
            }
            Some(_) => {}
        }
    }
    let mut key: Vec<_> = found.iter().filter(|c| c.key.is_some()).collect();
    key.sort_by_key(|c| c.key);
    let key: Vec<&str> = key.iter().map(|c| c.name.as_str()).collect();
    let needed: Vec<&str> = table.key_names().collect();
    if key != needed {
        let (is, want) = (key.join(", "), needed.join(", "));
        let problem = format!("primary key is ({is}), the view needs ({want})");
        return Err(mismatch(&table.name, &problem));
    }
    Ok(())
}

/// Parses a stored frontier row. The fingerprint is stored as 16 hexadecimal digits.
///
/// # Errors
/// `Data` when the row is damaged.
pub(super) fn frontier_of(epoch: Option<i64>, fingerprint: &str) -> Result<Frontier> {
    let damaged = |e: Box<dyn std::error::Error + Send + Sync>| {
        let what = format!("frontier row with epoch {epoch:?} and fingerprint `{fingerprint}`");
        tidemill_log::Error::with_source(tidemill_log::Kind::Data, what, e)
    };
    Ok(Frontier {
        epoch: epoch
            .map(Epoch::try_from)
            .transpose()
            .map_err(|e| damaged(e.into()))?,
        fingerprint: u64::from_str_radix(fingerprint, 16).map_err(|e| damaged(e.into()))?,
    })
}

/// The `Bug` error of a table that this process has not prepared.
pub(super) fn unprepared(table: usize) -> tidemill_log::Error {
    tidemill_log::Error::new(
        tidemill_log::Kind::Bug,
        format!("table {table} was not prepared on this sink; every process prepares its own"),
    )
}

/// The `Data` error of a type that no engine stores.
pub(super) fn unsupported(data_type: &DataType) -> tidemill_log::Error {
    tidemill_log::Error::new(
        tidemill_log::Kind::Data,
        format!("a column of type {data_type} cannot be served; cast it in the view"),
    )
}
