//! Audit log: every change that somebody asked of the cluster, in the store beside the master's
//! state, so that it survives the master.
//!
//! ```text
//! request ─► put cluster/audit/N ("asked") ─► the change ─► put cluster/audit/N (its answer)
//! ```
//!
//! 1. An entry is durable before its change begins. A change without an answer in the log was asked
//!    for, and whether it happened is unknown: the master died meanwhile.
//! 2. Requests that are refused are entries too.
//! 3. At most [`ENTRIES_KEPT_MAX`] entries are kept; the oldest are deleted.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use axum::{Json, Router, routing};
use serde::{Deserialize, Serialize};
use tidemill_protocol::redact;
use tidemill_state::store::Store;

use super::refused;
use super::stored::Stored;

/// Limit of entries that are kept.
const ENTRIES_KEPT_MAX: usize = 500;
/// Limit of an answer's text in an entry, in characters.
const ANSWER_CHARS_MAX: usize = 500;
/// Limit of an answer that is read for its entry, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Attempts to find a free number, when two masters write at the same time.
const NUMBERS_TRIED_MAX: u64 = 20;

/// A change that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Rises with each entry.
    number: u64,
    /// When it was asked for, in ms since 1970 by the master's clock.
    at_ms: u64,
    /// `page` for a browser, `program` for all others.
    by: String,
    /// The method of the request.
    method: String,
    /// The path and the query of the request.
    what: String,
    /// The HTTP status of the answer; `None` while there is none.
    status: Option<u16>,
    /// The text of the answer.
    answer: Option<String>,
}

/// The log of one cluster, or of one pipeline. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Audit {
    stored: Stored,
    /// The newest entries, the oldest first; `None` until they are read.
    entries: Arc<Mutex<Option<VecDeque<Entry>>>>,
}

impl Audit {
    /// The log in a folder `audit` below `folder` of the store at `url`. Reads nothing yet.
    pub fn new(url: &str, folder: &str) -> Self {
        Self {
            stored: Stored::new(url, &format!("{folder}/audit")),
            entries: Arc::default(),
        }
    }

    /// Carries something out with the entries, which are read when it is the first time.
    ///
    /// # Errors
    /// The store does not answer, or what `work` gives.
    fn with<T>(
        &self,
        work: impl FnOnce(&dyn Store, &mut VecDeque<Entry>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let store = self.stored.store()?;
        let entries = self.entries.lock();
        let mut entries = entries.unwrap_or_else(PoisonError::into_inner);
        let entries = match &mut *entries {
            Some(entries) => entries,
            none => none.insert(self.read(&*store)?),
        };
        work(&*store, entries)
    }

    /// Reads the newest entries.
    ///
    /// # Errors
    /// The store does not answer.
    fn read(&self, store: &dyn Store) -> anyhow::Result<VecDeque<Entry>> {
        let folder = self.stored.name("");
        let names = store.list(folder.trim_end_matches('/'))?;
        let names: Vec<String> = names.into_iter().map(|it| it.0).collect();
        let old = names.len().saturating_sub(ENTRIES_KEPT_MAX);
        let newest = names.get(old..).unwrap_or_default();
        // An entry of a later version that cannot be read is left where it is.
        let read = store.get_all(newest)?.into_iter().flatten();
        Ok(read
            .filter_map(|bytes| serde_json::from_slice(&bytes).ok())
            .collect())
    }

    /// The entries, the newest first.
    ///
    /// # Errors
    /// The store does not answer.
    pub(super) fn newest(&self) -> anyhow::Result<Vec<Entry>> {
        self.with(|_, entries| Ok(entries.iter().rev().cloned().collect()))
    }

    /// The name of an entry's object.
    fn name(&self, number: u64) -> String {
        self.stored.name(&format!("{number:020}"))
    }

    /// Writes a new entry, which is durable when this returns, and deletes the oldest ones beyond
    /// the limit.
    ///
    /// # Errors
    /// The store does not answer, or others take all numbers.
    fn begin(&self, mut entry: Entry) -> anyhow::Result<Entry> {
        self.with(|store, entries| {
            let first = entries.back().map_or(0, |newest| newest.number) + 1;
            for number in first..first + NUMBERS_TRIED_MAX {
                entry.number = number;
                if !store.put_new(&self.name(number), serde_json::to_vec(&entry)?)? {
                    continue;
                }
                entries.push_back(entry.clone());
                while entries.len() > ENTRIES_KEPT_MAX {
                    if let Some(old) = entries.pop_front() {
                        store.delete(&self.name(old.number))?;
                    }
                }
                return Ok(entry);
            }
            anyhow::bail!("others write the audit log at the same time");
        })
    }

    /// Writes the answer of an entry.
    ///
    /// # Errors
    /// The store does not answer.
    fn end(&self, entry: &Entry) -> anyhow::Result<()> {
        self.with(|store, entries| {
            store.put(&self.name(entry.number), serde_json::to_vec(entry)?)?;
            if let Some(kept) = entries.iter_mut().find(|it| it.number == entry.number) {
                kept.clone_from(entry);
            }
            Ok(())
        })
    }

    /// The routes of the log.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/api/v1/audit", routing::get(list))
            .with_state(self.clone())
    }
}

