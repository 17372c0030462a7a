//! Schedule: which page is due, and the durable ledger of who fetches it.
//!
//! The ledger is the table `_tidemill_runs` in the database that pages land in, one row a page:
//!
//! ```text
//! (made when due) ─► claimed ─► done        landed, in the transaction that moved the row
//!                     │  ▲ ├──► failed      the API refuses this page for good
//!                     │  │ └──► short       landed, and records may be added to it: due again
//!                     ▼  │        │         at the next tick, as `at_end` says
//!                    retry ◄──────┘         due again at `claimed_until`
//! ```
//!
//! Engines: [`postgres`](self::postgres) and [`sqlite`](self::sqlite).
//!
//! 1. A page is claimed by one process at a time. A claim is a lease, which its holder renews while
//!    it works on the page: one whose holder died or stands still is taken over when it ends, with
//!    a higher number of attempts.
//! 2. What a lost claim fetched does not land: landing checks claimant and attempts in its own
//!    transaction ([`Claim`]).
//! 3. No page is skipped: the next page is the schedule's highest one plus one, and is made only
//!    when its tick has come. One that was asked for by its number (`ranged`) before is the
//!    schedule's from then on, as it is. Ticks that were missed for longer than [`CATCH_UP_MAX`]
//!    become one.
//! 4. At most [`RETRYING_MAX`] pages wait for another attempt; then no next page is made.
//! 5. A page is done only when nothing can be added to it any more: it is full, or it was asked
//!    for when a later page was known to have records. So a list that grows while it is read, or
//!    after that, loses nothing. The end of a list is a page without records of its own: an empty
//!    one, or one with the keys of the page before it. Behind it no page is made.

pub(crate) mod postgres;
pub(crate) mod sqlite;

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use crate::config::{AtEnd, Schedule};
use crate::database::Database;
use crate::{Error, Kind, Result};

/// How far behind the schedule pages are still made for each missed tick.
pub const CATCH_UP_MAX: Duration = Duration::from_secs(60);
/// How many pages may wait for another attempt before no next one is made.
pub const RETRYING_MAX: i64 = 8;
/// Beyond any time of a ledger, in milliseconds since 1970: the year 9000.
const FOR_EVER_MS: i64 = 221_845_392_000_000;
/// The longest error text that the ledger keeps.
const ERROR_CHARS_MAX: usize = 500;

/// The right to fetch and land one page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The pipeline.
    pub pipeline: String,
    /// The page.
    pub page: u64,
    /// Who holds it.
    pub claimed_by: String,
    /// Which attempt it is, from 1. Tells a claim from a later one of the same holder.
    pub attempts: u32,
    /// Attempts that failed since the page landed last.
    pub failures: u32,
    /// Whether a later page was known to have records when this claim was made.
    pub followed: bool,
    /// When the page is due again if records may be added to it, in milliseconds since 1970.
    pub again_ms: i64,
}

/// What a claim's page came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Records that are rows now.
    pub(crate) landed: u64,
    /// Records of the page, refused ones included.
    pub(crate) records: u64,
    /// Whether the page has all the records that a page has.
    pub(crate) full: bool,
    /// What tells the page from others by its records' keys.
    pub(crate) mark: Option<String>,
    /// Whether all of the page was wanted.
    pub(crate) whole: bool,
}

impl Ended {
    /// The page's new state and how many records of its own it has; `before` is the mark of the
    /// page before it.
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

/// All pages of a ledger together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Whether any page ever landed.
    pub landed: bool,
    /// Pages that failed for good.
    pub failed: u64,
    /// The highest page that had records of its own.
    pub last: Option<u64>,
}

/// What there is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// This page.
    Fetch(Claim),
    /// Nothing for this long.
    Idle(Duration),
    /// Nothing for this long: the list is at its end, and may grow.
    AtEnd(Duration),
    /// Nothing any more: every page of the range is done or failed.
    Finished,
}

/// What comes of asking for one page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// It is to be fetched.
    Claimed(Claim),
    /// It is done already.
    Done,
    /// Another process has it, or it failed a moment ago: ask again after this long.
    Wait(Duration),
}

