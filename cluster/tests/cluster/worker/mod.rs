//! `tidemill worker` as a process, beside a master that the test drives: what it reports, what it
//! does about orders, and what it does when the master is away or the worker is to leave.

mod launch;
mod master;
mod operated;

use std::path::Path;
use std::process::Command;

use master::Master;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{PATIENCE, Process, send, until};

const TOKEN: &str = "a-token-that-is-secret";

/// A worker in a folder of its own.
struct Worker {
    folder: TempDir,
    process: Process,
}

impl Worker {
    fn start(master: &str, token: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.args(["worker", "--master", master, "--slots", "3", "--name", "w1"]);
        command.arg("--dir").arg(folder.path());
        // What a job makes where nobody says where is made there too.
        command.current_dir(folder.path());
        for (name, _) in std::env::vars() {
            if name.starts_with("TIDEMILL_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command.envs(token.map(|token| ("TIDEMILL_TOKEN", token)));
        let process = Process::start_in(command, folder.path());
        Self { folder, process }
    }

    /// Waits until the newest report is as it shall be.
    #[track_caller]
    fn reports(&mut self, master: &Master, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        until(what, PATIENCE, || {
            self.process.runs();
            master.reported().filter(|report| is(report))
        })
    }
}

/// The first process of a report, if it has ended.
fn exit(report: &Value) -> Option<&Value> {
    report["processes"][0]["phase"].get("exited")
}

/// An order for the first process of a job.
fn order(generation: u64, file: &str) -> Value {
    let spec = json!({
        "name": "users", "files": { file: "SELECT FROM nothing" }, "connections": {},
        "workers": 1, "wait_for_slots": false, "ingest": false, "flags": {},
    });
    let key = json!({ "job": "users", "part": "dataflow", "generation": generation, "index": 0 });
    json!({
        "key": key, "spec": spec, "threads": 1, "processes": 1, "secret": "00", "peers": null,
        "drain": false,
    })
}

fn get(http: &str, path: &str, token: Option<&str>) -> (u16, String) {
    // Another test of this process may have set it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let request = reqwest::blocking::Client::builder()
        .no_proxy()
        .build()
        .unwrap();
    let mut request = request.get(format!("http://{http}{path}"));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let answer = request.send().unwrap();
    (answer.status().as_u16(), answer.text().unwrap())
}

fn http(report: &Value) -> String {
    report["http"].as_str().unwrap().to_owned()
}

#[test]
fn orders_are_followed_and_ends_are_told_until_nobody_asks() {
    let master = Master::start(None);
    let mut worker = Worker::start(&master.url(), None);
    let first = worker.reports(&master, "it registers", |_| true);
    assert_eq!((&first["name"], &first["slots"]), (&json!("w1"), &json!(3)));
    assert_eq!(first["processes"], json!([]));
    // No order gets a file out of the worker's folder.
    master.order(1, 1, json!([order(1, "../../escaped.sql")]));
    let refused = worker.reports(&master, "it tells the end", |report| exit(report).is_some());
    let ended = exit(&refused).unwrap();
    assert_eq!(ended["code"], 2, "{ended}");
    assert!(
        ended["tail"][0].as_str().unwrap().contains("escaped.sql"),
        "{ended}"
    );
    assert!(!worker.folder.path().join("escaped.sql").exists());
    // An older order says nothing; a newer one does, and starts no key twice.
    master.order(1, 0, json!([]));
    let sequence = refused["sequence"].as_u64().unwrap();
    let later = worker.reports(&master, "two reports later", |report| {
        report["sequence"].as_u64().unwrap() > sequence + 1
    });
    assert_eq!(exit(&later), Some(ended));
    master.order(2, 1, json!([]));
    worker.reports(&master, "it is forgotten", |report| {
        report["processes"] == json!([])
    });
}

#[test]
fn a_child_that_ends_is_told_with_its_last_words() {
    let master = Master::start(None);
    let mut worker = Worker::start(&master.url(), None);
    worker.reports(&master, "it registers", |_| true);
    master.order(1, 1, json!([order(7, "views.sql")]));
    let report = worker.reports(&master, "it tells the end", |report| exit(report).is_some());
    let ended = exit(&report).unwrap();
    assert!(
        ended["code"].as_i64().is_some_and(|code| code > 0),
        "{ended}"
    );
    let tail = ended["tail"].as_array().unwrap();
    assert!(!tail.is_empty() && tail.len() <= 20, "{ended}");
    let said = tail
        .iter()
        .any(|line| line.as_str().unwrap().starts_with("error:"));
    assert!(said, "{ended}");
    let logs = get(&http(&report), "/cluster/logs?process=worker", None).1;
    assert!(
        logs.contains("users.dataflow.0 of generation 7 started"),
        "{logs}"
    );
    let pipelines = worker.folder.path().join("w1/pipelines");
    assert_eq!(std::fs::read_dir(&pipelines).unwrap().count(), 1);
    master.order(1, 2, json!([]));
    worker.reports(&master, "it is forgotten", |report| {
        report["processes"] == json!([])
    });
    assert_eq!(std::fs::read_dir(&pipelines).unwrap().count(), 0);
}

/// An order for the ingest of the example, on a file in the worker's folder.
fn ingest(worker: &Worker, generation: u64) -> Value {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/users");
    let mut order = order(generation, "views.sql");
    for file in ["ingest.toml", "views.sql", "countries.csv"] {
        let text = std::fs::read_to_string(example.join(file)).unwrap();
        order["spec"]["files"][file] = text.into();
    }
    let data = worker.folder.path().join("river.sqlite");
    order["spec"]["connections"]["data"] = data.display().to_string().into();
    order["key"]["part"] = "ingest".into();
    order
}

/// The process of the child that the worker started last.
fn pid(worker: &Worker) -> u32 {
    let said = worker.process.said();
    let (_, rest) = said.rsplit_once("pid=").unwrap();
    rest.split([' ', '\n']).next().unwrap().parse().unwrap()
}

/// Whether a process has not ended; one that nobody reaped yet has.
fn is_alive(pid: u32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| !words.is_empty())
}

#[test]
fn a_frozen_child_is_killed_and_none_outlives_its_worker() {
    let master = Master::start(None);
    let mut worker = Worker::start(&master.url(), None);
    worker.reports(&master, "it registers", |_| true);
    let live = |report: &Value| report["processes"][0]["phase"] == "live";
    master.order(1, 1, json!([ingest(&worker, 1)]));
    let report = worker.reports(&master, "it lives and beats", |report| {
        live(report) && report["processes"][0]["beat"].is_object()
    });
    let frozen = pid(&worker);
    assert!(send("STOP", frozen));
    let report_of_end = worker.reports(&master, "it is killed", |report| exit(report).is_some());
    let ended = exit(&report_of_end).unwrap();
    assert_eq!(
        (&ended["frozen"], &ended["signal"]),
        (&json!(true), &json!(9))
    );
    assert!(!is_alive(frozen));
    let logs = get(&http(&report), "/cluster/logs?process=users.ingest.0", None).1;
    assert!(logs.contains("job=users generation=1 process=0"), "{logs}");
    // The next one is there when the worker is killed, and another when it is asked to leave.
    master.order(1, 2, json!([ingest(&worker, 2)]));
    worker.reports(&master, "the next lives", live);
    let orphan = pid(&worker);
    worker.process.kill();
    until("the child ends with its worker", PATIENCE, || {
        (!is_alive(orphan)).then_some(())
    });
    master.order(1, 3, json!([]));
    let mut other = Worker::start(&master.url(), None);
    let id = report["worker"].clone();
    other.reports(&master, "another registers", |report| {
        report["worker"] != id
    });
    master.order(1, 4, json!([ingest(&other, 3)]));
    other.reports(&master, "it lives", live);
    let drained = pid(&other);
    other.process.signal("TERM");
    other.process.ends(0, PATIENCE);
    assert!(!is_alive(drained));
    let last = master.reported().unwrap();
    assert_eq!(
        (&last["slots"], &exit(&last).unwrap()["code"]),
        (&json!(0), &json!(0))
    );
}

#[test]
fn a_master_that_is_away_is_spoken_of_once_and_found_again() {
    let mut master = Master::start(None);
    let mut worker = Worker::start(&master.url(), None);
    let report = worker.reports(&master, "it registers", |_| true);
    let at = http(&report);
    assert_eq!(get(&at, "/healthz", None).0, 200);
    until("it is ready", PATIENCE, || {
        (get(&at, "/readyz", None).0 == 200).then_some(())
    });
    master.stop();
    until("it is not ready", PATIENCE, || {
        (get(&at, "/readyz", None).0 == 503).then_some(())
    });
    assert_eq!(get(&at, "/healthz", None).0, 200);
    master.again();
    let sequence = report["sequence"].as_u64().unwrap();
    worker.reports(&master, "it reports again", |report| {
        report["sequence"].as_u64().unwrap() > sequence
    });
    let said = worker.process.said();
    assert_eq!(said.matches("trying again").count(), 1, "{said}");
}

#[test]
fn a_worker_that_is_stopped_says_so_and_ends() {
    let master = Master::start(None);
    let mut worker = Worker::start(&master.url(), None);
    worker.reports(&master, "it registers", |_| true);
    worker.process.signal("TERM");
    worker.process.ends(0, PATIENCE);
    assert_eq!(master.reported().unwrap()["slots"], 0);
}

#[test]
fn the_token_is_wanted_and_never_said() {
    let master = Master::start(Some(TOKEN));
    let mut stranger = Worker::start(&master.url(), Some("another-token"));
    let said = stranger.process.ends(1, PATIENCE);
    assert!(said.contains("TIDEMILL_TOKEN"), "{said}");
    let mut worker = Worker::start(&master.url(), Some(TOKEN));
    let report = worker.reports(&master, "it registers", |_| true);
    let at = http(&report);
    assert_eq!(get(&at, "/cluster/logs", None).0, 401);
    assert_eq!(get(&at, "/cluster/logs", Some("another-token")).0, 401);
    let (code, logs) = get(&at, "/cluster/logs", Some(TOKEN));
    assert_eq!(code, 200);
    assert!(logs.contains("worker w1 starts"), "{logs}");
    for text in [logs, worker.process.said(), said] {
        assert!(
            !text.contains(TOKEN) && !text.contains("another-token"),
            "{text}"
        );
    }
}

#[test]
fn no_two_workers_write_over_each_other() {
    let master = Master::start(None);
    let mut worker = Worker::start(&master.url(), None);
    worker.reports(&master, "it registers", |_| true);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.args([
        "worker",
        "--master",
        &master.url(),
        "--slots",
        "1",
        "--name",
        "w1",
    ]);
    command.arg("--dir").arg(worker.folder.path());
    let said = Process::start(command, worker.folder.path()).ends(1, PATIENCE);
    assert!(said.contains("another worker named w1 runs"), "{said}");
}
