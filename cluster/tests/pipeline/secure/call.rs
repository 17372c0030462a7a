//! The binary called once, in a folder and with an environment of its own, and what it said.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// What every secret in these tests contains, and nothing else does.
pub(crate) const SECRET: &str = "hunter";

/// How long it may take until a wrong connection is named, on a busy machine.
const SOON: Duration = Duration::from_secs(30);

pub(crate) struct Call {
    folder: TempDir,
}

impl Call {
    /// With a pipeline `p` over one topic of JSON.
    pub(crate) fn new() -> Self {
        let call = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        std::fs::create_dir(call.folder.path().join("p")).unwrap();
        call.write(
            "p/views.sql",
            "CREATE TABLE clicks (page text, ms bigint) WITH (topic = 'clicks', format = 'json');\n\
             CREATE MATERIALIZED VIEW pages WITH (primary_key = 'page') AS\n  \
             SELECT page, count(*) AS clicks FROM clicks GROUP BY page;\n",
        );
        call
    }

    /// Writes a file that its owner alone may read.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        self.open_for(name, 0o600);
        path.display().to_string()
    }

    pub(crate) fn open_for(&self, name: &str, mode: u32) {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(self.path(name), permissions).unwrap();
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `tidemill check p …`, expects the exit code and these parts, and no secret.
    #[track_caller]
    pub(crate) fn check(&self, more: &[&str], env: &[(&str, &str)], code: i32, parts: &[&str]) {
        let all = self.run(&[&["check", "p"], more].concat(), env, code);
        for part in parts {
            assert!(all.contains(part), "`{part}` is missing in:\n{all}");
        }
    }

    /// Runs it, expects the exit code and that no secret is said, and returns what was said.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str], env: &[(&str, &str)], code: i32) -> String {
        let begun = Instant::now();
        let output = self.command(args, env).output().unwrap();
        assert!(begun.elapsed() < SOON, "it took {:?}", begun.elapsed());
        let said = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let all = format!("{}{}", said(&output.stdout), said(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{all}");
        assert!(!all.contains(SECRET), "a secret is said:\n{all}");
        all
    }

    /// The call, not run yet.
    pub(crate) fn command(&self, args: &[&str], env: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.args(args).current_dir(self.folder.path());
        for (name, _) in std::env::vars() {
            let ours = ["TIDEMILL_", "RUST_", "PG", "AWS_", "SSL_"];
            if ours.iter().any(|start| name.starts_with(start)) {
                command.env_remove(name);
            }
        }
        // libpq's files are in the home folder.
        command.env("HOME", self.folder.path());
        command.envs(env.iter().copied());
        command
    }
}
