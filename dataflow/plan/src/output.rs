//! The output of a view: its primary key, and whether the plan proves that the key is unique.
//!
//! The proof follows keys through the plan: a source's record key, the keys of a GROUP BY, all
//! columns of a DISTINCT, the group of a top-1. A key survives a node if the node passes on its
//! columns.

use std::collections::BTreeSet;

use datafusion_physical_expr::expressions::{Column, Literal};
use datafusion_sql::sqlparser::tokenizer::Location;
use tidemill_ir::{Envelope, Output, Rel, RelOp, Scalar, Source, View};
use tidemill_log::Result;

use super::script::{Script, did_you_mean};

/// Parses `primary_key = 'a, b'` (partition key `a`) or `'(a, b), c'` (partition key `a, b`).
///
/// # Errors
/// `Data` with the place, when the text does not parse or names a column that the view lacks.
pub(super) fn output(
    text: &str,
    rel: &Rel,
    sources: &[Source],
    views: &[View],
    script: Script<'_>,
    at: Location,
) -> Result<Output> {
    let malformed = || {
        let what = format!(
            "primary_key = '{text}' does not parse: write 'a, b' (partition key a, clustering \
             column b) or '(a, b), c' (partition key a and b, clustering column c)"
        );
        script.error(at, what)
    };
    let trimmed = text.trim();
    let (partition, clustering) = match trimmed.strip_prefix('(') {
        Some(rest) => {
            let (partition, rest) = rest.split_once(')').ok_or_else(malformed)?;
            let clustering = match rest.trim() {
                "" => None,
                rest => Some(rest.strip_prefix(',').ok_or_else(malformed)?),
            };
            (partition, clustering)
        }
        None => match trimmed.split_once(',') {
            Some((partition, clustering)) => (partition, Some(clustering)),
            None => (trimmed, None),
        },
    };
    let mut primary_key = Vec::new();
    let partition: Vec<&str> = partition.split(',').collect();
    for part in partition
        .iter()
        .copied()
        .chain(clustering.into_iter().flat_map(|c| c.split(',')))
    {
        let name = unquoted(part.trim()).ok_or_else(malformed)?;
        let Some((index, _)) = rel.schema.column_with_name(&name) else {
            let known = rel.schema.fields().iter().map(|field| field.name());
            let hint = did_you_mean(&name, known);
            let what = format!("primary_key names `{name}`, which is no column of the view{hint}");
            return Err(script.error(at, what));
        };
        if primary_key.contains(&index) {
            return Err(script.error(at, format!("primary_key names `{name}` twice")));
        }
        primary_key.push(index);
    }
    let unique = proven(rel, &primary_key, sources, views);
    Ok(Output {
        primary_key,
        partition_columns: partition.len(),
        unique,
    })
}

/// A name in lower case, or as quoted; `None` if it is not a name.
fn unquoted(part: &str) -> Option<String> {
    let quoted = part
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let name = quoted.map_or_else(|| part.to_lowercase(), str::to_owned);
    let plain = |c: char| c == '_' || c.is_ascii_alphanumeric();
    (!name.is_empty() && name.chars().all(plain)).then_some(name)
}

/// Whether the columns of the primary key contain a key of the relation.
fn proven(rel: &Rel, primary_key: &[usize], sources: &[Source], views: &[View]) -> bool {
    let covers = |positions: &BTreeSet<usize>| {
        let within = |position: &usize| primary_key.contains(position);
        positions.iter().any(within)
    };
    keys(rel, sources, views)
        .iter()
        .any(|key| key.iter().all(covers))
}

/// A key: for each of its columns, the node's columns that hold the same value.
type Key = Vec<BTreeSet<usize>>;

