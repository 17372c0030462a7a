//! `cluster/launch.sh` as a person uses it: two workers with two slots each, users flow, the logs
//! of all are shown, a rescale, a stop that drains, and a second start that goes on from the
//! checkpoint which the stop took.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use arrow::datatypes::DataType;

use crate::harness::{PATIENCE, Place, View, send, until};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A cluster in a place's folder; stopped when dropped.
struct Cluster<'a> {
    place: &'a Place,
}

impl Cluster<'_> {
    fn run(&self, mut command: Command, args: &[&str]) -> Output {
        for (name, _) in std::env::vars() {
            if name.starts_with("TIDEMILL_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command.args(args).current_dir(self.place.folder());
        command.output().unwrap()
    }

    #[track_caller]
    fn script(&self, args: &[&str]) -> String {
        let command = Command::new(root().join("cluster/launch.sh"));
        said(&self.run(command, args))
    }

    /// `tidemill COMMAND --master …`.
    #[track_caller]
    fn ask(&self, args: &[&str]) -> String {
        let url = std::fs::read_to_string(self.place.folder().join("tidemill-cluster/url"));
        let url = url.unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.env("TIDEMILL_MASTER", url.trim());
        command.args([args[0], "--master", url.trim()]);
        said(&self.run(command, &args[1..]))
    }

    fn launch(&self) -> String {
        let data = self
            .place
            .folder()
            .join("river.sqlite")
            .display()
            .to_string();
        let binary = env!("CARGO_BIN_EXE_tidemill");
        let mut args = vec!["-n", "2", "-w", "2", "--port", "0", "--binary", binary];
        args.extend([
            self.place.name.as_str(),
            "--data",
            &data,
            "--every",
            "100ms",
        ]);
        self.script(&args)
    }

    fn processes(&self) -> Vec<u32> {
        let file = self.place.folder().join("tidemill-cluster/processes");
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let pids = text.lines().filter_map(|line| line.split(' ').nth(1));
        pids.map(|pid| pid.parse().unwrap()).collect()
    }

    /// The epoch of the newest checkpoint that a process said it went on from, in milliseconds.
    fn went_on_from(&self) -> u128 {
        let logs = self.place.folder().join("tidemill-cluster/logs");
        let mut newest = 0;
        for worker in ["worker1", "worker2"] {
            for file in std::fs::read_dir(logs.join(worker)).unwrap() {
                let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
                for (_, rest) in text.lines().filter_map(|line| line.split_once("epoch=")) {
                    let epoch = rest.split(' ').next().unwrap().parse::<u128>().unwrap();
                    newest = newest.max(epoch);
                }
            }
        }
        newest
    }
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The folder goes with the test: what happened is said now.
            let logs = self.place.folder().join("tidemill-cluster/logs");
            let tail = Command::new("bash")
                .args(["-c", "tail -n 30 $(find \"$1\" -name '*.log')", "-"])
                .arg(logs)
                .output();
            eprintln!("{}", String::from_utf8_lossy(&tail.unwrap().stdout));
        }
        for pid in self.processes() {
            send("KILL", pid);
        }
    }
}

#[track_caller]
fn said(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}:\n{out}\n{err}", output.status);
    out
}

#[test]
fn a_cluster_is_launched_watched_rescaled_stopped_and_goes_on() {
    let place = Place::embedded("launched");
    for file in ["ingest.toml", "views.sql", "countries.csv"] {
        let text = std::fs::read_to_string(root().join("examples/users").join(file));
        place.write(file, &text.unwrap());
    }
    let users = View::new("created_users", &[("id", DataType::Utf8)]);
    let seen = |more: usize| {
        until("users flow", PATIENCE, || {
            (place.view(&users).len() >= more).then_some(())
        });
    };
    let cluster = Cluster { place: &place };
    let printed = cluster.launch();
    assert!(printed.contains("2 workers with 2 slots each"), "{printed}");
    seen(200);
    let pids = cluster.processes();
    assert_eq!(pids.len(), 3);
    let status = cluster.script(&["--status"]);
    for part in ["worker2 runs", "running", &place.name] {
        assert!(status.contains(part), "`{part}` is missing in\n{status}");
    }
    let logs = cluster.ask(&["logs"]);
    for part in [
        "worker1/",
        "worker2/",
        ".dataflow.1",
        ".ingest.0",
        "master ",
    ] {
        assert!(logs.contains(part), "`{part}` is missing in\n{logs}");
    }
    let rescaled = cluster.ask(&["rescale", &place.name, "--workers", "2"]);
    assert!(
        rescaled.contains("running with 2 of 2 workers"),
        "{rescaled}"
    );
    seen(place.view(&users).len() + 100);
    let stopped = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    cluster.script(&["--stop"]);
    assert!(!pids.iter().any(|pid| crate::is_alive(*pid)), "{pids:?}");
    let before = place.view(&users).len();
    cluster.launch();
    seen(before + 100);
    cluster.script(&["--stop"]);
    // What was bound before the stop is in the checkpoint that the stop took.
    let went_on_from = cluster.went_on_from();
    assert!(
        went_on_from >= stopped,
        "{went_on_from}, stopped at {stopped}"
    );
}