/// The entries, the newest first.
///
/// # Errors
/// 503 when the store does not answer.
async fn list(State(log): State<Audit>) -> Result<Json<Vec<Entry>>, Response> {
    let read = tokio::task::spawn_blocking(move || log.newest()).await;
    let why = match read {
        Ok(Ok(entries)) => return Ok(Json(entries)),
        Ok(Err(error)) => format!("the audit log cannot be read: {error:#}"),
        Err(error) => error.to_string(),
    };
    Err(refused(StatusCode::SERVICE_UNAVAILABLE, redact::text(&why)))
}

/// Middleware: writes an entry for each request that may change something.
///
/// # Errors
/// 503 when the entry cannot be written; then the change does not begin.
pub async fn audited(
    State(audit): State<Audit>,
    request: Request,
    next: Next,
) -> Result<Response, Response> {
    if [Method::GET, Method::HEAD].contains(request.method()) {
        return Ok(next.run(request).await);
    }
    let asked = entry(&request);
    let log = audit.clone();
    let begun = tokio::task::spawn_blocking(move || log.begin(asked)).await;
    let begun = match begun {
        Ok(Ok(begun)) => begun,
        Ok(Err(error)) => return Err(unwritten(&format!("{error:#}"))),
        Err(error) => return Err(unwritten(&error.to_string())),
    };
    let (answer, entry) = answered(next.run(request).await, begun).await;
    let ended = tokio::task::spawn_blocking(move || audit.end(&entry)).await;
    if let Ok(Err(error)) = ended {
        tracing::warn!("the audit log lacks an answer: {error:#}");
    }
    Ok(answer)
}

/// The refusal of a change whose entry cannot be written.
fn unwritten(error: &str) -> Response {
    let why = format!("nothing was changed, because the audit log cannot be written: {error}");
    refused(StatusCode::SERVICE_UNAVAILABLE, why)
}

/// The entry of a request.
fn entry(request: &Request) -> Entry {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let uri = request.uri();
    let is_page = request.headers().contains_key(header::ORIGIN);
    Entry {
        number: 0,
        at_ms: now.map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(0)),
        by: if is_page { "page" } else { "program" }.to_owned(),
        method: request.method().to_string(),
        what: uri
            .path_and_query()
            .map_or_else(String::new, ToString::to_string),
        status: None,
        answer: None,
    }
}

/// The answer as it came, and the entry with its text.
async fn answered(answer: Response, mut entry: Entry) -> (Response, Entry) {
    let (head, body) = answer.into_parts();
    entry.status = Some(head.status.as_u16());
    let Ok(bytes) = to_bytes(body, ANSWER_BYTES_MAX).await else {
        let why = format!("the answer has more than {ANSWER_BYTES_MAX} bytes");
        return (refused(StatusCode::INTERNAL_SERVER_ERROR, why), entry);
    };
    entry.answer = Some(text(&bytes));
    (Response::from_parts(head, Body::from(bytes)), entry)
}

/// The sentence of an answer, at most [`ANSWER_CHARS_MAX`] characters of it.
fn text(bytes: &Bytes) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_slice(bytes).ok();
    let of = |name: &str| Some(parsed.as_ref()?.get(name)?.as_str()?.to_owned());
    let text = of("message").or_else(|| of("error"));
    let text = text.unwrap_or_else(|| String::from_utf8_lossy(bytes).into_owned());
    text.chars().take(ANSWER_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry of this path.
    fn asked(what: &str) -> Entry {
        Entry {
            number: 0,
            at_ms: 5,
            by: "page".to_owned(),
            method: "POST".to_owned(),
            what: what.to_owned(),
            status: None,
            answer: None,
        }
    }

    #[test]
    fn entries_outlive_a_master_and_the_oldest_go() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}", folder.path().display());
        let audit = Audit::new(&url, "cluster");
        let mut first = audit.begin(asked("/first")).unwrap();
        first.status = Some(200);
        audit.end(&first).unwrap();
        assert_eq!(audit.newest().unwrap(), [first.clone()]);
        let next = Audit::new(&url, "cluster");
        assert_eq!(next.newest().unwrap(), [first]);
        for _ in 0..ENTRIES_KEPT_MAX {
            next.begin(asked("/later")).unwrap();
        }
        // The first master has not seen these numbers.
        let mine = audit.begin(asked("/mine"));
        assert!(mine.is_err(), "a taken number was written over");
        let back = Audit::new(&url, "cluster");
        let kept = back.newest().unwrap();
        assert_eq!(kept.len(), ENTRIES_KEPT_MAX);
        assert!(kept.iter().all(|it| it.what == "/later"));
    }
}
