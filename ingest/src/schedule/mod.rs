//! Scheduler and ledger: which page is due, and a durable job queue of who fetches it.
//!
//! The ledger is the table `_tidemill_runs` in the database in which pages land, with one row per
//! page. The states of a row:
//!
//! ```text
//! (made when due) ─► claimed ─► done        landed, in the transaction that changed the row
//!                     │  ▲ ├──► failed      the API refuses this page for good
//!                     │  │ └──► short       landed, and records may be added to it: due again
//!                     ▼  │        │         at the next tick, as `at_end` says
//!                    retry ◄──────┘         due again at `claimed_until`
//! ```
//!
//! Engines: PostgreSQL and SQLite.
//!
//! Invariants:
//! 1. A page is claimed by one process at a time. A claim is a lease, which its holder renews while
//!    it works on the page. When the holder died or is frozen, the lease expires and another
//!    process claims the page, with a higher number of attempts.
//! 2. A page that was fetched under a lost claim does not land: landing compares claimant and
//!    attempts in its own transaction ([`Claim`]).
//! 3. No page is skipped: the next page is the highest one of the schedule plus one, and is made
//!    only when its tick has come. A page that was requested by its number before (`ranged`)
//!    becomes one of the schedule as it is. Ticks that were missed for longer than [`CATCH_UP_MAX`]
//!    become one.
//! 4. At most [`RETRYING_MAX`] pages that failed wait for a retry; then no next page is made.
//! 5. A page is done only when nothing can be added to it: it is full, or it was requested when a
//!    later page was known to have records. So a list that grows while it is read, or afterwards,
//!    loses nothing. The end of a list is a page without records of its own: an empty page, or one
//!    with the keys of the page before. No page is made after it.

pub(crate) mod postgres;
pub mod requests;
pub(crate) mod sqlite;

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use crate::config::{AtEnd, Schedule};
use crate::database::Database;
use crate::{Error, Kind, Result};

/// How far behind the schedule each missed tick still makes a page.
pub const CATCH_UP_MAX: Duration = Duration::from_secs(60);
/// How many pages that failed may wait for a retry before no next page is made.
pub const RETRYING_MAX: i64 = 8;
/// A time after all times of a ledger, in milliseconds since 1970: the year 9000.
const FAR_FUTURE_MS: i64 = 221_845_392_000_000;
/// Longest error text in the ledger, in characters.
const ERROR_CHARS_MAX: usize = 500;

/// The right to fetch and land one page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The pipeline.
    pub pipeline: String,
    /// The page.
    pub page: u64,
    /// The id of the process that holds the claim.
    pub claimed_by: String,
    /// Number of this attempt, from 1. Distinguishes a claim from a later one of the same holder.
    pub attempts: u32,
    /// Failed attempts since the page last landed.
    pub failures: u32,
    /// Whether a later page was known to have records when the claim was made.
    pub followed: bool,
    /// When the page is due again if records may be added to it, in milliseconds since 1970.
    pub again_ms: i64,
}

/// The outcome of a claim whose page landed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Records that are rows now.
    pub(crate) landed: u64,
    /// Records of the page, refused ones included.
    pub(crate) records: u64,
    /// Whether the page has all the records that a page can have.
    pub(crate) full: bool,
    /// Hash over the keys of its records, to recognize a repeated page.
    pub(crate) mark: Option<String>,
    /// Whether the whole page was wanted (see [`crate::land::Landed::trimmed`]).
    pub(crate) whole: bool,
}

impl Ended {
    /// The new state of the page, and the number of records of its own. `before` is the hash of the
    /// page before it: a page that repeats it has none.
    fn state(&self, claim: &Claim, before: Option<&str>) -> (&'static str, u64) {
        let repeats = self.mark.is_some() && self.mark.as_deref() == before;
        let own = if repeats { 0 } else { self.records };
        let state = match self {
            Ended { whole: false, .. } => "retry",
            _ if claim.followed || (self.full && !repeats) => "done",
            _ => "short",
        };
        (state, own)
    }
}

/// Figures over all pages of a ledger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Whether any page ever landed.
    pub landed: bool,
    /// Number of pages that failed for good.
    pub failed: u64,
    /// The highest page with records of its own.
    pub last: Option<u64>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Fetch this page.
    Fetch(Claim),
    /// Nothing for this long.
    Idle(Duration),
    /// Nothing for this long: the list is at its end and may grow.
    AtEnd(Duration),
    /// Nothing more: every page of the range is done or failed.
    Finished,
    /// Nothing: fetching is paused since this time ([`requests`]).
    Paused(Timestamp),
}

