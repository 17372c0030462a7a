//! Relations: the operators of a view as a tree, with their expressions.
//!
//! What walks the tree uses [`Rel::visit`], [`Rel::visit_mut`] or [`Rel::fold`]. What differs from
//! operator to operator is one `match` in this crate: [`RelOp::inputs`] and
//! [`RelOp::inputs_mut`] here, its text in `explain`, what identifies its state in `fingerprint`,
//! its unique columns in `unique`. A new operator needs these, a file of the planner that makes it,
//! and a file of the dataflow that runs it.

pub(crate) mod temporal;

use std::fmt;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use crate::calls::aggregate::Aggregate;
use crate::calls::window::WindowFunction;
use crate::rel::temporal::TemporalBound;
use crate::scalar::{OrderBy, Scalar};

/// A relation: a node in the tree of a view.
#[derive(Debug, Clone)]
pub struct Rel {
    /// The node's output columns.
    pub schema: SchemaRef,
    /// What the node does.
    pub op: RelOp,
}

/// What a relation computes.
#[derive(Debug, Clone)]
pub enum RelOp {
    /// The rows of `Job::sources[source]`. The schema is the source's.
    Source {
        /// Index into `Job::sources`.
        source: usize,
    },
    /// The rows of `Job::views[view]`, which is an earlier view.
    View {
        /// Index into `Job::views`.
        view: usize,
    },
    /// Keeps the rows for which every filter is true, and then computes `outputs`: a filter and a
    /// projection in one, evaluated batch by batch.
    Compute {
        /// Input.
        input: Box<Rel>,
        /// Conditions on the input's columns, all of which must be true.
        filters: Vec<Scalar>,
        /// One expression per output column.
        outputs: Vec<Scalar>,
    },
    /// GROUP BY. The output columns are the keys, then the aggregates. Without keys there is
    /// exactly one row, even over an empty input.
    Reduce {
        /// Input.
        input: Box<Rel>,
        /// The group keys; may be empty.
        keys: Vec<Scalar>,
        /// The aggregates; not empty (without aggregates, GROUP BY is `Distinct`).
        aggregates: Vec<Aggregate>,
    },
    /// The rows for which all comparisons with `now()` are true; see [`TemporalBound`]. A row comes
    /// and goes as time passes.
    Temporal {
        /// Input.
        input: Box<Rel>,
        /// The comparisons; at least 1.
        bounds: Vec<TemporalBound>,
    },
    /// Each distinct row once.
    Distinct {
        /// Input.
        input: Box<Rel>,
    },
    /// UNION ALL of inputs with equal schemas.
    Union {
        /// The inputs; at least 2.
        inputs: Vec<Rel>,
    },
    /// INTERSECT or EXCEPT of two inputs with equal schemas. Null equals null.
    SetOp {
        /// Left input.
        left: Box<Rel>,
        /// Right input.
        right: Box<Rel>,
        /// How often a row occurs in the output.
        kind: SetKind,
    },
    /// These rows, which are there from the job's first epoch on: VALUES, and SELECT without FROM.
    Values {
        /// The rows, with the node's schema.
        rows: RecordBatch,
    },
    /// WITH RECURSIVE. The work table holds the rows of `base` at first, and then again and again
    /// the rows that `step` computes of it, until there are none. The output is all rows that the
    /// work table has held.
    Recursion {
        /// The rows that the recursion begins with.
        base: Box<Rel>,
        /// The recursive term, which reads the work table as [`RelOp::WorkTable`], once. Each row
        /// of its result comes from one row of the work table.
        step: Box<Rel>,
        /// UNION: a row enters the work table only once. Otherwise UNION ALL.
        distinct: bool,
    },
    /// The work table of the [`RelOp::Recursion`] whose `step` contains this node.
    WorkTable,
    /// A join on equal keys; [`JoinKind`] says which rows it gives.
    Join {
        /// Which rows the join gives.
        kind: JoinKind,
        /// Left input.
        left: Box<Rel>,
        /// Right input.
        right: Box<Rel>,
        /// What must be equal; if empty, every left row meets every right row.
        keys: Vec<JoinKey>,
        /// Other conditions on a pair of rows, over the left columns followed by the right columns.
        /// Empty for [`JoinKind::Inner`], whose conditions are a `Compute` above the join.
        conditions: Vec<Scalar>,
    },
    /// Of the ordered rows of each group: those after the first `offset`, and at most `limit` of
    /// them. Rows that are equal in the order are ordered by their other columns, ascending, nulls
    /// last. Therefore the result depends on nothing but the rows.
    TopK {
        /// Input.
        input: Box<Rel>,
        /// The expressions that make a group; if there are none, all rows are one group.
        partition: Vec<Scalar>,
        /// The order within a group; may be empty.
        order: Vec<OrderBy>,
        /// The number of rows skipped at the beginning of each group.
        offset: u64,
        /// The number of rows kept of each group; `None` for all.
        limit: Option<u64>,
        /// Whether a last column has the row's number within its group, from 1 (`Int64`).
        ranked: bool,
    },
    /// Window functions: each row of the input with a column for each function, computed over the
    /// rows of its partition in the order. Rows that are equal in the order are ordered by their
    /// other columns, as in a `TopK`.
    Window {
        /// Input.
        input: Box<Rel>,
        /// The expressions that make a partition; if there are none, all rows are one partition.
        partition: Vec<Scalar>,
        /// The order within a partition; may be empty.
        order: Vec<OrderBy>,
        /// The functions; at least 1.
        functions: Vec<WindowFunction>,
    },
}

