//! HTTP server of a process: liveness (`/healthz`), readiness (`/readyz`), metrics (`/metrics`),
//! and on the master and in `tidemill run` the control center.
//!
//! In: counters, read at the time of a request. Nothing can be changed over these routes, and
//! nothing shown is secret. `process_router`, [`worker_router`] and [`master_router`] are for
//! processes that already have a server; [`serve`] starts one. Clients cannot exhaust the process:
//! connections are limited, and silent ones are closed.
//!
//! | route | process of a job | worker | master |
//! |---|---|---|---|
//! | `/healthz` | 200 while the process lives | | |
//! | `/readyz` | 200 when it does its work, else 503 with the reasons as JSON | | |
//! | `/metrics` | its stages | its slots and processes | the cluster and all jobs |
//! | `POST /api/v1/jobs/NAME/readable` | [`readable`]: is it in every view? Needs the token | | |
//! | `/api/v1/jobs/NAME/…` | [`tidemill_inspect`]: what its services hold. Needs the token | | |
//! | `/`, `/app/…`, `/api/v1/…` | of `tidemill run`: the control center | | the control center |
//!
//! Workers and the master have further routes of their own. The server is HTTP/1.1 without TLS. It
//! runs on one thread of its own, so an answer never waits for a dataflow worker, and a slow client
//! never holds one up.

use std::fmt::Debug;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use api::Facts;
use api::alerts::Alerting;
use api::audit::{Audit, audited};
use api::session::{self, Session};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use readable::Later;
use serde::Serialize;
use tidemill_config::args::HttpArgs;
use tidemill_config::disk::Disk;
use tidemill_dataflow::job;
use tidemill_ingest::stats;
use tidemill_inspect::Inspected;
use tidemill_log::health::{Health, now_ms};
use tidemill_protocol::token::Token;
use tidemill_protocol::{DependencyStatus, NoticedStatus, Part, ProcessKey, Report, redact, token};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

pub mod api;
mod app;
mod cluster;
#[cfg(test)]
#[path = "../../tests/harness/browser.rs"]
mod driver;
#[cfg(test)]
#[path = "../../tests/harness/exposition.rs"]
mod exposition;
mod metrics;
#[cfg(test)]
mod pages;
mod process;
pub mod readable;
#[cfg(test)]
mod tests;

use metrics::Labels;

/// Limit of connections at a time. Further ones wait to be accepted.
///
/// A scraper needs one connection, so 64 leave room for several scrapers and some that hang.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may take for the head of each request.
const REQUEST_WAIT: Duration = Duration::from_secs(10);
/// Pause after the system could not accept a connection, for example with too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Everything that a process of a job shows: its names and its counters.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The job's name.
    pub job: String,
    /// The component; `None` for `tidemill run`, which runs both.
    pub part: Option<Part>,
    /// The generation that a master gave the process; `None` without a master, then the journal's
    /// is shown.
    pub generation: Option<u64>,
    /// The index among the component's processes.
    pub index: usize,
    /// Counters of the dataflow, if it runs here.
    pub dataflow: Option<Arc<job::Stats>>,
    /// Counters of the ingest, if it runs here.
    pub ingest: Option<Arc<stats::Stats>>,
    /// Answers whether everything that was committed is in the views. Process 0 of a dataflow can.
    pub readable: Later,
    /// Shows topics, schemas, the slot, rows and dead letters of the job.
    pub inspected: tidemill_inspect::Later,
}

impl Shown {
    /// A process without counters. Generation 0 in the key means that there is no master.
    pub fn of(key: ProcessKey) -> Self {
        Self {
            job: key.job,
            part: Some(key.part),
            generation: Some(key.generation).filter(|generation| *generation > 0),
            index: key.index,
            dataflow: None,
            ingest: None,
            readable: Later::default(),
            inspected: tidemill_inspect::Later::default(),
        }
    }

