//! The command line: every flag and its help, in one place.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand};
use jiff::SignedDuration;
use tidemill_dataflow::exchange::Engine;
use tidemill_dataflow::job::Limits;
use tidemill_log::dead_letter::Stage;

use crate::client::{
    JobArgs, LogsArgs, ReadableArgs, RemoveArgs, RescaleArgs, StatusArgs, SubmitArgs,
};
use crate::connections::ConnectionArgs;
use crate::exit;
use crate::hosts::HostArgs;
use crate::logging::LogArgs;
use crate::manual::ManualArgs;
use crate::master::MasterArgs;
use crate::mesh::MeshArgs;
use crate::worker::WorkerArgs;

/// A slot's name has 63 letters, and ours begin with `tidemill_`.
const NAME_LEN_MAX: usize = 54;

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
    /// Show what a start would keep, make anew and delete, after views.sql was changed
    #[command(after_help = PLAN_EXAMPLES)]
    Plan(PlanArgs),
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

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The pipeline's folder, with ingest.toml and views.sql
    pub(crate) pipeline: PathBuf,
    /// Worker threads of the dataflow
    #[arg(short, long, value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) workers: u16,
    /// Stop when N records are visible in the views, and print every view
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) until: Option<u64>,
    /// One plain line a second instead of the live display (also when piped)
    #[arg(long)]
    pub(crate) no_live: bool,
    /// Start although another process runs this pipeline: that one ends. Tables of views that a
    /// pipeline of another name filled are made and filled anew. Without it this one is refused
    #[arg(long)]
    pub(crate) take_over: bool,
    #[command(flatten)]
    pub(crate) name: NameArgs,
    #[command(flatten)]
    pub(crate) fetch: FetchArgs,
    #[command(flatten)]
    pub(crate) state: StateArgs,
    #[command(flatten)]
    pub(crate) http: HttpArgs,
    #[command(flatten)]
    pub(crate) connections: ConnectionArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

#[derive(Debug, Args)]
pub(crate) struct IngestArgs {
    /// The pipeline's folder, with ingest.toml
    pub(crate) pipeline: PathBuf,
    /// Stop fetching when N records have landed; capturing goes on, unless --once is said
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) until: Option<u64>,
    /// End when what is due now is fetched, landed and published, also beside another ingest, which
    /// then captures. The last line on stdout is one JSON object: pages, records, and the LSN that
    /// `tidemill wait` takes
    #[arg(long, conflicts_with = "orders")]
    pub(crate) once: bool,
    /// With --once: fetch these pages, due or not, such as 3 or 1..5 (the last one included). Those
    /// that are done are passed over
    #[arg(long, value_name = "A..B", value_parser = pages, requires = "once",
          conflicts_with = "until")]
    pub(crate) pages: Option<RangeInclusive<u64>>,
    /// With --pages: fetch also those that are done
    #[arg(long, requires = "pages")]
    pub(crate) refetch: bool,
    /// Start although another process captures for this pipeline: the two share the fetching, and
    /// this one captures as soon as the other one ends or stands still. Without it this one is
    /// refused
    #[arg(long, visible_alias = "standby")]
    pub(crate) take_over: bool,
    /// Take orders on stdin and tell on stdout, as the child of a worker
    #[arg(long, hide = true)]
    pub(crate) orders: bool,
    #[command(flatten)]
    pub(crate) name: NameArgs,
    #[command(flatten)]
    pub(crate) fetch: FetchArgs,
    #[command(flatten)]
    pub(crate) http: HttpArgs,
    #[command(flatten)]
    pub(crate) connections: ConnectionArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

/// Where a process shows what it does.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct HttpArgs {
    /// Answer HTTP here: /healthz, /readyz and /metrics. Port 0 is any free one, which the log
    /// names [default: nowhere]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) http: Option<String>,
}

/// Under which name a pipeline runs.
#[derive(Debug, Clone, Args)]
pub(crate) struct NameArgs {
    /// The name of the ledger, the replication slot, the journal and the frontier: lower-case
    /// letters, digits and `_` [default: the folder's]
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub(crate) name: Option<String>,
}

