//! Landing: writes the records of a page into a table, in one transaction with the ledger.
//!
//! The records are converted to the columns of the table (`record`) and upserted by key. A record
//! that does not fit is returned with its bytes and the reason, for the dead letters. Engines:
//! PostgreSQL and SQLite, one module each.
//!
//! ```text
//! claim ─► fetch ─► convert ─► transaction { upsert rows; records refused? ── yes ─► roll back,
//!                                                     │ no                   write dead letters,
//!                                                     ▼                      try again
//!                                            end the claim in the ledger } ─► commit
//! ```
//!
//! Invariants:
//! 1. The rows and the end of the page's run in the ledger are one transaction. It is committed
//!    only when all refused records are durable as dead letters. No transaction is open while those
//!    are written.
//! 2. A row that does not change is not written. So landing a page again gives the capture no
//!    changes.
//! 3. A page whose claim was lost does not land (an error of kind `Fence`).
//! 4. If two records of a page have one key, the last one counts, as if they had come one by one.

pub(crate) mod letters;
mod postgres;
mod record;
mod sqlite;

use std::collections::HashMap;

use record::Row;
use serde_json::value::RawValue;
use tidemill_log::failpoint;
use tidemill_log::schema::ColumnType;
use uuid::Uuid;

use crate::config::{Land, LandColumn, Seed};
use crate::database::{Database, quoted};
use crate::fetch::Page;
use crate::json::Path;
use crate::schedule::{Claim, Ended};
use crate::{Error, Kind, Result};

/// The outcome of landing a page, in records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Landed {
    /// New rows.
    pub inserted: u64,
    /// Rows that changed.
    pub updated: u64,
    /// Rows that already had these values.
    pub unchanged: u64,
    /// Records that became dead letters.
    pub refused: u64,
    /// Whether the table reached the wanted number of rows within the page. The other new records
    /// of the page were left out, and the page stays due.
    pub trimmed: bool,
}

impl Landed {
    /// Records that are rows now.
    pub fn rows(&self) -> u64 {
        self.inserted + self.updated + self.unchanged
    }
}

/// The outcome of one attempt.
#[derive(Debug)]
pub enum Attempt {
    /// The page has landed.
    Landed(Landed),
    /// Nothing was written: the database refuses more records than the caller expected. All refused
    /// records of the page.
    Refused(Vec<Refused>),
}

/// Writes refused records durably to the dead letters.
pub type Aside<'a> = &'a mut dyn FnMut(&[Refused]) -> Result<()>;

/// Writes pages into a table. A landing belongs to one thread.
pub trait Landing: Send {
    /// Lands a page and ends its claim, in one transaction. With `until` the table gets at most
    /// that many rows. Refused records are passed to `aside` before anything is committed.
    ///
    /// # Errors
    /// `Fence` when the claim was lost; `Retry` when the database cannot be reached; those of
    /// `aside`.
    fn land(
        &mut self,
        claim: &Claim,
        page: &Page,
        until: Option<u64>,
        aside: Aside<'_>,
    ) -> Result<Landed> {
        let mut known = 0;
        loop {
            match self.attempt(claim, page, until, known)? {
                Attempt::Landed(landed) => return Ok(landed),
                Attempt::Refused(refused) => {
                    aside(&refused)?;
                    failpoint::hit(failpoint::LAND_AFTER_LETTERS);
                    known = refused.len();
                }
            }
        }
    }
    /// One attempt of [`Landing::land`], which commits only when at most `known` records are
    /// refused.
    ///
    /// # Errors
    /// Those of [`Landing::land`].
    fn attempt(
        &mut self,
        claim: &Claim,
        page: &Page,
        until: Option<u64>,
        known: usize,
    ) -> Result<Attempt>;
    /// Lands one record without a page, as when a dead letter is replayed. The inner error says why
    /// the record is refused.
    ///
    /// # Errors
    /// `Retry` when the database cannot be reached, `Data` when it refuses the statement.
    fn again(&mut self, record: &RawValue) -> Result<std::result::Result<Landed, String>>;
    /// Number of rows in the table.
    ///
    /// # Errors
    /// `Retry` when the database cannot be reached.
    fn total(&mut self) -> Result<u64>;
}

