//! `tidemill explain`: the plan of a job as an indented tree, like PostgreSQL's EXPLAIN.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter, Write};

use arrow::array::Array;
use arrow::datatypes::{Field, Schema};
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;
use datafusion_physical_expr::expressions::BinaryExpr;

use super::fingerprint::identity;
use super::types;
use crate::{
    Aggregate, Envelope, Format, Job, JoinKey, JoinKind, OrderBy, Output, Rel, RelOp, Scalar,
    Source, View,
};

/// Shows one view of a job, or all of them, with the sources that they read.
pub fn explain(job: &Job, view: Option<&str>) -> String {
    let mut text = String::new();
    let shown = |candidate: &&View| view.is_none_or(|name| candidate.name == name);
    for view in job.views.iter().filter(shown) {
        if !text.is_empty() {
            text.push('\n');
        }
        // Writing to a string cannot fail.
        let _infallible = write!(text, "{}", Explained::new(job, view));
    }
    text
}

/// Conditions that must all be true. One of alternatives is in parentheses beside others.
fn all_of(conditions: &[Scalar]) -> String {
    let is_or = |it: &Scalar| {
        let binary = it.expr.downcast_ref::<BinaryExpr>();
        binary.is_some_and(|it| it.op().to_string() == "OR")
    };
    let one = |it: &Scalar| match conditions.len() > 1 && is_or(it) {
        true => format!("({})", it.text),
        false => it.text.clone(),
    };
    let all: Vec<String> = conditions.iter().map(one).collect();
    all.join(" AND ")
}

/// One view in its job.
struct Explained<'a> {
    /// The job, whose sources the view reads.
    job: &'a Job,
    /// The view.
    view: &'a View,
    /// The relations with state that were shown already, by their identity.
    shown: RefCell<BTreeSet<String>>,
}

impl Display for Explained<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let View {
            name, rel, output, ..
        } = self.view;
        writeln!(f, "view {name} ({})", Columns(&rel.schema))?;
        match output {
            Some(output) => writeln!(f, "  table {name}: {}", Key(output, &rel.schema))?,
            None => writeln!(f, "  internal: no primary_key, so nothing is written")?,
        }
        self.node(f, rel, 1)
    }
}

impl<'a> Explained<'a> {
    /// A view of which nothing was shown yet.
    fn new(job: &'a Job, view: &'a View) -> Self {
        let shown = RefCell::default();
        Self { job, view, shown }
    }

    /// Whether a relation with state was shown before, so that it is computed only once. Takes note
    /// of it.
    fn is_repeated(&self, rel: &Rel) -> bool {
        let identity = || identity(rel, &self.job.sources, &self.job.views);
        let alone = rel.op.is_stateful() && !rel.reads_work_table();
        alone && !self.shown.borrow_mut().insert(identity())
    }

