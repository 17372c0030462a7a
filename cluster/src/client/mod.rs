//! The commands that ask a master for something: `submit`, `status`, `rescale`, `stop`, `restart`,
//! `remove`, `wait` and `logs`.
//!
//! Flows in: flags. Flows out: requests to the master, what it says, and the wait until it is so.
//! What is waited for is decided in [`wait`]; [`master`] is the way there, for the worker as well.

mod logs;
pub(crate) mod master;
mod readable;
mod status;
mod submit;
mod wait;

use std::time::Duration;

use clap::Args;

pub(crate) use logs::LogsArgs;
pub(crate) use readable::ReadableArgs;
pub(crate) use status::StatusArgs;
pub(crate) use submit::SubmitArgs;

use crate::cli::every;
use crate::output;
use crate::protocol::{JobStatus, Status};
use master::{Failure, Master, WhichMaster};
use wait::{Goal, until};

/// Which job, for the commands that need no more.
#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    /// The job's name
    pub(crate) job: String,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) master: WhichMaster,
}

/// Which job, and how many workers.
#[derive(Debug, Args)]
pub(crate) struct RescaleArgs {
    /// The job's name
    pub(crate) job: String,
    /// Worker threads over all processes
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) workers: u16,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) master: WhichMaster,
}

/// Which job is to be forgotten.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// The job's name
    pub(crate) job: String,
    #[command(flatten)]
    pub(crate) master: WhichMaster,
}

/// Whether to wait.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Do not wait until it is so
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Wait no longer than this, such as 30s or 10m: then the exit code is 6, and the job goes on
    #[arg(long, value_name = "TIME", value_parser = every, default_value = "5m",
          conflicts_with = "no_wait")]
    pub(crate) timeout: Duration,
}

/// What a master answers to a command.
#[derive(Debug, serde::Deserialize)]
struct Said {
    message: String,
}

/// Sends a job to the master.
pub(crate) fn submit(args: &SubmitArgs) -> anyhow::Result<()> {
    let spec = submit::spec(args)?;
    let master = Master::new(&args.master)?;
    let before = job(&master, &spec.name)?;
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
    let before = job(&master, &args.job)?;
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
    let before = job(&master, &args.job)?;
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

/// A job as the master sees it now, if it knows it.
fn job(master: &Master, name: &str) -> Result<Option<JobStatus>, Failure> {
    let status: Status = master.get("/v1/status", &[])?;
    Ok(status.jobs.into_iter().find(|job| job.name == name))
}

fn reach(master: &Master, name: &str, goal: Goal, args: &WaitArgs) -> anyhow::Result<()> {
    if args.no_wait {
        return Ok(());
    }
    until(master, name, &goal, args.timeout)
}
