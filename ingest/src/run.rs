//! The running of ingest: the fetching thread, and beside it capture and publish.
//!
//! Fetching keeps one request at a time: the ledger says which page, the client asks for it, the
//! landing writes it, and what fails goes back to the ledger with a wait. Invariants: trouble that
//! passes (API, database or network away) never ends a run; wrong configuration does, at once. A
//! page's claim is renewed for as long as something is done about the page. An answer that came
//! and cannot be read is asked for again [`Fetch::tries`](crate::config::Fetch::tries) times; then
//! its page fails for good, unless no page can be read: that is trouble of the API, which passes.
//! So is a refusal of every page, where the API has given some before.
//!
//! A run that [ends](once) when what is due is fetched and published gives up instead of waiting
//! for an API.

mod once;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use tidemill_log::dead_letter::{DeadLetter, Source, Stage};
use tidemill_log::failpoint;
use tidemill_log::health::Role;

use crate::config::{Feed, Pipeline, Tick, check_url};
use crate::database::{LEASE, RENEW};
use crate::fetch::{Backoff, Client, Failure, Page, pause};
use crate::land::Landing;
use crate::letters::Letters;
use crate::publish::StreamOptions;
use crate::schedule::{Claim, Ledger, Next};
use crate::stats::Stats;
use crate::{Error, Kind, Result, land, schedule};

pub use once::{Once, once};

/// How many pages the API may refuse in a row before it is the API that refuses, and no page: then
/// the run ends, or waits where the API has given pages before.
const REFUSED_IN_A_ROW_MAX: u32 = 3;
/// Who reports on the API.
const FETCH: &str = "fetch";
/// How long the API may take to answer before it counts as down.
const API_WAIT: Duration = Duration::from_secs(10);
/// Who reports on the database.
const LAND: &str = "land";
/// The same, of whoever waits until all is published.
const CAPTURED: &str = "captured";
/// The most bytes of an answer that a dead letter keeps.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// How long fetching sleeps at most without looking at the ledger.
const IDLE_MAX: Duration = Duration::from_secs(1);
/// Waits while the database is away.
const DATABASE_BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(200),
    max: Duration::from_secs(10),
};

/// The way on after a page failed for good.
const ASK_AGAIN: &str = "`tidemill dead-letters replay` asks for it again";

/// What to run, and on what.
#[derive(Debug, Clone)]
pub struct Options {
    /// What to fetch, when, and where it lands.
    pub pipeline: Pipeline,
    /// The pipeline's name: of its ledger, its publication and its slot.
    pub name: String,
    /// `postgres://…` or `sqlite://FILE`.
    pub database: String,
    /// The log's URL.
    pub log: String,
    /// The registry's URL.
    pub registry: String,
    /// Another API than the pipeline's.
    pub api: Option<String>,
    /// Stop fetching when the table holds this many rows.
    pub until: Option<u64>,
    /// Begin the capture afresh.
    pub resnapshot: bool,
}

/// Runs all of ingest until `stop` is set. When fetching is done, or there is nothing to fetch, the
/// capture goes on; an error of either ends both.
pub fn run(options: Options, stats: Arc<Stats>, stop: Arc<AtomicBool>) -> Result<()> {
    std::thread::scope(|scope| {
        let fetching = std::thread::Builder::new()
            .name("tidemill-fetch".into())
            .spawn_scoped(scope, || stopping(&stop, fetch(&options, &stats, &stop)))
            .map_err(|error| Error::with_source(Kind::Retry, "no thread for fetching", error))?;
        let published = stopping(&stop, publish(&options, &stats, &stop));
        let fetched = fetching.join().unwrap_or_else(|_| {
            stop.store(true, Ordering::Relaxed);
            Err(Error::new(Kind::Bug, "the fetching thread panicked"))
        });
        fetched.and(published)
    })
}

