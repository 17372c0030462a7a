//! Read-your-writes: whether everything that was committed in the database before a moment is in
//! every view.
//!
//! In: a [`Question`]. Out: an [`Answer`], which contains the progress so far; the client sends it
//! back with the next question. The server keeps no state, so a process or a master that is
//! restarted meanwhile loses nothing.
//!
//! ```text
//! position in the database ─► captured and published? ─► ends of the topics ─► in every view?
//! ```
//!
//! Each step begins when the one before is done. When everything before the position is published,
//! the topics contain all of it. Offsets mean the same in every generation of a job.
//!
//! A client repeats the question until `readable` is true:
//!
//! ```text
//! POST {}
//!   ─► {"lsn": "0/16B3748", "waits_for": "not everything …"}
//! POST {"lsn": "0/16B3748"}
//!   ─► {"lsn": "0/16B3748", "ends": {"users": {"0": 42}}, "waits_for": "3 records …"}
//! POST {"lsn": "0/16B3748", "ends": {"users": {"0": 42}}}
//!   ─► {"readable": true, …}
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidemill_config::connections::Connections;
use tidemill_config::pipeline::Folder;
use tidemill_dataflow::job;
use tidemill_ingest::capture::mark::{CommitPosition, Marks};
use tidemill_log::log::Log;
use tidemill_log::{Error, Kind, Result, log};
use tidemill_protocol::redact;
use tidemill_protocol::token::Token;

/// Limit of a question, in bytes.
pub const QUESTION_BYTES_MAX: usize = 1 << 20;

/// One past the last record, by topic and partition. Empty partitions are left out.
type Ends = BTreeMap<String, BTreeMap<u32, i64>>;

/// What shall be readable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Question {
    /// Everything that was committed before this position; if not set, everything committed now.
    pub lsn: Option<String>,
    /// Everything that is committed before this time by the database's clock, in ms since 1970.
    /// Ignored if there is a position.
    pub committed_before_ms: Option<i64>,
    /// The ends of the topics when everything before the position was published, as in an answer.
    pub ends: Option<Ends>,
}

/// The progress of a question.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// Whether everything is in every view.
    pub readable: bool,
    /// The position in the WAL for the next question.
    pub lsn: Option<String>,
    /// The ends of the topics for the next question.
    pub ends: Option<Ends>,
    /// The newest epoch that every view shows, in ms.
    pub epoch: u64,
    /// What is waited for, in words.
    pub waits_for: Option<String>,
    /// Set when waiting is useless: the job is stopped or failed.
    pub ended: Option<String>,
}

impl Answer {
    /// The answer that something is still waited for, with the progress of the question.
    ///
    /// Passwords in `what` are masked, because it may be the error of a database.
    pub fn waits(question: Question, what: impl Into<String>) -> Self {
        Self {
            lsn: question.lsn,
            ends: question.ends,
            waits_for: Some(redact::text(&what.into()).into_owned()),
            ..Self::default()
        }
    }
}

/// Answers questions about one job, in the process that knows the progress of the views.
///
/// The connections are opened at the first question that needs them, and kept for the next ones.
/// Questions wait for each other while one of them asks the database.
pub struct Readable {
    /// The job's name, which a question must name in its path.
    job: String,
    /// The database's URL; `None` if the job captures no database.
    database: Option<String>,
    /// The log's URL.
    log: String,
    /// The progress of the dataflow: which offsets every view shows.
    stats: Arc<job::Stats>,
    /// The connection to the database, once it was needed.
    marks: Mutex<Option<Marks>>,
    /// The connection to the log, once it was needed.
    opened: Mutex<Option<Arc<dyn Log>>>,
}

impl fmt::Debug for Readable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readable").field("job", &self.job).finish()
    }
}

/// A [`Readable`] that is set once the process knows its connections.
///
/// Until then questions are answered with "the process starts".
pub type Later = Arc<OnceLock<Readable>>;

