//! The ingest process: a thread that fetches and lands, and one that captures and publishes.
//!
//! Fetching handles one page at a time: the ledger names the page, the client requests it, the
//! landing writes it. A page that failed goes back to the ledger with a wait.
//!
//! ```text
//! ledger.next ─► claim ─► fetch ─┬─ page ──────────► land: rows and the claim's end, one commit
//!                                ├─ error passes ──► ledger.retry(wait), same page later
//!                                └─ refused ───────► dead letter, ledger.fail; 3 in a row: the API
//! ```
//!
//! Invariants:
//! 1. An outage of API, database or network never ends a run. A wrong configuration ends it at
//!    once.
//! 2. The claim of a page is renewed as long as work on the page continues.
//! 3. A page whose answer cannot be read is requested [`Fetch::tries`](crate::config::Fetch::tries)
//!    times and then fails for good; unless no page can be read, which is an outage of the API. The
//!    same holds when the API refuses every page and has given some before.
//!
//! A run that ends as soon as everything due is fetched and published (`once`) does not wait for an
//! API.

mod once;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use jiff::Timestamp;
use tidemill_log::backoff::{Backoff, sleep};
use tidemill_log::failpoint;
use tidemill_log::health::Role;
use tidemill_log::log::dead_letter::{DeadLetter, Source, Stage};

use crate::config::{Feed, Pipeline, Tick, check_url};
use crate::database::{LEASE, RENEW};
use crate::fetch::{Client, Failure, Page};
use crate::land::Landing;
use crate::land::letters::Letters;
use crate::publish::StreamOptions;
use crate::schedule::{Claim, Ledger, Next};
use crate::stats::Stats;
use crate::{Error, Kind, Result, land, schedule};

pub use once::{Once, once};

/// Number of refused pages in a row from which on the cause is not the pages but the access to the
/// API: the run ends, or waits if the API has given pages before.
const REFUSED_IN_A_ROW_MAX: u32 = 3;
/// Name of the reporter of the API's health.
const FETCH: &str = "fetch";
/// Timeout after which an API without an answer counts as down.
const API_WAIT: Duration = Duration::from_secs(10);
/// Name of the reporter of the database's health.
const LAND: &str = "land";
/// Name of the reporter of the database's health while a run waits for its end.
const CAPTURED: &str = "captured";
/// Largest number of bytes of an answer that a dead letter keeps.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Longest sleep of the fetching thread between two looks at the ledger.
const IDLE_MAX: Duration = Duration::from_secs(1);
/// Backoff while the database cannot be reached.
const DATABASE_BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));

/// Remedy for a page that failed for good.
const ASK_AGAIN: &str = "`tidemill dead-letters replay` asks for it again";

/// What to run, and with which services.
#[derive(Debug, Clone)]
pub struct Options {
    /// The configuration.
    pub pipeline: Pipeline,
    /// The pipeline's name, which names its ledger, publication and slot.
    pub name: String,
    /// URL of the database: `postgres://…` or `sqlite://FILE`.
    pub database: String,
    /// URL of the log.
    pub log: String,
    /// URL of the registry.
    pub registry: String,
    /// URL of another API instead of the pipeline's.
    pub api: Option<String>,
    /// Stop fetching when the table holds this many rows.
    pub until: Option<u64>,
    /// Discard the capture's progress and begin with a snapshot.
    pub resnapshot: bool,
}

/// Runs the whole ingest until `stop` is set. When fetching has ended, or there is nothing to
/// fetch, the capture continues. An error of either thread ends both.
///
/// # Errors
/// That of fetching ([`fetch`]), or else that of publishing ([`crate::publish::stream`]).
pub fn run(options: Options, stats: Arc<Stats>, stop: Arc<AtomicBool>) -> Result<()> {
    std::thread::scope(|scope| {
        let fetching = std::thread::Builder::new()
            .name("tidemill-fetch".into())
            .spawn_scoped(scope, || {
                stop_on_error(&stop, fetch_on(&options, &stats, &stop))
            })
            .map_err(|error| Error::with_source(Kind::Retry, "no thread for fetching", error))?;
        let published = stop_on_error(&stop, publish(&options, &stats, &stop));
        let fetched = fetching.join().unwrap_or_else(|_| {
            stop.store(true, Ordering::Relaxed);
            Err(Error::new(Kind::Bug, "the fetching thread panicked"))
        });
        fetched.and(published)
    })
}

