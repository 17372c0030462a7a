//! WITH RECURSIVE: a loop in a scope of its own, whose timestamps are rounds ([`Round`]).
//!
//! ```text
//! dataflow     │ scope of the recursion
//! base ────────┼─► concat ─► consolidate ─► limit ─┬─► leave ─► rows
//!              │     ▲        or distinct          ▼
//! other inputs ┼─────┼──────────────────────────► step
//!              │     └── next iteration ◄──────────┘
//! ```
//!
//! At iteration `i` the collection of the loop holds all rows that PostgreSQL's work table has held
//! by its iteration `i`, so its changes at `i` are the work table itself. The step needs only the
//! changes, because each row of its result comes from one row of the work table: it gives the same
//! rows, as often, for all rows together as for the work tables one by one. With UNION, a row that
//! is there already is no change, and with UNION ALL each row counts.
//!
//! Invariants:
//! 1. Equal rows of one round are added up before the step reads them, so that a row that comes and
//!    goes within an epoch never starts iterations.
//! 2. No row is beyond iteration [`ITERATIONS_MAX`]: such rows become dead letters.
//! 3. The scope keeps no state through a restart. What enters it is restored, and the rest computed
//!    again.
//!
//! Frontier contract: the scope's output is complete for an epoch once no round of the epoch has
//! changes under way.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use tidemill_ir::explain::Title;
use tidemill_ir::row::nullable;
use tidemill_ir::{Epoch, Rel, RelOp};
use tidemill_log::{Error, Kind, Result};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::{Concat, ConnectLoop, Enter, Feedback, Leave, Operator};
use timely::dataflow::{Scope, StreamVec};

use super::arrange::{Arranges, arrange_keys};
use super::compute::compute;
use super::distinct::{decoded, distinct, encoded};
use super::join::{On, Side, join};
use crate::chunk::{Chunk, ChunkStream};
use crate::context::Context;
use crate::context::site::Site;
use crate::time::{Round, STEP, Time};

/// Most iterations of a recursion. Rows of a later iteration become dead letters.
const ITERATIONS_MAX: u64 = 10_000;

/// Most copies of one row in one change of a work table. More of them end the job, before their
/// number overflows.
const COPIES_MAX: u64 = 1 << 31;

/// What a recursion computes.
pub(crate) struct Recursion<'a> {
    /// The recursive term.
    pub(crate) step: &'a Rel,
    /// Whether a row enters the work table only once.
    pub(crate) distinct: bool,
    /// The columns.
    pub(crate) schema: &'a SchemaRef,
}

/// The parts of a recursive term that do not read the work table, from left to right. They are
/// computed outside of the loop, once.
pub(crate) fn outside(step: &Rel) -> Vec<&Rel> {
    match step.reads_work_table() {
        true => step.op.inputs().into_iter().flat_map(outside).collect(),
        false => vec![step],
    }
}

/// The rows of a relation from state: those of the last checkpoint, and all changes after it.
///
/// # Errors
/// `Bug` when a column has a type that cannot be encoded.
pub(crate) fn kept<'scope>(
    rows: ChunkStream<'scope>,
    context: &Rc<Context>,
    schema: &SchemaRef,
    site: Option<&Site>,
) -> Result<ChunkStream<'scope>> {
    if site.is_none() {
        return Ok(rows);
    }
    let schema = nullable(schema);
    let rows = encoded(rows, context, &schema)?;
    let rows = arrange_keys(rows, "ArrangeRecursionInput", context, site);
    decoded(rows.as_collection(|row, ()| row.clone()), context, &schema)
}

/// Renders a recursion over the rows of its base. `inputs` are the streams of [`outside`].
///
/// # Errors
/// `Bug` when the step has an operator that cannot run within a recursion.
pub(crate) fn recursion<'scope>(
    scope: Scope<'scope, Epoch>,
    base: ChunkStream<'scope>,
    inputs: Vec<ChunkStream<'scope>>,
    context: &Rc<Context>,
    of: &Recursion<'_>,
) -> Result<ChunkStream<'scope>> {
    let schema = nullable(of.schema);
    scope.scoped::<Round, _, _>("Recursion", |inner| {
        let (handle, again) = inner.feedback::<Vec<Chunk<Round>>>(STEP);
        let rows = entered(base, inner).concat(again);
        let rows = match of.distinct {
            true => distinct(rows, context, &schema, None)?,
            false => consolidated(rows, context, &schema)?,
        };
        let rows = limited(rows, context);
        let inputs = inputs.into_iter().map(|input| entered(input, inner));
        let mut step = Step {
            scope: inner,
            context,
            view: context.view(),
            work_table: rows.clone(),
            inputs: inputs.collect(),
        };
        next(step.rel(of.step)?).connect_loop(handle);
        Ok(all_rounds(rows).leave(scope))
    })
}

/// Renders a recursive term within the scope of its recursion.
struct Step<'a, 'inner> {
    /// The scope.
    scope: Scope<'inner, Round>,
    /// What operators share.
    context: &'a Rc<Context>,
    /// The view's name.
    view: Arc<str>,
    /// The changes of the work table.
    work_table: ChunkStream<'inner, Round>,
    /// The streams of the parts that do not read the work table and are not rendered yet.
    inputs: VecDeque<ChunkStream<'inner, Round>>,
}

