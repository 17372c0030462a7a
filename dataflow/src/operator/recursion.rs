//! WITH RECURSIVE: a loop in a scope of its own, whose timestamps are rounds ([`Round`]).
//!
//! ```text
//! dataflow     │ scope of the recursion
//! base ────────┼─► concat ─► add up, or ─► limit ───┬─► leave ─► rows
//!              │     ▲       distinct               ▼
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
//! 2. No row is beyond iteration `Limits::iterations_max`: such rows become dead letters.
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

use super::arrange::Arranges;
use super::compute::compute;
use super::distinct::{decoded, distinct, encoded};
use super::join::{On, Side, join};
use crate::chunk::time::{Round, STEP, Time};
use crate::chunk::{Chunk, ChunkStream};
use crate::context::Context;
use crate::context::site::Site;

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
    let Some(site) = site else { return Ok(rows) };
    added_up(rows, context, &nullable(schema), Some(site))
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
            false => added_up(rows, context, &schema, None)?,
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

/// Adds up the equal rows of each time.
fn added_up<'scope, T: Arranges>(
    rows: ChunkStream<'scope, T>,
    context: &Rc<Context>,
    schema: &SchemaRef,
    site: Option<&Site>,
) -> Result<ChunkStream<'scope, T>> {
    let rows = encoded(rows, context, schema)?;
    decoded(T::added_up(rows, "AddUp", context, site), context, schema)
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
                let within = chunks
                    .drain(..)
                    .filter(|chunk| is_within(chunk, &context, &view));
                output.session(&cap).give_iterator(within);
            });
        }
    })
}