impl Asked {
    /// Of a page that was not claimed: whether it is done, and in how many milliseconds its claim
    /// or its wait ends. One that went away meanwhile may be made at once.
    fn unless_claimed(found: Option<(bool, Option<i64>)>) -> Self {
        match found {
            Some((true, _)) => Self::Done,
            Some((false, Some(ms))) => Self::Wait(Duration::from_millis(ms.max(1) as u64)),
            _ => Self::Wait(Duration::from_millis(1)),
        }
    }
}

/// A row of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The page.
    pub page: u64,
    /// When it was due.
    pub due_at: Timestamp,
    /// `claimed`, `retry`, `short`, `done` or `failed`.
    pub state: String,
    /// Attempts so far.
    pub attempts: u32,
    /// Records landed.
    pub records: Option<u64>,
    /// The last attempt's error.
    pub error: Option<String>,
}

/// The ledger of one pipeline, as one claimant sees it.
pub trait Ledger: Send {
    /// Claims the next page that is due, if any.
    fn next(&mut self) -> Result<Next>;
    /// From now on nothing is due that is not due at this moment: pages that are made, unless
    /// `ahead`, and those that are only looked at again.
    fn due_by_now(&mut self, ahead: bool) -> Result<()>;
    /// Claims this page, due or not; one that is done only with `again`. Where no run has made it
    /// yet, the schedule passes over it when it comes there.
    fn ask(&mut self, page: u64, again: bool) -> Result<Asked>;
    /// Pages that somebody has or that wait for another attempt.
    fn unfinished(&mut self) -> Result<BTreeSet<u64>>;
    /// Makes a claim last for the lease from now on. A claim that was lost changes nothing.
    fn renew(&mut self, claim: &Claim) -> Result<()>;
    /// Gives a claim back, to be taken again after `wait`. A claim that was lost changes nothing.
    fn retry(&mut self, claim: &Claim, wait: Duration, error: &str) -> Result<()>;
    /// Ends a claim for good. A claim that was lost changes nothing.
    fn fail(&mut self, claim: &Claim, error: &str) -> Result<()>;
    /// Makes a page that failed for good due again at once; false when it is not one.
    fn again(&mut self, page: u64) -> Result<bool>;
    /// All pages together.
    fn tally(&mut self) -> Result<Tally>;
    /// Up to `limit` newest runs, newest first.
    fn history(&mut self, limit: u32) -> Result<Vec<Run>>;
}

/// Opens the ledger of pipeline `name` in `database`; a claim lasts for `lease`, and as long again
/// each time it is [renewed](Ledger::renew).
pub fn open(
    database: &str,
    name: &str,
    schedule: &Schedule,
    lease: Duration,
) -> Result<Box<dyn Ledger>> {
    let terms = Terms {
        pipeline: name.to_owned(),
        claimant: uuid::Uuid::new_v4().to_string(),
        schedule: schedule.clone(),
        lease_ms: millis(lease),
        horizon: Horizon::default(),
    };
    Ok(match Database::of(database)? {
        Database::Postgres(url) => Box::new(postgres::PostgresLedger::open(&url, terms)?),
        Database::Sqlite(file) => Box::new(sqlite::SqliteLedger::open(&file, terms)?),
    })
}

/// What both engines know.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pipeline: String,
    claimant: String,
    schedule: Schedule,
    lease_ms: i64,
    horizon: Horizon,
}

/// What is due later is not due, by the ledger's clock.
#[derive(Debug, Clone, Copy)]
struct Horizon {
    /// Of pages that are made.
    made_ms: i64,
    /// Of pages that are only looked at again.
    again_ms: i64,
}

impl Default for Horizon {
    fn default() -> Self {
        Self {
            made_ms: FOR_EVER_MS,
            again_ms: FOR_EVER_MS,
        }
    }
}

impl Horizon {
    fn at(now_ms: i64, ahead: bool) -> Self {
        Self {
            made_ms: if ahead { FOR_EVER_MS } else { now_ms },
            again_ms: now_ms,
        }
    }
}

