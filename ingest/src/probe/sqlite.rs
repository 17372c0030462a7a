//! Probe of a SQLite file: how many changes of the captured tables wait in it, and since when.
//!
//! In flow a file and the capture's name; out flow looks at what its triggers wrote down and the
//! capture did not publish yet, to [`Stats`]. A file that nobody captured yet has nothing to tell.

use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use tidemill_log::health::now_ms;
use tidemill_log::sqlite::has_table;

use crate::stats::{Stats, Unread};

/// How long a look waits for a writer that keeps the file locked.
const LOCKED_WAIT: Duration = Duration::from_secs(2);

/// The changes of the capture's tables behind the position that it wrote down, or the one that is
/// known better; the newest id, and when the oldest was committed.
const LOOK: &str = "
    SELECT count(*), max(id), min(committed_us) FROM _tidemill_changes
    WHERE id > max(?2, (SELECT coalesce(max(acknowledged), 0)
                        FROM _tidemill_capture WHERE name = ?1))
      AND op <> 't'
      AND table_name COLLATE NOCASE IN
          (SELECT table_name FROM _tidemill_capture_tables WHERE name = ?1)";

/// A probe of one file, for one capture.
pub struct FileProbe {
    file: String,
    name: String,
    connection: Option<Connection>,
}

impl FileProbe {
    /// A probe of the file for the capture called `name`.
    pub fn new(file: &str, name: &str) -> Self {
        Self {
            file: file.to_owned(),
            name: name.to_owned(),
            connection: None,
        }
    }

    /// Looks once, and tells what it found.
    pub fn look(&mut self, stats: &Stats) {
        if !std::path::Path::new(&self.file).exists() {
            return; // The capture makes it; one that is gone is told of elsewhere.
        }
        stats.looks_at_wal();
        match self.ask(stats) {
            Ok(found) => stats.finds_unread(now_ms(), Some(found)),
            Err(_) => {
                self.connection = None;
                stats.finds_unread(now_ms(), None);
            }
        }
    }

    fn ask(&mut self, stats: &Stats) -> rusqlite::Result<Unread> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                let connection = Connection::open_with_flags(&self.file, flags)?;
                connection.busy_timeout(LOCKED_WAIT)?;
                none.insert(connection)
            }
        };
        if !has_table(connection, "_tidemill_capture_tables")? {
            return Ok(Unread::default());
        }
        let passed = i64::try_from(stats.passed_so_far()).unwrap_or(i64::MAX);
        let row = connection
            .prepare_cached(LOOK)?
            .query_row(params![self.name, passed], |row| {
                let (count, last): (i64, Option<i64>) = (row.get(0)?, row.get(1)?);
                let oldest_us: Option<i64> = row.get(2)?;
                Ok(Unread {
                    changes: count.unsigned_abs(),
                    last: last.map_or(0, i64::unsigned_abs),
                    oldest_ms: oldest_us.map(|us| us.unsigned_abs() / 1000),
                })
            })
            .optional()?;
        Ok(row.unwrap_or_default())
    }
}
