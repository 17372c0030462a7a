//! Tests of the metrics' text and of the page's headers, and that the documentation names each
//! metric.
//!
//! The servers are real ones on a free port, and the text is read by a strict parser of the format
//! ([`exposition`]), so that a metric which Prometheus would drop fails a test.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tidemill_dataflow::job;
use tidemill_protocol::{
    DependencyStatus, IngestStatus, JobState, JobStatus, MasterStatus, OperatorHeartbeat,
    ProcessKey, ProcessReport, Status, WorkerStatus,
};

use super::api::session::Session;

use super::exposition::Scrape;
use super::{exposition, *};

/// The page of the documentation that lists all metrics.
const DOCUMENTED: &str = include_str!("../../../docs/metrics.md");

/// The whole answer to a GET request, with its headers.
fn get(at: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The parsed metrics of a server. Fails with the text if the parser refuses it.
fn scrape(at: SocketAddr) -> Scrape {
    let answer = get(at, "/metrics");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    exposition::parse(body).unwrap_or_else(|why| panic!("{why}\n{body}"))
}

/// A process with a value for every metric.
///
/// The topic's name has characters that the format must escape. One view has a negative number of
/// rows, as in a process that removed rows which another one counted.
fn process() -> Shown {
    let stats = job::Stats::default();
    for counter in [
        &stats.generation,
        &stats.records,
        &stats.bound,
        &stats.durable,
        &stats.checkpointed,
        &stats.checkpoint_ms,
        &stats.recovery_ms,
        &stats.restore_ms,
    ] {
        counter.store(7_000, Relaxed);
    }
    let range = tidemill_log::log::PartitionRange {
        partition: 3,
        low: 1,
        high: 8,
    };
    let held = [("a\"b\\c\nd".to_owned(), vec![range])];
    stats.held.lock().unwrap().extend(held);
    let now = tidemill_log::health::now_ms();
    let looked = stats.held.lock().unwrap().clone();
    stats.looks.lock().unwrap().seen(now - 5_000, looked);
    let role = tidemill_log::health::Role::Log;
    stats.health.declare(role, "Kafka", "a:9092");
    let view = job::ViewStats {
        rows: -3,
        conflicts: 2,
        unfit: 0,
    };
    stats.views.lock().unwrap().insert("v".into(), view);
    for ms in [1, 4, 5, 6, 700, 3_000_000] {
        stats.freshness_ms.lock().unwrap().record(ms).unwrap();
    }
    Shown {
        job: "users".into(),
        part: None,
        generation: None,
        index: 2,
        dataflow: Some(Arc::new(stats)),
        ingest: Some(Arc::default()),
        inspected: tidemill_inspect::Later::default(),
        readable: Later::default(),
    }
}

/// A status with a job that runs, a job that is stopped, and one worker.
fn status() -> Status {
    let job = JobStatus {
        name: "users".into(),
        state: JobState::Running,
        epoch: 1_000,
        behind: Some(5),
        lag_ms: Some(7_000),
        dependencies: vec![DependencyStatus {
            dependency: "log".into(),
            engine: "Kafka".into(),
            state: "up".into(),
            since_ms: 1_000,
            ..DependencyStatus::default()
        }],
        restarts: 4,
        freshness_p50_ms: Some(20),
        freshness_p99_ms: Some(90),
        ingest: Some(IngestStatus::default()),
        operators: vec![OperatorHeartbeat::default()],
        ..JobStatus::default()
    };
    let stopped = JobStatus {
        name: "other".into(),
        state: JobState::Stopped,
        ..JobStatus::default()
    };
    let worker = WorkerStatus {
        name: "node1".into(),
        slots: 4,
        slots_used: 3,
        ..WorkerStatus::default()
    };
    Status {
        master: MasterStatus::default(),
        workers: vec![worker],
        jobs: vec![job, stopped],
    }
}

/// What a master without a token tells, whose status is this one.
pub(super) fn facts(status: impl Fn() -> Status + Clone + Send + Sync + 'static) -> Facts {
    let session = Session {
        kind: "master",
        features: &["audit", "changes", "logs"],
        token: None,
        own_machine: true,
        tls: false,
    };
    let status = move || -> api::Later { Box::pin(std::future::ready(Some(status()))) };
    Facts {
        session,
        status: Arc::new(status),
        history: Arc::default(),
        alerts: Arc::default(),
    }
}

/// A worker's report with one live process.
fn report() -> Report {
    let key = ProcessKey {
        job: "users".into(),
        part: Part::Dataflow,
        generation: 1,
        index: 0,
    };
    Report {
        worker: "w".into(),
        sequence: 1,
        name: "node1".into(),
        http: String::new(),
        slots: 4,
        version: String::new(),
        processes: vec![ProcessReport {
            key,
            phase: tidemill_protocol::Phase::Live,
            beat: None,
        }],
    }
}

/// A process, a master and a worker each answer `/metrics`. Buckets are cumulative in the text,
/// though the code counts each range alone.
#[test]
fn metrics_of_all_three_are_strict_and_escape_what_they_show() {
    let at = serve(
        "127.0.0.1:0",
        process_router(process(), None, crate::Reach::OwnMachine, None),
    )
    .unwrap();
    let seen = scrape(at);
    let topic = [("topic", "a\"b\\c\nd"), ("partition", "3")];
    assert_eq!(seen.value("tidemill_lag_records", &topic), Some(7.0));
    let named = [("job", "users"), ("generation", "7000"), ("process", "2")];
    assert_eq!(seen.value("tidemill_records_total", &named), Some(7000.0));
    assert_eq!(seen.value("tidemill_view_rows", &[]), Some(-3.0));
    assert_eq!(
        seen.value("tidemill_epoch_durable_timestamp_seconds", &[]),
        Some(7.0)
    );
    let bucket = |le| seen.value("tidemill_freshness_seconds_bucket", &[("le", le)]);
    assert_eq!(bucket("0.005"), Some(3.0));
    assert_eq!(bucket("0.01"), Some(4.0));
    assert_eq!(bucket("300.0"), Some(5.0));
    assert_eq!(bucket("+Inf"), Some(6.0));
    assert!(get(at, "/readyz").starts_with("HTTP/1.1 503"));

    let seen = scrape(serve("127.0.0.1:0", master_router(facts(status))).unwrap());
    assert_eq!(
        seen.value("tidemill_jobs", &[("state", "running")]),
        Some(1.0)
    );
    assert_eq!(
        seen.value("tidemill_jobs", &[("state", "failed")]),
        Some(0.0)
    );
    let users = [("job", "users")];
    assert_eq!(seen.value("tidemill_job_restarts_total", &users), Some(4.0));
    assert_eq!(seen.value("tidemill_job_lag_records", &users), Some(5.0));
    assert_eq!(seen.value("tidemill_slots_used", &[]), Some(3.0));

    let seen = scrape(serve("127.0.0.1:0", worker_router(|| Some(report()))).unwrap());
    let live = [("worker", "node1"), ("phase", "live")];
    assert_eq!(seen.value("tidemill_worker_processes", &live), Some(1.0));
}

/// Each file has its content type and the policy. Our own files name no other host, and none of
/// them makes markup from text.
#[test]
fn the_pages_are_whole_and_let_nothing_in() {
    let at = serve("127.0.0.1:0", master_router(facts(status))).unwrap();
    let mut own = 0;
    for path in app::paths() {
        let (at_path, kind) = match path.rsplit_once('.') {
            Some((_, "html")) => ("/".to_owned(), "text/html; charset=utf-8"),
            Some((_, "css")) => (format!("/app/{path}"), "text/css; charset=utf-8"),
            Some((_, "txt")) => (format!("/app/{path}"), "text/plain; charset=utf-8"),
            _ => (format!("/app/{path}"), "text/javascript; charset=utf-8"),
        };
        let answer = get(at, &at_path);
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        assert!(
            answer.contains(&format!("content-type: {kind}\r\n")),
            "{path}"
        );
        assert!(answer.contains("content-security-policy: default-src 'none'; "));
        if path.starts_with("vendor/") {
            continue;
        }
        own += 1;
        for elsewhere in ["http://", "https://", "innerHTML", "@import", "eval("] {
            assert!(!answer.contains(elsewhere), "{path} has {elsewhere}");
        }
    }
    assert!(own > 20, "{own} files of our own");
    let missing = get(at, "/app/vendor/preact.d.mts");
    assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");
}

/// Names of metrics in a text.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("tidemill_")).collect()
}

/// In both directions: each metric has a row in the documentation, and each name in the
/// documentation is a metric.
#[test]
fn the_documented_metrics_are_the_codes() {
    let all = [
        super::process::families(&process()),
        super::cluster::master(&status()),
        super::cluster::worker(&report()),
    ];
    let all: BTreeSet<String> = all.iter().flatten().map(metrics::Family::shown).collect();
    let rows = DOCUMENTED
        .lines()
        .filter(|line| line.starts_with("| `tidemill_"));
    let listed: BTreeSet<&str> = rows
        .filter_map(|row| names(row).into_iter().next())
        .collect();
    let missing: Vec<_> = all
        .iter()
        .filter(|name| !listed.contains(name.as_str()))
        .collect();
    assert!(missing.is_empty(), "not in docs/metrics.md: {missing:?}");
    let is_one = |name: &&str| {
        let of = ["", "_bucket", "_sum", "_count"];
        of.iter()
            .any(|end| all.contains(name.strip_suffix(end).unwrap_or_default()))
    };
    let gone: Vec<_> = names(DOCUMENTED)
        .into_iter()
        .filter(|name| !is_one(name))
        .collect();
    assert!(gone.is_empty(), "there is no such metric: {gone:?}");
}
