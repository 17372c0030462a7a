//! Fingerprints of views: a hash of what a view computes, to decide whether its state can be kept.
//!
//! Included: topics, formats, envelopes, keys, and the types of the columns that are used;
//! operators, expressions and types; the output. Not included: the layout of the SQL, other views,
//! positions in the job, and the text of Avro schemas (so a column that no view reads may be added
//! or removed).
//!
//! A fingerprint is stored in checkpoints and frontier rows. Changing this module changes
//! fingerprints and makes all views fill again.

use std::collections::BTreeSet;
use std::fmt::Write;

use arrow::array::Array;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;
use datafusion_physical_expr::expressions::{Column, Literal};
use datafusion_physical_expr::utils::collect_columns;
use xxhash_rust::xxh3::xxh3_64;

use super::types;
use crate::{
    Envelope, Format, JoinKey, JoinKind, Output, Rel, RelOp, Scalar, Source, Spelling, View,
};

/// The fingerprint of a view that is being planned.
pub fn fingerprint(
    name: &str,
    rel: &Rel,
    output: Option<&Output>,
    sources: &[Source],
    views: &[View],
) -> u64 {
    let mut text = format!("view {name} ");
    fields(&mut text, &rel.schema);
    if let Some(output) = output {
        push(
            &mut text,
            format_args!(" key {:?} {}", output.primary_key, output.partition_columns),
        );
        if let Some(sink) = &output.sink {
            push(&mut text, format_args!(" sink {sink}"));
        }
    }
    node(&mut text, rel, &BTreeSet::new(), sources, views);
    // Earlier releases computed it twice, and kept its state twice.
    if !repeats_by_nature(rel) && repeats(rel, sources, views) {
        text.push_str("once");
    }
    xxh3_64(text.as_bytes())
}

/// Whether a view may contain a relation with state twice. Its relations are then rendered once
/// for each [`identity`].
pub fn repeats(rel: &Rel, sources: &[Source], views: &[View]) -> bool {
    let (mut seen, mut twice) = (BTreeSet::new(), false);
    rel.visit(&mut |rel| {
        if rel.op.is_stateful() {
            twice |= !seen.insert(identity(rel, sources, views));
        }
    });
    twice || repeats_by_nature(rel)
}

/// Whether a view has operators for which the planner repeats a relation: outer joins, and what
/// subqueries become. A recursion costs too much to be computed twice.
fn repeats_by_nature(rel: &Rel) -> bool {
    rel.fold(&mut |rel, inputs: Vec<bool>| {
        let join = matches!(&rel.op, RelOp::Join { kind, .. } if *kind != JoinKind::Inner);
        join || matches!(&rel.op, RelOp::Recursion { .. }) || inputs.contains(&true)
    })
}

/// A text that two relations share only if they have the same rows and columns.
pub fn identity(rel: &Rel, sources: &[Source], views: &[View]) -> String {
    let mut text = String::new();
    node(&mut text, rel, &BTreeSet::new(), sources, views);
    text
}

/// The name of the state of a keyed source. It contains everything that the state depends on: how
/// the source is read, and the columns that are kept.
pub fn state_of(source: &Source) -> String {
    let mut text = String::new();
    let all = (0..source.schema.fields().len()).collect();
    source_text(&mut text, source, &all);
    format!("{}/{:016x}", source.name, xxh3_64(text.as_bytes()))
}

/// Appends to a text, which cannot fail.
fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    let _infallible = text.write_fmt(what);
}

/// Appends the names and types of columns.
fn fields(text: &mut String, schema: &Schema) {
    for field in schema.fields() {
        push(
            text,
            format_args!("[{:?} {}]", field.name(), field.data_type()),
        );
    }
}

/// Appends a node and the nodes below it. `used` are the columns that the node above reads.
fn node(text: &mut String, rel: &Rel, used: &BTreeSet<usize>, sources: &[Source], views: &[View]) {
    text.push('(');
    let mut below = BTreeSet::new();
    let mut scalars = |text: &mut String, label: &str, scalars: &[Scalar]| {
        text.push_str(label);
        for scalar in scalars {
            push(text, format_args!("[{}]", meaning(scalar)));
            below.extend(
                collect_columns(&scalar.expr)
                    .iter()
                    .map(|column| column.index()),
            );
        }
    };
    match &rel.op {
        RelOp::Source { source } => {
            if let Some(source) = sources.get(*source) {
                source_text(text, source, used);
            }
        }
        RelOp::View { view } => {
            let read = views.get(*view).map(|view| view.fingerprint);
            push(text, format_args!("view {read:?}"));
        }
        RelOp::Compute {
            filters, outputs, ..
        } => {
            scalars(text, "compute", outputs);
            scalars(text, "where", filters);
        }
        RelOp::Reduce {
            keys, aggregates, ..
        } => {
            scalars(text, "reduce", keys);
            for aggregate in aggregates {
                push(text, format_args!("{aggregate}"));
                scalars(text, "of", &aggregate.arguments);
                let order: Vec<Scalar> =
                    aggregate.order.iter().map(|by| by.scalar.clone()).collect();
                if !order.is_empty() {
                    scalars(text, "by", &order);
                }
                scalars(text, "filter", aggregate.filter.as_slice());
            }
        }
        RelOp::Distinct { .. } => text.push_str("distinct"),
        RelOp::Union { .. } => text.push_str("union"),
        RelOp::SetOp { kind, .. } => push(text, format_args!("{kind}")),
        RelOp::Recursion { distinct, .. } => push(text, format_args!("recursion {distinct}")),
        RelOp::WorkTable => text.push_str("work table"),
        RelOp::Values { rows } => values(text, rows),
        // The input of a join, a top-k or a window is never a source itself.
        RelOp::Join { .. } | RelOp::TopK { .. } | RelOp::Window { .. } => {
            text.push_str(&described(&rel.op));
        }
    }
    for input in rel.op.inputs() {
        node(text, input, &below, sources, views);
    }
    if !matches!(rel.op, RelOp::Source { .. }) {
        fields(text, &rel.schema);
    }
    text.push(')');
}

