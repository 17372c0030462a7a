//! The container engine of the tests, which `packaging/engine up` started, and containers on it
//! that end with the test.

use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::containers::{root, run};
use crate::harness::left_out;

/// How long something may take that other processes hold up.
const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) struct Engine {
    socket: String,
}

/// One container; removed with its volumes when dropped.
pub(crate) struct Container<'a> {
    engine: &'a Engine,
    name: String,
}

impl Engine {
    /// The engine, if the environment names it.
    pub(crate) fn given(what: &str) -> Option<Self> {
        let variable = "TIDEMILL_TEST_DOCKER";
        let Ok(socket) = std::env::var(variable) else {
            left_out(&format!(
                "{what} needs {variable} (run ./test --containers)"
            ));
            return None;
        };
        Some(Self { socket })
    }

    pub(crate) fn docker(&self, arguments: &[&str]) -> Command {
        self.command("docker", arguments)
    }

    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env("DOCKER_HOST", &self.socket);
        command
    }

    /// Where `packaging/dist` left what it made.
    pub(crate) fn packages(&self) -> PathBuf {
        let given = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        root()
            .join(given.unwrap_or("target".into()))
            .join("packages")
    }

    /// Where tools are kept between runs.
    pub(crate) fn cache(&self) -> PathBuf {
        let given = std::env::var_os("TIDEMILL_CACHE").map(PathBuf::from);
        given.expect("TIDEMILL_CACHE, which ./test sets")
    }

    /// A Debian with systemd, which has started, with the packages in `/packages`.
    pub(crate) fn machine(&self, name: &str) -> Container<'_> {
        let name = format!("tidemill-test-{name}");
        let capabilities = ["--cap-add=SYS_ADMIN", "--cap-add=NET_ADMIN"];
        let open = [
            "--security-opt=seccomp=unconfined",
            "--security-opt=apparmor=unconfined",
        ];
        let run_folders = ["--tmpfs=/run", "--tmpfs=/run/lock", "--cgroupns=private"];
        let mut start = self.docker(&["run", "--detach", "--name", &name]);
        start.args(capabilities).args(open).args(run_folders);
        run(start.arg("tidemill-test-machine"));
        let machine = Container { engine: self, name };
        let packages = format!("{}/.", self.packages().display());
        run(&mut self.docker(&["cp", &packages, &format!("{}:/packages", machine.name)]));
        until("systemd has started", || {
            let mut asked = machine.exec("systemctl is-system-running");
            asked.output().unwrap().status.success()
        });
        machine
    }
}

impl Container<'_> {
    fn exec(&self, script: &str) -> Command {
        let within = ["exec", "-w", "/packages", &self.name, "bash", "-c", script];
        self.engine.docker(&within)
    }

    /// Runs a script that must succeed; what it said.
    #[track_caller]
    pub(crate) fn bash(&self, script: &str) -> String {
        run(&mut self.exec(script))
    }

    /// Whether a script succeeds.
    pub(crate) fn succeeds(&self, script: &str) -> bool {
        self.exec(script).output().unwrap().status.success()
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let _removed = self.engine.docker(&["rm", "-f", "-v", &self.name]).output();
    }
}

/// Asks again and again until it is so.
#[track_caller]
pub(crate) fn until(what: &str, mut ask: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !ask() {
        assert!(Instant::now() < deadline, "in {PATIENCE:?} not: {what}");
        thread::sleep(Duration::from_millis(500));
    }
}
