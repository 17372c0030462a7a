//! Landing: a page becomes rows, in one transaction with its cursor.
//!
//! A page's records are fitted to the table's columns ([`record`]) and upserted by key; a record
//! that does not fit is handed to the caller with its bytes and the reason, for the dead letters.
//! Engines: [`postgres`](self::postgres) and [`sqlite`](self::sqlite).
//!
//! 1. Rows and the run's end in the ledger are one transaction, which commits only when what was
//!    refused is durable among the dead letters; no transaction is open while those are written.
//! 2. A row that is already as it should be is not written, so landing a page again captures
//!    nothing.
//! 3. A page whose claim was lost does not land (an error of kind `Fence`).
//! 4. Two records of one key in a page: the last one counts, as if they had come one by one.

mod postgres;
mod record;
mod sqlite;

use std::collections::HashMap;

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
use record::Row;

/// What became of a page's records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Landed {
    /// New rows.
    pub inserted: u64,
    /// Rows that changed.
    pub updated: u64,
    /// Rows that were already so.
    pub unchanged: u64,
    /// Records put aside as dead letters.
    pub refused: u64,
    /// True when the table reached the wanted number of rows within the page: the rest of the
    /// page's new records was left out and the page stays due.
    pub trimmed: bool,
}

impl Landed {
    /// Records that are rows now.
    pub fn rows(&self) -> u64 {
        self.inserted + self.updated + self.unchanged
    }
}

/// What came of trying to land a page.
#[derive(Debug)]
pub enum Attempt {
    /// It landed.
    Landed(Landed),
    /// Nothing was written: more records are refused than the caller knew of. All of them.
    Refused(Vec<Refused>),
}

/// Takes what was refused, durably.
pub type Aside<'a> = &'a mut dyn FnMut(&[Refused]) -> Result<()>;

/// Writes pages. One landing belongs to one thread.
pub trait Landing: Send {
    /// Lands a page and ends its claim, in one transaction. With `until` the table gets no more
    /// than that many rows. What is refused is given to `aside` before anything is committed.
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
    /// One try of [`Landing::land`], which commits only when no more than `known` records are
    /// refused.
    fn attempt(
        &mut self,
        claim: &Claim,
        page: &Page,
        until: Option<u64>,
        known: usize,
    ) -> Result<Attempt>;
    /// Lands one record outside of any page, as when it is replayed; or says why it is refused.
    fn again(&mut self, record: &RawValue) -> Result<std::result::Result<Landed, String>>;
    /// Rows in the table.
    fn total(&mut self) -> Result<u64>;
}

/// Opens the landing: creates the tables, or checks column by column the one that is there.
pub fn open(database: &str, land: &Land) -> Result<Box<dyn Landing>> {
    opened(database, land, &[])
}

/// Makes a seed's table with the rows of its file, in one transaction. A table that is there is
/// checked column by column and keeps the rows it has.
pub fn seed(database: &str, seed: &Seed) -> Result<()> {
    fits(seed)?;
    opened(database, &seed.land, &fit(&seed.land, &seed.rows).rows).map(drop)
}

/// Whether all rows of a seed's file fit its columns.
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

fn opened(database: &str, land: &Land, begins_with: &[Row<'_>]) -> Result<Box<dyn Landing>> {
    Ok(match Database::of(database)? {
        Database::Postgres(url) => {
            Box::new(postgres::PostgresLanding::open(&url, land, begins_with)?)
        }
        Database::Sqlite(file) => Box::new(sqlite::SqliteLanding::open(&file, land, begins_with)?),
    })
}

/// A page's records, sorted out.
struct Fitted<'a> {
    rows: Vec<Row<'a>>,
    refused: Vec<Refused>,
    /// Records that a later one of the same key replaced.
    replaced: u64,
}

/// A record that does not fit the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its bytes as they came.
    pub raw: String,
    /// Why it does not fit.
    pub reason: String,
}

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

/// What tells a page from others by its records' keys; none when no record has one.
fn mark(fitted: &Fitted<'_>) -> Option<String> {
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

/// `("a", "b")` of the columns, each with `prefix` before it.
fn listed(columns: &[LandColumn], prefix: &str) -> String {
    let names: Vec<String> = columns
        .iter()
        .map(|column| format!("{prefix}{}", quoted(&column.name)))
        .collect();
    format!("({})", names.join(", "))
}

/// What follows `ON CONFLICT`: update the row, unless it is already so.
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

/// What stands between the parentheses of the table's `CREATE TABLE`.
fn declared(land: &Land, type_of: impl Fn(&LandColumn) -> String) -> String {
    let columns = columns(land);
    let declared = columns.iter().map(|column| {
        let null = if column.nullable { "" } else { " NOT NULL" };
        format!("{} {}{null}, ", quoted(&column.name), type_of(column))
    });
    let declared: String = declared.collect();
    format!("{declared}PRIMARY KEY ({})", quoted(&land.key))
}

/// A column as a table that is there has it.
struct Found {
    name: String,
    kind: String,
    not_null: bool,
    has_default: bool,
}

/// What is wrong with a table that is there, or nothing.
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