/// Captures and publishes until `stop` is set.
fn publish(options: &Options, stats: &Arc<Stats>, stop: &Arc<AtomicBool>) -> Result<()> {
    // Opening the landing makes its table: only a table that is there can be captured.
    if let Some(feed) = &options.pipeline.feed {
        while_away(stop, stats, |_| {
            land::open(&options.database, &feed.land).map(drop)
        })?;
    }
    for seed in &options.pipeline.seeds {
        while_away(stop, stats, |_| land::seed(&options.database, seed))?;
    }
    let streaming = StreamOptions {
        database: options.database.clone(),
        tables: options.pipeline.tables(),
        name: options.name.clone(),
        log: options.log.clone(),
        registry: options.registry.clone(),
        naming: options.pipeline.publish.naming(),
        partitions: options.pipeline.publish.partitions,
        compatibility: options.pipeline.publish.compatibility,
        resnapshot: options.resnapshot,
    };
    crate::publish::stream(streaming, Arc::clone(stats), Arc::clone(stop))
}

/// Sets `stop` when the result is an error.
fn stopping(stop: &AtomicBool, result: Result<()>) -> Result<()> {
    if result.is_err() {
        stop.store(true, Ordering::Relaxed);
    }
    result
}

/// Fetches as [`Options::pipeline`] says, until the range is done, [`Options::until`] is reached,
/// or `stop` is set; at once done when the pipeline has nothing to fetch.
pub fn fetch(options: &Options, stats: &Stats, stop: &AtomicBool) -> Result<()> {
    fetching(options, stats, stop, |it| it.until_done())
}

/// Does `work` with what fetches, again while the database is away.
fn fetching(
    options: &Options,
    stats: &Stats,
    stop: &AtomicBool,
    mut work: impl FnMut(&mut Fetching<'_>) -> Result<()>,
) -> Result<()> {
    let Some(feed) = &options.pipeline.feed else {
        return Ok(());
    };
    let mut asked = feed.fetch.clone();
    if let Some(api) = &options.api {
        check_url(api).map_err(|why| Error::new(Kind::Data, why))?;
        asked.url.clone_from(api);
    }
    let client = Client::new(&asked)?;
    while_away(stop, stats, |away| {
        let mut fetching = Fetching::open(options, feed, &client, stats, stop)?;
        stats.health.up(Role::Database, LAND);
        *away = 0;
        work(&mut fetching)
    })
}

/// Does `work` again while the database is away. `work` sets its argument to 0 when it got through.
fn while_away(
    stop: &AtomicBool,
    stats: &Stats,
    mut work: impl FnMut(&mut u32) -> Result<()>,
) -> Result<()> {
    let mut away = 0u32;
    while !stop.load(Ordering::Relaxed) {
        let outcome = work(&mut away);
        stats.health.note(Role::Database, LAND, &outcome);
        match outcome {
            Err(error)
                if error.kind() == Kind::Retry || error.is_refused() && stats.is_capturing() =>
            {
                away = away.saturating_add(1);
                let wait = DATABASE_BACKOFF.wait(away);
                let (error, wait_ms) = (error.to_string(), wait.as_millis());
                tracing::warn!(error, wait_ms, "database is away, trying again");
                pause(wait, stop);
            }
            ended => return ended,
        }
    }
    Ok(())
}

/// Does `work` on a claim's page and renews the claim meanwhile.
fn renewed<T>(ledger: &mut dyn Ledger, claim: &Claim, work: impl FnOnce() -> T) -> Result<T> {
    let (working, done) = mpsc::channel::<()>();
    let renew = move || {
        while done.recv_timeout(RENEW) == Err(RecvTimeoutError::Timeout) {
            // A claim that is lost meanwhile does not land.
            if let Err(error) = ledger.renew(claim) {
                tracing::debug!(%error, page = claim.page, "claim not renewed");
            }
        }
    };
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("tidemill-claim".into())
            .spawn_scoped(scope, renew)
            .map_err(|error| Error::with_source(Kind::Retry, "no thread for a claim", error))?;
        let worked = work();
        drop(working);
        Ok(worked)
    })
}

/// One connection's worth of fetching.
struct Fetching<'a> {
    client: &'a Client,
    ledger: Box<dyn Ledger>,
    landing: Box<dyn Landing>,
    letters: Letters<'a>,
    backoff: Backoff,
    until: Option<u64>,
    tick: &'a Tick,
    tries: u32,
    /// Whether the pipeline asks for a range of pages.
    is_range: bool,
    refused_in_a_row: u32,
    /// The highest page that was refused; only one behind it shows that the API goes on.
    refused_page: u64,
    /// Pages that this run could read, and of each page that it could not: their number when it
    /// failed first.
    readable: u64,
    unreadable: BTreeMap<u64, u64>,
    /// How often each page failed that waits for another attempt, in a run that gives up; none in
    /// one that waits.
    tried: Option<BTreeMap<u64, u32>>,
    stats: &'a Stats,
    stop: &'a AtomicBool,
}

