//! Pages of log lines, what is asked for, and pages of several workers as one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Lines of one page.
pub(crate) const LINES_MAX: usize = 1000;
/// Bytes that are read for one page, whether or not they are in it.
pub(super) const SCAN_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Bytes of one line that are told.
pub(super) const LINE_BYTES_MAX: usize = 64 * 1024;

/// Levels, the most serious first.
pub(super) const LEVELS: [&str; 5] = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];

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
    pub(super) fn source(&self) -> String {
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
    pub(super) fn cursor(&self) -> Cursor {
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

    pub(super) fn takes(&self, line: &Line) -> bool {
        let rank = |level: &str| LEVELS.iter().position(|known| *known == level);
        let least = self.level.as_deref().and_then(rank);
        let serious = least.is_none_or(|least| rank(&line.level).is_none_or(|it| it <= least));
        let since = self.since_ms.map(|since| since.saturating_mul(1000));
        serious && since.is_none_or(|since| line.time_us == 0 || line.time_us >= since)
    }
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