impl Readable {
    /// For the job `name` of a pipeline. Connects to nothing yet.
    ///
    /// # Errors
    /// The pipeline's `ingest.toml` cannot be read.
    pub fn new(
        name: &str,
        folder: &Folder,
        connections: &Connections,
        stats: &Arc<job::Stats>,
    ) -> anyhow::Result<Self> {
        let captures = folder.ingest_if_any()?.is_some();
        Ok(Self {
            job: name.to_owned(),
            database: captures.then(|| connections.database.clone()),
            log: connections.log.clone(),
            stats: Arc::clone(stats),
            marks: Mutex::default(),
            opened: Mutex::default(),
        })
    }

    /// Takes all steps that can be taken at once. Blocks while the database or the log answers.
    ///
    /// # Errors
    /// Kind `Data` when the question can never be answered. A service that does not answer is no
    /// error: the answer says that it is waited for.
    pub(crate) fn answer(&self, question: Question) -> Result<Answer> {
        let mut known = question;
        match self.steps(&mut known) {
            Ok(None) => Ok(Answer {
                readable: true,
                lsn: known.lsn,
                ends: known.ends,
                epoch: self.stats.durable.load(Relaxed),
                ..Answer::default()
            }),
            Ok(Some(what)) => Ok(self.waits(known, what)),
            Err(error) if error.kind() == Kind::Retry => Ok(self.waits(known, error.to_string())),
            Err(error) => Err(error),
        }
    }

    /// The answer that something is still waited for.
    fn waits(&self, known: Question, what: String) -> Answer {
        Answer {
            epoch: self.stats.durable.load(Relaxed),
            ..Answer::waits(known, what)
        }
    }

    /// Takes the steps. Returns what is waited for, or `None` when everything is readable.
    ///
    /// `known` gets the progress: first the position, then the ends of the topics.
    ///
    /// # Errors
    /// Kind `Retry` when a service does not answer, and `Data` when the question can never be
    /// answered.
    fn steps(&self, known: &mut Question) -> Result<Option<String>> {
        if known.ends.is_none() {
            if let Some(what) = self.published(known)? {
                return Ok(Some(what));
            }
            let Some(ends) = self.ends()? else {
                let doing = self.stats.unready();
                return Ok(Some(
                    doing.unwrap_or_else(|| "looking at the topics".into()),
                ));
            };
            known.ends = Some(ends);
        }
        let durable = locked(&self.stats.durable_ends);
        let wanted = known.ends.iter().flatten();
        let lacks = wanted.map(|(topic, ends)| {
            let have = durable.get(topic);
            let lacks = ends.iter().map(|(partition, end)| {
                let have = have.and_then(|have| have.get(partition)).copied();
                end.saturating_sub(have.unwrap_or(0)).max(0)
            });
            lacks.sum::<i64>()
        });
        let lacks = lacks.sum::<i64>();
        drop(durable);
        let doing = self.stats.unready().map(|doing| format!(": {doing}"));
        let doing = doing.unwrap_or_default();
        Ok((lacks > 0).then(|| format!("{lacks} records are not in every view yet{doing}")))
    }

    /// Waits for the capture. Returns what is waited for, or `None` when everything before the
    /// position is published.
    ///
    /// A job that captures no database has nothing to wait for here.
    ///
    /// # Errors
    /// Kind `Data` when the position does not parse, or is asked for of a job without a database.
    /// Kind `Retry` when the database does not answer.
    fn published(&self, known: &mut Question) -> Result<Option<String>> {
        let Some(database) = &self.database else {
            if known.lsn.is_none() && known.committed_before_ms.is_none() {
                return Ok(None);
            }
            let what = format!(
                "job `{}` captures no database; leave the LSN and the time out, to wait for what \
                 its topics hold now",
                self.job
            );
            return Err(Error::new(Kind::Data, what));
        };
        let mut marks = locked(&self.marks);
        let marks = match &mut *marks {
            Some(marks) => marks,
            none => none.insert(Marks::new(database, &self.job)?),
        };
        let place = match &known.lsn {
            Some(lsn) => lsn.parse().map_err(|why| Error::new(Kind::Data, why))?,
            None => {
                let mark = marks.mark()?;
                if known.committed_before_ms.is_some_and(|at| at > mark.at_ms) {
                    return Ok(Some("that time has not come".to_owned()));
                }
                known.lsn = Some(mark.place.to_string());
                mark.place
            }
        };
        let is_past = marks.is_past(place)?;
        Ok((!is_past).then(|| not_published(place)))
    }