impl<'a> Fetching<'a> {
    fn open(
        options: &'a Options,
        feed: &'a Feed,
        client: &'a Client,
        stats: &'a Stats,
        stop: &'a AtomicBool,
    ) -> Result<Self> {
        let Feed {
            schedule: when,
            fetch,
            land,
        } = feed;
        Ok(Self {
            client,
            ledger: schedule::open(&options.database, &options.name, when, LEASE)?,
            landing: land::open(&options.database, land)?,
            letters: Letters::new(&options.log, &options.name, stop),
            backoff: Backoff {
                first: fetch.backoff,
                max: fetch.backoff_max,
            },
            until: options.until,
            tick: &when.tick,
            tries: fetch.tries,
            is_range: when.last_page.is_some(),
            refused_in_a_row: 0,
            refused_page: 0,
            readable: 0,
            unreadable: BTreeMap::new(),
            tried: None,
            stats,
            stop,
        })
    }

    /// Whether as much is landed as [`Options::until`] asks for.
    fn is_enough(&mut self) -> Result<bool> {
        Ok(match self.until {
            Some(until) => self.landing.total()? >= until,
            None => false,
        })
    }

    fn until_done(&mut self) -> Result<()> {
        while !self.stop.load(Ordering::Relaxed) {
            if self.is_enough()? {
                return Ok(());
            }
            match self.ledger.next()? {
                Next::Finished => return self.finished(),
                Next::Idle(wait) | Next::AtEnd(wait) => pause(wait.min(IDLE_MAX), self.stop),
                Next::Fetch(claim) => {
                    self.take(&claim)?;
                }
            }
        }
        Ok(())
    }

    /// Fetches a page and lands it. Says whether it is over with the page: it landed, or it failed
    /// for good.
    fn take(&mut self, claim: &Claim) -> Result<bool> {
        failpoint::hit(failpoint::LAND_AFTER_CLAIM);
        let client = self.client;
        self.stats.health.asks(Role::Api, FETCH, API_WAIT);
        let fetch = || client.page(claim.page);
        match renewed(self.ledger.as_mut(), claim, fetch)? {
            Ok(page) => self.land(claim, &page),
            Err(failure) => self.failed(claim, failure),
        }
    }

    /// Says what came of all pages.
    fn finished(&mut self) -> Result<()> {
        let tally = self.ledger.tally()?;
        let last = tally.last;
        tracing::info!(
            last,
            "fetching is done: the list or the range is at its end"
        );
        if tally.failed > 0 {
            let pages = tally.failed;
            tracing::error!(pages, "pages that failed for good are missing; {ASK_AGAIN}");
        }
        Ok(())
    }

