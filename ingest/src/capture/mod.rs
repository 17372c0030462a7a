//! Change data capture (CDC): every committed row change of some tables, in commit order.
//!
//! In: the tables of a database, first the existing rows (the snapshot), then the changes that are
//! committed afterwards (the stream). Out: [`Captured`] in the order of [`Position`], for publish.
//! Engines: PostgreSQL (a replication slot, pgoutput) and SQLite (triggers).
//!
//! ```text
//! slot created at P      snapshot of P             stream from P on
//! ──────┬───────────────────────────────────────────────────────────────────► WAL
//!       │  truncate, row, row, …  │  changes of commits at or after P
//!       └─ positions (P - 1, 0…n) └─ positions (commit LSN, 0…n)
//!
//! next() ─► publish ─► durable in the log ─► acknowledge(position) ─► progress ─► slot told
//! ```
//!
//! Invariants:
//! 1. No committed change is lost: the source discards a change only after [`Capture::acknowledge`]
//!    was called for it, when it is durable in the log.
//! 2. A change has the same position each time it is read, and positions only grow. So the
//!    publisher knows which changes a topic already holds.
//! 3. A snapshot begins with a truncate of each table, so that rows that were deleted while no
//!    capture ran do not remain downstream.
//! 4. A row that cannot be represented is returned as [`Captured::Refused`], and the capture
//!    continues. Of the row before a change only the key must be representable.

pub mod mark;
mod postgres;
pub mod remains;
mod sqlite;
mod value;

use std::sync::Arc;
use std::time::Duration;

use tidemill_log::envelope::event::{Change, Op, Position, Value};
use tidemill_log::log::Described;
use tidemill_log::schema::TableSchema;

use crate::database::Database;
use crate::{Error, Kind, Result};
use tidemill_postgres::Server;

/// Largest number of changes that one [`Capture::next`] returns (about).
pub(crate) const BATCH: usize = 1_000;
/// How long a captured table may be missing or unfit for capture, as between two statements of a
/// migration, before the capture fails.
const TABLES_PATIENCE: Duration = Duration::from_secs(10);

/// What a capture returns.
#[derive(Debug, Clone, PartialEq)]
pub enum Captured {
    /// A row change.
    Change(Change),
    /// A row change with a value that cannot be represented.
    Refused(Refused),
}

impl Captured {
    /// The source position; of a refused row the last position that it takes.
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

/// A row change with a value that cannot be represented, as text for a dead letter.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    /// Name of the table.
    pub table: String,
    /// Key of the row, as text.
    pub key: String,
    /// Source position of the change.
    pub position: Position,
    /// Which column is not representable, and why.
    pub reason: String,
    /// The whole row, as text.
    pub row: String,
    /// Changes that remove what was published of the row's keys before; see `withhold`.
    pub withheld: Vec<Change>,
}