/// Opens a landing: creates the table, or compares an existing one column by column.
///
/// # Errors
/// `Data` when an existing table does not match `land`; `Retry` when the database cannot be
/// reached.
pub fn open(database: &str, land: &Land) -> Result<Box<dyn Landing>> {
    opened(database, land, &[])
}

/// Creates the table of a seed with the rows of its file, in one transaction. An existing table is
/// compared column by column and keeps its rows.
///
/// # Errors
/// `Data` when a row does not fit its columns, or an existing table does not match; `Retry` when
/// the database cannot be reached.
pub fn seed(database: &str, seed: &Seed) -> Result<()> {
    fits(seed)?;
    opened(database, &seed.land, &fit(&seed.land, &seed.rows).rows).map(drop)
}

/// Checks that all rows of a seed's file fit their columns.
///
/// # Errors
/// `Data` with the first row that does not.
pub fn fits(seed: &Seed) -> Result<()> {
    let rows = seed.rows.iter().zip(1..);
    let mut refused = rows.filter_map(|(raw, number)| {
        let reason = record::fit(&seed.land, raw).err()?;
        Some(format!("{}: row {number}: {reason}", seed.file.display()))
    });
    match refused.next() {
        Some(what) => Err(Error::new(Kind::Data, what)),
        None => Ok(()),
    }
}

/// Opens the engine of the database. A new table begins with these rows.
fn opened(database: &str, land: &Land, begins_with: &[Row<'_>]) -> Result<Box<dyn Landing>> {
    Ok(match Database::of(database)? {
        Database::Postgres(url) => {
            Box::new(postgres::PostgresLanding::open(&url, land, begins_with)?)
        }
        Database::Sqlite(file) => Box::new(sqlite::SqliteLanding::open(&file, land, begins_with)?),
    })
}

/// The records of a page, converted.
struct Fitted<'a> {
    /// Records that fit, without those that a later record replaces.
    rows: Vec<Row<'a>>,
    /// Records that do not fit.
    refused: Vec<Refused>,
    /// Number of records that a later record of the same key replaces.
    replaced: u64,
}

/// A record that does not fit the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its unchanged JSON text.
    pub raw: String,
    /// Why it does not fit.
    pub reason: String,
}

/// Converts the records of a page.
fn fit<'a>(land: &Land, records: &'a [Box<RawValue>]) -> Fitted<'a> {
    let mut fitted = Fitted {
        rows: Vec::with_capacity(records.len()),
        refused: Vec::new(),
        replaced: 0,
    };
    let mut places: HashMap<String, usize> = HashMap::with_capacity(records.len());
    for raw in records {
        match record::fit(land, raw) {
            Err(reason) => fitted.refused.push(Refused {
                raw: raw.get().to_owned(),
                reason,
            }),
            Ok(row) => match places.get(&row.key).and_then(|at| fitted.rows.get_mut(*at)) {
                Some(earlier) => {
                    *earlier = row;
                    fitted.replaced += 1;
                }
                None => {
                    places.insert(row.key.clone(), fitted.rows.len());
                    fitted.rows.push(row);
                }
            },
        }
    }
    fitted
}

/// A hash over the keys of the page's records, in their order, to recognize a page that repeats
/// another one; `None` when no record has a key.
fn key_hash(fitted: &Fitted<'_>) -> Option<String> {
    if fitted.rows.is_empty() {
        return None;
    }
    let keys = fitted.rows.iter().map(|row| &row.key);
    let keys: Vec<String> = keys.map(|key| format!("{}:{key}", key.len())).collect();
    Some(Uuid::new_v5(&Uuid::NAMESPACE_OID, keys.concat().as_bytes()).to_string())
}

