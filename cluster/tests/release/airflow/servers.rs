//! All of Airflow: API server, scheduler, DAG processor and triggerer, with runs by REST, an API
//! that fails, a task that is killed, and a backfill. Every user is counted once.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use postgres::NoTls;
use reqwest::blocking::{Client, RequestBuilder};
use serde_json::{Value, json};
use tidemill_randomuser::Fault;

use crate::airflow::documented::lines;
use crate::airflow::installed::AIRFLOW;
use crate::airflow::users::{Users, pages};
use crate::harness::{PATIENCE, Process, free_port, left_out, send, until};

const DAG: &str = "tidemill_users";

/// What goes wrong with a page, and how often yet.
type Faults = Arc<Mutex<BTreeMap<u64, (Fault, u32)>>>;

/// Airflow's servers; ended with all that they started.
struct Airflow {
    users: Users,
    url: String,
    http: Client,
    token: String,
    exports: String,
    servers: Vec<Process>,
}

impl Airflow {
    fn start(users: Users, api: &str) -> Self {
        let metadata = format!("{}_meta", users.place.name);
        let mut admin = postgres::Client::connect(&users.place.database, NoTls).unwrap();
        let create = format!("CREATE DATABASE {metadata}");
        admin.batch_execute(&create).unwrap();
        let (base, _) = users.place.database.rsplit_once('/').unwrap();
        let port = free_port();
        let url = format!("http://127.0.0.1:{port}");
        let postgres = base.replacen("postgres://", "postgresql+psycopg2://", 1);
        let settings = settings(api, &format!("{postgres}/{metadata}"), port);
        let settings = settings.map(|(name, value)| format!("export {name}='{value}'"));
        let exports = format!("{}\n{}", users.exports(), settings.join("\n"));
        let mut airflow = Self {
            users,
            url,
            http: Client::builder()
                .no_proxy()
                .timeout(PATIENCE)
                .build()
                .unwrap(),
            token: String::new(),
            exports,
            servers: Vec::new(),
        };
        airflow.runs("airflow db migrate");
        airflow.serve();
        airflow.token = until("Airflow's API answers", AIRFLOW, || {
            let answer = airflow
                .http
                .get(format!("{}/auth/token", airflow.url))
                .send()
                .ok()?;
            let token: Value = answer.error_for_status().ok()?.json().ok()?;
            Some(token["access_token"].as_str()?.to_owned())
        });
        airflow
    }

    /// Starts the servers, each with a group of its own.
    fn serve(&mut self) {
        for server in [
            "api-server",
            "scheduler --skip-serve-logs",
            "dag-processor",
            "triggerer --skip-serve-logs",
        ] {
            let mut command = Command::new("setsid");
            let script = self
                .users
                .script(&format!("{}\nexec airflow {server}", self.exports));
            command.arg("bash").args(script.get_args());
            for (name, value) in script.get_envs() {
                match value {
                    Some(value) => command.env(name, value),
                    None => command.env_remove(name),
                };
            }
            command.current_dir(script.get_current_dir().unwrap());
            let folder = self.users.place.folder();
            self.servers.push(Process::start_in(command, folder));
        }
    }

    fn runs(&self, line: &str) -> String {
        let script = format!("{}\n{line}", self.exports);
        self.users.installed.ends(self.users.script(&script))
    }

    fn asked(&self, request: RequestBuilder) -> Option<Value> {
        let answer = request.bearer_auth(&self.token).send().ok()?;
        answer.error_for_status().ok()?.json().ok()
    }

    fn get(&self, path: &str) -> Option<Value> {
        self.asked(self.http.get(format!("{}/api/v2/{path}", self.url)))
    }

    /// Starts a run of a day; its id.
    fn trigger(&self, day: u32) -> String {
        let path = format!("{}/api/v2/dags/{DAG}/dagRuns", self.url);
        let body = json!({"logical_date": format!("2026-11-{day:02}T00:00:00Z")});
        until("the run is taken", AIRFLOW, || {
            let run = self.asked(self.http.post(&path).json(&body))?;
            Some(run["dag_run_id"].as_str()?.to_owned())
        })
    }