/// Whether a chunk is within the limits of iterations. Ends the job if a row has too many copies.
fn is_within(chunk: &Chunk<Round>, context: &Context, view: &str) -> bool {
    let (most, iteration) = (context.iterations_max, chunk.epoch.iteration());
    if iteration > most {
        let what = format!("the recursion goes on after {most} iterations");
        context.refuse_rows(view, chunk, &Error::new(Kind::Data, what));
        return false;
    }
    let mut copies = chunk.diffs.iter().map(|diff| diff.unsigned_abs());
    if copies.any(|copies| copies > COPIES_MAX) {
        let what = format!(
            "view {view}: a row is more than {COPIES_MAX} times in iteration {iteration} of the \
             recursion, which may never end: write UNION in place of UNION ALL, or correct the \
             rows that refer to each other in a circle"
        );
        context.fail(Error::new(Kind::Data, what));
    }
    true
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::{BTreeMap, BTreeSet};
    use std::rc::Rc;

    use differential_dataflow::operators::iterate::Variable;
    use differential_dataflow::operators::join::join_with_tactic;
    use differential_dataflow::{AsCollection, VecCollection};
    use proptest::prelude::*;
    use tidemill_ir::row::Row;
    use timely::container::CapacityContainerBuilder;
    use timely::dataflow::operators::{Probe, vec::Input};

    use super::*;
    use crate::operator::join::tactic::{Nested, Pairs};

    type Edges = BTreeSet<(u8, u8)>;

    fn row(number: u8) -> Row {
        Row::new(&[number])
    }

    /// All pairs of nodes with a way from one to the other, found step by step.
    fn slow(edges: &Edges) -> Edges {
        let mut closure = edges.clone();
        loop {
            let longer = closure.iter().flat_map(|(a, b)| {
                let next = edges.iter().filter(move |(from, _)| from == b);
                next.map(move |(_, to)| (*a, *to))
            });
            let all: Edges = longer.chain(closure.iter().copied()).collect();
            if all == closure {
                return closure;
            }
            closure = all;
        }
    }

    /// The transitive closure by the join of this crate, in a scope of rounds: rows by their end
    /// are paired with edges by their beginning.
    fn closure<'scope>(
        edges: VecCollection<'scope, Epoch, (Row, Row), isize>,
    ) -> VecCollection<'scope, Epoch, (Row, Row), isize> {
        let scope = edges.inner.scope();
        scope.scoped::<Round, _, _>("Closure", |inner| {
            let edges = edges.enter(inner);
            let (variable, ways) = Variable::new(inner, STEP);
            let by_end = ways.map(|(from, to)| (to, from)).arrange_by_key();
            let by_start = edges.clone().arrange_by_key();
            let pairs = join_with_tactic(by_end, by_start, "Join", Nested);
            let longer = pairs.unary::<CapacityContainerBuilder<Vec<_>>, _, _, _>(
                Pipeline,
                "Longer",
                |_, _| {
                    |input, output| {
                        input.for_each(|cap, pairs: &mut Pairs<Round>| {
                            let mut session = output.session(&cap);
                            for pair in pairs.by_epoch() {
                                let way = (Row::new(pair.left), Row::new(pair.right));
                                session.give((way, pair.epoch, pair.diff));
                            }
                        });
                    }
                },
            );
            let all = longer.as_collection().concat(edges).distinct();
            variable.set(all.clone());
            all.leave(scope)
        })
    }

    type Changes = Vec<((Row, Row), Epoch, isize)>;

    /// The changes of the closure while waves of edges are inserted and deleted, an epoch each.
    fn changes(waves: Vec<Vec<(u8, u8, isize)>>, workers: usize) -> Changes {
        let config = timely::Config::process(workers);
        let guards = timely::execute(config, move |worker| {
            let changes = Rc::new(RefCell::new(Changes::new()));
            let seen = Rc::clone(&changes);
            let (mut input, probe) = worker.dataflow::<Epoch, _, _>(|scope| {
                let (input, updates) = scope.new_input();
                let ways = closure(updates.as_collection());
                let ways = ways.inspect(move |change| seen.borrow_mut().push(change.clone()));
                (input, ways.inner.probe().0)
            });
            let first = worker.index() == 0;
            for (epoch, wave) in waves.iter().enumerate() {
                let epoch = epoch as Epoch;
                for (from, to, diff) in wave.iter().filter(|_| first) {
                    input.send(((row(*from), row(*to)), epoch, *diff));
                }
                input.advance_to(epoch + 1);
                worker.step_while(|| probe.less_than(input.time()));
            }
            changes.take()
        });
        let changes = guards.unwrap().join().into_iter();
        changes.flat_map(std::result::Result::unwrap).collect()
    }

    /// The ways that are there at an epoch, each of which must be there once.
    fn held(changes: &Changes, epoch: Epoch) -> Edges {
        let mut counts: BTreeMap<(u8, u8), isize> = BTreeMap::new();
        for ((from, to), _, diff) in changes.iter().filter(|(_, at, _)| *at <= epoch) {
            *counts.entry((from.bytes()[0], to.bytes()[0])).or_default() += diff;
        }
        counts.retain(|_, count| *count != 0);
        assert!(counts.values().all(|count| *count == 1), "{counts:?}");
        counts.into_keys().collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Edges come and go, also in circles, on one worker and on three.
        #[test]
        fn a_scope_of_rounds_iterates(
            waves in prop::collection::vec(
                prop::collection::vec((0..7_u8, 0..7_u8, any::<bool>()), 0..8),
                1..8,
            ),
            workers in prop_oneof![Just(1_usize), Just(3)],
        ) {
            let (mut edges, mut states, mut updates) = (Edges::new(), Vec::new(), Vec::new());
            for wave in waves {
                let mut changed = Vec::new();
                for (from, to, insert) in wave {
                    let done = match insert {
                        true => edges.insert((from, to)),
                        false => edges.remove(&(from, to)),
                    };
                    if done {
                        changed.push((from, to, if insert { 1 } else { -1 }));
                    }
                }
                states.push(slow(&edges));
                updates.push(changed);
            }
            let found = changes(updates, workers);
            for (epoch, state) in states.iter().enumerate() {
                prop_assert_eq!(&held(&found, epoch as Epoch), state, "epoch {}", epoch);
            }
        }
    }
}