/// Appends constant rows.
fn values(text: &mut String, rows: &RecordBatch) {
    push(text, format_args!("values {}", rows.num_rows()));
    for column in rows.columns() {
        text.push('[');
        for row in 0..rows.num_rows() {
            let value = array_value_to_string(column, row).unwrap_or_default();
            push(
                text,
                format_args!("{:?}", column.is_valid(row).then_some(value)),
            );
        }
        text.push(']');
    }
}

/// What a join, a top-k or a window computes, without its inputs.
fn described(op: &RelOp) -> String {
    match op {
        RelOp::Join {
            kind,
            keys,
            conditions,
            ..
        } => {
            // An inner join has the text that it had when there was no other kind.
            let nulls_equal = keys.iter().any(|key| key.nulls_equal);
            let uniform = keys.iter().all(|key| key.nulls_equal == nulls_equal);
            let key = |key: &JoinKey| {
                let nulls = match (uniform, key.nulls_equal) {
                    (false, true) => " null safe",
                    _ => "",
                };
                format!("[{} = {}{nulls}]", meaning(&key.left), meaning(&key.right))
            };
            let keys: String = keys.iter().map(key).collect();
            let conditions = conditions.iter().map(|it| format!("[{}]", meaning(it)));
            match kind {
                JoinKind::Inner => format!("join {nulls_equal}{keys}"),
                kind => format!(
                    "{kind:?} join {nulls_equal}{keys}if{}",
                    conditions.collect::<String>()
                ),
            }
        }
        RelOp::TopK {
            partition,
            order,
            offset,
            limit,
            ranked,
            ..
        } => {
            let partition = partition.iter().map(|key| format!("[{}]", meaning(key)));
            let order = order.iter().map(|by| format!("[{by}]"));
            let (partition, order) = (partition.collect::<String>(), order.collect::<String>());
            format!("top {limit:?} {offset} {ranked}{partition}by{order}")
        }
        RelOp::Window {
            partition,
            order,
            functions,
            ..
        } => {
            let partition = partition.iter().map(|key| format!("[{}]", meaning(key)));
            let order = order.iter().map(|by| {
                let (descending, nulls_first) = (by.descending, by.nulls_first);
                format!("[{} {descending} {nulls_first}]", meaning(&by.scalar))
            });
            let functions = functions.iter().map(|function| format!("[{function}]"));
            let (partition, order) = (partition.collect::<String>(), order.collect::<String>());
            let functions = functions.collect::<String>();
            format!("window{functions}{partition}by{order}")
        }
        _ => String::new(),
    }
}

/// An expression's text, with the version of the rules by which it is evaluated. State that was
/// computed by other rules is not kept. Version 2 are PostgreSQL's rules in `tidemill-functions`.
fn meaning(scalar: &Scalar) -> String {
    let plain = scalar.expr.is::<Column>() || scalar.expr.is::<Literal>();
    let rules = if plain { "" } else { "2 " };
    format!("{rules}{}", scalar.text)
}

/// Appends how a source is read, with the columns in `used`.
fn source_text(text: &mut String, source: &Source, used: &BTreeSet<usize>) {
    let format = match source.format {
        Format::Json(spelling) if spelling != Spelling::default() => format!("json {spelling:?}"),
        Format::Json(_) => "json".to_owned(),
        Format::Avro { .. } => "avro".to_owned(),
    };
    let Source {
        topic,
        envelope,
        key,
        schema,
        ..
    } = source;
    push(
        text,
        format_args!("topic {topic:?} {format} {envelope:?} {key:?}"),
    );
    if let Some(placeholder) = &source.unavailable {
        push(text, format_args!(" unavailable {placeholder:?}"));
    }
    for index in used {
        if let Some(field) = schema.fields().get(*index) {
            push(
                text,
                format_args!("[{:?} {}]", field.name(), field.data_type()),
            );
            if was_misread(source, field) {
                text.push('2');
            }
            // Earlier releases kept values that the declared type does not allow.
            let asked = field.metadata().get(types::ASKED);
            if let Some(asked) = asked.filter(|asked| *asked != "json") {
                push(text, format_args!("[{asked}]"));
            }
        }
    }
}

/// Whether earlier releases read the column wrongly, so that their state is not kept: names that
/// Avro does not allow were null, and times and bytes in Debezium's JSON were misread.
fn was_misread(source: &Source, field: &Field) -> bool {
    let legal = |c: char| c == '_' || c.is_ascii_alphanumeric();
    match source.format {
        Format::Avro { .. } => {
            let name = field.name();
            !name.chars().all(legal) || name.starts_with(|c: char| c.is_ascii_digit())
        }
        Format::Json(_) => {
            let kind = field.data_type();
            let misread = matches!(kind, DataType::Timestamp(..) | DataType::Binary);
            misread && source.envelope == Envelope::Debezium
        }
    }
}
