//! A master of a test's own, and whoever asks it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use reqwest::blocking::{Client, RequestBuilder};
use serde_json::{Value, json};

use crate::harness::{PATIENCE, Process, until};

/// A running master.
pub(crate) struct Master {
    pub(crate) process: Process,
    pub(crate) url: String,
    http: Client,
    token: Option<String>,
}

/// The binary, to be started as a master on the store in `folder`.
pub(crate) fn command(folder: &Path, more: &[&str]) -> Command {
    let mut binary = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    let state = format!("file://{}", folder.join("state").display());
    binary.args(["master", "--state", &state]).args(more);
    binary.current_dir(folder);
    binary
}

pub(crate) fn client() -> Client {
    // Another test may have set it already, to the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let patience = Duration::from_secs(10);
    Client::builder()
        .no_proxy()
        .timeout(patience)
        .build()
        .unwrap()
}

impl Master {
    /// A master without a token, on a free port.
    pub(crate) fn start(folder: &Path) -> Self {
        Self::start_with(folder, &[], None)
    }

    pub(crate) fn start_with(folder: &Path, more: &[&str], token: Option<&str>) -> Self {
        let mut command = command(folder, &["--listen", "127.0.0.1:0"]);
        command.args(more);
        command.envs(token.map(|token| ("TIDEMILL_TOKEN", token)));
        let mut process = Process::start(command, folder);
        process.says("answers at http");
        let said = process.said();
        let (_, url) = said.split_once("answers at ").unwrap();
        let url = url.lines().next().unwrap().to_owned();
        Self {
            process,
            url,
            http: client(),
            token: token.map(str::to_owned),
        }
    }

    fn ask(&self, request: RequestBuilder) -> (u16, Value) {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let answer = request.send().unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().unwrap();
        (
            status,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        )
    }

    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        self.ask(self.http.get(format!("{}{path}", self.url)))
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.ask(self.http.post(format!("{}{path}", self.url)).json(body))
    }

    /// Asks for something that must be done.
    #[track_caller]
    pub(crate) fn done(&self, path: &str, body: &Value) -> String {
        let (status, said) = self.post(path, body);
        assert_eq!(status, 200, "{said}");
        said["message"].as_str().unwrap().to_owned()
    }

    /// What it says of a job.
    pub(crate) fn job(&self, name: &str) -> Value {
        self.get(&format!("/api/v1/jobs/{name}")).1
    }

    /// Waits until a job is in a state.
    #[track_caller]
    pub(crate) fn is(&self, name: &str, state: &str) -> Value {
        until(&format!("{name} is {state}"), PATIENCE, || {
            Some(self.job(name)).filter(|job| job["state"] == state)
        })
    }
}

/// A job over a view, of so many workers.
pub(crate) fn job(name: &str, workers: usize) -> Value {
    json!({
        "name": name,
        "files": {"views.sql": "SELECT 1"},
        "connections": {"kafka": "127.0.0.1:1"},
        "workers": workers,
        "wait_for_slots": false,
        "ingest": false,
        "flags": {},
    })
}

/// A worker that this test plays.
pub(crate) struct Worker {
    pub(crate) id: String,
    slots: usize,
    sequence: u64,
    /// Key and phase of each process.
    pub(crate) processes: Vec<(Value, Value)>,
}

impl Worker {
    pub(crate) fn new(id: &str, slots: usize) -> Self {
        Self {
            id: id.to_owned(),
            slots,
            sequence: 0,
            processes: Vec::new(),
        }
    }

    /// Reports to a master; out come the orders.
    #[track_caller]
    pub(crate) fn report(&mut self, master: &Master) -> Value {
        self.sequence += 1;
        let processes = self.processes.iter();
        let processes = processes.map(|(key, phase)| json!({"key": key, "phase": phase}));
        let report = json!({
            "worker": self.id,
            "sequence": self.sequence,
            "name": format!("node-{}", self.id),
            "http": "127.0.0.1:1234",
            "slots": self.slots,
            "version": "0",
            "processes": processes.collect::<Vec<_>>(),
        });
        let (status, orders) =
            master.post(&format!("/cluster/workers/{}/report", self.id), &report);
        assert_eq!(status, 200, "{orders}");
        orders
    }

    /// Reports until the orders are as they should be; out come those of its processes.
    #[track_caller]
    pub(crate) fn until(
        &mut self,
        master: &Master,
        what: &str,
        fits: impl Fn(&[Value]) -> bool,
    ) -> Vec<Value> {
        until(what, PATIENCE, || {
            let orders = self.report(master);
            let processes = orders["processes"].as_array().unwrap().clone();
            Some(processes).filter(|processes| fits(processes))
        })
    }

    /// All of its processes are in this phase now.
    pub(crate) fn all(&mut self, orders: &[Value], phase: &Value) {
        let keys = orders.iter().map(|order| order["key"].clone());
        self.processes = keys.map(|key| (key, phase.clone())).collect();
    }
}

/// How a process ended.
pub(crate) fn exited(code: i32, said: &str) -> Value {
    json!({"exited": {
        "code": code, "signal": null, "frozen": false, "unreachable": [], "at_ms": 1,
        "tail": [said],
    }})
}
