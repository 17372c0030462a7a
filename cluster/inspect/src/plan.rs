//! The plan of a job: its sources and views, what reads what, and the operators of each view.
//!
//! The names of operators are those of the metrics and of the heartbeats, so a picture of the plan
//! can show what each operator costs.

use serde::Serialize;
use tidemill_ir::explain::{Title, explain};
use tidemill_ir::types;
use tidemill_ir::{Job, Rel, RelOp, View};

use crate::Inspected;
use crate::refusal::Answer;

/// Everything that a job maintains.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Plan {
    /// The tables that are read from topics.
    sources: Vec<SourceTable>,
    /// The views; a view is after all views that it reads.
    views: Vec<PlannedView>,
}

/// A table that a topic feeds.
#[derive(Debug, Serialize)]
struct SourceTable {
    /// The table's name in SQL.
    name: String,
    /// The topic.
    topic: String,
    /// The columns that any view uses.
    columns: Vec<Column>,
}

/// A view.
#[derive(Debug, Serialize)]
struct PlannedView {
    /// The view's name.
    name: String,
    /// The SQL as written.
    sql: String,
    /// The columns, in order.
    columns: Vec<Column>,
    /// The tables and views that it reads.
    reads: Vec<Read>,
    /// Whether the view is a table in the sink.
    written: bool,
    /// The names of the columns of the primary key.
    primary_key: Vec<String>,
    /// Whether the plan proves that the primary key is unique.
    unique: bool,
    /// The plan as `tidemill explain` prints it.
    explained: String,
    /// The operators; the inputs of one come before it.
    plan: Vec<Operator>,
}

/// A column.
#[derive(Debug, Serialize)]
struct Column {
    /// Its name.
    name: String,
    /// Its SQL type.
    #[serde(rename = "type")]
    kind: String,
}

/// A table or a view that a view reads.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Read {
    /// `source` or `view`.
    kind: &'static str,
    /// Its name.
    name: String,
}

/// An operator of a view.
#[derive(Debug, Serialize)]
struct Operator {
    /// Its number in the view.
    id: usize,
    /// What it does.
    title: String,
    /// Its name in the metrics.
    operator: String,
    /// The numbers of the operators that it reads.
    inputs: Vec<usize>,
}

/// The plan of the job; without views for a pipeline that has none.
///
/// # Errors
/// The registry does not answer, or has no schema of a topic yet.
pub(crate) fn plan(job: &Inspected) -> Answer<Plan> {
    let Some(plan) = job.plan()? else {
        return Ok(Plan::default());
    };
    let sources = plan.sources.iter().map(|source| SourceTable {
        name: source.name.clone(),
        topic: source.topic.clone(),
        columns: columns(&source.schema),
    });
    Ok(Plan {
        sources: sources.collect(),
        views: plan.views.iter().map(|view| planned(&plan, view)).collect(),
    })
}

/// One view of the plan.
fn planned(job: &Job, view: &View) -> PlannedView {
    let mut reads = Vec::new();
    let mut operators = Vec::new();
    view.rel.fold(&mut |rel: &Rel, inputs: Vec<usize>| {
        let read = read(job, rel);
        let title = match &read {
            Some(read) => read.name.clone(),
            None => Title(&rel.op).to_string(),
        };
        let operator = match &rel.op {
            RelOp::Source { .. } => format!("Source {title}"),
            _ => format!("{}: {}", view.name, Title(&rel.op)),
        };
        let id = operators.len();
        operators.push(Operator {
            id,
            title,
            operator,
            inputs,
        });
        reads.extend(read.filter(|it| !reads.contains(it)));
        id
    });
    let output = view.output.as_ref();
    if output.is_some() {
        let id = operators.len();
        operators.push(Operator {
            id,
            title: "Write".to_owned(),
            operator: format!("{}: Write", view.name),
            inputs: id.checked_sub(1).into_iter().collect(),
        });
    }
    let key = output.iter().flat_map(|output| &output.primary_key);
    let fields = view.rel.schema.fields();
    PlannedView {
        name: view.name.clone(),
        sql: view.sql.clone(),
        columns: columns(&view.rel.schema),
        reads,
        written: output.is_some(),
        primary_key: key
            .filter_map(|column| Some(fields.get(*column)?.name().clone()))
            .collect(),
        unique: output.is_some_and(|output| output.unique),
        explained: explain(job, Some(&view.name)),
        plan: operators,
    }
}

/// What a leaf of the tree reads; `None` for an operator that is no leaf.
fn read(job: &Job, rel: &Rel) -> Option<Read> {
    match rel.op {
        RelOp::Source { source } => Some(Read {
            kind: "source",
            name: job.sources.get(source)?.name.clone(),
        }),
        RelOp::View { view } => Some(Read {
            kind: "view",
            name: job.views.get(view)?.name.clone(),
        }),
        _ => None,
    }
}

/// The columns of a schema.
fn columns(schema: &arrow::datatypes::Schema) -> Vec<Column> {
    let fields = schema.fields().iter();
    let column = fields.map(|field| Column {
        name: field.name().clone(),
        kind: types::name(field.data_type()),
    });
    column.collect()
}
