//! From the IR to differential operators.
//!
//! Between operators of one worker rows travel as Arrow batches with a difference each
//! ([`chunk::Chunk`]); stateless operators are evaluated on whole batches ([`compute`]). Stateful
//! ones work on rows encoded as bytes ([`crate::row`]), exchanged by a stable hash of their key.
//! Every update carries a bound epoch. Rows that cannot be evaluated leave by a second way, to the
//! dead letters ([`context::Context`]).

use std::rc::Rc;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::generic::operator::source;
use timely::dataflow::{Scope, StreamVec};

use crate::plan::ir::{Rel, RelOp, View};
use crate::row::nullable;
use crate::{Epoch, Error, Kind, Result};

mod accumulate;
mod argument;
mod arrange;
pub(crate) mod chunk;
mod compute;
pub(crate) mod context;
mod distinct;
mod first;
mod float_sum;
mod group;
mod join;
mod min_max;
mod pairs;
mod reduce;
mod serve;
mod top_k;
mod totals;
pub(crate) mod upsert;

use chunk::ChunkStream;
pub(crate) use context::Context;
use first::Kept;

/// Renders all views over the sources' streams. The result's frontier is what is durable in the
/// sink's tables.
pub(crate) fn views<'scope>(
    scope: Scope<'scope, Epoch>,
    sources: Vec<ChunkStream<'scope>>,
    views: &[View],
    context: &Rc<Context>,
) -> Result<StreamVec<'scope, Epoch, ()>> {
    let mut rendered: Vec<ChunkStream<'scope>> = Vec::new();
    let mut durable = timely::dataflow::operators::generic::operator::empty(scope);
    let mut table = 0;
    for view in views {
        let stream = Renderer {
            scope,
            sources: &sources,
            views: &rendered,
            context,
        }
        .rel(&view.rel)?;
        if view.output.is_some() {
            durable = durable.concat(serve::serve(stream.clone(), context, view, table)?);
            table += 1;
        }
        rendered.push(stream);
    }
    // A job whose views are all internal is as durable as its sources.
    for stream in sources.into_iter().chain(rendered) {
        durable = durable.concat(frontier_of(stream));
    }
    Ok(durable)
}

struct Renderer<'a, 'scope> {
    scope: Scope<'scope, Epoch>,
    sources: &'a [ChunkStream<'scope>],
    views: &'a [ChunkStream<'scope>],
    context: &'a Rc<Context>,
}

impl<'scope> Renderer<'_, 'scope> {
    fn rel(&self, rel: &Rel) -> Result<ChunkStream<'scope>> {
        let missing =
            |what: &str| Error::new(Kind::Bug, format!("the plan names a missing {what}"));
        match &rel.op {
            RelOp::Source { source } => self
                .sources
                .get(*source)
                .cloned()
                .ok_or_else(|| missing("source")),
            RelOp::View { view } => self
                .views
                .get(*view)
                .cloned()
                .ok_or_else(|| missing("view")),
            RelOp::Compute {
                input,
                filters,
                outputs,
            } => Ok(compute::compute(
                self.rel(input)?,
                self.context,
                filters.clone(),
                outputs.clone(),
                nullable(&rel.schema),
            )),
            RelOp::Reduce {
                input,
                keys,
                aggregates,
            } => {
                let (scope, context) = (self.scope, self.context);
                let input = (self.rel(input)?, &nullable(&input.schema));
                reduce::reduce(scope, input, context, keys, aggregates, &rel.schema)
            }
            RelOp::Distinct { input } => {
                distinct::distinct(self.rel(input)?, self.context, &rel.schema)
            }
            RelOp::Union { inputs } => {
                let streams = inputs.iter().map(|input| self.rel(input));
                let streams = streams.collect::<Result<Vec<_>>>()?.into_iter();
                let all = streams.reduce(|all, next| all.concat(next));
                all.ok_or_else(|| missing("input of a union"))
            }
            RelOp::Join {
                left,
                right,
                keys,
                nulls_equal,
            } => {
                let left = (self.rel(left)?, &left.schema);
                let right = (self.rel(right)?, &right.schema);
                join::join(left, right, self.context, (keys, *nulls_equal), &rel.schema)
            }
            RelOp::TopK {
                input,
                partition,
                order,
                offset,
                limit,
                ranked,
            } => {
                let of = top_k::Groups { partition, order };
                let kept = Kept {
                    offset: *offset,
                    limit: *limit,
                    numbered: *ranked,
                };
                let input = (self.rel(input)?, &input.schema);
                top_k::top_k(input, self.context, of, kept, &rel.schema)
            }
        }
    }
}

/// A stream that carries nothing, with the frontier of `stream`.
fn frontier_of<'scope>(stream: ChunkStream<'scope>) -> StreamVec<'scope, Epoch, ()> {
    use timely::dataflow::channels::pact::Pipeline;
    use timely::dataflow::operators::Operator;
    stream.unary::<CapacityContainerBuilder<Vec<()>>, _, _, _>(Pipeline, "Frontier", |_, _| {
        |input, _| input.for_each(|_, chunks| chunks.clear())
    })
}

/// One update at the least epoch, from one worker.
pub(crate) fn seed<'scope, D: Clone + 'static>(
    scope: Scope<'scope, Epoch>,
    update: D,
) -> StreamVec<'scope, Epoch, D> {
    let first = scope.index() == 0;
    source::<_, CapacityContainerBuilder<Vec<D>>, _, _>(scope, "Seed", move |cap, _| {
        let mut once = first.then_some((cap, update));
        move |output| {
            if let Some((cap, update)) = once.take() {
                output.session(&cap).give(update);
            }
        }
    })
}
