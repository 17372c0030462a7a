//! Verifying and repairing a view from a page: `tidemill verify`, run beside the job.
//!
//! The command runs as a process of its own, because an evaluation that fails leaves threads
//! behind, and because its memory must not be that of the job. It has the connections of this
//! process. One runs at a time; its steps are what it logs, its result is what it prints.
//!
//! ```text
//! POST …/views/{view}/verify ─► tidemill verify --json [--repair] ─┬─ stderr ─► steps
//! GET  …/verification ◄─────────────── Verification ◄──────────────┴─ stdout ─► result
//! ```
//!
//! A repair writes only the rows that differ, as of the newest bound epoch, and loses to every
//! later epoch: what the job writes meanwhile stays.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidemill_log::health::now_ms;
use tidemill_protocol::exit::ExitCode;
use tidemill_protocol::redact;

use crate::refusal::{Answer, Refusal};
use crate::{Inspected, locked};

/// Limit of steps that are kept.
const STEPS_MAX: usize = 50;
/// Limit of a step, in bytes.
const STEP_BYTES_MAX: u64 = 2000;
/// Limit of differences that are described.
const DIFFERENCES_MAX: usize = 100;
/// Limit of the result, in bytes.
const RESULT_BYTES_MAX: u64 = 4 << 20;

/// What a request asks for.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Wanted {
    /// Whether rows that differ are written as they should be.
    repair: bool,
    /// Whether the view is computed from the beginning of its topics instead of a checkpoint.
    from_log: bool,
}

/// The newest verification of this process.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Verification {
    /// The view; absent when nothing was verified since the process started.
    view: Option<String>,
    /// Whether differences are repaired.
    repair: bool,
    /// When it began, and when it ended, in ms since 1970.
    began_ms: Option<u64>,
    ended_ms: Option<u64>,
    /// What it logged, the newest last.
    steps: Vec<String>,
    /// The sums: `epoch`, `rows`, `missing`, `extra`, `different`, `refused`, `left`.
    result: Option<Value>,
    /// Differences one by one, at most [`DIFFERENCES_MAX`].
    differences: Vec<Value>,
    /// Why there is no result.
    error: Option<String>,
}

/// The answer to a request.
#[derive(Debug, Serialize)]
pub(crate) struct Begun {
    message: String,
}

/// The verification that a job shares with the threads that follow it.
pub(crate) type Kept = Arc<Mutex<Verification>>;

/// The newest verification.
pub(crate) fn newest(job: &Inspected) -> Verification {
    locked(&job.verification).clone()
}

/// Begins to verify a view.
///
/// # Errors
/// `Missing` for a view without a table, `Wrong` while another verification runs, `Bug` when the
/// command cannot be started.
pub(crate) fn begin(job: &Inspected, view: &str, wanted: Wanted) -> Answer<Begun> {
    let plan = job.plan()?;
    let found = plan
        .as_ref()
        .and_then(|plan| plan.views.iter().find(|it| it.name == view));
    if found.is_none_or(|found| found.output.is_none()) {
        let why = format!("`{view}` is no view of this job that has a table");
        return Err(Refusal::Missing(why));
    }
    {
        let mut kept = locked(&job.verification);
        if let (Some(other), None) = (&kept.view, kept.ended_ms) {
            let why = format!("view `{other}` is being verified; ask again when that is over");
            return Err(Refusal::Wrong(why));
        }
        *kept = Verification {
            view: Some(view.to_owned()),
            repair: wanted.repair,
            began_ms: Some(now_ms()),
            ..Verification::default()
        };
    }
    match start(job, view, wanted) {
        Ok(child) => follow(child, &job.verification),
        Err(error) => {
            end(&job.verification, Err(error.to_string()));
            return Err(Refusal::Bug(format!(
                "verifying cannot be started: {error}"
            )));
        }
    }
    let what = if wanted.repair {
        "verified and repaired"
    } else {
        "verified"
    };
    let message = format!("`{view}` is being {what}");
    Ok(Begun { message })
}

