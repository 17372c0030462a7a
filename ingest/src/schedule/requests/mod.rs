//! What people ask of a running fetcher: pause, resume, fetch now, fetch a range of pages again.
//!
//! A request is a change of the ledger's own tables, in one transaction, and no message to a
//! process. Therefore it is durable when it is answered, it is carried out once whichever process
//! fetches, and also when none runs at the moment:
//!
//! ```text
//! backfill 3..=5 ─► rows 3, 4, 5: state `retry`, due a tick apart ─► the fetcher claims each
//! pause ──────────► row of `_tidemill_fetching` ─► the fetcher claims nothing until it is gone
//! ```
//!
//! A page that is being fetched is not touched: it lands as it would have.

mod postgres;
mod sqlite;

use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::Timestamp;

use super::{AtEnd, LedgerState, Plan, Terms, millis, terms};
use crate::config::{Schedule, Tick};
use crate::database::Database;
use crate::{Error, Kind, Result};

/// Limit of pages in one backfill.
pub const BACKFILL_PAGES_MAX: u64 = 10_000;

/// What "fetch now" made due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MadeDue {
    /// The next page of the schedule, if there is one.
    pub page: Option<u64>,
    /// Pages that waited for a retry or for records that may be added to them.
    pub waiting: u64,
}

/// The requests, for one pipeline.
///
/// All methods fail with `Retry` when the database cannot be reached and with `Data` when it
/// refuses.
pub trait Requests: Send {
    /// Since when fetching is paused; `None` while it is not.
    ///
    /// # Errors
    /// `Retry` when the database cannot be reached, `Data` when it refuses.
    fn paused(&mut self) -> Result<Option<Timestamp>>;
    /// Pauses fetching; false when it is paused already. A page that is being fetched still lands.
    ///
    /// # Errors
    /// `Retry` when the database cannot be reached, `Data` when it refuses.
    fn pause(&mut self) -> Result<bool>;
    /// Ends a pause; false when there is none.
    ///
    /// # Errors
    /// `Retry` when the database cannot be reached, `Data` when it refuses.
    fn resume(&mut self) -> Result<bool>;
    /// Makes these pages due, one each tick of the schedule from now on. Pages that are done only
    /// with `again`. Gives the number of pages that this request made due: not those that are being
    /// fetched or are due already.
    ///
    /// # Errors
    /// `Data` for no pages, more than [`BACKFILL_PAGES_MAX`], or pages that the pipeline does not
    /// have; `Retry` when the database cannot be reached.
    fn backfill(&mut self, pages: &RangeInclusive<u64>, again: bool) -> Result<u64>;
    /// Makes due what waits, and the next page of the schedule.
    ///
    /// # Errors
    /// `Data` while fetching is paused; `Retry` when the database cannot be reached.
    fn fetch_now(&mut self) -> Result<MadeDue>;
}

/// Opens the requests of the pipeline `name` in `database`.
///
/// # Errors
/// `Data` for a database URL that is not valid; `Retry` when the database cannot be reached.
pub fn open(database: &str, name: &str, schedule: &Schedule) -> Result<Box<dyn Requests>> {
    // Nothing is claimed, so the length of a claim does not matter.
    let terms = terms(name, schedule, Duration::ZERO);
    Ok(match Database::of(database)? {
        Database::Postgres(url) => Box::new(super::postgres::PostgresLedger::open(&url, terms)?),
        Database::Sqlite(file) => Box::new(super::sqlite::SqliteLedger::open(&file, terms)?),
    })
}

/// The error of a request that has to wait for the end of a pause.
fn is_paused(since: Timestamp) -> Error {
    let what = format!("fetching is paused since {since:.0}; resume it first");
    Error::new(Kind::Data, what)
}

impl Terms {
    /// Checks the pages of a backfill.
    ///
    /// # Errors
    /// `Data`, see [`Requests::backfill`].
    fn check(&self, pages: &RangeInclusive<u64>) -> Result<()> {
        let (first, last) = (*pages.start(), *pages.end());
        let lowest = self.schedule.first_page;
        let highest = self.schedule.last_page;
        let refused = |what: String| Err(Error::new(Kind::Data, what));
        if first > last {
            refused(format!("pages {first} to {last}: there are none"))
        } else if first < lowest {
            refused(format!(
                "page {first}: the first page of the pipeline is {lowest}"
            ))
        } else if let Some(highest) = highest.filter(|highest| last > *highest) {
            refused(format!(
                "page {last}: the last page of the pipeline is {highest}"
            ))
        } else if i64::try_from(last).is_err() || last - first >= BACKFILL_PAGES_MAX {
            refused(format!(
                "pages {first} to {last}: at most {BACKFILL_PAGES_MAX} at a time"
            ))
        } else {
            Ok(())
        }
    }

    /// Milliseconds between two pages of a backfill: the schedule's own rate. A cron pattern has
    /// none.
    fn pace_ms(&self) -> i64 {
        match &self.schedule.tick {
            Tick::Every(every) => millis(*every),
            Tick::Cron(_) => 0,
        }
    }

    /// The next page of the schedule before its tick, and whether a new round begins with it.
    /// `None` when the pipeline is at its end, or the page is due anyway.
    ///
    /// # Errors
    /// `Data` when the schedule has no later time.
    fn next_page(&self, standing: &LedgerState) -> Result<Option<(u64, bool)>> {
        let plan = self.plan(standing)?;
        let page = match standing.last {
            None => self.schedule.first_page,
            Some((page, _)) => self.schedule.first_page.max(page + 1),
        };
        let ended = match self.schedule.last_page {
            Some(last) => page > last,
            None => standing.is_beyond,
        };
        let anew = ended && self.schedule.at_end == AtEnd::Restart;
        Ok(match plan {
            // A round begins only when no page of the last one is open.
            Plan::Idle(_) if anew && standing.wakes_ms.is_none() => {
                Some((self.schedule.first_page, true))
            }
            Plan::Idle(_) if !ended => Some((page, false)),
            _ => None,
        })
    }
}