impl<'inner> Step<'_, 'inner> {
    /// Renders a node as an operator with the name that `explain` shows.
    fn rel(&mut self, rel: &Rel) -> Result<ChunkStream<'inner, Round>> {
        if !rel.reads_work_table() {
            let missing = || Error::new(Kind::Bug, "an input of a recursion is missing");
            return self.inputs.pop_front().ok_or_else(missing);
        }
        let name = format!("{}: {}", self.view, Title(&rel.op));
        let (context, scope) = (self.context, self.scope);
        context.meter.named(scope, name, || self.operator(rel))
    }

    /// Renders a node, and its inputs first.
    fn operator(&mut self, rel: &Rel) -> Result<ChunkStream<'inner, Round>> {
        match &rel.op {
            RelOp::WorkTable => Ok(self.work_table.clone()),
            RelOp::Compute {
                input,
                filters,
                outputs,
            } => {
                let input = self.rel(input)?;
                let (filters, outputs) = (filters.clone(), outputs.clone());
                let schema = nullable(&rel.schema);
                Ok(compute(input, self.context, filters, outputs, schema))
            }
            RelOp::Union { inputs } => {
                let streams = inputs.iter().map(|input| self.rel(input));
                let streams = streams.collect::<Result<Vec<_>>>()?.into_iter();
                let all = streams.reduce(|all, next| all.concat(next));
                all.ok_or_else(|| Error::new(Kind::Bug, "a union has no input"))
            }
            RelOp::Distinct { input } => {
                let rows = self.rel(input)?;
                distinct(rows, self.context, &rel.schema, None)
            }
            RelOp::Join {
                kind,
                left,
                right,
                keys,
                conditions,
            } => {
                let (left, right) = (self.side(left)?, self.side(right)?);
                let on = On {
                    kind: *kind,
                    keys,
                    conditions,
                };
                join(left, right, self.context, &on, &rel.schema, None)
            }
            other => {
                let what = format!("`{}` cannot run within a recursion", Title(other));
                Err(Error::new(Kind::Bug, what))
            }
        }
    }

    /// Renders one input of a join.
    fn side(&mut self, input: &Rel) -> Result<Side<'inner, Round>> {
        Ok(Side {
            rows: self.rel(input)?,
            schema: nullable(&input.schema),
            site: None,
        })
    }
}

/// A stream within a recursion: all changes are of iteration 0.
fn entered<'inner>(
    rows: ChunkStream<'_>,
    inner: Scope<'inner, Round>,
) -> ChunkStream<'inner, Round> {
    timed(rows.enter(inner), "EnterRecursion", |epoch| {
        Some(Round::new(epoch, 0))
    })
}

/// The changes of all rounds by their epochs. They still are within the scope of the recursion.
fn all_rounds(rows: ChunkStream<'_, Round>) -> StreamVec<'_, Round, Chunk> {
    timed(rows, "LeaveRecursion", |round: Round| Some(round.epoch()))
}

/// The changes one iteration later.
fn next(rows: ChunkStream<'_, Round>) -> ChunkStream<'_, Round> {
    timed(rows, "NextIteration", Round::next)
}

/// Gives each chunk another time. Chunks without one are dropped.
fn timed<'inner, T: Time, U: Time>(
    rows: StreamVec<'inner, Round, Chunk<T>>,
    name: &str,
    time: impl Fn(T) -> Option<U> + 'static,
) -> StreamVec<'inner, Round, Chunk<U>> {
    rows.unary::<CapacityContainerBuilder<Vec<Chunk<U>>>, _, _, _>(Pipeline, name, |_, _| {
        move |input, output| {
            input.for_each(|cap, chunks: &mut Vec<Chunk<T>>| {
                let chunks = chunks.drain(..);
                let timed = chunks.filter_map(|chunk| Some((time(chunk.epoch)?, chunk)));
                let mut session = output.session(&cap);
                session.give_iterator(timed.map(|(time, chunk)| chunk.at(time)));
            });
        }
    })
}

/// Adds up the equal rows of each round.
fn consolidated<'inner, T: Arranges>(
    rows: ChunkStream<'inner, T>,
    context: &Rc<Context>,
    schema: &SchemaRef,
) -> Result<ChunkStream<'inner, T>> {
    let rows = encoded(rows, context, schema)?;
    let rows = T::arrange_keys(rows, "ArrangeWorkTable", context, None);
    decoded(rows.as_collection(|row, ()| row.clone()), context, schema)
}

/// Makes dead letters of the rows beyond the last iteration.
fn limited<'inner>(
    rows: ChunkStream<'inner, Round>,
    context: &Rc<Context>,
) -> ChunkStream<'inner, Round> {
    let (context, view) = (Rc::clone(context), context.view());
    rows.unary(Pipeline, "LimitIterations", move |_, _| {
        move |input, output| {
            input.for_each(|cap, chunks: &mut Vec<Chunk<Round>>| {
                let mut session = output.session(&cap);
                for chunk in chunks.drain(..) {
                    if chunk.epoch.iteration() > ITERATIONS_MAX {
                        let what =
                            format!("the recursion goes on after {ITERATIONS_MAX} iterations");
                        context.refuse_rows(&view, &chunk, &Error::new(Kind::Data, what));
                        continue;
                    }
                    if chunk
                        .diffs
                        .iter()
                        .any(|diff| diff.unsigned_abs() > COPIES_MAX)
                    {
                        let what = format!(
                            "view {view}: a row is more than {COPIES_MAX} times in iteration {} \
                             of the recursion, which may never end: write UNION in place of UNION \
                             ALL, or correct the rows that refer to each other in a circle",
                            chunk.epoch.iteration()
                        );
                        context.fail(Error::new(Kind::Data, what));
                    }
                    session.give(chunk);
                }
            });
        }
    })
}
