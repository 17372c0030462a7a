//! Capture: every committed row change, in commit order.
//!
//! What flows in: the tables of a database, as rows that are there already (the snapshot) and as
//! changes committed from then on. What flows out: [`Captured`], in [`Position`] order, to publish.
//!
//! Invariants:
//! 1. No committed change is left out: the source forgets a change only after
//!    [`Capture::acknowledge`] was told that it is durable downstream.
//! 2. The same change has the same position each time it is read, and positions only grow, so a
//!    publisher can tell what it already wrote.
//! 3. A snapshot begins with a truncate of each table, so rows deleted while nobody captured do
//!    not survive downstream.
//! 4. A row that cannot be understood is handed out as [`Captured::Refused`] and stops nothing. Of
//!    the row before a change only the key must be understood.

pub mod mark;
mod postgres;
pub mod remains;
mod sqlite;
mod value;

use std::sync::Arc;
use std::time::Duration;

use tidemill_log::event::{Change, Op, Position, Value};
use tidemill_log::log::Described;
use tidemill_log::schema::TableSchema;

use crate::database::Database;
use crate::server::Server;
use crate::{Error, Kind, Result};

/// The most changes that one [`Capture::next`] hands out.
pub(crate) const BATCH: usize = 1_000;
/// How long a table may be gone or not fit to be captured, as between two statements of a change.
const TABLES_PATIENCE: Duration = Duration::from_secs(10);

/// What a capture hands out.
#[derive(Debug, Clone, PartialEq)]
pub enum Captured {
    /// A row change.
    Change(Change),
    /// A row change whose values cannot be represented.
    Refused(Refused),
}

impl Captured {
    /// Where it was read.
    pub fn position(&self) -> Position {
        match self {
            Captured::Change(change) => change.position,
            Captured::Refused(refused) => {
                let last = refused.withheld.last();
                last.map_or(refused.position, |change| change.position)
            }
        }
    }
}

/// A row change whose values cannot be represented, as text for the dead letters.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    /// The table's name.
    pub table: String,
    /// The row's key as text.
    pub key: String,
    /// Where it was read.
    pub position: Position,
    /// Which column, and what is wrong with it.
    pub reason: String,
    /// The whole row as text.
    pub row: String,
    /// What takes the rows away that were published of its keys before; see [`withhold`].
    pub withheld: Vec<Change>,
}

/// What can be captured; an error says of all else why not.
fn all_fit<T>(loaded: impl Iterator<Item = Result<T>>) -> Result<Vec<T>> {
    let (mut fit, mut unfit) = (Vec::new(), Vec::new());
    for table in loaded {
        match table {
            Ok(table) => fit.push(table),
            Err(error) if error.kind() == Kind::Data => unfit.push(error),
            Err(error) => return Err(error),
        }
    }
    match unfit.len() {
        0 => Ok(fit),
        1 => Err(unfit.remove(0)),
        _ => {
            let all: Vec<String> = unfit.iter().map(Error::to_string).collect();
            Err(Error::new(Kind::Data, all.join("; ")))
        }
    }
}

/// What is published in place of `change`, whose new row cannot be represented: `new` holds the
/// values of its key, or nothing when not even they can be. The row of the old key, when that is
/// another one, is deleted.
fn withhold(change: &Change, new: Option<Vec<Value>>) -> Vec<Change> {
    let is_same =
        |old: &[Value], new: &[Value]| key_of(&change.table, old).eq(key_of(&change.table, new));
    let old = change.before.as_ref().filter(|old| match &new {
        Some(new) => !is_same(old, new),
        None => true,
    });
    let old = old.map(|old| (Op::Delete, old.clone()));
    let changes = old.into_iter().chain(new.map(|new| (Op::Withheld, new)));
    let changes = changes.enumerate().map(|(number, (op, row))| {
        let mut position = change.position;
        position.index += number as u64;
        Change {
            op,
            before: Some(Change::key_alone(&change.table, &row)),
            after: None,
            position,
            ..change.clone()
        }
    });
    changes.collect()
}

