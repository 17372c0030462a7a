//! Reads served views back from the sink, sorted as a person would sort them.
//!
//! In: the job's plan and the URL of its sink. Out: lines. The rows are read over the sink's own
//! interface, so what is shown is what a reader of the table sees.

use std::sync::Arc;

use anyhow::Context;
use arrow::compute::{SortColumn, SortOptions, lexsort_to_indices, take_record_batch};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use tidemill_config::connections::Connections;
use tidemill_ir::{Job, Output, Rel, RelOp, View};
use tidemill_log::health::Health;
use tidemill_sinks::{Sink, Table};

use crate::terminal::table;

/// Limit of rows that are read of a view to choose the ones shown.
const READ_ROWS_MAX: usize = 10_000;

/// Rows printed of each aggregate at the end, and of any other view.
const PRINT_ROWS_MAX: [usize; 2] = [25, 10];

/// Rows of the view in the live display.
const TOP_ROWS_MAX: usize = 5;

/// The views of a job that have a table.
pub(crate) struct Served {
    /// Where the tables are.
    sink: Arc<dyn Sink>,
    /// The views with a table, in the order of the job.
    views: Vec<ServedView>,
}

/// A view and its table.
struct ServedView {
    /// The table, as the sink knows it.
    table: Table,
    /// Whether the view aggregates: such a view is shown first, and with more rows.
    aggregate: bool,
}

impl Served {
    /// Opens the sinks that the job writes to.
    pub(crate) fn open(connections: &Connections, job: &Job) -> anyhow::Result<Self> {
        let views = job.views.iter().filter_map(|view| {
            let output = view.output.as_ref()?;
            let (table, aggregate) = (table_of(view, output), is_aggregate(&view.rel));
            Some(ServedView { table, aggregate })
        });
        Ok(Self {
            sink: tidemill_sinks::open_all(
                &connections.sink,
                &connections.sinks,
                job,
                &Health::default(),
            )?,
            views: views.collect(),
        })
    }

    /// Every view as a table of at most `width` columns of text, with its name and row count.
    /// `rows` returns the count of a view that is too large to be read completely.
    ///
    /// # Errors
    /// A view cannot be read back.
    pub(crate) fn printed(
        &self,
        width: usize,
        rows: &dyn Fn(&str) -> Option<u64>,
    ) -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        for view in &self.views {
            let name = &view.table.name;
            let batch = self.read(view)?;
            let read = batch.num_rows();
            let all = if read < READ_ROWS_MAX {
                None
            } else {
                rows(name)
            };
            let [aggregate, other] = PRINT_ROWS_MAX;
            let rows_max = if view.aggregate { aggregate } else { other };
            let text = table::fitted(&batch, rows_max, width)?;
            lines.extend([String::new(), name.clone()]);
            lines.extend(text.lines);
            lines.push(count_line(read.min(rows_max), read, all, &text.left_out));
        }
        Ok(lines)
    }

    /// The first rows of the first aggregate view, with its name; empty while it has no rows.
    ///
    /// # Errors
    /// The view cannot be read back.
    pub(crate) fn top(&self, width: usize) -> anyhow::Result<Vec<String>> {
        let Some(view) = self.views.iter().find(|view| view.aggregate) else {
            return Ok(Vec::new());
        };
        let batch = self.read(view)?;
        if batch.num_rows() == 0 {
            return Ok(Vec::new());
        }
        let mut lines = vec![view.table.name.clone()];
        lines.extend(table::fitted(&batch, TOP_ROWS_MAX, width)?.lines);
        Ok(lines)
    }

    /// Reads and sorts a view.
    fn read(&self, view: &ServedView) -> anyhow::Result<RecordBatch> {
        let name = &view.table.name;
        let batch = self
            .sink
            .read_back()?
            .read(&view.table, READ_ROWS_MAX)
            .with_context(|| format!("view `{name}` cannot be read back"))?;
        Ok(sorted(&batch, &view.table)?)
    }
}

