//! Measured child process: wall time since its start, and CPU time and peak memory as the kernel
//! counts them for the whole process, read while the process is alive. Every contestant is measured
//! in this way.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// `/proc` shows CPU times in hundredths of a second, whatever the tick of the kernel is.
const TICKS_A_SECOND: f64 = 100.0;

/// What a child has used so far: seconds of wall and CPU time, and MiB of peak memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used {
    /// Seconds since the start of the process.
    pub(crate) wall_s: f64,
    /// Seconds of user and system time of all threads.
    pub(crate) cpu_s: f64,
    /// MiB of resident memory at most (`VmHWM`).
    pub(crate) peak_mb: f64,
}

/// A running child, which is stopped when dropped.
pub(crate) struct Running {
    /// The process; its stdin is open.
    pub(crate) child: Child,
    /// Taken before the process is made, so loading the binary is measured.
    started: Instant,
    /// The file with its stderr.
    log: PathBuf,
}

impl Used {
    /// The sum over two processes that ran at the same time.
    ///
    /// The wall time is that of the slower one.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            wall_s: self.wall_s.max(other.wall_s),
            cpu_s: self.cpu_s + other.cpu_s,
            peak_mb: self.peak_mb + other.peak_mb,
        }
    }
}

impl Running {
    /// Starts `command` with stderr in the file `log`, and without the `TIDEMILL_` variables, which
    /// could name other services than the flags do.
    pub(crate) fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TIDEMILL_")) {
            command.env_remove(name);
        }
        let file = File::create(log).with_context(|| format!("{}", log.display()))?;
        command.stdin(Stdio::piped()).stderr(file);
        let started = Instant::now();
        let child = command
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().display()))?;
        let log = log.to_owned();
        Ok(Self {
            child,
            started,
            log,
        })
    }

    /// What the child has used since its start.
    pub(crate) fn used(&self) -> anyhow::Result<Used> {
        let wall_s = self.started.elapsed().as_secs_f64();
        let proc = PathBuf::from(format!("/proc/{}", self.child.id()));
        let (own, _) = cpu_seconds(&proc.join("stat"))?;
        let status = std::fs::read_to_string(proc.join("status"))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|text| text.split_whitespace().next());
        let kib: f64 = kib.context("no VmHWM in /proc")?.parse()?;
        Ok(Used {
            wall_s,
            cpu_s: own,
            peak_mb: kib / 1024.0,
        })
    }

    /// The first line of the child's stdout, which must be piped.
    ///
    /// # Errors
    /// The child ended without a line.
    pub(crate) fn line(&mut self) -> anyhow::Result<String> {
        let output = self.child.stdout.take().context("no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        if line.is_empty() {
            self.child.wait()?;
            self.check_alive()?;
        }
        Ok(line)
    }

    /// An error with the last lines of the child's log if the child has ended.
    pub(crate) fn check_alive(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.child.try_wait()? else {
            return Ok(());
        };
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = said.lines().rev().take(10).collect();
        let lines: Vec<&str> = lines.into_iter().rev().collect();
        bail!("a child ended with {status}: {}", lines.join("\n"))
    }
}

impl Drop for Running {
    /// Sends SIGTERM first, because a profiler around the child writes its result then.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let pid = self.child.id().to_string();
        let asked = Command::new("kill").arg(&pid).status();
        let patience = Instant::now() + Duration::from_secs(20);
        while asked.is_ok() && Instant::now() < patience {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                _ => return,
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// User and system time in seconds: of a process, and of the children that it waited for.
///
/// `stat` is `/proc/PID/stat` (see proc(5)).
pub(crate) fn cpu_seconds(stat: &Path) -> anyhow::Result<(f64, f64)> {
    let text = std::fs::read_to_string(stat).with_context(|| format!("{}", stat.display()))?;
    // The second field is the program's name in parentheses and may contain anything.
    let (_, rest) = text
        .rsplit_once(") ")
        .context("no name in /proc/PID/stat")?;
    // utime, stime, cutime and cstime are fields 14 to 17; `rest` begins with field 3.
    let ticks: Vec<f64> = rest
        .split_whitespace()
        .skip(11)
        .take(4)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let [user, system, child_user, child_system] = ticks[..] else {
        bail!("{} is too short", stat.display());
    };
    Ok((
        (user + system) / TICKS_A_SECOND,
        (child_user + child_system) / TICKS_A_SECOND,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_child_is_seen_to_be_busy() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "while :; do :; done"]);
        let running = Running::start(&mut command, &folder.path().join("log")).unwrap();
        let by = Instant::now() + Duration::from_secs(60);
        while running.used().unwrap().cpu_s < 0.1 {
            assert!(Instant::now() < by, "no CPU time counted");
        }
        let used = running.used().unwrap();
        assert!(used.cpu_s <= used.wall_s + 0.05, "{used:?}");
    }

    #[test]
    fn a_child_that_ended_is_an_error_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such topic >&2; exit 3"]);
        let mut running = Running::start(&mut command, &folder.path().join("log")).unwrap();
        running.child.wait().unwrap();
        let error = running.check_alive().unwrap_err().to_string();
        assert!(error.contains("no such topic"), "{error}");
    }
}
