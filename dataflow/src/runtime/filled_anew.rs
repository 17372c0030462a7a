//! Tables that a start drops, so that they are created and filled again.
//!
//! Input: the sink's frontiers and the checkpoint. Output: tables from which every later epoch
//! follows, or that do not exist.

use std::collections::BTreeSet;

use tidemill_ir::Epoch;
use tidemill_log::Result;
use tidemill_sinks::{Frontier, Sink, Table};

/// Drops tables of views that were altered since they were filled, tables whose frontier is lost
/// (`lost`), and frontiers whose table is gone.
///
/// # Errors
/// Those of the sink.
pub(crate) fn drop_altered(
    sink: &dyn Sink,
    job: &str,
    tables: &[Table],
    lost: &BTreeSet<String>,
) -> Result<()> {
    let known = sink.frontiers(job)?;
    for table in tables {
        let view = &table.name;
        let why = match known.get(view) {
            Some(filled) if filled.fingerprint != table.fingerprint => "the view was altered",
            // Somebody dropped it, or a start did and ended before it dropped the frontier.
            Some(_) if !sink.is_there(view)? => "the view's table is gone",
            Some(_) => continue,
            None if lost.contains(view) => "nothing says how far the view's table was filled",
            None => continue,
        };
        tracing::warn!(view, "{why}: its table is made and filled anew");
        sink.drop_view(job, view)?;
    }
    Ok(())
}

/// Drops tables that end before the checkpoint: the job ran without their views, or the views were
/// in another sink. The state of the checkpoint says which rows there are, and not which of a
/// table's rows are gone since. Returns the frontiers of all tables if one was dropped.
///
/// # Errors
/// Those of the sink.
pub(crate) fn drop_behind(
    sink: &dyn Sink,
    job: &str,
    tables: &[Table],
    served: &[Option<Epoch>],
    checkpoint: Option<Epoch>,
) -> Result<Option<Vec<Option<Frontier>>>> {
    let mut dropped = false;
    for (table, through) in tables.iter().zip(served) {
        if let Some(epoch) = through.filter(|through| Some(*through) < checkpoint) {
            let view = &table.name;
            tracing::warn!(
                view,
                epoch,
                "the view's table ends before the checkpoint: it is made and filled anew"
            );
            sink.drop_view(job, view)?;
            dropped = true;
        }
    }
    dropped.then(|| sink.prepare(job, tables)).transpose()
}
