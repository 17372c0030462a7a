//! Command line: all commands with their help and examples. The flags are in
//! [`tidemill_config::args`] and beside the commands that use them.
//!
//! Input: the arguments, and the variables of the environment that flags name. Output: one
//! [`Command`] with its flags. Doc comments on commands and flags are the text of `--help` and of
//! the man pages, so they are written for users.

use clap::{Parser, Subcommand};
use tidemill_config::args::{
    AlertsArgs, CheckArgs, DataflowArgs, DeadLettersCommand, DropArgs, ExplainArgs, IngestArgs,
    ManualArgs, PipelineArgs, ResetArgs, RunArgs, VerifyArgs,
};
use tidemill_master::MasterArgs;
use tidemill_protocol::exit;

use crate::command::client::{
    JobArgs, LogsArgs, ReadableArgs, RemoveArgs, RescaleArgs, StatusArgs, SubmitArgs,
};
use crate::worker::WorkerArgs;

/// Shown below `tidemill --help`.
const EXAMPLES: &str = "\
Examples:
  tidemill run examples/users
      the whole river in one process, in the file tidemill.sqlite
  tidemill run examples/users --until 2000
      stop when 2,000 users are in the views, and print the views
  tidemill run examples/users --postgres postgres://postgres@127.0.0.1/postgres \\
      --kafka 127.0.0.1:9092 --registry http://127.0.0.1:8081/apis/ccompat/v7 \\
      --cassandra 127.0.0.1
      the same pipeline on real services
  tidemill check examples/users
      validate a pipeline without starting anything";

/// Shown below `tidemill run --help`; the constants that follow belong to the other commands.
const RUN_EXAMPLES: &str = "\
Examples:
  tidemill run examples/users
  tidemill run examples/users -w 4 --until 2000
  tidemill run examples/users --api https://randomuser.me/api/1.4/
  tidemill run examples/users --data /tmp/users.sqlite --no-live | tee river.log

Ctrl-C stops cleanly; started again it goes on where it stopped, and no record counts twice.";

const INGEST_EXAMPLES: &str = "\
Examples:
  tidemill ingest examples/users --postgres postgres://postgres@127.0.0.1/postgres \\
      --kafka 127.0.0.1:9092 --registry http://127.0.0.1:8081/apis/ccompat/v7

  tidemill ingest examples/users --once …
      what is due is fetched and published, and the last line on stdout says it as JSON
  tidemill ingest examples/users --once --pages 1..5 --refetch …
      these pages, again
  tidemill ingest examples/users --standby …
      a second one, which shares the fetching (no page is fetched twice) and takes the capture
      over when the first one ends";

const DATAFLOW_EXAMPLES: &str = "\
Examples, two processes of one job:
  tidemill dataflow examples/users -w 2 -n 2 -p 0 --kafka a:9092 --registry http://a:8081 \\
      --cassandra a --state s3://bucket/tidemill
  tidemill dataflow examples/users -w 2 -n 2 -p 1 …the same…

All processes take the same pipeline, hosts and connections. They share their fate: when one
dies the others end with code 3. Start all of them again.";

const CHECK_EXAMPLES: &str = "\
Examples:
  tidemill check examples/users
  tidemill check examples/users --kafka 127.0.0.1:9092 --cassandra 127.0.0.1";

const PLAN_EXAMPLES: &str = "\
Examples:
  tidemill plan examples/users
  tidemill plan examples/users --kafka 127.0.0.1:9092 --cassandra 127.0.0.1 \\
      --registry http://127.0.0.1:8081";

const VERIFY_EXAMPLES: &str = "\
Examples:
  tidemill verify examples/users
  tidemill verify examples/users users_by_country --repair
  tidemill verify examples/users --from-log --kafka 127.0.0.1:9092 --cassandra 127.0.0.1 \\
      --registry http://127.0.0.1:8081

What a view should hold is computed from the newest checkpoint and the topics, in memory: the views'
rows must fit there. The job may go on meanwhile, or be stopped. Exit code 0 says that the tables
are equal (with --repair: now), 4 that they differ.";

const RESET_EXAMPLES: &str = "\
Examples:
  tidemill reset examples/users
  tidemill reset examples/users users_by_country --yes

Without views: the tables of all views, the journal and the checkpoints. With views: their tables
alone. Tables of the source, topics and dead letters stay. Takes the connections that the pipeline
runs with. Refused while the pipeline runs (exit code 5).";

const DROP_EXAMPLES: &str = "\
Examples:
  tidemill drop examples/users
  tidemill drop examples/users --yes --tables

What would be removed is listed first. Tables that others fill, topics that another pipeline
publishes to, and tables that another pipeline fills are never removed. A removal that was
interrupted is finished by the same command. Takes the connections that the pipeline runs with.
Refused while the pipeline runs (exit code 5).";

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  tidemill explain examples/users
  tidemill explain examples/users users_by_country";

const ALERTS_EXAMPLES: &str = "\
Examples:
  tidemill alerts examples/users
  tidemill alerts examples/users --format prometheus > /etc/prometheus/rules/users.yml
  tidemill alerts examples/users --format grafana > users.json

The rules are in the pipeline's alerts.toml. A pipeline without one has the default rules.";

