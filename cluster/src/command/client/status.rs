//! The command `status`: all jobs and workers, or one job in detail, as text or JSON, once or every
//! second.
//!
//! In: the master's [`Status`]. Out: lines.
//!
//! ```text
//! master http://a:7070, generation 2, up 2 h 1 min, version 0.1.0
//!
//! job    state    generation  workers  epoch          lag   behind  …
//! users  running  4           3 of 4   21:14:05.123Z  0 ms  12      …
//! users: 3 of 4 workers: there are no more slots
//!
//! worker  slots  used  heard     version  http
//! node1   4      3     0 ms ago  0.1.0    node1:9100
//! ```
//!
//! With `--json` the lines are the master's own JSON, for scripts. Times are relative to the
//! master's clock, so a wrong clock of this machine does not matter.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::anyhow;
use clap::Args;
use jiff::Timestamp;
use tidemill_protocol::api::{Master, WhichMaster, api};
use tidemill_protocol::{Failure as Ended, JobStatus, Phase, Status, output};

use crate::terminal::table::grouped;

/// Time between two updates of `--watch`.
const LOOK: Duration = Duration::from_secs(1);
/// Limit of operators shown of a job.
const OPERATORS_MAX: usize = 10;
/// Limit of log lines shown of a failed process.
const TAIL_LINES_MAX: usize = 10;
/// Limit of noticed changes of captured tables shown.
const NOTICED_SHOWN_MAX: usize = 5;

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// All of one job, with its processes, views and operators [default: all jobs and workers]
    pub(crate) job: Option<String>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Show it again each second, until Ctrl-C
    #[arg(long)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) master: WhichMaster,
}