pub(crate) fn name(given: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if given.is_empty() || given.len() > NAME_LEN_MAX || !given.chars().all(fits) {
        let right = "lower-case letters, digits and `_`, as a replication slot's name takes them";
        return Err(format!("expected 1 to {NAME_LEN_MAX} {right}"));
    }
    Ok(given.to_owned())
}

pub(crate) fn every(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time such as 250ms, 2s or 1m");
    let span: SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(span)
        .ok()
        .filter(|every| every.as_millis() > 0)
        .ok_or_else(wrong)
}

/// `3` or `1..5`, both ends included.
fn pages(given: &str) -> Result<RangeInclusive<u64>, String> {
    let (first, last) = given.split_once("..").unwrap_or((given, given));
    let number = |text: &str| {
        text.parse()
            .ok()
            .filter(|page| i64::try_from(*page).is_ok())
    };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err("expected a page such as 3, or a range such as 1..5".to_owned()),
    }
}

/// Flags of the two commands that keep views.
#[derive(Debug, Clone, Args)]
pub(crate) struct StateArgs {
    /// Take a checkpoint this often, such as 10s or 1m
    #[arg(long, value_name = "TIME", value_parser = every, default_value = "10s")]
    pub(crate) checkpoint_every: Duration,
}

impl Default for StateArgs {
    fn default() -> Self {
        Self {
            checkpoint_every: Limits::default().checkpoint_interval,
        }
    }
}

