//! Removal of a pipeline from its database: slot, publication, triggers, bookkeeping rows and
//! tables.
//!
//! In: a database and a pipeline. Out: the [`Item`]s that exist, the topics that the capture
//! recorded as its own, and what is kept, with the reason.
//!
//! Invariants:
//! 1. An item is removed as a whole or not at all, and removing an item that does not exist is not
//!    an error. So an interrupted removal can be repeated.
//! 2. Nothing of another pipeline is removed: bookkeeping tables are shared, so rows are deleted
//!    and not tables.
//! 3. The records of topics are removed last, so that a repeated removal still knows the topics.

mod postgres;
mod sqlite;

use tidemill_log::log::TopicId;

use crate::Result;
use crate::config::Pipeline;
use crate::database::Database;

/// The table that records the topics of captures.
const NOTES: &str = "_tidemill_capture_topics";
/// The topics of one capture, each with another capture that publishes to it, if any.
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
    /// The triggers of the captured tables of a file, and the changes that were not read.
    Triggers(usize),
    /// Rows of a bookkeeping table.
    Rows {
        /// The table.
        table: &'static str,
        /// The number of rows of the pipeline.
        rows: u64,
    },
    /// A table that the ingest created, with all its rows.
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

/// A topic that the capture recorded when it first published to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// The name of the topic.
    pub topic: String,
    /// The id of the topic.
    pub id: TopicId,
    /// Another capture of the database that publishes to the topic.
    pub shared_with: Option<String>,
}

/// What exists of one pipeline.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// What feeds the topics, to be removed before the topics.
    pub feeding: Vec<Item>,
    /// The topics.
    pub topics: Vec<Noted>,
    /// What is to be removed after the topics.
    pub keeping: Vec<Item>,
    /// What is kept, with the reason.
    pub kept: Vec<(String, String)>,
    /// What does not exist.
    pub absent: Vec<String>,
}

/// What a pipeline keeps in one database.
pub trait Remains {
    /// Finds what exists. Changes nothing.
    ///
    /// # Errors
    /// `Retry` when the database cannot be reached, `Data` when it refuses.
    fn find(&mut self) -> Result<Found>;

    /// Removes an item. No process can capture under this name from the first removal on.
    ///
    /// # Errors
    /// `Fence` when a process captures under this name; `Retry` when the database cannot be
    /// reached, `Data` when it refuses.
    fn remove(&mut self, item: &Item) -> Result<()>;
}

/// Opens what the pipeline `name` keeps in the database at `url`. With `tables` the tables that its
/// ingest creates are removed too, as `pipeline` names them.
///
/// # Errors
/// `Data` for a URL that is not valid or a database that refuses; `Retry` when the database cannot
/// be reached.
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

/// The tables that the pipeline's ingest creates.
struct Made {
    /// Their names.
    tables: Vec<String>,
    /// Whether they are removed.
    remove: bool,
}

impl Made {
    /// Adds an existing table to what is removed or to what is kept.
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
