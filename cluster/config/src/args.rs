//! Command-line flags, and the parsers of their values.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Subcommand, ValueEnum};
use jiff::SignedDuration;
use tidemill_dataflow::exchange::Engine;
use tidemill_dataflow::job::Limits;
use tidemill_log::log::dead_letter::Stage;
use tidemill_logs::logging::LogArgs;
use tidemill_mesh::MeshArgs;

use crate::connections::ConnectionArgs;
use crate::hosts::HostArgs;

/// A replication slot's name has at most 63 characters, and ours begin with `tidemill_`.
const NAME_LEN_MAX: usize = 54;

/// Flags of `tidemill run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The pipeline's folder, with ingest.toml and views.sql
    pub pipeline: PathBuf,
    /// Worker threads of the dataflow
    #[arg(short, long, value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: u16,
    /// Stop when N records are visible in the views, and print every view
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub until: Option<u64>,
    /// One plain line a second instead of the live display (also when piped)
    #[arg(long)]
    pub no_live: bool,
    /// Start although another process runs this pipeline: that one ends. Tables of views that a
    /// pipeline of another name filled are made and filled anew. Without it this one is refused
    #[arg(long)]
    pub take_over: bool,
    /// The pipeline's name.
    #[command(flatten)]
    pub name: NameArgs,
    /// Flags of fetching.
    #[command(flatten)]
    pub fetch: FetchArgs,
    /// Flags of state.
    #[command(flatten)]
    pub state: StateArgs,
    /// Answer HTTP here: the control center, /healthz, /readyz and /metrics. Port 0 is any free
    /// one, which the first line names. Beyond this machine the control center needs TIDEMILL_TOKEN
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    pub http: String,
    /// The connections to the services.
    #[command(flatten)]
    pub connections: ConnectionArgs,
    /// Flags of the log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Flags of `tidemill ingest`.
#[derive(Debug, Args)]
pub struct IngestArgs {
    /// The pipeline's folder, with ingest.toml
    pub pipeline: PathBuf,
    /// Stop fetching when N records have landed; capturing goes on, unless --once is said
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub until: Option<u64>,
    /// End when what is due now is fetched, landed and published, also beside another ingest, which
    /// then captures. The last line on stdout is one JSON object: pages, records, and the LSN that
    /// `tidemill wait` takes
    #[arg(long, conflicts_with = "orders")]
    pub once: bool,
    /// With --once: fetch these pages, due or not, such as 3 or 1..5 (the last one included). Those
    /// that are done are passed over
    #[arg(long, value_name = "A..B", value_parser = pages, requires = "once",
          conflicts_with = "until")]
    pub pages: Option<RangeInclusive<u64>>,
    /// With --pages: fetch also those that are done
    #[arg(long, requires = "pages")]
    pub refetch: bool,
    /// Start although another process captures for this pipeline: the two share the fetching, and
    /// this one captures as soon as the other one ends or stands still. Without it this one is
    /// refused
    #[arg(long, visible_alias = "standby")]
    pub take_over: bool,
    /// Take orders on stdin and tell on stdout, as the child of a worker
    #[arg(long, hide = true)]
    pub orders: bool,
    /// The pipeline's name.
    #[command(flatten)]
    pub name: NameArgs,
    /// Flags of fetching.
    #[command(flatten)]
    pub fetch: FetchArgs,
    /// The HTTP server.
    #[command(flatten)]
    pub http: HttpArgs,
    /// The connections to the services.
    #[command(flatten)]
    pub connections: ConnectionArgs,
    /// Flags of the log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Where a process shows what it does.
#[derive(Debug, Clone, Default, Args)]
pub struct HttpArgs {
    /// Answer HTTP here: /healthz, /readyz and /metrics. Port 0 is any free one, which the log
    /// names [default: nowhere]
    #[arg(long, value_name = "ADDR:PORT")]
    pub http: Option<String>,
}

/// Under which name a pipeline runs.
#[derive(Debug, Clone, Args)]
pub struct NameArgs {
    /// The name of the ledger, the replication slot, the journal and the frontier: lower-case
    /// letters, digits and `_` [default: the folder's]
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub name: Option<String>,
}

/// Parses a pipeline's name.
///
/// ```
/// assert!(tidemill_config::args::name("users_2").is_ok());
/// assert!(tidemill_config::args::name("Users").is_err());
/// ```
///
/// # Errors
///
/// The text is empty, too long, or has other characters. The message says which ones are allowed.
pub fn name(given: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if given.is_empty() || given.len() > NAME_LEN_MAX || !given.chars().all(fits) {
        let right = "lower-case letters, digits and `_`, as a replication slot's name takes them";
        return Err(format!("expected 1 to {NAME_LEN_MAX} {right}"));
    }
    Ok(given.to_owned())
}