    /// Writes a node and the nodes below it.
    fn node(&self, f: &mut Formatter<'_>, rel: &Rel, depth: usize) -> fmt::Result {
        let indent = "  ".repeat(depth);
        write!(f, "{indent}-> ")?;
        if self.is_repeated(rel) {
            return writeln!(f, "{}: as above, computed once", Title(&rel.op));
        }
        match &rel.op {
            RelOp::Source { source } => match self.job.sources.get(*source) {
                Some(source) => writeln!(f, "{}", Read(source))?,
                None => writeln!(f, "unknown source {source}")?,
            },
            RelOp::View { view } => match self.job.views.get(*view) {
                Some(view) => writeln!(f, "View {}", view.name)?,
                None => writeln!(f, "unknown view {view}")?,
            },
            RelOp::Compute {
                filters, outputs, ..
            } => {
                writeln!(f, "Compute {}", named(outputs, rel))?;
                if !filters.is_empty() {
                    writeln!(f, "{indent}     filter: {}", all_of(filters))?;
                }
            }
            RelOp::Reduce { aggregates, .. } => {
                writeln!(f, "{}", Title(&rel.op))?;
                let aggregates: Vec<String> = aggregates.iter().map(Aggregate::to_string).collect();
                writeln!(f, "{indent}     aggregates: {}", aggregates.join(", "))?;
            }
            RelOp::Join { conditions, .. } => {
                writeln!(f, "{}", Title(&rel.op))?;
                if !conditions.is_empty() {
                    writeln!(f, "{indent}     condition: {}", all_of(conditions))?;
                }
            }
            RelOp::Window { functions, .. } => {
                writeln!(f, "{}", Title(&rel.op))?;
                let functions: Vec<String> = functions.iter().map(ToString::to_string).collect();
                writeln!(f, "{indent}     functions: {}", functions.join(", "))?;
            }
            RelOp::Values { rows } => {
                writeln!(f, "{}", Title(&rel.op))?;
                if rows.num_rows() > 0 && rows.num_columns() > 0 {
                    writeln!(f, "{indent}     rows: {}", ConstantRows(rows))?;
                }
            }
            op => writeln!(f, "{}", Title(op))?,
        }
        let mut inputs = rel.op.inputs().into_iter();
        inputs.try_for_each(|input| self.node(f, input, depth + 2))
    }
}

/// The title of a node, in `explain` and in the metrics of its operators.
pub struct Title<'a>(pub &'a RelOp);

impl Display for Title<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            RelOp::Source { .. } => f.write_str("Source"),
            RelOp::View { .. } => f.write_str("View"),
            RelOp::Compute { .. } => f.write_str("Compute"),
            RelOp::Reduce { keys, .. } if keys.is_empty() => f.write_str("Reduce to one row"),
            RelOp::Reduce { keys, .. } => {
                let keys: Vec<&str> = keys.iter().map(|key| key.text.as_str()).collect();
                write!(f, "Reduce by {}", keys.join(", "))
            }
            RelOp::Distinct { .. } => f.write_str("Distinct"),
            RelOp::Union { inputs } => write!(f, "Union of {}", inputs.len()),
            RelOp::Join { kind, keys, .. } => {
                f.write_str(match (kind, keys.is_empty()) {
                    (JoinKind::Inner, false) => "Join",
                    (JoinKind::Inner, true) => "Cross join",
                    (JoinKind::Left, _) => "Left join",
                    (JoinKind::Semi, _) => "Semi join",
                    (JoinKind::Anti, _) => "Anti join",
                })?;
                let keys: Vec<String> = keys.iter().map(JoinKey::to_string).collect();
                match keys.is_empty() {
                    true => Ok(()),
                    false => write!(f, " on {}", keys.join(" AND ")),
                }
            }
            RelOp::TopK { .. } => write!(f, "{}", Top(self.0)),
            RelOp::Window {
                partition, order, ..
            } => {
                f.write_str("Window")?;
                ordered(f, partition, order)
            }
            RelOp::SetOp { kind, .. } => write!(f, "{kind}"),
            RelOp::Recursion { distinct: true, .. } => f.write_str("Recursive union"),
            RelOp::Recursion { .. } => f.write_str("Recursive union all"),
            RelOp::WorkTable => f.write_str("Work table"),
            RelOp::Values { rows } => match rows.num_rows() {
                1 => f.write_str("Values of 1 row"),
                count => write!(f, "Values of {count} rows"),
            },
        }
    }
}

/// The number of constant rows that are shown.
const SHOWN_ROWS: usize = 5;

/// Constant rows: the first of them.
struct ConstantRows<'a>(&'a RecordBatch);

impl Display for ConstantRows<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let row = |row: usize| {
            let values = self.0.columns().iter();
            let values = values.map(|column| match column.is_null(row) {
                true => "NULL".to_owned(),
                false => array_value_to_string(column, row).unwrap_or_default(),
            });
            format!("({})", values.collect::<Vec<_>>().join(", "))
        };
        let rows: Vec<String> = (0..self.0.num_rows()).take(SHOWN_ROWS).map(row).collect();
        f.write_str(&rows.join(", "))?;
        f.write_str(if self.0.num_rows() > SHOWN_ROWS {
            ", …"
        } else {
            ""
        })
    }
}

