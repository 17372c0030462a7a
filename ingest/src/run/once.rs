//! Batch run (`ingest --once`): fetches what is due or a range of pages, publishes, and ends.
//!
//! Publishing is done by this process or by another one that captures.
//!
//! ```text
//! fetch and land everything due ─► mark: position P of the database ─► wait: P is published ─► end
//! ```
//!
//! Invariants:
//! 1. At its end every page of the run has landed or failed for good, and the log holds every
//!    change that was committed before.
//! 2. The run does not wait for an API: a page that failed
//!    [`Fetch::tries`](crate::config::Fetch::tries) times ends it with an error, and the next run
//!    begins with that page. It does wait for database and log.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidemill_log::backoff::sleep;
use tidemill_log::health::Role;

use super::{CAPTURED, Fetcher, IDLE_MAX, Options, publish, stop_on_error, with_fetcher};
use crate::capture::mark::{CommitPosition, Marks};
use crate::config::Tick;
use crate::schedule::{Asked, Claim, Next, RETRYING_MAX};
use crate::stats::Stats;
use crate::{Error, Kind, Result};

/// Interval between two checks whether everything is published.
const PUBLISHED_LOOK: Duration = Duration::from_millis(50);
/// Interval between two checks whether a page that another process has is over.
const OTHERS_LOOK: Duration = Duration::from_millis(200);

/// What a batch run fetches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Once {
    /// These pages, due or not. With `None` what is due at the start, or with [`Options::until`] as
    /// many pages as that takes.
    pub pages: Option<RangeInclusive<u64>>,
    /// Whether pages of the range that are done are fetched again.
    pub refetch: bool,
}

/// Fetches, waits until everything committed by then is published, and returns a position of the
/// database after all of it; `None` when `stop` was set first.
///
/// # Errors
/// Those of [`run`](super::run); `Data` for a page that failed too often.
pub fn once(
    options: &Options,
    what: &Once,
    stats: &Arc<Stats>,
    stop: &Arc<AtomicBool>,
) -> Result<Option<CommitPosition>> {
    std::thread::scope(|scope| {
        let capturing = std::thread::Builder::new()
            .name("tidemill-publish".into())
            .spawn_scoped(scope, || stop_on_error(stop, publish(options, stats, stop)))
            .map_err(|error| Error::with_source(Kind::Retry, "no thread for publishing", error))?;
        let mut rest = RemainingPages::of(what);
        let fetched = with_fetcher(options, stats, stop, |it| match &mut rest {
            Some(rest) => it.until_all(rest),
            None => it.until_none_is_due(),
        });
        let reached = fetched.and_then(|()| published(options, stats, stop));
        stop.store(true, Ordering::Relaxed);
        let captured = capturing
            .join()
            .unwrap_or_else(|_| Err(Error::new(Kind::Bug, "the publishing thread panicked")));
        match reached {
            // When everything is published, an error of the publishing thread does not matter.
            Ok(Some(place)) => Ok(Some(place)),
            Ok(None) => captured.map(|()| None),
            Err(error) => Err(error),
        }
    })
}

/// Waits until everything committed now is in the log; `None` when stopped.
fn published(
    options: &Options,
    stats: &Stats,
    stop: &AtomicBool,
) -> Result<Option<CommitPosition>> {
    let mut marks = Marks::new(&options.database, &options.name)?;
    let mut place = None;
    while !stop.load(Ordering::Relaxed) {
        let past = match place {
            None => marks.mark().map(|mark| {
                place = Some(mark.place);
                false
            }),
            Some(place) => marks.is_past(place),
        };
        stats.health.note(Role::Database, CAPTURED, &past);
        match past {
            Ok(true) => return Ok(place),
            Ok(false) => {}
            Err(error) if error.kind() == Kind::Retry => {
                tracing::debug!(%error, "cannot ask whether everything is published");
            }
            Err(error) => return Err(error),
        }
        sleep(PUBLISHED_LOOK, stop);
    }
    Ok(None)
}

/// The remaining pages of a range.
struct RemainingPages {
    /// The next page that was not claimed.
    next: u64,
    /// The last page of the range.
    last: u64,
    /// Pages that were claimed or are claimed by others, and are not over.
    waiting: BTreeSet<u64>,
    /// See [`Once::refetch`].
    refetch: bool,
    /// When a page was last fetched.
    fetched: Option<Instant>,
}

