//! Files of the control center's pages. They are compiled into the binary and load nothing from
//! elsewhere, so the pages work where a cluster cannot reach the internet.
//!
//! ```text
//! cluster/web/app ─► rust-embed ─► packed once, at the first request ─► browser
//! ```
//!
//! `/` is `index.html`, and every other file is below `/app/`. An answer is gzip when the browser
//! takes it. A browser asks each time whether a file changed (`no-cache` with an `ETag`), because a
//! new release brings other files.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use flate2::Compression;
use flate2::write::GzEncoder;
use rust_embed::RustEmbed;

/// Content security policy: only the pages' own files may run. Text of a job stays text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                      connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// The folder `app`, as it was when the binary was built.
#[derive(RustEmbed)]
#[folder = "app"]
struct Embedded;

/// A file as it is sent.
struct File {
    /// The content type.
    kind: &'static str,
    /// The text as it is in the folder.
    plain: Vec<u8>,
    /// The same text, compressed.
    gzip: Vec<u8>,
    /// A quoted hash of the text.
    tag: String,
}

/// All files by their path in the folder.
static FILES: LazyLock<BTreeMap<String, File>> = LazyLock::new(|| {
    let files = Embedded::iter().filter_map(|path| {
        let kind = kind(&path)?;
        let found = Embedded::get(&path)?;
        let hash = found.metadata.sha256_hash();
        let hex: String = hash.iter().take(16).map(|it| format!("{it:02x}")).collect();
        let plain = found.data.into_owned();
        let file = File {
            kind,
            gzip: packed(&plain),
            plain,
            tag: format!("\"{hex}\""),
        };
        Some((path.into_owned(), file))
    });
    files.collect()
});

/// The content type of a file; `None` for files that are not sent, such as types for the checker.
fn kind(path: &str) -> Option<&'static str> {
    let (_, ending) = path.rsplit_once('.')?;
    match ending {
        "html" => Some("text/html; charset=utf-8"),
        "css" => Some("text/css; charset=utf-8"),
        "js" | "mjs" => Some("text/javascript; charset=utf-8"),
        "txt" => Some("text/plain; charset=utf-8"),
        _ => None,
    }
    .filter(|_| !path.ends_with(".d.mts"))
}

/// The gzip form of a text.
fn packed(plain: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    let written = packed.write_all(plain).and_then(|()| packed.finish());
    // Writing to memory does not fail. An empty text would only be sent uncompressed.
    written.unwrap_or_default()
}

/// The size of all files as a browser loads them, in bytes.
#[cfg(test)]
pub(super) fn bytes_loaded() -> usize {
    FILES.values().map(|file| file.gzip.len()).sum()
}

/// The paths of all files that are sent.
#[cfg(test)]
pub(super) fn paths() -> impl Iterator<Item = &'static str> {
    FILES.keys().map(String::as_str)
}

/// The answer with a file: 304 when the browser has it, 404 when there is none.
fn answer(path: &str, asked: &HeaderMap) -> Response {
    let Some(file) = FILES.get(path) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let has = |name, part: &str| {
        let value = asked.get(name).and_then(|it| it.to_str().ok());
        value.is_some_and(|value| value.contains(part))
    };
    let same = [
        (ETAG, file.tag.as_str()),
        (CACHE_CONTROL, "no-cache"),
        (VARY, "accept-encoding"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    if has(IF_NONE_MATCH, &file.tag) {
        return (StatusCode::NOT_MODIFIED, same).into_response();
    }
    let kind = [(CONTENT_TYPE, file.kind)];
    if has(ACCEPT_ENCODING, "gzip") && !file.gzip.is_empty() {
        return (same, kind, [(CONTENT_ENCODING, "gzip")], &*file.gzip).into_response();
    }
    (same, kind, &*file.plain).into_response()
}

/// Routes of the files.
pub(super) fn router() -> Router {
    let index = get(async |asked: HeaderMap| answer("index.html", &asked));
    let file = get(async |Path(path): Path<String>, asked: HeaderMap| answer(&path, &asked));
    Router::new().route("/", index).route("/app/{*path}", file)
}