/// The answer to a request for one page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// The page is claimed: fetch it.
    Claimed(Claim),
    /// The page is done.
    Done,
    /// Another process has the page, or it failed a moment ago: ask again after this long.
    Wait(Duration),
}

impl Asked {
    /// The answer for a page that was not claimed: whether it is done, and in how many milliseconds
    /// its claim or wait ends. A page that was deleted meanwhile can be made at once.
    fn unless_claimed(found: Option<(bool, Option<i64>)>) -> Self {
        match found {
            Some((true, _)) => Self::Done,
            Some((false, Some(ms))) => Self::Wait(Duration::from_millis(ms.max(1) as u64)),
            _ => Self::Wait(Duration::from_millis(1)),
        }
    }
}

/// A row of the ledger, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The page.
    pub page: u64,
    /// When it was due.
    pub due_at: Timestamp,
    /// `claimed`, `retry`, `short`, `done` or `failed`.
    pub state: String,
    /// Number of attempts.
    pub attempts: u32,
    /// Records landed; `None` before the page landed.
    pub records: Option<u64>,
    /// The error of the last attempt.
    pub error: Option<String>,
    /// When the page landed or failed for good; `None` before.
    pub finished_at: Option<Timestamp>,
}

/// The ledger of one pipeline, for one process.
///
/// All methods fail with `Retry` when the database cannot be reached and with `Data` when it
/// refuses.
pub trait Ledger: Send {
    /// Claims the next page that is due.
    ///
    /// # Errors
    /// `Retry` when the database cannot be reached; `Data` when it refuses, or the cron pattern
    /// matches no later time.
    fn next(&mut self) -> Result<Next>;
    /// Restricts what is due to what is due at this moment: pages to be made, unless `ahead`, and
    /// pages that are looked at again.
    ///
    /// # Errors
    /// `Retry` when the database cannot be reached, `Data` when it refuses.
    fn due_by_now(&mut self, ahead: bool) -> Result<()>;
    /// Claims this page, due or not; a page that is done only with `again`. If no run has made the
    /// page, it is made, and the schedule skips it later.
    ///
    /// # Errors
    /// `Retry` when the database cannot be reached, `Data` when it refuses.
    fn ask(&mut self, page: u64, again: bool) -> Result<Asked>;
    /// Pages that are claimed or wait for a retry.
    ///
    /// # Errors
    /// `Retry` when the database cannot be reached, `Data` when it refuses.
    fn unfinished(&mut self) -> Result<BTreeSet<u64>>;
    /// Extends a claim by the lease from now on. Does nothing for a lost claim.
    ///
    /// # Errors
    /// `Retry` when the database cannot be reached, `Data` when it refuses.
    fn renew(&mut self, claim: &Claim) -> Result<()>;
    /// Gives a claim back; the page is due again after `wait`. Does nothing for a lost claim.
    ///
    /// # Errors
    /// `Retry` when the database cannot be reached, `Data` when it refuses.
    fn retry(&mut self, claim: &Claim, wait: Duration, error: &str) -> Result<()>;
    /// Ends a claim for good. Does nothing for a lost claim.
    ///
    /// # Errors
    /// `Retry` when the database cannot be reached, `Data` when it refuses.
    fn fail(&mut self, claim: &Claim, error: &str) -> Result<()>;
    /// Makes a page that failed for good due at once; false when it did not fail.
    ///
    /// # Errors
    /// `Retry` when the database cannot be reached, `Data` when it refuses.
    fn again(&mut self, page: u64) -> Result<bool>;
    /// Figures over all pages.
    ///
    /// # Errors
    /// `Retry` when the database cannot be reached, `Data` when it refuses.
    fn tally(&mut self) -> Result<Tally>;
    /// The newest `limit` pages, the newest first.
    ///
    /// # Errors
    /// `Retry` when the database cannot be reached, `Data` when it refuses.
    fn history(&mut self, limit: u32) -> Result<Vec<Run>>;
}

