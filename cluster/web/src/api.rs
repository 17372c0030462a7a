//! `/api/v1`: what the control center's pages read from a master or from `tidemill run`.
//!
//! ```text
//! browser ─► session (cookie or token) ─► status, jobs, history ─► Facts (status of the moment)
//!                                                  ▲
//!                                     sampler thread, every 2 s
//! ```
//!
//! | route | answer |
//! |---|---|
//! | `GET /api/v1/session` | who serves, and whether a token is needed and shown; open |
//! | `POST`, `DELETE /api/v1/session` | log in with the token, log out; open |
//! | `GET /api/v1/openapi.json` | the description of all routes; open |
//! | `GET /api/v1/status` | [`Status`]: the server, its workers and jobs |
//! | `GET /api/v1/summary` | the same without views, operators, processes and failures |
//! | `GET /api/v1/jobs`, `/api/v1/jobs/{job}` | the jobs; one job |
//! | `GET /api/v1/jobs/{job}/history` | freshness, lag and rates of up to 24 h |
//! | `GET /api/v1/jobs/{job}/events` | what happened to the job, the newest last |
//! | `GET /api/v1/jobs/{job}/alerts` | its alerting rules with their states |
//!
//! A master has further routes, behind the same [`session::guard`]. An error is
//! `{"error": "…"}` with a fitting status.

pub mod alerts;
pub mod audit;
mod events;
pub mod history;
pub mod session;
pub mod stored;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tidemill_protocol::Status;

use alerts::Alerting;
use history::History;
use session::Session;

/// A status that comes later; `None` when the server is too busy to say it.
pub type Later = Pin<Box<dyn Future<Output = Option<Status>> + Send>>;

/// The OpenAPI document, which tests compare with the answers.
pub const OPENAPI: &str = include_str!("api/openapi.json");

/// Where the answers come from. Cheap to clone.
#[derive(Clone)]
pub struct Facts {
    /// Who serves, and who may read.
    pub session: Session,
    /// The status of the moment.
    pub status: Arc<dyn Fn() -> Later + Send + Sync>,
    /// What the sampler kept.
    pub history: Arc<History>,
    /// The alerts, which are evaluated over the samples.
    pub alerts: Arc<Alerting>,
}

impl fmt::Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facts")
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

/// An error with its HTTP status.
#[must_use]
pub fn refused(status: StatusCode, why: impl Into<String>) -> Response {
    (status, Json(json!({"error": why.into()}))).into_response()
}

/// Routes of the pages and of what they read. Those that need the token are behind the guard.
pub fn router(facts: Facts) -> Router {
    let guarded = Router::new()
        .route("/api/v1/status", get(status))
        .route("/api/v1/summary", get(summary))
        .route("/api/v1/jobs", get(jobs))
        .route("/api/v1/jobs/{job}", get(job))
        .route("/api/v1/jobs/{job}/history", get(kept))
        .route("/api/v1/jobs/{job}/events", get(happened))
        .route("/api/v1/jobs/{job}/alerts", get(alerting))
        .layer(from_fn_with_state(facts.session.clone(), session::guard))
        .with_state(facts.clone());
    let document = ([(header::CONTENT_TYPE, "application/json")], OPENAPI);
    Router::new()
        .route("/api/v1/openapi.json", get(async move || document))
        .merge(session::router(facts.session))
        .merge(guarded)
        .merge(crate::app::router())
}

/// The status, or 503.
///
/// # Errors
/// The server is too busy.
async fn current(facts: &Facts) -> Result<Status, Response> {
    let why = "too much to do; ask again";
    let found = (facts.status)().await;
    let mut found = found.ok_or_else(|| refused(StatusCode::SERVICE_UNAVAILABLE, why))?;
    for job in &mut found.jobs {
        job.alerts_firing = facts.alerts.firing(&job.name);
    }
    Ok(found)
}

async fn status(State(facts): State<Facts>) -> Result<Response, Response> {
    Ok(Json(current(&facts).await?).into_response())
}

/// The status without the long lists of each job, for pages that show all jobs.
async fn summary(State(facts): State<Facts>) -> Result<Response, Response> {
    let mut status = current(&facts).await?;
    for job in &mut status.jobs {
        job.views.clear();
        job.operators.clear();
        job.processes.clear();
        job.failures.clear();
        for dependency in &mut job.dependencies {
            dependency.error = dependency
                .error
                .take()
                .filter(|_| dependency.state == "down");
        }
    }
    Ok(Json(status).into_response())
}

async fn jobs(State(facts): State<Facts>) -> Result<Response, Response> {
    Ok(Json(current(&facts).await?.jobs).into_response())
}

async fn job(State(facts): State<Facts>, Path(name): Path<String>) -> Result<Response, Response> {
    let jobs = current(&facts).await?.jobs;
    let found = jobs.into_iter().find(|job| job.name == name);
    let found = found.ok_or_else(|| no_job(&name))?;
    Ok(Json(found).into_response())
}

/// The answer that no job has this name.
fn no_job(name: &str) -> Response {
    refused(StatusCode::NOT_FOUND, format!("no job `{name}`"))
}

async fn kept(State(facts): State<Facts>, Path(name): Path<String>) -> Response {
    match facts.history.of(&name) {
        Some(series) => Json(series).into_response(),
        None => no_job(&name),
    }
}

async fn happened(State(facts): State<Facts>, Path(name): Path<String>) -> Response {
    match facts.history.events(&name) {
        Some(events) => Json(events).into_response(),
        None => no_job(&name),
    }
}

async fn alerting(State(facts): State<Facts>, Path(name): Path<String>) -> Response {
    match facts.alerts.of(&name) {
        Some(alerts) => Json(alerts).into_response(),
        None => no_job(&name),
    }
}
