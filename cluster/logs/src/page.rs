//! Pages of log lines: the query, the page, and the merge of several workers' pages.
//!
//! A [`Query`] is plain data with a form for URLs; a [`Page`] is JSON. A cursor names processes and
//! numbers of files, and only files that were found in the folder are opened.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Limit of lines in a page.
pub(crate) const LINES_MAX: usize = 1000;
/// Limit of bytes that one worker reads for a page, whether or not the lines are in it.
pub(super) const SCAN_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Limit of one entry in a page, in bytes; longer ones are cut.
pub(super) const LINE_BYTES_MAX: usize = 64 * 1024;

/// The levels, the most severe first.
pub(super) const LEVELS: [&str; 5] = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];

/// How far each process was read, by `WORKER/STEM`: the file's number and the byte offset in the
/// file.
pub(crate) type Cursor = BTreeMap<String, (u64, u64)>;

/// The query of `GET /api/v1/logs`. Fields that are not set exclude nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Query {
    /// The cursor of the page before, as JSON.
    pub after: Option<String>,
    /// The name of the job.
    pub job: Option<String>,
    /// Consecutive words of `WORKER/JOB.PART.INDEX`, such as `dataflow.0` or `node1`.
    pub process: Option<String>,
    /// The least severe level that is included.
    pub level: Option<String>,
    /// Only lines from this time on, in ms since 1970-01-01T00:00:00Z.
    pub since_ms: Option<i64>,
}

/// Lines, and where the next page begins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Page {
    /// The lines, by time.
    pub lines: Vec<Line>,
    /// The cursor to send with the next query.
    pub cursor: Cursor,
    /// Whether there are further lines already.
    pub more: bool,
    /// Workers that did not answer, and why.
    pub missing: BTreeMap<String, String>,
}

/// A log entry: a line and the lines that belong to it, such as a backtrace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The worker in whose folder the line is.
    pub worker: String,
    /// `JOB.PART.INDEX`, `worker` or `master`.
    pub process: String,
    /// Time in µs since 1970-01-01T00:00:00Z; 0 when the line has none.
    pub time_us: i64,
    /// The level; empty when the line has none.
    pub level: String,
    /// The text, of several lines for an entry with a backtrace.
    pub text: String,
    /// Where the process's next entry begins: the file's number and the byte offset.
    pub next: (u64, u64),
}

impl Line {
    /// The entry's key in a cursor.
    pub(super) fn source(&self) -> String {
        format!("{}/{}", self.worker, self.process)
    }
}

/// The level of this name in any case; `None` if there is none.
///
/// ```
/// assert_eq!(tidemill_logs::level("warn"), Some("WARN"));
/// assert_eq!(tidemill_logs::level("loud"), None);
/// ```
pub fn level(given: &str) -> Option<&'static str> {
    let given = given.to_ascii_uppercase();
    LEVELS.into_iter().find(|level| *level == given)
}

impl Query {
    /// The cursor of the query. A cursor that cannot be parsed counts as none.
    pub(super) fn cursor(&self) -> Cursor {
        let after = self.after.as_deref();
        let parsed = after.and_then(|after| serde_json::from_str(after).ok());
        parsed.unwrap_or_default()
    }

    /// The query as parameters of a URL.
    ///
    /// Fields that are not set have no parameter.
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
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

    /// Whether the lines of a process are asked for.
    pub(super) fn wants(&self, worker: &str, stem: &str) -> bool {
        let of_job = |job: &String| stem.split_once('.').is_some_and(|(its, _)| its == job);
        let process = |given: &String| {
            let split =
                |text: &str| -> Vec<String> { text.split(['/', '.']).map(str::to_owned).collect() };
            let (all, given) = (split(&format!("{worker}/{stem}")), split(given));
            all.windows(given.len()).any(|words| words == given)
        };
        self.job.as_ref().is_none_or(of_job) && self.process.as_ref().is_none_or(process)
    }

    /// Whether a line has the level and the time that are asked for. A line without one of them is
    /// included.
    pub(super) fn takes(&self, line: &Line) -> bool {
        let rank = |level: &str| LEVELS.iter().position(|known| *known == level);
        let least = self.level.as_deref().and_then(rank);
        let serious = least.is_none_or(|least| rank(&line.level).is_none_or(|it| it <= least));
        let since = self.since_ms.map(|since| since.saturating_mul(1000));
        serious && since.is_none_or(|since| line.time_us == 0 || line.time_us >= since)
    }
}

/// Merges the pages that several workers returned for one query. If a worker has more lines than
/// its page, lines that may come after those are left for the next page.
///
/// ```text
/// page of A:  1 4 7, and more   The merge takes 1 2 4 5 7 and stops, because the next line
/// page of B:  2 5 9             of A is unknown. The cursor is after 7 in A and 5 in B.
/// ```
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
        // A page that ended although there is more says nothing about the worker's next line.
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
            // The cursor also moves past lines that were not asked for.
            merged.cursor.extend(cursor);
        } else {
            merged.more = true;
        }
    }
    merged
}
