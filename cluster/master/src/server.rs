//! HTTP server of the master: the API for workers, users and Prometheus, and the control center.
//!
//! In: requests. Out: JSON; an error is `{"error": "…"}` with a fitting status. Handlers decide
//! nothing: they send messages to the [`Mailbox`] of the master's thread.
//!
//! | route | who asks | answer |
//! |---|---|---|
//! | `POST /cluster/workers/{id}/report` | a worker, once a second | its assignment |
//! | `GET …/{id}/orders?after=V` | a worker | its assignment, newer than V or after 2 s |
//! | `POST /api/v1/jobs`, `…/{name}/stop` … | users | a sentence, when the change is durable |
//! | `POST` to [`readable::path`] | `tidemill wait` | whether all commits are readable |
//! | `GET /api/v1/logs` | users | a page of the merged logs |
//! | `/api/v1/jobs/{name}/topics` … | users | passed on to a process |
//! | `GET /api/v1/status`, `/api/v1/jobs` … | users | the status ([`tidemill_web::api`]) |
//! | `GET /api/v1/targets` | Prometheus | where metrics are |
//! | `GET /healthz`, `/readyz` | anybody | liveness, readiness |
//!
//! 1. A request that changes state, and every request of a worker, needs the token if the master
//!    has one. So do `readable` and the logs.
//! 2. A page of another site cannot make a browser change state: such an `Origin` is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tidemill_logs::Peers;
use tidemill_protocol::api::{CLUSTER, Failure, api};
use tidemill_protocol::token::Token;
use tidemill_protocol::{JobSpec, Part, Report, Status, WorkerId};
use tidemill_web::api::alerts::Alerting;
use tidemill_web::api::audit::{Audit, audited};
use tidemill_web::api::session::{self, Session};
use tidemill_web::api::{Facts, Later};
use tidemill_web::readable;
use tidemill_web::readable::{QUESTION_BYTES_MAX, Question};

use super::inspected;
use super::mailbox::{Busy, Mailbox};
use super::spec;
use crate::machine::event::{Command, Event, Refusal};

/// Limit of a submitted job, in bytes.
const JOB_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Limit of a worker's report, in bytes.
const REPORT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long a request's body may take to arrive.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a long poll for a newer assignment is held open.
const ORDERS_WAIT_MAX: Duration = Duration::from_secs(2);
/// Limit of a worker's id, and of its name, in characters.
const WORKER_CHARS_MAX: usize = 200;
/// Limit of slots of one worker.
const SLOTS_MAX: usize = 4096;

/// What every handler can use.
#[derive(Clone)]
pub(crate) struct App {
    mailbox: Mailbox,
    /// The URL of the master's store: for journal and checkpoints of jobs that name no store.
    state: Arc<str>,
    /// The address at which this master listens.
    at: Arc<str>,
    /// The number of the last long poll.
    polls: Arc<AtomicU64>,
    /// The HTTP client for the workers and processes, for logs and `readable`.
    peers: Arc<Peers>,
}

/// An HTTP error status, and its message for the JSON body.
struct Failed(StatusCode, String);

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error": self.1}))).into_response()
    }
}

impl From<Busy> for Failed {
    fn from(_: Busy) -> Self {
        let why = "the master has too much to do, or ends; try again";
        Self(StatusCode::SERVICE_UNAVAILABLE, why.to_owned())
    }
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Bad(why) => Self(StatusCode::BAD_REQUEST, why),
            Refusal::NoSuchJob(why) => Self(StatusCode::NOT_FOUND, why),
            Refusal::Conflict(why) => Self(StatusCode::CONFLICT, why),
        }
    }
}

type Answer = Result<Response, Failed>;

/// What the pages read: the status of the master's thread, and its history.
pub(crate) fn facts(
    mailbox: &Mailbox,
    (token, tls): (Option<Token>, bool),
    alerts: Alerting,
) -> Facts {
    let session = Session {
        kind: "master",
        features: &["audit", "changes", "logs"],
        // Without a token the master listens on this machine alone.
        own_machine: token.is_none(),
        token: token.map(Arc::new),
        tls,
    };
    let mailbox = mailbox.clone();
    let status = move || -> Later {
        let mailbox = mailbox.clone();
        Box::pin(async move { mailbox.status().await.ok() })
    };
    Facts {
        session,
        status: Arc::new(status),
        history: Arc::default(),
        alerts: Arc::new(alerts),
    }
}