/// Parses a duration above zero.
///
/// ```
/// use std::time::Duration;
///
/// let every = tidemill_config::args::every("250ms").unwrap();
/// assert_eq!(every, Duration::from_millis(250));
/// ```
///
/// # Errors
///
/// The text is no duration, or a duration below one millisecond.
pub fn every(text: &str) -> Result<Duration, String> {
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
pub struct StateArgs {
    /// Take a checkpoint this often, such as 10s or 1m
    #[arg(long, value_name = "TIME", value_parser = every, default_value = "10s")]
    pub checkpoint_every: Duration,
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
#[allow(rustdoc::bare_urls, reason = "the text of --help, and no Markdown")]
pub struct FetchArgs {
    /// The API to fetch from, such as https://randomuser.me/api/1.4/ [default: the pipeline's; for
    /// randomuser.me the built-in server that speaks its API]
    #[arg(long, value_name = "URL")]
    pub api: Option<String>,
    /// Fetch a page this often, such as 250ms or 2s [default: the pipeline's schedule; from the
    /// built-in server four pages a second]
    #[arg(long, value_name = "TIME", value_parser = every)]
    pub every: Option<Duration>,
    /// Read the captured tables anew, as when their replication slot was lost
    #[arg(long)]
    pub resnapshot: bool,
}

/// Flags of `tidemill dataflow`.
#[derive(Debug, Args)]
pub struct DataflowArgs {
    /// The pipeline's folder, with views.sql
    pub pipeline: PathBuf,
    /// Timely's flags for threads, processes and hosts.
    #[command(flatten)]
    pub hosts: HostArgs,
    /// The mesh between the processes.
    #[command(flatten)]
    pub mesh: MeshArgs,
    /// Start although another process runs this dataflow: that one ends. Tables of views that a
    /// job of another name filled are made and filled anew. Without it this one is refused. Only
    /// process 0 looks
    #[arg(long)]
    pub take_over: bool,
    /// Take orders on stdin and tell on stdout, as the child of a worker; these say how many
    /// workers there are, and where
    #[arg(long, hide = true, conflicts_with_all = ["processes", "hostfile", "hosts"])]
    pub orders: bool,
    /// The pipeline's name.
    #[command(flatten)]
    pub name: NameArgs,
    /// How rows cross to other processes: checked, or abomonation where that is built in and the
    /// processes share a secret. The same for all of them
    #[arg(long, value_name = "CODEC", default_value_t)]
    pub codec: Engine,
    /// Flags of state.
    #[command(flatten)]
    pub state: StateArgs,
    /// The HTTP server.
    #[command(flatten)]
    pub http: HttpArgs,
    /// The connections to the services.
    #[command(flatten)]
    pub connections: ConnectionArgs,
    /// Flags of the log.
    #[command(flatten)]
    pub log: LogArgs,
    /// Print help (-h names the host file, as timely has it)
    #[arg(long, action = ArgAction::Help)]
    pub(crate) help: Option<bool>,
}

/// Flags of `tidemill check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The pipeline's folder
    pub pipeline: PathBuf,
    /// The API to ask for its first page [default: the pipeline's; for randomuser.me none]
    #[arg(long, value_name = "URL")]
    pub api: Option<String>,
    /// The connections to the services.
    #[command(flatten)]
    pub connections: ConnectionArgs,
}

/// Whether to ask before something is removed.
#[derive(Debug, Args)]
pub struct Sure {
    /// Do not ask; without a terminal nothing is removed unless this is said
    #[arg(long)]
    pub yes: bool,
}

/// Flags of `tidemill reset`.
#[derive(Debug, Args)]
pub struct ResetArgs {
    /// The pipeline's folder
    pub pipeline: PathBuf,
    /// Views [default: all, and the journal and the checkpoints]
    #[arg(value_name = "VIEW")]
    pub views: Vec<String>,
    /// Whether to ask first.
    #[command(flatten)]
    pub sure: Sure,
    /// The pipeline's name.
    #[command(flatten)]
    pub name: NameArgs,
    /// The connections to the services.
    #[command(flatten)]
    pub connections: ConnectionArgs,
}

/// Flags of `tidemill drop`.
#[derive(Debug, Args)]
#[allow(
    rustdoc::broken_intra_doc_links,
    reason = "the text of --help, and no Markdown"
)]
pub struct DropArgs {
    /// The pipeline's folder
    pub pipeline: PathBuf,
    /// Also drop the tables that the pipeline's own ingest made: [land] and [[seed]]. Their rows
    /// may be the only copy
    #[arg(long)]
    pub tables: bool,
    /// Whether to ask first.
    #[command(flatten)]
    pub sure: Sure,
    /// The pipeline's name.
    #[command(flatten)]
    pub name: NameArgs,
    /// The connections to the services.
    #[command(flatten)]
    pub connections: ConnectionArgs,
}