/// Prints the status once, or every second until Ctrl-C.
///
/// # Errors
///
/// There is no such job, or the master refuses or does not answer. With `--watch`, a master that
/// does not answer is asked again.
pub(super) fn show(args: &StatusArgs, master: &Master) -> anyhow::Result<()> {
    loop {
        let lines = match master.get::<Status>(&api("status"), &[]) {
            Ok(status) => lines(args, master, status)?,
            // With `--watch`, the message is shown until the master answers again.
            Err(failure) if args.watch && failure.passes() => vec![failure.to_string()],
            Err(failure) => return Err(failure.into()),
        };
        if args.watch && output::is_terminal() {
            output::live(&lines);
        } else {
            lines.iter().for_each(|line| output::line(line));
        }
        if !args.watch {
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
}

/// The lines to print: everything, or one job.
///
/// # Errors
/// There is no job of the name that was given; the message lists those that there are.
fn lines(args: &StatusArgs, master: &Master, status: Status) -> anyhow::Result<Vec<String>> {
    let Some(name) = &args.job else {
        return match args.json {
            true => Ok(vec![serde_json::to_string(&status)?]),
            false => Ok(overview(master.url(), &status)),
        };
    };
    let job = status.jobs.iter().find(|job| job.name == *name);
    let job = job.ok_or_else(|| {
        let known: Vec<&str> = status.jobs.iter().map(|job| job.name.as_str()).collect();
        match known.is_empty() {
            true => anyhow!("there is no job `{name}`, nor any other; see `tidemill submit`"),
            false => anyhow!("there is no job `{name}`; there are {}", known.join(", ")),
        }
    })?;
    match args.json {
        true => Ok(vec![serde_json::to_string(job)?]),
        false => Ok(whole(job, status.master.now_ms)),
    }
}

/// All jobs and workers as tables.
///
/// `url` is the master's, for the hints when there are no jobs or workers.
fn overview(url: &str, status: &Status) -> Vec<String> {
    let (master, now) = (&status.master, status.master.now_ms);
    let mut lines = vec![format!(
        "master {url}, generation {}, up {}, version {}",
        master.generation,
        span(now.saturating_sub(master.started_ms)),
        master.version
    )];
    lines.push(String::new());
    if status.jobs.is_empty() {
        lines.push("no jobs; `tidemill submit PIPELINE` starts one".to_owned());
    } else {
        let mut rows = vec![JOB_HEAD.map(str::to_owned).to_vec()];
        rows.extend(status.jobs.iter().map(row));
        lines.extend(aligned(&rows));
        for job in &status.jobs {
            lines.extend(remarks(job, now));
        }
    }
    lines.push(String::new());
    if status.workers.is_empty() {
        let how = format!("`tidemill worker --master {url} --slots N` offers some");
        lines.push(format!("no workers; {how}"));
        return lines;
    }
    let head = ["worker", "slots", "used", "heard", "version", "http"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for worker in &status.workers {
        rows.push(vec![
            worker.name.clone(),
            worker.slots.to_string(),
            worker.slots_used.to_string(),
            format!("{} ms ago", grouped(worker.silent_ms)),
            worker.version.clone(),
            worker.http.clone(),
        ]);
    }
    lines.extend(aligned(&rows));
    lines
}

/// The columns of the table of jobs.
const JOB_HEAD: [&str; 11] = [
    "job",
    "state",
    "generation",
    "workers",
    "epoch",
    "lag",
    "behind",
    "freshness p50, p99",
    "records",
    "dead letters",
    "restarts",
];

/// A job as a row of that table.
///
/// One cell for each name in [`JOB_HEAD`]. A value that nobody knows is `unknown` or `-`.
fn row(job: &JobStatus) -> Vec<String> {
    let workers = match job.workers == job.workers_wanted {
        true => job.workers.to_string(),
        false => format!("{} of {}", job.workers, job.workers_wanted),
    };
    vec![
        job.name.clone(),
        job.state.to_string(),
        job.generation.to_string(),
        workers,
        epoch(job.epoch),
        job.lag_ms
            .map_or("unknown".to_owned(), |late| format!("{} ms", grouped(late))),
        job.behind.map_or("unknown".to_owned(), grouped),
        freshness(job),
        format!("{} ({:.0}/s)", grouped(job.records), job.records_per_second),
        grouped(job.dead_letters),
        job.restarts.to_string(),
    ]
}

/// Remarks below the table: the reason of a state, keys in error, the ingest, the last failure.
///
/// `now` is the master's clock in ms since 1970.
fn remarks(job: &JobStatus, now: u64) -> Vec<String> {
    let name = &job.name;
    let mut lines: Vec<String> = Vec::new();
    lines.extend(job.why.as_ref().map(|why| format!("{name}: {why}")));
    if job.keys_in_error > 0 {
        lines.push(format!(
            "{name}: {} keys are in error: their newest change could not be used, and their rows \
             are in no view until it can; see `tidemill dead-letters list`",
            grouped(job.keys_in_error)
        ));
    }
    if let Some(ingest) = &job.ingest {
        let why = ingest.why.as_ref().map(|why| format!(": {why}"));
        lines.push(format!(
            "{name}: ingest {}, published {} ({:.0}/s), restarts {}{}",
            ingest.state,
            grouped(ingest.published),
            ingest.published_per_second,
            ingest.restarts,
            why.unwrap_or_default()
        ));
        lines.extend(ingest.paused_ms.map(|since| {
            let since = ago(since, Some(now));
            format!("{name}: fetching was paused {since}; the control center resumes it")
        }));
        let newest = ingest.noticed.iter().rev().take(NOTICED_SHOWN_MAX);
        lines.extend(newest.map(|it| {
            let (at, what) = (ago(it.at_ms, Some(now)), &it.what);
            format!("{name}: noticed {at}: {what}")
        }));
    }
    if let Some(failure) = job.failures.first() {
        lines.extend(failure_lines(name, failure, now));
    }
    lines
}

/// The last failure of a job, with the last lines of the process's log.
///
/// At most [`TAIL_LINES_MAX`] lines of the log, the last ones.
fn failure_lines(name: &str, failure: &Ended, now: u64) -> Vec<String> {
    let mut lines = vec![format!(
        "{name}: last failure {}, generation {}: {} {}",
        ago(failure.at_ms, Some(now)),
        failure.generation,
        failure.process,
        failure.what
    )];
    let from = failure.tail.len().saturating_sub(TAIL_LINES_MAX);
    lines.extend(
        failure
            .tail
            .iter()
            .skip(from)
            .map(|line| format!("    {line}")),
    );
    lines
}

/// One job in detail.
///
/// The table's row as lines, then the sections: processes, services, views, operators. Sections
/// without rows are left out.
fn whole(job: &JobStatus, now: u64) -> Vec<String> {
    let row = row(job);
    let pairs = JOB_HEAD.iter().zip(&row);
    let mut lines: Vec<String> = pairs
        .map(|(name, value)| format!("{name:<20}{value}"))
        .collect();
    let checkpointed = epoch(job.checkpointed);
    lines.push(format!("{:<20}{checkpointed}", "last checkpoint"));
    lines.extend(remarks(job, now));
    for older in job.failures.iter().skip(1) {
        let (at, generation) = (ago(older.at_ms, Some(now)), older.generation);
        let (process, what) = (&older.process, &older.what);
        lines.push(format!(
            "  before: {at}, generation {generation}: {process} {what}"
        ));
    }
    let mut section = |rows: Vec<Vec<String>>| {
        if rows.len() > 1 {
            lines.push(String::new());
            lines.extend(aligned(&rows));
        }
    };
    let head = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let mut rows = vec![head(&["process", "worker", "phase", "http"])];
    rows.extend(job.processes.iter().map(|process| {
        let part = process.part.name();
        vec![
            format!("{part}.{}", process.index),
            process.worker.clone(),
            phase(&process.phase),
            process.http.clone(),
        ]
    }));
    section(rows);
    let mut rows = vec![head(&[
        "dependency",
        "service",
        "state",
        "since",
        "at",
        "last error",
    ])];
    rows.extend(job.dependencies.iter().map(|it| {
        vec![
            it.dependency.clone(),
            it.engine.clone(),
            it.state.clone(),
            ago(it.since_ms, Some(now)),
            it.at.clone(),
            it.error.clone().unwrap_or_default(),
        ]
    }));
    section(rows);
    let mut rows = vec![head(&["view", "rows"])];
    let views = job.views.iter();
    rows.extend(views.map(|(name, rows)| vec![name.clone(), rows.to_string()]));
    section(rows);
    let mut rows = vec![head(&["operator", "busy", "rows", "bytes"])];
    rows.extend(job.operators.iter().take(OPERATORS_MAX).map(|operator| {
        let count = |n: Option<i64>| n.map(|n| n.to_string()).unwrap_or_default();
        vec![
            operator.name.clone(),
            format!("{} ms", grouped(operator.busy_us / 1000)),
            count(operator.rows),
            count(operator.bytes),
        ]
    }));
    section(rows);
    lines
}

/// The phase of a process in words.
fn phase(phase: &Phase) -> String {
    match phase {
        Phase::Started => "started".to_owned(),
        Phase::Listening { address } => format!("listening at {address}"),
        Phase::Live => "live".to_owned(),
        Phase::Exited(exit) => match (exit.code, exit.signal) {
            (Some(code), _) => format!("ended with {code}"),
            (None, Some(signal)) => format!("killed by signal {signal}"),
            (None, None) => "ended".to_owned(),
        },
    }
}

/// Both quantiles, or `-` before the first sample.
fn freshness(job: &JobStatus) -> String {
    match (job.freshness_p50_ms, job.freshness_p99_ms) {
        (Some(p50), Some(p99)) => format!("{} ms, {} ms", grouped(p50), grouped(p99)),
        _ => "-".to_owned(),
    }
}

/// An epoch as a time of day.
///
/// `-` before the first epoch.
fn epoch(epoch: u64) -> String {
    let time = i64::try_from(epoch).ok().filter(|epoch| *epoch > 0);
    let time = time.and_then(|epoch| Timestamp::from_millisecond(epoch).ok());
    time.map_or("-".to_owned(), |time| {
        time.strftime("%H:%M:%S%.3fZ").to_string()
    })
}

/// How long ago something happened, by the master's clock if `now` is given, else by this
/// machine's.
pub(super) fn ago(at_ms: u64, now: Option<u64>) -> String {
    let ours = || SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_else(|| ours().map_or(at_ms, |since| since.as_millis() as u64));
    format!("{} ago", span(now.saturating_sub(at_ms)))
}

/// A duration in its two largest units.
///
/// Below a second in ms. `90061000` is `1 d 1 h`.
fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    let units = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let first = units.iter().position(|(unit, _)| seconds >= *unit);
    let Some(first) = first else {
        return format!("{ms} ms");
    };
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (unit, name) in units.iter().skip(first).take(2) {
        let count = rest / unit;
        rest %= unit;
        if count > 0 {
            parts.push(format!("{count} {name}"));
        }
    }
    parts.join(" ")
}

/// Aligns cells in columns.
///
/// Widths are in characters. Trailing blanks are removed.
fn aligned(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths);
        let cells: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_protocol::{
        DependencyStatus, IngestStatus, JobState, MasterStatus, NoticedStatus, Part, ProcessStatus,
        WorkerStatus,
    };

    fn job() -> JobStatus {
        JobStatus {
            name: "users".to_owned(),
            state: JobState::Running,
            why: Some("3 of 4 workers: there are no more slots".to_owned()),
            generation: 4,
            restarts: 1,
            workers_wanted: 4,
            workers: 3,
            epoch: 1_795_382_045_123,
            lag_ms: Some(0),
            dependencies: vec![DependencyStatus {
                dependency: "log".to_owned(),
                engine: "Kafka".to_owned(),
                at: "kafka://a:9092".to_owned(),
                state: "down".to_owned(),
                since_ms: 1_000,
                error: Some("no answer for 4 s".to_owned()),
            }],
            freshness_p50_ms: Some(22),
            freshness_p99_ms: Some(1054),
            records: 12_345,
            records_per_second: 399.6,
            ingest: Some(IngestStatus {
                state: JobState::Running,
                published: 1221,
                noticed: vec![NoticedStatus {
                    at_ms: 1_000,
                    what: "table `t` is read anew: a partition was detached or dropped".to_owned(),
                }],
                ..IngestStatus::default()
            }),
            views: [("users_by_country".to_owned(), 21)].into(),
            processes: vec![ProcessStatus {
                part: Part::Dataflow,
                index: 0,
                worker: "node1".to_owned(),
                phase: Phase::Live,
                http: "node1:81".to_owned(),
                records: 0,
                operators: Vec::new(),
            }],
            failures: vec![Ended {
                generation: 3,
                at_ms: 1_000,
                process: "process 1 on node2".to_owned(),
                what: "was killed by signal 9".to_owned(),
                tail: vec!["its last words".to_owned()],
            }],
            ..JobStatus::default()
        }
    }

    #[test]
    fn everything_is_seen_at_a_glance() {
        let status = Status {
            master: MasterStatus {
                generation: 2,
                started_ms: 1_000,
                now_ms: 7_301_000,
                ..MasterStatus::default()
            },
            workers: vec![WorkerStatus {
                name: "node1".to_owned(),
                slots: 4,
                slots_used: 3,
                ..WorkerStatus::default()
            }],
            jobs: vec![job()],
        };
        let text = overview("http://a:1", &status).join("\n");
        for part in [
            "master http://a:1, generation 2, up 2 h 1 min",
            "users  running  4           3 of 4   21:14:05.123Z  0 ms",
            "22 ms, 1,054 ms",
            "12,345 (400/s)",
            "users: 3 of 4 workers: there are no more slots",
            "users: ingest running, published 1,221",
            "last failure 2 h 1 min ago, generation 3: process 1 on node2 was killed by signal 9",
            "    its last words",
            "node1   4      3     0 ms ago",
        ] {
            assert!(text.contains(part), "`{part}` is missing in\n{text}");
        }
        let empty = overview("http://a:1", &Status::default()).join("\n");
        assert!(
            empty.contains("tidemill submit") && empty.contains("--slots N"),
            "{empty}"
        );
    }

    #[test]
    fn one_job_is_shown_whole() {
        let text = whole(&job(), 2_000).join("\n");
        for part in [
            "dataflow.0  node1",
            "users_by_country  21",
            "last checkpoint     -",
            "behind              unknown",
            "log         Kafka    down   1 s ago  kafka://a:9092  no answer for 4 s",
            "noticed 1 s ago: table `t` is read anew: a partition was detached or dropped",
        ] {
            assert!(text.contains(part), "`{part}` is missing in\n{text}");
        }
    }

    #[test]
    fn spans_have_two_units() {
        let spans = [12, 1_000, 61_000, 3_600_000, 90_061_000].map(span);
        assert_eq!(spans, ["12 ms", "1 s", "1 min 1 s", "1 h", "1 d 1 h"]);
    }
}