/// Builds all routes: those that need the token, the open ones, and the control center. `facts` are
/// sampled for as long as the runtime lives.
pub(crate) fn router(
    mailbox: Mailbox,
    (facts, audit): (Facts, Audit),
    peers: Peers,
    state: &str,
    at: &str,
) -> Router {
    let app = App {
        mailbox,
        state: state.into(),
        at: at.into(),
        polls: Arc::default(),
        peers: Arc::new(peers),
    };
    let passed_on = inspected::routes(app.mailbox.clone(), Arc::clone(&app.peers))
        .layer(from_fn_with_state(audit.clone(), audited));
    let guarded = Router::new()
        .route(&format!("{CLUSTER}/workers/{{id}}/report"), post(report))
        .route(&format!("{CLUSTER}/workers/{{id}}/orders"), get(orders))
        .route(&readable::path("{name}"), post(readable))
        .merge(users(&audit))
        .merge(passed_on.with_state(()))
        .merge(audit.router().with_state(()))
        .layer(from_fn_with_state(facts.session.clone(), session::guard));
    let open = Router::new()
        .route(&api("targets"), get(targets))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready));
    guarded
        .merge(open)
        .fallback(async || Failed(StatusCode::NOT_FOUND, "no such page".to_owned()))
        .method_not_allowed_fallback(async || {
            let why = "this page does not take that method".to_owned();
            Failed(StatusCode::METHOD_NOT_ALLOWED, why)
        })
        .with_state(app)
        .merge(tidemill_web::master_router(facts))
}

/// Reads a JSON body of at most `most` bytes within [`BODY_TIME_MAX`].
async fn body<T: DeserializeOwned>(body: Body, most: usize, what: &str) -> Result<T, Failed> {
    let read = tokio::time::timeout(BODY_TIME_MAX, to_bytes(body, most)).await;
    let read = read.map_err(|_| {
        let why = format!("{what} did not come within {} s", BODY_TIME_MAX.as_secs());
        Failed(StatusCode::REQUEST_TIMEOUT, why)
    })?;
    let bytes = read.map_err(|error| {
        let why = format!("{what} has more than {most} bytes, or broke off: {error}");
        Failed(StatusCode::PAYLOAD_TOO_LARGE, why)
    })?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Failed(StatusCode::BAD_REQUEST, format!("{what}: {error}")))
}

/// The guarded routes that users have, beside those of [`tidemill_web::api`]. Changes are audited.
fn users(audit: &Audit) -> Router<App> {
    let at = api;
    Router::new()
        .route(&at("jobs"), post(submit))
        .route(&at("jobs/{name}/stop"), post(stop))
        .route(&at("jobs/{name}/restart"), post(restart))
        .route(&at("jobs/{name}/rescale"), post(rescale))
        .route(&at("jobs/{name}/remove"), post(remove))
        .route(&at("workers/{id}/drain"), post(drain))
        .route(&at("workers/{id}/undrain"), post(undrain))
        .route(&at("logs"), get(logs))
        .layer(from_fn_with_state(audit.clone(), audited))
}

/// A worker reports all its processes; the answer is its assignment.
async fn report(State(app): State<App>, Path(id): Path<WorkerId>, given: Body) -> Answer {
    let report: Report = body(given, REPORT_BYTES_MAX, "a worker's report").await?;
    let fits = |text: &str| !text.is_empty() && text.chars().count() <= WORKER_CHARS_MAX;
    let why = if report.worker != id {
        format!("the report is of worker `{}`, not of `{id}`", report.worker)
    } else if !fits(&id) || !fits(&report.name) {
        format!("a worker's id and name have 1 to {WORKER_CHARS_MAX} characters")
    } else if report.slots > SLOTS_MAX {
        format!("slots: {}, expected at most {SLOTS_MAX}", report.slots)
    } else {
        let orders = app.mailbox.report(report).await?;
        let full = || {
            let why = "the master has as many workers as it takes".to_owned();
            Failed(StatusCode::TOO_MANY_REQUESTS, why)
        };
        return Ok(Json(orders.ok_or_else(full)?.as_ref()).into_response());
    };
    Err(Failed(StatusCode::BAD_REQUEST, why))
}