    /// Why the process is not ready: what it does or waits for at first, or which services are
    /// down. `None` when it is ready.
    ///
    /// A process without counters is ready.
    pub(crate) fn unready(&self) -> Option<String> {
        let now = now_ms();
        let downs = self.dependencies().into_iter();
        let downs = downs.filter(DependencyStatus::is_down);
        let why: Vec<String> = downs.map(|it| it.told(now)).collect();
        let why = self.doing().into_iter().chain(why).collect::<Vec<_>>();
        (!why.is_empty()).then(|| why.join("; "))
    }

    /// What the process does or waits for instead of its work, in words.
    ///
    /// `None` when the process does its work. The dataflow's words come before those of the ingest.
    pub fn doing(&self) -> Option<String> {
        let dataflow = self.dataflow.as_ref().and_then(|stats| stats.unready());
        dataflow.or_else(|| self.ingest.as_ref().and_then(|stats| stats.unready()))
    }

    /// The services that the process uses, without secrets.
    ///
    /// The addresses are without user names and passwords, and passwords in error texts are masked.
    pub fn dependencies(&self) -> Vec<DependencyStatus> {
        let ingest = self.ingest.as_ref().map(|stats| &stats.health);
        let dataflow = self.dataflow.as_ref().map(|stats| &stats.health);
        let mut all: Vec<DependencyStatus> = Vec::new();
        for found in ingest.into_iter().chain(dataflow).flat_map(Health::list) {
            let dependency = found.role.name();
            // In `tidemill run` both components have the same services.
            if all.iter().any(|it| it.dependency == dependency) {
                continue;
            }
            all.push(DependencyStatus {
                dependency: dependency.to_owned(),
                engine: found.engine,
                at: found.place,
                state: found.condition.name().to_owned(),
                since_ms: found.since_ms,
                error: found.error.map(|error| redact::text(&error).into_owned()),
            });
        }
        all
    }

    /// The fullest disk of those that hold the job's state and embedded files; `None` when nobody
    /// knows, or everything is elsewhere.
    pub fn disk(&self) -> Option<Disk> {
        self.inspected.get().and_then(Inspected::disk)
    }

    /// What the ingest last noticed of captured tables in the catalog, newest last.
    ///
    /// For example, that a captured table was renamed. Empty in a process without an ingest.
    pub fn noticed(&self) -> Vec<NoticedStatus> {
        let all = self.ingest.iter().flat_map(|stats| stats.last_noticed());
        let told = all.map(|it| NoticedStatus {
            at_ms: it.at_ms,
            what: redact::text(&it.what).into_owned(),
        });
        told.collect()
    }

    /// The labels of all metrics of this process.
    ///
    /// `job`, `generation`, `process` and `part`. `part` is `both` for `tidemill run`.
    fn labels(&self) -> Labels {
        use std::sync::atomic::Ordering::Relaxed;
        let journaled = self.dataflow.as_ref();
        let journaled = || journaled.map(|stats| stats.generation.load(Relaxed));
        let generation = self.generation.or_else(journaled).unwrap_or(0);
        let part = match self.part {
            Some(Part::Ingest) => "ingest",
            Some(Part::Dataflow) => "dataflow",
            None => "both",
        };
        vec![
            ("job", self.job.clone()),
            ("generation", generation.to_string()),
            ("process", self.index.to_string()),
            ("part", part.to_owned()),
        ]
    }
}

/// From where a process can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// From this machine alone.
    OwnMachine,
    /// From the machines of a cluster: a child of a worker.
    Cluster,
    /// From anywhere.
    Anywhere,
}

impl Reach {
    /// The reach of a server at this address that a user chose.
    fn of(at: SocketAddr) -> Self {
        match at.ip().is_loopback() {
            true => Self::OwnMachine,
            false => Self::Anywhere,
        }
    }
}