/// The title of a top-k.
struct Top<'a>(&'a RelOp);

impl Display for Top<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let RelOp::TopK {
            partition,
            order,
            offset,
            limit,
            ranked,
            ..
        } = self.0
        else {
            return Ok(());
        };
        match limit {
            Some(limit) => write!(f, "Top {limit}")?,
            None => write!(f, "All")?,
        }
        if *offset > 0 {
            write!(f, " after {offset}")?;
        }
        ordered(f, partition, order)?;
        f.write_str(if *ranked { ", numbered" } else { "" })
    }
}

/// The groups of rows and the order within a group, as the end of a title.
fn ordered(f: &mut Formatter<'_>, partition: &[Scalar], order: &[OrderBy]) -> fmt::Result {
    if !partition.is_empty() {
        let partition: Vec<&str> = partition.iter().map(|key| key.text.as_str()).collect();
        write!(f, " of each {}", partition.join(", "))?;
    }
    if !order.is_empty() {
        let order: Vec<String> = order.iter().map(OrderBy::to_string).collect();
        write!(f, " by {}", order.join(", "))?;
    }
    Ok(())
}

/// The output expressions, with their names where these differ.
fn named(outputs: &[Scalar], rel: &Rel) -> String {
    if outputs.is_empty() {
        return "no columns".to_owned();
    }
    let outputs = outputs.iter().zip(rel.schema.fields());
    let outputs = outputs.map(|(output, field)| match output.text == *field.name() {
        true => output.text.clone(),
        false => format!("{} AS {}", output.text, field.name()),
    });
    outputs.collect::<Vec<_>>().join(", ")
}

/// Columns with their SQL types.
struct Columns<'a>(&'a Schema);

impl Display for Columns<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let column = |field: &Field| format!("{} {}", field.name(), types::name(field.data_type()));
        let columns: Vec<String> = self.0.fields().iter().map(|field| column(field)).collect();
        f.write_str(&columns.join(", "))
    }
}

/// The partition key and clustering columns of a view's table.
struct Key<'a>(&'a Output, &'a Schema);

impl Display for Key<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(output, schema) = self;
        let fields = schema.fields();
        let name = |index: &usize| fields.get(*index).map(|field| field.name().as_str());
        let names: Vec<&str> = output.primary_key.iter().filter_map(name).collect();
        let (partition, clustering) = names.split_at(output.partition_columns.min(names.len()));
        write!(f, "partition key {}", partition.join(", "))?;
        if !clustering.is_empty() {
            write!(f, "; clustering columns {}", clustering.join(", "))?;
        }
        f.write_str(match output.unique {
            true => "; unique: proven",
            false => "; unique: not proven, checked row by row",
        })?;
        match &output.sink {
            Some(sink) => write!(f, "; sink {sink}"),
            None => Ok(()),
        }
    }
}

/// A source: topic, format, envelope, key and columns.
struct Read<'a>(&'a Source);

impl Display for Read<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let source = self.0;
        let format = match source.format {
            Format::Json(_) => "json",
            Format::Avro { .. } => "avro",
        };
        let envelope = match source.envelope {
            Envelope::Append => "append",
            Envelope::Upsert => "upsert",
            Envelope::Debezium => "debezium",
        };
        write!(
            f,
            "Source {} (topic {}, {format}, {envelope}",
            source.name, source.topic
        )?;
        if !source.key.is_empty() {
            write!(f, ", key {}", source.key.join(", "))?;
        }
        match source.schema.fields().is_empty() {
            true => write!(f, "): no columns"),
            false => write!(f, "): {}", Columns(&source.schema)),
        }
    }
}
