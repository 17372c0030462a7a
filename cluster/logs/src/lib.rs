//! Log reader: the log lines of many processes as one list, read from files after a cursor, in
//! bounded pages, merged by time.
//!
//! ```text
//! files of worker A   ─ folder::read ─► page ┐
//! files of worker B   ─ folder::read ─► page ┼─ page::merge ─► one page, lines by time
//! files of the master ─ folder::read ─► page ┘
//! ```
//!
//! In: files that [`crate::logging`] wrote, as text or JSON, and pages of other processes. Out:
//! pages. A cursor contains for each process how far its files were read. A request with the cursor
//! of the last page gets the lines that follow.
//!
//! Invariants:
//! 1. Following the cursors, each line that is kept long enough is returned once, whatever the
//!    clocks of the machines say.
//! 2. A page is sorted by time, as far as that keeps the lines of each process in their own order.
//! 3. A page has at most `page::LINES_MAX` lines. Each worker reads at most
//!    `page::SCAN_BYTES_MAX` bytes of lines for it.
//! 4. Only files that were found in the folder are opened, never one that a cursor names.
//!
//! Over HTTP, a page is what `GET /api/v1/logs` answers. The parameters are the fields of
//! [`Query`]:
//!
//! ```
//! let query = tidemill_logs::Query {
//!     job: Some("users".to_owned()),
//!     level: tidemill_logs::level("warn").map(str::to_owned),
//!     ..Default::default()
//! };
//! let pairs = query.pairs();
//! assert_eq!(pairs, [("job", "users".to_owned()), ("level", "WARN".to_owned())]);
//! ```