/// Routes of a process of a job. `readable`, which asks the database, needs the token, and so does
/// what the job's services hold. Without a token that data is not served to anywhere.
///
/// With an audit log, changes are written to it; a child of a worker has none, because its master
/// does so. `process` is read at each request; nothing is copied in between.
pub(crate) fn process_router(
    process: Shown,
    token: Option<Token>,
    reach: Reach,
    audit: Option<&Audit>,
) -> Router {
    let shown = process.clone();
    let readable = readable::routes(Arc::clone(&process.readable), token.clone());
    let is_shown = reach != Reach::Anywhere || token.is_some();
    let session = Session {
        kind: "process",
        features: &[],
        token: token.map(Arc::new),
        own_machine: reach == Reach::OwnMachine,
        tls: false,
    };
    let inspected = match is_shown {
        true => tidemill_inspect::routes(Arc::clone(&process.inspected)),
        false => Router::new(),
    };
    let inspected = match audit {
        Some(audit) => inspected.layer(from_fn_with_state(audit.clone(), audited)),
        None => inspected,
    };
    let inspected = inspected.layer(from_fn_with_state(session, session::guard));
    let ready = async move || readiness(&process);
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route(
            "/metrics",
            get(async move || scraped(shown.labels(), process::families(&shown))),
        )
        .merge(readable)
        .merge(inspected)
}

/// Body of `/readyz`: whether the process is ready, why not, and its services one by one.
#[derive(Serialize)]
struct Readiness {
    /// The same as the status code says.
    ready: bool,
    /// What the process waits for, as one text without secrets.
    why: Option<String>,
    /// Each service with its state, and since when it holds.
    dependencies: Vec<DependencyStatus>,
    /// The newest changes of captured tables in the database's catalog.
    noticed: Vec<NoticedStatus>,
}