/// The view to show first: an aggregate if there is one.
pub(crate) fn typical(job: &Job) -> Option<&str> {
    let mut served = job.views.iter().filter(|view| view.output.is_some());
    let first = served.clone().next()?;
    let view = served.find(|view| is_aggregate(&view.rel)).unwrap_or(first);
    Some(&view.name)
}

/// The table of a view in the sink.
pub(crate) fn table_of(view: &View, output: &Output) -> Table {
    Table {
        name: view.name.clone(),
        schema: Arc::clone(&view.rel.schema),
        primary_key: output.primary_key.clone(),
        partition_columns: output.partition_columns,
        fingerprint: view.fingerprint,
    }
}

/// Whether a view is an aggregate, perhaps with filters and projections above it.
fn is_aggregate(rel: &Rel) -> bool {
    match &rel.op {
        RelOp::Reduce { .. } => true,
        RelOp::Compute { input, .. } => is_aggregate(input),
        _ => false,
    }
}

/// The line with the row count below a table.
fn count_line(shown: usize, read: usize, all: Option<u64>, left_out: &[String]) -> String {
    let all = all.unwrap_or(read as u64);
    let noun = if all == 1 { "row" } else { "rows" };
    let rows = match shown < read {
        false => format!("{} {noun}", table::grouped(all)),
        true => format!("{shown} of {} {noun}", table::grouped(all)),
    };
    match left_out {
        [] => format!("({rows})"),
        names => format!("({rows}; no room for {})", names.join(", ")),
    }
}

/// Sorts counts by one name (country, product, …) by the count, descending; everything else by the
/// key.
fn sorted(batch: &RecordBatch, table: &Table) -> Result<RecordBatch, arrow::error::ArrowError> {
    let kind_of = |index: usize| batch.schema().field(index).data_type().clone();
    let mut order = Vec::new();
    let counted = (0..batch.num_columns()).find(|index| !table.primary_key.contains(index));
    if let ([key], Some(counted)) = (table.primary_key.as_slice(), counted)
        && kind_of(*key) == DataType::Utf8
        && kind_of(counted).is_integer()
    {
        order.push((counted, true));
    }
    order.extend(table.primary_key.iter().map(|&key| (key, false)));
    let columns: Vec<SortColumn> = order
        .into_iter()
        .map(|(index, descending)| SortColumn {
            values: Arc::clone(batch.column(index)),
            options: Some(SortOptions {
                descending,
                nulls_first: false,
            }),
        })
        .collect();
    take_record_batch(batch, &lexsort_to_indices(&columns, None)?)
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};

    use super::*;

    fn table(batch: &RecordBatch, primary_key: &[usize]) -> Table {
        Table {
            name: "view".into(),
            schema: batch.schema(),
            primary_key: primary_key.to_vec(),
            partition_columns: 1,
            fingerprint: 0,
        }
    }

    #[test]
    fn counts_by_name_are_sorted_by_count_and_others_by_key() {
        let names = Arc::new(StringArray::from(vec!["b", "c", "a"])) as ArrayRef;
        let counts = Arc::new(Int64Array::from(vec![7, 9, 7])) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("name", names), ("n", counts)]).unwrap();
        let names_in = |key: &[usize]| {
            let sorted = sorted(&batch, &table(&batch, key)).unwrap();
            let names = sorted.column(0).as_string::<i32>();
            names
                .iter()
                .map(|name| name.unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(names_in(&[0]), ["c", "a", "b"]);
        assert_eq!(names_in(&[1, 0]), ["a", "b", "c"]);
    }

    #[test]
    fn the_row_count_is_said() {
        assert_eq!(count_line(1, 1, None, &[]), "(1 row)");
        assert_eq!(count_line(25, 25, None, &[]), "(25 rows)");
        assert_eq!(
            count_line(25, 26, None, &["dob".into(), "phone".into()]),
            "(25 of 26 rows; no room for dob, phone)"
        );
        assert_eq!(
            count_line(25, READ_ROWS_MAX, Some(123_456), &[]),
            "(25 of 123,456 rows)"
        );
    }
}
