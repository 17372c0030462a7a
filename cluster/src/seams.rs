//! What the other crates do not have yet.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tidemill_dataflow::plan::ir::Job;
use tidemill_ingest::config::Pipeline;
use tidemill_ingest::stats::Stats;
use tidemill_log::registry::Registry;

pub(crate) struct Options {
    pub(crate) pipeline: Pipeline,
    pub(crate) name: String,
    pub(crate) database: String,
    pub(crate) log: String,
    pub(crate) registry: String,
    pub(crate) api: Option<String>,
    pub(crate) until: Option<u64>,
    pub(crate) resnapshot: bool,
}

pub(crate) fn run(_: Options, _: Arc<Stats>, _: Arc<AtomicBool>) -> tidemill_ingest::Result<()> {
    Err(tidemill_ingest::Error::new(
        tidemill_ingest::Kind::Bug,
        "no ingest yet",
    ))
}

pub(crate) fn landed_total(_: &str, _: &str) -> tidemill_ingest::Result<u64> {
    Err(tidemill_ingest::Error::new(
        tidemill_ingest::Kind::Bug,
        "no ingest yet",
    ))
}

pub(crate) fn compile(
    _: &str,
    file: &str,
    _: Option<&dyn Registry>,
) -> tidemill_dataflow::Result<Job> {
    let kind = tidemill_dataflow::Kind::Bug;
    Err(tidemill_dataflow::Error::new(
        kind,
        format!("{file}: no planner yet"),
    ))
}

pub(crate) fn explain(_: &Job, _: Option<&str>) -> String {
    String::new()
}
