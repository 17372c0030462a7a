//! The binary as a child process: started with what it says kept in files, stopped as a user stops
//! it, and ended by the test's end at the latest.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// How long a condition may take to become true.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// Time between two looks at a condition.
const LOOK: Duration = Duration::from_millis(100);
/// How much of what it said is shown when a test fails.
const SAID_MAX: usize = 6_000;

/// A running `tidemill`.
pub(crate) struct Tidemill {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Tidemill {
    /// Starts it in `folder`, without the caller's connections; what it says goes to files there.
    pub(crate) fn start(folder: &Path, said: &str, args: &[String]) -> Self {
        Self::start_armed(folder, said, args, None)
    }

    /// The same, to end at a failpoint.
    pub(crate) fn start_armed(
        folder: &Path,
        said: &str,
        args: &[String],
        failpoint: Option<&str>,
    ) -> Self {
        let (out, err) = (
            folder.join(format!("{said}.out")),
            folder.join(format!("{said}.err")),
        );
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        for (name, _) in std::env::vars() {
            if name.starts_with("TIDEMILL_") || name.starts_with("RUST_") {
                command.env_remove(name);
            }
        }
        command.envs(failpoint.map(|point| ("TIDEMILL_FAILPOINT", point)));
        let child = command
            .args(args)
            .current_dir(folder)
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(&err).unwrap())
            .spawn()
            .unwrap();
        Self { child, out, err }
    }

    /// Everything it printed.
    pub(crate) fn printed(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap()
    }

    fn said(&self) -> String {
        let tail = |path: &Path| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let from = text.ceil_char_boundary(text.len().saturating_sub(SAID_MAX));
            text.get(from..).unwrap_or_default().to_owned()
        };
        format!(
            "-- it printed:\n{}\n-- it logged:\n{}",
            tail(&self.out),
            tail(&self.err)
        )
    }

    /// Looks until `condition` gives something, while the process runs.
    #[track_caller]
    pub(crate) fn until<T>(&mut self, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = condition() {
                return found;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("it ended ({status}) before: {what}");
            }
            assert!(Instant::now() < deadline, "not in {PATIENCE:?}: {what}");
            std::thread::sleep(LOOK);
        }
    }

    /// Whether it ended by itself.
    pub(crate) fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Everything it logged.
    pub(crate) fn logged(&self) -> String {
        std::fs::read_to_string(&self.err).unwrap()
    }

    /// Fails with its words if it has ended.
    #[track_caller]
    pub(crate) fn runs(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "it ended: {ended:?}; {}", self.said());
    }

    /// Kills it as a crash does; returns what it logged.
    pub(crate) fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.logged()
    }

    /// Expects it to end as if it was killed; returns what it logged.
    #[track_caller]
    pub(crate) fn crashed(mut self) -> String {
        let status = self.exit();
        assert!(!status.success(), "{status}");
        self.logged()
    }

    /// Expects it to end by itself with an error; returns what it logged.
    #[track_caller]
    pub(crate) fn refused(mut self) -> String {
        let status = self.exit();
        assert!(!status.success() && status.code().is_some(), "{status}");
        self.logged()
    }

    /// Asks it to stop, as Ctrl-C does, and expects a clean end. Returns what it logged.
    pub(crate) fn stop(mut self) -> String {
        let pid = self.child.id().to_string();
        let killed = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(killed.success());
        let status = self.exit();
        assert!(status.success(), "{status}");
        self.logged()
    }

    /// Expects it to end by itself, and returns what it printed.
    pub(crate) fn ended(mut self) -> String {
        let status = self.exit();
        assert!(status.success(), "{status}");
        self.printed()
    }

    fn exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it did not end in {PATIENCE:?}");
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Tidemill {
    fn drop(&mut self) {
        // Both fail when it ended before, which is as well.
        let _killed = self.child.kill();
        let _ended = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.said());
        }
    }
}
