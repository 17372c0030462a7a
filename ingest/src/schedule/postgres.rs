//! The ledger in PostgreSQL.
//!
//! Times are those of the server's clock, so that processes on several machines agree. `FOR UPDATE
//! SKIP LOCKED` lets processes claim pages concurrently.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use postgres::{Client, Transaction};

use super::{
    Asked, Claim, Claimed, Ended, Horizon, Ledger, LedgerState, Next, Plan, Run, Tally, Terms,
    lost, millis, shortened,
};
use crate::database::postgres_failed;
use crate::{Error, Result, database};

/// The table, the index of pages that become due, and the pipelines whose fetching is paused.
const CREATE: &str = "CREATE TABLE IF NOT EXISTS _tidemill_runs (
    pipeline text NOT NULL,
    page bigint NOT NULL,
    due_at timestamptz NOT NULL,
    state text NOT NULL,
    claimed_by text,
    claimed_until timestamptz,
    attempts integer NOT NULL,
    finished_at timestamptz,
    records bigint,
    error text,
    own bigint,
    mark text,
    failures integer NOT NULL DEFAULT 0,
    ranged boolean NOT NULL DEFAULT false,
    PRIMARY KEY (pipeline, page));
CREATE INDEX IF NOT EXISTS _tidemill_runs_due ON _tidemill_runs (pipeline, claimed_until)
    WHERE state IN ('claimed', 'retry', 'short');
CREATE TABLE IF NOT EXISTS _tidemill_fetching (
    pipeline text PRIMARY KEY, paused_at timestamptz NOT NULL);";

/// Whether the table is that of an earlier version, which did not recognize the end of a list.
const IS_OLD: &str = "SELECT to_regclass('_tidemill_runs') IS NOT NULL AND NOT EXISTS (
    SELECT FROM pg_attribute WHERE attrelid = to_regclass('_tidemill_runs')
        AND attname = 'own' AND NOT attisdropped)";

/// Whether the table is that of a version which did not take pages by their number.
const HAS_NO_RANGES: &str = "SELECT to_regclass('_tidemill_runs') IS NOT NULL AND NOT EXISTS (
    SELECT FROM pg_attribute WHERE attrelid = to_regclass('_tidemill_runs')
        AND attname = 'ranged' AND NOT attisdropped)";

/// Upgrades such a table.
const ADD_RANGES: &str =
    "ALTER TABLE _tidemill_runs ADD COLUMN ranged boolean NOT NULL DEFAULT false";

/// Upgrades a table of [`IS_OLD`]. That version continued behind the end of a list, and took pages
/// that were not full for done: the former pages are deleted, and the latter ones are requested
/// again.
const UPGRADE: &str = "ALTER TABLE _tidemill_runs ADD COLUMN own bigint, ADD COLUMN mark text,
    ADD COLUMN failures integer NOT NULL DEFAULT 0;
DROP INDEX IF EXISTS _tidemill_runs_open;
UPDATE _tidemill_runs SET own = records WHERE state = 'done';
DELETE FROM _tidemill_runs AS run USING (
    SELECT pipeline, coalesce(max(page) FILTER (WHERE own > 0), min(page)) AS last
    FROM _tidemill_runs GROUP BY pipeline) AS list
    WHERE run.pipeline = list.pipeline AND page > last AND state = 'done' AND own = 0;
UPDATE _tidemill_runs AS run SET state = 'short', claimed_until = clock_timestamp()
    FROM (SELECT pipeline, max(own) AS most FROM _tidemill_runs GROUP BY pipeline) AS list
    WHERE run.pipeline = list.pipeline AND state = 'done' AND own < most;";

/// Whether a page after the row's page has records of its own.
const FOLLOWED: &str = "EXISTS (SELECT FROM _tidemill_runs AS later
    WHERE later.pipeline = run.pipeline AND later.page > run.page AND later.own > 0)";

