//! Rows of a view's table, read from the sink: the first ones in the sink's own order, or the row
//! of a key.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde::{Deserialize, Serialize};
use tidemill_ir::Job;
use tidemill_log::{Error, Kind};
use tidemill_sinks::Table;

use crate::Inspected;
use crate::refusal::{Answer, Refusal};

/// Rows of an answer, unless the request says how many.
const ROWS: usize = 50;
/// Limit of rows of an answer.
const ROWS_MAX: usize = 1_000;
/// Limit of the text of a value, in bytes.
const CELL_BYTES_MAX: usize = 16 << 10;

/// Which rows are asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    /// How many rows.
    limit: Option<usize>,
    /// A key as JSON: an object with the text of each column of the primary key.
    key: Option<String>,
}

/// A column of a view's table.
#[derive(Debug, Serialize)]
struct Column {
    name: String,
    kind: String,
    /// The place in the primary key, from 1.
    key: Option<usize>,
}

/// Rows of a view's table.
#[derive(Debug, Serialize)]
pub(crate) struct Rows {
    view: String,
    columns: Vec<Column>,
    /// The values as text; null for NULL.
    rows: Vec<Vec<Option<String>>>,
    /// Values that the view could not have written: row, column and value.
    odd: Vec<(usize, usize, String)>,
    /// Values of which only the beginning is shown: row and column.
    cut: Vec<(usize, usize)>,
    /// The number of rows of the view in this process of the job; absent when it is not known.
    count: Option<i64>,
    /// Rows that are withheld from the table so far.
    withheld: Option<u64>,
}

/// The rows that are asked for.
///
/// # Errors
/// `Missing` when the job has no such view, or the view has no table; `Wrong` for a key that does
/// not fit.
pub(crate) fn read(job: &Inspected, view: &str, asked: &Asked) -> Answer<Rows> {
    let (table, plan) = table(job, view)?;
    let sink = job.sink(&plan)?;
    let sink = sink.read_back()?;
    let mut found = Rows {
        view: view.to_owned(),
        columns: columns(&table),
        rows: Vec::new(),
        odd: Vec::new(),
        cut: Vec::new(),
        count: None,
        withheld: None,
    };
    match &asked.key {
        Some(key) => {
            let keys = key_of(&table, key)?;
            sink.scan(&table, Some(&keys), &mut |scanned| {
                let first = found.rows.len();
                let odd = scanned.odd.into_iter();
                let odd = odd.map(|it| (first + it.row, it.column, it.text));
                found.odd.extend(odd);
                found.add(&scanned.rows)
            })?;
        }
        None => {
            let limit = asked.limit.unwrap_or(ROWS).clamp(1, ROWS_MAX);
            found.add(&sink.read(&table, limit)?)?;
        }
    }
    if let Some(stats) = &job.dataflow {
        let views = tidemill_log::lock(&stats.views);
        let counted = views.get(view);
        found.count = counted.map(|it| it.rows);
        found.withheld = counted.map(|it| it.conflicts);
    }
    Ok(found)
}

/// The table of a view, and the plan of the job.
fn table(job: &Inspected, view: &str) -> Answer<(Table, Arc<Job>)> {
    let name = &job.name;
    let missing = || Refusal::Missing(format!("job `{name}` has no view `{view}`"));
    let plan = job.plan()?.ok_or_else(missing)?;
    let found = plan.views.iter().find(|it| it.name == view);
    let found = found.ok_or_else(missing)?;
    let output = found.output.as_ref().ok_or_else(|| {
        let why = format!("view `{view}` has no primary key, so it has no table");
        Refusal::Missing(why)
    })?;
    Ok((Table::of(found, output), plan))
}

/// The columns of a table.
fn columns(table: &Table) -> Vec<Column> {
    let fields = table.schema.fields().iter().enumerate();
    let column = |(index, field): (usize, &arrow::datatypes::FieldRef)| Column {
        name: field.name().clone(),
        kind: tidemill_ir::types::name(field.data_type()),
        key: table
            .primary_key
            .iter()
            .position(|it| *it == index)
            .map(|it| it + 1),
    };
    fields.map(column).collect()
}

/// A row of the table in which only the key is set, from texts.
///
/// # Errors
/// `Wrong` when the JSON does not name each column of the key, or a text is no value of its type.
fn key_of(table: &Table, key: &str) -> Answer<RecordBatch> {
    let names: Vec<_> = table.key_names().collect();
    let expected = names.join(", ");
    let wrong = |why: &str| {
        let why = format!("key: {why}; expected a JSON object with a text for each of: {expected}");
        Refusal::Wrong(why)
    };
    let given: BTreeMap<String, String> =
        serde_json::from_str(key).map_err(|error| wrong(&error.to_string()))?;
    if let Some(other) = given.keys().find(|it| !names.contains(&it.as_str())) {
        return Err(wrong(&format!("`{other}` is no column of the primary key")));
    }
    let fields = table.schema.fields().iter().enumerate();
    let arrays = fields.map(|(index, field)| -> Answer<ArrayRef> {
        if !table.primary_key.contains(&index) {
            return Ok(new_null_array(field.data_type(), 1));
        }
        let name = field.name();
        let text = given.get(name);
        let text = text.ok_or_else(|| wrong(&format!("`{name}` is missing")))?;
        let array = StringArray::from(vec![text.as_str()]);
        let options = CastOptions {
            safe: false,
            ..CastOptions::default()
        };
        let cast = cast_with_options(&array, field.data_type(), &options);
        cast.map_err(|_| {
            let kind = tidemill_ir::types::name(field.data_type());
            wrong(&format!("`{text}` is no {kind}"))
        })
    });
    let arrays = arrays.collect::<Answer<Vec<_>>>()?;
    let keys = RecordBatch::try_new(Arc::clone(&table.schema), arrays);
    keys.map_err(|error| wrong(&error.to_string()))
}

impl Rows {
    /// Adds the rows of a batch, as text.
    ///
    /// # Errors
    /// `Bug` when a type has no text.
    fn add(&mut self, batch: &RecordBatch) -> tidemill_log::Result<()> {
        let bug = |error| Error::with_source(Kind::Bug, "a value has no text", error);
        let options = FormatOptions::default()
            .with_timestamp_format(Some("%F %T%.f"))
            .with_timestamp_tz_format(Some("%F %T%.f%:z"));
        let formatters = batch.columns().iter();
        let formatters = formatters.map(|it| ArrayFormatter::try_new(it.as_ref(), &options));
        let formatters: Vec<_> = formatters.collect::<Result<_, _>>().map_err(bug)?;
        for row in 0..batch.num_rows() {
            let mut cells = Vec::with_capacity(formatters.len());
            for (column, formatter) in formatters.iter().enumerate() {
                if batch.column(column).is_null(row) {
                    cells.push(None);
                    continue;
                }
                let mut text = formatter.value(row).try_to_string().map_err(bug)?;
                if text.len() > CELL_BYTES_MAX {
                    let mut end = CELL_BYTES_MAX;
                    while !text.is_char_boundary(end) {
                        end -= 1;
                    }
                    text.truncate(end);
                    self.cut.push((self.rows.len(), column));
                }
                cells.push(Some(text));
            }
            self.rows.push(cells);
        }
        Ok(())
    }
}