impl Rel {
    /// Calls `each` with this relation and then with all relations below it, from left to right.
    pub fn visit<'a>(&'a self, each: &mut impl FnMut(&'a Rel)) {
        each(self);
        for input in self.op.inputs() {
            input.visit(each);
        }
    }

    /// As [`Rel::visit`], with relations that can be changed.
    pub fn visit_mut(&mut self, each: &mut impl FnMut(&mut Rel)) {
        each(self);
        for input in self.op.inputs_mut() {
            input.visit_mut(each);
        }
    }

    /// Computes a value of each relation from the values of its inputs, from the leaves up. `each`
    /// gets a relation and the values of its inputs, in their order.
    ///
    /// ```
    /// use tidemill_ir::{Rel, RelOp};
    ///
    /// /// The number of operators on the longest way to a source or view.
    /// fn depth(rel: &Rel) -> usize {
    ///     rel.fold(&mut |_, inputs: Vec<usize>| 1 + inputs.into_iter().max().unwrap_or(0))
    /// }
    ///
    /// let schema = std::sync::Arc::new(arrow::datatypes::Schema::empty());
    /// let rel = |op| Rel { schema: std::sync::Arc::clone(&schema), op };
    /// let source = rel(RelOp::Source { source: 0 });
    /// assert_eq!(depth(&rel(RelOp::Distinct { input: Box::new(source) })), 2);
    /// ```
    pub fn fold<'a, T>(&'a self, each: &mut impl FnMut(&'a Rel, Vec<T>) -> T) -> T {
        let inputs = self.op.inputs();
        let values = inputs.into_iter().map(|input| input.fold(each)).collect();
        each(self, values)
    }

    /// Whether the relation reads the work table of a recursion around it.
    #[must_use]
    pub fn reads_work_table(&self) -> bool {
        self.fold(&mut |rel, inputs: Vec<bool>| match &rel.op {
            RelOp::WorkTable => true,
            // The step of a recursion reads the recursion's own work table.
            RelOp::Recursion { .. } => inputs.first().copied().unwrap_or_default(),
            _ => inputs.contains(&true),
        })
    }
}

impl RelOp {
    /// The relations that the operator reads, from left to right.
    pub fn inputs(&self) -> Vec<&Rel> {
        match self {
            RelOp::Source { .. } | RelOp::View { .. } | RelOp::Values { .. } | RelOp::WorkTable => {
                Vec::new()
            }
            RelOp::Compute { input, .. }
            | RelOp::Temporal { input, .. }
            | RelOp::Reduce { input, .. }
            | RelOp::Distinct { input }
            | RelOp::TopK { input, .. }
            | RelOp::Window { input, .. } => vec![&**input],
            RelOp::Union { inputs } => inputs.iter().collect(),
            RelOp::Join { left, right, .. } | RelOp::SetOp { left, right, .. } => {
                vec![&**left, &**right]
            }
            RelOp::Recursion { base, step, .. } => vec![&**base, &**step],
        }
    }

