//! A service of a test's own, which it may stop and kill: started by `services/` in a folder of
//! the test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{PATIENCE, given, send, until};

/// Services that nobody else uses.
pub(crate) struct Own {
    state: TempDir,
    /// The folder with certificates, of services that speak TLS.
    tls: Option<PathBuf>,
}

impl Own {
    /// Starts these services on free ports. None, said plainly, where the tests have no services
    /// at all.
    pub(crate) fn start(test: &str, names: &[&str]) -> Option<Self> {
        Self::start_with(test, names, None)
    }

    /// The same, with options of `services/up`.
    pub(crate) fn start_as(test: &str, options: &[&str], names: &[&str]) -> Option<Self> {
        Self::start_with(test, &[options, names].concat(), None)
    }

    /// The same, with TLS and passwords where `tls` is a folder with certificates.
    pub(crate) fn start_with(test: &str, names: &[&str], tls: Option<&Path>) -> Option<Self> {
        given(test, "TIDEMILL_TEST_KAFKA")?;
        let state = tempfile::tempdir().unwrap();
        let tls = tls.map(Path::to_owned);
        let own = Self { state, tls };
        own.services("up", &[&["--any-port"], names].concat());
        Some(own)
    }

    fn services(&self, command: &str, arguments: &[&str]) {
        let ran = self.command(command, arguments).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "services/{command}: {said}");
    }

    fn command(&self, command: &str, arguments: &[&str]) -> Command {
        let services = Path::new(env!("CARGO_MANIFEST_DIR")).join("../services");
        let mut run = Command::new(services.join(command));
        for (name, _) in std::env::vars() {
            if name.starts_with("TIDEMILL_") && name != "TIDEMILL_CACHE" {
                run.env_remove(name);
            }
        }
        run.args(arguments);
        run.env("TIDEMILL_SERVICES", self.state.path());
        // What this Cassandra acknowledged is there when it was killed.
        run.env("TIDEMILL_CASSANDRA_SYNC", "batch");
        run.env("TIDEMILL_CASSANDRA_SETTINGS", self.settings());
        let tls = self
            .tls
            .iter()
            .map(|folder| ("TIDEMILL_SERVICES_TLS", folder));
        run.envs(tls);
        run
    }

    /// Gives Cassandra these settings too, from its next start on.
    pub(crate) fn set_cassandra(&self, yaml: &str) {
        std::fs::write(self.settings(), yaml).unwrap();
    }

    fn settings(&self) -> PathBuf {
        self.state.path().join("cassandra.settings")
    }

    /// Stops a service; its data stays.
    pub(crate) fn stop(&self, name: &str) {
        self.services("stop", &[name]);
    }

    /// Starts it again.
    pub(crate) fn again(&self, name: &str) {
        self.services("start", &[name]);
    }

    /// Starts it again without waiting until it answers; the child ends, well, when it does.
    pub(crate) fn begin(&self, name: &str) -> Child {
        let mut start = self.command("start", &[name]);
        start.stdin(Stdio::null()).stdout(Stdio::null());
        start.stderr(Stdio::null()).spawn().unwrap()
    }

    /// The process of a service.
    pub(crate) fn pid(&self, name: &str) -> u32 {
        let pid = std::fs::read_to_string(self.state.path().join(name).join("pid")).unwrap();
        pid.trim().parse().unwrap()
    }

    /// The processes of a service, the first one first, which begins the others.
    pub(crate) fn processes(&self, name: &str) -> Vec<u32> {
        let first = self.pid(name);
        let tasks = std::fs::read_dir(format!("/proc/{first}/task")).unwrap();
        let children =
            tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("children")));
        let children: String = children.map(Result::unwrap_or_default).collect();
        let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
        std::iter::once(first).chain(children).collect()
    }

    /// Kills a service, with all of its processes.
    pub(crate) fn kill(&self, name: &str) {
        let all = self.processes(name);
        for process in &all {
            send("KILL", *process);
        }
        let gone = |pid: &u32| !std::fs::exists(format!("/proc/{pid}")).unwrap();
        until("they are gone", PATIENCE, || {
            all.iter().all(gone).then_some(())
        });
    }

    /// Where the services keep what they have and what they said.
    pub(crate) fn folder(&self) -> PathBuf {
        self.state.path().to_owned()
    }

    /// The port of a service's further listener.
    pub(crate) fn port(&self, name: &str, which: &str) -> u16 {
        let file = self.state.path().join(name).join("ports").join(which);
        std::fs::read_to_string(file)
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }

    /// The URL of a service.
    pub(crate) fn url(&self, name: &str) -> String {
        let env = std::fs::read_to_string(self.state.path().join("services.env")).unwrap();
        let variable = format!("TIDEMILL_TEST_{}=", name.to_uppercase());
        let line = env.lines().find_map(|line| line.split_once(&variable));
        let (_, url) = line.unwrap_or_else(|| panic!("no {variable} in {env}"));
        url.trim_matches(['\'', '"']).to_owned()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // What services said is left for whoever looks for the cause of a failure. Whether a test
        // fails is not decided here.
        let failed = std::thread::panicking();
        self.state.disable_cleanup(failed);
        let how: &[&str] = if failed { &[] } else { &["--wipe"] };
        let _stopped = self.command("down", how).output();
    }
}