impl RemainingPages {
    /// The whole range, if one is given.
    fn of(what: &Once) -> Option<Self> {
        let pages = what.pages.as_ref()?;
        Some(Self {
            next: *pages.start(),
            last: *pages.end(),
            waiting: BTreeSet::new(),
            refetch: what.refetch,
            fetched: None,
        })
    }

    /// The pages to ask for now, in order.
    fn candidates(&self) -> Vec<u64> {
        let is_full = self.waiting.len() as i64 >= RETRYING_MAX;
        let next = (!is_full && self.next <= self.last).then_some(self.next);
        self.waiting.iter().copied().chain(next).collect()
    }
}

impl Fetcher<'_> {
    /// Fetches what is due at this moment, or as much as [`Options::until`] takes.
    fn until_none_is_due(&mut self) -> Result<()> {
        self.tried = Some(BTreeMap::new());
        self.ledger.due_by_now(self.until.is_some())?;
        let mut awaited: Option<BTreeSet<u64>> = None;
        while !self.stop.load(Ordering::Relaxed) {
            if self.is_enough()? {
                return Ok(());
            }
            match self.ledger.next()? {
                Next::Finished => return self.finished(),
                Next::Paused(since) => {
                    let what = format!(
                        "fetching is paused since {since:.0}, so nothing is fetched; resume it in \
                         the control center, or name the pages"
                    );
                    return Err(Error::new(Kind::Data, what));
                }
                Next::Fetch(claim) => {
                    self.take(&claim)?;
                }
                Next::Idle(wait) if self.until.is_some() => sleep(wait.min(IDLE_MAX), self.stop),
                Next::Idle(wait) | Next::AtEnd(wait) => {
                    // Pages that other processes have, which may have died, and pages that failed a
                    // moment ago.
                    let unfinished = self.ledger.unfinished()?;
                    let awaited = awaited.get_or_insert_with(|| unfinished.clone());
                    if awaited.is_disjoint(&unfinished) {
                        return Ok(());
                    }
                    sleep(wait.min(OTHERS_LOOK), self.stop);
                }
            }
        }
        Ok(())
    }

    /// Fetches a range of pages, one each tick.
    fn until_all(&mut self, rest: &mut RemainingPages) -> Result<()> {
        self.tried = Some(BTreeMap::new());
        loop {
            let candidates = rest.candidates();
            if candidates.is_empty() {
                return Ok(());
            }
            // Wait before the claim, which would expire meanwhile.
            self.keep_pace(rest);
            if self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let mut wait = OTHERS_LOOK;
            for page in candidates {
                match self.ledger.ask(page, rest.refetch)? {
                    Asked::Done => rest.over(page),
                    Asked::Wait(longest) => {
                        rest.waits(page);
                        wait = wait.min(longest);
                        continue;
                    }
                    Asked::Claimed(claim) => {
                        rest.waits(page);
                        rest.fetched = Some(Instant::now());
                        if self.take(&claim)? {
                            rest.over(page);
                        }
                    }
                }
                wait = Duration::ZERO;
                break;
            }
            sleep(wait, self.stop);
        }
    }

    /// Waits until the next page of a range may be requested.
    fn keep_pace(&self, rest: &mut RemainingPages) {
        if let (Tick::Every(every), Some(fetched)) = (self.tick, rest.fetched.take()) {
            sleep(every.saturating_sub(fetched.elapsed()), self.stop);
        }
    }

    /// In a batch run: ends the run with an error when a page failed too often, and gives the page
    /// back.
    pub(super) fn give_up(&mut self, claim: &Claim, error: &Error) -> Result<()> {
        let Some(tried) = &mut self.tried else {
            return Ok(());
        };
        let times = tried.entry(claim.page).or_insert(0);
        *times += 1;
        if *times < self.tries {
            return Ok(());
        }
        let what = format!(
            "page {} failed {times} times: {error}; the same command begins with it",
            claim.page
        );
        self.ledger.retry(claim, Duration::ZERO, &what)?;
        Err(Error::new(Kind::Data, what))
    }
}

impl RemainingPages {
    /// The page was claimed, or is claimed by another process, and is not over.
    fn waits(&mut self, page: u64) {
        self.waiting.insert(page);
        self.next = self.next.max(page.saturating_add(1));
    }

    /// The page is over.
    fn over(&mut self, page: u64) {
        self.waiting.remove(&page);
        self.next = self.next.max(page.saturating_add(1));
    }
}
