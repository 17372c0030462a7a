//! The ledger in the embedded SQLite file.
//!
//! Each claim is one immediate transaction. Times are milliseconds since 1970 by the clock of the
//! machine.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::{
    Asked, Claim, Claimed, Ended, Horizon, Ledger, LedgerState, Next, Plan, Run, Tally, Terms,
    lost, millis, shortened,
};
use crate::database::sqlite_failed;
use crate::{Error, Result};

/// The table, the index of pages that become due, and the pipelines whose fetching is paused.
const CREATE: &str = "CREATE TABLE IF NOT EXISTS _tidemill_runs (
    pipeline TEXT NOT NULL,
    page INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    state TEXT NOT NULL,
    claimed_by TEXT,
    claimed_until INTEGER,
    attempts INTEGER NOT NULL,
    finished_at INTEGER,
    records INTEGER,
    error TEXT,
    own INTEGER,
    mark TEXT,
    failures INTEGER NOT NULL DEFAULT 0,
    ranged INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (pipeline, page)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS _tidemill_runs_due ON _tidemill_runs (pipeline, claimed_until)
    WHERE state IN ('claimed', 'retry', 'short');
CREATE TABLE IF NOT EXISTS _tidemill_fetching (
    pipeline TEXT PRIMARY KEY, paused_at INTEGER NOT NULL);";

/// Whether the table is that of an earlier version, which did not recognize the end of a list.
const IS_OLD: &str = "SELECT count(*) > 0 AND max(name = 'own') = 0
    FROM pragma_table_info('_tidemill_runs')";

/// Whether the table is that of a version which did not take pages by their number.
const HAS_NO_RANGES: &str = "SELECT count(*) > 0 AND max(name = 'ranged') = 0
    FROM pragma_table_info('_tidemill_runs')";

/// Upgrades such a table.
const ADD_RANGES: &str = "ALTER TABLE _tidemill_runs ADD COLUMN ranged INTEGER NOT NULL DEFAULT 0";

/// Upgrades a table of [`IS_OLD`]. That version continued behind the end of a list, and took pages
/// that were not full for done: the former pages are deleted, and the latter ones are requested
/// again.
const UPGRADE: &str = "ALTER TABLE _tidemill_runs ADD COLUMN own INTEGER;
ALTER TABLE _tidemill_runs ADD COLUMN mark TEXT;
ALTER TABLE _tidemill_runs ADD COLUMN failures INTEGER NOT NULL DEFAULT 0;
DROP INDEX IF EXISTS _tidemill_runs_open;
UPDATE _tidemill_runs SET own = records WHERE state = 'done';
DELETE FROM _tidemill_runs AS run WHERE state = 'done' AND own = 0 AND page > (
    SELECT coalesce(max(page) FILTER (WHERE own > 0), min(page)) FROM _tidemill_runs
    WHERE pipeline = run.pipeline);
UPDATE _tidemill_runs AS run SET state = 'short', claimed_until = 0
    FROM (SELECT pipeline, max(own) AS most FROM _tidemill_runs GROUP BY pipeline) AS list
    WHERE run.pipeline = list.pipeline AND state = 'done' AND own < most;";

/// Whether a page after the row's page has records of its own.
const FOLLOWED: &str = "EXISTS (SELECT 1 FROM _tidemill_runs AS later
    WHERE later.pipeline = run.pipeline AND later.page > run.page AND later.own > 0)";

/// Which rows become due. `?1` is the pipeline, `?2` whether the end of a list is followed. No page
/// behind an empty one is requested.
pub(super) const OPEN: &str = "pipeline = ?1 AND state IN ('claimed', 'retry', 'short')
    AND (state <> 'short' OR FOLLOWED OR ?2 AND NOT EXISTS (SELECT 1 FROM _tidemill_runs AS earlier
        WHERE earlier.pipeline = ?1 AND earlier.state IN ('claimed', 'retry', 'short')
        AND earlier.state = 'short' AND earlier.page < run.page AND earlier.own = 0))";

/// The page that is due first. `?4` is whether it may be a page that is looked at again.
const DUE: &str = "SELECT page, attempts + 1, failures, FOLLOWED FROM _tidemill_runs AS run
    WHERE OPEN AND claimed_until <= ?3 AND (state <> 'short') <> ?4
        AND (state <> 'short' OR claimed_until <= ?5)
    ORDER BY claimed_until, page LIMIT 1";

/// Claims a page.
const CLAIM: &str = "UPDATE _tidemill_runs
    SET state = 'claimed', claimed_by = ?3, attempts = attempts + 1, claimed_until = ?4 + ?5,
        due_at = CASE WHEN own = 0 THEN ?4 ELSE due_at END
    WHERE pipeline = ?1 AND page = ?2";

