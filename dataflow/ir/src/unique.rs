//! Unique columns: which columns of a relation no two of its rows share, as far as the plan proves
//! it.
//!
//! The proof follows keys through the plan: a source's record key, the keys of a GROUP BY, all
//! columns of a DISTINCT, the group of a top-1, a group with its row number. A key survives a node
//! if the node passes on its columns.

use std::collections::BTreeSet;

use arrow::array::ArrayRef;
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;
use datafusion_physical_expr::expressions::{Column, Literal};

use crate::{Envelope, JoinKey, JoinKind, Rel, RelOp, Scalar, SetKind, Source, View, WindowCall};

/// Whether the plan proves that no two rows of a relation share the columns of `primary_key`.
pub fn is_unique(rel: &Rel, primary_key: &[usize], sources: &[Source], views: &[View]) -> bool {
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
        RelOp::Temporal { input, .. } => keys(input, sources, views),
        RelOp::Distinct { input } => {
            let mut keys = keys(input, sources, views);
            keys.push(each(0..rel.schema.fields().len()));
            keys
        }
        RelOp::Recursion { distinct: true, .. } => vec![each(0..rel.schema.fields().len())],
        RelOp::Union { .. } | RelOp::Recursion { .. } | RelOp::WorkTable => Vec::new(),
        RelOp::SetOp { left, right, kind } => {
            let right = keys(right, sources, views);
            let columns = rel.schema.fields().len();
            combined(keys(left, sources, views), right, *kind, columns)
        }
        RelOp::Values { rows } => constant_keys(rows),
        RelOp::Join {
            kind: JoinKind::Semi | JoinKind::Anti,
            left,
            ..
        } => keys(left, sources, views),
        RelOp::Join {
            kind,
            left,
            right,
            keys: on,
            ..
        } => {
            let columns = left.schema.fields().len();
            let left = keys(left, sources, views);
            joined(left, &keys(right, sources, views), columns, (*kind, on))
        }
        RelOp::TopK { input, .. } | RelOp::Window { input, .. } => {
            let mut keys = keys(input, sources, views);
            keys.extend(ordered(rel, input.schema.fields().len()));
            keys
        }
    }
}

/// The key that a top-k or a window adds: its groups with the row number, or its groups alone if
/// they have one row each. `columns` is the number of columns of the input.
fn ordered(rel: &Rel, columns: usize) -> Option<Key> {
    let (partition, number, single) = match &rel.op {
        RelOp::TopK {
            partition,
            limit,
            ranked,
            ..
        } => {
            let number = ranked.then(|| rel.schema.fields().len() - 1);
            (partition, number, *limit == Some(1))
        }
        RelOp::Window {
            partition,
            functions,
            ..
        } => {
            let mut functions = functions.iter();
            let number = functions.position(|it| it.call == WindowCall::RowNumber);
            (partition, number.map(|number| columns + number), false)
        }
        _ => return None,
    };
    let group = partition.iter().filter(|key| !constant(key));
    let group: Option<Key> = group
        .map(|key| Some(BTreeSet::from([plain(key)?])))
        .collect();
    match number {
        Some(number) => Some([group?, vec![BTreeSet::from([number])]].concat()),
        None => group.filter(|_| single),
    }
}

/// The keys of a set operation: its rows are some of the left input, and for INTERSECT of the right
/// one too. Without ALL each row is there once.
fn combined(mut left: Vec<Key>, right: Vec<Key>, kind: SetKind, columns: usize) -> Vec<Key> {
    if matches!(kind, SetKind::Intersect | SetKind::IntersectAll) {
        left.extend(right);
    }
    if matches!(kind, SetKind::Intersect | SetKind::Except) {
        left.push(each(0..columns));
    }
    left
}

/// The keys of constant rows: no column if there is one row at most, or each column in which no two
/// rows have one value.
fn constant_keys(rows: &RecordBatch) -> Vec<Key> {
    let count = rows.num_rows();
    if count <= 1 {
        return vec![Vec::new()];
    }
    let differ = |column: &ArrayRef| {
        let value = |row: usize| array_value_to_string(column, row).ok();
        (0..count).map(value).collect::<BTreeSet<_>>().len() == count
    };
    let columns = rows.columns().iter().enumerate();
    let differing = columns.filter(|(_, column)| differ(column));
    differing
        .map(|(index, _)| each(std::iter::once(index)))
        .collect()
}

/// The keys of a join: those of one side alone if each of its rows meets at most one row of the
/// other side, and in any case a key of both sides together. A join column is present on both
/// sides. In a left join, a row without a match has nulls as its right columns, so these alone
/// distinguish nothing. `columns` is the number of columns on the left side.
fn joined(
    left: Vec<Key>,
    right: &[Key],
    columns: usize,
    (kind, on): (JoinKind, &[JoinKey]),
) -> Vec<Key> {
    let covered = |key: &Key, on: &mut dyn Iterator<Item = Option<usize>>| {
        let on: BTreeSet<usize> = on.flatten().collect();
        key.iter().all(|positions| !positions.is_disjoint(&on))
    };
    let one_right = right
        .iter()
        .any(|key| covered(key, &mut on.iter().map(|key| plain(&key.right))));
    let one_left = left
        .iter()
        .any(|key| covered(key, &mut on.iter().map(|key| plain(&key.left))));
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
    if kind == JoinKind::Left {
        return keys;
    }
    keys.extend(one_left.then_some(right).into_iter().flatten());
    let equal = on
        .iter()
        .filter_map(|key| Some((plain(&key.left)?, plain(&key.right)? + columns)));
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