/// Flags of the two commands that ingest.
#[derive(Debug, Clone, Args)]
pub(crate) struct FetchArgs {
    /// The API to fetch from, such as https://randomuser.me/api/1.4/ [default: the pipeline's; for
    /// randomuser.me the built-in server that speaks its API]
    #[arg(long, value_name = "URL")]
    pub(crate) api: Option<String>,
    /// Fetch a page this often, such as 250ms or 2s [default: the pipeline's schedule; from the
    /// built-in server four pages a second]
    #[arg(long, value_name = "TIME", value_parser = every)]
    pub(crate) every: Option<Duration>,
    /// Read the captured tables anew, as when their replication slot was lost
    #[arg(long)]
    pub(crate) resnapshot: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DataflowArgs {
    /// The pipeline's folder, with views.sql
    pub(crate) pipeline: PathBuf,
    #[command(flatten)]
    pub(crate) hosts: HostArgs,
    #[command(flatten)]
    pub(crate) mesh: MeshArgs,
    /// Start although another process runs this dataflow: that one ends. Tables of views that a
    /// job of another name filled are made and filled anew. Without it this one is refused. Only
    /// process 0 looks
    #[arg(long)]
    pub(crate) take_over: bool,
    /// Take orders on stdin and tell on stdout, as the child of a worker; these say how many
    /// workers there are, and where
    #[arg(long, hide = true, conflicts_with_all = ["processes", "hostfile", "hosts"])]
    pub(crate) orders: bool,
    #[command(flatten)]
    pub(crate) name: NameArgs,
    /// How rows cross to other processes: checked, or abomonation where that is built in and the
    /// processes share a secret. The same for all of them
    #[arg(long, value_name = "CODEC", default_value_t)]
    pub(crate) codec: Engine,
    #[command(flatten)]
    pub(crate) state: StateArgs,
    #[command(flatten)]
    pub(crate) http: HttpArgs,
    #[command(flatten)]
    pub(crate) connections: ConnectionArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
    /// Print help (-h names the host file, as timely has it)
    #[arg(long, action = ArgAction::Help)]
    pub(crate) help: Option<bool>,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The pipeline's folder
    pub(crate) pipeline: PathBuf,
    /// The API to ask for its first page [default: the pipeline's; for randomuser.me none]
    #[arg(long, value_name = "URL")]
    pub(crate) api: Option<String>,
    #[command(flatten)]
    pub(crate) connections: ConnectionArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The pipeline's folder
    pub(crate) pipeline: PathBuf,
    #[command(flatten)]
    pub(crate) name: NameArgs,
    #[command(flatten)]
    pub(crate) connections: ConnectionArgs,
}

/// Whether to ask before something is removed.
#[derive(Debug, Args)]
pub(crate) struct Sure {
    /// Do not ask; without a terminal nothing is removed unless this is said
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ResetArgs {
    /// The pipeline's folder
    pub(crate) pipeline: PathBuf,
    /// Views [default: all, and the journal and the checkpoints]
    #[arg(value_name = "VIEW")]
    pub(crate) views: Vec<String>,
    #[command(flatten)]
    pub(crate) sure: Sure,
    #[command(flatten)]
    pub(crate) name: NameArgs,
    #[command(flatten)]
    pub(crate) connections: ConnectionArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DropArgs {
    /// The pipeline's folder
    pub(crate) pipeline: PathBuf,
    /// Also drop the tables that the pipeline's own ingest made: [land] and [[seed]]. Their rows
    /// may be the only copy
    #[arg(long)]
    pub(crate) tables: bool,
    #[command(flatten)]
    pub(crate) sure: Sure,
    #[command(flatten)]
    pub(crate) name: NameArgs,
    #[command(flatten)]
    pub(crate) connections: ConnectionArgs,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The pipeline's folder
    pub(crate) pipeline: PathBuf,
    /// Views [default: all that have a table]
    #[arg(value_name = "VIEW")]
    pub(crate) views: Vec<String>,
    /// Write the rows that differ as they should be, and delete those that should not be there;
    /// nothing else is touched
    #[arg(long)]
    pub(crate) repair: bool,
    /// Compute the views from the topics' beginning instead of the newest checkpoint, which proves
    /// the checkpoint too
    #[arg(long)]
    pub(crate) from_log: bool,
    /// Ask PostgreSQL the views' own SQL over the captured tables and compare the answers, which
    /// proves everything between PostgreSQL and the views; nothing is repaired
    #[arg(long, conflicts_with_all = ["from_log", "repair"])]
    pub(crate) from_source: bool,
    /// With --from-source: how long a row must have been different, and unchanged, to count
    #[arg(long, value_name = "TIME", value_parser = every, default_value = "5s",
          requires = "from_source")]
    pub(crate) settle: Duration,
    /// How many differences of each view are shown
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: usize,
    /// One JSON object a line: each difference that is shown, then each view's sum
    #[arg(long)]
    pub(crate) json: bool,
    /// Worker threads that compute
    #[arg(short, long, value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) workers: u16,
    #[command(flatten)]
    pub(crate) name: NameArgs,
    #[command(flatten)]
    pub(crate) connections: ConnectionArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The pipeline's folder
    pub(crate) pipeline: PathBuf,
    /// One view [default: all]
    pub(crate) view: Option<String>,
    #[command(flatten)]
    pub(crate) connections: ConnectionArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// List the dead letters of a pipeline, newest last
    List(ListArgs),
    /// Show all of one dead letter, its bytes as text and as hexadecimal digits
    Show(ShowArgs),
    /// Put dead letters back where they came from: records into their topic, records of the API
    /// into the table, failed pages into the schedule
    Replay(ReplayArgs),
}

/// Whose dead letters.
#[derive(Debug, Args)]
pub(crate) struct LetterArgs {
    /// The pipeline's folder
    pub(crate) pipeline: PathBuf,
    #[command(flatten)]
    pub(crate) name: NameArgs,
    #[command(flatten)]
    pub(crate) connections: ConnectionArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) letters: LetterArgs,
    /// Only those of one stage: fetch, land, capture, publish, decode, evaluate or serve
    #[arg(long, value_name = "STAGE", value_parser = stage)]
    pub(crate) stage: Option<Stage>,
    /// How many of the newest
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) last: usize,
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    pub(crate) letters: LetterArgs,
    /// Its number in the list
    pub(crate) number: i64,
    /// As a JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    pub(crate) letters: LetterArgs,
    /// Their numbers in the list
    #[arg(conflicts_with = "all")]
    pub(crate) numbers: Vec<i64>,
    /// All that were not replayed yet
    #[arg(long)]
    pub(crate) all: bool,
    /// With --all, only those of one stage
    #[arg(long, value_name = "STAGE", value_parser = stage, requires = "all")]
    pub(crate) stage: Option<Stage>,
    /// Also what was replayed already, and records behind which their key has a newer one
    #[arg(long)]
    pub(crate) force: bool,
}

fn stage(given: &str) -> Result<Stage, String> {
    let mut all = Stage::ALL.into_iter();
    all.find(|stage| stage.name() == given).ok_or_else(|| {
        let names = Stage::ALL.map(Stage::name);
        format!("expected one of {}", names.join(", "))
    })
}