    /// Waits until a run succeeded.
    #[track_caller]
    fn succeeds(&self, run: &str) {
        let deadline = Instant::now() + 2 * AIRFLOW;
        loop {
            let found = self.get(&format!("dags/{DAG}/dagRuns/{run}"));
            let state = found.map(|run| run["state"].clone()).unwrap_or_default();
            if state == "success" {
                return;
            }
            let failed = state == "failed" || Instant::now() > deadline;
            let tasks = || self.get(&format!("dags/{DAG}/dagRuns/{run}/taskInstances"));
            assert!(!failed, "{run} is {state}: {:#?}", tasks());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn task(&self, run: &str, task: &str, more: &str) -> Value {
        let path = format!("dags/{DAG}/dagRuns/{run}/taskInstances/{task}{more}");
        self.get(&path).unwrap()
    }

    /// What a task returned.
    fn returned(&self, run: &str, task: &str) -> Value {
        self.task(run, task, "/xcomEntries/return_value")["value"].clone()
    }

    fn tries(&self, run: &str) -> u64 {
        self.task(run, "ingest", "")["try_number"].as_u64().unwrap()
    }

    /// Five days at once, each with a page of its own.
    fn backfill(&self) {
        let backfill = &lines(&["airflow backfill create"])[0];
        let backfill = backfill.replace("11-01", "11-06").replace("11-05", "11-10");
        self.runs(&backfill);
        let runs = until("five runs are made", AIRFLOW, || {
            let runs = self.get(&format!("dags/{DAG}/dagRuns?limit=100"))?;
            let runs = runs["dag_runs"].as_array()?.clone().into_iter();
            let runs = runs.filter(|run| run["run_type"] == "backfill");
            let ids: Vec<String> = runs
                .map(|run| run["dag_run_id"].as_str().unwrap().into())
                .collect();
            (ids.len() == 5).then_some(ids)
        });
        for run in runs {
            self.succeeds(&run);
            assert_eq!(self.returned(&run, "ingest")["changed"], 100);
        }
        assert_eq!(self.users.counts(), (800, 800));
    }

    /// A run by REST, what it returns, and what follows from it.
    fn one_run(&self) {
        let run = self.trigger(1);
        self.succeeds(&run);
        let told = self.returned(&run, "ingest");
        let numbers =
            ["pages", "landed", "changed", "dead"].map(|name| told[name].as_u64().unwrap());
        assert_eq!(numbers, [1, 100, 100, 0], "{told}");
        let shown = self.returned(&run, "views");
        assert_eq!(shown["lsn"], told["lsn"]);
        assert!(shown["epoch"].as_u64().unwrap() > 0, "{shown}");
        assert_eq!(self.returned(&run, "check"), 100);
        until("the view's asset has an event of it", AIRFLOW, || {
            let events = self.get("assets/events")?;
            let mut events = events["asset_events"].as_array()?.clone().into_iter();
            events.find(|event| event["extra"]["lsn"] == told["lsn"])
        });
        until("the report ran", AIRFLOW, || {
            let runs = self.get("dags/tidemill_users_report/dagRuns")?;
            let mut runs = runs["dag_runs"].as_array()?.clone().into_iter();
            runs.find(|run| run["state"] == "success")
        });
    }

    fn end(mut self) {
        self.stop("TERM");
        for server in &mut self.servers {
            server.end(AIRFLOW);
        }
        self.stop("KILL");
        let database = self.users.place.database.clone();
        let mut admin = postgres::Client::connect(&database, NoTls).unwrap();
        let drop = format!("DROP DATABASE {}_meta WITH (FORCE)", self.users.place.name);
        admin.batch_execute(&drop).unwrap();
        self.users.end();
    }

    /// Signals each server and all that it started.
    fn stop(&self, signal: &str) {
        for server in &self.servers {
            let group = format!("-{}", server.id());
            let mut kill = Command::new("kill");
            kill.args([&format!("-{signal}"), "--", &group]);
            // One that ended has no group any more.
            let _gone = kill.stderr(Stdio::null()).status();
        }
    }
}

/// What Airflow runs with: everything on this machine alone.
fn settings(api: &str, metadata: &str, port: u16) -> [(&'static str, String); 11] {
    let url = format!("http://127.0.0.1:{port}");
    [
        ("TIDEMILL_API", api.to_owned()),
        ("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", metadata.to_owned()),
        ("AIRFLOW__CORE__EXECUTOR", "LocalExecutor".to_owned()),
        ("AIRFLOW__CORE__PARALLELISM", "3".to_owned()),
        (
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION",
            "False".to_owned(),
        ),
        (
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS",
            "True".to_owned(),
        ),
        (
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
            format!("{url}/execution/"),
        ),
        ("AIRFLOW__API__HOST", "127.0.0.1".to_owned()),
        ("AIRFLOW__API__PORT", port.to_string()),
        ("AIRFLOW__API__WORKERS", "1".to_owned()),
        (
            "AIRFLOW__API_AUTH__JWT_SECRET",
            "a secret of this test alone, of 32 and more".to_owned(),
        ),
    ]
}

impl Drop for Airflow {
    fn drop(&mut self) {
        self.stop("KILL");
        if std::thread::panicking() {
            for server in &self.servers {
                let said = server.said();
                let from = said.ceil_char_boundary(said.len().saturating_sub(6_000));
                eprintln!("--\n{}", &said[from..]);
            }
        }
    }
}

/// The program that fetches this page now, and the task's process that waits for it.
fn fetching(pipeline: &str, page: u64) -> Option<(u32, u32)> {
    let processes = std::fs::read_dir("/proc").unwrap();
    let mut ids = processes.filter_map(|it| it.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let page = page.to_string();
    let id = ids.find(|id| {
        let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        let words: Vec<&str> = line.split('\0').collect();
        words.contains(&pipeline) && words.windows(2).any(|it| it == ["--pages", &page])
    })?;
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    Some((id, parent.trim().parse().ok()?))
}

#[test]
fn every_user_counts_once_whatever_happens_to_the_runs() {
    let test = "every_user_counts_once_whatever_happens_to_the_runs";
    if std::env::var("TIDEMILL_TEST_AIRFLOW_SERVERS").is_err() {
        left_out(&format!("{test} needs ./test --airflow"));
        return;
    }
    let Some(users) = Users::start(test) else {
        return;
    };
    // Another client of this process may have set it already.
    let _set = rustls::crypto::ring::default_provider().install_default();
    let faults = Faults::default();
    let wrong = Arc::clone(&faults);
    let api = pages(move |request| {
        let mut wrong = wrong.lock().unwrap();
        let (fault, left) = wrong.get_mut(&request.page)?;
        *left = left.checked_sub(1)?;
        Some(fault.clone())
    });
    let airflow = Airflow::start(users, &api.url());

    airflow.one_run();

    // Five tries a page, and once more by Airflow.
    faults.lock().unwrap().insert(2, (Fault::Status(503), 7));
    let run = airflow.trigger(2);
    airflow.succeeds(&run);
    assert_eq!(airflow.tries(&run), 2);

    // Its process is killed while it waits for an answer.
    faults.lock().unwrap().insert(3, (Fault::Hang, 1));
    let run = airflow.trigger(3);
    let pipeline = airflow.users.here("examples/users");
    let (program, task) = until("page 3 is asked for", AIRFLOW, || {
        let asked = faults.lock().unwrap()[&3].1 == 0;
        fetching(&pipeline, 3).filter(|_| asked)
    });
    assert!(send("KILL", task));
    until("the program ends with its task", PATIENCE, || {
        (!std::path::Path::new(&format!("/proc/{program}")).exists()).then_some(())
    });
    airflow.succeeds(&run);
    assert!(airflow.tries(&run) >= 2);
    assert_eq!(airflow.users.counts(), (300, 300));

    airflow.backfill();
    airflow.end();
}
