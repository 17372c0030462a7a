//! The command `ingest`, and the parts that `run` shares with it, such as the choice of the API to
//! fetch from.
//!
//! ```text
//! flags or Begin ─► connections ─► API (built-in or real) ─► lease ─► probes ─► run, or once
//! ```
//!
//! As the child of a worker (`--orders`) the process gets its name and generation from the worker,
//! and tells it heartbeats. Otherwise a lease keeps a second ingest from capturing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use tidemill_config::args::{FetchArgs, IngestArgs, NameArgs};
use tidemill_config::connections::Connections;
use tidemill_config::pipeline::Folder;
use tidemill_config::{lease, probe};
use tidemill_ingest::config::{Pipeline, Tick};
use tidemill_ingest::run;
use tidemill_ingest::run::{Once, Options};
use tidemill_ingest::stats::Stats;
use tidemill_inspect::{Inspected, Later};
use tidemill_logs::logging;
use tidemill_logs::logging::Origin;
use tidemill_protocol::exit::{Incomplete, NotYet, Usage};
use tidemill_protocol::{FromChild, Part, ProcessKey, exit, output, redact};
use tidemill_randomuser::Server;
use tidemill_web::{self, Shown};

use crate::child;

/// The host whose API the built-in server replaces.
const BUILT_IN_FOR: &str = "randomuser.me";

/// Time between two progress lines in the log.
const PROGRESS: Duration = Duration::from_secs(10);

/// Time between two pages from the built-in server, which needs no rate limit.
const BUILT_IN_EVERY: Duration = Duration::from_millis(250);

/// How often the progress thread checks whether the ingest has ended.
const WAIT: Duration = Duration::from_millis(100);

/// Runs the ingest of a pipeline until it is stopped, or with `--once` until everything due is
/// published.
///
/// # Errors
///
/// * [`Usage`] (exit code 2): a flag or a connection is wrong.
/// * [`exit::PeerLost`] (exit code 3): the worker that started this process is gone.
/// * [`exit::Held`] (exit code 5): another process runs the ingest.
/// * [`NotYet`] (exit code 6) and [`Incomplete`] (exit code 7): see [`once`].
/// * The pipeline or a service is wrong (exit code 1).
pub(crate) fn run(args: &IngestArgs) -> anyhow::Result<()> {
    let stop = exit::stop_on_signal()?;
    let stats = Arc::new(Stats::default());
    let inspected = Later::default();
    let (name, generation) = match args.orders {
        true => {
            let (begin, _orders) = child::begin(Part::Ingest, &stop)?;
            let (name, generation) = (begin.key.job.clone(), begin.key.generation);
            child::beat(&begin.host, shown(begin.key, &stats, &inspected))?;
            (NameArgs { name: Some(name) }, Some(generation))
        }
        false => (args.name.clone(), None),
    };
    let folder = Folder::open(&args.pipeline)?.named(&name);
    let connections = Connections::resolve(&args.connections, folder.path())?;
    let origin = Origin {
        job: Some(&folder.name),
        part: "ingest",
        process: 0,
        generation,
    };
    logging::start(&args.log, "info", &origin)?;
    exit::exit_on_panic();
    let alone = ProcessKey {
        job: folder.name.clone(),
        part: Part::Ingest,
        generation: 0,
        index: 0,
    };
    tidemill_web::process(&args.http, || shown(alone, &stats, &inspected))?;
    let shows = Inspected::new(&folder.name, &folder, &connections, None, Some(&stats));
    // Nobody else sets the value.
    let _ = inspected.set(shows);
    let mut pipeline = folder.ingest()?;
    for (stage, url) in connections.described().iter().take(3) {
        tracing::info!(stage, url, "connection");
    }
    let api = Api::choose(&mut pipeline, &args.fetch)?;
    tracing::info!("{}", api.said);
    // Children of a master's workers take over from one another by their generations.
    let place = lease::LeaseKey::ingest(&folder.name, &connections.database)?;
    let is_file = connections.database.starts_with("sqlite://");
    // With `--once` another ingest may run: it then captures, and this process only fetches.
    if !args.orders && (is_file || !args.once) {
        free(&place, is_file, args.take_over)?;
    }
    let _lease = place.take()?;
    let options = options(
        &folder.name,
        pipeline,
        &connections,
        &args.fetch,
        &api,
        args.until,
    );
    let asked = api_of(&options);
    probe::ingest(&connections, &folder.name, asked.as_deref(), &stats);
    child::tell(FromChild::Live);
    let ended = Arc::new(AtomicBool::new(false));
    let progress = {
        let (stats, ended) = (Arc::clone(&stats), Arc::clone(&ended));
        thread::Builder::new().spawn(move || log_progress(&stats, &ended))?
    };
    let outcome = match args.once {
        true => once(args, &options, &stats, &stop),
        false => run::run(options, Arc::clone(&stats), stop).map_err(Into::into),
    };
    ended.store(true, Relaxed);
    // The thread only reads counters and logs. A panic would have ended the process.
    let _ = progress.join();
    outcome
}