    /// The ends of the job's topics; `None` until the job knows its topics.
    ///
    /// The topics are those that the dataflow reads.
    ///
    /// # Errors
    /// The log does not answer.
    fn ends(&self) -> Result<Option<Ends>> {
        let topics: Vec<String> = locked(&self.stats.held).keys().cloned().collect();
        if topics.is_empty() {
            return Ok(None);
        }
        let log = {
            let mut opened = locked(&self.opened);
            match &*opened {
                Some(log) => Arc::clone(log),
                None => Arc::clone(opened.insert(log::open(&self.log)?)),
            }
        };
        let mut ends = Ends::new();
        for topic in topics {
            let ranges = log.ranges(&topic)?.into_iter();
            let ranges = ranges.filter(|range| range.high > range.low);
            let held = ranges.map(|range| (range.partition, range.high)).collect();
            ends.insert(topic, held);
        }
        Ok(Some(ends))
    }
}

/// The words for a position that the capture has not passed.
fn not_published(place: CommitPosition) -> String {
    format!("not everything before {place} is captured and published yet")
}

/// The value of a mutex, also after a panic of another thread: the values here are whole at any
/// time.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The path of this question, at a process and at a master.
///
/// ```
/// assert_eq!(tidemill_web::readable::path("users"), "/api/v1/jobs/users/readable");
/// ```
pub fn path(job: &str) -> String {
    format!("/api/v1/jobs/{job}/readable")
}

/// The route of a process. It needs the token if there is one, because a question makes the
/// database do work.
pub(crate) fn routes(readable: Later, token: Option<Token>) -> Router {
    let state = Arc::new((readable, token));
    Router::new()
        .route(&path("{name}"), post(ask))
        .with_state(state)
}

/// The state of the route: the answers, and the token that a question must show.
type Kept = Arc<(Later, Option<Token>)>;

/// Answers one question.
///
/// | status | when |
/// |---|---|
/// | 200 | the answer, also while something is waited for |
/// | 400 | the question does not parse, or can never be answered |
/// | 401 | the token is missing or wrong |
/// | 404 | the process runs another job |
/// | 500 | the answer could not be computed |
async fn ask(
    State(kept): State<Kept>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let fails = |status: StatusCode, why: String| {
        let why = redact::text(&why).into_owned();
        (status, Json(json!({"error": why}))).into_response()
    };
    if let Some(token) = &kept.1
        && !token.is_shown(&headers)
    {
        let why = "this needs the cluster's token".to_owned();
        return fails(StatusCode::UNAUTHORIZED, why);
    }
    let question = to_bytes(body, QUESTION_BYTES_MAX).await.ok();
    let question = question.and_then(|bytes| serde_json::from_slice::<Question>(&bytes).ok());
    let Some(question) = question else {
        let right = r#"expected JSON such as {"lsn": "0/16B3748"} or {"committed_before_ms": 0}"#;
        return fails(StatusCode::BAD_REQUEST, right.to_owned());
    };
    let answered = tokio::task::spawn_blocking(move || match kept.0.get() {
        Some(readable) if readable.job == name => Some(readable.answer(question)),
        Some(_) => None,
        None => Some(Ok(Answer::waits(question, "the process starts"))),
    });
    match answered.await {
        Ok(Some(Ok(answer))) => Json(answer).into_response(),
        Ok(Some(Err(error))) => fails(StatusCode::BAD_REQUEST, error.to_string()),
        Ok(None) => fails(StatusCode::NOT_FOUND, "another job runs here".to_owned()),
        Err(error) => fails(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}
