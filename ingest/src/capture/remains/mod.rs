//! What an ingest keeps in its database under a pipeline's name, found and removed.
//!
//! Flows in: a database and the pipeline. Flows out: the [`Item`]s that are there, the topics that
//! the capture noted as its own, and what is left alone with the reason.
//!
//! Invariants:
//! 1. An item is removed whole or not at all, and removing one that is gone is no error, so a
//!    removal that was interrupted can be done again.
//! 2. Nothing of another pipeline is removed: bookkeeping tables are shared, so rows go, not
//!    tables.
//! 3. The notes of topics are the last to go: until then a second removal knows the topics.

mod postgres;
mod sqlite;

use tidemill_log::log::TopicId;

use crate::Result;
use crate::config::Pipeline;
use crate::database::Database;

/// Where a capture notes the topics that it made.
const NOTES: &str = "_tidemill_capture_topics";
/// Those of one capture, each with another capture that publishes to it as well.
const TOPICS: &str = "SELECT topic, id_high, id_low,
        (SELECT min(other.name) FROM _tidemill_capture_topics AS other
         WHERE other.topic = mine.topic AND other.name <> mine.name)
    FROM _tidemill_capture_topics AS mine WHERE name = $1 ORDER BY topic";

/// Something that an ingest keeps in its database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A replication slot.
    Slot(String),
    /// A publication.
    Publication(String),
    /// The triggers of all captured tables of a file, with the changes that nobody read yet.
    Triggers(usize),
    /// Rows of a bookkeeping table.
    Rows {
        /// The table.
        table: &'static str,
        /// How many rows of it are the pipeline's.
        rows: u64,
    },
    /// A table that records landed in, or that a seed's file filled, with all its rows.
    Table(String),
}

impl std::fmt::Display for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Item::Slot(slot) => write!(f, "replication slot `{slot}`"),
            Item::Publication(name) => write!(f, "publication `{name}`"),
            Item::Triggers(n) => {
                write!(f, "{n} triggers of captured tables, and unread changes")
            }
            Item::Rows { table, rows: 1 } => write!(f, "1 row in `{table}`"),
            Item::Rows { table, rows } => write!(f, "{rows} rows in `{table}`"),
            Item::Table(table) => write!(f, "table `{table}` with all its rows"),
        }
    }
}

/// A topic that the capture noted when it first published to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// Its name.
    pub topic: String,
    /// Which one of those that had its name.
    pub id: TopicId,
    /// Another capture of the database that publishes to it as well.
    pub shared_with: Option<String>,
}

/// What is there of one pipeline.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// What feeds the topics: to be removed before them.
    pub feeding: Vec<Item>,
    /// The topics.
    pub topics: Vec<Noted>,
    /// What is to be removed behind them.
    pub keeping: Vec<Item>,
    /// What is left alone, and why.
    pub kept: Vec<(String, String)>,
    /// What could be there and is not.
    pub absent: Vec<String>,
}

/// A pipeline's remains in one database.
pub trait Remains {
    /// Looks what is there, and changes nothing.
    ///
    /// # Errors
    /// When the database is away or refuses.
    fn find(&mut self) -> Result<Found>;

    /// Removes an item; no error when it is gone. Nobody can capture under this name meanwhile.
    ///
    /// # Errors
    /// When the database is away or refuses, or a process captures under this name (`Fence`).
    fn remove(&mut self, item: &Item) -> Result<()>;
}

/// Opens what the pipeline called `name` keeps in the database at `url`. With `tables` the tables
/// that its own ingest makes are part of it, as `pipeline` names them.
///
/// # Errors
/// When the database is away, refuses, or the URL names none.
pub fn open(
    url: &str,
    name: &str,
    pipeline: Option<&Pipeline>,
    tables: bool,
) -> Result<Box<dyn Remains>> {
    let lands = pipeline.into_iter().flat_map(Pipeline::lands);
    let made = Made {
        tables: lands.map(|land| land.table.clone()).collect(),
        remove: tables,
    };
    Ok(match Database::of(url)? {
        Database::Postgres(url) => Box::new(postgres::Postgres::open(&url, name, made)?),
        Database::Sqlite(file) => Box::new(sqlite::Sqlite::open(&file, name, made)?),
    })
}

/// The tables that the pipeline's own ingest makes.
struct Made {
    tables: Vec<String>,
    /// Whether they are to be removed.
    remove: bool,
}

impl Made {
    /// Sorts out a table that is there.
    fn sort(&self, table: &str, in_use_by: Option<String>, found: &mut Found) {
        let what = || format!("table `{table}`");
        match in_use_by {
            _ if !self.remove => {
                let why = "its rows may be the only copy; --tables removes it as well";
                found.kept.push((what(), why.to_owned()));
            }
            Some(other) => {
                let why = format!("`{other}` captures it as well");
                found.kept.push((what(), why));
            }
            None => found.keeping.push(Item::Table(table.to_owned())),
        }
    }
}
