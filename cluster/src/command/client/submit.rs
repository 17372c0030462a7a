//! The command `submit`: turns a pipeline's folder and its connections into the definition of a
//! job.
//!
//! In: the folder, flags, environment and `tidemill.toml`. Out: the job's definition, validated as
//! `check` does.
//!
//! Invariants: only the files that belong to the pipeline are sent, and no password is sent.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use tidemill_config::args::{NameArgs, StateArgs, every};
use tidemill_config::connections::{ConnectionArgs, Connections};
use tidemill_config::pipeline::{Folder, INGEST, VIEWS};
use tidemill_config::services;
use tidemill_dataflow::exchange::Engine;
use tidemill_dataflow::job::Workers;
use tidemill_dataflow::runtime::preview;
use tidemill_log::Kind;
use tidemill_protocol::api::WhichMaster;
use tidemill_protocol::exit::Usage;
use tidemill_protocol::{JobSpec, output, redact};

use super::args::WaitArgs;
use crate::command::alerts::rules_of;
use crate::command::{check, dataflow};
use crate::worker::files;

#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    /// The pipeline's folder, with ingest.toml and views.sql
    pub(crate) pipeline: std::path::PathBuf,
    /// Worker threads over all processes
    #[arg(short, long, value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) workers: u16,
    /// With too few slots wait for more, rather than run with fewer workers
    #[arg(long)]
    pub(crate) wait_for_slots: bool,
    /// Run the dataflow alone: something else fills the topics
    #[arg(long)]
    pub(crate) no_ingest: bool,
    /// The API to fetch from [default: the pipeline's; for randomuser.me the built-in server]
    #[arg(long, value_name = "URL")]
    pub(crate) api: Option<String>,
    /// Fetch a page this often, such as 250ms or 2s [default: the pipeline's schedule]
    #[arg(long, value_name = "TIME", value_parser = every)]
    pub(crate) every: Option<Duration>,
    /// Take a checkpoint this often, such as 10s or 1m
    #[arg(long, value_name = "TIME", value_parser = every)]
    pub(crate) checkpoint_every: Option<Duration>,
    /// How rows cross to other processes: checked, or abomonation where that is built in
    #[arg(long, value_name = "CODEC")]
    pub(crate) codec: Option<Engine>,
    /// Keep the state where `tidemill run` keeps it in this folder, unless another place is named
    #[arg(long, hide = true)]
    pub(crate) state_of_run: bool,
    #[command(flatten)]
    pub(crate) name: NameArgs,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) master: WhichMaster,
    #[command(flatten)]
    pub(crate) connections: ConnectionArgs,
}

/// Builds the job's definition from the flags.
///
/// # Errors
///
/// A flag or connection is invalid or contains a password ([`Usage`], exit code 2), the pipeline
/// has errors or no `views.sql`, or its tables were filled with another journal.
pub(super) fn spec(args: &SubmitArgs) -> anyhow::Result<JobSpec> {
    let folder = Folder::open(&args.pipeline)?.named(&args.name);
    let connections = Connections::resolve(&args.connections, folder.path())?;
    let given = connections_of(&connections, args.state_of_run)?;
    validate(&folder, &connections, given.contains_key("state"))?;
    rules_of(&folder)?;
    let files = files_of(&folder)?;
    if !files.contains_key(VIEWS) {
        let place = folder.path().display();
        return Err(anyhow!(
            "{place} has no {VIEWS}: there is nothing to keep up to date; `tidemill ingest` runs \
             an ingest alone"
        ));
    }
    let milliseconds = |every: Duration| format!("{}ms", every.as_millis());
    let flags = [
        ("api", args.api.clone()),
        ("every", args.every.map(milliseconds)),
        ("checkpoint-every", args.checkpoint_every.map(milliseconds)),
        ("codec", args.codec.map(|codec| codec.name().to_owned())),
    ];
    let flags = flags.into_iter();
    let flags = flags.filter_map(|(name, value)| Some((name.to_owned(), value?)));
    let spec = JobSpec {
        ingest: !args.no_ingest && files.contains_key(INGEST),
        name: folder.name,
        files,
        connections: given,
        workers: usize::from(args.workers),
        wait_for_slots: args.wait_for_slots,
        flags: flags.collect(),
    };
    files::check(&spec)?;
    Ok(spec)
}

/// Refuses a pipeline that cannot run. If something does not exist yet or this machine cannot reach
/// it, the job is accepted, and the workers wait for it.
///
/// # Errors
/// The pipeline is wrong, or its tables were filled with another journal.
fn validate(folder: &Folder, connections: &Connections, knows_state: bool) -> anyhow::Result<()> {
    let ingest = folder.ingest_if_any()?;
    let job = match check::compile(folder, connections, ingest.as_ref()) {
        Err(error) if check::is_retry(&error) => {
            output::line(&format!("not yet: {error}; the job waits for it"));
            return Ok(());
        }
        compiled => compiled?,
    };
    match job {
        // Without `--state` the journal is in the master's own store, which is not known here.
        Some(job) if knows_state && services::are_sink_and_state_there(connections) => {
            let (workers, state) = (Workers::Threads(1), StateArgs::default());
            let config = dataflow::config(&folder.name, job, connections, workers, &state);
            let checked = preview::check_journal(&config);
            match checked {
                Err(error) if error.kind() == Kind::Retry => Ok(()),
                checked => Ok(checked?),
            }
        }
        _ => Ok(()),
    }
}

