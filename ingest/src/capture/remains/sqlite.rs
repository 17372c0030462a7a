//! Removal from an SQLite file: triggers, rows of bookkeeping tables, and created tables.
//!
//! The triggers of a table feed every capture that follows the table, so they are dropped with the
//! last of these captures. Changes that no capture reads are deleted when the other captures pass
//! them.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use tidemill_log::log::TopicId;
use tidemill_log::sqlite::has_table;

use super::{Found, Item, Made, NOTES, Noted, Remains, TOPICS};
use crate::Result;
use crate::database::{quoted, sqlite_failed};

/// The bookkeeping tables, each with the column that names the pipeline. The records of topics are
/// the last.
const TABLES: [(&str, &str); 5] = [
    ("_tidemill_runs", "pipeline"),
    ("_tidemill_fetching", "pipeline"),
    (FOLLOWED, "name"),
    (CAPTURES, "name"),
    (NOTES, "name"),
];
/// The captures of the file and their progress.
const CAPTURES: &str = "_tidemill_capture";
/// The tables that each capture follows.
const FOLLOWED: &str = "_tidemill_capture_tables";
/// The changes that the triggers wrote.
const CHANGES: &str = "_tidemill_changes";

/// The triggers that feed captures, with their tables.
const TRIGGERS: &str = "SELECT name, lower(tbl_name) FROM sqlite_schema WHERE type = 'trigger'
    AND name GLOB '_tidemill_*' AND (sql LIKE '%INSERT INTO _tidemill_changes%'
        OR sql LIKE '%INSERT INTO _tidemill_replaced%')";

/// What a pipeline keeps in an SQLite file.
pub(super) struct Sqlite {
    connection: Connection,
    /// The name of the pipeline.
    name: String,
    /// The tables that its ingest creates.
    made: Made,
}

impl Sqlite {
    /// Opens the file.
    pub(super) fn open(file: &str, name: &str, made: Made) -> Result<Self> {
        Ok(Self {
            connection: tidemill_log::sqlite::connect(file)?,
            name: name.to_owned(),
            made,
        })
    }

    /// Whether a table exists.
    fn is_there(&self, table: &str) -> rusqlite::Result<bool> {
        has_table(&self.connection, table)
    }

    /// The number of rows of the pipeline in a bookkeeping table.
    fn rows(&self, table: &str, column: &str) -> rusqlite::Result<u64> {
        if !self.is_there(table)? {
            return Ok(0);
        }
        let count = format!("SELECT count(*) FROM {table} WHERE {column} = ?1");
        let rows = self
            .connection
            .query_row(&count, [&self.name], |row| row.get::<_, i64>(0));
        rows.map(i64::unsigned_abs)
    }

    /// The recorded topics.
    fn topics(&self) -> rusqlite::Result<Vec<Noted>> {
        if !self.is_there(NOTES)? {
            return Ok(Vec::new());
        }
        let mut noted = self.connection.prepare(TOPICS)?;
        let noted = noted.query_map([&self.name], |row| {
            Ok(Noted {
                topic: row.get(0)?,
                id: TopicId([row.get(1)?, row.get(2)?]),
                shared_with: row.get(3)?,
            })
        })?;
        noted.collect()
    }

