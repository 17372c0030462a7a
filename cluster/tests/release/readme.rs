//! The commands of README.md, run as they stand: in the repository's root, by a shell. What a new
//! user leaves out comes from the environment: where the file and the journal go.

use std::path::{Path, PathBuf};
use std::process::Command;

use arrow::datatypes::DataType;

use crate::harness::{PATIENCE, Place, Process, View, free_port, until};

const SERVICES: [&str; 4] = ["postgres", "kafka", "registry", "cassandra"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The command of README.md that runs the example, on the services or not, as one line.
fn command(services: bool) -> String {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let readme = readme.replace("\\\n", " ");
    let mut lines = readme.lines().map(str::trim);
    let line = lines.find(|line| {
        line.starts_with("cargo run --release -- run examples/users")
            && line.contains("--postgres") == services
    });
    line.expect("a command of README.md").to_owned()
}

/// What git sees in the repository.
fn files() -> String {
    let status = Command::new("git")
        .args(["status", "--porcelain", "--ignored"])
        .current_dir(root())
        .output();
    String::from_utf8(status.unwrap().stdout).unwrap()
}

/// Runs a command line until users are in the views, then stops it as Ctrl-C does.
fn run(line: &str, place: &Place) {
    let mut command = Command::new("bash");
    // Shell and cargo are replaced by the program, so that the signal reaches it.
    command.args(["-c", &format!("exec {line}")]);
    command.current_dir(root());
    // What cargo tells its tests is not there for a person, and makes it build some crates anew.
    let ours = |name: &str| name == "CARGO_TARGET_DIR" || name == "CARGO_HOME";
    let strange = |name: &str| name.starts_with("TIDEMILL_") || name.starts_with("CARGO_");
    for (name, _) in std::env::vars().filter(|(name, _)| strange(name) && !ours(name)) {
        command.env_remove(name);
    }
    command.env("TIDEMILL_DATA", place.folder().join("river.sqlite"));
    if !place.sink.starts_with("sqlite://") {
        command.env("TIDEMILL_JOURNAL", place.folder().join("readme-journal"));
    }
    let mut process = Process::start_in(command, place.folder());
    // A build that is not there yet takes its time.
    until("users are in the views", 20 * PATIENCE, || {
        process.runs();
        (users(place) >= 200).then_some(())
    });
    let said = process.stop("INT");
    let fetched = said.rsplit("fetched ").next().unwrap_or_default();
    let number = fetched.split(' ').next().unwrap_or_default();
    let fetched = number.replace(',', "");
    assert!(
        fetched.parse::<usize>().is_ok_and(|fetched| fetched >= 200),
        "{said}"
    );
}

/// How many users the views show.
fn users(place: &Place) -> usize {
    let users = View::new("created_users", &[("id", DataType::Utf8)]);
    place.view(&users).len()
}

#[test]
fn the_embedded_command_runs_as_it_stands() {
    let place = Place::embedded("readme");
    let before = files();
    run(&command(false), &place);
    assert_eq!(files(), before, "files were left in the repository");
}

/// The services of one test; stopped when dropped.
struct Own {
    state: tempfile::TempDir,
    ports: [u16; 4],
}

impl Own {
    fn command(&self, script: &str) -> Command {
        let mut command = Command::new(root().join("services").join(script));
        command.env("TIDEMILL_SERVICES", self.state.path());
        for (service, port) in SERVICES.iter().zip(self.ports) {
            let variable = format!("TIDEMILL_{}_PORT", service.to_uppercase());
            command.env(variable, port.to_string());
        }
        command
    }

    fn up(&self, names: &[&str]) {
        let mut up = self.command("up");
        up.args(names);
        Process::start_in(up, self.state.path()).ends(0, 5 * PATIENCE);
    }

    fn place(&self, keyspace: Option<&str>) -> Place {
        let [postgres, kafka, registry, cassandra] = self.ports;
        let cassandra = format!("cassandra://127.0.0.1:{cassandra}");
        let mut place = Place::on(
            "late",
            format!("postgres://postgres@127.0.0.1:{postgres}/postgres"),
            format!("kafka://127.0.0.1:{kafka}"),
            format!("http://127.0.0.1:{registry}/apis/ccompat/v7"),
            &cassandra,
        );
        if let Some(keyspace) = keyspace {
            place.sink = format!("{cassandra}/{keyspace}");
        }
        place
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // Whatever came up goes down, however the test ended.
        let _down = self.command("down").arg("--wipe").output();
    }
}

/// The parts are started before any service is there: they say what they wait for, and go on as
/// it comes. Then the command of README.md runs on the services, with their addresses.
#[test]
fn late_services_are_waited_for_and_the_command_for_services_runs() {
    if Place::services("late").is_none() {
        return; // the services are not installed, or nobody asked for them
    }
    let own = Own {
        state: tempfile::tempdir().unwrap(),
        ports: [0; 4].map(|_| free_port()),
    };
    let place = own.place(None);
    for file in ["ingest.toml", "views.sql", "countries.csv"] {
        let text = std::fs::read_to_string(root().join("examples/users").join(file));
        place.write(file, &text.unwrap());
    }
    let mut ingest = place.start("ingest", &["--until", "100"]);
    let mut dataflow = place.start("dataflow", &[]);
    ingest.says("database is away, trying again");
    dataflow.says("registry 127.0.0.1");
    own.up(&["registry", "postgres", "kafka"]);
    dataflow.says("waiting for Cassandra at 127.0.0.1");
    own.up(&["cassandra"]);
    until("users are in Cassandra", 2 * PATIENCE, || {
        ingest.runs();
        dataflow.runs();
        (users(&place) == 100).then_some(())
    });
    ingest.stop("TERM");
    dataflow.stop("TERM");

    // README.md has the default ports and keyspace.
    let mut line = command(true);
    for (default, port) in ["5432", "9092", "8081", "9042"].iter().zip(own.ports) {
        line = line.replace(&format!(":{default}"), &format!(":{port}"));
    }
    run(&line, &own.place(Some("tidemill")));
}