/// Opens the ledger of the pipeline `name` in `database`. A claim lasts for `lease`, and for
/// `lease` again after each [renewal](Ledger::renew).
///
/// # Errors
/// `Data` for a database URL that is not valid; `Retry` when the database cannot be reached.
pub fn open(
    database: &str,
    name: &str,
    schedule: &Schedule,
    lease: Duration,
) -> Result<Box<dyn Ledger>> {
    let terms = terms(name, schedule, lease);
    Ok(match Database::of(database)? {
        Database::Postgres(url) => Box::new(postgres::PostgresLedger::open(&url, terms)?),
        Database::Sqlite(file) => Box::new(sqlite::SqliteLedger::open(&file, terms)?),
    })
}

/// The terms of a process that begins.
fn terms(name: &str, schedule: &Schedule, lease: Duration) -> Terms {
    Terms {
        pipeline: name.to_owned(),
        claimant: uuid::Uuid::new_v4().to_string(),
        schedule: schedule.clone(),
        lease_ms: millis(lease),
        horizon: Horizon::default(),
    }
}

/// What both engines know about pipeline and process.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    /// The pipeline.
    pipeline: String,
    /// The id of this process (a random UUID).
    claimant: String,
    /// The schedule.
    schedule: Schedule,
    /// Length of a claim in milliseconds.
    lease_ms: i64,
    /// Limits what is due.
    horizon: Horizon,
}

/// Pages that are due later than this are not due, by the clock of the ledger.
#[derive(Debug, Clone, Copy)]
struct Horizon {
    /// For pages to be made, in milliseconds since 1970.
    made_ms: i64,
    /// For pages that are looked at again, in milliseconds since 1970.
    again_ms: i64,
}

impl Default for Horizon {
    /// No limit.
    fn default() -> Self {
        Self {
            made_ms: FAR_FUTURE_MS,
            again_ms: FAR_FUTURE_MS,
        }
    }
}

impl Horizon {
    /// The limit `now_ms`; with `ahead` only for pages that are looked at again.
    fn at(now_ms: i64, ahead: bool) -> Self {
        Self {
            made_ms: if ahead { FAR_FUTURE_MS } else { now_ms },
            again_ms: now_ms,
        }
    }
}

/// The content of the ledger when no page can be claimed.
#[derive(Debug, Clone, Copy, Default)]
struct LedgerState {
    /// The clock of the ledger, in milliseconds since 1970.
    now_ms: i64,
    /// The highest page of the schedule, and when it was due.
    last: Option<(u64, i64)>,
    /// Whether that page landed without records of its own. A page that failed since is not an end.
    is_beyond: bool,
    /// Number of pages that failed and wait for a retry.
    retrying: i64,
    /// When the first claim or wait ends.
    wakes_ms: Option<i64>,
}

/// The decision from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    /// Make this page.
    Make {
        page: u64,
        due_ms: i64,
        /// Whether a new round begins, for which the rows of the last one are deleted.
        anew: bool,
    },
    /// See [`Next::Idle`].
    Idle(Duration),
    /// See [`Next::AtEnd`].
    AtEnd(Duration),
    /// See [`Next::Finished`].
    Finished,
}

impl Plan {
    /// The answer when no page is made.
    fn rest(self) -> Next {
        match self {
            Plan::Idle(wait) => Next::Idle(wait),
            Plan::AtEnd(wait) => Next::AtEnd(wait),
            Plan::Finished | Plan::Make { .. } => Next::Finished,
        }
    }
}

impl Terms {
    /// Decides what to do when no page can be claimed: a pure function of the ledger and the
    /// schedule.
    fn plan(&self, standing: &LedgerState) -> Result<Plan> {
        let now = standing.now_ms;
        let horizon = now.min(self.horizon.made_ms);
        let until = |at_ms: i64| Duration::from_millis(at_ms.saturating_sub(now).max(1) as u64);
        let (page, due_ms) = match standing.last {
            None => (self.schedule.first_page, horizon),
            Some((page, due_ms)) => {
                let last = Timestamp::from_millisecond(due_ms).map_err(|error| {
                    let what =
                        format!("page {page} was due at {due_ms} ms, which is not a valid time");
                    Error::with_source(Kind::Data, what, error)
                })?;
                let due_ms = self.schedule.tick.after(last)?.as_millisecond();
                let long_ago = due_ms < now - millis(CATCH_UP_MAX);
                let due_ms = if long_ago { horizon } else { due_ms };
                (self.schedule.first_page.max(page + 1), due_ms)
            }
        };
        let ended = match self.schedule.last_page {
            Some(last) => page > last,
            None => standing.is_beyond,
        };
        let anew = ended && self.schedule.at_end == AtEnd::Restart;
        let page = if anew { self.schedule.first_page } else { page };
        let wakes = standing.wakes_ms;
        Ok(match (ended, wakes) {
            (true, Some(wakes)) if anew => Plan::Idle(until(wakes)),
            (true, Some(wakes)) => Plan::AtEnd(until(wakes)),
            (true, None) if !anew => Plan::Finished,
            (false, Some(wakes)) if standing.retrying >= RETRYING_MAX => Plan::Idle(until(wakes)),
            _ if due_ms <= horizon => Plan::Make { page, due_ms, anew },
            (_, wakes) => Plan::Idle(until(wakes.unwrap_or(i64::MAX).min(due_ms))),
        })
    }