/// What the ledger holds when no page can be claimed.
#[derive(Debug, Clone, Copy, Default)]
struct Standing {
    now_ms: i64,
    /// The highest page of the schedule and when it was due.
    last: Option<(u64, i64)>,
    /// Whether that page landed and has no records of its own. One that failed since is no end.
    is_beyond: bool,
    /// Pages waiting for another attempt.
    retrying: i64,
    /// When the first claim or wait ends.
    wakes_ms: Option<i64>,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    Make {
        page: u64,
        due_ms: i64,
        /// Whether a new round begins, and what the ledger holds of the last one goes.
        anew: bool,
    },
    Idle(Duration),
    AtEnd(Duration),
    Finished,
}

impl Plan {
    /// What there is to do when no page is made.
    fn rest(self) -> Next {
        match self {
            Plan::Idle(wait) => Next::Idle(wait),
            Plan::AtEnd(wait) => Next::AtEnd(wait),
            Plan::Finished | Plan::Make { .. } => Next::Finished,
        }
    }
}

impl Terms {
    fn plan(&self, standing: &Standing) -> Result<Plan> {
        let now = standing.now_ms;
        let horizon = now.min(self.horizon.made_ms);
        let until = |at_ms: i64| Duration::from_millis(at_ms.saturating_sub(now).max(1) as u64);
        let (page, due_ms) = match standing.last {
            None => (self.schedule.first_page, horizon),
            Some((page, due_ms)) => {
                let last = Timestamp::from_millisecond(due_ms).map_err(|error| {
                    let what = format!("page {page} was due at {due_ms} ms, which is no time");
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

    /// Whether pages at the end of the list are asked for again.
    fn follows(&self) -> bool {
        self.schedule.at_end == AtEnd::Follow
    }

    fn claim(&self, claimed: &Claimed) -> Result<Claim> {
        let now = Timestamp::from_millisecond(claimed.now_ms).map_err(|error| {
            let what = format!("{} ms is no time", claimed.now_ms);
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
    page: i64,
    attempts: i32,
    failures: i32,
    followed: bool,
    now_ms: i64,
}

impl Claimed {
    /// Of a page that was made just now.
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

/// The error of a claim that someone else took over.
fn lost(claim: &Claim) -> Error {
    let Claim { pipeline, page, .. } = claim;
    let what = format!("page {page} of `{pipeline}` was claimed by another process meanwhile");
    Error::new(Kind::Fence, what)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis())
        .unwrap_or(i64::MAX / 4)
        .min(i64::MAX / 4)
}

/// An error's text, cut to what a row keeps and without what PostgreSQL's text cannot hold.
fn kept(error: &str) -> String {
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
        let mut standing = Standing {
            now_ms: 1_000_000,
            ..Standing::default()
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
    fn what_is_due_later_than_the_horizon_is_not_made() {
        let mut terms = terms(None);
        terms.horizon = Horizon::at(1_000_000, false);
        let mut standing = Standing {
            now_ms: 1_000_010,
            ..Standing::default()
        };
        let made = |plan| match plan {
            Plan::Make { page, due_ms, .. } => Some((page, due_ms)),
            _ => None,
        };
        let plan = |standing: &Standing| made(terms.plan(standing).unwrap());
        assert_eq!(plan(&standing), Some((1, 1_000_000)));
        standing.last = Some((1, 999_000));
        standing.now_ms = 1_002_000;
        assert_eq!(plan(&standing), Some((2, 1_000_000)));
        standing.last = Some((2, 1_000_000));
        assert_eq!(plan(&standing), None);
        // Long ago it is one page, whenever the ledger is asked.
        standing.last = Some((2, 100_000));
        assert_eq!(plan(&standing), Some((3, 1_000_000)));
        terms.horizon = Horizon::at(1_000_000, true);
        standing.last = Some((2, 1_000_000));
        let ahead = terms.plan(&standing).unwrap();
        assert_eq!(made(ahead), Some((3, 1_001_000)));
    }

    #[test]
    fn behind_the_end_of_a_list_no_page_is_made() {
        let beyond = Standing {
            now_ms: 1_000_000,
            last: Some((4, 990_000)),
            is_beyond: true,
            wakes_ms: Some(1_000_700),
            ..Standing::default()
        };
        let ended = Standing {
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
        // A range is asked for whole, however empty one of its pages is.
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
