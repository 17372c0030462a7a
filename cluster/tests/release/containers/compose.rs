//! docker-compose.yml as it stands, brought up by docker-compose as the page says.

use std::process::Command;

use crate::containers::engine::{Engine, until};
use crate::containers::{commands, root, run};

/// Takes everything down, however the test ended.
struct Up<'a>(&'a Engine);

impl Up<'_> {
    fn compose(&self, arguments: &[&str]) -> Command {
        let mut command = self.0.command("docker-compose", arguments);
        command.current_dir(root());
        command
    }

    /// How many users the views in Cassandra show.
    fn users(&self) -> u64 {
        let select = "SELECT sum(users) FROM tidemill.users_by_country";
        let mut ask = self.compose(&["exec", "-T", "cassandra", "cqlsh", "-e", select]);
        let output = ask.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut lines = said.lines().map(str::trim);
        lines.find_map(|line| line.parse().ok()).unwrap_or(0)
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        let _down = self.compose(&["down", "--volumes"]).output();
    }
}

#[test]
fn the_compose_file_runs_recovers_and_leaves_nothing() {
    let Some(engine) = Engine::given("docker-compose.yml") else {
        return;
    };
    let up = Up(&engine);
    let script = commands("Compose");
    let (start, rest) = script.split_once("docker-compose logs").unwrap();
    let (look, down) = rest.split_once("docker-compose down").unwrap();
    let shell = |script: String| {
        let mut bash = engine.command("bash", &["-c", &script]);
        run(bash.current_dir(root()))
    };
    shell(start.to_owned());
    until("users are in Cassandra", || up.users() > 100);
    let said = shell(format!("set -eux -o pipefail\ndocker-compose logs{look}"));
    assert!(said.contains("tidemill_"), "no metrics: {said}");

    // Timely processes share their fate: both end, and Docker starts both again.
    let dataflow = run(&mut up.compose(&["ps", "-q", "dataflow-1"]));
    let dataflow = dataflow.trim();
    let restarts = || {
        let inspect = ["inspect", "-f", "{{.RestartCount}}", dataflow];
        let count = run(&mut engine.docker(&inspect));
        count.trim().parse::<u64>().unwrap()
    };
    let before = restarts();
    let process = run(&mut engine.docker(&["inspect", "-f", "{{.State.Pid}}", dataflow]));
    run(Command::new("kill").args(["-KILL", process.trim()]));
    until("the killed dataflow is started again", || {
        restarts() > before
    });
    let then = up.users();
    until("users go on after the restart", || up.users() > then);

    shell(format!("set -eux\ndocker-compose down{down}"));
    let project = "label=com.docker.compose.project";
    for kind in ["container", "volume", "network"] {
        let all = if kind == "container" {
            &["-a"][..]
        } else {
            &[]
        };
        let mut list = engine.docker(&[kind, "ls", "-q", "--filter", project]);
        assert_eq!(run(list.args(all)).trim(), "", "down left a {kind}");
    }
}