/// Captures and publishes until `stop` is set.
fn publish(options: &Options, stats: &Arc<Stats>, stop: &Arc<AtomicBool>) -> Result<()> {
    // Opening the landing creates its table; only an existing table can be captured.
    if let Some(feed) = &options.pipeline.feed {
        retry_while_unreachable(stop, stats, |_| {
            land::open(&options.database, &feed.land).map(drop)
        })?;
    }
    for seed in &options.pipeline.seeds {
        retry_while_unreachable(stop, stats, |_| land::seed(&options.database, seed))?;
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
fn stop_on_error(stop: &AtomicBool, result: Result<()>) -> Result<()> {
    if result.is_err() {
        stop.store(true, Ordering::Relaxed);
    }
    result
}

/// Fetches and lands pages until the range is done, [`Options::until`] is reached, or `stop` is
/// set. Returns at once when the pipeline has nothing to fetch.
///
/// # Errors
/// `Data` when the configuration is wrong, the table does not match, or the API refuses several
/// pages in a row.
pub fn fetch(options: &Options, stats: &Stats, stop: &AtomicBool) -> Result<()> {
    with_fetcher(options, stats, stop, |it| it.until_done())
}

/// The same, but goes on when the range is done, for pages that somebody requests then.
fn fetch_on(options: &Options, stats: &Stats, stop: &AtomicBool) -> Result<()> {
    with_fetcher(options, stats, stop, |it| {
        it.stays = true;
        it.until_done()
    })
}

/// Runs `work` with an open ledger and landing; again when the database could not be reached.
fn with_fetcher(
    options: &Options,
    stats: &Stats,
    stop: &AtomicBool,
    mut work: impl FnMut(&mut Fetcher<'_>) -> Result<()>,
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
    retry_while_unreachable(stop, stats, |backoff| {
        let mut fetcher = Fetcher::open(options, feed, &client, stats, stop)?;
        stats.health.up(Role::Database, LAND);
        backoff.reset();
        work(&mut fetcher)
    })
}

/// Runs `work` again as long as the database cannot be reached. `work` resets the backoff when it
/// succeeded in connecting.
fn retry_while_unreachable(
    stop: &AtomicBool,
    stats: &Stats,
    mut work: impl FnMut(&mut Backoff) -> Result<()>,
) -> Result<()> {
    let mut backoff = DATABASE_BACKOFF;
    while !stop.load(Ordering::Relaxed) {
        let outcome = work(&mut backoff);
        stats.health.note(Role::Database, LAND, &outcome);
        match outcome {
            Err(error)
                if error.kind() == Kind::Retry || error.is_refused() && stats.is_capturing() =>
            {
                let wait = backoff.pause();
                let (error, wait_ms) = (error.to_string(), wait.as_millis());
                tracing::warn!(error, wait_ms, "database is away, trying again");
                sleep(wait, stop);
            }
            ended => return ended,
        }
    }
    Ok(())
}

/// Runs `work` for a claim's page while a thread renews the claim.
fn renewed<T>(ledger: &mut dyn Ledger, claim: &Claim, work: impl FnOnce() -> T) -> Result<T> {
    let (working, done) = mpsc::channel::<()>();
    let renew = move || {
        while done.recv_timeout(RENEW) == Err(RecvTimeoutError::Timeout) {
            // A page whose claim is lost does not land.
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

/// The state of fetching, for the life of one database connection.
struct Fetcher<'a> {
    /// Requests pages.
    client: &'a Client,
    /// Knows which page is due.
    ledger: Box<dyn Ledger>,
    /// Writes pages.
    landing: Box<dyn Landing>,
    /// Writes dead letters.
    letters: Letters<'a>,
    /// Backoff of a page.
    backoff: Backoff,
    /// See [`Options::until`].
    until: Option<u64>,
    /// The pipeline's schedule.
    tick: &'a Tick,
    /// See [`Fetch::tries`](crate::config::Fetch::tries).
    tries: u32,
    /// Whether the run goes on when every page of the range is done, for pages that somebody
    /// requests then.
    stays: bool,
    /// Whether the pipeline has a `last_page`.
    is_range: bool,
    /// Number of pages that were refused without a later one that landed.
    refused_in_a_row: u32,
    /// The highest refused page. Only a page after it shows that the API works.
    refused_page: u64,
    /// Number of pages that this run could read.
    readable: u64,
    /// For each page that could not be read: the value of `readable` when that began.
    unreadable: BTreeMap<u64, u64>,
    /// In a run that ends: how often each waiting page failed. `None` in a run that waits.
    tried: Option<BTreeMap<u64, u32>>,
    /// The statistics.
    stats: &'a Stats,
    /// Ends the run.
    stop: &'a AtomicBool,
}

impl<'a> Fetcher<'a> {
    /// Opens ledger and landing.
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
            backoff: Backoff::new(fetch.backoff, fetch.backoff_max),
            until: options.until,
            tick: &when.tick,
            tries: fetch.tries,
            stays: false,
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

    /// Whether the table holds as many rows as [`Options::until`] asks for.
    fn is_enough(&mut self) -> Result<bool> {
        Ok(match self.until {
            Some(until) => self.landing.total()? >= until,
            None => false,
        })
    }

    /// Fetches what becomes due, until everything is done.
    fn until_done(&mut self) -> Result<()> {
        let mut is_finished = false;
        while !self.stop.load(Ordering::Relaxed) {
            if self.is_enough()? {
                return Ok(());
            }
            let next = self.ledger.next()?;
            if !matches!(next, Next::Paused(_)) {
                self.stats.pause(None);
            }
            match next {
                Next::Finished if !self.stays => return self.finished(),
                // Somebody may request pages again.
                Next::Finished => {
                    if !is_finished {
                        self.finished()?;
                        is_finished = true;
                    }
                    sleep(IDLE_MAX, self.stop);
                }
                Next::Paused(since) => self.pause(since),
                Next::Idle(wait) | Next::AtEnd(wait) => sleep(wait.min(IDLE_MAX), self.stop),
                Next::Fetch(claim) => {
                    is_finished = false;
                    self.take(&claim)?;
                }
            }
        }
        Ok(())
    }

    /// Waits a moment in a pause.
    fn pause(&self, since: Timestamp) {
        if self.stats.pause(u64::try_from(since.as_millisecond()).ok()) {
            tracing::info!("fetching is paused since {since:.0}");
        }
        sleep(IDLE_MAX, self.stop);
    }

    /// Fetches and lands a page. True when the page is over: it landed or failed for good.
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

    /// Logs the result of all pages.
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

    /// Lands a page. False when its claim was lost.
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
                tracing::warn!(%error, "the page did not land: its claim was lost");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Handles a page that could not be fetched: retry, or failure for good with a dead letter.
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
            let wait = asked_for.unwrap_or_else(|| self.backoff.after(tries).pause());
            let (page, wait_ms) = (claim.page, wait.as_millis());
            tracing::warn!(page, wait_ms, error = text, "page failed, trying again");
            self.ledger.retry(claim, wait, &text)?;
            if asked_for.is_some() {
                // `Retry-After` is meant for all requests, not only for this page.
                sleep(wait, self.stop);
            }
            return Ok(false);
        }
        tracing::error!(
            page = claim.page,
            tries,
            error = text,
            "page failed for good; {ASK_AGAIN}"
        );
        self.end_with_dead_letter(claim, &text, failure.body)?;
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

    /// Whether a page whose answer could not be read is requested again.
    fn may_be_read_later(&mut self, claim: &Claim, tries: u32) -> Result<bool> {
        let readable = self.readable;
        let before = *self.unreadable.entry(claim.page).or_insert(readable);
        if tries < self.tries {
            return Ok(true);
        }
        // If other pages can be read, this page is the problem. If none can, and some could before,
        // the API is. A range may have no other pages.
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
    fn end_with_dead_letter(
        &mut self,
        claim: &Claim,
        why: &str,
        body: Option<Vec<u8>>,
    ) -> Result<()> {
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

/// The dead letters of records that do not fit the table.
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
