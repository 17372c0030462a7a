//! Built-in HTTP server with the API of randomuser.me 1.4, for examples, tests and benchmarks.
//!
//! The server runs on its own small runtime. Pages are generated from a seed (`users`), or read
//! from a folder of recorded answers ([`Source`]). For tests a function of the caller chooses a
//! [`Fault`] for each request.
//!
//! Invariants:
//! 1. The same seed and page give the same users.
//! 2. Each server answers at most `users_max` users per window. Beyond that it answers 429 with
//!    `Retry-After`.
//!
//! ```
//! use tidemill_randomuser::{Options, serve};
//!
//! let any_port = ([127, 0, 0, 1], 0).into();
//! let server = serve(any_port, Options::default()).unwrap();
//! assert!(server.url().ends_with("/api/1.4/"));
//! ```
//!
//! The real API is described at <https://randomuser.me/documentation>. Its parameters `page`,
//! `results` and `seed` are understood.

mod users;

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tidemill_log::{Error, Kind, Result};
use users::{NATIONS, User};

/// Largest number of users per page, as in the real API.
const RESULTS_MAX: u64 = 5_000;
/// Largest page number, as in the real API.
const PAGE_MAX: u64 = 10_000;

/// Where pages come from.
#[derive(Debug, Clone, Default)]
pub enum Source {
    /// Generated from the seed.
    #[default]
    Made,
    /// The unchanged files `page-01.json`, `page-02.json`, … of this folder. A missing page has no
    /// results.
    Recorded(PathBuf),
}

/// A request, for the choice of a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Number of the request since the start of the server, from 0.
    pub number: u64,
    /// The requested page.
    pub page: u64,
    /// The requested number of users.
    pub results: u64,
}

/// A fault of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// This HTTP status with a plain text body.
    Status(u16),
    /// 429, with this `Retry-After` if given.
    TooManyRequests(Option<String>),
    /// 200 with an HTML page.
    Html,
    /// Only the first half of the JSON.
    Truncated,
    /// A JSON object without `results`.
    NoResults,
    /// The first user lacks `login.uuid`.
    NoUuid,
    /// No answer; the connection stays open.
    Hang,
    /// 200 with this JSON text.
    Body(String),
}

/// Chooses the fault of a request, if any.
pub type Faults = Arc<dyn Fn(&Request) -> Option<Fault> + Send + Sync>;

/// Settings of a server.
#[derive(Clone)]
pub struct Options {
    /// Where pages come from.
    pub source: Source,
    /// Number of users that the server answers in each window.
    pub users_max: u64,
    /// Length of a window.
    pub window: Duration,
    /// Faults, for tests.
    pub faults: Option<Faults>,
}

impl Default for Options {
    /// Generated users, and a limit far above that of the real server (20,000 users in 5 minutes).
    fn default() -> Self {
        Self {
            source: Source::Made,
            users_max: 100_000_000,
            window: Duration::from_secs(300),
            faults: None,
        }
    }
}

/// A running server, which stops when it is dropped.
#[derive(Debug)]
pub struct Server {
    /// The address on which it listens.
    pub addr: SocketAddr,
    /// Its runtime; `None` while it is dropped.
    runtime: Option<tokio::runtime::Runtime>,
}

impl Server {
    /// The value for `fetch.url`.
    pub fn url(&self) -> String {
        format!("http://{}/api/1.4/", self.addr)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Do not wait for a request that hangs.
            runtime.shutdown_background();
        }
    }
}

/// Starts a server. Port 0 chooses a free port.
///
/// # Errors
/// `Data` when the address cannot be used.
pub fn serve(listen: SocketAddr, options: Options) -> Result<Server> {
    let failed = |what: &str, error: std::io::Error| {
        let what = format!("built-in API server on {listen}: {what}: {error}");
        Error::with_source(Kind::Data, what, error)
    };
    let listener = TcpListener::bind(listen).map_err(|error| {
        failed(
            "cannot listen; choose another port or stop what uses it",
            error,
        )
    })?;
    let addr = listener
        .local_addr()
        .map_err(|error| failed("no address", error))?;
    listener
        .set_nonblocking(true)
        .map_err(|error| failed("cannot be non-blocking", error))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("tidemill-api")
        .enable_all()
        .build()
        .map_err(|error| failed("no runtime", error))?;
    let api = Arc::new(Api {
        options,
        requests: AtomicU64::new(0),
        limit: Mutex::new((Instant::now(), 0)),
    });
    let router = Router::new()
        .route("/api", axum::routing::get(answer))
        .route("/api/", axum::routing::get(answer))
        .route("/api/1.4", axum::routing::get(answer))
        .route("/api/1.4/", axum::routing::get(answer))
        .fallback(|| async {
            (
                StatusCode::NOT_FOUND,
                "Unknown API version; this one is 1.4",
            )
        })
        .with_state(api);
    let listener = {
        let _entered = runtime.enter();
        tokio::net::TcpListener::from_std(listener)
            .map_err(|error| failed("cannot be polled", error))?
    };
    runtime.spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "built-in api server stopped");
        }
    });
    Ok(Server {
        addr,
        runtime: Some(runtime),
    })
}

