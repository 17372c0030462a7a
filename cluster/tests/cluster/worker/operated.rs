//! The commands of docs/operate.md on the real services, as they stand but for the job's name and
//! where the services are. A command of the page that is not run here fails the test.

use std::process::Command;

use super::launch::{Cluster, example, flow, root};
use crate::harness::database::Database;
use crate::harness::{PATIENCE, Place, Process, free_port};

/// The page's commands that were not run yet, in a folder with the pipeline in it.
struct Page<'a> {
    place: &'a Place,
    master: String,
    left: Vec<String>,
}

impl<'a> Page<'a> {
    fn read(place: &'a Place) -> Self {
        let page = std::fs::read_to_string(root().join("docs/operate.md")).unwrap();
        let lines = page.lines().filter_map(|line| line.strip_prefix("    "));
        let is_command = |line: &&str| {
            // A picture, and a command of which the page shows a part.
            let other = line.contains('─') || line.contains(" … ");
            !other && (line.starts_with("tidemill ") || line.starts_with("cluster/"))
        };
        Self {
            left: lines.filter(is_command).map(str::to_owned).collect(),
            master: format!("127.0.0.1:{}", free_port()),
            place,
        }
    }

    /// Starts the page's command that begins so, with `more` behind it.
    #[track_caller]
    fn start(&mut self, beginning: &str, more: &str) -> Process {
        let at = self.left.iter().position(|it| it.starts_with(beginning));
        let at = at.unwrap_or_else(|| panic!("docs/operate.md has no `{beginning}`"));
        let line = self.left.remove(at);
        self.start_line(line.split('#').next().unwrap(), more)
    }

    fn start_line(&self, line: &str, more: &str) -> Process {
        let folder = self.place.folder().display();
        let line = line
            .replace("examples/users", &self.place.name)
            .replace("PIPELINE", &self.place.name)
            .replace(" users", &format!(" {}", self.place.name))
            .replace("127.0.0.1:7070", &self.master)
            .replace("/var/lib/tidemill", &format!("{folder}/master"))
            .replace("[VIEW…]", "created_users")
            .replace(
                "cluster/launch.sh",
                &format!("{}/cluster/launch.sh", root().display()),
            );
        let mut command = Command::new("bash");
        // Who starts the tests in the background has them ignore Ctrl-C, and what they start too.
        let line = format!("exec env --default-signal=INT {} {more}", line.trim());
        command.args(["-c", &line]);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TIDEMILL_")) {
            command.env_remove(name);
        }
        let program = std::path::Path::new(env!("CARGO_BIN_EXE_tidemill"));
        let path = [
            program.parent().unwrap().display().to_string(),
            std::env::var("PATH").unwrap(),
        ];
        command.env("PATH", path.join(":"));
        command.env("TIDEMILL_MASTER", format!("http://{}", self.master));
        command.env("TIDEMILL_STATE", format!("file://{folder}/state"));
        for (name, url) in [
            ("POSTGRES", &self.place.database),
            ("KAFKA", &self.place.log),
            ("REGISTRY", &self.place.registry),
            ("CASSANDRA", &self.place.sink),
        ] {
            command.env(format!("TIDEMILL_{name}"), url);
        }
        command.current_dir(self.place.folder());
        Process::start_in(command, self.place.folder())
    }

    /// Runs the page's command that begins so to its end; what it said.
    #[track_caller]
    fn run(&mut self, beginning: &str, more: &str) -> String {
        self.start(beginning, more).ends(0, 2 * PATIENCE)
    }

    /// Lets a command that goes on say something, and ends it as Ctrl-C does.
    #[track_caller]
    fn look(&mut self, beginning: &str, part: &str) {
        let mut process = self.start(beginning, "");
        process.says(part);
        process.signal("INT");
        process.end(PATIENCE);
    }
}

#[track_caller]
fn has(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "`{part}` is missing in\n{said}");
    }
}

fn watched(page: &mut Page<'_>) {
    let name = &page.place.name.clone();
    has(
        &page.run("tidemill status   ", ""),
        &[name, "left", "right"],
    );
    has(
        &page.run("tidemill status users ", ""),
        &[name, "running", "freshness"],
    );
    has(&page.run("tidemill status --json", ""), &["\"jobs\"", name]);
    page.look("tidemill status --watch", name);
    page.look("tidemill logs -f", ".ingest.0");
    page.run("tidemill logs dataflow.0", "");
    has(&page.run("tidemill logs left", ""), &["left/"]);
}

#[test]
fn the_commands_of_the_page_run_as_they_stand() {
    let Some(place) = Place::services("operated") else {
        return;
    };
    let tables = example(&place);
    let page = &mut Page::read(&place);
    let listen = format!("--listen {}", page.master);
    let mut master = page.start("tidemill master", &listen);
    master.says("answers at");
    let mut left = page.start("tidemill worker", "");
    let mut right = page.start("tidemill worker", "");
    has(
        &page.run("tidemill submit", ""),
        &["running with 4 of 4 workers"],
    );
    flow(&place, 100);
    watched(page);
    page.run("tidemill wait users  ", "");
    page.run("tidemill wait users --lsn", "");
    page.run("tidemill wait users --committed-before", "");
    has(
        &page.run("tidemill rescale", ""),
        &["running with 4 of 6 workers"],
    );
    has(&page.run("tidemill stop", ""), &["stopped"]);
    has(&page.run("tidemill restart", ""), &["running"]);
    has(
        &page.run("tidemill submit", ""),
        &["running with 4 of 4 workers"],
    );
    page.start_line("tidemill stop users", "")
        .ends(0, 2 * PATIENCE);
    page.run("tidemill remove", "");
    for process in [&mut right, &mut left, &mut master] {
        process.stop("TERM");
    }
    has(&page.run("tidemill reset", "--yes"), &["created_users"]);
    // Ends what was launched, however the test ends.
    let _launched = Cluster {
        place: &place,
        ssh: None,
    };
    let binary = format!("--port 0 --binary {}", env!("CARGO_BIN_EXE_tidemill"));
    has(
        &page.run("cluster/launch.sh", &binary),
        &["2 workers with 2 slots each"],
    );
    page.start_line("cluster/launch.sh", "--stop")
        .ends(0, 2 * PATIENCE);
    has(&page.run("tidemill drop", "--yes"), &["created_users"]);
    assert!(page.left.is_empty(), "not run: {:?}", page.left);
    let tables = tables.each_ref().map(String::as_str);
    Database::open(&place.database).clean(&place.name, &tables);
}
