//! The log lines of many processes as one list: read from a folder's files after a cursor, served
//! in bounded pages, merged by time.
//!
//! Flows in: what [`crate::logging`] wrote, in text or JSON, and pages of other processes. Flows
//! out: pages. A cursor says for each process how far it was read; who asks with the cursor of the
//! last page gets what came since.
//!
//! Invariants:
//! 1. Following cursors, a line that is kept long enough is told once, whatever clocks say.
//! 2. Lines of one page are in the order of their times, and of each process in their own order.
//! 3. A page has at most [`LINES_MAX`] lines, and reads at most [`SCAN_BYTES_MAX`] bytes.
//! 4. Only files that were found in the folder are opened, never one that a cursor names.

mod gather;
mod source;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use axum::extract::{Query as UrlQuery, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

pub(crate) use gather::Peers;
use source::Source;
pub(crate) use source::tail;

use crate::master::token::Token;
use crate::rotate;

/// Lines of one page.
pub(crate) const LINES_MAX: usize = 1000;
/// Bytes that are read for one page, whether or not they are in it.
const SCAN_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Bytes of one line that are told.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Levels, the most serious first.
const LEVELS: [&str; 5] = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];

/// How far each process was read, by `WORKER/STEM`: the file's number and the offset in it.
pub(crate) type Cursor = BTreeMap<String, (u64, u64)>;

/// What is asked for. Also the query of `GET /v1/logs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Query {
    /// The cursor of the page before, as JSON.
    pub(crate) after: Option<String>,
    pub(crate) job: Option<String>,
    /// Words of `WORKER/JOB.PART.INDEX` that follow each other, as `dataflow.0` or `node1`.
    pub(crate) process: Option<String>,
    /// The least serious level.
    pub(crate) level: Option<String>,
    /// Nothing older, in milliseconds since 1970-01-01T00:00:00Z.
    pub(crate) since_ms: Option<i64>,
}

/// Some lines, and where to go on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Page {
    pub(crate) lines: Vec<Line>,
    pub(crate) cursor: Cursor,
    /// There are further lines already.
    pub(crate) more: bool,
    /// Workers that did not answer, and why.
    pub(crate) missing: BTreeMap<String, String>,
}

/// A line, with those that belong to it, as of a backtrace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// The name of the worker in whose folder it is.
    pub(crate) worker: String,
    /// `JOB.PART.INDEX`, `worker` or `master`.
    pub(crate) process: String,
    /// When, in microseconds since 1970-01-01T00:00:00Z; 0 when it does not say.
    pub(crate) time_us: i64,
    /// Empty when it does not say.
    pub(crate) level: String,
    pub(crate) text: String,
    /// Where the next one begins.
    pub(crate) next: (u64, u64),
}

impl Line {
    fn source(&self) -> String {
        format!("{}/{}", self.worker, self.process)
    }
}

/// A level as people write it, if there is one of that name.
pub(crate) fn level(given: &str) -> Option<&'static str> {
    let given = given.to_ascii_uppercase();
    LEVELS.into_iter().find(|level| *level == given)
}

impl Query {
    /// Where the page before ended. One that nobody here made counts as none.
    fn cursor(&self) -> Cursor {
        let after = self.after.as_deref();
        let parsed = after.and_then(|after| serde_json::from_str(after).ok());
        parsed.unwrap_or_default()
    }

    /// As the parameters of a URL.
    pub(crate) fn pairs(&self) -> Vec<(&'static str, String)> {
        let since = self.since_ms.map(|since| since.to_string());
        let all = [
            ("after", self.after.clone()),
            ("job", self.job.clone()),
            ("process", self.process.clone()),
            ("level", self.level.clone()),
            ("since_ms", since),
        ];
        let given = all.into_iter();
        given
            .filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }

    fn wants(&self, worker: &str, stem: &str) -> bool {
        let of_job = |job: &String| stem.split_once('.').is_some_and(|(its, _)| its == job);
        let process = |given: &String| {
            let split =
                |text: &str| -> Vec<String> { text.split(['/', '.']).map(str::to_owned).collect() };
            let (all, given) = (split(&format!("{worker}/{stem}")), split(given));
            all.windows(given.len()).any(|words| words == given)
        };
        self.job.as_ref().is_none_or(of_job) && self.process.as_ref().is_none_or(process)
    }

