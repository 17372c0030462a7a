//! Airflow's environment, and beside it the package, built and installed as a wheel is.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::harness::{PATIENCE, Process, given};

/// How long Airflow may take for what takes it some seconds.
pub(crate) const AIRFLOW: std::time::Duration = PATIENCE.saturating_mul(5);

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Airflow with the package, and a home of its own.
pub(crate) struct Installed {
    python: PathBuf,
    pub(crate) folder: TempDir,
}

impl Installed {
    /// Installs the package; none, said plainly, where there is no Airflow.
    pub(crate) fn new(test: &str) -> Option<Self> {
        let python = given(test, "TIDEMILL_TEST_AIRFLOW")?;
        let installed = Self {
            python: python.into(),
            folder: tempfile::tempdir().unwrap(),
        };
        // Built from a copy: building leaves files behind.
        let copy = installed.folder.path().join("source");
        let mut command = Command::new("cp");
        let source = root().join("airflow");
        command.arg("-r").arg(source).arg(&copy);
        installed.ends(command);
        let mut command = installed.command("uv");
        command.args(["pip", "install", "-q", "--offline", "--no-deps"]);
        command.args(["--no-build-isolation", "-p"]);
        command
            .arg(&installed.python)
            .arg("--target")
            .arg(installed.packages());
        command.arg(copy);
        installed.ends(command);
        Some(installed)
    }

    fn packages(&self) -> PathBuf {
        self.folder.path().join("packages")
    }

    /// The environment's programs, and this build of ours, before those of the path.
    fn path(&self) -> String {
        let ours = Path::new(env!("CARGO_BIN_EXE_tidemill")).parent().unwrap();
        let programs = self.python.parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        format!("{}:{}:{path}", ours.display(), programs.display())
    }

    /// A program of the environment, with nothing of ours in its own.
    pub(crate) fn command(&self, program: &str) -> Command {
        let own = self.python.with_file_name(program);
        let mut command = Command::new(if own.exists() { own } else { program.into() });
        for (name, _) in std::env::vars() {
            let ours = ["TIDEMILL_", "AIRFLOW_", "PYTHON"];
            if ours.iter().any(|prefix| name.starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command.env("PATH", self.path());
        command.env("PYTHONPATH", self.packages());
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("AIRFLOW_HOME", self.folder.path().join("home"));
        command.env("AIRFLOW__CORE__LOAD_EXAMPLES", "False");
        // It asks nobody outside of this machine.
        command.env("AIRFLOW__USAGE_DATA_COLLECTION__ENABLED", "False");
        command.env("TIDEMILL_BIN", env!("CARGO_BIN_EXE_tidemill"));
        command.current_dir(root());
        command
    }

    /// Runs a command to its end; what it said.
    #[track_caller]
    pub(crate) fn ends(&self, command: Command) -> String {
        Process::start_in(command, self.folder.path()).ends(0, AIRFLOW)
    }
}
