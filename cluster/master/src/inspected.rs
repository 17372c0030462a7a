//! What only the processes of a job can see: requests are passed on to the process that can answer
//! them, because the master has no credentials of a job.
//!
//! The ingest process answers about the capture, process 0 of the dataflow about everything else.
//! A job that runs only one of them is answered by that one.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use tidemill_logs::Peers;
use tidemill_protocol::api::Passed;
use tidemill_protocol::{JobStatus, Part, ProcessStatus};
use tidemill_web::api::refused;

use super::mailbox::Mailbox;

/// Limit of a body that is passed on, in bytes.
const BODY_BYTES_MAX: usize = 1 << 20;

/// What the handler can use: the way to the master's thread, and the client for processes.
type Ways = (Mailbox, Arc<Peers>);

/// The routes. They need the token, as all that reads data.
pub(crate) fn routes(mailbox: Mailbox, peers: Arc<Peers>) -> Router {
    let mut routes = Router::new();
    for path in tidemill_inspect::PATHS {
        routes = routes.route(&format!("/api/v1/jobs/{{job}}{path}"), any(pass));
    }
    routes.with_state((mailbox, peers))
}

/// Passes a request on.
async fn pass(
    State((mailbox, peers)): State<Ways>,
    Path(names): Path<HashMap<String, String>>,
    uri: Uri,
    method: Method,
    body: Body,
) -> Result<Response, Response> {
    let unavailable = |why: String| refused(StatusCode::SERVICE_UNAVAILABLE, why);
    let name = names.get("job").cloned().unwrap_or_default();
    let status = mailbox.status().await;
    let status = status.map_err(|_| unavailable("the master has too much to do".to_owned()))?;
    let job = status.jobs.iter().find(|job| job.name == name);
    let job = job.ok_or_else(|| refused(StatusCode::NOT_FOUND, format!("no job `{name}`")))?;
    let at = answering(job, uri.path()).ok_or_else(|| {
        let why = job
            .why
            .as_ref()
            .map_or_else(String::new, |why| format!(": {why}"));
        unavailable(format!(
            "job `{name}` is {}{why}; no process of it can answer",
            job.state
        ))
    })?;
    let post = match method {
        Method::GET => None,
        Method::POST => {
            let read = to_bytes(body, BODY_BYTES_MAX).await;
            let wrong = |error: axum::Error| refused(StatusCode::BAD_REQUEST, error.to_string());
            Some(read.map_err(wrong)?.to_vec())
        }
        _ => {
            let why = "this page does not take that method";
            return Err(refused(StatusCode::METHOD_NOT_ALLOWED, why));
        }
    };
    let passed = tokio::task::spawn_blocking(move || {
        let way = peers.at(&at).map_err(|error| error.to_string())?;
        let passed = way.pass(uri.path(), uri.query(), post);
        passed.map_err(|failure| failure.to_string())
    });
    let passed = passed
        .await
        .map_err(|error| refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(answer(passed.map_err(unavailable)?))
}

/// The address of the process that can answer.
fn answering(job: &JobStatus, path: &str) -> Option<String> {
    let reachable = job.processes.iter().filter(|it| !it.http.is_empty());
    let of = |part: Part| {
        let mut all = reachable.clone();
        all.find(|it: &&ProcessStatus| it.part == part && it.index == 0)
    };
    let (ingest, dataflow) = (of(Part::Ingest), of(Part::Dataflow));
    let found = match tidemill_inspect::is_of_ingest(path) {
        true => ingest.or(dataflow),
        false => dataflow.or(ingest),
    };
    found.map(|process| process.http.clone())
}

/// The answer of a process as the answer of the master.
fn answer(passed: Passed) -> Response {
    let status = StatusCode::from_u16(passed.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let kind = [(header::CONTENT_TYPE, passed.kind)];
    match passed.disposition {
        Some(disposition) => {
            let saved = [(header::CONTENT_DISPOSITION, disposition)];
            (status, kind, saved, passed.body).into_response()
        }
        None => (status, kind, passed.body).into_response(),
    }
}
