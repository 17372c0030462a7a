//! HTTP: the routes of a job. Who may ask is checked before a request comes here.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use crate::refusal::{Answer, Refusal, failed};
use crate::runs::requests::{Pages, request};
use crate::{
    Inspected, Later, capture, letters, messages, plan, rows, runs, schemas, topics, verified,
};

/// Limit of requests that run at a time. Further ones are refused.
pub(crate) const REQUESTS_MAX: usize = 4;
/// Limit of the body of a request, in bytes.
const BODY_BYTES_MAX: usize = 1 << 20;

/// What the handlers share.
struct Shared {
    /// The job, once the process knows its connections.
    later: Later,
    /// One permit for each request that runs.
    running: Arc<Semaphore>,
}

/// The state of the routes.
type Kept = State<Arc<Shared>>;

/// The paths of all routes below `/api/v1/jobs/{job}`.
pub const PATHS: [&str; 16] = [
    "/topics",
    "/topics/{topic}",
    "/topics/{topic}/messages",
    "/schemas",
    "/schemas/{subject}",
    "/schemas/{subject}/difference",
    "/capture",
    "/plan",
    "/runs",
    "/fetching/{request}",
    "/views/{view}/rows",
    "/views/{view}/verify",
    "/verification",
    "/dead-letters",
    "/dead-letters/{number}",
    "/dead-letters/replay",
];

/// Whether the ingest knows most about a path below `/api/v1/jobs/{job}`, else the dataflow does.
#[must_use]
pub fn is_of_ingest(path: &str) -> bool {
    let is_request = path.rsplit('/').nth(1) == Some("fetching");
    path.ends_with("/capture") || path.ends_with("/runs") || is_request
}

/// The routes of one job, below `/api/v1/jobs/{job}`. They make services do work and show data: put
/// them behind the token.
pub fn routes(later: Later) -> Router {
    let running = Arc::new(Semaphore::new(REQUESTS_MAX));
    let shared = Arc::new(Shared { later, running });
    let below = Router::new()
        .route("/topics", get(all_topics))
        .route("/topics/{topic}", get(one_topic))
        .route("/topics/{topic}/messages", get(browse))
        .route("/schemas", get(all_subjects))
        .route("/schemas/{subject}", get(one_subject))
        .route("/schemas/{subject}/difference", get(difference))
        .route("/capture", get(captured))
        .route("/plan", get(planned))
        .route("/runs", get(ledger))
        .route("/fetching/{request}", post(fetching))
        .route("/views/{view}/rows", get(view_rows))
        .route("/views/{view}/verify", post(verify))
        .route("/verification", get(verification))
        .route("/dead-letters", get(all_letters))
        .route("/dead-letters/{number}", get(one_letter))
        .route("/dead-letters/replay", post(replay))
        .with_state(shared);
    Router::new().nest("/api/v1/jobs/{job}", below)
}

/// Runs `work` on a thread that may block, if few enough run already and the job is this one.
async fn run<T: Send + 'static>(
    shared: Arc<Shared>,
    job: String,
    work: impl FnOnce(&Inspected) -> Answer<T> + Send + 'static,
) -> Result<T, Response> {
    let Ok(permit) = Arc::clone(&shared.running).try_acquire_owned() else {
        let why = format!("{REQUESTS_MAX} requests of this kind run already; try again");
        return Err(failed(StatusCode::TOO_MANY_REQUESTS, &why));
    };
    let asked = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        match shared.later.get() {
            Some(inspected) if inspected.name == job => work(inspected),
            Some(_) => Err(Refusal::Missing("another job runs here".to_owned())),
            None => Err(Refusal::Away("the process starts".to_owned())),
        }
    });
    match asked.await {
        Ok(answer) => answer.map_err(Refusal::into_response),
        Err(error) => Err(Refusal::Bug(error.to_string()).into_response()),
    }
}

/// The same, with the answer as JSON.
async fn told<T: Serialize + Send + 'static>(
    shared: Arc<Shared>,
    job: String,
    work: impl FnOnce(&Inspected) -> Answer<T> + Send + 'static,
) -> Response {
    match run(shared, job, work).await {
        Ok(answer) => Json(answer).into_response(),
        Err(refused) => refused,
    }
}

/// The query of a request.
type Asked<T> = Result<Query<T>, axum::extract::rejection::QueryRejection>;

/// The query.
///
/// # Errors
/// `Wrong` when it does not parse.
fn query<T>(asked: Asked<T>) -> Answer<T> {
    let asked = asked.map(|Query(query)| query);
    asked.map_err(|error| Refusal::Wrong(error.body_text()))
}

