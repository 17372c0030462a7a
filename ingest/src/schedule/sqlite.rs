//! The ledger in the embedded SQLite file. Every claim is one immediate transaction; times are
//! milliseconds of the machine's clock.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::{Claim, Ledger, Next, Plan, Run, Standing, Terms, kept, lost, millis};
use crate::database::sqlite_failed;
use crate::{Error, Result};

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
    PRIMARY KEY (pipeline, page)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS _tidemill_runs_open ON _tidemill_runs (pipeline, claimed_until)
    WHERE state IN ('claimed', 'retry');";

const CLAIM: &str = "UPDATE _tidemill_runs
    SET state = 'claimed', claimed_by = ?2, attempts = attempts + 1, claimed_until = ?4 + ?3
    WHERE pipeline = ?1 AND page = (
        SELECT page FROM _tidemill_runs
        WHERE pipeline = ?1 AND state IN ('claimed', 'retry') AND claimed_until <= ?4
        ORDER BY page LIMIT 1)
    RETURNING page, attempts";

const MINE: &str = "pipeline = ?1 AND page = ?2 AND state = 'claimed'
    AND claimed_by = ?3 AND attempts = ?4";

/// The ledger in SQLite.
pub(crate) struct SqliteLedger {
    connection: Connection,
    terms: Terms,
}

fn failed(error: rusqlite::Error) -> Error {
    sqlite_failed("ledger `_tidemill_runs`", error)
}

fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

impl SqliteLedger {
    pub(super) fn open(file: &str, terms: Terms) -> Result<Self> {
        let connection = tidemill_log::sqlite::connect(file)?;
        connection.execute_batch(CREATE).map_err(failed)?;
        Ok(Self { connection, terms })
    }

    fn end(&mut self, claim: &Claim, state: &str, wait_ms: i64, error: &str) -> Result<()> {
        let set = "UPDATE _tidemill_runs SET state = ?5, error = ?6, claimed_until = ?7,
            finished_at = CASE WHEN ?5 = 'failed' THEN ?8 END";
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
                    kept(error),
                    now.saturating_add(wait_ms),
                    now
                ],
            )
            .map_err(failed)?;
        Ok(())
    }
}

fn standing(transaction: &Transaction<'_>, pipeline: &str, now_ms: i64) -> Result<Standing> {
    let select = "SELECT page, due_at FROM _tidemill_runs
        WHERE pipeline = ?1 ORDER BY page DESC LIMIT 1";
    let last = transaction
        .query_row(select, [pipeline], |row| {
            Ok((row.get::<_, i64>(0)? as u64, row.get(1)?))
        })
        .optional()
        .map_err(failed)?;
    let select = "SELECT count(*) FILTER (WHERE state = 'retry'), min(claimed_until)
        FROM _tidemill_runs WHERE pipeline = ?1 AND state IN ('claimed', 'retry')";
    let (retrying, wakes_ms) = transaction
        .query_row(select, [pipeline], |row| Ok((row.get(0)?, row.get(1)?)))
        .map_err(failed)?;
    Ok(Standing {
        now_ms,
        last,
        retrying,
        wakes_ms,
    })
}

impl Ledger for SqliteLedger {
    fn next(&mut self) -> Result<Next> {
        let Terms {
            pipeline,
            claimant,
            lease_ms,
            ..
        } = &self.terms;
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        let now = now_ms();
        let claimed: Option<(i64, i32)> = transaction
            .query_row(CLAIM, params![pipeline, claimant, lease_ms, now], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()
            .map_err(failed)?;
        let next = match claimed {
            Some((page, attempts)) => Next::Fetch(self.terms.claim(page, attempts)),
            None => match self.terms.plan(&standing(&transaction, pipeline, now)?)? {
                Plan::Idle(wait) => Next::Idle(wait),
                Plan::Finished => Next::Finished,
                Plan::Make { page, due_ms } => {
                    let make = "INSERT INTO _tidemill_runs
                        (pipeline, page, due_at, state, claimed_by, claimed_until, attempts)
                        VALUES (?1, ?2, ?3, 'claimed', ?4, ?5, 1)";
                    let page = page as i64;
                    let until = now + lease_ms;
                    transaction
                        .execute(make, params![pipeline, page, due_ms, claimant, until])
                        .map_err(failed)?;
                    Next::Fetch(self.terms.claim(page, 1))
                }
            },
        };
        transaction.commit().map_err(failed)?;
        Ok(next)
    }

    fn renew(&mut self, claim: &Claim) -> Result<()> {
        let set = "UPDATE _tidemill_runs SET claimed_until = ?5";
        let until = now_ms().saturating_add(self.terms.lease_ms);
        let Claim {
            pipeline,
            page,
            claimed_by,
            attempts,
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
            claimed_until = ?3 WHERE pipeline = ?1 AND page = ?2 AND state = 'failed'";
        let due = self
            .connection
            .execute(update, params![self.terms.pipeline, page as i64, now_ms()]);
        Ok(due.map_err(failed)? == 1)
    }

    fn history(&mut self, limit: u32) -> Result<Vec<Run>> {
        let select = "SELECT page, due_at, state, attempts, records, error
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
            })
        });
        rows.and_then(Iterator::collect).map_err(failed)
    }
}

/// Ends a claim inside the transaction that lands its page: `done`, or due again at once when only
/// part of the page was wanted. An error of kind `Fence` when the claim was lost.
pub(crate) fn finish(
    transaction: &Transaction<'_>,
    claim: &Claim,
    records: u64,
    whole: bool,
) -> Result<()> {
    let set = "UPDATE _tidemill_runs SET state = ?5, records = ?6, error = NULL,
        finished_at = CASE WHEN ?5 = 'done' THEN ?7 END, claimed_until = ?7";
    let state = if whole { "done" } else { "retry" };
    let ended = transaction
        .execute(
            &format!("{set} WHERE {MINE}"),
            params![
                claim.pipeline,
                claim.page as i64,
                claim.claimed_by,
                claim.attempts,
                state,
                records as i64,
                now_ms()
            ],
        )
        .map_err(failed)?;
    if ended == 1 { Ok(()) } else { Err(lost(claim)) }
}