/// The connections that were given, with absolute paths, so that they mean the same in every
/// folder.
///
/// # Errors
///
/// A connection contains a password ([`Usage`], exit code 2).
///
/// `data` is always part of a job, because each worker runs in a folder of its own.
fn connections_of(
    connections: &Connections,
    state_of_run: bool,
) -> anyhow::Result<BTreeMap<String, String>> {
    let mut given = BTreeMap::new();
    for (name, value) in &connections.named {
        if redact::holds_password(value) {
            let variable = name.to_ascii_uppercase().replace('.', "_");
            let variable = format!("TIDEMILL_{variable}");
            let why = format!(
                "--{name}: a job holds no password; leave the password out here, and set \
                 {variable}_PASSWORD or {variable}_PASSWORD_FILE where the workers run"
            );
            return Err(Usage(why).into());
        }
        given.insert(name.clone(), absolute_url(value)?);
    }
    if given.contains_key("state") || state_of_run {
        given.insert("state".to_owned(), absolute_url(&connections.state)?);
    }
    let data = absolute(&connections.data)?;
    given.insert("data".to_owned(), data);
    Ok(given)
}

/// Makes the path of a `file://` or `sqlite://` URL absolute.
///
/// URLs of servers stay as they are.
fn absolute_url(url: &str) -> anyhow::Result<String> {
    for scheme in ["file://", "sqlite://"] {
        if let Some(path) = url.strip_prefix(scheme) {
            return Ok(format!("{scheme}{}", absolute(Path::new(path))?));
        }
    }
    Ok(url.to_owned())
}

/// An absolute path as text.
///
/// # Errors
/// The path is empty, or is not valid UTF-8.
fn absolute(path: &Path) -> anyhow::Result<String> {
    let place = || format!("{}: this is no path from here", path.display());
    let whole = std::path::absolute(path).with_context(place)?;
    whole
        .to_str()
        .map(str::to_owned)
        .ok_or_else(|| anyhow!("{}: expected letters of Unicode", path.display()))
}

/// The pipeline's files as text: `ingest.toml`, `views.sql`, `alerts.toml` and the files of its
/// seeds.
///
/// # Errors
/// A file cannot be read, or is not text.
fn files_of(folder: &Folder) -> anyhow::Result<BTreeMap<String, String>> {
    let ingest = folder.ingest_if_any()?;
    let seeds = ingest.iter().flat_map(|ingest| &ingest.seeds);
    let mut names: Vec<String> = seeds.map(|seed| seed.file.display().to_string()).collect();
    names.extend([INGEST, VIEWS, tidemill_alerts::FILE].map(str::to_owned));
    let mut files = BTreeMap::new();
    for name in names {
        let file = folder.path().join(&name);
        match std::fs::read_to_string(&file) {
            Ok(text) => {
                files.insert(name, text);
            }
            // Those of the pipeline itself may be missing. The files of seeds were read before.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", file.display()));
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Folder {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/users");
        Folder::open(&path).unwrap()
    }

    #[test]
    fn only_the_pipelines_own_files_are_sent() {
        let files = files_of(&example()).unwrap();
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        assert_eq!(names, ["countries.csv", "ingest.toml", "views.sql"]);
    }

    #[test]
    fn connections_mean_the_same_everywhere_and_hold_no_password() {
        let resolve = |kafka: &str, state: Option<&str>| {
            let args = ConnectionArgs {
                kafka: Some(kafka.to_owned()),
                state: state.map(str::to_owned),
                ..ConnectionArgs::default()
            };
            Connections::resolve(&args, example().path()).unwrap()
        };
        let given = connections_of(&resolve("a:9092", Some("file://here")), false).unwrap();
        let here = std::env::current_dir().unwrap();
        let here = |file: &str| here.join(file).display().to_string();
        assert_eq!(given["kafka"], "a:9092");
        assert_eq!(given["state"], format!("file://{}", here("here")));
        assert_eq!(given["data"], here("tidemill.sqlite"));
        assert_eq!(given.len(), 3);
        let other = connections_of(&resolve("sqlite://log", Some("s3://bucket/a")), true).unwrap();
        assert_eq!(other["state"], "s3://bucket/a");
        assert_eq!(other["kafka"], format!("sqlite://{}", here("log")));
        let as_run = connections_of(&resolve("a:9092", None), true).unwrap();
        let file = format!("sqlite://{}", here("tidemill.sqlite"));
        assert_eq!(as_run["state"], file, "where the views are");
        let mut with_password = resolve("a:9092", None);
        let url = "postgres://u:hunter2x@h/db".to_owned();
        with_password.named.push(("postgres", url));
        let refused = connections_of(&with_password, false);
        let said = refused.unwrap_err().to_string();
        assert!(said.contains("set TIDEMILL_POSTGRES_PASSWORD"), "{said}");
        assert!(!said.contains("hunter2x"), "{said}");
    }
}