/// The body as JSON, or the answer that it is wrong.
async fn body<T: DeserializeOwned>(body: Body) -> Result<T, Response> {
    let wrong = |why: String| failed(StatusCode::BAD_REQUEST, &why);
    let bytes = to_bytes(body, BODY_BYTES_MAX).await;
    let bytes = bytes.map_err(|error| wrong(error.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))
}

async fn all_topics(State(shared): Kept, Path(job): Path<String>) -> Response {
    told(shared, job, topics::all).await
}

async fn one_topic(State(shared): Kept, Path((job, topic)): Path<(String, String)>) -> Response {
    told(shared, job, move |it| topics::one(it, &topic)).await
}

async fn browse(
    State(shared): Kept,
    Path((job, topic)): Path<(String, String)>,
    asked: Asked<messages::Asked>,
) -> Response {
    let asked = match query(asked) {
        Ok(asked) => asked,
        Err(refused) => return refused.into_response(),
    };
    let lines = asked.lines;
    let name = topic.clone();
    let found = run(shared, job, move |it| messages::browse(it, &topic, &asked)).await;
    match found {
        Err(refused) => refused,
        Ok(page) if lines => download(&name, page.lines()),
        Ok(page) => Json(page).into_response(),
    }
}

/// An answer that a browser saves as a file of JSON lines.
fn download(topic: &str, lines: String) -> Response {
    let name: String = topic
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    let disposition = format!("attachment; filename=\"{name}.jsonl\"");
    let kind = "application/x-ndjson".to_owned();
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_DISPOSITION, disposition),
    ];
    (headers, lines).into_response()
}

async fn all_subjects(State(shared): Kept, Path(job): Path<String>) -> Response {
    told(shared, job, schemas::all).await
}

async fn one_subject(
    State(shared): Kept,
    Path((job, subject)): Path<(String, String)>,
) -> Response {
    told(shared, job, move |it| schemas::one(it, &subject)).await
}

async fn difference(
    State(shared): Kept,
    Path((job, subject)): Path<(String, String)>,
    asked: Asked<schemas::Pair>,
) -> Response {
    match query(asked) {
        Ok(pair) => {
            told(shared, job, move |it| {
                schemas::difference(it, &subject, pair)
            })
            .await
        }
        Err(refused) => refused.into_response(),
    }
}

async fn captured(State(shared): Kept, Path(job): Path<String>) -> Response {
    told(shared, job, capture::now).await
}

async fn planned(State(shared): Kept, Path(job): Path<String>) -> Response {
    told(shared, job, plan::plan).await
}

async fn ledger(State(shared): Kept, Path(job): Path<String>) -> Response {
    told(shared, job, runs::runs).await
}

async fn fetching(
    State(shared): Kept,
    Path((job, word)): Path<(String, String)>,
    given: Body,
) -> Response {
    // Only a backfill has a body.
    let pages = match word.as_str() {
        "backfill" => body::<Pages>(given).await,
        _ => Ok(Pages::default()),
    };
    match pages {
        Ok(pages) => told(shared, job, move |it| request(it, &word, &pages)).await,
        Err(refused) => refused,
    }
}

async fn view_rows(
    State(shared): Kept,
    Path((job, view)): Path<(String, String)>,
    asked: Asked<rows::Asked>,
) -> Response {
    match query(asked) {
        Ok(asked) => told(shared, job, move |it| rows::read(it, &view, &asked)).await,
        Err(refused) => refused.into_response(),
    }
}

async fn verify(
    State(shared): Kept,
    Path((job, view)): Path<(String, String)>,
    given: Body,
) -> Response {
    match body::<verified::Wanted>(given).await {
        Ok(wanted) => told(shared, job, move |it| verified::begin(it, &view, wanted)).await,
        Err(refused) => refused,
    }
}

async fn verification(State(shared): Kept, Path(job): Path<String>) -> Response {
    told(shared, job, |it| Ok(verified::newest(it))).await
}

async fn all_letters(
    State(shared): Kept,
    Path(job): Path<String>,
    asked: Asked<letters::Asked>,
) -> Response {
    match query(asked) {
        Ok(asked) => told(shared, job, move |it| letters::all(it, &asked)).await,
        Err(refused) => refused.into_response(),
    }
}

async fn one_letter(State(shared): Kept, Path((job, number)): Path<(String, i64)>) -> Response {
    told(shared, job, move |it| letters::one(it, number)).await
}

async fn replay(State(shared): Kept, Path(job): Path<String>, given: Body) -> Response {
    match body::<letters::Wanted>(given).await {
        Ok(wanted) => told(shared, job, move |it| letters::replay_some(it, &wanted)).await,
        Err(refused) => refused,
    }
}