    /// Whether pages at the end of the list are requested again.
    fn follows(&self) -> bool {
        self.schedule.at_end == AtEnd::Follow
    }

    /// The claim of a claimed row.
    fn claim(&self, claimed: &Claimed) -> Result<Claim> {
        let now = Timestamp::from_millisecond(claimed.now_ms).map_err(|error| {
            let what = format!("{} ms is not a valid time", claimed.now_ms);
            Error::with_source(Kind::Data, what, error)
        })?;
        Ok(Claim {
            pipeline: self.pipeline.clone(),
            page: claimed.page as u64,
            claimed_by: self.claimant.clone(),
            attempts: claimed.attempts as u32,
            failures: claimed.failures as u32,
            followed: claimed.followed,
            again_ms: self.schedule.tick.after(now)?.as_millisecond(),
        })
    }
}

/// A row that was claimed.
#[derive(Debug, Clone, Copy)]
struct Claimed {
    /// The page.
    page: i64,
    /// Number of this attempt.
    attempts: i32,
    /// Failed attempts since the page last landed.
    failures: i32,
    /// Whether a later page has records.
    followed: bool,
    /// The clock of the ledger.
    now_ms: i64,
}

impl Claimed {
    /// The row of a page that was made just now.
    fn first(page: i64, now_ms: i64) -> Self {
        Self {
            page,
            attempts: 1,
            failures: 0,
            followed: false,
            now_ms,
        }
    }
}

/// The error of a claim that another process took over.
fn lost(claim: &Claim) -> Error {
    let Claim { pipeline, page, .. } = claim;
    let what = format!("page {page} of `{pipeline}` was claimed by another process meanwhile");
    Error::new(Kind::Fence, what)
}

/// A duration in milliseconds, limited so that it can be added to a time.
fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis())
        .unwrap_or(i64::MAX / 4)
        .min(i64::MAX / 4)
}