    /// The tables that other captures follow, each with one of these captures. `None` when the
    /// tables of some other capture are not recorded.
    fn followed(&self) -> rusqlite::Result<Option<BTreeMap<String, String>>> {
        if !self.is_there(CAPTURES)? {
            return Ok(Some(BTreeMap::new()));
        }
        let of_others = |sql: String| -> rusqlite::Result<Vec<(String, String)>> {
            let mut rows = self.connection.prepare(&sql)?;
            let rows = rows.query_map([&self.name], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        };
        let captures = of_others(format!(
            "SELECT name, name FROM {CAPTURES} WHERE name <> ?1"
        ))?;
        let followed = match self.is_there(FOLLOWED)? {
            false => Vec::new(),
            true => of_others(format!(
                "SELECT lower(table_name), name FROM {FOLLOWED} WHERE name <> ?1"
            ))?,
        };
        let noted = |name: &String| followed.iter().any(|(_, other)| other == name);
        let all = captures.iter().all(|(name, _)| noted(name));
        Ok(all.then(|| followed.into_iter().collect()))
    }

    /// The triggers that feed this capture only, and the number of those that feed others too.
    fn triggers(&self) -> rusqlite::Result<(Vec<String>, usize)> {
        let mut triggers = self.connection.prepare(TRIGGERS)?;
        let triggers = triggers.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let triggers: Vec<(String, String)> = triggers.collect::<rusqlite::Result<_>>()?;
        let (followed, all) = (self.followed()?, triggers.len());
        let mine = triggers
            .into_iter()
            .filter(|(_, table)| followed.as_ref().is_some_and(|it| !it.contains_key(table)));
        let mine: Vec<String> = mine.map(|(name, _)| name).collect();
        let shared = all - mine.len();
        Ok((mine, shared))
    }

    /// Finds what exists.
    fn look(&self) -> rusqlite::Result<Found> {
        let mut found = Found::default();
        let (triggers, shared) = self.triggers()?;
        if shared > 0 {
            let why = "they feed another capture of the file as well".to_owned();
            found
                .kept
                .push((format!("{shared} triggers of captured tables"), why));
        }
        match triggers.len() {
            0 => found.absent.push("triggers of captured tables".to_owned()),
            count => found.feeding.push(Item::Triggers(count)),
        }
        found.topics = self.topics()?;
        for table in &self.made.tables {
            match self.is_there(table)? {
                true => self.made.sort(table, self.follower(table)?, &mut found),
                false => found.absent.push(format!("table `{table}`")),
            }
        }
        for (table, column) in TABLES {
            match self.rows(table, column)? {
                0 => found.absent.push(format!("rows in `{table}`")),
                rows => found.keeping.push(Item::Rows { table, rows }),
            }
        }
        Ok(found)
    }

    /// Another capture that follows this table.
    fn follower(&self, table: &str) -> rusqlite::Result<Option<String>> {
        Ok(match self.followed()? {
            Some(followed) => followed.get(&table.to_lowercase()).cloned(),
            None => Some("another capture of the file".to_owned()),
        })
    }

    /// Drops the triggers that feed this capture only. Deletes the unread changes if there is no
    /// other capture.
    fn remove_triggers(&mut self) -> rusqlite::Result<()> {
        let (triggers, _) = self.triggers()?;
        let alone = self.followed()?.is_some_and(|followed| followed.is_empty());
        let transaction = self.connection.transaction()?;
        for trigger in triggers {
            transaction.execute_batch(&format!("DROP TRIGGER IF EXISTS {}", quoted(&trigger)))?;
        }
        if alone && has_table(&transaction, CHANGES)? {
            transaction.execute_batch(&format!("DELETE FROM {CHANGES}"))?;
        }
        transaction.commit()
    }
}

impl Remains for Sqlite {
    fn find(&mut self) -> Result<Found> {
        self.look()
            .map_err(|error| sqlite_failed("looking what is there", error))
    }

    fn remove(&mut self, item: &Item) -> Result<()> {
        let removed = match item {
            Item::Triggers(_) => self.remove_triggers(),
            Item::Table(table) => {
                let drop = format!("DROP TABLE IF EXISTS {}", quoted(table));
                self.connection.execute_batch(&drop)
            }
            Item::Rows { table, .. } => {
                let known = TABLES.iter().find(|(name, _)| name == table);
                known.map_or(Ok(()), |(table, column)| {
                    let delete = format!("DELETE FROM {table} WHERE {column} = ?1");
                    self.connection
                        .execute(&delete, params![self.name])
                        .map(drop)
                })
            }
            Item::Slot(_) | Item::Publication(_) => Ok(()),
        };
        removed.map_err(|error| sqlite_failed(&format!("removing {item}"), error))
    }
}
