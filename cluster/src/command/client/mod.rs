//! Client commands, which ask a master: `submit`, `status`, `rescale`, `stop`, `restart`, `remove`,
//! `wait` and `logs`.
//!
//! In: flags. Out: requests to the master, its answers, and the wait until the job has reached the
//! desired state. [`wait`] decides when that is; [`tidemill_protocol::api`] is the HTTP client.
//!
//! Exit codes: 1 when the master does not answer or refuses, or the job failed; 2 for a wrong flag;
//! 6 when the job did not reach the state within `--timeout`, or is degraded; 8 when
//! the job that `wait` waits for is stopped or failed.

mod args;
mod logs;
mod readable;
mod status;
mod submit;
mod wait;

use args::WaitArgs;
use tidemill_protocol::api::{Master, api};
use tidemill_protocol::output;
use wait::{Goal, until};

pub(crate) use args::{JobArgs, RemoveArgs, RescaleArgs};
pub(crate) use logs::LogsArgs;
pub(crate) use readable::ReadableArgs;
pub(crate) use status::StatusArgs;
pub(crate) use submit::SubmitArgs;

/// The master's answer to a command.
#[derive(Debug, serde::Deserialize)]
struct Said {
    message: String,
}

/// Submits a job, or changes one, and waits until it runs.
///
/// # Errors
///
/// The pipeline is invalid, the master refuses, or the job does not reach the state ([`until`]).
pub(crate) fn submit(args: &SubmitArgs) -> anyhow::Result<()> {
    let spec = submit::spec(args)?;
    let master = Master::new(&args.master)?;
    let before = master.job(&spec.name)?;
    say(master.post::<Said>(&api("jobs"), &spec)?);
    reach(
        &master,
        &spec.name,
        Goal::running(before.as_ref()),
        &args.wait,
    )
}

/// Shows the status of the cluster or of one job.
pub(crate) fn status(args: &StatusArgs) -> anyhow::Result<()> {
    status::show(args, &Master::new(&args.master)?)
}

/// Changes how many worker threads a job has, and waits until it runs with them.
///
/// # Errors
///
/// The master refuses, or the job does not reach the state ([`until`]).
pub(crate) fn rescale(args: &RescaleArgs) -> anyhow::Result<()> {
    let master = Master::new(&args.master)?;
    let before = master.job(&args.job)?;
    let workers = usize::from(args.workers);
    let query = [("workers", workers.to_string())];
    say(master.command(&path(&args.job, "rescale"), &query)?);
    let goal = Goal::sized(before.as_ref(), workers);
    reach(&master, &args.job, goal, &args.wait)
}

/// Drains a job, stops it, and waits until it is stopped.
///
/// # Errors
///
/// The master refuses, or the job does not reach the state ([`until`]).
pub(crate) fn stop(args: &JobArgs) -> anyhow::Result<()> {
    let master = Master::new(&args.master)?;
    say(master.command(&path(&args.job, "stop"), &[])?);
    reach(&master, &args.job, Goal::Stopped, &args.wait)
}

/// Drains a job and starts it again, or starts a job that is stopped or failed. Waits until it
/// runs.
///
/// # Errors
///
/// The master refuses, or the job does not reach the state ([`until`]).
pub(crate) fn restart(args: &JobArgs) -> anyhow::Result<()> {
    let master = Master::new(&args.master)?;
    let before = master.job(&args.job)?;
    say(master.command(&path(&args.job, "restart"), &[])?);
    reach(
        &master,
        &args.job,
        Goal::running(before.as_ref()),
        &args.wait,
    )
}

/// Makes the master forget a stopped job.
///
/// # Errors
///
/// The master refuses, for example because the job has processes.
pub(crate) fn remove(args: &RemoveArgs) -> anyhow::Result<()> {
    let master = Master::new(&args.master)?;
    say(master.command(&path(&args.job, "remove"), &[])?);
    Ok(())
}

/// Waits until everything that was committed is in every view of a job.
///
/// # Errors
///
/// See [`readable::wait`].
pub(crate) fn wait_until_readable(args: &ReadableArgs) -> anyhow::Result<()> {
    readable::wait(args, &Master::new(&args.master)?)
}

/// Shows the log lines of all processes.
pub(crate) fn logs(args: &LogsArgs) -> anyhow::Result<()> {
    logs::show(args, &Master::new(&args.master)?)
}

/// The path of a command about a job.
fn path(job: &str, what: &str) -> String {
    api(&format!("jobs/{job}/{what}"))
}

/// Prints the master's answer.
fn say(said: Said) {
    output::line(&said.message);
}

/// Waits for the goal, unless `--no-wait` was given.
fn reach(master: &Master, name: &str, goal: Goal, args: &WaitArgs) -> anyhow::Result<()> {
    if args.no_wait {
        return Ok(());
    }
    until(master, name, &goal, args.timeout)
}