/// The answer of `/readyz`: 200 when ready, else 503.
fn readiness(process: &Shown) -> (StatusCode, Json<Readiness>) {
    let why = process.unready();
    let status = match why {
        None => StatusCode::OK,
        Some(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = Readiness {
        ready: why.is_none(),
        why: why.map(|why| redact::text(&why).into_owned()),
        dependencies: process.dependencies(),
        noticed: process.noticed(),
    };
    (status, Json(body))
}

/// Routes of a worker. `report` returns its last report to the master.
///
/// Before the first report there is nothing to show, and `/metrics` is 503.
pub fn worker_router(
    report: impl Fn() -> Option<Report> + Clone + Send + Sync + 'static,
) -> Router {
    let metrics = get(async move || match report() {
        Some(report) => {
            let labels = vec![("worker", report.name.clone())];
            scraped(labels, cluster::worker(&report))
        }
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    });
    Router::new().route("/metrics", metrics)
}

/// Routes of the master: the control center, and metrics of the cluster and of each job. While the
/// master is too busy to tell its status, `/metrics` is 503.
pub fn master_router(facts: Facts) -> Router {
    let status = Arc::clone(&facts.status);
    let metrics = get(async move || match status().await {
        Some(status) => scraped(Vec::new(), cluster::master(&status)),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    });
    api::router(facts).route("/metrics", metrics)
}

/// The answer of `/metrics`.
///
/// 500 when the text cannot be written, which the log then has.
fn scraped(labels: Labels, families: Vec<metrics::Family>) -> Response {
    match metrics::text(labels, families) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot write the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Routes of this process, with the token of its environment.
///
/// # Errors
///
/// The token cannot be read.
pub fn own_router(process: Shown, reach: Reach) -> anyhow::Result<Router> {
    Ok(process_router(process, own_token()?, reach, None))
}

/// The token of this process's environment.
///
/// # Errors
///
/// The token cannot be read.
fn own_token() -> anyhow::Result<Option<Token>> {
    let token = token::given()?;
    token.map(|token| Token::new(&token)).transpose()
}

/// What the control center of one pipeline shows beside its status.
pub struct Own {
    /// The status of the moment.
    pub status: Arc<dyn Fn() -> api::Later + Send + Sync>,
    /// The log of changes.
    pub audit: Audit,
    /// The states of the alerts.
    pub alerts: Alerting,
    /// The folder of the process's log files, if it writes any.
    pub logs: Option<PathBuf>,
}

impl Debug for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Own");
        shown.field("logs", &self.logs).finish_non_exhaustive()
    }
}

/// Serves the routes of a process if `--http` was given. Returns the address.
///
/// # Errors
///
/// The address is invalid or in use, or the token cannot be read.
pub fn process(
    args: &HttpArgs,
    process: impl FnOnce() -> Shown,
) -> anyhow::Result<Option<SocketAddr>> {
    let serve = |address: &String| {
        let listener = listened(address)?;
        let reach = Reach::of(listener.local_addr()?);
        start(listener, own_router(process(), reach)?, None)
    };
    args.http.as_ref().map(serve).transpose()
}

/// Serves the routes of a process and the control center of its own pipeline. Returns the address,
/// and whether the control center is there: beyond this machine it needs a token, because it shows
/// the pipeline's data.
///
/// # Errors
///
/// The address is invalid or in use, or the token cannot be read.
pub fn center(address: &str, process: Shown, own: Own) -> anyhow::Result<(SocketAddr, bool)> {
    let token = own_token()?;
    let listener = listened(&address)?;
    let reach = Reach::of(listener.local_addr()?);
    let routes = process_router(process, token.clone(), reach, Some(&own.audit));
    let own_machine = reach == Reach::OwnMachine;
    if !own_machine && token.is_none() {
        return Ok((start(listener, routes, None)?, false));
    }
    let session = api::session::Session {
        kind: "run",
        features: match own.logs {
            Some(_) => &["audit", "logs"],
            None => &["audit"],
        },
        token: token.map(Arc::new),
        own_machine,
        tls: false,
    };
    let mut guarded = own.audit.router();
    if let Some(folder) = own.logs {
        guarded = guarded.merge(tidemill_logs::routes_at(
            "/api/v1/logs",
            "run",
            folder,
            None,
        ));
    }
    let guarded = guarded.layer(from_fn_with_state(session.clone(), session::guard));
    let facts = Facts {
        session,
        status: own.status,
        history: Arc::default(),
        alerts: Arc::new(own.alerts),
    };
    let routes = routes.merge(api::router(facts.clone())).merge(guarded);
    Ok((start(listener, routes, Some(facts))?, true))
}

/// Serves at an address as long as the process lives; port 0 takes any free port. Returns the
/// address.
///
/// # Errors
///
/// The address is invalid or in use, or no thread can be started.
pub fn serve(address: impl ToSocketAddrs + Debug, router: Router) -> anyhow::Result<SocketAddr> {
    start(listened(&address)?, router, None)
}

/// Opens the socket of a server.
///
/// # Errors
///
/// The address is invalid or in use.
fn listened(address: &(impl ToSocketAddrs + Debug)) -> anyhow::Result<std::net::TcpListener> {
    let cannot = || format!("cannot serve HTTP at {address:?}; it takes HOST:PORT");
    listen(address).with_context(cannot)
}

/// Starts the thread that answers until the process ends, and samples the facts if there are any.
///
/// # Errors
///
/// No thread can be started.
fn start(
    listener: std::net::TcpListener,
    router: Router,
    sampled: Option<Facts>,
) -> anyhow::Result<SocketAddr> {
    let at = listener.local_addr()?;
    let cannot = || format!("cannot serve HTTP at {at}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .with_context(cannot)?;
    let work = async move {
        if let Some(facts) = sampled {
            tokio::spawn(api::history::sample(facts));
        }
        answer(listener, router).await;
    };
    std::thread::Builder::new()
        .name("tidemill-http".to_owned())
        .spawn(move || runtime.block_on(work))
        .with_context(cannot)?;
    tracing::info!("http: http://{at}/metrics");
    Ok(at)
}

/// Opens a listening socket that does not block.
///
/// All addresses that a host name has are tried, in order.
///
/// # Errors
/// No address can be bound.
fn listen(address: &impl ToSocketAddrs) -> std::io::Result<std::net::TcpListener> {
    let addresses: Vec<SocketAddr> = address.to_socket_addrs()?.collect();
    let listener = std::net::TcpListener::bind(&*addresses)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves connections of a non-blocking listener until the runtime ends.
///
/// A place is taken before a connection is accepted, so the connections beyond `CONNECTIONS_MAX`
/// stay in the system's backlog. `listener` must be non-blocking.
pub async fn answer(listener: std::net::TcpListener, router: Router) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot serve HTTP"),
    };
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_WAIT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection ended");
            }
            drop(place);
        });
    }
}
