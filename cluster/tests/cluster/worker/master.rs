//! A master that a test drives: it keeps the last report and answers with the orders it was given.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

#[derive(Debug)]
struct Known {
    token: Option<String>,
    orders: Value,
    report: Option<Value>,
}

type Shared = Arc<Mutex<Known>>;

/// It answers as long as this lives.
pub(crate) struct Master {
    runtime: Option<Runtime>,
    address: SocketAddr,
    known: Shared,
}

impl Master {
    pub(crate) fn start(token: Option<&str>) -> Self {
        let known = Known {
            token: token.map(str::to_owned),
            orders: json!({ "master": 0, "version": 0, "processes": [] }),
            report: None,
        };
        let mut master = Self {
            runtime: None,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            known: Arc::new(Mutex::new(known)),
        };
        master.again();
        master
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Orders from now on.
    pub(crate) fn order(&self, master: u64, version: u64, processes: Value) {
        let orders = json!({ "master": master, "version": version, "processes": processes });
        self.known.lock().unwrap().orders = orders;
    }

    /// The last report.
    pub(crate) fn reported(&self) -> Option<Value> {
        self.known.lock().unwrap().report.clone()
    }

    /// Ends as a process that is killed does: its connections too.
    pub(crate) fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }

    /// Answers, at the same address if it did before.
    pub(crate) fn again(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let router = Router::new()
            .route("/cluster/workers/{id}/report", post(report))
            .route("/cluster/workers/{id}/orders", get(orders))
            .with_state(Arc::clone(&self.known));
        let bound = runtime.block_on(tokio::net::TcpListener::bind(self.address));
        let listener = bound.unwrap();
        self.address = listener.local_addr().unwrap();
        runtime.spawn(async move { axum::serve(listener, router).await });
        self.runtime = Some(runtime);
    }
}

fn check(known: &Known, headers: &HeaderMap) -> Result<(), StatusCode> {
    let given = headers.get("authorization").map(|it| it.to_str().unwrap());
    let wanted = known.token.as_ref().map(|token| format!("Bearer {token}"));
    match wanted.is_none() || given == wanted.as_deref() {
        true => Ok(()),
        false => Err(StatusCode::UNAUTHORIZED),
    }
}

async fn report(
    State(known): State<Shared>,
    headers: HeaderMap,
    Json(report): Json<Value>,
) -> Result<Json<Value>, StatusCode> {
    let mut known = known.lock().unwrap();
    check(&known, &headers)?;
    known.report = Some(report);
    Ok(Json(known.orders.clone()))
}

async fn orders(
    State(known): State<Shared>,
    headers: HeaderMap,
) -> Result<Json<Value>, StatusCode> {
    let before = known.lock().unwrap().orders.clone();
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        {
            let known = known.lock().unwrap();
            check(&known, &headers)?;
            if known.orders != before || Instant::now() >= deadline {
                return Ok(Json(known.orders.clone()));
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