/// The sets of columns that are unique together, as far as the plan proves it.
fn keys(rel: &Rel, sources: &[Source], views: &[View]) -> Vec<Key> {
    match &rel.op {
        RelOp::Source { source } => sources
            .get(*source)
            .and_then(source_key)
            .into_iter()
            .collect(),
        RelOp::View { view } => match views.get(*view) {
            Some(view) => keys(&view.rel, sources, views),
            None => Vec::new(),
        },
        RelOp::Compute { input, outputs, .. } => {
            let through = |key: &Key| key.iter().map(|column| passed(column, outputs)).collect();
            keys(input, sources, views)
                .iter()
                .filter_map(through)
                .collect()
        }
        // A literal is the same in every row, so it does not distinguish groups.
        RelOp::Reduce { keys, .. } => {
            let varying = |index: &usize| keys.get(*index).is_some_and(|key| !constant(key));
            vec![each((0..keys.len()).filter(varying))]
        }
        RelOp::Distinct { input } => {
            let mut keys = keys(input, sources, views);
            keys.push(each(0..rel.schema.fields().len()));
            keys
        }
        RelOp::Union { .. } => Vec::new(),
        RelOp::Join {
            left,
            right,
            keys: on,
            ..
        } => {
            let columns = left.schema.fields().len();
            let left = keys(left, sources, views);
            joined(left, &keys(right, sources, views), columns, on)
        }
        RelOp::TopK {
            input,
            partition,
            limit,
            ranked,
            ..
        } => {
            let mut keys = keys(input, sources, views);
            let group = partition.iter().filter(|key| !constant(key));
            let group: Option<Key> = group
                .map(|key| Some(BTreeSet::from([plain(key)?])))
                .collect();
            if let Some(mut group) = group {
                if *ranked {
                    group.push(BTreeSet::from([rel.schema.fields().len() - 1]));
                    keys.push(group);
                } else if *limit == Some(1) {
                    keys.push(group);
                }
            }
            keys
        }
    }
}

/// The keys of a join: those of one side alone if each of its rows meets at most one row of the
/// other side, and in any case a key of both sides together. A join column is present on both
/// sides. `columns` is the number of columns on the left side.
fn joined(left: Vec<Key>, right: &[Key], columns: usize, on: &[(Scalar, Scalar)]) -> Vec<Key> {
    let covered = |key: &Key, on: &mut dyn Iterator<Item = Option<usize>>| {
        let on: BTreeSet<usize> = on.flatten().collect();
        key.iter().all(|positions| !positions.is_disjoint(&on))
    };
    let one_right = right
        .iter()
        .any(|key| covered(key, &mut on.iter().map(|(_, r)| plain(r))));
    let one_left = left
        .iter()
        .any(|key| covered(key, &mut on.iter().map(|(l, _)| plain(l))));
    let moved = |positions: &BTreeSet<usize>| positions.iter().map(|p| p + columns).collect();
    let right: Vec<Key> = right
        .iter()
        .map(|key| key.iter().map(moved).collect())
        .collect();
    let mut keys = Vec::new();
    for left in &left {
        keys.extend(right.iter().map(|right| [left.as_slice(), right].concat()));
    }
    keys.extend(one_right.then_some(left).into_iter().flatten());
    keys.extend(one_left.then_some(right).into_iter().flatten());
    let equal = on
        .iter()
        .filter_map(|(left, right)| Some((plain(left)?, plain(right)? + columns)));
    for (left, right) in equal {
        for positions in keys.iter_mut().flatten() {
            if positions.contains(&left) || positions.contains(&right) {
                positions.extend([left, right]);
            }
        }
    }
    keys
}

/// The column that an expression passes on unchanged.
fn plain(scalar: &Scalar) -> Option<usize> {
    let column = scalar.expr.downcast_ref::<Column>();
    column.map(Column::index)
}

/// The key of these columns.
fn each(columns: impl Iterator<Item = usize>) -> Key {
    columns.map(|column| BTreeSet::from([column])).collect()
}

/// Whether an expression is a literal.
fn constant(scalar: &Scalar) -> bool {
    scalar.expr.downcast_ref::<Literal>().is_some()
}

/// The key of a source: its record key, unless the source is append-only.
fn source_key(source: &Source) -> Option<Key> {
    if source.envelope == Envelope::Append || source.key.is_empty() {
        return None;
    }
    let position = |name: &String| Some(BTreeSet::from([source.schema.index_of(name).ok()?]));
    source.key.iter().map(position).collect()
}

/// The outputs that pass on one of these columns unchanged.
fn passed(columns: &BTreeSet<usize>, outputs: &[Scalar]) -> Option<BTreeSet<usize>> {
    let is_passed = |output: &Scalar| plain(output).is_some_and(|column| columns.contains(&column));
    let outputs = outputs.iter().enumerate();
    let passed: BTreeSet<usize> = outputs
        .filter(|(_, output)| is_passed(output))
        .map(|(index, _)| index)
        .collect();
    (!passed.is_empty()).then_some(passed)
}
