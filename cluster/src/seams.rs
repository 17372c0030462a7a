//! What the other crates do not have yet.

use tidemill_dataflow::plan::ir::Job;
use tidemill_log::registry::Registry;

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
