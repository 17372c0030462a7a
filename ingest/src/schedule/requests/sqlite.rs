//! Requests in the embedded SQLite file. Times are those of the machine's clock.

use std::ops::RangeInclusive;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, TransactionBehavior, params};

use super::{MadeDue, Requests, is_paused};
use crate::Result;
use crate::schedule::sqlite::{FORGET, OPEN, SqliteLedger, failed, now_ms, sql, standing};

/// Makes a page due at `?3`. `?5` is whether it may be done.
const BACKFILL: &str = "INSERT INTO _tidemill_runs
    (pipeline, page, due_at, state, claimed_until, attempts, ranged)
    VALUES (?1, ?2, ?4, 'retry', ?3, 0, 1)
    ON CONFLICT (pipeline, page) DO UPDATE
    SET state = 'retry', failures = 0, finished_at = NULL, claimed_until = excluded.claimed_until
    WHERE state IN ('short', 'failed') OR state = 'done' AND ?5";

/// Makes the next page of the schedule due now. A page that was requested by its number before is
/// one of the schedule from now on.
const MAKE_DUE: &str = "INSERT INTO _tidemill_runs
    (pipeline, page, due_at, state, claimed_until, attempts)
    VALUES (?1, ?2, ?3, 'retry', ?3, 0)
    ON CONFLICT (pipeline, page) DO UPDATE SET ranged = 0, due_at = excluded.due_at WHERE ranged";

impl Requests for SqliteLedger {
    fn paused(&mut self) -> Result<Option<Timestamp>> {
        self.paused_since()
    }

    fn pause(&mut self) -> Result<bool> {
        let insert =
            "INSERT OR IGNORE INTO _tidemill_fetching (pipeline, paused_at) VALUES (?1, ?2)";
        let known = params![self.terms.pipeline, now_ms()];
        let paused = self.connection.execute(insert, known);
        Ok(paused.map_err(failed)? == 1)
    }

    fn resume(&mut self) -> Result<bool> {
        let delete = "DELETE FROM _tidemill_fetching WHERE pipeline = ?1";
        let resumed = self.connection.execute(delete, [&self.terms.pipeline]);
        Ok(resumed.map_err(failed)? == 1)
    }

    fn backfill(&mut self, pages: &RangeInclusive<u64>, again: bool) -> Result<u64> {
        self.terms.check(pages)?;
        let pace = self.terms.pace_ms();
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        let (mut due, now) = (now_ms(), now_ms());
        let mut made = 0;
        for page in pages.clone() {
            let known = params![self.terms.pipeline, page as i64, due, now, again];
            made += transaction.execute(BACKFILL, known).map_err(failed)? as u64;
            due = due.saturating_add(pace);
        }
        transaction.commit().map_err(failed)?;
        Ok(made)
    }

    fn fetch_now(&mut self) -> Result<MadeDue> {
        if let Some(since) = self.paused_since()? {
            return Err(is_paused(since));
        }
        let terms = &self.terms;
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        let now = now_ms();
        let next = terms.next_page(&standing(&transaction, terms, now)?)?;
        // A page of a backfill keeps its pace.
        let wake = format!(
            "UPDATE _tidemill_runs AS run SET claimed_until = ?3
            WHERE {OPEN} AND claimed_until > ?3
            AND (state = 'short' OR state = 'retry' AND failures > 0)"
        );
        let known = params![terms.pipeline, terms.follows(), now];
        let waiting = transaction.execute(&sql(&wake), known).map_err(failed)? as u64;
        let mut page = None;
        if let Some((next, anew)) = next {
            if anew {
                let forgotten = transaction.execute(FORGET, [&terms.pipeline]);
                forgotten.map_err(failed)?;
            }
            let made = transaction.execute(MAKE_DUE, params![terms.pipeline, next as i64, now]);
            page = (made.map_err(failed)? == 1).then_some(next);
        }
        transaction.commit().map_err(failed)?;
        Ok(MadeDue { page, waiting })
    }
}

impl SqliteLedger {
    /// Since when fetching is paused, by the machine's clock.
    pub(in crate::schedule) fn paused_since(&mut self) -> Result<Option<Timestamp>> {
        let select = "SELECT paused_at FROM _tidemill_fetching WHERE pipeline = ?1";
        let since = self
            .connection
            .query_row(select, [&self.terms.pipeline], |row| row.get::<_, i64>(0))
            .optional()
            .map_err(failed)?;
        Ok(since.map(|at| Timestamp::from_millisecond(at).unwrap_or_default()))
    }
}
