//! `cluster/launch.sh` as a person uses it: two workers with two slots each, here or over ssh,
//! users flow, the logs of all are shown, a rescale, a stop that drains, and a second start that
//! goes on from the checkpoint which the stop took.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use arrow::datatypes::DataType;

use crate::harness::database::Database;
use crate::harness::{PATIENCE, Place, Process, View, free_port, given, send, until};

pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A cluster in a place's folder; stopped when dropped.
pub(super) struct Cluster<'a> {
    pub(super) place: &'a Place,
    /// Where workers are started from here; none for this machine.
    pub(super) ssh: Option<Ssh>,
}

/// A machine that is reached over ssh under two names: this one, by an sshd of its own.
pub(super) struct Ssh {
    folder: PathBuf,
    _sshd: Process,
}

impl Ssh {
    /// None without an sshd.
    fn start(place: &Place) -> Option<Self> {
        let binary = given("a launch over ssh", "TIDEMILL_TEST_SSHD")?;
        let folder = place.folder().join("ssh");
        std::fs::create_dir(&folder).unwrap();
        let (at, port) = (folder.display(), free_port());
        for key in ["mine", "the_hosts"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(folder.join(key))
                .status();
            assert!(made.unwrap().success());
        }
        let write = |file: &str, text: String| std::fs::write(folder.join(file), text).unwrap();
        let conf = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {at}/the_hosts\nUsePAM no\n\
             AuthorizedKeysFile {at}/mine.pub\nStrictModes no\nPidFile none\n"
        );
        write("sshd.conf", conf);
        let conf = format!(
            "Host left right\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {at}/mine\n  \
             StrictHostKeyChecking accept-new\n  UserKnownHostsFile {at}/known\n  LogLevel ERROR\n"
        );
        write("conf", conf);
        write("hosts", "left\nright # the second\n".to_owned());
        // ssh takes a user's settings from where the system says the user is at home.
        write(
            "ssh",
            format!("#!/bin/sh\nexec /usr/bin/ssh -F {at}/conf \"$@\"\n"),
        );
        let runs = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.join("ssh"), runs).unwrap();
        let mut sshd = Command::new(binary);
        sshd.args(["-D", "-e", "-f"]).arg(folder.join("sshd.conf"));
        let sshd = Process::start_in(sshd, &folder);
        until("sshd listens", PATIENCE, || {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Some(Self {
            folder,
            _sshd: sshd,
        })
    }

    /// The search path on which its ssh comes first.
    fn path(&self) -> String {
        let rest = std::env::var("PATH").unwrap();
        format!("{}:{rest}", self.folder.display())
    }
}