/// Query of a long poll: the version of the assignment that the worker has.
#[derive(Debug, Deserialize)]
struct After {
    #[serde(default)]
    /// Answer only with a version above this one, if one comes in time.
    after: u64,
}

/// A long poll. Dropping it before the answer reports that the worker's connection broke.
struct Wait {
    mailbox: Mailbox,
    /// The event that reports the break; taken out when the poll is answered.
    cut: Option<Event>,
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some(cut) = self.cut.take() {
            self.mailbox.tell(cut);
        }
    }
}

/// Long poll: answers when the worker's assignment is newer than `after`, or after
/// [`ORDERS_WAIT_MAX`].
async fn orders(
    State(app): State<App>,
    Path(worker): Path<WorkerId>,
    query: Result<Query<After>, QueryRejection>,
) -> Answer {
    let after = query.map_err(bad_query)?.after;
    let Some(mut orders) = app.mailbox.orders(&worker) else {
        let why = format!("worker `{worker}` has not reported to this master yet");
        return Err(Failed(StatusCode::NOT_FOUND, why));
    };
    let poll = app.polls.fetch_add(1, Ordering::Relaxed) + 1;
    app.mailbox.tell(Event::Waits {
        worker: worker.clone(),
        poll,
    });
    let mut wait = Wait {
        mailbox: app.mailbox.clone(),
        cut: Some(Event::Cut { worker, poll }),
    };
    let newer = orders.wait_for(|orders| orders.version > after);
    // When the time is over, the answer is the current assignment.
    let _waited = tokio::time::timeout(ORDERS_WAIT_MAX, newer).await.is_ok();
    wait.cut = None;
    let orders = Arc::clone(&orders.borrow());
    Ok(Json(orders.as_ref()).into_response())
}

/// An invalid query string (HTTP 400).
fn bad_query(error: QueryRejection) -> Failed {
    Failed(StatusCode::BAD_REQUEST, error.body_text())
}

/// Submits a job, or changes it.
async fn submit(State(app): State<App>, given: Body) -> Answer {
    let mut spec: JobSpec = body(given, JOB_BYTES_MAX, "a job").await?;
    spec::check(&mut spec, &app.state).map_err(Refusal::Bad)?;
    command(&app, Command::Submit(Arc::new(spec))).await
}

async fn stop(State(app): State<App>, Path(name): Path<String>) -> Answer {
    command(&app, Command::Stop(name)).await
}

async fn restart(State(app): State<App>, Path(name): Path<String>) -> Answer {
    command(&app, Command::Restart(name)).await
}

async fn remove(State(app): State<App>, Path(name): Path<String>) -> Answer {
    command(&app, Command::Remove(name)).await
}

async fn drain(State(app): State<App>, Path(id): Path<WorkerId>) -> Answer {
    command(&app, Command::Drain(id)).await
}

async fn undrain(State(app): State<App>, Path(id): Path<WorkerId>) -> Answer {
    command(&app, Command::Undrain(id)).await
}

/// Query of `rescale`.
#[derive(Debug, Deserialize)]
struct Size {
    workers: usize,
}

async fn rescale(
    State(app): State<App>,
    Path(name): Path<String>,
    query: Result<Query<Size>, QueryRejection>,
) -> Answer {
    let workers = query.map_err(bad_query)?.workers;
    command(&app, Command::Rescale(name, workers)).await
}

/// Sends a user's command and answers when its change is durable.
async fn command(app: &App, command: Command) -> Answer {
    let said = app.mailbox.command(command).await??;
    Ok(Json(json!({"message": said})).into_response())
}

