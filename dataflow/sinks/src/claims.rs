//! Table ownership: which job fills a view's table, and refusing or taking over another job's
//! table.
//!
//! Two jobs that fill one table would overwrite each other's rows. Therefore the second one is
//! refused before it writes, or takes the table over. A table with rows of another writer is
//! refused in any case.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_log::{Error, Kind, Result};

use super::contract::{Sink, Table, Unclaimed};

/// Checks that no other job fills one of the job's tables. With `take_over`, such tables are
/// dropped with the other job's frontiers, so that they are created and filled again. A table that
/// was not made by a job must be empty. Returns the tables that a job made and filled, and whose
/// frontiers are lost.
///
/// # Errors
/// `Data` when another job fills a table (names tables and jobs), or when a table has rows that no
/// job wrote. Otherwise as the sink's methods.
pub fn check(
    sink: &dyn Sink,
    job: &str,
    tables: &[Table],
    take_over: bool,
) -> Result<BTreeSet<String>> {
    let filled = sink.filled_by()?;
    let mut lost = BTreeSet::new();
    for table in tables.iter().filter(|it| !filled.contains_key(&it.name)) {
        match sink.unclaimed(&table.name)? {
            Unclaimed::None => {}
            Unclaimed::Ours => drop(lost.insert(table.name.clone())),
            Unclaimed::Foreign => return Err(foreign(&table.name)),
        }
    }
    let others = of_others(filled, job, tables);
    if !take_over {
        refused(&others)?;
        return Ok(lost);
    }
    for (view, jobs) in &others {
        for other in jobs {
            tracing::warn!(view, other, "taken over: the table is made and filled anew");
            sink.drop_view(other, view)?;
        }
        // The other job may have overwritten the rows that this job wrote into the table.
        sink.drop_view(job, view)?;
    }
    Ok(lost)
}

/// The other jobs that filled one of these tables, by table.
fn of_others(
    mut filled: BTreeMap<String, BTreeSet<String>>,
    job: &str,
    tables: &[Table],
) -> BTreeMap<String, BTreeSet<String>> {
    filled.retain(|view, jobs| {
        jobs.remove(job);
        !jobs.is_empty() && tables.iter().any(|table| table.name == *view)
    });
    filled
}

/// The `Data` error of a table with rows of another writer.
fn foreign(view: &str) -> Error {
    let what = format!(
        "table `{view}` has rows that no job of Tidemill wrote, and they would stay among the \
         view's: drop the table or empty it (TRUNCATE) if nobody needs them, or name the view \
         otherwise"
    );
    Error::new(Kind::Data, what)
}

/// The `Data` error of tables that other jobs fill, if there are any.
fn refused(others: &BTreeMap<String, BTreeSet<String>>) -> Result<()> {
    let Some((view, jobs)) = others.iter().next() else {
        return Ok(());
    };
    let job = jobs.first().map_or("", String::as_str);
    let more = match others.len() {
        1 => String::new(),
        all => format!(" (and {} more tables)", all - 1),
    };
    let what = format!(
        "table `{view}`{more} is filled by job `{job}`, and two jobs would overwrite each other's \
         rows: name the view otherwise, or give this job a keyspace or a file of its own; if \
         `{job}` is stopped for good, remove its tables with `tidemill drop --name {job}`, or \
         start this job with --take-over, which fills them anew"
    );
    Err(Error::new(Kind::Data, what))
}