/// Which rows become due. `$1` is the pipeline, `$2` whether the end of a list is followed. No page
/// behind an empty one is requested.
pub(super) const OPEN: &str = "pipeline = $1 AND state IN ('claimed', 'retry', 'short')
    AND (state <> 'short' OR FOLLOWED OR $2 AND NOT EXISTS (SELECT FROM _tidemill_runs AS earlier
        WHERE earlier.pipeline = $1 AND earlier.state IN ('claimed', 'retry', 'short')
        AND earlier.state = 'short' AND earlier.page < run.page AND earlier.own = 0))";

/// Claims the page that is due first. `$5` is whether it may be a page that is looked at again.
const CLAIM: &str = "UPDATE _tidemill_runs AS run
    SET state = 'claimed', claimed_by = $3, attempts = attempts + 1,
        due_at = CASE WHEN own = 0 THEN clock_timestamp() ELSE due_at END,
        claimed_until = clock_timestamp() + $4::bigint * interval '1 millisecond'
    WHERE pipeline = $1 AND page = (
        SELECT page FROM _tidemill_runs AS run
        WHERE OPEN AND claimed_until <= clock_timestamp() AND (state <> 'short') <> $5
            AND (state <> 'short' OR claimed_until <= to_timestamp($6::bigint / 1000.0))
        ORDER BY claimed_until, page LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING page, attempts, failures, FOLLOWED,
        (extract(epoch FROM clock_timestamp()) * 1000)::bigint";

/// The columns of [`LedgerState`].
const STANDING: &str = "SELECT
    (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
    last.page, (extract(epoch FROM last.due_at) * 1000)::bigint,
    open.retrying, (extract(epoch FROM open.wakes) * 1000)::bigint,
    last.own = 0 AND last.state <> 'failed'
    FROM (SELECT count(*) FILTER (WHERE state = 'retry' AND failures > 0) AS retrying,
            min(claimed_until) AS wakes
        FROM _tidemill_runs AS run WHERE OPEN) AS open
    LEFT JOIN (SELECT page, due_at, own, state FROM _tidemill_runs
        WHERE pipeline = $1 AND NOT ranged ORDER BY page DESC LIMIT 1) AS last ON true";

/// Deletes the pages of a round that has ended.
pub(super) const FORGET: &str = "DELETE FROM _tidemill_runs
    WHERE pipeline = $1 AND state IN ('done', 'short', 'failed')";

/// Makes a page that is claimed from the beginning.
const MAKE: &str = "INSERT INTO _tidemill_runs
    (pipeline, page, due_at, state, claimed_by, claimed_until, attempts, ranged)
    VALUES ($1, $2, to_timestamp($3::bigint / 1000.0), 'claimed', $4,
        clock_timestamp() + $5::bigint * interval '1 millisecond', 1, $6)
    ON CONFLICT (pipeline, page) DO NOTHING";

/// Makes a page that was requested by its number one of the schedule.
const ADOPT: &str = "UPDATE _tidemill_runs
    SET ranged = false, due_at = to_timestamp($3::bigint / 1000.0)
    WHERE pipeline = $1 AND page = $2 AND ranged";

/// Claims a page by its number. `$5` is whether it may be done.
const ASK: &str = "UPDATE _tidemill_runs AS run
    SET state = 'claimed', claimed_by = $3, attempts = attempts + 1,
        failures = CASE WHEN state = 'failed' THEN 0 ELSE failures END,
        claimed_until = clock_timestamp() + $4::bigint * interval '1 millisecond'
    WHERE pipeline = $1 AND page = $2 AND (state IN ('short', 'failed') OR state = 'done' AND $5
        OR state IN ('claimed', 'retry') AND claimed_until <= clock_timestamp())
    RETURNING page, attempts, failures, FOLLOWED,
        (extract(epoch FROM clock_timestamp()) * 1000)::bigint";

/// Whether a page is done, and in how many milliseconds its claim or wait ends.
const WAITS: &str = "SELECT state = 'done',
        (extract(epoch FROM claimed_until - clock_timestamp()) * 1000)::bigint
    FROM _tidemill_runs WHERE pipeline = $1 AND page = $2";

/// The clock of the server, in milliseconds since 1970.
const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";

/// The condition that a claim was not lost.
const MINE: &str = "pipeline = $1 AND page = $2 AND state = 'claimed'
    AND claimed_by = $3 AND attempts = $4";

/// The ledger of a pipeline in PostgreSQL.
pub(crate) struct PostgresLedger {
    pub(super) client: Client,
    pub(super) terms: Terms,
}

/// An error of the ledger.
pub(super) fn failed(error: postgres::Error) -> Error {
    postgres_failed("ledger `_tidemill_runs`", error)
}

/// A statement with [`OPEN`] and [`FOLLOWED`] in place of their names.
pub(super) fn sql(statement: &str) -> String {
    statement
        .replace("OPEN", OPEN)
        .replace("FOLLOWED", FOLLOWED)
}

/// The columns that [`CLAIM`] and [`ASK`] return.
fn claimed_of(row: &postgres::Row) -> Claimed {
    Claimed {
        page: row.get(0),
        attempts: row.get(1),
        failures: row.get(2),
        followed: row.get(3),
        now_ms: row.get(4),
    }
}

impl PostgresLedger {
    /// Connects, and creates or upgrades the table.
    pub(super) fn open(url: &str, terms: Terms) -> Result<Self> {
        let mut client = database::postgres(url)?;
        let mut transaction = client.transaction().map_err(failed)?;
        database::lock_creation(&mut transaction)?;
        let is_old: bool = transaction.query_one(IS_OLD, &[]).map_err(failed)?.get(0);
        if is_old {
            transaction.batch_execute(UPGRADE).map_err(failed)?;
        }
        let has_no_ranges = transaction.query_one(HAS_NO_RANGES, &[]);
        if has_no_ranges.map_err(failed)?.get(0) {
            transaction.batch_execute(ADD_RANGES).map_err(failed)?;
        }
        transaction.batch_execute(CREATE).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        Ok(Self { client, terms })
    }

    /// Reads what the plan is made from.
    pub(super) fn standing(&mut self) -> Result<LedgerState> {
        let row = self
            .client
            .query_one(
                &sql(STANDING),
                &[&self.terms.pipeline, &self.terms.follows()],
            )
            .map_err(failed)?;
        let page: Option<i64> = row.get(1);
        let due: Option<i64> = row.get(2);
        Ok(LedgerState {
            now_ms: row.get(0),
            last: page.zip(due).map(|(page, due)| (page as u64, due)),
            is_beyond: row.get::<_, Option<bool>>(5).unwrap_or(false),
            retrying: row.get(3),
            wakes_ms: row.get(4),
        })
    }

    /// Claims a page that is due: one that is looked at again, or any other.
    fn claim(&mut self, again: bool) -> Result<Option<Claim>> {
        let Terms {
            pipeline,
            claimant,
            lease_ms,
            ..
        } = &self.terms;
        let claimed = self.client.query_opt(
            &sql(CLAIM),
            &[
                pipeline,
                &self.terms.follows(),
                claimant,
                lease_ms,
                &again,
                &self.terms.horizon.again_ms,
            ],
        );
        let claim = |row| self.terms.claim(&claimed_of(&row));
        claimed.map_err(failed)?.map(claim).transpose()
    }

    /// The clock of the server.
    fn now_ms(&mut self) -> Result<i64> {
        let now = self.client.query_one(NOW, &[]);
        Ok(now.map_err(failed)?.get(0))
    }

    /// Makes and claims a page; false when it exists already.
    fn make(&mut self, page: i64, due_ms: i64, (anew, ranged): (bool, bool)) -> Result<bool> {
        let Terms {
            pipeline,
            claimant,
            lease_ms,
            ..
        } = &self.terms;
        let mut transaction = self.client.transaction().map_err(failed)?;
        if anew {
            transaction.execute(FORGET, &[pipeline]).map_err(failed)?;
        }
        let made = transaction.execute(
            MAKE,
            &[pipeline, &page, &due_ms, claimant, lease_ms, &ranged],
        );
        let made = made.map_err(failed)? == 1;
        if !made && !ranged {
            let adopted = transaction.execute(ADOPT, &[pipeline, &page, &due_ms]);
            adopted.map_err(failed)?;
        }
        transaction.commit().map_err(failed)?;
        Ok(made)
    }

    /// Ends a failed attempt; does nothing if the claim was lost.
    fn end(&mut self, claim: &Claim, state: &str, wait_ms: i64, error: &str) -> Result<()> {
        let set = "UPDATE _tidemill_runs SET state = $5, error = $6,
            failures = failures + 1,
            finished_at = CASE WHEN $5 = 'failed' THEN clock_timestamp() END,
            claimed_until = clock_timestamp() + $7::bigint * interval '1 millisecond'";
        let (page, attempts) = (claim.page as i64, claim.attempts as i32);
        let (pipeline, by, error) = (&claim.pipeline, &claim.claimed_by, shortened(error));
        self.client
            .execute(
                &format!("{set} WHERE {MINE}"),
                &[pipeline, &page, by, &attempts, &state, &error, &wait_ms],
            )
            .map_err(failed)?;
        Ok(())
    }
}

impl Ledger for PostgresLedger {
    fn next(&mut self) -> Result<Next> {
        if let Some(since) = self.paused_since()? {
            return Ok(Next::Paused(since));
        }
        loop {
            if let Some(claim) = self.claim(false)? {
                return Ok(Next::Fetch(claim));
            }
            let standing = self.standing()?;
            match self.terms.plan(&standing)? {
                Plan::Make { page, due_ms, anew } => {
                    let page = page as i64;
                    if self.make(page, due_ms, (anew, false))? {
                        let claimed = Claimed::first(page, standing.now_ms);
                        return Ok(Next::Fetch(self.terms.claim(&claimed)?));
                    }
                    // Another process made it first, or it was requested by its number: look for
                    // the page after it.
                }
                // The next page has priority over pages that are only looked at again.
                plan => {
                    let claim = self.claim(true)?;
                    return Ok(claim.map_or_else(|| plan.rest(), Next::Fetch));
                }
            }
        }
    }

    fn due_by_now(&mut self, ahead: bool) -> Result<()> {
        self.terms.horizon = Horizon::at(self.now_ms()?, ahead);
        Ok(())
    }

    fn ask(&mut self, page: u64, again: bool) -> Result<Asked> {
        let number = page as i64;
        let now = self.now_ms()?;
        if self.make(number, now, (false, true))? {
            let claimed = Claimed::first(number, now);
            return Ok(Asked::Claimed(self.terms.claim(&claimed)?));
        }
        let Terms {
            pipeline,
            claimant,
            lease_ms,
            ..
        } = &self.terms;
        let claimed = self
            .client
            .query_opt(&sql(ASK), &[pipeline, &number, claimant, lease_ms, &again]);
        if let Some(row) = claimed.map_err(failed)? {
            return Ok(Asked::Claimed(self.terms.claim(&claimed_of(&row))?));
        }
        let waits = self.client.query_opt(WAITS, &[pipeline, &number]);
        let waits = waits.map_err(failed)?;
        let waits = waits.map(|row| (row.get(0), row.get(1)));
        Ok(Asked::unless_claimed(waits))
    }

    fn unfinished(&mut self) -> Result<BTreeSet<u64>> {
        let select = "SELECT page FROM _tidemill_runs
            WHERE pipeline = $1 AND state IN ('claimed', 'retry')";
        let rows = self.client.query(select, &[&self.terms.pipeline]);
        let page = |row: postgres::Row| row.get::<_, i64>(0) as u64;
        Ok(rows.map_err(failed)?.into_iter().map(page).collect())
    }

    fn renew(&mut self, claim: &Claim) -> Result<()> {
        let set = "UPDATE _tidemill_runs
            SET claimed_until = clock_timestamp() + $5::bigint * interval '1 millisecond'";
        let (page, attempts) = (claim.page as i64, claim.attempts as i32);
        let (pipeline, by, lease) = (&claim.pipeline, &claim.claimed_by, &self.terms.lease_ms);
        self.client
            .execute(
                &format!("{set} WHERE {MINE}"),
                &[pipeline, &page, by, &attempts, lease],
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
            failures = 0, claimed_until = clock_timestamp()
            WHERE pipeline = $1 AND page = $2 AND state = 'failed'";
        let due = self
            .client
            .execute(update, &[&self.terms.pipeline, &(page as i64)]);
        Ok(due.map_err(failed)? == 1)
    }

    fn tally(&mut self) -> Result<Tally> {
        let select = "SELECT coalesce(bool_or(own IS NOT NULL), false),
            count(*) FILTER (WHERE state = 'failed'), max(page) FILTER (WHERE own > 0)
            FROM _tidemill_runs WHERE pipeline = $1";
        let row = self.client.query_one(select, &[&self.terms.pipeline]);
        let row = row.map_err(failed)?;
        Ok(Tally {
            landed: row.get(0),
            failed: row.get::<_, i64>(1) as u64,
            last: row.get::<_, Option<i64>>(2).map(|page| page as u64),
        })
    }

    fn history(&mut self, limit: u32) -> Result<Vec<Run>> {
        let select = "SELECT page, (extract(epoch FROM due_at) * 1000)::bigint, state, attempts,
            records, error, (extract(epoch FROM finished_at) * 1000)::bigint
            FROM _tidemill_runs WHERE pipeline = $1 ORDER BY page DESC LIMIT $2";
        let (pipeline, limit) = (&self.terms.pipeline, i64::from(limit));
        let rows = self
            .client
            .query(select, &[pipeline, &limit])
            .map_err(failed)?;
        let run = |row: postgres::Row| Run {
            page: row.get::<_, i64>(0) as u64,
            due_at: Timestamp::from_millisecond(row.get(1)).unwrap_or_default(),
            state: row.get(2),
            attempts: row.get::<_, i32>(3) as u32,
            records: row.get::<_, Option<i64>>(4).map(|records| records as u64),
            error: row.get(5),
            finished_at: row
                .get::<_, Option<i64>>(6)
                .and_then(|at| Timestamp::from_millisecond(at).ok()),
        };
        Ok(rows.into_iter().map(run).collect())
    }
}

/// Ends a claim in the transaction that lands its page. The page is done; or due again at the next
/// tick, if records may be added to it; or due again at once, if only a part of it was wanted.
///
/// # Errors
/// `Fence` when the claim was lost.
pub(crate) fn finish(
    transaction: &mut Transaction<'_>,
    claim: &Claim,
    ended: &Ended,
) -> Result<()> {
    let before = "SELECT mark FROM _tidemill_runs WHERE pipeline = $1 AND page = $2::bigint - 1";
    let set = "UPDATE _tidemill_runs SET state = $5, records = $6, error = NULL, failures = 0,
        own = $7, mark = $8,
        finished_at = CASE WHEN $5 <> 'retry' THEN clock_timestamp() END,
        claimed_until = CASE WHEN $5 = 'short' THEN to_timestamp($9::bigint / 1000.0)
            ELSE clock_timestamp() END";
    let (page, attempts) = (claim.page as i64, claim.attempts as i32);
    let pipeline = &claim.pipeline;
    let before = transaction.query_opt(before, &[pipeline, &page]);
    let before: Option<String> = before.map_err(failed)?.and_then(|row| row.get(0));
    let (state, own) = ended.state(claim, before.as_deref());
    let (records, own) = (ended.landed as i64, own as i64);
    let done = transaction
        .execute(
            &format!("{set} WHERE {MINE}"),
            &[
                pipeline,
                &page,
                &claim.claimed_by,
                &attempts,
                &state,
                &records,
                &own,
                &ended.mark,
                &claim.again_ms,
            ],
        )
        .map_err(failed)?;
    if done == 1 { Ok(()) } else { Err(lost(claim)) }
}
