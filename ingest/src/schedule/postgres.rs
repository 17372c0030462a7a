//! The ledger in PostgreSQL. Time is the server's, so that claimants on several machines agree;
//! `FOR UPDATE SKIP LOCKED` lets them claim side by side.

use std::time::Duration;

use jiff::Timestamp;
use postgres::{Client, Transaction};

use super::{Claim, Ledger, Next, Plan, Run, Standing, Terms, kept, lost, millis};
use crate::database::{self, postgres_failed};
use crate::{Error, Result};

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
    PRIMARY KEY (pipeline, page));
CREATE INDEX IF NOT EXISTS _tidemill_runs_open ON _tidemill_runs (pipeline, claimed_until)
    WHERE state IN ('claimed', 'retry');";

const CLAIM: &str = "UPDATE _tidemill_runs
    SET state = 'claimed', claimed_by = $2, attempts = attempts + 1,
        claimed_until = clock_timestamp() + $3::bigint * interval '1 millisecond'
    WHERE pipeline = $1 AND page = (
        SELECT page FROM _tidemill_runs
        WHERE pipeline = $1 AND state IN ('claimed', 'retry')
            AND claimed_until <= clock_timestamp()
        ORDER BY page LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING page, attempts";

const STANDING: &str = "SELECT
    (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
    last.page, (extract(epoch FROM last.due_at) * 1000)::bigint,
    open.retrying, (extract(epoch FROM open.wakes) * 1000)::bigint
    FROM (SELECT count(*) FILTER (WHERE state = 'retry') AS retrying, min(claimed_until) AS wakes
        FROM _tidemill_runs WHERE pipeline = $1 AND state IN ('claimed', 'retry')) AS open
    LEFT JOIN (SELECT page, due_at FROM _tidemill_runs
        WHERE pipeline = $1 ORDER BY page DESC LIMIT 1) AS last ON true";

const MAKE: &str = "INSERT INTO _tidemill_runs
    (pipeline, page, due_at, state, claimed_by, claimed_until, attempts)
    VALUES ($1, $2, to_timestamp($3::bigint / 1000.0), 'claimed', $4,
        clock_timestamp() + $5::bigint * interval '1 millisecond', 1)
    ON CONFLICT (pipeline, page) DO NOTHING";

const MINE: &str = "pipeline = $1 AND page = $2 AND state = 'claimed'
    AND claimed_by = $3 AND attempts = $4";

/// The ledger in PostgreSQL.
pub(crate) struct PostgresLedger {
    client: Client,
    terms: Terms,
}

fn failed(error: postgres::Error) -> Error {
    postgres_failed("ledger `_tidemill_runs`", error)
}

impl PostgresLedger {
    pub(super) fn open(url: &str, terms: Terms) -> Result<Self> {
        let mut client = database::postgres(url)?;
        let mut transaction = client.transaction().map_err(failed)?;
        database::lock_creation(&mut transaction)?;
        transaction.batch_execute(CREATE).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        Ok(Self { client, terms })
    }

    fn standing(&mut self) -> Result<Standing> {
        let row = self
            .client
            .query_one(STANDING, &[&self.terms.pipeline])
            .map_err(failed)?;
        let page: Option<i64> = row.get(1);
        let due: Option<i64> = row.get(2);
        Ok(Standing {
            now_ms: row.get(0),
            last: page.zip(due).map(|(page, due)| (page as u64, due)),
            retrying: row.get(3),
            wakes_ms: row.get(4),
        })
    }

    fn end(&mut self, claim: &Claim, state: &str, wait_ms: i64, error: &str) -> Result<()> {
        let set = "UPDATE _tidemill_runs SET state = $5, error = $6,
            finished_at = CASE WHEN $5 = 'failed' THEN clock_timestamp() END,
            claimed_until = clock_timestamp() + $7::bigint * interval '1 millisecond'";
        let (page, attempts) = (claim.page as i64, claim.attempts as i32);
        let (pipeline, by, error) = (&claim.pipeline, &claim.claimed_by, kept(error));
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
        let Terms {
            pipeline,
            claimant,
            lease_ms,
            ..
        } = self.terms.clone();
        loop {
            let claimed = self
                .client
                .query_opt(CLAIM, &[&pipeline, &claimant, &lease_ms]);
            if let Some(row) = claimed.map_err(failed)? {
                return Ok(Next::Fetch(self.terms.claim(row.get(0), row.get(1))));
            }
            let standing = self.standing()?;
            match self.terms.plan(&standing)? {
                Plan::Idle(wait) => return Ok(Next::Idle(wait)),
                Plan::Finished => return Ok(Next::Finished),
                Plan::Make { page, due_ms } => {
                    let page = page as i64;
                    let made = self
                        .client
                        .execute(MAKE, &[&pipeline, &page, &due_ms, &claimant, &lease_ms])
                        .map_err(failed)?;
                    if made == 1 {
                        return Ok(Next::Fetch(self.terms.claim(page, 1)));
                    }
                    // Another process made it first: look for the page after it.
                }
            }
        }
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
            claimed_until = clock_timestamp()
            WHERE pipeline = $1 AND page = $2 AND state = 'failed'";
        let due = self
            .client
            .execute(update, &[&self.terms.pipeline, &(page as i64)]);
        Ok(due.map_err(failed)? == 1)
    }

    fn history(&mut self, limit: u32) -> Result<Vec<Run>> {
        let select = "SELECT page, (extract(epoch FROM due_at) * 1000)::bigint, state, attempts,
            records, error FROM _tidemill_runs WHERE pipeline = $1 ORDER BY page DESC LIMIT $2";
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
        };
        Ok(rows.into_iter().map(run).collect())
    }
}

/// Ends a claim inside the transaction that lands its page: `done`, or due again at once when only
/// part of the page was wanted. An error of kind `Fence` when the claim was lost.
pub(crate) fn finish(
    transaction: &mut Transaction<'_>,
    claim: &Claim,
    records: u64,
    whole: bool,
) -> Result<()> {
    let set = "UPDATE _tidemill_runs SET state = $5, records = $6, error = NULL,
        finished_at = CASE WHEN $5 = 'done' THEN clock_timestamp() END,
        claimed_until = clock_timestamp()";
    let (page, attempts) = (claim.page as i64, claim.attempts as i32);
    let state = if whole { "done" } else { "retry" };
    let records = records as i64;
    let ended = transaction
        .execute(
            &format!("{set} WHERE {MINE}"),
            &[
                &claim.pipeline,
                &page,
                &claim.claimed_by,
                &attempts,
                &state,
                &records,
            ],
        )
        .map_err(failed)?;
    if ended == 1 { Ok(()) } else { Err(lost(claim)) }
}