    fn land(&mut self, claim: &Claim, page: &Page) -> Result<bool> {
        if claim.page > self.refused_page {
            self.refused_in_a_row = 0;
        }
        self.stats.health.up(Role::Api, FETCH);
        self.readable += 1;
        self.unreadable.remove(&claim.page);
        Stats::add(&self.stats.pages, 1);
        Stats::add(&self.stats.fetched, page.records.len() as u64);
        let (letters, landing, until) = (&mut self.letters, &mut self.landing, self.until);
        let mut aside = |refused: &[land::Refused]| letters.write(&unfit(page, refused));
        let land = || landing.land(claim, page, until, &mut aside);
        match renewed(self.ledger.as_mut(), claim, land)? {
            Ok(landed) => {
                Stats::add(&self.stats.landed, landed.rows());
                Stats::add(&self.stats.changed, landed.inserted + landed.updated);
                Stats::add(&self.stats.dead_letters, landed.refused);
                if landed.refused > 0 {
                    let (records, url) = (landed.refused, &page.url);
                    tracing::warn!(records, url, "records put aside as dead letters");
                }
                Ok(true)
            }
            Err(error) if error.kind() == Kind::Fence => {
                tracing::warn!(%error, "page not landed");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn failed(&mut self, claim: &Claim, failure: Failure) -> Result<bool> {
        let text = failure.error.to_string();
        self.stats.health.down(Role::Api, FETCH, &text);
        let tries = claim.failures.saturating_add(1);
        let passes = match failure.unreadable {
            true => self.may_be_read_later(claim, tries)?,
            false => failure.error.kind() == Kind::Retry || self.refuses_all()?,
        };
        if passes {
            Stats::add(&self.stats.retries, 1);
            self.give_up(claim, &failure.error)?;
            let asked_for = failure.retry_after;
            let wait = asked_for.unwrap_or_else(|| self.backoff.wait(tries));
            let (page, wait_ms) = (claim.page, wait.as_millis());
            tracing::warn!(page, wait_ms, error = text, "page failed, trying again");
            self.ledger.retry(claim, wait, &text)?;
            if asked_for.is_some() {
                // The API wants to be left alone altogether, not only for this page.
                pause(wait, self.stop);
            }
            return Ok(false);
        }
        tracing::error!(
            page = claim.page,
            tries,
            error = text,
            "page failed for good; {ASK_AGAIN}"
        );
        self.put_aside(claim, &text, failure.body)?;
        self.refused_in_a_row += 1;
        self.refused_page = self.refused_page.max(claim.page);
        if self.refused_in_a_row >= REFUSED_IN_A_ROW_MAX {
            let kind = Kind::Data;
            return Err(Error::with_source(kind, text, failure.error));
        }
        Ok(true)
    }

    /// Whether the API, which has given pages before, refuses all of them now.
    fn refuses_all(&mut self) -> Result<bool> {
        let in_a_row = self.refused_in_a_row + 1;
        Ok(in_a_row >= REFUSED_IN_A_ROW_MAX && !self.is_range && self.ledger.tally()?.landed)
    }

    /// Whether a page whose answer could not be read is asked for again.
    fn may_be_read_later(&mut self, claim: &Claim, tries: u32) -> Result<bool> {
        let readable = self.readable;
        let before = *self.unreadable.entry(claim.page).or_insert(readable);
        if tries < self.tries {
            return Ok(true);
        }
        // When other pages can be read it is this one; when none can, and it was otherwise
        // before, it is the API. A range may have no other pages.
        let is_api = before == readable && !self.is_range && self.ledger.tally()?.landed;
        if is_api {
            tracing::error!(
                page = claim.page,
                "no page of the API can be read since this one could not"
            );
        } else {
            self.unreadable.remove(&claim.page);
        }
        Ok(is_api)
    }

    /// Ends a claim for good, with a dead letter.
    fn put_aside(&mut self, claim: &Claim, why: &str, body: Option<Vec<u8>>) -> Result<()> {
        let (mut reason, mut value) = (why.to_owned(), body);
        if let Some(body) = value.as_mut().filter(|body| body.len() > ANSWER_BYTES_MAX) {
            reason = format!(
                "{why} (the first {ANSWER_BYTES_MAX} of {} bytes)",
                body.len()
            );
            body.truncate(ANSWER_BYTES_MAX);
        }
        let letter = DeadLetter {
            stage: Stage::Fetch,
            at_ms: jiff::Timestamp::now().as_millisecond(),
            source: Source::Page {
                url: self.client.url(claim.page)?,
                page: claim.page,
            },
            reason,
            key: None,
            value,
        };
        let letters = &mut self.letters;
        renewed(self.ledger.as_mut(), claim, || letters.write(&[letter]))??;
        Stats::add(&self.stats.dead_letters, 1);
        Stats::add(&self.stats.failed_pages, 1);
        self.ledger.fail(claim, why)
    }
}

/// The dead letters of a page's records.
fn unfit(page: &Page, refused: &[land::Refused]) -> Vec<DeadLetter> {
    let letter = |refused: &land::Refused| DeadLetter {
        stage: Stage::Land,
        at_ms: jiff::Timestamp::now().as_millisecond(),
        source: Source::Page {
            url: page.url.clone(),
            page: page.number,
        },
        reason: refused.reason.clone(),
        key: None,
        value: Some(refused.raw.clone().into_bytes()),
    };
    refused.iter().map(letter).collect()
}