/// Flags of `tidemill verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The pipeline's folder
    pub pipeline: PathBuf,
    /// Views [default: all that have a table]
    #[arg(value_name = "VIEW")]
    pub views: Vec<String>,
    /// Write the rows that differ as they should be, and delete those that should not be there;
    /// nothing else is touched
    #[arg(long)]
    pub repair: bool,
    /// Compute the views from the topics' beginning instead of the newest checkpoint, which proves
    /// the checkpoint too
    #[arg(long)]
    pub from_log: bool,
    /// Ask PostgreSQL the views' own SQL over the captured tables and compare the answers, which
    /// proves everything between PostgreSQL and the views; nothing is repaired
    #[arg(long, conflicts_with_all = ["from_log", "repair"])]
    pub from_source: bool,
    /// With --from-source: how long a row must have been different, and unchanged, to count
    #[arg(long, value_name = "TIME", value_parser = every, default_value = "5s",
          requires = "from_source")]
    pub settle: Duration,
    /// How many differences of each view are shown
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: usize,
    /// One JSON object a line: each difference that is shown, then each view's sum
    #[arg(long)]
    pub json: bool,
    /// Worker threads that compute
    #[arg(short, long, value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: u16,
    /// The pipeline's name.
    #[command(flatten)]
    pub name: NameArgs,
    /// The connections to the services.
    #[command(flatten)]
    pub connections: ConnectionArgs,
    /// Flags of the log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Flags of `tidemill explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The pipeline's folder
    pub pipeline: PathBuf,
    /// One view [default: all]
    pub view: Option<String>,
    /// The connections to the services.
    #[command(flatten)]
    pub connections: ConnectionArgs,
}

/// Flags of `tidemill alerts`.
#[derive(Debug, Args)]
pub struct AlertsArgs {
    /// The pipeline's folder
    pub pipeline: PathBuf,
    /// The pipeline's name.
    #[command(flatten)]
    pub name: NameArgs,
    /// What to print
    #[arg(long, value_enum, default_value_t = AlertsFormat::Text)]
    pub format: AlertsFormat,
}

/// The forms in which `tidemill alerts` prints the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AlertsFormat {
    /// A table
    Text,
    /// A rules file of Prometheus
    Prometheus,
    /// A dashboard of Grafana
    Grafana,
}

/// The commands of `tidemill dead-letters`.
#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// List the dead letters of a pipeline, newest last
    List(ListArgs),
    /// Show all of one dead letter, its bytes as text and as hexadecimal digits
    Show(ShowArgs),
    /// Put dead letters back where they came from: records into their topic, records of the API
    /// into the table, failed pages into the schedule
    Replay(ReplayArgs),
}

/// A pipeline, its name and its connections.
#[derive(Debug, Args)]
pub struct PipelineArgs {
    /// The pipeline's folder
    pub pipeline: PathBuf,
    /// The pipeline's name.
    #[command(flatten)]
    pub name: NameArgs,
    /// The connections to the services.
    #[command(flatten)]
    pub connections: ConnectionArgs,
}

/// Flags of `tidemill dead-letters list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Whose dead letters.
    #[command(flatten)]
    pub letters: PipelineArgs,
    /// Only those of one stage: fetch, land, capture, publish, decode, evaluate or serve
    #[arg(long, value_name = "STAGE", value_parser = stage)]
    pub stage: Option<Stage>,
    /// How many of the newest
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub last: usize,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// Flags of `tidemill dead-letters show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Whose dead letters.
    #[command(flatten)]
    pub letters: PipelineArgs,
    /// Its number in the list
    pub number: i64,
    /// As a JSON object
    #[arg(long)]
    pub json: bool,
}

/// Flags of `tidemill dead-letters replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Whose dead letters.
    #[command(flatten)]
    pub letters: PipelineArgs,
    /// Their numbers in the list
    #[arg(conflicts_with = "all")]
    pub numbers: Vec<i64>,
    /// All that were not replayed yet
    #[arg(long)]
    pub all: bool,
    /// With --all, only those of one stage
    #[arg(long, value_name = "STAGE", value_parser = stage, requires = "all")]
    pub stage: Option<Stage>,
    /// Also what was replayed already, and records behind which their key has a newer one
    #[arg(long)]
    pub force: bool,
}

/// Parses the name of a stage.
fn stage(given: &str) -> Result<Stage, String> {
    let mut all = Stage::ALL.into_iter();
    all.find(|stage| stage.name() == given).ok_or_else(|| {
        let names = Stage::ALL.map(Stage::name);
        format!("expected one of {}", names.join(", "))
    })
}

/// Flags of `tidemill manual`.
#[derive(Debug, Args)]
pub struct ManualArgs {
    /// The folder for `man/`, `bash/`, `zsh/` and `fish/`; it is made when it is not there
    pub folder: PathBuf,
}
