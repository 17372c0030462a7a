//! Landing in PostgreSQL: one upsert per page, which reads the rows from one JSON parameter.
//!
//! If the database refuses a row, the page is written again row by row, each in a savepoint, to
//! find the rows that it refuses.

use postgres::{Client, Transaction};
use serde_json::value::RawValue;
use tidemill_log::failpoint;
use tidemill_log::schema::ColumnType;

use super::{
    Attempt, Fitted, Found, Landed, Landing, Refused, Row, columns, declared, ended, fit, key_hash,
    listed, mismatch,
};
use crate::config::{Land, LandColumn};
use crate::database::{postgres_failed, quoted};
use crate::fetch::Page;
use crate::schedule::Claim;
use crate::schedule::postgres::finish;
use crate::{Error, Kind, Result, database};

/// A landing in PostgreSQL.
pub(super) struct PostgresLanding {
    client: Client,
    /// The table.
    land: Land,
    /// The upsert statement.
    upsert: String,
}

/// The type of a column in PostgreSQL.
fn type_of(column: &LandColumn) -> String {
    let name = match column.kind {
        ColumnType::Bool => "boolean",
        ColumnType::Int => "integer",
        ColumnType::Long => "bigint",
        ColumnType::Float => "real",
        ColumnType::Double => "double precision",
        ColumnType::Text | ColumnType::Source(_) => "text",
        ColumnType::Uuid => "uuid",
        ColumnType::Json => "jsonb",
        ColumnType::Bytes => "bytea",
        ColumnType::Date => "date",
        ColumnType::Timestamp => "timestamp without time zone",
        ColumnType::Timestamptz => "timestamp with time zone",
        ColumnType::Decimal { precision, scale } => return format!("numeric({precision},{scale})"),
    };
    name.to_owned()
}

impl PostgresLanding {
    /// Connects, and creates or compares the table.
    pub(super) fn open(url: &str, land: &Land, begins_with: &[Row<'_>]) -> Result<Self> {
        let mut client = database::postgres(url)?;
        let table = &land.table;
        let failed = |error| postgres_failed(&format!("table `{table}`"), error);
        let mut transaction = client.transaction().map_err(failed)?;
        database::lock_creation(&mut transaction)?;
        let there: bool = transaction
            .query_one("SELECT to_regclass($1) IS NOT NULL", &[&quoted(table)])
            .map_err(failed)?
            .get(0);
        if there {
            check(&mut transaction, land)?;
        } else {
            transaction.batch_execute(&create(land)).map_err(failed)?;
            let rows: Vec<String> = begins_with.iter().map(|row| row.json(false)).collect();
            let rows = format!("[{}]", rows.join(","));
            transaction.query(&upsert(land), &[&rows]).map_err(failed)?;
        }
        transaction.commit().map_err(failed)?;
        Ok(Self {
            client,
            land: land.clone(),
            upsert: upsert(land),
        })
    }
}

/// SQL: creates the table.
fn create(land: &Land) -> String {
    let (table, declared) = (quoted(&land.table), declared(land, type_of));
    // With REPLICA IDENTITY FULL the capture gets the whole row before a change.
    format!(
        "CREATE TABLE {table} ({declared});
         ALTER TABLE {table} REPLICA IDENTITY FULL"
    )
}

/// Compares an existing table with `land`.
fn check(transaction: &mut Transaction<'_>, land: &Land) -> Result<()> {
    let table = &land.table;
    let failed = |error| postgres_failed(&format!("columns of table `{table}`"), error);
    let select = "SELECT attname::text, format_type(atttypid, atttypmod), attnotnull,
        atthasdef OR attidentity <> '' FROM pg_attribute
        WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped";
    let rows = transaction
        .query(select, &[&quoted(table)])
        .map_err(failed)?;
    let found: Vec<Found> = rows
        .iter()
        .map(|row| Found {
            name: row.get(0),
            kind: row.get(1),
            not_null: row.get(2),
            has_default: row.get(3),
        })
        .collect();
    let select = "SELECT a.attname::text FROM pg_index i
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
        WHERE i.indrelid = to_regclass($1) AND i.indisprimary";
    let rows = transaction
        .query(select, &[&quoted(table)])
        .map_err(failed)?;
    let key: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    match mismatch(land, &found, &key, type_of) {
        None => Ok(()),
        Some(what) => Err(Error::new(
            Kind::Data,
            format!("PostgreSQL table `{table}`: {what}"),
        )),
    }
}

/// SQL: the upsert of a page; returns for each written row whether it is new.
fn upsert(land: &Land) -> String {
    let columns = columns(land);
    let fields: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| format!("c{at} {}", type_of(column)))
        .collect();
    let (table, names) = (quoted(&land.table), listed(&columns, ""));
    let on_conflict = super::on_conflict(land, &columns, "IS DISTINCT FROM");
    // An updated row has the updating transaction as its `xmax`; a new row has none.
    format!(
        "INSERT INTO {table} AS old {names}
         SELECT * FROM jsonb_to_recordset($1::text::jsonb) AS page ({})
         {on_conflict} RETURNING xmax = 0",
        fields.join(", ")
    )
}