/// Refuses to run beside another process, unless the flags allow it.
///
/// # Errors
/// [`exit::Held`]: another process runs the ingest.
fn free(place: &lease::LeaseKey, is_file: bool, take_over: bool) -> anyhow::Result<()> {
    let instead = match is_file {
        // Two captures of one SQLite file would publish the same changes.
        true => Some("stop that one first: one SQLite file takes one ingest at a time"),
        false if take_over => None,
        false => Some(
            "stop that one first, or start this one with --standby: then the two share the \
             fetching, and this one captures when that one ends",
        ),
    };
    instead.map_or(Ok(()), |instead| place.free(instead))
}

/// The result of `--once`: the last line on stdout, as JSON.
#[derive(Serialize)]
struct Told {
    /// Pages that were fetched, and pages that failed for good.
    pages: u64,
    /// Pages that failed for good.
    failed_pages: u64,
    /// Records in those pages; of these the ones that are rows now; of these the ones that are new
    /// or changed.
    fetched: u64,
    /// Of the fetched records, those that are rows now.
    landed: u64,
    /// Of the landed records, those that are new or changed their row.
    changed: u64,
    /// Records that this process put aside as dead letters.
    dead: u64,
    /// Changes that this process published; 0 if another process captures.
    published: u64,
    /// The position after everything: `tidemill wait --lsn` takes it.
    lsn: String,
}