/// What the ledger keeps of a page that landed.
fn ended(page: &Page, landed: Landed, mark: Option<String>) -> Ended {
    Ended {
        landed: landed.rows(),
        records: page.records.len() as u64,
        full: page.full,
        mark,
        whole: !landed.trimmed,
    }
}

/// All columns in order, the document last.
fn columns(land: &Land) -> Vec<LandColumn> {
    let document = land.document.iter().map(|name| LandColumn {
        name: name.clone(),
        path: Path::default(),
        kind: ColumnType::Json,
        nullable: false,
    });
    land.columns.iter().cloned().chain(document).collect()
}

/// SQL: the columns as `("a", "b")`, with `prefix` before each.
fn listed(columns: &[LandColumn], prefix: &str) -> String {
    let names: Vec<String> = columns
        .iter()
        .map(|column| format!("{prefix}{}", quoted(&column.name)))
        .collect();
    format!("({})", names.join(", "))
}

/// SQL after `ON CONFLICT`: updates the row, unless it already has these values.
fn on_conflict(land: &Land, columns: &[LandColumn], differs: &str) -> String {
    let others: Vec<LandColumn> = columns
        .iter()
        .filter(|column| column.name != land.key)
        .cloned()
        .collect();
    let key = quoted(&land.key);
    if others.is_empty() {
        return format!("ON CONFLICT ({key}) DO NOTHING");
    }
    let sets: Vec<String> = others
        .iter()
        .map(|column| format!("{0} = excluded.{0}", quoted(&column.name)))
        .collect();
    let (old, new) = (listed(&others, "old."), listed(&others, "excluded."));
    let sets = sets.join(", ");
    format!("ON CONFLICT ({key}) DO UPDATE SET {sets} WHERE {old} {differs} {new}")
}

/// SQL between the parentheses of `CREATE TABLE`.
fn declared(land: &Land, type_of: impl Fn(&LandColumn) -> String) -> String {
    let columns = columns(land);
    let declared = columns.iter().map(|column| {
        let null = if column.nullable { "" } else { " NOT NULL" };
        format!("{} {}{null}, ", quoted(&column.name), type_of(column))
    });
    let declared: String = declared.collect();
    format!("{declared}PRIMARY KEY ({})", quoted(&land.key))
}

/// A column of an existing table.
struct Found {
    /// Its name.
    name: String,
    /// Its type in SQL.
    kind: String,
    /// Whether it is NOT NULL.
    not_null: bool,
    /// Whether it has a default.
    has_default: bool,
}

/// The first difference between an existing table and `land`, with the remedy; `None` if it
/// matches.
fn mismatch(
    land: &Land,
    found: &[Found],
    key: &[String],
    type_of: impl Fn(&LandColumn) -> String,
) -> Option<String> {
    let table = quoted(&land.table);
    let columns = columns(land);
    for column in &columns {
        let (name, kind) = (&column.name, type_of(column));
        let Some(there) = found.iter().find(|there| there.name == *name) else {
            let add = format!("ALTER TABLE {table} ADD COLUMN {} {kind}", quoted(name));
            return Some(format!("there is no column `{name}`: add it with `{add}`"));
        };
        if !there.kind.eq_ignore_ascii_case(&kind) {
            let is = &there.kind;
            return Some(format!(
                "column `{name}` is `{is}`, ingest.toml needs `{kind}`"
            ));
        }
        if there.not_null && column.nullable {
            return Some(format!(
                "column `{name}` is NOT NULL, in ingest.toml it is nullable"
            ));
        }
    }
    let ours = |there: &&Found| columns.iter().any(|column| column.name == there.name);
    let mut others = found.iter().filter(|there| !ours(there));
    if let Some(other) = others.find(|there| there.not_null && !there.has_default) {
        let name = &other.name;
        let right = "give it a default, or drop NOT NULL";
        return Some(format!("column `{name}` is not in ingest.toml: {right}"));
    }
    if key != [land.key.clone()] {
        let (is, right) = (key.join(", "), &land.key);
        return Some(format!(
            "its primary key is ({is}), ingest.toml needs (`{right}`)"
        ));
    }
    None
}
