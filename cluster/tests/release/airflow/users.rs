//! The example's pipeline with names of its own on the real services, the job of its views, and the
//! commands of docs/airflow.md on them.

use std::process::Command;

use arrow::datatypes::DataType;
use postgres::NoTls;
use tidemill_randomuser::{Request, Server, Source};

use crate::airflow::documented::lines;
use crate::airflow::installed::{Installed, root};
use crate::harness::{PATIENCE, Place, Process, View, free_port, until};

/// The example, running.
pub(crate) struct Users {
    pub(crate) installed: Installed,
    pub(crate) place: Place,
    server: String,
    master: u16,
    cluster: Vec<Process>,
}

/// The recorded pages; `fault` says what goes wrong with a request.
pub(crate) fn pages(
    fault: impl Fn(&Request) -> Option<tidemill_randomuser::Fault> + Send + Sync + 'static,
) -> Server {
    let options = tidemill_randomuser::Options {
        source: Source::Recorded(root().join("ingest/tests/randomuser")),
        faults: Some(std::sync::Arc::new(fault)),
        ..tidemill_randomuser::Options::default()
    };
    tidemill_randomuser::serve("127.0.0.1:0".parse().unwrap(), options).unwrap()
}

impl Users {
    /// Starts master and worker as the page says, and submits the job; none without the services.
    pub(crate) fn start(test: &str) -> Option<Self> {
        let installed = Installed::new(test)?;
        let mut place = Place::services("airflow")?;
        let server = place.database.clone();
        let mut admin = postgres::Client::connect(&server, NoTls).unwrap();
        let create = format!("CREATE DATABASE {}", place.name);
        admin.batch_execute(&create).unwrap();
        let (base, _) = server.rsplit_once('/').unwrap();
        place.database = format!("{base}/{}", place.name);
        place.reach("--postgres", &place.database.clone());
        let mut users = Self {
            installed,
            place,
            server,
            master: free_port(),
            cluster: Vec::new(),
        };
        users.write();
        for line in lines(&["tidemill master", "tidemill worker"]) {
            let process = users.bash(&format!("exec {line}"));
            users.cluster.push(process);
        }
        let submit = &lines(&["tidemill submit"])[0];
        until("the job is submitted", PATIENCE, || {
            let ended = users.bash(submit).end(PATIENCE);
            ended.success().then_some(())
        });
        Some(users)
    }

    /// The example's files, with topics of its own.
    fn write(&self) {
        let read =
            |file: &str| std::fs::read_to_string(root().join("examples/users").join(file)).unwrap();
        let replaced = |text: String, from: &str, to: &str| {
            assert!(text.contains(from), "the example has no `{from}`");
            text.replacen(from, to, 1)
        };
        let name = &self.place.name;
        let prefix = format!("[publish]\ntopic_prefix = \"{name}.\"");
        let ingest = replaced(read("ingest.toml"), "[publish]", &prefix);
        let mut views = read("views.sql");
        for table in ["users", "countries"] {
            let topic = format!("topic = '{name}.{table}'");
            views = replaced(views, &format!("topic = '{table}'"), &topic);
        }
        self.place.write("ingest.toml", &ingest);
        self.place.write("views.sql", &views);
        self.place.write("countries.csv", &read("countries.csv"));
    }

    fn pipeline(&self) -> String {
        let folder = self.place.folder().join(&self.place.name);
        folder.display().to_string()
    }

    /// A line of the page, on this test's services and folders.
    pub(crate) fn here(&self, line: &str) -> String {
        let place = &self.place;
        let bare = |url: &str| url.split_once("://").unwrap().1.to_owned();
        let (kafka, sink) = (bare(&place.log), bare(&place.sink));
        let cassandra = sink.split(['/', ':']).nth(1).unwrap();
        let folder = place.folder().display();
        let here = [
            (
                "postgres://postgres@127.0.0.1:5432/postgres",
                place.database.clone(),
            ),
            ("127.0.0.1:9092", kafka),
            (
                "http://127.0.0.1:8081/apis/ccompat/v7",
                place.registry.clone(),
            ),
            ("127.0.0.1:9042/tidemill", sink.clone()),
            ("\"port\": 9042", format!("\"port\": {cassandra}")),
            (
                "\"schema\": \"tidemill\"",
                format!("\"schema\": \"{}\"", place.name),
            ),
            (
                "http://127.0.0.1:7070",
                format!("http://127.0.0.1:{}", self.master),
            ),
            ("\"port\": 7070", format!("\"port\": {}", self.master)),
            (
                "tidemill master",
                format!("tidemill master --listen 127.0.0.1:{}", self.master),
            ),
            ("/tmp/tidemill-master", format!("{folder}/master")),
            ("/tmp/tidemill-worker", format!("{folder}/worker")),
            ("$PWD/examples/users", self.pipeline()),
            ("examples/users", self.pipeline()),
        ];
        let replace = |line: String, (from, to): (&str, String)| line.replace(from, &to);
        here.into_iter().fold(line.to_owned(), replace)
    }

    /// The variables that the page sets.
    pub(crate) fn exports(&self) -> String {
        let exports = lines(&["export "]);
        let exports: Vec<String> = exports.iter().map(|line| self.here(line)).collect();
        exports.join("\n")
    }

    /// A script of bash, in the repository's root.
    pub(crate) fn script(&self, script: &str) -> Command {
        let mut command = self.installed.command("bash");
        command.args(["-euc", script]);
        command
    }

    fn bash(&self, line: &str) -> Process {
        Process::start_in(self.script(&self.here(line)), self.place.folder())
    }

    /// Rows of the table, and users that the views count.
    pub(crate) fn counts(&self) -> (i64, i64) {
        let mut sql = postgres::Client::connect(&self.place.database, NoTls).unwrap();
        let stored = sql.query_one("SELECT count(*) FROM users", &[]);
        let stored = stored.map_or(0, |row| row.get(0));
        let columns = [("country", DataType::Utf8), ("users", DataType::Int64)];
        let rows = self.place.view(&View::new("users_by_country", &columns));
        let shown = rows.iter().map(|row| row[1].parse::<i64>().unwrap());
        (stored, shown.sum())
    }

    /// Removes everything again.
    pub(crate) fn end(&mut self) {
        for mut process in self.cluster.drain(..).rev() {
            process.stop("TERM");
        }
        let state = format!("file://{}/master", self.place.folder().display());
        self.place.reach("--journal", &state);
        self.place.start("drop", &["--yes"]).ends(0, PATIENCE);
        let mut admin = postgres::Client::connect(&self.server, NoTls).unwrap();
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.place.name);
        admin.batch_execute(&drop).unwrap();
    }
}

#[test]
fn the_documented_commands_run_the_example_from_the_api_to_the_views() {
    let test = "the_documented_commands_run_the_example_from_the_api_to_the_views";
    let Some(mut users) = Users::start(test) else {
        return;
    };
    let api = pages(|_| None);
    let commands = lines(&["airflow db migrate", "airflow dags test"]).join("\n");
    let own = "\"api\": \"\"";
    assert!(commands.contains(own), "{commands}");
    let commands = commands.replace(own, &format!("\"api\": \"{}\"", api.url()));
    let script = format!("{}\n{}", users.exports(), users.here(&commands));
    let said = users.installed.ends(users.script(&script));
    assert_eq!(users.counts(), (100, 100), "{said}");
    users.end();
}
