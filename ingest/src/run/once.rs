//! A run that ends: what is due, or a range of pages, is fetched, and all that was committed by
//! then is captured and published, by this process or by another one that captures.
//!
//! 1. When it is over, every page that it was to fetch has landed or failed for good, and the log
//!    has every change that was committed before.
//! 2. It waits for no API: a page that failed [`Fetch::tries`](crate::config::Fetch::tries) times
//!    ends the run with an error, and the next run begins with it. The database and the log are
//!    waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidemill_log::health::Role;

use super::{CAPTURED, Fetching, IDLE_MAX, Options, fetching, publish, stopping};
use crate::capture::mark::{Marks, Place};
use crate::config::Tick;
use crate::fetch::pause;
use crate::schedule::{Asked, Claim, Next, RETRYING_MAX};
use crate::stats::Stats;
use crate::{Error, Kind, Result};

/// How often it is looked whether all is published.
const PUBLISHED_LOOK: Duration = Duration::from_millis(50);
/// How often a page that another process has is asked for.
const OTHERS_LOOK: Duration = Duration::from_millis(200);

/// What a run that ends fetches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Once {
    /// These pages, due or not; else what is due when the run begins, or with
    /// [`Options::until`] as many pages as that takes.
    pub pages: Option<RangeInclusive<u64>>,
    /// Also those of these pages that are done.
    pub refetch: bool,
}

/// Fetches, waits until everything that is committed then is published, and returns the place in
/// the database that all of it is before; none when `stop` was set first.
pub fn once(
    options: &Options,
    what: &Once,
    stats: &Arc<Stats>,
    stop: &Arc<AtomicBool>,
) -> Result<Option<Place>> {
    std::thread::scope(|scope| {
        let capturing = std::thread::Builder::new()
            .name("tidemill-publish".into())
            .spawn_scoped(scope, || stopping(stop, publish(options, stats, stop)))
            .map_err(|error| Error::with_source(Kind::Retry, "no thread for publishing", error))?;
        let mut rest = Rest::of(what);
        let fetched = fetching(options, stats, stop, |it| match &mut rest {
            Some(rest) => it.until_all(rest),
            None => it.until_none_is_due(),
        });
        let reached = fetched.and_then(|()| published(options, stats, stop));
        stop.store(true, Ordering::Relaxed);
        let captured = capturing
            .join()
            .unwrap_or_else(|_| Err(Error::new(Kind::Bug, "the publishing thread panicked")));
        match reached {
            // Once everything is published it does not matter what ends the publishing.
            Ok(Some(place)) => Ok(Some(place)),
            Ok(None) => captured.map(|()| None),
            Err(error) => Err(error),
        }
    })
}

/// Waits until everything that is committed now is in the log; none when stopped.
fn published(options: &Options, stats: &Stats, stop: &AtomicBool) -> Result<Option<Place>> {
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
                tracing::debug!(%error, "not known whether all is published");
            }
            Err(error) => return Err(error),
        }
        pause(PUBLISHED_LOOK, stop);
    }
    Ok(None)
}

/// What is left of a range of pages.
struct Rest {
    /// The next page that was not asked for.
    next: u64,
    last: u64,
    /// Pages that were asked for and are not over.
    waiting: BTreeSet<u64>,
    refetch: bool,
    /// When a page was fetched last.
    fetched: Option<Instant>,
}

impl Rest {
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

    /// Pages to ask for now, in order.
    fn candidates(&self) -> Vec<u64> {
        let is_full = self.waiting.len() as i64 >= RETRYING_MAX;
        let next = (!is_full && self.next <= self.last).then_some(self.next);
        self.waiting.iter().copied().chain(next).collect()
    }
}

impl Fetching<'_> {
    /// Fetches what is due now, or as much as [`Options::until`] takes.
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
                Next::Fetch(claim) => {
                    self.take(&claim)?;
                }
                Next::Idle(wait) if self.until.is_some() => pause(wait.min(IDLE_MAX), self.stop),
                Next::Idle(wait) | Next::AtEnd(wait) => {
                    // What others have, who may have died, or what failed a moment ago.
                    let unfinished = self.ledger.unfinished()?;
                    let awaited = awaited.get_or_insert_with(|| unfinished.clone());
                    if awaited.is_disjoint(&unfinished) {
                        return Ok(());
                    }
                    pause(wait.min(OTHERS_LOOK), self.stop);
                }
            }
        }
        Ok(())
    }

    /// Fetches a range of pages, one each tick.
    fn until_all(&mut self, rest: &mut Rest) -> Result<()> {
        self.tried = Some(BTreeMap::new());
        loop {
            let candidates = rest.candidates();
            if candidates.is_empty() {
                return Ok(());
            }
            // Before a claim, which would end meanwhile.
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
            pause(wait, self.stop);
        }
    }

    /// Waits until the next page of a range may be asked for.
    fn keep_pace(&self, rest: &mut Rest) {
        if let (Tick::Every(every), Some(fetched)) = (self.tick, rest.fetched.take()) {
            pause(every.saturating_sub(fetched.elapsed()), self.stop);
        }
    }

    /// In a run that ends, gives a page back and the run up that failed too often.
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

impl Rest {
    /// The page was asked for and is not over.
    fn waits(&mut self, page: u64) {
        self.waiting.insert(page);
        self.next = self.next.max(page.saturating_add(1));
    }

    fn over(&mut self, page: u64) {
        self.waiting.remove(&page);
        self.next = self.next.max(page.saturating_add(1));
    }
}