/// Whether everything that was committed is in the job's views. The master asks process 0 of the
/// job's dataflow.
async fn readable(State(app): State<App>, Path(name): Path<String>, given: Body) -> Answer {
    let question: Question = body(given, QUESTION_BYTES_MAX, "a question").await?;
    let jobs = app.mailbox.status().await?.jobs;
    let job = jobs.iter().find(|job| job.name == name);
    let job = job.ok_or_else(|| Failed(StatusCode::NOT_FOUND, format!("no job `{name}`")))?;
    let state = match &job.why {
        Some(why) => format!("job `{name}` is {}: {why}", job.state),
        None => format!("job `{name}` is {}", job.state),
    };
    if job.state.is_over() {
        let answer = readable::Answer {
            ended: Some(state),
            ..readable::Answer::default()
        };
        return Ok(Json(answer).into_response());
    }
    let mut processes = job.processes.iter();
    let first = processes.find(|it| it.part == Part::Dataflow && it.index == 0);
    let Some(at) = first.map(|it| it.http.clone()).filter(|at| !at.is_empty()) else {
        return Ok(Json(readable::Answer::waits(question, state)).into_response());
    };
    let asked = tokio::task::spawn_blocking(move || {
        let way = app
            .peers
            .at(&at)
            .map_err(|error| Failure::Away(error.to_string()))?;
        match way.post::<readable::Answer>(&readable::path(&name), &question) {
            // The process ended, or has just begun.
            Err(failure) if failure.passes() => {
                Ok(readable::Answer::waits(question, failure.to_string()))
            }
            answered => answered,
        }
    });
    let asked = asked
        .await
        .map_err(|error| Failed(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let answer = asked.map_err(|failure| Failed(StatusCode::BAD_REQUEST, failure.to_string()))?;
    Ok(Json(answer).into_response())
}

/// One page of the merged logs of all workers and of the master itself.
async fn logs(
    State(app): State<App>,
    query: Result<Query<tidemill_logs::Query>, QueryRejection>,
) -> Answer {
    let query = query.map_err(bad_query)?.0;
    let workers = app.mailbox.status().await?.workers.into_iter();
    let workers: Vec<_> = workers.map(|it| (it.name, it.http)).collect();
    let page = tokio::task::spawn_blocking(move || app.peers.page(&workers, &query)).await;
    let page =
        page.map_err(|error| Failed(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(Json(page).into_response())
}

/// Readiness: whether the store of the master's state answers.
async fn ready(State(app): State<App>) -> Answer {
    if app.mailbox.is_ready() {
        return Ok("ok\n".into_response());
    }
    let why = "the store of the master's state is away".to_owned();
    Err(Failed(StatusCode::SERVICE_UNAVAILABLE, why))
}

/// The addresses of all metrics pages, in the format of Prometheus' `http_sd_configs`.
async fn targets(State(app): State<App>) -> Answer {
    Ok(Json(targets_of(&app.mailbox.status().await?, &app.at)).into_response())
}

/// The list of targets of a status, beginning with the master itself.
fn targets_of(status: &Status, at: &str) -> serde_json::Value {
    let host = |http: &str| match http.split_once("://") {
        Some((_, rest)) => rest.trim_end_matches('/').to_owned(),
        None => http.to_owned(),
    };
    let mut all = vec![json!({"targets": [at], "labels": {"part": "master"}})];
    for worker in status.workers.iter().filter(|it| !it.http.is_empty()) {
        let labels = json!({"part": "worker", "worker": worker.name});
        all.push(json!({"targets": [host(&worker.http)], "labels": labels}));
    }
    for job in &status.jobs {
        for process in job.processes.iter().filter(|it| !it.http.is_empty()) {
            let part = match process.part {
                Part::Dataflow => "dataflow",
                Part::Ingest => "ingest",
            };
            let labels = json!({
                "part": part,
                "job": job.name,
                "process": process.index.to_string(),
                "worker": process.worker,
            });
            all.push(json!({"targets": [host(&process.http)], "labels": labels}));
        }
    }
    all.into()
}