impl Landing for PostgresLanding {
    /// Writes the whole page with one statement; row by row only when the database refuses one.
    fn attempt(
        &mut self,
        claim: &Claim,
        page: &Page,
        until: Option<u64>,
        known: usize,
    ) -> Result<Attempt> {
        let Self {
            client,
            land,
            upsert,
        } = self;
        let mut fitted = fit(land, &page.records);
        let mark = key_hash(&fitted);
        let mut landed = Landed {
            unchanged: fitted.replaced,
            ..Landed::default()
        };
        let failed = |error| postgres_failed(&format!("landing {}", page.url), error);
        let mut transaction = client.transaction().map_err(failed)?;
        if let Some(until) = until {
            landed.trimmed = trim(&mut transaction, land, &mut fitted, until)?;
        }
        let document = land.document.is_some();
        let rows: Vec<String> = fitted.rows.iter().map(|row| row.json(document)).collect();
        if !write(&mut transaction, upsert, &rows, &mut landed)? {
            one_by_one(&mut transaction, upsert, &mut fitted, &rows, &mut landed)?;
        }
        if fitted.refused.len() > known {
            transaction.rollback().map_err(failed)?;
            return Ok(Attempt::Refused(fitted.refused));
        }
        landed.refused = fitted.refused.len() as u64;
        finish(&mut transaction, claim, &ended(page, landed, mark))?;
        failpoint::hit(failpoint::LAND_BEFORE_COMMIT);
        transaction.commit().map_err(failed)?;
        failpoint::hit(failpoint::LAND_AFTER_COMMIT);
        Ok(Attempt::Landed(landed))
    }

    fn again(&mut self, record: &RawValue) -> Result<std::result::Result<Landed, String>> {
        let failed = |error| postgres_failed("landing a record again", error);
        let records = [record.to_owned()];
        let mut fitted = fit(&self.land, &records);
        let document = self.land.document.is_some();
        let rows: Vec<String> = fitted.rows.iter().map(|row| row.json(document)).collect();
        let mut landed = Landed::default();
        let mut transaction = self.client.transaction().map_err(failed)?;
        one_by_one(
            &mut transaction,
            &self.upsert,
            &mut fitted,
            &rows,
            &mut landed,
        )?;
        transaction.commit().map_err(failed)?;
        Ok(fitted.refused.pop().map_or(Ok(landed), |it| Err(it.reason)))
    }

    fn total(&mut self) -> Result<u64> {
        count(&mut self.client, &self.land)
    }
}

/// Number of rows in the table.
fn count(client: &mut impl postgres::GenericClient, land: &Land) -> Result<u64> {
    let select = format!("SELECT count(*) FROM {}", quoted(&land.table));
    let row = client
        .query_one(&select, &[])
        .map_err(|error| postgres_failed(&format!("counting table `{}`", land.table), error))?;
    Ok(row.get::<_, i64>(0) as u64)
}

