//! Who may read and change: the token of the cluster, in a header or in a cookie.
//!
//! Programs send `Authorization: Bearer TOKEN`. A browser posts the token once to
//! `/api/v1/session`, and keeps it in a cookie that no script can read (`HttpOnly`) and that no
//! page of another site can make the browser send (`SameSite=Strict`).
//!
//! 1. Without a token set, everybody who reaches the server may read and change.
//! 2. With one, every guarded request is 401 unless it shows the token.
//! 3. A request of another site's page (`Origin`) is 403.
//! 4. A server that is for this machine alone answers a browser under no other host name: a page
//!    elsewhere whose name points here (DNS rebinding) is 403.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN, SET_COOKIE, USER_AGENT};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use tidemill_protocol::token::{self, COOKIE, Token};

use super::refused;

/// Limit of a log-in request, in bytes.
const LOG_IN_BYTES_MAX: usize = 16 * 1024;
/// How long a browser keeps the cookie: 30 days, in seconds.
const KEPT_S: u64 = 30 * 24 * 60 * 60;

/// Who serves, and the token that opens it. Cheap to clone.
#[derive(Clone)]
pub struct Session {
    /// `master`, or `run`.
    pub kind: &'static str,
    /// What the server has beside the status: `audit`, `changes`, `logs`.
    pub features: &'static [&'static str],
    /// The token; `None` when none is set.
    pub token: Option<Arc<Token>>,
    /// Whether only this machine shall reach the server.
    pub own_machine: bool,
    /// Whether the browser speaks TLS with the server; then it sends the cookie over TLS alone.
    pub tls: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("kind", &self.kind).finish()
    }
}

impl Session {
    /// Whether a request may read and change.
    fn is_open_to(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else {
            return true;
        };
        token.is_shown(headers)
    }

    /// Why a browser must not send this request for the page that it shows.
    fn is_foreign(&self, headers: &HeaderMap) -> Option<&'static str> {
        if is_of_another_site(headers) {
            return Some("a page of another site may not do this");
        }
        let is_named = self.own_machine && is_browser(headers) && !is_own_name(headers);
        is_named.then_some("this server answers on this machine's own addresses alone")
    }

    /// The cookie with this value, which ends after `seconds`.
    fn kept(&self, value: &str, seconds: u64) -> String {
        let secure = if self.tls { "; Secure" } else { "" };
        format!("{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
    }
}

/// Whether a browser sends this request for a page of another site, by its header `Origin`.
pub fn is_of_another_site(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else {
        return false;
    };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let origin = origin.to_str().ok().and_then(|it| it.split_once("://"));
    origin.map(|(_, authority)| authority) != host || host.is_none()
}

/// Whether a browser asks: all of them call themselves so.
fn is_browser(headers: &HeaderMap) -> bool {
    let name = headers.get(USER_AGENT).and_then(|name| name.to_str().ok());
    name.is_some_and(|name| name.starts_with("Mozilla/"))
}

/// Whether the request was sent to an address or to `localhost`, and not to another name.
fn is_own_name(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let Some(host) = host else {
        return true;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|it| it.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// Middleware of the routes that need the token.
///
/// # Errors
/// 403 for a page of another site or another name of this machine, 401 without the token.
pub async fn guard(
    State(session): State<Session>,
    request: Request,
    next: Next,
) -> Result<Response, Response> {
    let headers = request.headers();
    if let Some(why) = session.is_foreign(headers) {
        return Err(refused(StatusCode::FORBIDDEN, why));
    }
    if session.is_open_to(headers) {
        return Ok(next.run(request).await);
    }
    let why = match token::shown(headers).is_some() || token::cookie(headers).is_some() {
        true => "the token is not this server's",
        false => {
            "this needs the token: `Authorization: Bearer TOKEN` (TIDEMILL_TOKEN or \
             TIDEMILL_TOKEN_FILE)"
        }
    };
    Err(refused(StatusCode::UNAUTHORIZED, why))
}

/// Routes of logging in and out.
pub(super) fn router(session: Session) -> Router {
    Router::new()
        .route("/api/v1/session", get(told).post(log_in).delete(log_out))
        .with_state(session)
}

/// Who serves, and whether the request may read.
async fn told(State(session): State<Session>, headers: HeaderMap) -> Response {
    if let Some(why) = session.is_foreign(&headers) {
        return refused(StatusCode::FORBIDDEN, why);
    }
    let told = json!({
        "kind": session.kind,
        "features": session.features,
        "version": env!("CARGO_PKG_VERSION"),
        "token": session.token.is_some(),
        "authenticated": session.is_open_to(&headers),
    });
    Json(told).into_response()
}

/// The body of a log-in.
#[derive(Deserialize)]
struct LogIn {
    token: String,
}

/// Puts the token into a cookie, if it is the right one.
async fn log_in(State(session): State<Session>, headers: HeaderMap, body: Body) -> Response {
    if let Some(why) = session.is_foreign(&headers) {
        return refused(StatusCode::FORBIDDEN, why);
    }
    let body = to_bytes(body, LOG_IN_BYTES_MAX).await.ok();
    let given = body.and_then(|bytes| serde_json::from_slice::<LogIn>(&bytes).ok());
    let Some(LogIn { token: given }) = given else {
        return refused(StatusCode::BAD_REQUEST, r#"expected {"token": "…"}"#);
    };
    let given = given.trim();
    match &session.token {
        None => Json(json!({"message": "no token is needed"})).into_response(),
        Some(token) if token.is(given) => {
            let cookie = session.kept(&token::digits(given), KEPT_S);
            (
                [(SET_COOKIE, cookie)],
                Json(json!({"message": "logged in"})),
            )
                .into_response()
        }
        Some(_) => refused(StatusCode::UNAUTHORIZED, "the token is not this server's"),
    }
}

/// Takes the cookie back.
async fn log_out(State(session): State<Session>, headers: HeaderMap) -> Response {
    if let Some(why) = session.is_foreign(&headers) {
        return refused(StatusCode::FORBIDDEN, why);
    }
    let cookie = session.kept("", 0);
    (
        [(SET_COOKIE, cookie)],
        Json(json!({"message": "logged out"})),
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    /// Headers of these names and values.
    fn headers(given: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = given.iter().map(|(name, value)| {
            let name = axum::http::HeaderName::from_static(name);
            (name, HeaderValue::from_str(value).unwrap())
        });
        pairs.collect()
    }

    #[test]
    fn a_name_that_points_here_is_foreign() {
        for own in ["127.0.0.1:7070", "localhost:1", "[::1]:80", "[::1]"] {
            assert!(is_own_name(&headers(&[("host", own)])), "{own}");
        }
        assert!(!is_browser(&headers(&[("user-agent", "curl/8.5.0")])));
        for foreign in [
            "evil.example:7070",
            "evil.example",
            "127.0.0.1.evil.example:1",
        ] {
            assert!(!is_own_name(&headers(&[("host", foreign)])), "{foreign}");
        }
    }
}