/// Reads the committed changes of some tables.
pub trait Capture: Send {
    /// The captured tables as they are now.
    fn tables(&self) -> Vec<Arc<TableSchema>>;

    /// Whether opening it began a new snapshot: whatever the topics hold already is older.
    fn begins_anew(&self) -> bool;

    /// Whether it reads this table anew, alone or with all others.
    fn table_begins_anew(&self, _table: &TableSchema) -> bool {
        self.begins_anew()
    }

    /// Has the next capture read this table anew: what was published of it does not fit its changes
    /// to come.
    fn read_anew(&mut self, table: &TableSchema) -> Result<()> {
        let what = format!(
            "table `{}` must be read anew, since what was published of it cannot be read with its \
             new schema: run `tidemill ingest --resnapshot`",
            table.name
        );
        Err(Error::new(Kind::Data, what))
    }

    /// Notes durably which topic a table's changes go to, and returns the first note: the one that
    /// is there already, unless this capture begins anew and the topic is another one since. An
    /// error of kind `Data` when the table goes on, and went to another topic before.
    fn note(&mut self, table: &TableSchema, topic: &str, now: Described) -> Result<Described>;

    /// An error of kind `Data` when the topic holds a change, its last, that the database does not
    /// have any more: another server, which lacks it, took the place of the one that was captured.
    fn has(&self, _topic: &str, _last: Position) -> Result<()> {
        Ok(())
    }

    /// All topics were compared with the database: changes of it are published from here on.
    fn goes_on(&mut self) -> Result<()> {
        Ok(())
    }

    /// Blocks up to `wait` and returns the next changes in order: one read, about 1,000 at most.
    /// While the server is away it returns nothing and reconnects. An error of kind `Retry` means
    /// that this capture is over and a new one must be opened, `Data` that a person must act.
    fn next(&mut self, wait: Duration) -> Result<Vec<Captured>>;

    /// Tables whose columns changed, with the columns that all their next changes have: every
    /// change from before is acknowledged.
    fn altered(&mut self) -> Vec<Arc<TableSchema>> {
        Vec::new()
    }

    /// Whether all tables were handed out as the catalog had them since the capture was opened.
    fn is_settled(&self) -> bool {
        true
    }

    /// Whether this process is still the one that may publish: asked before each batch, since
    /// whoever stood still may have been taken over. An error of kind `Retry` when it is not, or
    /// when nobody can tell: this capture is over, and what it read is read again by the next.
    fn check(&mut self) -> Result<()>;

    /// What was noticed of the tables since it was last asked, in the catalog and not in the
    /// stream: which table is read anew, or cannot be captured now, and why.
    fn noticed(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// Why the database is away; none while it is not.
    fn away(&self) -> Option<String> {
        None
    }

    /// Up to where everything was captured and acknowledged: an LSN, or the id of a change in a
    /// SQLite file; none of an engine that has no such number.
    fn passed(&self) -> Option<u64> {
        None
    }

    /// Everything up to this position is durable downstream: the source may forget it.
    fn acknowledge(&mut self, through: Position) -> Result<()>;
}

/// Opens the capture of `tables` in the database that `database_url` names (`postgres://…` or
/// `sqlite://FILE`), under `name`, which keeps its progress in that database. With `resnapshot` the
/// progress is dropped and the tables are read again from the beginning. An error of kind `Fence`
/// means that another process captures under this name now.
pub fn open(
    database_url: &str,
    tables: &[String],
    name: &str,
    resnapshot: bool,
) -> Result<Box<dyn Capture>> {
    if tables.is_empty() {
        return Err(Error::new(
            Kind::Data,
            format!("capture `{name}`: no tables named; list at least one"),
        ));
    }
    if let Some(file) = database_url.strip_prefix("sqlite://") {
        return Ok(Box::new(sqlite::SqliteCapture::open(
            file, tables, name, resnapshot,
        )?));
    }
    if database_url.starts_with("postgres://") || database_url.starts_with("postgresql://") {
        let capture = postgres::PostgresCapture::open(database_url, tables, name, resnapshot)?;
        return Ok(Box::new(capture));
    }
    Err(Error::new(
        Kind::Data,
        "the database's URL must begin with postgres:// or sqlite://".to_owned(),
    ))
}

/// The process that captures from a PostgreSQL server now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// `process 12 on host a`, or the server's number of its session.
    pub who: String,
    /// Since when its session is there, in milliseconds since 1970.
    pub since_ms: u64,
    /// Changes at least every two seconds as long as the process lives.
    pub sign: String,
}