    /// As [`RelOp::inputs`], with relations that can be changed.
    pub fn inputs_mut(&mut self) -> Vec<&mut Rel> {
        match self {
            RelOp::Source { .. } | RelOp::View { .. } | RelOp::Values { .. } | RelOp::WorkTable => {
                Vec::new()
            }
            RelOp::Compute { input, .. }
            | RelOp::Temporal { input, .. }
            | RelOp::Reduce { input, .. }
            | RelOp::Distinct { input }
            | RelOp::TopK { input, .. }
            | RelOp::Window { input, .. } => vec![&mut **input],
            RelOp::Union { inputs } => inputs.iter_mut().collect(),
            RelOp::Join { left, right, .. } | RelOp::SetOp { left, right, .. } => {
                vec![&mut **left, &mut **right]
            }
            RelOp::Recursion { base, step, .. } => vec![&mut **base, &mut **step],
        }
    }

    /// Whether the operator keeps state from which its output can be computed again after a
    /// restart. The other operators pass rows on.
    pub fn is_stateful(&self) -> bool {
        match self {
            RelOp::Reduce { .. }
            | RelOp::Temporal { .. }
            | RelOp::Distinct { .. }
            | RelOp::TopK { .. }
            | RelOp::Window { .. }
            | RelOp::SetOp { .. }
            | RelOp::Recursion { .. }
            | RelOp::Join { .. } => true,
            RelOp::Source { .. }
            | RelOp::View { .. }
            | RelOp::Values { .. }
            | RelOp::WorkTable
            | RelOp::Compute { .. }
            | RelOp::Union { .. } => false,
        }
    }
}

/// How often a row is in the output of a set operation, of a row that is `l` times in the left
/// input and `r` times in the right one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetKind {
    /// Once if `l > 0` and `r > 0`.
    Intersect,
    /// `min(l, r)` times.
    IntersectAll,
    /// Once if `l > 0` and `r = 0`.
    Except,
    /// `max(l - r, 0)` times.
    ExceptAll,
}

impl SetKind {
    /// How often a row is in the output.
    ///
    /// ```
    /// use tidemill_ir::SetKind;
    ///
    /// assert_eq!(SetKind::ExceptAll.times(3, 1), 2);
    /// assert_eq!(SetKind::Except.times(3, 1), 0);
    /// ```
    #[must_use]
    pub fn times(self, left: i64, right: i64) -> i64 {
        let (left, right) = (left.max(0), right.max(0));
        match self {
            SetKind::Intersect => i64::from(left > 0 && right > 0),
            SetKind::IntersectAll => left.min(right),
            SetKind::Except => i64::from(left > 0 && right == 0),
            SetKind::ExceptAll => (left - right).max(0),
        }
    }
}

impl fmt::Display for SetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SetKind::Intersect => "Intersect",
            SetKind::IntersectAll => "Intersect all",
            SetKind::Except => "Except",
            SetKind::ExceptAll => "Except all",
        })
    }
}

/// The rows that a join gives. Two rows meet if their keys are equal and all conditions are true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JoinKind {
    /// Each pair of rows that meet: the left columns, then the right columns.
    Inner,
    /// As `Inner`, and each left row that meets none, with nulls as the right columns.
    Left,
    /// Each left row that meets a right row, once.
    Semi,
    /// Each left row that meets no right row.
    Anti,
}

/// One equality of a join.
#[derive(Debug, Clone)]
pub struct JoinKey {
    /// The expression over the left columns.
    pub left: Scalar,
    /// The expression over the right columns, of the same type.
    pub right: Scalar,
    /// Whether null equals null (`IS NOT DISTINCT FROM`). If not, null equals nothing.
    pub nulls_equal: bool,
}

impl fmt::Display for JoinKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is = match self.nulls_equal {
            true => "IS NOT DISTINCT FROM",
            false => "=",
        };
        write!(f, "{} {is} {}", self.left.text, self.right.text)
    }
}