/// The state of a server.
struct Api {
    /// Its settings.
    options: Options,
    /// Number of requests so far.
    requests: AtomicU64,
    /// Begin of the current window, and users answered in it.
    limit: Mutex<(Instant, u64)>,
}

/// An answer as JSON.
#[derive(Serialize)]
struct Answer<'a> {
    results: Vec<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<Info<'a>>,
}

/// The field `info` of an answer.
#[derive(Serialize)]
struct Info<'a> {
    seed: &'a str,
    results: u64,
    page: u64,
    version: &'static str,
}

/// The query parameters of a request.
type Parameters = HashMap<String, String>;

/// Answers a request.
async fn answer(State(api): State<Arc<Api>>, Query(query): Query<Parameters>) -> Response {
    let request = Request {
        number: api.requests.fetch_add(1, Ordering::Relaxed),
        page: number_in(&query, "page", PAGE_MAX),
        results: number_in(&query, "results", RESULTS_MAX),
    };
    let fault = api
        .options
        .faults
        .as_ref()
        .and_then(|faults| faults(&request));
    if matches!(fault, Some(Fault::Hang)) {
        std::future::pending::<()>().await;
    }
    if let Some(answer) = fault.as_ref().and_then(fault_answer) {
        return answer;
    }
    if let Some(seconds) = api.over_limit(request.results) {
        let body = r#"{"error": "Too many users were asked for; try again later."}"#;
        let wait = (header::RETRY_AFTER, seconds.to_string());
        let json = (header::CONTENT_TYPE, "application/json".to_owned());
        return (StatusCode::TOO_MANY_REQUESTS, [wait, json], body).into_response();
    }
    let mut body = match &api.options.source {
        Source::Made => made(&query, &request, fault == Some(Fault::NoUuid)),
        Source::Recorded(folder) => {
            let file = folder.join(format!("page-{:02}.json", request.page));
            std::fs::read(file).unwrap_or_else(|_| b"{\"results\":[]}".to_vec())
        }
    };
    if fault == Some(Fault::Truncated) {
        body.truncate(body.len() / 2);
    }
    json(body)
}

/// A JSON answer.
fn json(body: Vec<u8>) -> Response {
    (
        [(header::CONTENT_TYPE, "application/json; charset=utf-8")],
        body,
    )
        .into_response()
}