const MASTER_EXAMPLES: &str = "\
Examples:
  tidemill master
  TIDEMILL_TOKEN_FILE=token tidemill master --listen 0.0.0.0:7070 --state s3://bucket/tidemill

Started again it goes on with the jobs that it had, which run on meanwhile. Of two on one store the
one that was started last goes on, and the other ends.";

const DEAD_LETTERS_EXAMPLES: &str = "\
Examples:
  tidemill dead-letters list examples/users
  tidemill dead-letters show examples/users 17
  tidemill dead-letters replay examples/users 17 18
  tidemill dead-letters replay examples/users --all --stage land

All take the connections that the pipeline runs with.";

const WORKER_EXAMPLES: &str = "\
Examples:
  tidemill worker --master http://node0:7070 --slots 4
  tidemill worker --master http://127.0.0.1:7070 --slots 2 --name left --dir /var/lib/tidemill

One process a machine is enough. Ctrl-C lets its processes complete what they began and leaves.";

const SUBMIT_EXAMPLES: &str = "\
Examples:
  tidemill submit examples/users --workers 4
  tidemill submit examples/users --workers 4 --wait-for-slots --kafka a:9092 \\
      --registry http://a:8081 --cassandra a --postgres postgres://me@a/db --state s3://bucket/t

A job of that name that is there already is changed to this one. Passwords never are in a job: they
are in the environment of the workers, or in their files.";

const WAIT_EXAMPLES: &str = "\
Examples:
  tidemill wait users
      everything that is committed now
  tidemill wait users --lsn 0/16B3748
      everything before that LSN, as the last line of `tidemill ingest --once` tells it
  tidemill wait users --master http://127.0.0.1:9100
      of a `tidemill run examples/users --http 127.0.0.1:9100`

Also where nothing is committed meanwhile. Exit code 0: it is readable in every view. 6: not within
--timeout. 8: the job is stopped or failed.";

const LOGS_EXAMPLES: &str = "\
Examples:
  tidemill logs -f
  tidemill logs dataflow.0 --job users --level warn --since 10m";

/// Live SQL views of an HTTP feed, a database or a Kafka topic, kept in Cassandra; every record
/// counted once.
#[derive(Debug, Parser)]
#[command(name = "tidemill", version, after_help = EXAMPLES, after_long_help = after_long())]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The end of `tidemill --help`: the examples and the exit codes.
fn after_long() -> String {
    format!("{EXAMPLES}\n\n{}", exit::HELP)
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole pipeline in one process: ingest and dataflow, shown live
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Run the ingest alone: fetch, land, capture, publish
    #[command(after_help = INGEST_EXAMPLES)]
    Ingest(IngestArgs),
    /// Run the dataflow alone, over one or more processes
    #[command(after_help = DATAFLOW_EXAMPLES, disable_help_flag = true)]
    Dataflow(DataflowArgs),
    /// Validate a pipeline's files, and that the services given answer
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// Show what the views compute, and from what
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(ExplainArgs),
    /// Print the alerting rules of a pipeline, also for Prometheus and Grafana
    #[command(after_help = ALERTS_EXAMPLES)]
    Alerts(AlertsArgs),
    /// Show what a start would keep, make anew and delete, after views.sql was changed
    #[command(after_help = PLAN_EXAMPLES)]
    Plan(PipelineArgs),
    /// Throw away what the views are computed from: the next start fills them anew
    #[command(after_help = RESET_EXAMPLES)]
    Reset(ResetArgs),
    /// Remove what a pipeline left in its services: slot, topics, tables of views, state
    #[command(after_help = DROP_EXAMPLES)]
    Drop(DropArgs),
    /// Compare the views' tables with what the views should hold, and repair them
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(VerifyArgs),
    /// Keep the jobs of a cluster and decide which worker runs what
    #[command(after_help = MASTER_EXAMPLES)]
    Master(MasterArgs),
    /// What could not be used: list it, show it, put it back
    #[command(subcommand, after_help = DEAD_LETTERS_EXAMPLES)]
    DeadLetters(DeadLettersCommand),
    /// Offer slots to a master, and run the parts of jobs that it orders
    #[command(after_help = WORKER_EXAMPLES)]
    Worker(WorkerArgs),
    /// Give a pipeline to the master, to keep it running on the workers
    #[command(after_help = SUBMIT_EXAMPLES)]
    Submit(SubmitArgs),
    /// Show jobs and workers at a glance
    Status(StatusArgs),
    /// Run a job with another number of workers
    Rescale(RescaleArgs),
    /// Drain a job and keep it stopped: a restart replays nothing
    Stop(JobArgs),
    /// Drain a job and start it again, or start one that is stopped or failed
    Restart(JobArgs),
    /// Wait until what was committed in the database before is in every view of a job
    #[command(after_help = WAIT_EXAMPLES)]
    Wait(ReadableArgs),
    /// Make the master forget a stopped job; its tables and its state stay as they are
    Remove(RemoveArgs),
    /// Show the logs of all processes, merged by time
    #[command(after_help = LOGS_EXAMPLES)]
    Logs(LogsArgs),
    /// Write the man pages and the completions of bash, zsh and fish into a folder
    #[command(hide = true)]
    Manual(ManualArgs),
}
