//! The command `verify`: compares the tables of views with what they should contain, and repairs
//! them.
//!
//! Without `--from-source`, the dataflow crate computes the views again from checkpoint, journal
//! and topics. With `--from-source`, [`source`] asks PostgreSQL for the answers to the views' SQL.
//!
//! | mode | what the table is compared with | needs |
//! |---|---|---|
//! | default | the views computed again from checkpoint and topics | the state and the log |
//! | `--from-log` | the views computed again from the topics alone | the log |
//! | `--from-source` | PostgreSQL's own answers | the captured tables |

use std::path::Path;
use std::sync::Arc;

use anyhow::anyhow;
use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use serde_json::{Map, Value, json};
use tidemill_config::args::{StateArgs, VerifyArgs};
use tidemill_config::connections::Connections;
use tidemill_config::pipeline::Folder;
use tidemill_dataflow::job::Workers;
use tidemill_dataflow::verify::{Difference, Differences, Options, Verified, What, verify};
use tidemill_ingest::config::Pipeline as Ingest;
use tidemill_ir::Job;
use tidemill_logs::logging;
use tidemill_logs::logging::Origin;
use tidemill_protocol::exit::Different;
use tidemill_protocol::{exit, output};

use crate::command::{check, dataflow};
use crate::terminal::table;
use crate::terminal::table::grouped;

mod answer;
mod source;

use source::Compared;

/// Compares, repairs with `--repair`, and prints the differences.
///
/// # Errors
///
/// * [`Different`] (exit code 4): rows differ, and were not repaired.
/// * The pipeline, a connection or a service is wrong (exit code 1 or 2).
pub(crate) fn run(args: &VerifyArgs) -> anyhow::Result<()> {
    let folder = Folder::open(&args.pipeline)?.named(&args.name);
    let connections = Connections::resolve(&args.connections, folder.path())?;
    let origin = Origin {
        job: Some(&folder.name),
        part: "verify",
        process: 0,
        generation: None,
    };
    logging::start(&args.log, "info", &origin)?;
    exit::exit_on_panic();
    let ingest = folder.ingest_if_any()?;
    let Some(job) = check::compile(&folder, &connections, ingest.as_ref())? else {
        return Err(anyhow!("{} has no views.sql", folder.path().display()));
    };
    // An embedded file that does not exist must not be created by a check.
    for url in [&connections.sink, &connections.state, &connections.log] {
        let file = url.strip_prefix("sqlite://");
        if let Some(file) = file.filter(|file| !Path::new(file).exists()) {
            return Err(anyhow!(
                "there is no {file}: run the pipeline first, or give the connections that it runs \
                 with"
            ));
        }
    }
    if args.from_source {
        return from_source(args, &job, ingest.as_ref(), &connections);
    }
    let (workers, state) = (usize::from(args.workers), StateArgs::default());
    let workers = Workers::Threads(workers);
    let config = dataflow::config(&folder.name, job, &connections, workers, &state);
    let options = Options {
        from_log: args.from_log,
        repair: args.repair,
        limit: args.limit,
    };
    let verified = verify(&config, &args.views, &options)?;
    for view in &verified {
        let lines = if args.json {
            objects(view)
        } else {
            lines(view, output::width())?
        };
        lines.iter().for_each(|line| output::line(line));
    }
    let in_error = verified.first().map_or(0, |view| view.keys_in_error);
    if in_error > 0 {
        let keys = grouped(in_error);
        tracing::warn!(
            keys,
            "keys are in error: their newest change could not be used, and their rows are in no \
             view until it can; see `tidemill dead-letters list`"
        );
    }
    let left: Vec<String> = verified
        .iter()
        .filter(|view| view.remaining().count() > 0)
        .map(|view| format!("{} in {}", counted(view.remaining().count()), view.view))
        .collect();
    if left.is_empty() {
        return Ok(());
    }
    Err(Different(left.join(", ")).into())
}