/// The answer of a fault that needs no page.
fn fault_answer(fault: &Fault) -> Option<Response> {
    let answer = match fault {
        Fault::Status(code) => {
            let code = StatusCode::from_u16(*code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (code, "something went wrong").into_response()
        }
        Fault::TooManyRequests(None) => StatusCode::TOO_MANY_REQUESTS.into_response(),
        Fault::TooManyRequests(Some(wait)) => {
            let wait = [(header::RETRY_AFTER, wait.clone())];
            (StatusCode::TOO_MANY_REQUESTS, wait).into_response()
        }
        Fault::Html => {
            let page = "<!DOCTYPE html><html><body>We are back soon</body></html>";
            ([(header::CONTENT_TYPE, "text/html")], page).into_response()
        }
        Fault::NoResults => json(b"{\"error\":\"no users today\"}".to_vec()),
        Fault::Body(body) => json(body.clone().into_bytes()),
        Fault::Truncated | Fault::NoUuid | Fault::Hang => return None,
    };
    Some(answer)
}

impl Api {
    /// Counts users against the limit. Beyond the limit, returns the seconds until the window ends.
    fn over_limit(&self, users: u64) -> Option<u64> {
        let mut limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        if limit.0.elapsed() >= self.options.window {
            *limit = (Instant::now(), 0);
        }
        if limit.1.saturating_add(users) > self.options.users_max {
            let left = self.options.window.saturating_sub(limit.0.elapsed());
            return Some(left.as_millis().div_ceil(1000).max(1) as u64);
        }
        limit.1 += users;
        None
    }
}

/// A number from 1 to `max`; any other value becomes 1, as in the real API.
fn number_in(query: &Parameters, name: &str, max: u64) -> u64 {
    let number = query.get(name).and_then(|text| text.parse().ok());
    number
        .filter(|number| (1..=max).contains(number))
        .unwrap_or(1)
}

/// A generated page as JSON.
fn made(query: &Parameters, request: &Request, no_uuid: bool) -> Vec<u8> {
    let list = |name: &str| -> Vec<String> {
        let text = query.get(name).map(String::as_str).unwrap_or_default();
        let words = text.split(',').map(|word| word.trim().to_lowercase());
        words.filter(|word| !word.is_empty()).collect()
    };
    let seed = match query.get("seed") {
        Some(seed) => seed.clone(),
        None => format!("{:016x}", rand::random::<u64>()),
    };
    let wanted = list("nat");
    let mut nations: Vec<usize> = (0..NATIONS.len())
        .filter(|at| wanted.contains(&NATIONS[*at].code.to_lowercase()))
        .collect();
    if nations.is_empty() {
        nations = (0..NATIONS.len()).collect();
    }
    // The real server ignores `gender` when there is a seed.
    let gender = match query.get("gender").map(String::as_str) {
        _ if query.contains_key("seed") => None,
        Some("female") => Some("female"),
        Some("male") => Some("male"),
        _ => None,
    };
    let (included, excluded) = (list("inc"), list("exc"));
    let mut results: Vec<User> = (0..request.results)
        .map(|index| users::user(&seed, request.page, index, &nations, gender))
        .collect();
    if !included.is_empty() || !excluded.is_empty() {
        for user in &mut results {
            choose(user, &included, &excluded);
        }
    }
    if no_uuid && let Some(login) = results.first_mut().and_then(|user| user.login.as_mut()) {
        login.uuid = None;
    }
    let info = (!query.contains_key("noinfo")).then_some(Info {
        seed: &seed,
        results: request.results,
        page: request.page,
        version: "1.4",
    });
    serde_json::to_vec(&Answer { results, info }).unwrap_or_default()
}

/// Removes the fields that `inc` does not include or `exc` excludes.
fn choose(user: &mut User, included: &[String], excluded: &[String]) {
    let gone = |field: &str| {
        let field = field.to_owned();
        (!included.is_empty() && !included.contains(&field)) || excluded.contains(&field)
    };
    macro_rules! drop_fields {
        ($($field:ident),*) => {
            $(if gone(stringify!($field)) {
                user.$field = None;
            })*
        };
    }
    drop_fields!(
        gender, name, location, email, login, dob, registered, phone, cell, id, picture, nat
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(query: &[(&str, &str)]) -> serde_json::Value {
        let query: Parameters = query
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect();
        let request = Request {
            number: 0,
            page: number_in(&query, "page", PAGE_MAX),
            results: number_in(&query, "results", RESULTS_MAX),
        };
        serde_json::from_slice(&made(&query, &request, false)).unwrap()
    }

    /// The paths and JSON types of a value.
    fn shape(value: &serde_json::Value, path: &str, into: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    shape(value, &format!("{path}.{name}"), into);
                }
            }
            other => into.push(format!("{path}:{}", other.is_string() || other.is_null())),
        }
    }

    #[test]
    fn pages_are_stable_and_of_the_recorded_shape() {
        let query = [("seed", "tidemill"), ("results", "5000"), ("page", "3")];
        let made = page(&query);
        assert_eq!(made, page(&query));
        let recorded: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/randomuser/page-01.json")).unwrap();
        let sample = &recorded["results"][0];
        let mut shapes = (Vec::new(), Vec::new());
        shape(sample, "", &mut shapes.0);
        let finn = made["results"]
            .as_array()
            .unwrap()
            .iter()
            .find(|u| u["nat"] == "FI");
        shape(finn.unwrap(), "", &mut shapes.1);
        assert_eq!(shapes.0, shapes.1);
        assert_eq!(made["info"]["version"], recorded["info"]["version"]);
    }

    #[test]
    fn uuids_are_distinct_and_all_nations_come() {
        let mut uuids = std::collections::BTreeSet::new();
        let mut nations = std::collections::BTreeSet::new();
        for number in 1..=4 {
            let number = number.to_string();
            let made = page(&[("seed", "a"), ("results", "5000"), ("page", &number)]);
            for user in made["results"].as_array().unwrap() {
                uuids.insert(user["login"]["uuid"].as_str().unwrap().to_owned());
                nations.insert(user["nat"].as_str().unwrap().to_owned());
                let age = user["dob"]["age"].as_i64().unwrap();
                assert!((20..=80).contains(&age), "{age}");
                let text = matches!(user["nat"].as_str(), Some("CA" | "GB" | "NO"));
                assert_eq!(user["location"]["postcode"].is_string(), text);
            }
        }
        assert_eq!((uuids.len(), nations.len()), (20_000, 21));
    }

    #[test]
    fn fields_nations_and_genders_can_be_chosen() {
        let made = page(&[("inc", "gender,nat"), ("nat", "de,fr"), ("results", "100")]);
        for user in made["results"].as_array().unwrap() {
            assert_eq!(user.as_object().unwrap().len(), 2);
            assert!(["DE", "FR"].contains(&user["nat"].as_str().unwrap()));
        }
        let made = page(&[
            ("gender", "male"),
            ("exc", "login"),
            ("noinfo", ""),
            ("results", "50"),
        ]);
        assert!(made.get("info").is_none());
        for user in made["results"].as_array().unwrap() {
            assert_eq!(user["gender"], "male");
            assert!(user.get("login").is_none() && user.get("name").is_some());
        }
        assert_eq!(
            page(&[("results", "5001")])["results"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
    }
}
