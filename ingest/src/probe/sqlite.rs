//! SQLite probe: number and age of the changes in a file that are not published yet.
//!
//! In: a file and the name of a capture. Out: observations for [`Stats`] of what the triggers wrote
//! and the capture has not published. A file that was never captured gives no changes.

use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use tidemill_log::health::now_ms;
use tidemill_log::sqlite::has_table;

use crate::stats::{Stats, Unread};

/// How long a look waits for a lock of the file.
const LOCKED_WAIT: Duration = Duration::from_secs(2);

/// The changes of the captured tables after the recorded position, or after the one that is known
/// to be published: their number, the newest id, and the oldest commit time.
const LOOK: &str = "
    SELECT count(*), max(id), min(committed_us) FROM _tidemill_changes
    WHERE id > max(?2, (SELECT coalesce(max(acknowledged), 0)
                        FROM _tidemill_capture WHERE name = ?1))
      AND op <> 't'
      AND table_name COLLATE NOCASE IN
          (SELECT table_name FROM _tidemill_capture_tables WHERE name = ?1)";

/// A probe of one file, for one capture.
pub struct FileProbe {
    /// The file.
    file: String,
    /// The name of the capture.
    name: String,
    /// The connection, read-only; `None` before the first look and after an error.
    connection: Option<Connection>,
}

impl FileProbe {
    /// A probe of the file for the capture `name`.
    pub fn new(file: &str, name: &str) -> Self {
        Self {
            file: file.to_owned(),
            name: name.to_owned(),
            connection: None,
        }
    }

    /// Looks once and reports the result.
    pub fn look(&mut self, stats: &Stats) {
        if !std::path::Path::new(&self.file).exists() {
            return; // The capture creates the file; a deleted one is reported elsewhere.
        }
        stats.begin_observation();
        match self.ask(stats) {
            Ok(found) => stats.observe_unread(now_ms(), Some(found)),
            Err(_) => {
                self.connection = None;
                stats.observe_unread(now_ms(), None);
            }
        }
    }

    /// Runs the query.
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