/// Fetches and publishes everything that is due, and prints the result.
///
/// # Errors
///
/// * [`NotYet`] (exit code 6): stopped before everything was published.
/// * [`Incomplete`] (exit code 7): pages failed for good.
///
/// The line on stdout is written also if pages failed, so a scheduler can read it.
fn once(
    args: &IngestArgs,
    options: &Options,
    stats: &Arc<Stats>,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<()> {
    let what = Once {
        pages: args.pages.clone(),
        refetch: args.refetch,
    };
    if what.pages.is_some() && options.pipeline.feed.is_none() {
        let why = "--pages: this pipeline captures tables and fetches nothing";
        return Err(Usage(why.to_owned()).into());
    }
    let Some(place) = run::once(options, &what, stats, stop)? else {
        let why = "stopped before everything was landed and published; started again it goes on";
        return Err(NotYet(why.to_owned()).into());
    };
    let count = |counter: &AtomicU64| counter.load(Relaxed);
    let told = Told {
        pages: count(&stats.pages),
        failed_pages: count(&stats.failed_pages),
        fetched: count(&stats.fetched),
        landed: count(&stats.landed),
        changed: count(&stats.changed),
        dead: count(&stats.dead_letters).saturating_sub(count(&stats.failed_pages)),
        published: count(&stats.published),
        lsn: place.to_string(),
    };
    output::line(&serde_json::to_string(&told)?);
    match told.failed_pages {
        0 => Ok(()),
        pages => Err(Incomplete(pages).into()),
    }
}

/// What the HTTP server and the heartbeat show of this process.
fn shown(key: ProcessKey, stats: &Arc<Stats>, inspected: &Later) -> Shown {
    Shown {
        ingest: Some(Arc::clone(stats)),
        inspected: Arc::clone(inspected),
        ..Shown::of(key)
    }
}

/// Logs the counters while they change.
///
/// At most one line in [`PROGRESS`].
fn log_progress(stats: &Stats, ended: &AtomicBool) {
    let mut last = ([0; 4], Instant::now());
    while !ended.load(Relaxed) {
        thread::sleep(WAIT);
        let counts = [
            &stats.fetched,
            &stats.landed,
            &stats.captured,
            &stats.published,
        ]
        .map(|counter| counter.load(Relaxed));
        if counts != last.0 && last.1.elapsed() >= PROGRESS {
            let [fetched, landed, captured, published] = counts;
            let dead_letters = stats.dead_letters.load(Relaxed);
            tracing::info!(
                fetched,
                landed,
                captured,
                published,
                dead_letters,
                "progress"
            );
            last = (counts, Instant::now());
        }
    }
}

/// The options of the ingest crate.
pub(crate) fn options(
    name: &str,
    pipeline: Pipeline,
    connections: &Connections,
    args: &FetchArgs,
    api: &Api,
    until: Option<u64>,
) -> Options {
    Options {
        pipeline,
        name: name.to_owned(),
        database: connections.database.clone(),
        log: connections.log.clone(),
        registry: connections.registry.clone(),
        api: api.url.clone(),
        until,
        resnapshot: args.resnapshot,
    }
}

/// The URL from which pages are fetched; `None` if the pipeline fetches nothing.
pub(crate) fn api_of(options: &Options) -> Option<String> {
    let feed = options.pipeline.feed.as_ref()?;
    Some(
        options
            .api
            .clone()
            .unwrap_or_else(|| feed.fetch.url.clone()),
    )
}

/// Whether the built-in server replaces this API.
///
/// `https://randomuser.me/api/` and `http://randomuser.me:80?x` are; `https://api.randomuser.me` is
/// not.
pub(crate) fn has_built_in(url: &str) -> bool {
    let host = url.split_once("://").map_or("", |(_, rest)| rest);
    host.split(['/', ':', '?']).next() == Some(BUILT_IN_FOR)
}

/// The API to fetch from. The built-in server runs until this is dropped.
pub(crate) struct Api {
    /// The URL in place of the pipeline's own, if it differs.
    pub(crate) url: Option<String>,
    /// Which API it is and how to use the other one, in a sentence.
    pub(crate) said: String,
    /// Dropping the server ends it.
    _server: Option<Server>,
}

impl Api {
    /// Chooses the API: `--api`, else for randomuser.me the built-in server, else the pipeline's
    /// own. Sets the pace to match.
    ///
    /// # Errors
    ///
    /// A flag does not fit the pipeline or contains a password ([`Usage`]).
    pub(crate) fn choose(pipeline: &mut Pipeline, args: &FetchArgs) -> anyhow::Result<Self> {
        let captured = pipeline.tables().join(", ");
        let Some(feed) = &mut pipeline.feed else {
            if args.api.is_some() || args.every.is_some() {
                let why = "--api, --every: this pipeline captures tables and fetches nothing";
                return Err(Usage(why.to_owned()).into());
            }
            return Ok(Self {
                url: None,
                said: format!("captured: {captured}"),
                _server: None,
            });
        };
        let real = feed.fetch.url.clone();
        let tick = &mut feed.schedule.tick;
        if let Some(every) = args.every {
            *tick = Tick::Every(every);
        }
        if let Some(given) = &args.api {
            redact::remember(given);
            if redact::holds_password(given) {
                let why = "everybody on this machine sees a password in a flag; give the URL in \
                           ingest.toml, as [fetch] url";
                let given = redact::url(given);
                return Err(Usage(format!("--api: `{given}`: {why}")).into());
            }
            if !given.starts_with("http://") && !given.starts_with("https://") {
                let given = redact::url(given);
                return Err(Usage(format!("--api: `{given}`: expected an URL as {real}")).into());
            }
            return Ok(Self::at(given, Some(given.clone()), tick));
        }
        if !has_built_in(&real) {
            return Ok(Self::at(&real, None, tick));
        }
        let real_pace = pace(tick);
        if args.every.is_none() && matches!(*tick, Tick::Every(every) if every > BUILT_IN_EVERY) {
            *tick = Tick::Every(BUILT_IN_EVERY);
        }
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = tidemill_randomuser::serve(any_port, tidemill_randomuser::Options::default())?;
        let url = server.url();
        let pace = pace(tick);
        let said = format!(
            "api: the built-in server at {url}, {pace}\n     \
             (the real one, {real_pace}: --api {real})"
        );
        Ok(Self {
            url: Some(url),
            said,
            _server: Some(server),
        })
    }

    /// An API that is not built in.
    ///
    /// `said` is the URL for the message, which is shown without secrets.
    fn at(said: &str, url: Option<String>, tick: &Tick) -> Self {
        let pace = pace(tick);
        Self {
            url,
            said: format!("api: {}, {pace}", redact::url(said)),
            _server: None,
        }
    }
}

/// How often a page is fetched, in words.
fn pace(tick: &Tick) -> String {
    match tick {
        Tick::Every(every) => format!("a page every {every:?}"),
        Tick::Cron(_) => "a page at each time of its cron pattern".to_owned(),
    }
}
