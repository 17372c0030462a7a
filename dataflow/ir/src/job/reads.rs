//! Which columns of the sources each view reads.
//!
//! A column counts as read if the rows of the view can depend on it: it is an output, or in a
//! condition, a key, an order or an argument. Operators that compare whole rows (DISTINCT,
//! INTERSECT, the order of equal rows) and recursions read all columns that reach them.

use std::collections::{BTreeMap, BTreeSet};

use datafusion_physical_expr::utils::collect_columns;

use super::Job;
use crate::rel::{JoinKind, Rel, RelOp};
use crate::scalar::Scalar;

/// The columns that are read, by the index of the source; columns by their index too.
pub type Reads = BTreeMap<usize, BTreeSet<usize>>;

/// Positions of columns.
type Columns = BTreeSet<usize>;

/// The columns that a view's rows depend on, also through the views that it reads.
pub fn of_view(job: &Job, view: usize) -> Reads {
    let mut reading = Reading {
        through: Some(job),
        reads: Reads::new(),
    };
    if let Some(view) = job.views.get(view) {
        reading.follow(&view.rel, &all_of(&view.rel));
    }
    reading.reads
}

/// The columns that are read to compute a relation, also for values that nothing above needs.
/// What the views that it reads need does not count.
pub fn of_rel(rel: &Rel) -> Reads {
    let mut reading = Reading {
        through: None,
        reads: Reads::new(),
    };
    reading.follow(rel, &all_of(rel));
    reading.reads
}

/// Collects what is read.
struct Reading<'a> {
    /// The job, if views are followed and only columns that are needed above count.
    through: Option<&'a Job>,
    /// What was found so far.
    reads: Reads,
}

/// All columns of a relation.
fn all_of(rel: &Rel) -> Columns {
    (0..rel.schema.fields().len()).collect()
}

/// The columns of the input that expressions read.
fn in_scalars<'a>(scalars: impl IntoIterator<Item = &'a Scalar>) -> Columns {
    let columns = scalars.into_iter().map(|it| collect_columns(&it.expr));
    columns.flatten().map(|column| column.index()).collect()
}

impl Reading<'_> {
    /// Whether a value that an operator computes counts.
    fn counts(&self, needed: &Columns, column: usize) -> bool {
        self.through.is_none() || needed.contains(&column)
    }

    /// Adds what is read of the sources when these columns of a relation are needed.
    fn follow(&mut self, rel: &Rel, needed: &Columns) {
        match &rel.op {
            RelOp::Source { source } => {
                let known = needed.iter().filter(|it| **it < rel.schema.fields().len());
                self.reads.entry(*source).or_default().extend(known);
            }
            RelOp::View { view } => {
                if let Some(view) = self.through.and_then(|job| job.views.get(*view)) {
                    self.follow(&view.rel, needed);
                }
            }
            RelOp::Compute {
                input,
                filters,
                outputs,
            } => {
                let chosen = outputs.iter().enumerate();
                let chosen = chosen.filter(|(it, _)| self.counts(needed, *it));
                let columns = in_scalars(filters.iter().chain(chosen.map(|(_, it)| it)));
                self.follow(input, &columns);
            }
            RelOp::Reduce {
                input,
                keys,
                aggregates,
            } => {
                let chosen = aggregates.iter().enumerate();
                let chosen = chosen.filter(|(it, _)| self.counts(needed, keys.len() + it));
                let scalars = chosen.flat_map(|(_, it)| {
                    let order = it.order.iter().map(|order| &order.scalar);
                    it.arguments.iter().chain(&it.filter).chain(order)
                });
                let columns = in_scalars(keys.iter().chain(scalars));
                self.follow(input, &columns);
            }
            RelOp::Union { inputs } => {
                for input in inputs {
                    self.follow(input, needed);
                }
            }
            RelOp::Join { .. } => self.follow_join(rel, needed),
            RelOp::Distinct { .. }
            | RelOp::SetOp { .. }
            | RelOp::TopK { .. }
            | RelOp::Window { .. }
            | RelOp::Values { .. }
            | RelOp::Recursion { .. }
            | RelOp::WorkTable => {
                for input in rel.op.inputs() {
                    self.follow(input, &all_of(input));
                }
            }
        }
    }

    /// The same for a join.
    fn follow_join(&mut self, rel: &Rel, needed: &Columns) {
        let RelOp::Join {
            kind,
            left,
            right,
            keys,
            conditions,
        } = &rel.op
        else {
            return;
        };
        let width = left.schema.fields().len();
        let mut pair = in_scalars(conditions);
        match kind {
            JoinKind::Inner | JoinKind::Left => pair.extend(needed),
            JoinKind::Semi | JoinKind::Anti => {
                pair.extend(needed.iter().filter(|it| **it < width));
            }
        }
        let mut of_left = in_scalars(keys.iter().map(|key| &key.left));
        let mut of_right = in_scalars(keys.iter().map(|key| &key.right));
        for column in pair {
            match column.checked_sub(width) {
                Some(column) => of_right.insert(column),
                None => of_left.insert(column),
            };
        }
        self.follow(left, &of_left);
        self.follow(right, &of_right);
    }
}
