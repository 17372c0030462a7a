//! The worker's own HTTP server: whether it lives, whether the master takes it, and its logs.
//!
//! Flows in: questions. Flows out: answers, from a thread of its own. Logs are shown to who has the
//! cluster's token, if it has one.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;

use super::link::Link;
use crate::logs;
use crate::observe;
use crate::token::Token;

/// Opens the port.
pub(super) fn listen(at: &str) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(at).with_context(|| {
        format!("--http: cannot listen on {at}; give an address of this machine and a free port")
    })?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Answers from now on, until the process ends.
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
        .merge(observe::worker_router(move || link.told()))
        .merge(logs::routes(name, folder, token));
    let serve = move || runtime.block_on(observe::answer(listener, router));
    thread::Builder::new()
        .name("http".to_owned())
        .spawn(serve)?;
    Ok(())
}

async fn ready(State(link): State<Arc<Link>>) -> (StatusCode, &'static str) {
    match link.answers() {
        true => (StatusCode::OK, "ok\n"),
        false => {
            let why = "the master does not answer; what runs goes on\n";
            (StatusCode::SERVICE_UNAVAILABLE, why)
        }
    }
}
