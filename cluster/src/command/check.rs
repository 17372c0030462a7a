//! The commands `check` and `explain`: validate a pipeline and show its plan without running it.

use std::path::Path;
use std::sync::Arc;

use anyhow::anyhow;
use tidemill_config::args::{CheckArgs, ExplainArgs};
use tidemill_config::connections::Connections;
use tidemill_config::pipeline::{Expected, Folder};
use tidemill_config::services;
use tidemill_ingest::config::{Fetch, Pipeline as Ingest};
use tidemill_ir::Job;
use tidemill_log::registry;
use tidemill_log::registry::Registry;
use tidemill_protocol::{output, redact};

use crate::command::alerts::rules_of;
use crate::command::ingest::has_built_in;

/// Validates both files and asks the named services. Prints all errors.
///
/// # Errors
///
/// The last error; the ones before it were printed.
pub(crate) fn check(args: &CheckArgs) -> anyhow::Result<()> {
    let folder = Folder::open(&args.pipeline)?;
    let connections = Connections::resolve(&args.connections, folder.path())?;
    let mut wrong = Vec::new();
    let ingest = folder.ingest_if_any().unwrap_or_else(|error| {
        wrong.push(error);
        None
    });
    let ingest_is_wrong = !wrong.is_empty();
    wrong.extend(rules_of(&folder).err());
    let mut answers = services::ask(&connections);
    match (api(ingest.as_ref(), args), &args.api) {
        (Some(fetch), _) => answers.push(services::ask_api(&fetch)),
        (None, Some(_)) if !ingest_is_wrong => {
            wrong.push(anyhow!("--api: this pipeline fetches nothing"));
        }
        (None, _) => {}
    }
    let mut answering = Vec::new();
    for (name, answer) in answers {
        match answer {
            Ok(version) => answering.push(format!("{name} ({version})")),
            Err(error) => wrong.push(error),
        }
    }
    let job = match compile(&folder, &connections, ingest.as_ref()) {
        Ok(job) => job,
        // The missing columns come from the file that is wrong, so its error is enough.
        Err(error) if ingest_is_wrong && is_retry(&error) => None,
        Err(error) => {
            wrong.push(error);
            None
        }
    };
    if let Some(last) = wrong.pop() {
        wrong.iter().for_each(output::error);
        return Err(last);
    }
    output::line(&format!("ok: {}", summary(job.as_ref(), ingest.as_ref())));
    if !answering.is_empty() {
        output::line(&format!("answering: {}", answering.join(", ")));
    }
    Ok(())
}

/// The API that a run would fetch from; `None` if that is the built-in server.
fn api(ingest: Option<&Ingest>, args: &CheckArgs) -> Option<Fetch> {
    let mut fetch = ingest?.feed.as_ref()?.fetch.clone();
    match &args.api {
        Some(given) => {
            redact::remember(given);
            fetch.url.clone_from(given);
        }
        None if has_built_in(&fetch.url) => return None,
        None => {}
    }
    Some(fetch)
}

/// Prints the plan of all views or of one.
///
/// # Errors
///
/// The pipeline is invalid or has no `views.sql`, or there is no such view.
pub(crate) fn explain(args: &ExplainArgs) -> anyhow::Result<()> {
    let folder = Folder::open(&args.pipeline)?;
    let connections = Connections::resolve(&args.connections, folder.path())?;
    let ingest = folder.ingest_if_any()?;
    let Some(job) = compile(&folder, &connections, ingest.as_ref())? else {
        return Err(anyhow!(
            "{} has no views.sql to explain",
            folder.path().display()
        ));
    };
    if let Some(view) = &args.view
        && !job.views.iter().any(|known| known.name == *view)
    {
        let known: Vec<&str> = job.views.iter().map(|view| view.name.as_str()).collect();
        return Err(anyhow!(
            "there is no view `{view}`; there are {}",
            known.join(", ")
        ));
    }
    output::line(tidemill_ir::explain(&job, args.view.as_deref()).trim_end());
    Ok(())
}

/// Compiles `views.sql` to the plan; `None` if there is no such file. Nothing has to run: schemas
/// that the registry lacks are derived from `ingest.toml` and from the database's catalog.
///
/// # Errors
///
/// The SQL is invalid, a view names a sink that is not given, or a schema is not known yet (kind
/// `Retry`).
pub(crate) fn compile(
    folder: &Folder,
    connections: &Connections,
    ingest: Option<&Ingest>,
) -> anyhow::Result<Option<Job>> {
    let Some(views) = folder.views_if_any()? else {
        return Ok(None);
    };
    let registry = registry_at_hand(connections)?;
    let expected = Expected::new(registry, ingest, &connections.database);
    let compiled = views.compile(Some(&expected));
    let job = compiled.map_err(|error| views.explained(error, &connections.database))?;
    match tidemill_sinks::unknown(&job, &connections.sinks) {
        Some(error) => Err(error.into()),
        None => Ok(Some(job)),
    }
}

/// The registry; `None` if it is an embedded file that does not exist, because a check creates no
/// file.
fn registry_at_hand(connections: &Connections) -> anyhow::Result<Option<Arc<dyn Registry>>> {
    let url = &connections.registry;
    match url.strip_prefix("sqlite://") {
        Some(file) if !Path::new(file).exists() => Ok(None),
        _ => Ok(Some(registry::open(url)?)),
    }
}

/// Whether an error says that a service does not answer or that something does not exist yet.
pub(crate) fn is_retry(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<tidemill_log::Error>()
        .is_some_and(|error| error.kind() == tidemill_log::Kind::Retry)
}

/// One line about a valid pipeline.
fn summary(job: Option<&Job>, ingest: Option<&Ingest>) -> String {
    let mut parts = Vec::new();
    if let Some(job) = job {
        let names: Vec<&str> = job.views.iter().map(|view| view.name.as_str()).collect();
        let tables = counted(job.sources.len(), "table");
        let views = counted(names.len(), "view");
        parts.push(format!("{tables}, {views} ({})", names.join(", ")));
    }
    if let Some(ingest) = ingest
        && !ingest.capture.tables.is_empty()
    {
        parts.push(format!("captured: {}", ingest.capture.tables.join(", ")));
    }
    if let Some(feed) = ingest.and_then(|ingest| ingest.feed.as_ref()) {
        let (table, columns) = (&feed.land.table, feed.land.columns.len());
        let url = &feed.fetch.url;
        parts.push(format!("{columns} columns of {url} land in {table}"));
    }
    for seed in ingest.into_iter().flat_map(|ingest| &ingest.seeds) {
        let (rows, table) = (counted(seed.rows.len(), "row"), &seed.land.table);
        parts.push(format!(
            "{table} begins with {rows} of {}",
            seed.file.display()
        ));
    }
    parts.join("; ")
}

/// A count with its noun.
fn counted(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}