/// All loaded tables. Errors of kind `Data` are collected, so that one error names every table that
/// cannot be captured.
fn collect_fit<T>(loaded: impl Iterator<Item = Result<T>>) -> Result<Vec<T>> {
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

/// The changes to publish in place of `change`, whose new row cannot be represented. `new` holds
/// the values of the new row's key, or `None` when even these are not representable. If the key
/// changed, the row of the old key is deleted.
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

/// Reads the committed changes of some tables. A capture belongs to one thread.
///
/// The order of calls: [`note`](Self::note) and [`has`](Self::has) for each topic,
/// [`goes_on`](Self::goes_on), then [`next`](Self::next), [`check`](Self::check) and
/// [`acknowledge`](Self::acknowledge) in turn.
pub trait Capture: Send {
    /// The captured tables with their current columns.
    fn tables(&self) -> Vec<Arc<TableSchema>>;

    /// Whether the capture began with a snapshot of all tables. Then everything that the topics
    /// hold is older.
    fn begins_anew(&self) -> bool;

    /// Whether the capture began with a snapshot of this table, alone or with all others.
    fn table_begins_anew(&self, _table: &TableSchema) -> bool {
        self.begins_anew()
    }

    /// Makes the next capture read this table as a snapshot, because its next changes cannot be
    /// read together with what is published of it.
    ///
    /// # Errors
    /// `Data` when the engine cannot read one table alone, with the command that reads all.
    fn read_anew(&mut self, table: &TableSchema) -> Result<()> {
        let what = format!(
            "table `{}` must be read anew, since what was published of it cannot be read with its \
             new schema: run `tidemill ingest --resnapshot`",
            table.name
        );
        Err(Error::new(Kind::Data, what))
    }

    /// Records durably to which topic the changes of a table go, and returns the record that
    /// applies: the first one, unless this capture began with a snapshot and the topic is another
    /// one since.
    ///
    /// # Errors
    /// `Data` when the table continues without a snapshot and its changes went to another topic
    /// before.
    fn note(&mut self, table: &TableSchema, topic: &str, now: Described) -> Result<Described>;

    /// Checks that the database has the newest change of a topic. After a failover the promoted
    /// standby may lack the last changes of the old primary.
    ///
    /// # Errors
    /// `Data` when the database does not have that change.
    fn has(&self, _topic: &str, _last: Position) -> Result<()> {
        Ok(())
    }

    /// All topics were compared with the database: from now on its changes are published.
    ///
    /// # Errors
    /// Those of writing the progress.
    fn goes_on(&mut self) -> Result<()> {
        Ok(())
    }

    /// Waits up to `wait` for changes and returns the next ones in order, about 1,000 at most.
    /// While the server cannot be reached it returns no changes and reconnects.
    ///
    /// # Errors
    /// `Retry` when this capture has ended and a new one must be opened; `Data` when a person must
    /// act.
    fn next(&mut self, wait: Duration) -> Result<Vec<Captured>>;

    /// Tables whose columns were altered and that had no change since, with their new columns. All
    /// changes under the old columns are acknowledged.
    fn altered(&mut self) -> Vec<Arc<TableSchema>> {
        Vec::new()
    }

    /// Whether [`Self::altered`] or a change has reported the columns of every table, as the
    /// catalog had them after the capture was opened.
    fn is_settled(&self) -> bool {
        true
    }

    /// Checks that this process may still publish. Called before each batch, because another
    /// process may have taken over while this one was frozen.
    ///
    /// # Errors
    /// `Retry` when it may not, or this is unknown. This capture has ended; the next one reads its
    /// changes again.
    fn check(&mut self) -> Result<()>;

    /// What was found in the catalog since the last call, one line each: which table is read again
    /// or cannot be captured at the moment, and why.
    fn noticed(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// Why the database cannot be reached; `None` when it can.
    fn away(&self) -> Option<String> {
        None
    }

    /// Everything before this LSN, or up to this change id of a SQLite file, is captured and
    /// acknowledged.
    fn passed(&self) -> Option<u64> {
        None
    }

    /// Everything up to this position is durable downstream, and the source may discard it.
    ///
    /// # Errors
    /// Those of recording the progress.
    fn acknowledge(&mut self, through: Position) -> Result<()>;
}

/// Opens a capture of `tables` in the database at `database_url` (`postgres://…` or
/// `sqlite://FILE`). Its progress is kept in the database under `name`. With `resnapshot` the
/// progress is discarded, and all tables are read again.
///
/// # Errors
/// `Fence` when another process captures under this name; `Data` when a table or the server cannot
/// be captured, or changes are lost; `Retry` when the database cannot be reached.
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

/// The process that captures from a PostgreSQL server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// `process 12 on host a`, or the process id of its session in the server.
    pub who: String,
    /// When its session began, in milliseconds since 1970.
    pub since_ms: u64,
    /// A text that changes at least every two seconds while the process lives.
    pub sign: String,
}

/// The process that captures from the PostgreSQL server at `url` under `name`; `None` when there is
/// none. A dead process is returned until the server ends its session, after 8 seconds.
///
/// # Errors
/// `Retry` when the server cannot be reached, `Data` when it refuses.
pub fn holder(url: &str, name: &str) -> Result<Option<Holder>> {
    postgres::holder(&Server::parse(url)?, &slot_of(name)?)
}

/// The tables of these names as a capture would see them, in the same order, from the catalog of
/// the database. Nothing is written. An embedded file must exist.
///
/// # Errors
/// `Retry` when the database cannot be reached; `Data` when it refuses, or a table does not exist
/// or cannot be captured.
pub fn tables(database_url: &str, names: &[String]) -> Result<Vec<TableSchema>> {
    match Database::of(database_url)? {
        Database::Postgres(url) => postgres::tables(&Server::parse(&url)?, names),
        Database::Sqlite(file) => sqlite::tables(&file, names),
    }
}

/// A generated column, which is not captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// Name of its table.
    pub table: String,
    /// Name of the column.
    pub column: String,
    /// Its expression, where the database tells it.
    pub expression: Option<String>,
}

/// The generated columns of these tables.
///
/// # Errors
/// `Retry` when the database cannot be reached, `Data` when it refuses.
pub fn generated(database_url: &str, names: &[String]) -> Result<Vec<Generated>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    match Database::of(database_url)? {
        Database::Postgres(url) => postgres::generated(&Server::parse(&url)?, names),
        Database::Sqlite(file) => sqlite::generated(&file, names),
    }
}

/// The name of the replication slot, and of the publication, of the capture `name`.
pub(crate) fn slot_of(name: &str) -> Result<String> {
    postgres::slot_name(name)
}

/// The values of the key's columns.
fn key_of<'a>(table: &'a TableSchema, row: &'a [Value]) -> impl Iterator<Item = Option<&'a Value>> {
    table.key.iter().map(|&column| row.get(column))
}

/// Appends a change and returns how many changes it became. An update of the primary key becomes a
/// delete of the old key and a create of the new one (as in Debezium), because the log keeps one
/// history per key.
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

/// The error of a table that continues without a snapshot, whose changes went to another topic.
fn another_topic(table: &str, topic: &str) -> Error {
    let what = format!(
        "topic `{topic}` would begin without the rows of table `{table}`, which were published to \
         another topic; set `topic_prefix` and `topic_schema` in [publish] back, or run `tidemill \
         ingest --resnapshot`"
    );
    Error::new(Kind::Data, what)
}

/// The record that applies: the one that exists, or the new one if all tables begin with a snapshot
/// and the topic is another one.
fn applicable_record(noted: Option<Described>, now: Described, begins_anew: bool) -> Described {
    match noted {
        Some(noted) if noted.id == now.id || !begins_anew => noted,
        _ => now,
    }
}
