//! Command-line flags of the commands about one job.

use std::time::Duration;

use clap::Args;
use tidemill_config::args::every;
use tidemill_protocol::api::WhichMaster;

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