/// Upserts the rows. False, with nothing written, when the database refuses one of them.
fn write(
    transaction: &mut Transaction<'_>,
    upsert: &str,
    rows: &[String],
    landed: &mut Landed,
) -> Result<bool> {
    let failed = |error| postgres_failed("upsert", error);
    let json = format!("[{}]", rows.join(","));
    let mut savepoint = transaction.transaction().map_err(failed)?;
    match savepoint.query(upsert, &[&json]) {
        Ok(written) => {
            savepoint.commit().map_err(failed)?;
            let inserted = written.iter().filter(|row| row.get(0)).count();
            landed.inserted += inserted as u64;
            landed.updated += (written.len() - inserted) as u64;
            landed.unchanged += (rows.len() - written.len()) as u64;
            Ok(true)
        }
        Err(error) if refuses_a_row(&error) => {
            savepoint.rollback().map_err(failed)?;
            Ok(false)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Whether the error is about a row: data exceptions (SQLSTATE class 22), integrity constraints
/// (23) and program limits (54).
fn refuses_a_row(error: &postgres::Error) -> bool {
    let code = error.code().map(|code| code.code());
    let class = code.and_then(|code| code.get(..2)).unwrap_or_default();
    matches!(class, "22" | "23" | "54")
}

/// Upserts the rows one by one, and moves those that the database refuses to `fitted.refused`.
fn one_by_one(
    transaction: &mut Transaction<'_>,
    upsert: &str,
    fitted: &mut Fitted<'_>,
    rows: &[String],
    landed: &mut Landed,
) -> Result<()> {
    let failed = |error| postgres_failed("upsert", error);
    for (row, json) in fitted.rows.iter().zip(rows) {
        let json = format!("[{json}]");
        let mut savepoint = transaction.transaction().map_err(failed)?;
        match savepoint.query(upsert, &[&json]) {
            Ok(written) => {
                savepoint.commit().map_err(failed)?;
                match written.first().map(|row| row.get::<_, bool>(0)) {
                    Some(true) => landed.inserted += 1,
                    Some(false) => landed.updated += 1,
                    None => landed.unchanged += 1,
                }
            }
            Err(error) if refuses_a_row(&error) => {
                savepoint.rollback().map_err(failed)?;
                fitted.refused.push(Refused {
                    raw: row.raw.to_owned(),
                    reason: failed(error).to_string(),
                });
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}

/// Removes new rows beyond `until` from the page; true when there were any. The table lock makes
/// landings of the same table wait for each other, so that together they stop at the number.
fn trim(
    transaction: &mut Transaction<'_>,
    land: &Land,
    fitted: &mut Fitted<'_>,
    until: u64,
) -> Result<bool> {
    let table = quoted(&land.table);
    let failed = |error| postgres_failed(&format!("counting table `{}`", land.table), error);
    transaction
        .batch_execute(&format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE"))
        .map_err(failed)?;
    let mut left = until.saturating_sub(count(transaction, land)?);
    if (fitted.rows.len() as u64) <= left {
        return Ok(false);
    }
    let kind = columns(land)
        .iter()
        .find(|column| column.name == land.key)
        .map(type_of);
    let (kind, key) = (kind.unwrap_or_default(), quoted(&land.key));
    let select = format!(
        "SELECT EXISTS (SELECT FROM {table} WHERE {key} = given::{kind})
         FROM unnest($1::text[]) WITH ORDINALITY AS page (given, place) ORDER BY place"
    );
    let keys: Vec<&str> = fitted.rows.iter().map(|row| row.key.as_str()).collect();
    let there = transaction.query(&select, &[&keys]).map_err(failed)?;
    let all = fitted.rows.len();
    let mut there = there.iter().map(|row| row.get::<_, bool>(0));
    fitted.rows.retain(|_| {
        let known = there.next().unwrap_or(false);
        let room = left > 0;
        if !known && room {
            left -= 1;
        }
        known || room
    });
    Ok(fitted.rows.len() < all)
}
