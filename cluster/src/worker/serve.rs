//! HTTP server of a worker: liveness, readiness, metrics and logs.
//!
//! In: requests. Out: answers, from a thread of its own. Logs need the cluster's token if there is
//! one. `/readyz` is 503 while the master does not accept reports.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tidemill_protocol::token::Token;

use super::link::Link;

/// Opens the port of `--http`.
///
/// # Errors
///
/// The address is not of this machine, or the port is in use.
pub(super) fn listen(at: &str) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(at).with_context(|| {
        format!("--http: cannot listen on {at}; give an address of this machine and a free port")
    })?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Starts the thread that answers until the process ends.
///
/// # Errors
///
/// No thread can be started.
pub(super) fn start(
    listener: TcpListener,
    link: Arc<Link>,
    (name, folder): (String, PathBuf),
    token: Option<Token>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the HTTP server cannot be started")?;
    // What else this process tells over HTTP is merged here.
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(Arc::clone(&link))
        .merge(tidemill_web::worker_router(move || link.told()))
        .merge(tidemill_logs::routes(&name, folder, token));
    let serve = move || runtime.block_on(tidemill_web::answer(listener, router));
    thread::Builder::new()
        .name("http".to_owned())
        .spawn(serve)?;
    Ok(())
}

/// Readiness: whether the master accepted the last report.
async fn ready(State(link): State<Arc<Link>>) -> (StatusCode, &'static str) {
    match link.answers() {
        true => (StatusCode::OK, "ok\n"),
        false => {
            let why = "the master does not answer; what runs goes on\n";
            (StatusCode::SERVICE_UNAVAILABLE, why)
        }
    }
}
