//! View tables in PostgreSQL: their types, creating and checking them.

use arrow::datatypes::{DataType, TimeUnit};
use tidemill_log::{Error, Kind, Result};

use super::super::contract::{Table, Unclaimed};
use super::super::existing::{FoundColumn, check_existing, mismatch, quoted, unsupported};
use super::frontier::FRONTIERS;
use super::statement::Session;

/// The comment of a table that a job made.
const MADE: &str = "made by tidemill";
/// Most bytes of a name; PostgreSQL cuts a longer one.
const NAME_BYTES_MAX: usize = 63;
/// A table of the sink's schema, by its name.
const HERE: &str = "FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace \
                    AND c.relkind IN ('r', 'p') AND c.relname = $1";

/// Whether the table of a view exists.
///
/// # Errors
/// `Retry` when the server is away, otherwise `Data`.
pub(super) fn is_there(session: &mut Session, view: &str) -> Result<bool> {
    let sql = format!("SELECT {HERE}");
    let rows = session.rows("looking for a table", &sql, &[&view])?;
    Ok(!rows.is_empty())
}

/// See [`super::super::Sink::unclaimed`].
///
/// # Errors
/// `Retry` when the server is away, otherwise `Data`.
pub(super) fn unclaimed(session: &mut Session, view: &str) -> Result<Unclaimed> {
    if !is_there(session, view)? {
        return Ok(Unclaimed::None);
    }
    let doing = format!("table `{view}`");
    let sql = format!("SELECT FROM {} LIMIT 1", quoted(view));
    if session.rows(&doing, &sql, &[])?.is_empty() {
        return Ok(Unclaimed::None);
    }
    let sql = format!("SELECT obj_description(c.oid, 'pg_class') {HERE}");
    let rows = session.rows(&doing, &sql, &[&view])?;
    let comment: Option<String> = rows.first().and_then(|row| row.try_get(0).ok().flatten());
    Ok(match comment.as_deref() == Some(MADE) {
        true => Unclaimed::Ours,
        false => Unclaimed::Foreign,
    })
}

/// Creates the table of a view if it is missing, and checks its columns and its key.
///
/// # Errors
/// `Data` when a name is too long, a column cannot be stored, or the existing table is not what the
/// view needs; `Retry` when the server is away.
pub(super) fn ensure(session: &mut Session, table: &Table) -> Result<()> {
    let (name, fields) = (&table.name, table.schema.fields());
    if name == FRONTIERS {
        return Err(mismatch(name, "the sink itself needs this name"));
    }
    let names = fields.iter().map(|field| field.name());
    if let Some(long) = names.chain([name]).find(|it| it.len() > NAME_BYTES_MAX) {
        let what = format!(
            "table `{name}`: PostgreSQL takes names of at most {NAME_BYTES_MAX} bytes, and \
             `{long}` is longer"
        );
        return Err(Error::new(Kind::Data, what));
    }
    if !is_there(session, name)? {
        let mut columns = Vec::new();
        for field in fields {
            let (kind, _) = pg_type(field.data_type())?;
            columns.push(format!("{} {kind}", quoted(field.name())));
        }
        let keys: Vec<_> = table.key_names().map(quoted).collect();
        let quoted = quoted(name);
        let sql = format!(
            "CREATE TABLE {quoted} ({}, PRIMARY KEY ({})); COMMENT ON TABLE {quoted} IS '{MADE}'",
            columns.join(", "),
            keys.join(", ")
        );
        session.batch(&format!("creating table `{name}`"), &sql)?;
    }
    check_existing(table, &found(session, name)?, |kind| Ok(pg_type(kind)?.0))
}

/// The columns of an existing table.
fn found(session: &mut Session, name: &str) -> Result<Vec<FoundColumn>> {
    let sql = "
        SELECT a.attname::text, format_type(a.atttypid, a.atttypmod),
            (SELECT array_position(i.indkey::int2[], a.attnum) FROM pg_index i
             WHERE i.indrelid = a.attrelid AND i.indisprimary)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
            AND c.relname = $1 AND a.attnum > 0 AND NOT a.attisdropped
        ORDER BY a.attnum";
    let doing = format!("the columns of table `{name}`");
    let unreadable = |error| tidemill_postgres::failed(&doing, error);
    let rows = session.rows(&doing, sql, &[&name])?;
    let rows = rows.into_iter().map(|row| {
        // A vector of the catalog begins at 0, and so does its array.
        let key: Option<i32> = row.try_get(2).map_err(unreadable)?;
        Ok(FoundColumn {
            name: row.try_get(0).map_err(unreadable)?,
            sql_type: row.try_get(1).map_err(unreadable)?,
            key: key.and_then(|key| usize::try_from(key).ok()),
        })
    });
    rows.collect()
}

/// The type of a column, as PostgreSQL itself writes it, and the Arrow type in which its values are
/// sent.
///
/// # Errors
/// `Data` for types that cannot be stored.
pub(super) fn pg_type(kind: &DataType) -> Result<(String, DataType)> {
    use DataType as D;
    let micros = || D::Timestamp(TimeUnit::Microsecond, None);
    let (name, stored) = match kind {
        D::Boolean => ("boolean", D::Boolean),
        D::Int8 | D::Int16 | D::Int32 | D::UInt8 | D::UInt16 => ("integer", D::Int32),
        D::Int64 | D::UInt32 | D::UInt64 => ("bigint", D::Int64),
        D::Float16 | D::Float32 => ("real", D::Float32),
        D::Float64 => ("double precision", D::Float64),
        D::Utf8 | D::LargeUtf8 | D::Utf8View => ("text", D::Utf8),
        D::Binary | D::LargeBinary | D::BinaryView => ("bytea", D::Binary),
        D::Date32 => ("date", D::Date32),
        D::Timestamp(_, None) => ("timestamp without time zone", micros()),
        D::Timestamp(_, Some(_)) => ("timestamp with time zone", micros()),
        D::Decimal128(precision, scale) => {
            let name = format!("numeric({precision},{scale})");
            return Ok((name, D::Decimal128(*precision, *scale)));
        }
        other => return Err(unsupported(other)),
    };
    Ok((name.to_owned(), stored))
}

/// The type of the array parameter of a column, with the cast that makes it the column's.
///
/// # Errors
/// `Data` for types that cannot be stored.
pub(super) fn array_type(kind: &DataType) -> Result<String> {
    let (name, stored) = pg_type(kind)?;
    Ok(match stored {
        DataType::Decimal128(..) => "text[]::numeric[]".to_owned(),
        _ => format!("{name}[]"),
    })
}