/// Compares with PostgreSQL's own answers and prints the differences.
///
/// # Errors
///
/// [`Different`] (exit code 4), also when rows changed all the time and could not be compared.
fn from_source(
    args: &VerifyArgs,
    job: &Job,
    ingest: Option<&Ingest>,
    connections: &Connections,
) -> anyhow::Result<()> {
    let settle = args.settle;
    let compared = source::compare(job, ingest, connections, &args.views, settle, args.limit)?;
    let mut wrong = Vec::new();
    for view in &compared {
        let lines = if args.json {
            view.objects()
        } else {
            view.lines(output::width())?
        };
        lines.iter().for_each(|line| output::line(line));
        let count = view.found.count();
        if count > 0 {
            wrong.push(format!("{} in {}", counted(count), view.view));
        } else if view.changing > 0 {
            let rows = grouped(view.changing);
            wrong.push(format!("{rows} rows of {} were not compared", view.view));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Different(wrong.join(", ")).into())
}

/// A count of differences in words.
fn counted(count: u64) -> String {
    format!(
        "{} difference{}",
        grouped(count),
        if count == 1 { "" } else { "s" }
    )
}

/// The result for one view as text.
///
/// `width` is that of the terminal, in characters.
fn lines(view: &Verified, width: usize) -> Result<Vec<String>, ArrowError> {
    let (name, epoch) = (&view.view, view.epoch);
    let rows = format!(
        "{} row{}",
        grouped(view.rows),
        if view.rows == 1 { "" } else { "s" }
    );
    if view.found.count() == 0 {
        let refused = match view.unfit {
            0 => String::new(),
            1 => "; 1 more is refused by the table, see the dead letters".to_owned(),
            more => format!(
                "; {} more are refused by the table, see the dead letters",
                grouped(more)
            ),
        };
        return Ok(vec![format!(
            "{name}: {rows} equal at epoch {epoch}{refused}"
        )]);
    }
    let mut lines = vec![format!(
        "{name}: {} from its {rows} at epoch {epoch}: {}",
        counted(view.found.count()),
        by_kind(&view.found)
    )];
    lines.extend(shown(&view.key, &view.found, width)?);
    if let Some(left) = &view.left {
        let repaired = view.found.count().saturating_sub(left.count());
        lines.push(format!("{name}: {} repaired", counted(repaired)));
        if left.count() > 0 {
            lines.push(format!(
                "{name}: {} left: somebody wrote there with a timestamp in the future (see \
                 WRITETIME), which wins over the repair, or goes on writing",
                counted(left.count())
            ));
            lines.extend(shown(&view.key, left, width)?);
        }
    }
    Ok(lines)
}

/// The differences by kind, in words.
///
/// Missing rows are not in the table, extra rows should not be there, and different rows have other
/// values.
fn by_kind(found: &Differences) -> String {
    let (missing, extra) = (grouped(found.missing), grouped(found.extra));
    let different = grouped(found.different);
    format!("{missing} missing, {extra} extra, {different} different")
}

/// The differences as a table: a line for each missing or extra row, and for each value that
/// differs.
///
/// Only the differences that are described (`--limit`) have lines.
fn shown(
    key: &[String],
    differences: &Differences,
    width: usize,
) -> Result<Vec<String>, ArrowError> {
    let keys = key.len();
    let mut columns: Vec<Vec<Option<String>>> = vec![Vec::new(); keys + 4];
    for Difference { key, what } in &differences.first {
        let mut add = |what: &str, rest: [Option<String>; 3]| {
            let key = key.iter().cloned().map(Some);
            let cells = [Some(what.to_owned())].into_iter().chain(key).chain(rest);
            for (column, cell) in columns.iter_mut().zip(cells) {
                column.push(cell);
            }
        };
        match what {
            What::Missing => add("missing", [None, None, None]),
            What::Extra => add("extra", [None, None, None]),
            What::Different(cells) => {
                let text = |value: &Option<String>| Some(value.as_deref().unwrap_or("null").into());
                for cell in cells {
                    let (is, should) = (text(&cell.is), text(&cell.should_be));
                    add("different", [Some(cell.column.clone()), is, should]);
                }
            }
        }
    }
    let key = key.iter().map(String::as_str);
    let names = ["difference"].into_iter().chain(key);
    let names = names.chain(["column", "is", "should be"]);
    let fields = names.map(|name| Field::new(name, DataType::Utf8, true));
    let schema = Schema::new(fields.collect::<Vec<_>>());
    let columns = columns
        .into_iter()
        .map(|cells| Arc::new(StringArray::from(cells)) as ArrayRef);
    let batch = RecordBatch::try_new(Arc::new(schema), columns.collect())?;
    let mut lines = table::fitted(&batch, batch.num_rows(), width)?.lines;
    let (described, all) = (differences.first.len() as u64, differences.count());
    if described < all {
        let (described, all) = (grouped(described), grouped(all));
        lines.push(format!(
            "({described} of {all} differences; --limit shows more)"
        ));
    }
    Ok(lines)
}

/// The result for one view as JSON: an object for each described difference, then one with the
/// sums.
///
/// The last object has no `difference`, so a script tells it apart.
fn objects(view: &Verified) -> Vec<String> {
    let name = &view.view;
    let sum = json!({
        "view": name,
        "epoch": view.epoch,
        "rows": view.rows,
        "missing": view.found.missing,
        "extra": view.found.extra,
        "different": view.found.different,
        "refused": view.unfit,
        "left": view.remaining().count(),
    });
    let mut objects = described(name, &view.key, &view.found);
    objects.push(sum.to_string());
    objects
}

/// One JSON object for each described difference.
fn described(view: &str, names: &[String], found: &Differences) -> Vec<String> {
    let first = found.first.iter().map(|Difference { key, what }| {
        let values = key.iter().cloned().map(Value::from);
        let key = names.iter().cloned().zip(values);
        let key: Map<String, Value> = key.collect();
        match what {
            What::Missing => json!({"view": view, "difference": "missing", "key": key}),
            What::Extra => json!({"view": view, "difference": "extra", "key": key}),
            What::Different(cells) => {
                let cells = cells.iter().map(|cell| {
                    let both = json!({"is": cell.is, "should_be": cell.should_be});
                    (cell.column.clone(), both)
                });
                let columns: Map<String, Value> = cells.collect();
                json!({"view": view, "difference": "different", "key": key, "columns": columns})
            }
        }
    });
    first.map(|object| object.to_string()).collect()
}

impl Compared {
    /// The result for one view as text.
    fn lines(&self, width: usize) -> Result<Vec<String>, ArrowError> {
        let name = &self.view;
        let rows = format!(
            "{} row{}",
            grouped(self.rows),
            if self.rows == 1 { "" } else { "s" }
        );
        let mut lines = Vec::new();
        match (self.found.count(), self.changing) {
            (0, 0) => lines.push(format!("{name}: {rows} equal to PostgreSQL's answer")),
            (0, _) => {}
            (differences, _) => {
                lines.push(format!(
                    "{name}: {} from PostgreSQL's answer of {rows}: {}",
                    counted(differences),
                    by_kind(&self.found)
                ));
                lines.extend(shown(&self.key, &self.found, width)?);
            }
        }
        if self.changing > 0 {
            lines.push(format!(
                "{name}: {} of {rows} went on changing and could not be compared: verify again \
                 when fewer changes arrive, or with a shorter --settle",
                grouped(self.changing)
            ));
        }
        Ok(lines)
    }

    /// The result for one view as JSON.
    fn objects(&self) -> Vec<String> {
        let mut objects = described(&self.view, &self.key, &self.found);
        let sum = json!({
            "view": self.view,
            "rows": self.rows,
            "missing": self.found.missing,
            "extra": self.found.extra,
            "different": self.found.different,
            "changing": self.changing,
        });
        objects.push(sum.to_string());
        objects
    }
}

#[cfg(test)]
mod tests {
    use tidemill_dataflow::verify::Cell;

    use super::*;

    fn view(found: Differences, left: Option<Differences>) -> Verified {
        Verified {
            view: "totals".to_owned(),
            key: vec!["country".to_owned()],
            keys_in_error: 0,
            epoch: 1_700_000_000_123,
            rows: 1_200,
            unfit: 0,
            found,
            left,
        }
    }

    fn differences() -> Differences {
        let one = |key: &str, what| Difference {
            key: vec![key.to_owned()],
            what,
        };
        let cell = Cell {
            column: "users".to_owned(),
            is: None,
            should_be: Some("7".to_owned()),
        };
        Differences {
            missing: 1,
            extra: 0,
            different: 3,
            first: vec![
                one("Chad", What::Missing),
                one("Peru", What::Different(vec![cell])),
            ],
        }
    }

    #[test]
    fn a_difference_is_a_line_of_a_table() {
        let equal = lines(&view(Differences::default(), None), 80).unwrap();
        assert_eq!(equal, ["totals: 1,200 rows equal at epoch 1700000000123"]);
        let left = Some(Differences::default());
        assert_eq!(
            lines(&view(differences(), left), 80).unwrap(),
            [
                "totals: 4 differences from its 1,200 rows at epoch 1700000000123: 1 missing, 0 \
                 extra, 3 different",
                " difference | country | column |  is  | should be",
                "------------+---------+--------+------+-----------",
                " missing    | Chad    |        |      |",
                " different  | Peru    | users  | null | 7",
                "(2 of 4 differences; --limit shows more)",
                "totals: 4 differences repaired",
            ]
        );
        let vain = lines(&view(differences(), Some(differences())), 80).unwrap();
        assert!(vain[6].contains("0 differences repaired"), "{vain:?}");
        assert!(vain[7].contains("4 differences left"), "{vain:?}");
    }

    #[test]
    fn a_difference_is_an_object_of_a_line() {
        let objects = objects(&view(differences(), None));
        assert_eq!(
            objects[1],
            [
                r#"{"columns":{"users":{"is":null,"should_be":"7"}},"#,
                r#""difference":"different","key":{"country":"Peru"},"view":"totals"}"#
            ]
            .concat()
        );
        assert!(
            objects[2].contains(r#""left":4,"missing":1,"refused":0,"rows":1200"#),
            "{objects:?}"
        );
    }
}