/// Who captures from the PostgreSQL server at `url` under `name`; none when nobody does. A dead
/// process is named until the server ends its session, which takes 8 seconds.
///
/// # Errors
/// When the server is away or refuses.
pub fn holder(url: &str, name: &str) -> Result<Option<Holder>> {
    postgres::holder(&Server::parse(url)?, &slot_of(name)?)
}

/// The tables of these names as a capture would see them, in their order, as the database's own
/// catalog has them now. Nothing is written; an embedded file must be there.
///
/// # Errors
/// `Retry` when the database is away, `Data` when it refuses, or when a table is not there or
/// cannot be captured.
pub fn tables(database_url: &str, names: &[String]) -> Result<Vec<TableSchema>> {
    match Database::of(database_url)? {
        Database::Postgres(url) => postgres::tables(&Server::parse(&url)?, names),
        Database::Sqlite(file) => sqlite::tables(&file, names),
    }
}

/// A generated column, which no capture gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// Its table.
    pub table: String,
    /// Its name.
    pub column: String,
    /// What it is made of, where the database says so.
    pub expression: Option<String>,
}

/// The generated columns of these tables.
///
/// # Errors
/// When the database is away or refuses.
pub fn generated(database_url: &str, names: &[String]) -> Result<Vec<Generated>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    match Database::of(database_url)? {
        Database::Postgres(url) => postgres::generated(&Server::parse(&url)?, names),
        Database::Sqlite(file) => sqlite::generated(&file, names),
    }
}

/// The name of the replication slot, and the publication, of the capture called `name`.
pub(crate) fn slot_of(name: &str) -> Result<String> {
    postgres::slot_name(name)
}

/// The values of the key's columns.
fn key_of<'a>(table: &'a TableSchema, row: &'a [Value]) -> impl Iterator<Item = Option<&'a Value>> {
    table.key.iter().map(|&column| row.get(column))
}

/// Appends a change; an update that moves a row to another key becomes a delete of the old key and
/// a create of the new one, because the log keeps one history a key. Returns how many it became.
fn push(out: &mut Vec<Captured>, change: Change) -> u64 {
    if let (Op::Update, Some(before), Some(after)) = (change.op, &change.before, &change.after)
        && !key_of(&change.table, before).eq(key_of(&change.table, after))
    {
        let delete = Change {
            op: Op::Delete,
            after: None,
            table: Arc::clone(&change.table),
            before: change.before.clone(),
            ..change
        };
        let mut position = change.position;
        position.index += 1;
        let create = Change {
            op: Op::Create,
            before: None,
            position,
            ..change
        };
        out.extend([Captured::Change(delete), Captured::Change(create)]);
        return 2;
    }
    out.push(Captured::Change(change));
    1
}

/// Why a table that is not read anew cannot go on with a topic that was never noted.
fn another_topic(table: &str, topic: &str) -> Error {
    let what = format!(
        "topic `{topic}` would begin without the rows of table `{table}`, which were published to \
         another topic; set `topic_prefix` and `topic_schema` in [publish] back, or run `tidemill \
         ingest --resnapshot`"
    );
    Error::new(Kind::Data, what)
}

/// The note that stands, of the one that is there and the one that may take its place.
fn standing(noted: Option<Described>, now: Described, begins_anew: bool) -> Described {
    match noted {
        Some(noted) if noted.id == now.id || !begins_anew => noted,
        _ => now,
    }
}