/// Deletes the pages of a round that has ended.
pub(super) const FORGET: &str = "DELETE FROM _tidemill_runs
    WHERE pipeline = ?1 AND state IN ('done', 'short', 'failed')";

/// Makes a page that was requested by its number one of the schedule.
const ADOPT: &str = "UPDATE _tidemill_runs SET ranged = 0, due_at = ?3
    WHERE pipeline = ?1 AND page = ?2 AND ranged";

/// Whether a page can be claimed by its number. `?4` is whether it may be done.
const ASK: &str = "SELECT page, attempts + 1,
        CASE WHEN state = 'failed' THEN 0 ELSE failures END, FOLLOWED
    FROM _tidemill_runs AS run WHERE pipeline = ?1 AND page = ?2
        AND (state IN ('short', 'failed') OR state = 'done' AND ?4
        OR state IN ('claimed', 'retry') AND claimed_until <= ?3)";

/// Whether a page is done, and in how many milliseconds its claim or wait ends.
const WAITS: &str = "SELECT state = 'done', claimed_until - ?3 FROM _tidemill_runs
    WHERE pipeline = ?1 AND page = ?2";

/// The condition that a claim was not lost.
const MINE: &str = "pipeline = ?1 AND page = ?2 AND state = 'claimed'
    AND claimed_by = ?3 AND attempts = ?4";

/// The ledger of a pipeline in SQLite.
pub(crate) struct SqliteLedger {
    pub(super) connection: Connection,
    pub(super) terms: Terms,
}

/// An error of the ledger.
pub(super) fn failed(error: rusqlite::Error) -> Error {
    sqlite_failed("ledger `_tidemill_runs`", error)
}

/// A statement with [`OPEN`] and [`FOLLOWED`] in place of their names.
pub(super) fn sql(statement: &str) -> String {
    statement
        .replace("OPEN", OPEN)
        .replace("FOLLOWED", FOLLOWED)
}

/// The clock of the machine, in milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

impl SqliteLedger {
    /// Opens the file, and creates or upgrades the table.
    pub(super) fn open(file: &str, terms: Terms) -> Result<Self> {
        let mut connection = tidemill_log::sqlite::connect(file)?;
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        let is_old = transaction.query_row(IS_OLD, [], |row| row.get::<_, Option<bool>>(0));
        if is_old.map_err(failed)? == Some(true) {
            transaction.execute_batch(UPGRADE).map_err(failed)?;
        }
        let has_no_ranges =
            transaction.query_row(HAS_NO_RANGES, [], |row| row.get::<_, Option<bool>>(0));
        if has_no_ranges.map_err(failed)? == Some(true) {
            transaction.execute_batch(ADD_RANGES).map_err(failed)?;
        }
        transaction.execute_batch(CREATE).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        Ok(Self { connection, terms })
    }

    /// Ends a failed attempt; does nothing if the claim was lost.
    fn end(&mut self, claim: &Claim, state: &str, wait_ms: i64, error: &str) -> Result<()> {
        let set = "UPDATE _tidemill_runs SET state = ?5, error = ?6, claimed_until = ?7,
            failures = failures + 1, finished_at = CASE WHEN ?5 = 'failed' THEN ?8 END";
        let now = now_ms();
        self.connection
            .execute(
                &format!("{set} WHERE {MINE}"),
                params![
                    claim.pipeline,
                    claim.page as i64,
                    claim.claimed_by,
                    claim.attempts,
                    state,
                    shortened(error),
                    now.saturating_add(wait_ms),
                    now
                ],
            )
            .map_err(failed)?;
        Ok(())
    }
}

