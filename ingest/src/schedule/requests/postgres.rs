//! Requests in PostgreSQL. Times are those of the server's clock.

use std::ops::RangeInclusive;

use jiff::Timestamp;

use super::{MadeDue, Requests, is_paused};
use crate::Result;
use crate::schedule::postgres::{FORGET, OPEN, PostgresLedger, failed, sql};

/// Makes pages due, `$4` milliseconds apart. `$5` is whether they may be done.
const BACKFILL: &str = "INSERT INTO _tidemill_runs AS run
    (pipeline, page, due_at, state, claimed_until, attempts, ranged)
    SELECT $1, page, clock_timestamp(), 'retry', clock_timestamp()
        + (page - $2::bigint) * $4::bigint * interval '1 millisecond', 0, true
    FROM generate_series($2::bigint, $3::bigint) AS page
    ON CONFLICT (pipeline, page) DO UPDATE
    SET state = 'retry', failures = 0, finished_at = NULL, claimed_until = excluded.claimed_until
    WHERE run.state IN ('short', 'failed') OR run.state = 'done' AND $5";

/// Makes the next page of the schedule due now. A page that was requested by its number before is
/// one of the schedule from now on.
const MAKE_DUE: &str = "INSERT INTO _tidemill_runs AS run
    (pipeline, page, due_at, state, claimed_until, attempts)
    VALUES ($1, $2, clock_timestamp(), 'retry', clock_timestamp(), 0)
    ON CONFLICT (pipeline, page) DO UPDATE SET ranged = false, due_at = excluded.due_at
    WHERE run.ranged";

impl Requests for PostgresLedger {
    fn paused(&mut self) -> Result<Option<Timestamp>> {
        self.paused_since()
    }

    fn pause(&mut self) -> Result<bool> {
        let insert = "INSERT INTO _tidemill_fetching (pipeline, paused_at)
            VALUES ($1, clock_timestamp()) ON CONFLICT (pipeline) DO NOTHING";
        let paused = self.client.execute(insert, &[&self.terms.pipeline]);
        Ok(paused.map_err(failed)? == 1)
    }

    fn resume(&mut self) -> Result<bool> {
        let delete = "DELETE FROM _tidemill_fetching WHERE pipeline = $1";
        let resumed = self.client.execute(delete, &[&self.terms.pipeline]);
        Ok(resumed.map_err(failed)? == 1)
    }

    fn backfill(&mut self, pages: &RangeInclusive<u64>, again: bool) -> Result<u64> {
        self.terms.check(pages)?;
        let (first, last) = (*pages.start() as i64, *pages.end() as i64);
        let known = (&self.terms.pipeline, self.terms.pace_ms());
        let made = self
            .client
            .execute(BACKFILL, &[known.0, &first, &last, &known.1, &again]);
        made.map_err(failed)
    }

    fn fetch_now(&mut self) -> Result<MadeDue> {
        if let Some(since) = self.paused_since()? {
            return Err(is_paused(since));
        }
        let standing = self.standing()?;
        let next = self.terms.next_page(&standing)?;
        let (pipeline, follows) = (&self.terms.pipeline, self.terms.follows());
        let mut transaction = self.client.transaction().map_err(failed)?;
        // A page of a backfill keeps its pace.
        let wake = format!(
            "UPDATE _tidemill_runs AS run SET claimed_until = clock_timestamp()
            WHERE {OPEN} AND claimed_until > clock_timestamp()
            AND (state = 'short' OR state = 'retry' AND failures > 0)"
        );
        let waiting = transaction.execute(&sql(&wake), &[pipeline, &follows]);
        let waiting = waiting.map_err(failed)?;
        let mut page = None;
        if let Some((next, anew)) = next {
            if anew {
                transaction.execute(FORGET, &[pipeline]).map_err(failed)?;
            }
            let made = transaction.execute(MAKE_DUE, &[pipeline, &(next as i64)]);
            page = (made.map_err(failed)? == 1).then_some(next);
        }
        transaction.commit().map_err(failed)?;
        Ok(MadeDue { page, waiting })
    }
}

impl PostgresLedger {
    /// Since when fetching is paused, by the server's clock.
    pub(in crate::schedule) fn paused_since(&mut self) -> Result<Option<Timestamp>> {
        let select = "SELECT (extract(epoch FROM paused_at) * 1000)::bigint
            FROM _tidemill_fetching WHERE pipeline = $1";
        let row = self.client.query_opt(select, &[&self.terms.pipeline]);
        let since: Option<i64> = row.map_err(failed)?.map(|row| row.get(0));
        Ok(since.map(|at| Timestamp::from_millisecond(at).unwrap_or_default()))
    }
}