mod folder;
pub mod logging;
mod merged;
mod page;
pub mod rotate;
mod source;

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::{Query as UrlQuery, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use tidemill_protocol::token::Token;

pub(crate) use folder::read;
pub use merged::Peers;
pub use page::{Line, Page, Query, level};
pub use source::tail;

/// The path of a worker's own lines, which the master asks for.
pub(crate) const PATH: &str = "/cluster/logs";

/// State of the route.
struct Served {
    /// The worker's name in the lines and cursors.
    worker: String,
    /// The folder of the log files.
    folder: PathBuf,
    /// The token that a request must show; `None` shows the logs to everybody.
    token: Option<Token>,
}

/// Route [`PATH`] of a worker: the lines of a folder, under the name `worker`. Needs the
/// token if there is one.
pub fn routes(worker: &str, folder: PathBuf, token: Option<Token>) -> Router {
    routes_at(PATH, worker, folder, token)
}

/// The same at another path.
pub fn routes_at(path: &str, worker: &str, folder: PathBuf, token: Option<Token>) -> Router {
    let served = Served {
        worker: worker.to_owned(),
        folder,
        token,
    };
    Router::new()
        .route(path, get(answer))
        .with_state(Arc::new(served))
}

/// Answers with one page, or 401 without the token.
async fn answer(
    State(served): State<Arc<Served>>,
    headers: HeaderMap,
    UrlQuery(query): UrlQuery<Query>,
) -> Result<Json<Page>, (StatusCode, Json<serde_json::Value>)> {
    let refuse = |status, why: String| (status, Json(serde_json::json!({ "error": why })));
    let shown = headers.get(AUTHORIZATION).and_then(|it| it.to_str().ok());
    let shown = shown.and_then(|shown| shown.strip_prefix("Bearer "));
    let is_it = |token: &Token| shown.is_some_and(|shown| token.is(shown));
    if !served.token.as_ref().is_none_or(is_it) {
        let why = "logs are shown to who has the cluster's token".to_owned();
        return Err(refuse(StatusCode::UNAUTHORIZED, why));
    }
    // Files are read on another thread, because this one also answers the liveness checks.
    let read = move || read(&served.folder, &served.worker, &query);
    let read = tokio::task::spawn_blocking(read).await;
    let read = read.map_err(std::io::Error::other).flatten();
    read.map(Json)
        .map_err(|error| refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::{fs, io};

    use jiff::Timestamp;

    use super::page::{LINES_MAX, merge};
    use super::*;

    fn append(folder: &Path, file: &str, text: &str) {
        let mut open = fs::OpenOptions::new();
        let file = open.create(true).append(true).open(folder.join(file));
        io::Write::write_all(&mut file.unwrap(), text.as_bytes()).unwrap();
    }

    fn line(second: u32, level: &str, said: &str) -> String {
        format!("2026-11-22T21:14:{second:02}.000001Z {level:>5} job=a process=0 x: {said}\n")
    }

    fn said(page: &Page) -> Vec<&str> {
        let last = |line: &'_ Line| line.text.rfind("x: ").map_or(0, |at| at + 3);
        page.lines
            .iter()
            .map(|line| &line.text[last(line)..])
            .collect()
    }

    fn after(query: &Query, page: &Page) -> Query {
        Query {
            after: Some(serde_json::to_string(&page.cursor).unwrap()),
            ..query.clone()
        }
    }

    #[test]
    fn lines_of_all_files_come_by_time_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let json = "{\"job\":\"a\",\"timestamp\":\"2026-11-22T21:14:03.5Z\",\"level\":\"WARN\",\
                    \"fields\":{\"message\":\"x: j\"}}\n";
        append(path, "a.dataflow.0.000001.log", &line(1, "INFO", "one"));
        append(
            path,
            "a.dataflow.0.000002.log",
            &line(4, "ERROR", "four\n  at b.rs"),
        );
        append(path, "a.dataflow.0.000002.log", &line(5, "INFO", "five"));
        append(path, "b.ingest.0.000001.log", json);
        append(
            path,
            "b.ingest.0.000001.log",
            "2026-11-22T21:14:06Z  INFO half a li",
        );
        append(path, "notes.txt", &line(2, "INFO", "no"));
        let all = Query::default();
        let page = read(path, "w", &all).unwrap();
        let expected = ["one", "j\"}}", "four\n  at b.rs", "five"];
        assert_eq!(said(&page), expected);
        assert!(!page.more);
        append(path, "b.ingest.0.000001.log", "ne\n");
        append(path, "a.dataflow.0.000003.log", &line(3, "INFO", "late"));
        let next = read(path, "w", &after(&all, &page)).unwrap();
        assert_eq!(next.lines.len(), 2);
        assert_eq!(said(&next)[0], "late");
        assert!(next.lines[1].text.ends_with("half a line"));
        let end = read(path, "w", &after(&all, &next)).unwrap();
        assert_eq!(end.lines, []);
        // Another worker's place says nothing here.
        assert_eq!(read(path, "v", &after(&all, &next)).unwrap().lines.len(), 6);
    }

    #[test]
    fn lines_are_chosen_by_job_process_level_and_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        append(path, "a.dataflow.0.000001.log", &line(1, "INFO", "a0"));
        append(path, "a.dataflow.1.000001.log", &line(2, "WARN", "a1"));
        append(path, "b.ingest.0.000001.log", &line(3, "ERROR", "b"));
        append(path, "worker.000001.log", &line(4, "DEBUG", "w"));
        let ask = |query: &Query| {
            let page = read(path, "n.1", query).unwrap();
            said(&page).join(" ")
        };
        let process = |process: &str| Query {
            process: Some(process.to_owned()),
            ..Query::default()
        };
        assert_eq!(ask(&process("dataflow")), "a0 a1");
        assert_eq!(ask(&process("a.dataflow.1")), "a1");
        assert_eq!(ask(&process("flow")), "");
        assert_eq!(ask(&process("worker")), "w");
        assert_eq!(ask(&process("n.1")), "a0 a1 b w");
        let job = Query {
            job: Some("b".to_owned()),
            ..Query::default()
        };
        assert_eq!(ask(&job), "b");
        let level = Query {
            level: Some("WARN".to_owned()),
            ..Query::default()
        };
        assert_eq!(ask(&level), "a1 b");
        let time: Timestamp = "2026-11-22T21:14:02Z".parse().unwrap();
        let since = Query {
            since_ms: Some(time.as_millisecond()),
            ..Query::default()
        };
        assert_eq!(ask(&since), "a1 b w");
    }

    #[test]
    fn pages_are_bounded_and_follow_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let many: String = (0..LINES_MAX + 10)
            .map(|n| line(1, "INFO", &n.to_string()))
            .collect();
        append(path, "a.dataflow.0.000001.log", &many);
        let all = Query::default();
        let page = read(path, "w", &all).unwrap();
        assert_eq!((page.lines.len(), page.more), (LINES_MAX, true));
        let next = read(path, "w", &after(&all, &page)).unwrap();
        assert_eq!((next.lines.len(), next.more), (10, false));
        assert_eq!(said(&next)[0], LINES_MAX.to_string());
    }

    #[test]
    fn pages_of_workers_are_merged_as_far_as_all_are_known() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        append(
            one.path(),
            "a.dataflow.0.000001.log",
            &line(1, "INFO", "one"),
        );
        append(
            one.path(),
            "a.dataflow.0.000001.log",
            &line(3, "INFO", "three"),
        );
        append(
            two.path(),
            "a.dataflow.1.000001.log",
            &line(2, "INFO", "two"),
        );
        append(
            two.path(),
            "a.dataflow.1.000001.log",
            &line(4, "DEBUG", "four"),
        );
        let ask = |query: &Query| {
            let first = read(one.path(), "w1", query).unwrap();
            (first, read(two.path(), "w2", query).unwrap())
        };
        let all = Query::default();
        let (first, second) = ask(&all);
        let whole = merge(&all, vec![first.clone(), second]);
        assert_eq!(said(&whole), ["one", "two", "three", "four"]);
        assert!(!whole.more);
        // Of the second more is to come after what is older than the first's last line.
        let (_, mut second) = ask(&all);
        let fourth = second.lines.pop().unwrap();
        second.cursor.insert(fourth.source(), second.lines[0].next);
        second.more = true;
        let part = merge(&all, vec![first, second]);
        assert_eq!(said(&part), ["one", "two"]);
        assert!(part.more);
        let then = after(&all, &part);
        let (first, second) = ask(&then);
        let rest = merge(&then, vec![first, second]);
        assert_eq!(said(&rest), ["three", "four"]);
        // What was not asked for is not read again either.
        let info = Query {
            level: Some("INFO".to_owned()),
            ..all
        };
        let (first, second) = ask(&info);
        assert_eq!(merge(&info, vec![first, second]).cursor, whole.cursor);
    }
}