/// An error as the ledger keeps it: shortened, and without NUL characters, which PostgreSQL's text
/// cannot hold.
fn shortened(error: &str) -> String {
    let signs = error.chars().filter(|sign| *sign != '\0');
    signs.take(ERROR_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Tick;

    fn terms(last_page: Option<u64>) -> Terms {
        Terms {
            pipeline: "users".into(),
            claimant: "me".into(),
            schedule: Schedule {
                tick: Tick::Every(Duration::from_secs(1)),
                first_page: 1,
                last_page,
                at_end: last_page.map_or(AtEnd::Follow, |_| AtEnd::Stop),
            },
            lease_ms: 1000,
            horizon: Horizon::default(),
        }
    }

    #[test]
    fn the_next_page_is_made_at_its_tick() {
        let mut standing = LedgerState {
            now_ms: 1_000_000,
            ..LedgerState::default()
        };
        let make = |page, due_ms| Plan::Make {
            page,
            due_ms,
            anew: false,
        };
        let terms = terms(Some(8));
        assert_eq!(terms.plan(&standing).unwrap(), make(1, 1_000_000));
        standing.last = Some((7, 999_500));
        assert_eq!(
            terms.plan(&standing).unwrap(),
            Plan::Idle(Duration::from_millis(500))
        );
        standing.wakes_ms = Some(1_000_200);
        assert_eq!(
            terms.plan(&standing).unwrap(),
            Plan::Idle(Duration::from_millis(200))
        );
        standing.last = Some((7, 990_000));
        assert_eq!(terms.plan(&standing).unwrap(), make(8, 991_000));
        standing.retrying = RETRYING_MAX;
        assert_eq!(
            terms.plan(&standing).unwrap(),
            Plan::Idle(Duration::from_millis(200))
        );
        standing.retrying = 0;
        standing.last = Some((7, 100_000));
        assert_eq!(terms.plan(&standing).unwrap(), make(8, 1_000_000));
        standing.last = Some((8, 999_000));
        assert_eq!(
            terms.plan(&standing).unwrap(),
            Plan::AtEnd(Duration::from_millis(200))
        );
        standing.wakes_ms = None;
        assert_eq!(terms.plan(&standing).unwrap(), Plan::Finished);
    }

    #[test]
    fn pages_beyond_the_horizon_are_not_made() {
        let mut terms = terms(None);
        terms.horizon = Horizon::at(1_000_000, false);
        let mut standing = LedgerState {
            now_ms: 1_000_010,
            ..LedgerState::default()
        };
        let made = |plan| match plan {
            Plan::Make { page, due_ms, .. } => Some((page, due_ms)),
            _ => None,
        };
        let plan = |standing: &LedgerState| made(terms.plan(standing).unwrap());
        assert_eq!(plan(&standing), Some((1, 1_000_000)));
        standing.last = Some((1, 999_000));
        standing.now_ms = 1_002_000;
        assert_eq!(plan(&standing), Some((2, 1_000_000)));
        standing.last = Some((2, 1_000_000));
        assert_eq!(plan(&standing), None);
        // Ticks that were missed long ago become one page.
        standing.last = Some((2, 100_000));
        assert_eq!(plan(&standing), Some((3, 1_000_000)));
        terms.horizon = Horizon::at(1_000_000, true);
        standing.last = Some((2, 1_000_000));
        let ahead = terms.plan(&standing).unwrap();
        assert_eq!(made(ahead), Some((3, 1_001_000)));
    }

    #[test]
    fn no_page_is_made_after_the_end_of_a_list() {
        let beyond = LedgerState {
            now_ms: 1_000_000,
            last: Some((4, 990_000)),
            is_beyond: true,
            wakes_ms: Some(1_000_700),
            ..LedgerState::default()
        };
        let ended = LedgerState {
            wakes_ms: None,
            ..beyond
        };
        let wait = Plan::Idle(Duration::from_millis(700));
        let mut terms = terms(None);
        let at_end = Plan::AtEnd(Duration::from_millis(700));
        assert_eq!(terms.plan(&beyond).unwrap(), at_end);
        terms.schedule.at_end = AtEnd::Stop;
        assert_eq!(terms.plan(&ended).unwrap(), Plan::Finished);
        terms.schedule.at_end = AtEnd::Restart;
        assert_eq!(terms.plan(&beyond).unwrap(), wait, "a page is under way");
        let again = Plan::Make {
            page: 1,
            due_ms: 991_000,
            anew: true,
        };
        assert_eq!(terms.plan(&ended).unwrap(), again);
        // A range is requested as a whole, also if one of its pages is empty.
        terms.schedule.last_page = Some(5);
        let plan = terms.plan(&ended).unwrap();
        assert!(
            matches!(
                plan,
                Plan::Make {
                    page: 5,
                    anew: false,
                    ..
                }
            ),
            "{plan:?}"
        );
        terms.schedule.last_page = Some(4);
        assert_eq!(terms.plan(&ended).unwrap(), again);
    }

    #[test]
    fn a_page_is_done_when_nothing_can_be_added() {
        let claim = |followed| Claim {
            pipeline: "p".into(),
            page: 2,
            claimed_by: "me".into(),
            attempts: 1,
            failures: 0,
            followed,
            again_ms: 0,
        };
        let page = |records, full, mark: &str| Ended {
            landed: records,
            records,
            full,
            mark: Some(mark.to_owned()).filter(|mark| !mark.is_empty()),
            whole: true,
        };
        let state = |ended: Ended, followed| ended.state(&claim(followed), Some("before"));
        assert_eq!(state(page(10, true, "a"), false), ("done", 10));
        assert_eq!(state(page(5, false, "a"), false), ("short", 5));
        assert_eq!(state(page(5, false, "a"), true), ("done", 5));
        assert_eq!(state(page(0, false, ""), false), ("short", 0));
        assert_eq!(state(page(10, true, "before"), false), ("short", 0));
        let trimmed = Ended {
            whole: false,
            ..page(10, true, "a")
        };
        assert_eq!(state(trimmed, true), ("retry", 10));
    }
}