impl Cluster<'_> {
    fn run(&self, mut command: Command, args: &[&str]) -> Output {
        for (name, _) in std::env::vars() {
            if name.starts_with("TIDEMILL_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        if let Some(ssh) = &self.ssh {
            command.env("PATH", ssh.path());
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
        let token = self.place.folder().join("tidemill-cluster/token");
        if token.metadata().is_ok_and(|token| token.len() > 0) {
            command.env("TIDEMILL_TOKEN_FILE", token);
        }
        command.env("TIDEMILL_MASTER", url.trim());
        command.args([args[0], "--master", url.trim()]);
        said(&self.run(command, &args[1..]))
    }

    fn launch(&self) -> String {
        let hosts = self.ssh.iter().flat_map(|ssh| {
            let hosts = ssh.folder.join("hosts").display().to_string();
            [
                "--hosts".into(),
                hosts,
                "--listen".into(),
                "127.0.0.1".into(),
            ]
        });
        let hosts: Vec<String> = hosts.collect();
        let state = self.place.folder().join("state");
        let state = format!("file://{}", state.display());
        let mut flags = vec!["--every", "100ms"];
        if self.ssh.is_some() {
            flags.extend(["--state", &state]);
        }
        let pipeline = self.place.arguments("submit", &flags);
        let binary = env!("CARGO_BIN_EXE_tidemill");
        let mut args = vec!["-n", "2", "-w", "2", "--port", "0", "--binary", binary];
        args.extend(hosts.iter().map(String::as_str));
        args.extend(pipeline.iter().skip(1).map(String::as_str));
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
        // It also ends what was started again, which a kill of those that it knows would not.
        let script = Command::new(root().join("cluster/launch.sh"));
        let _stopped = self.run(script, &["--stop"]);
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

/// The example, on tables and topics of its own.
pub(super) fn example(place: &Place) -> [String; 2] {
    let tables = ["users", "countries"].map(|table| format!("{}_{table}", place.name));
    for file in ["ingest.toml", "views.sql", "countries.csv"] {
        let text = std::fs::read_to_string(root().join("examples/users").join(file));
        let mut text = text.unwrap();
        for (table, own) in ["users", "countries"].iter().zip(&tables) {
            text = text.replace(
                &format!("table = \"{table}\""),
                &format!("table = \"{own}\""),
            );
            text = text.replace(&format!("topic = '{table}'"), &format!("topic = '{own}'"));
        }
        place.write(file, &text);
    }
    tables
}

/// Waits until there are so many users.
pub(super) fn flow(place: &Place, least: usize) {
    until("users flow", PATIENCE, || {
        (users(place) >= least).then_some(())
    });
}

fn users(place: &Place) -> usize {
    let users = View::new("created_users", &[("id", DataType::Utf8)]);
    // The table is made when the job begins.
    match place.are_there(&["created_users"]) {
        true => place.view(&users).len(),
        false => 0,
    }
}

fn is_launched_watched_rescaled_stopped_and_goes_on(cluster: &Cluster<'_>) {
    let place = cluster.place;
    let printed = cluster.launch();
    assert!(printed.contains("2 workers with 2 slots each"), "{printed}");
    flow(place, 200);
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
    flow(place, users(place) + 100);
    let stopped = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    cluster.script(&["--stop"]);
    assert!(
        !pids.iter().any(|pid| crate::worker::is_alive(*pid)),
        "{pids:?}"
    );
    let before = users(place);
    let published = place
        .records_up_to(&format!("{}_users", place.name), 1_000_000)
        .len();
    assert_eq!(before, published, "users in the view, users in the topic");
    cluster.launch();
    flow(place, before + 100);
    cluster.script(&["--stop"]);
    // What was bound before the stop is in the checkpoint that the stop took.
    let went_on_from = cluster.went_on_from();
    assert!(
        went_on_from >= stopped,
        "{went_on_from}, stopped at {stopped}"
    );
}

#[test]
fn a_cluster_is_launched_watched_rescaled_stopped_and_goes_on() {
    let place = Place::embedded("launched");
    example(&place);
    let (place, ssh) = (&place, None);
    is_launched_watched_rescaled_stopped_and_goes_on(&Cluster { place, ssh });
}

#[test]
fn a_cluster_is_launched_on_the_services() {
    let Some(place) = Place::services("launched") else {
        return;
    };
    let tables = example(&place);
    let (at, ssh) = (&place, None);
    is_launched_watched_rescaled_stopped_and_goes_on(&Cluster { place: at, ssh });
    let tables = tables.each_ref().map(String::as_str);
    Database::open(&place.database).clean(&place.name, &tables);
}

/// The arguments of a command on a pipeline, with no place named for its state.
fn stateless(place: &Place, command: &str, more: &[&str]) -> Vec<String> {
    let mut args = place.arguments(command, more);
    if let Some(at) = args.iter().position(|arg| arg == "--journal") {
        args.drain(at..at + 2);
    }
    args
}

/// A job whose tables another journal filled is refused, and one that is not there in time is told.
fn what_cannot_run_is_told(place: &Place) {
    let submit = |more: &[&str]| {
        let url = std::fs::read_to_string(place.folder().join("tidemill-cluster/url")).unwrap();
        let mut binary = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        binary
            .args(stateless(place, "submit", more))
            .args(["--master", url.trim()]);
        binary.current_dir(place.folder());
        Process::start(binary, place.folder())
    };
    let elsewhere = format!("file://{}/elsewhere", place.folder().display());
    let said = submit(&["--state", &elsewhere]).ends(1, PATIENCE);
    assert!(
        said.contains("it is not the journal that this table was filled with"),
        "{said}"
    );
    flow(place, users(place) + 100);
    let more = [
        "--state-of-run",
        "--wait-for-slots",
        "--workers",
        "50",
        "--timeout",
        "1s",
    ];
    let said = submit(&more).ends(6, PATIENCE);
    assert!(said.contains("after 1 s; it goes on"), "{said}");
}

/// `tidemill run` and the script, each with the state that the other left, where nobody says where
/// state is.
fn run_and_the_script_go_on_from_one_another(place: &Place) {
    let tables = example(place);
    let cluster = Cluster { place, ssh: None };
    let nowhere = |command: &str, more: &[&str]| stateless(place, command, more);
    let run = || {
        let mut binary = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        binary.args(nowhere("run", &["--every", "50ms", "--log", "info"]));
        binary.current_dir(place.folder());
        Process::start(binary, place.folder())
    };
    let launch = || {
        let binary = env!("CARGO_BIN_EXE_tidemill");
        let submit = nowhere("submit", &["--every", "50ms"]);
        let mut args = vec!["-n", "2", "-w", "1", "--port", "0", "--binary", binary];
        args.extend(submit.iter().skip(1).map(String::as_str));
        cluster.script(&args);
    };
    let mut first = run();
    flow(place, 200);
    first.stop("TERM");
    let before = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    launch();
    flow(place, users(place) + 200);
    let went_on_from = cluster.went_on_from();
    assert!(
        went_on_from > 0 && went_on_from <= before,
        "the script used the run's state"
    );
    what_cannot_run_is_told(place);
    cluster.script(&["--stop"]);
    let mut last = run();
    last.says("going on from a checkpoint");
    flow(place, users(place) + 200);
    last.stop("TERM");
    let topic = &tables[0];
    place.is_published_once(topic);
    let published = place.records_up_to(topic, 1_000_000).len();
    assert_eq!(
        users(place),
        published,
        "users in the view, users in the topic"
    );
    let mut binary = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    binary
        .args(nowhere("verify", &["--from-log"]))
        .current_dir(place.folder());
    Process::start(binary, place.folder()).ends(0, PATIENCE);
}

#[test]
fn what_run_began_the_script_goes_on_with_and_back() {
    for place in Place::all("either") {
        run_and_the_script_go_on_from_one_another(&place);
        if !place.database.starts_with("sqlite:") {
            let tables = ["users", "countries"].map(|table| format!("{}_{table}", place.name));
            let tables = tables.each_ref().map(String::as_str);
            Database::open(&place.database).clean(&place.name, &tables);
        }
    }
}

#[test]
fn a_cluster_is_launched_over_ssh() {
    let place = Place::embedded("remote");
    example(&place);
    let Some(ssh) = Ssh::start(&place) else {
        return;
    };
    let (place, ssh) = (&place, Some(ssh));
    is_launched_watched_rescaled_stopped_and_goes_on(&Cluster { place, ssh });
}
