//! The ledger of a job's ingest: which pages were due, what became of each, and what people ask of
//! the fetcher ([`requests`]).

pub(crate) mod requests;

use std::time::Duration;

use serde::Serialize;
use tidemill_ingest::config::Tick;
use tidemill_ingest::schedule;

use crate::Inspected;
use crate::refusal::Answer;

/// Limit of pages in an answer; the newest ones are in it.
const RUNS_MAX: u32 = 500;
/// The lease that a claim would have. Nothing is claimed here.
const LEASE: Duration = Duration::from_secs(30);

/// The newest pages of a ledger.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Runs {
    /// Whether the pipeline fetches anything.
    fetches: bool,
    /// Since when fetching is paused, in ms since 1970.
    paused_ms: Option<i64>,
    /// The first page of the pipeline, and the last one if it has one.
    first_page: u64,
    last_page: Option<u64>,
    /// Time between two pages, in ms; absent with a cron pattern.
    every_ms: Option<u64>,
    /// The pages, the newest first.
    runs: Vec<Run>,
}

/// One page.
#[derive(Debug, Serialize)]
struct Run {
    /// Its number.
    page: u64,
    /// When it was due, in ms since 1970.
    due_ms: i64,
    /// When it landed or failed, in ms since 1970.
    finished_ms: Option<i64>,
    /// `claimed`, `retry`, `short`, `done` or `failed`.
    state: String,
    /// Attempts.
    attempts: u32,
    /// Records that landed.
    records: Option<u64>,
    /// The error of the last attempt.
    error: Option<String>,
}

/// The newest pages of the job's ledger.
///
/// # Errors
/// The database does not answer.
pub(crate) fn runs(job: &Inspected) -> Answer<Runs> {
    let Some(feed) = job
        .folder
        .ingest_if_any()?
        .and_then(|pipeline| pipeline.feed)
    else {
        return Ok(Runs::default());
    };
    let database = &job.connections.database;
    let when = &feed.schedule;
    let mut ledger = schedule::open(database, &job.name, when, LEASE)?;
    let paused = schedule::requests::open(database, &job.name, when)?.paused()?;
    let every = match &when.tick {
        Tick::Every(every) => u64::try_from(every.as_millis()).ok(),
        Tick::Cron(_) => None,
    };
    let runs = ledger.history(RUNS_MAX)?.into_iter().map(|run| Run {
        page: run.page,
        due_ms: run.due_at.as_millisecond(),
        finished_ms: run.finished_at.map(|at| at.as_millisecond()),
        state: run.state,
        attempts: run.attempts,
        records: run.records,
        error: run
            .error
            .map(|error| tidemill_protocol::redact::text(&error).into_owned()),
    });
    Ok(Runs {
        fetches: true,
        paused_ms: paused.map(|at| at.as_millisecond()),
        first_page: when.first_page,
        last_page: when.last_page,
        every_ms: every,
        runs: runs.collect(),
    })
}
