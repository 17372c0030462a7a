//! The command `plan`: shows what a start of the pipeline would keep, fill again and delete.
//!
//! In: the pipeline, and the journal, checkpoint, frontiers and topics as they are now. Out: lines,
//! one for each view and topic. Nothing is changed, not even an embedded file is created.

use std::path::Path;

use anyhow::anyhow;
use tidemill_config::args::{PipelineArgs, StateArgs};
use tidemill_config::connections::Connections;
use tidemill_config::pipeline::Folder;
use tidemill_dataflow::job::Workers;
use tidemill_dataflow::runtime::preview::{Fate, Preview, Reading, preview};
use tidemill_protocol::output;

use crate::command::{check, dataflow};

/// Prints what a start would do with each view and topic. Changes nothing.
///
/// # Errors
///
/// The pipeline is invalid or has no `views.sql`, or a service does not answer.
pub(crate) fn plan(args: &PipelineArgs) -> anyhow::Result<()> {
    let folder = Folder::open(&args.pipeline)?.named(&args.name);
    let connections = Connections::resolve(&args.connections, folder.path())?;
    let ingest = folder.ingest_if_any()?;
    let Some(job) = check::compile(&folder, &connections, ingest.as_ref())? else {
        return Err(anyhow!("{} has no views.sql", folder.path().display()));
    };
    // An embedded file that does not exist must not be created by looking.
    let file = connections.sink.strip_prefix("sqlite://");
    let file = file.filter(|_| connections.sinks.is_empty());
    if file.is_some_and(|file| !Path::new(file).exists()) {
        output::line("nothing is there yet: every view is new");
        return Ok(());
    }
    let state = StateArgs::default();
    let config = dataflow::config(&folder.name, job, &connections, Workers::Threads(1), &state);
    shown(&preview(&config)?)
        .iter()
        .for_each(|line| output::line(line));
    Ok(())
}

/// The preview as lines.
///
/// The names are padded to one width, so that the explanations align.
fn shown(preview: &Preview) -> Vec<String> {
    let mut lines = vec![match preview.checkpoint {
        Some((epoch, bytes)) => format!("checkpoint  epoch {epoch}, {bytes} bytes"),
        None => "checkpoint  none".to_owned(),
    }];
    let widest = |names: &mut dyn Iterator<Item = &String>| names.map(String::len).max();
    let width = widest(&mut preview.views.iter().map(|(name, _)| name)).unwrap_or(0);
    lines.push("views".to_owned());
    for (name, fate) in &preview.views {
        let what = match fate {
            Fate::Kept => "kept",
            Fate::New => "new: its table is filled",
            Fate::Altered => "altered: its table is made and filled anew",
            Fate::Gone => "its table is gone: it is made and filled anew",
            Fate::Dropped => "dropped: its state is deleted, its table stays",
        };
        lines.push(format!("  {name:<width$}  {what}"));
    }
    let width = widest(&mut preview.topics.iter().map(|(name, _)| name)).unwrap_or(0);
    lines.push("topics".to_owned());
    for (name, reading) in &preview.topics {
        let what = match reading {
            None => "not there yet".to_owned(),
            Some(Reading {
                from_beginning: true,
                records,
            }) => format!("read from its beginning: {records} records"),
            Some(Reading { records, .. }) => format!("read on: {records} records"),
        };
        lines.push(format!("  {name:<width$}  {what}"));
    }
    lines
}
