//! A job: its sources, and its views with their outputs.

pub mod reads;
mod serving;

use crate::rel::Rel;
use crate::source::Source;

/// Everything that one set of dataflow processes maintains.
#[derive(Debug, Clone)]
pub struct Job {
    /// The tables that are read. Each occurs once, however many views use it.
    pub sources: Vec<Source>,
    /// The views. A view is after all views that it reads.
    pub views: Vec<View>,
}

/// A view, with its output if it is served.
#[derive(Debug, Clone)]
pub struct View {
    /// The view's name, which is also the name of its table in the sink.
    pub name: String,
    /// The SQL as written.
    pub sql: String,
    /// What the view computes.
    pub rel: Rel,
    /// The view's table in the sink; `None` if the view is not written anywhere and other views
    /// read it.
    pub output: Option<Output>,
    /// A hash of the plan and the output, stable across restarts and releases. If two fingerprints
    /// are equal, the view's state and its sink table can be kept.
    pub fingerprint: u64,
}

impl View {
    /// The prefix of the names under which checkpoints keep the view's state.
    pub fn site(&self) -> String {
        format!("{}/{:016x}", self.name, self.fingerprint)
    }
}

/// Most characters of a sink's name.
const SINK_NAME_LEN_MAX: usize = 40;

/// Whether a text can be the name of a sink: `a` to `z`, digits and `_`, a letter first.
///
/// ```
/// assert!(tidemill_ir::is_sink_name("warehouse_2"));
/// assert!(!tidemill_ir::is_sink_name("Warehouse"));
/// ```
pub fn is_sink_name(text: &str) -> bool {
    let plain = |c: char| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit();
    let first = text.starts_with(|c: char| c.is_ascii_lowercase());
    first && text.len() <= SINK_NAME_LEN_MAX && text.chars().all(plain)
}

/// The table of a view in the sink.
#[derive(Debug, Clone)]
pub struct Output {
    /// The primary key, as indices of the view's columns. The first `partition_columns` of them
    /// place the row (Cassandra's partition key), the others sort it within (clustering columns).
    pub primary_key: Vec<usize>,
    /// The number of columns of `primary_key` that are the partition key; at least 1.
    pub partition_columns: usize,
    /// Whether the plan proves that no two rows share a primary key. If not, the sink operator
    /// checks it row by row.
    pub unique: bool,
    /// The name of the sink that holds the table, as in `WITH (sink = 'NAME')`; `None` for the
    /// sink of all views that name none.
    pub sink: Option<String>,
}