    fn takes(&self, line: &Line) -> bool {
        let rank = |level: &str| LEVELS.iter().position(|known| *known == level);
        let least = self.level.as_deref().and_then(rank);
        let serious = least.is_none_or(|least| rank(&line.level).is_none_or(|it| it <= least));
        let since = self.since_ms.map(|since| since.saturating_mul(1000));
        serious && since.is_none_or(|since| line.time_us == 0 || line.time_us >= since)
    }
}

/// The next lines of a folder. `worker` is what they are told under.
pub(crate) fn read(folder: &Path, worker: &str, query: &Query) -> io::Result<Page> {
    let mut cursor = query.cursor();
    let mine = format!("{worker}/");
    cursor.retain(|source, _| source.starts_with(&mine));
    let mut sources = Vec::new();
    for stem in stems(folder)? {
        if query.wants(worker, &stem) {
            let from = cursor.get(&format!("{mine}{stem}")).copied();
            sources.push(Source::open(folder, worker, stem, from, query.since_ms)?);
        }
    }
    let mut page = Page {
        cursor,
        ..Page::default()
    };
    let mut scanned = 0;
    loop {
        let mut first: Option<&mut Source<'_>> = None;
        for source in &mut sources {
            let Some(time) = source.time()? else {
                continue;
            };
            let before = first.as_ref().and_then(|first| first.peeked_time());
            if before.is_none_or(|before| time < before) {
                first = Some(source);
            }
        }
        let Some(line) = first.and_then(Source::take) else {
            break;
        };
        if page.lines.len() == LINES_MAX || scanned >= SCAN_BYTES_MAX {
            page.more = true;
            break;
        }
        scanned += line.text.len() as u64;
        page.cursor.insert(line.source(), line.next);
        if query.takes(&line) {
            page.lines.push(line);
        }
    }
    Ok(page)
}

/// The pages that several workers answered to the same query as one. What cannot be told yet, since
/// lines of another worker that are older may follow, is left for the next page.
pub(crate) fn merge(query: &Query, pages: Vec<Page>) -> Page {
    let mut merged = Page {
        cursor: query.cursor(),
        ..Page::default()
    };
    let mut rest = Vec::new();
    for page in pages {
        merged.missing.extend(page.missing);
        merged.more |= page.more;
        rest.push((page.lines.into_iter().peekable(), page.cursor, page.more));
    }
    loop {
        // A page that ends while there is more says nothing of what comes next.
        let unknown = |(lines, _, more): &mut (std::iter::Peekable<_>, Cursor, bool)| {
            *more && lines.peek().is_none()
        };
        if merged.lines.len() >= LINES_MAX || rest.iter_mut().any(unknown) {
            break;
        }
        let first = rest.iter_mut().filter_map(|(lines, cursor, _)| {
            let time = lines.peek().map(|line: &Line| line.time_us)?;
            Some((time, lines, cursor))
        });
        let Some((_, lines, _)) = first.min_by_key(|(time, ..)| *time) else {
            break;
        };
        if let Some(line) = lines.next() {
            merged.cursor.insert(line.source(), line.next);
            merged.lines.push(line);
        }
    }
    for (mut lines, cursor, _) in rest {
        if lines.peek().is_none() {
            // Also past the lines that were not asked for.
            merged.cursor.extend(cursor);
        } else {
            merged.more = true;
        }
    }
    merged
}

/// What the route for logs knows.
struct Served {
    worker: String,
    folder: PathBuf,
    token: Option<Token>,
}

/// `GET /v1/logs`: the lines of a folder, told as those of `worker`, to who has the token.
pub(crate) fn routes(worker: String, folder: PathBuf, token: Option<Token>) -> Router {
    let served = Served {
        worker,
        folder,
        token,
    };
    Router::new()
        .route("/v1/logs", get(answer))
        .with_state(Arc::new(served))
}

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
    // Files are read apart from the thread that answers whether this process lives.
    let read = move || read(&served.folder, &served.worker, &query);
    let read = tokio::task::spawn_blocking(read).await;
    let read = read.map_err(io::Error::other).flatten();
    read.map(Json)
        .map_err(|error| refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

fn stems(folder: &Path) -> io::Result<Vec<String>> {
    let mut stems = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if let Some((stem, _)) = name.to_str().and_then(rotate::parse) {
            stems.push(stem.to_owned());
        }
    }
    stems.sort_unstable();
    stems.dedup();
    Ok(stems)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

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
