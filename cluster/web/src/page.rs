//! Status page of the master: three files that are compiled into the binary and load nothing from
//! elsewhere. The page reads `/v1/status` once a second.
//!
//! The files are `page/status.html`, `page/status.css` and `page/status.js`. The page needs no
//! build step and no network beyond the master, so it works where a cluster has no access to the
//! internet. The browser must not keep the files (`no-cache`), because a new release of the master
//! brings other ones.

use axum::Router;
use axum::http::HeaderName;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::routing::get;

/// Content security policy: only the page's own files may run. A job's name or a failure's text
/// stays text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                      connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// The names and values of the headers of one file.
type Headers = [(HeaderName, &'static str); 5];

/// The headers of each file.
///
/// `kind` is the content type.
fn headers(kind: &'static str) -> Headers {
    [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-cache"),
    ]
}

/// Routes of the page and its files.
pub(super) fn router() -> Router {
    let file = |kind: &'static str, text: &'static str| get(async move || (headers(kind), text));
    Router::new()
        .route(
            "/",
            file("text/html; charset=utf-8", include_str!("page/status.html")),
        )
        .route(
            "/status.css",
            file("text/css; charset=utf-8", include_str!("page/status.css")),
        )
        .route(
            "/status.js",
            file(
                "text/javascript; charset=utf-8",
                include_str!("page/status.js"),
            ),
        )
}
