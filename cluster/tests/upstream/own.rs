//! A service of a test's own, which it may stop: started by `services/` in a folder of the test.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// Services that nobody else uses.
pub(crate) struct Own {
    state: TempDir,
}

impl Own {
    /// Starts these services on free ports. None, said plainly, where the tests have no services
    /// at all.
    pub(crate) fn start(test: &str, names: &[&str]) -> Option<Self> {
        if std::env::var("TIDEMILL_TEST_KAFKA").is_err() {
            // Past the harness, which hides what a passing test prints.
            let line = format!("left out: {test} needs TIDEMILL_TEST_KAFKA (run ./test)\n");
            let _unseen = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
            return None;
        }
        let state = tempfile::tempdir().unwrap();
        let own = Self { state };
        own.services("up", &[&["--any-port"], names].concat());
        Some(own)
    }

    fn services(&self, command: &str, arguments: &[&str]) {
        let services = Path::new(env!("CARGO_MANIFEST_DIR")).join("../services");
        let mut run = Command::new(services.join(command));
        for (name, _) in std::env::vars() {
            if name.starts_with("TIDEMILL_") && name != "TIDEMILL_CACHE" {
                run.env_remove(name);
            }
        }
        run.args(arguments);
        run.env("TIDEMILL_SERVICES", self.state.path());
        let ran = run.output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "services/{command}: {said}");
    }

    /// Stops a service; its data stays.
    pub(crate) fn stop(&self, name: &str) {
        self.services("stop", &[name]);
    }

    /// Starts it again.
    pub(crate) fn again(&self, name: &str) {
        self.services("start", &[name]);
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
        // Whether a test fails is not decided here.
        let down = Path::new(env!("CARGO_MANIFEST_DIR")).join("../services/down");
        let _stopped = Command::new(down)
            .arg("--wipe")
            .env("TIDEMILL_SERVICES", self.state.path())
            .output();
    }
}