/// Reads what the plan is made from.
pub(super) fn standing(
    transaction: &Transaction<'_>,
    terms: &Terms,
    now_ms: i64,
) -> Result<LedgerState> {
    let select = "SELECT page, due_at, own = 0 AND state <> 'failed' FROM _tidemill_runs
        WHERE pipeline = ?1 AND NOT ranged ORDER BY page DESC LIMIT 1";
    let last = transaction
        .query_row(select, [&terms.pipeline], |row| {
            let last = (row.get::<_, i64>(0)? as u64, row.get(1)?);
            Ok((last, row.get::<_, Option<bool>>(2)?.unwrap_or(false)))
        })
        .optional()
        .map_err(failed)?;
    let select =
        "SELECT count(*) FILTER (WHERE state = 'retry' AND failures > 0), min(claimed_until)
        FROM _tidemill_runs AS run WHERE OPEN";
    let (retrying, wakes_ms) = transaction
        .query_row(
            &sql(select),
            params![terms.pipeline, terms.follows()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .map_err(failed)?;
    Ok(LedgerState {
        now_ms,
        last: last.map(|(last, _)| last),
        is_beyond: last.is_some_and(|(_, beyond)| beyond),
        retrying,
        wakes_ms,
    })
}

/// Claims a page that is due: one that is looked at again, or any other.
fn claim(
    transaction: &Transaction<'_>,
    terms: &Terms,
    now_ms: i64,
    again: bool,
) -> Result<Option<Claim>> {
    let due = transaction
        .query_row(
            &sql(DUE),
            params![
                terms.pipeline,
                terms.follows(),
                now_ms,
                again,
                terms.horizon.again_ms
            ],
            |row| claimed_of(row, now_ms),
        )
        .optional()
        .map_err(failed)?;
    due.map(|claimed| take(transaction, terms, &claimed))
        .transpose()
}

/// The columns of [`DUE`] and [`ASK`].
fn claimed_of(row: &rusqlite::Row<'_>, now_ms: i64) -> rusqlite::Result<Claimed> {
    Ok(Claimed {
        page: row.get(0)?,
        attempts: row.get(1)?,
        failures: row.get(2)?,
        followed: row.get(3)?,
        now_ms,
    })
}

/// Claims a page that can be claimed.
fn take(transaction: &Transaction<'_>, terms: &Terms, claimed: &Claimed) -> Result<Claim> {
    let Terms {
        pipeline,
        claimant,
        lease_ms,
        ..
    } = terms;
    transaction
        .execute(
            CLAIM,
            params![pipeline, claimed.page, claimant, claimed.now_ms, lease_ms],
        )
        .map_err(failed)?;
    terms.claim(claimed)
}

/// Makes and claims a page; false when it exists already.
fn make(
    transaction: &Transaction<'_>,
    terms: &Terms,
    (page, due_ms, now_ms): (i64, i64, i64),
    ranged: bool,
) -> Result<bool> {
    let make = "INSERT OR IGNORE INTO _tidemill_runs
        (pipeline, page, due_at, state, claimed_by, claimed_until, attempts, ranged)
        VALUES (?1, ?2, ?3, 'claimed', ?4, ?5, 1, ?6)";
    let (pipeline, claimant, until) = (&terms.pipeline, &terms.claimant, now_ms + terms.lease_ms);
    let made = transaction
        .execute(
            make,
            params![pipeline, page, due_ms, claimant, until, ranged],
        )
        .map_err(failed)?;
    Ok(made == 1)
}

impl Ledger for SqliteLedger {
    fn next(&mut self) -> Result<Next> {
        if let Some(since) = self.paused_since()? {
            return Ok(Next::Paused(since));
        }
        let terms = &self.terms;
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        let now = now_ms();
        let next = loop {
            if let Some(claim) = claim(&transaction, terms, now, false)? {
                break Next::Fetch(claim);
            }
            match terms.plan(&standing(&transaction, terms, now)?)? {
                Plan::Make { page, due_ms, anew } => {
                    let page = page as i64;
                    if anew {
                        let forgotten = transaction.execute(FORGET, [&terms.pipeline]);
                        forgotten.map_err(failed)?;
                    }
                    if make(&transaction, terms, (page, due_ms, now), false)? {
                        break Next::Fetch(terms.claim(&Claimed::first(page, now))?);
                    }
                    // It was requested by its number: look for the page after it.
                    let adopted = transaction.execute(ADOPT, params![terms.pipeline, page, due_ms]);
                    adopted.map_err(failed)?;
                }
                // The next page has priority over pages that are only looked at again.
                plan => {
                    let claim = claim(&transaction, terms, now, true)?;
                    break claim.map_or_else(|| plan.rest(), Next::Fetch);
                }
            }
        };
        transaction.commit().map_err(failed)?;
        Ok(next)
    }

    fn due_by_now(&mut self, ahead: bool) -> Result<()> {
        self.terms.horizon = Horizon::at(now_ms(), ahead);
        Ok(())
    }

    fn ask(&mut self, page: u64, again: bool) -> Result<Asked> {
        let terms = &self.terms;
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        let (now, number) = (now_ms(), page as i64);
        let asked = if make(&transaction, terms, (number, now, now), true)? {
            Asked::Claimed(terms.claim(&Claimed::first(number, now))?)
        } else {
            let known = params![terms.pipeline, number, now, again];
            let due = transaction.query_row(&sql(ASK), known, |row| claimed_of(row, now));
            match due.optional().map_err(failed)? {
                Some(claimed) => Asked::Claimed(take(&transaction, terms, &claimed)?),
                None => {
                    let known = params![terms.pipeline, number, now];
                    let waits = transaction
                        .query_row(WAITS, known, |row| Ok((row.get(0)?, row.get(1)?)))
                        .optional();
                    Asked::unless_claimed(waits.map_err(failed)?)
                }
            }
        };
        transaction.commit().map_err(failed)?;
        Ok(asked)
    }

    fn unfinished(&mut self) -> Result<BTreeSet<u64>> {
        let select = "SELECT page FROM _tidemill_runs
            WHERE pipeline = ?1 AND state IN ('claimed', 'retry')";
        let mut statement = self.connection.prepare(select).map_err(failed)?;
        let pages = statement.query_map([&self.terms.pipeline], |row| {
            Ok(row.get::<_, i64>(0)? as u64)
        });
        pages.and_then(Iterator::collect).map_err(failed)
    }

    fn renew(&mut self, claim: &Claim) -> Result<()> {
        let set = "UPDATE _tidemill_runs SET claimed_until = ?5";
        let until = now_ms().saturating_add(self.terms.lease_ms);
        let Claim {
            pipeline,
            page,
            claimed_by,
            attempts,
            ..
        } = claim;
        self.connection
            .execute(
                &format!("{set} WHERE {MINE}"),
                params![pipeline, *page as i64, claimed_by, attempts, until],
            )
            .map_err(failed)?;
        Ok(())
    }

    fn retry(&mut self, claim: &Claim, wait: Duration, error: &str) -> Result<()> {
        self.end(claim, "retry", millis(wait), error)
    }

    fn fail(&mut self, claim: &Claim, error: &str) -> Result<()> {
        self.end(claim, "failed", 0, error)
    }

    fn again(&mut self, page: u64) -> Result<bool> {
        let update = "UPDATE _tidemill_runs SET state = 'retry', finished_at = NULL,
            failures = 0, claimed_until = ?3
            WHERE pipeline = ?1 AND page = ?2 AND state = 'failed'";
        let due = self
            .connection
            .execute(update, params![self.terms.pipeline, page as i64, now_ms()]);
        Ok(due.map_err(failed)? == 1)
    }

    fn tally(&mut self) -> Result<Tally> {
        let select = "SELECT coalesce(max(own IS NOT NULL), false),
            count(*) FILTER (WHERE state = 'failed'), max(page) FILTER (WHERE own > 0)
            FROM _tidemill_runs WHERE pipeline = ?1";
        let tally = self
            .connection
            .query_row(select, [&self.terms.pipeline], |row| {
                Ok(Tally {
                    landed: row.get(0)?,
                    failed: row.get::<_, i64>(1)? as u64,
                    last: row.get::<_, Option<i64>>(2)?.map(|page| page as u64),
                })
            });
        tally.map_err(failed)
    }

    fn history(&mut self, limit: u32) -> Result<Vec<Run>> {
        let select = "SELECT page, due_at, state, attempts, records, error, finished_at
            FROM _tidemill_runs WHERE pipeline = ?1 ORDER BY page DESC LIMIT ?2";
        let mut statement = self.connection.prepare(select).map_err(failed)?;
        let rows = statement.query_map(params![self.terms.pipeline, limit], |row| {
            Ok(Run {
                page: row.get::<_, i64>(0)? as u64,
                due_at: Timestamp::from_millisecond(row.get(1)?).unwrap_or_default(),
                state: row.get(2)?,
                attempts: row.get(3)?,
                records: row.get::<_, Option<i64>>(4)?.map(|records| records as u64),
                error: row.get(5)?,
                finished_at: row
                    .get::<_, Option<i64>>(6)?
                    .and_then(|at| Timestamp::from_millisecond(at).ok()),
            })
        });
        rows.and_then(Iterator::collect).map_err(failed)
    }
}

/// Ends a claim in the transaction that lands its page. The page is done; or due again at the next
/// tick, if records may be added to it; or due again at once, if only a part of it was wanted.
///
/// # Errors
/// `Fence` when the claim was lost.
pub(crate) fn finish(transaction: &Transaction<'_>, claim: &Claim, ended: &Ended) -> Result<()> {
    let before = "SELECT mark FROM _tidemill_runs WHERE pipeline = ?1 AND page = ?2 - 1";
    let set = "UPDATE _tidemill_runs SET state = ?5, records = ?6, error = NULL, failures = 0,
        own = ?8, mark = ?9, finished_at = CASE WHEN ?5 <> 'retry' THEN ?7 END,
        claimed_until = CASE WHEN ?5 = 'short' THEN ?10 ELSE ?7 END";
    let page = claim.page as i64;
    let before: Option<String> = transaction
        .query_row(before, params![claim.pipeline, page], |row| row.get(0))
        .optional()
        .map_err(failed)?
        .flatten();
    let (state, own) = ended.state(claim, before.as_deref());
    let done = transaction
        .execute(
            &format!("{set} WHERE {MINE}"),
            params![
                claim.pipeline,
                page,
                claim.claimed_by,
                claim.attempts,
                state,
                ended.landed as i64,
                now_ms(),
                own as i64,
                ended.mark,
                claim.again_ms
            ],
        )
        .map_err(failed)?;
    if done == 1 { Ok(()) } else { Err(lost(claim)) }
}