/// Starts the command with the connections of this process, which go by its environment: flags can
/// be seen by everybody on the machine.
fn start(job: &Inspected, view: &str, wanted: Wanted) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("verify").arg(job.folder.path()).arg(view);
    command.args(["--json", "--workers", "1", "--name", &job.name]);
    command.args(["--limit", &DIFFERENCES_MAX.to_string()]);
    for (flag, _) in [("--repair", wanted.repair), ("--from-log", wanted.from_log)]
        .iter()
        .filter(|it| it.1)
    {
        command.arg(flag);
    }
    let named = job.connections.named.iter();
    command.envs(named.map(|(name, value)| (format!("TIDEMILL_{}", name.to_uppercase()), value)));
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn()
}

/// Reads what the command logs and prints, each on a thread of its own, until it ends.
fn follow(mut child: Child, kept: &Kept) {
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let steps = Arc::clone(kept);
    let logged = std::thread::spawn(move || {
        let Some(err) = err else { return };
        let mut err = BufReader::new(err);
        let mut line = String::new();
        while let Ok(1..) = err.by_ref().take(STEP_BYTES_MAX).read_line(&mut line) {
            let mut kept = locked(&steps);
            if kept.steps.len() == STEPS_MAX {
                kept.steps.remove(0);
            }
            kept.steps.push(redact::text(line.trim_end()).into_owned());
            line.clear();
        }
    });
    let kept = Arc::clone(kept);
    std::thread::spawn(move || {
        let mut text = String::new();
        let read = out.map(|out| out.take(RESULT_BYTES_MAX).read_to_string(&mut text));
        let ended = child.wait();
        // A panic would have ended the process already.
        let _all_steps = logged.join();
        let result = match (read, ended) {
            (Some(Ok(_)), Ok(status)) => result(&text, status.code()),
            (Some(Err(error)), _) | (_, Err(error)) => Err(error.to_string()),
            (None, _) => Err("its output cannot be read".to_owned()),
        };
        end(&kept, result);
    });
}

/// The sums and the described differences of the command's output.
fn result(text: &str, code: Option<i32>) -> Result<(Value, Vec<Value>), String> {
    let lines = text.lines().map(serde_json::from_str::<Value>);
    let mut lines: Vec<Value> = lines.filter_map(Result::ok).collect();
    // The sums are the last line, and the only one that is no difference.
    let sums = lines.pop().filter(|it| it.get("difference").is_none());
    let is_told = ExitCode::Done.is(code) || ExitCode::Different.is(code);
    match sums {
        Some(sums) if is_told => Ok((sums, lines)),
        _ => {
            let code = code.map_or_else(|| "a signal".to_owned(), |code| format!("code {code}"));
            Err(format!(
                "the command ended with {code}; its last lines say why"
            ))
        }
    }
}

/// Keeps the end of a verification.
fn end(kept: &Kept, result: Result<(Value, Vec<Value>), String>) {
    let mut kept = locked(kept);
    kept.ended_ms = Some(now_ms());
    match result {
        Ok((sums, differences)) => (kept.result, kept.differences) = (Some(sums), differences),
        Err(why) => kept.error = Some(redact::text(&why).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_has_the_sums_and_a_failure_is_none() {
        let text = "{\"view\":\"v\",\"difference\":\"extra\",\"key\":{\"k\":\"1\"}}\n\
                    {\"view\":\"v\",\"rows\":7,\"left\":1}\n";
        let (sums, differences) = result(text, Some(ExitCode::Different.into())).unwrap();
        assert_eq!((sums["rows"].as_u64(), differences.len()), (Some(7), 1));
        assert!(result(text, Some(ExitCode::Error.into())).is_err());
        assert!(result("", Some(ExitCode::Done.into())).is_err());
        assert!(result(text, None).is_err());
    }
}
