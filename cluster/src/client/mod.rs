//! The commands that ask a master for something: `submit`, `status`, `rescale`, `stop`, `restart`,
//! `remove`, `wait` and `logs`.
//!
//! Flows in: flags. Flows out: requests to the master, what it says, and the wait until it is so.
//! What is waited for is decided in [`wait`]; [`crate::api`] is the way there, for the worker as
//! well.

mod args;
mod logs;
mod readable;
mod status;
mod submit;
mod wait;

use args::WaitArgs;
pub(crate) use args::{JobArgs, RemoveArgs, RescaleArgs};
pub(crate) use logs::LogsArgs;
pub(crate) use readable::ReadableArgs;
pub(crate) use status::StatusArgs;
pub(crate) use submit::SubmitArgs;

use crate::api::Master;
use crate::output;
use wait::{Goal, until};

/// What a master answers to a command.
#[derive(Debug, serde::Deserialize)]
struct Said {
    message: String,
}

/// Sends a job to the master.
pub(crate) fn submit(args: &SubmitArgs) -> anyhow::Result<()> {
    let spec = submit::spec(args)?;
    let master = Master::new(&args.master)?;
    let before = master.job(&spec.name)?;
    say(master.post::<Said>("/v1/jobs", &spec)?);
    reach(
        &master,
        &spec.name,
        Goal::running(before.as_ref()),
        &args.wait,
    )
}

/// Shows everything at a glance.
pub(crate) fn status(args: &StatusArgs) -> anyhow::Result<()> {
    status::show(args, &Master::new(&args.master)?)
}

/// Changes how many workers a job has.
pub(crate) fn rescale(args: &RescaleArgs) -> anyhow::Result<()> {
    let master = Master::new(&args.master)?;
    let before = master.job(&args.job)?;
    let workers = usize::from(args.workers);
    let query = [("workers", workers.to_string())];
    say(master.command(&path(&args.job, "rescale"), &query)?);
    let goal = Goal::sized(before.as_ref(), workers);
    reach(&master, &args.job, goal, &args.wait)
}

/// Drains a job and keeps it stopped.
pub(crate) fn stop(args: &JobArgs) -> anyhow::Result<()> {
    let master = Master::new(&args.master)?;
    say(master.command(&path(&args.job, "stop"), &[])?);
    reach(&master, &args.job, Goal::Stopped, &args.wait)
}

/// Drains a job and starts it again, or starts one that is stopped or failed.
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

/// Makes the master forget a job that is stopped.
pub(crate) fn remove(args: &RemoveArgs) -> anyhow::Result<()> {
    let master = Master::new(&args.master)?;
    say(master.command(&path(&args.job, "remove"), &[])?);
    Ok(())
}

/// Waits until what was committed is in every view of a job.
pub(crate) fn wait_until_readable(args: &ReadableArgs) -> anyhow::Result<()> {
    readable::wait(args, &Master::new(&args.master)?)
}

/// Shows the logs of all processes.
pub(crate) fn logs(args: &LogsArgs) -> anyhow::Result<()> {
    logs::show(args, &Master::new(&args.master)?)
}

fn path(job: &str, what: &str) -> String {
    format!("/v1/jobs/{job}/{what}")
}

fn say(said: Said) {
    output::line(&said.message);
}

fn reach(master: &Master, name: &str, goal: Goal, args: &WaitArgs) -> anyhow::Result<()> {
    if args.no_wait {
        return Ok(());
    }
    until(master, name, &goal, args.timeout)
}
