//! Command-line flags, and the parsers of their values.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Subcommand};
use jiff::SignedDuration;
use tidemill_dataflow::exchange::Engine;
use tidemill_dataflow::job::Limits;
use tidemill_log::dead_letter::Stage;

use crate::connections::ConnectionArgs;
use crate::hosts::HostArgs;
use crate::logging::LogArgs;
use crate::mesh::MeshArgs;

/// A replication slot's name has at most 63 characters, and ours begin with `tidemill_`.
const NAME_LEN_MAX: usize = 54;

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

/// Parses a pipeline's name.
pub(crate) fn name(given: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if given.is_empty() || given.len() > NAME_LEN_MAX || !given.chars().all(fits) {
        let right = "lower-case letters, digits and `_`, as a replication slot's name takes them";
        return Err(format!("expected 1 to {NAME_LEN_MAX} {right}"));
    }
    Ok(given.to_owned())
}

/// Parses a duration above zero.
pub(crate) fn every(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time such as 250ms, 2s or 1m");
    let span: SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(span)
        .ok()
        .filter(|every| every.as_millis() > 0)
        .ok_or_else(wrong)
}

/// Parses `3` or `1..5`, where both ends are included.
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

/// Parses the name of a stage.
fn stage(given: &str) -> Result<Stage, String> {
    let mut all = Stage::ALL.into_iter();
    all.find(|stage| stage.name() == given).ok_or_else(|| {
        let names = Stage::ALL.map(Stage::name);
        format!("expected one of {}", names.join(", "))
    })
}

#[derive(Debug, Args)]
pub(crate) struct ManualArgs {
    /// The folder for `man/`, `bash/`, `zsh/` and `fish/`; it is made when it is not there
    pub(crate) folder: PathBuf,
}
