//! Rendering: builds timely and differential dataflow operators from the plan's IR.
//!
//! ```text
//! sources ─► compute ─► join / reduce / top-k / window … ─► compute ─► sink_operator ─► sink
//!            stateless  arranged by key, exchanged by the key's hash    writes by primary key
//! ```
//!
//! * Between the operators of one worker, rows travel as Arrow batches with a difference for each
//!   row ([`crate::chunk::Chunk`]). Stateless operators evaluate whole batches ([`compute`]).
//! * Stateful operators work on rows encoded as bytes ([`tidemill_ir::row`]), exchanged between
//!   workers by a stable hash of their key.
//! * Every update has a bound epoch as its timestamp.
//! * A row that cannot be evaluated leaves on a second way, to the dead letters ([`Context`]).
//! * The state of operators that need it is kept through restarts ([`arrange::restore`]).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use arrow::datatypes::SchemaRef;
use tidemill_ir::explain::Title;
use tidemill_ir::reads::Reads;
use tidemill_ir::row::nullable;
use tidemill_ir::{Envelope, Epoch, Job, Rel, RelOp, SetKind};
use tidemill_log::{Error, Kind, Result};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::vec::Map;
use timely::dataflow::{Scope, StreamVec};

use crate::chunk::{ChunkStream, SourceChunk, SourceStream};
use crate::context::site::Site;
use crate::context::{Context, Sites};

mod argument;
mod arrange;
mod compute;
mod distinct;
mod join;
mod recursion;
mod reduce;
mod sink_operator;
mod top_k;
pub(crate) mod upsert;
mod window;

use top_k::scan::Kept;

/// Renders all views over the streams of the sources. The frontier of the result is the epoch up to
/// which the sink's tables are durable; the stream carries no data.
///
/// # Errors
/// `Bug` when the plan is inconsistent, for example names a view that does not exist.
pub(crate) fn views<'scope>(
    scope: Scope<'scope, Epoch>,
    sources: Vec<SourceStream<'scope>>,
    plan: &Job,
    context: &Rc<Context>,
) -> Result<StreamVec<'scope, Epoch, ()>> {
    let mut rendered: Vec<ChunkStream<'scope>> = Vec::new();
    let mut origins: Vec<Origin> = Vec::new();
    let mut durable = timely::dataflow::operators::generic::operator::empty(scope);
    let mut table = 0;
    for view in &plan.views {
        *context.rendering.borrow_mut() = view.name.as_str().into();
        let origin = Origin::of(&view.rel, plan, &origins);
        let sites = Sites::new(context, view.site(), origin.sources.clone());
        let stream = Renderer {
            scope,
            plan,
            sources: &sources,
            views: &rendered,
            origins: &origins,
            sites: &sites,
            context,
            view: &view.name,
            reads: tidemill_ir::reads::of_rel(&view.rel),
            shared: tidemill_ir::repeats(&view.rel, &plan.sources, &plan.views)
                .then(RefCell::default),
        }
        .rel(&view.rel)?;
        if view.output.is_some() {
            let site = (!origin.is_state).then(|| sites.site(Some(table)));
            let name = format!("{}: Write", view.name);
            let serve = || sink_operator::serve(stream.clone(), context, view, table, site);
            let served = context.meter.named(scope, name, serve)?;
            durable = durable.concat(served);
            table += 1;
        }
        rendered.push(stream);
        origins.push(origin);
    }
    // A job without any output is as durable as its sources and views are complete.
    for stream in sources {
        durable = durable.concat(frontier_of(stream));
    }
    for stream in rendered {
        durable = durable.concat(frontier_of(stream));
    }
    Ok(durable)
}

/// For each view: the sources that it reads, directly or through other views.
pub(crate) fn sources(plan: &Job) -> Vec<BTreeSet<usize>> {
    let mut origins: Vec<Origin> = Vec::new();
    for view in &plan.views {
        let origin = Origin::of(&view.rel, plan, &origins);
        origins.push(origin);
    }
    origins.into_iter().map(|origin| origin.sources).collect()
}

/// What the rows of a relation are made of.
#[derive(Clone, Default)]
struct Origin {
    /// The indices of the sources that the relation reads.
    sources: BTreeSet<usize>,
    /// Whether every row comes from state that is restored, or computed again, after a restart. An
    /// operator over such rows needs no site of its own.
    is_state: bool,
}

impl Origin {
    /// The origin of a relation; `views` are the origins of the views before it.
    fn of(rel: &Rel, plan: &Job, views: &[Origin]) -> Self {
        rel.fold(&mut |rel, inputs: Vec<Self>| match &rel.op {
            RelOp::Source { source } => Self {
                sources: BTreeSet::from([*source]),
                is_state: plan
                    .sources
                    .get(*source)
                    .is_some_and(|source| source.envelope != Envelope::Append),
            },
            RelOp::View { view } => views.get(*view).cloned().unwrap_or_default(),
            // Constant rows are given again at every start.
            RelOp::Values { .. } | RelOp::WorkTable => Self {
                is_state: true,
                ..Self::default()
            },
            op => Self {
                is_state: op.is_stateful() || inputs.iter().all(|input| input.is_state),
                sources: inputs.into_iter().flat_map(|it| it.sources).collect(),
            },
        })
    }
}

/// Renders the relations of one view.
struct Renderer<'a, 'scope> {
    /// The dataflow that operators are added to.
    scope: Scope<'scope, Epoch>,
    /// The whole plan.
    plan: &'a Job,
    /// The streams of the sources.
    sources: &'a [SourceStream<'scope>],
    /// The streams of the views before this one.
    views: &'a [ChunkStream<'scope>],
    /// The origins of the views before this one.
    origins: &'a [Origin],
    /// Names for the state of this view's operators.
    sites: &'a Sites,
    /// What operators share.
    context: &'a Rc<Context>,
    /// The view's name.
    view: &'a str,
    /// The columns of the sources that the view reads.
    reads: Reads,
    /// The relations of this view that are rendered already, by their identity, if the view may
    /// contain a relation twice.
    shared: Option<RefCell<BTreeMap<String, ChunkStream<'scope>>>>,
}

impl<'scope> Renderer<'_, 'scope> {
    /// The sites for an operator over `input`; `None` if its state is computed from other state.
    fn sites_over(&self, input: &Rel) -> Option<&Sites> {
        let is_state = Origin::of(input, self.plan, self.origins).is_state;
        (!is_state).then_some(self.sites)
    }

    /// The site of an operator over `input` that keeps one arrangement.
    fn site_over(&self, input: &Rel) -> Option<Site> {
        self.sites_over(input).map(|sites| sites.site(None))
    }

    /// Renders a join.
    fn join(
        &self,
        (left, right): (&Rel, &Rel),
        on: &join::On<'_>,
        schema: &SchemaRef,
    ) -> Result<ChunkStream<'scope>> {
        let more = self.sites_over(left);
        let (left, right) = (self.side(left)?, self.side(right)?);
        join::join(left, right, self.context, on, schema, more)
    }

    /// Renders one input of a join.
    fn side(&self, input: &Rel) -> Result<join::Side<'scope>> {
        Ok(join::Side {
            rows: self.rel(input)?,
            schema: nullable(&input.schema),
            site: self.site_over(input),
        })
    }

    /// Renders a union, and its inputs first.
    fn union(&self, inputs: &[Rel]) -> Result<ChunkStream<'scope>> {
        let streams = inputs.iter().map(|input| self.rel(input));
        let streams = streams.collect::<Result<Vec<_>>>()?.into_iter();
        let all = streams.reduce(|all, next| all.concat(next));
        all.ok_or_else(|| Error::new(Kind::Bug, "a union has no input"))
    }

    /// Renders a set operation, and its inputs first.
    fn set_op(
        &self,
        (left, right): (&Rel, &Rel),
        kind: SetKind,
        schema: &SchemaRef,
    ) -> Result<ChunkStream<'scope>> {
        let sites = self.sites_over(left).or_else(|| self.sites_over(right));
        let site = sites.map(|sites| sites.site(None));
        let inputs = (self.rel(left)?, self.rel(right)?);
        distinct::set_op::set_op(inputs, self.context, kind, schema, site.as_ref())
    }

    /// Renders a recursion: first what enters it, from state, and then the loop.
    fn recursion(&self, base: &Rel, of: &recursion::Recursion<'_>) -> Result<ChunkStream<'scope>> {
        let kept = |rel: &Rel| {
            // What enters both terms is kept once.
            let identity = tidemill_ir::identity(rel, &self.plan.sources, &self.plan.views);
            let identity = format!("kept {identity}");
            let shared = self.shared.as_ref();
            let known = shared.and_then(|shared| shared.borrow().get(&identity).cloned());
            if let Some(known) = known {
                return Ok(known);
            }
            let site = self.site_over(rel);
            let rows = self.rel(rel)?;
            let rows = recursion::kept(rows, self.context, &rel.schema, site.as_ref())?;
            if let Some(shared) = shared {
                shared.borrow_mut().insert(identity, rows.clone());
            }
            Ok(rows)
        };
        let base = kept(base)?;
        let inputs = recursion::outside(of.step).into_iter().map(kept);
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        recursion::recursion(self.scope, base, inputs, self.context, of)
    }

    /// The rows of a source that have all columns that the view reads.
    fn source(&self, index: usize) -> Result<ChunkStream<'scope>> {
        let rows = Self::named(self.sources, index, "source")?;
        let needed = self.reads.get(&index).cloned().unwrap_or_default();
        let lacks = move |chunk: &SourceChunk| chunk.lacking.iter().any(|it| needed.contains(it));
        let chunks = rows.flat_map(move |chunk| (!lacks(&chunk)).then_some(chunk.rows));
        Ok(chunks)
    }

    /// The stream of a source or view by its index; `what` names it in the error.
    fn named<T: Clone>(streams: &[T], index: usize, what: &str) -> Result<T> {
        let missing = || Error::new(Kind::Bug, format!("the plan names a missing {what}"));
        streams.get(index).cloned().ok_or_else(missing)
    }

    /// Renders a node of the plan as an operator with the name that `explain` shows.
    fn rel(&self, rel: &Rel) -> Result<ChunkStream<'scope>> {
        let name = format!("{}: {}", self.view, Title(&rel.op));
        let render = || self.operator(rel);
        let Some(shared) = &self.shared else {
            return self.context.meter.named(self.scope, name, render);
        };
        // A source reads the columns that the relation above it uses, so it has no identity alone.
        if matches!(rel.op, RelOp::Source { .. } | RelOp::View { .. }) {
            return render();
        }
        let identity = tidemill_ir::identity(rel, &self.plan.sources, &self.plan.views);
        if let Some(known) = shared.borrow().get(&identity) {
            return Ok(known.clone());
        }
        let stream = self.context.meter.named(self.scope, name, render)?;
        shared.borrow_mut().insert(identity, stream.clone());
        Ok(stream)
    }

    /// Renders what only WITH RECURSIVE has.
    fn recursive(&self, rel: &Rel) -> Result<ChunkStream<'scope>> {
        match &rel.op {
            RelOp::Recursion {
                base,
                step,
                distinct,
            } => {
                let of = recursion::Recursion {
                    step,
                    distinct: *distinct,
                    schema: &rel.schema,
                };
                self.recursion(base, &of)
            }
            _ => {
                let what = "the plan reads a work table outside of its recursion";
                Err(Error::new(Kind::Bug, what))
            }
        }
    }

    /// Renders a node of the plan, and its inputs first.
    fn operator(&self, rel: &Rel) -> Result<ChunkStream<'scope>> {
        match &rel.op {
            RelOp::Source { source } => self.source(*source),
            RelOp::View { view } => Self::named(self.views, *view, "view"),
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
                let rows = reduce::Input {
                    rows: self.rel(input)?,
                    schema: &nullable(&input.schema),
                    sites: self.sites_over(input),
                };
                reduce::reduce(scope, rows, context, keys, aggregates, &rel.schema)
            }
            RelOp::Distinct { input } => {
                let site = self.site_over(input);
                let rows = self.rel(input)?;
                distinct::distinct(rows, self.context, &rel.schema, site.as_ref())
            }
            RelOp::Union { inputs } => self.union(inputs),
            RelOp::SetOp { left, right, kind } => self.set_op((left, right), *kind, &rel.schema),
            RelOp::Values { rows } => compute::values::values(self.scope, rows),
            RelOp::Recursion { .. } | RelOp::WorkTable => self.recursive(rel),
            RelOp::Join {
                kind,
                left,
                right,
                keys,
                conditions,
            } => {
                let on = join::On {
                    kind: *kind,
                    keys,
                    conditions,
                };
                self.join((left, right), &on, &rel.schema)
            }
            RelOp::TopK {
                input,
                partition,
                order,
                ..
            }
            | RelOp::Window {
                input,
                partition,
                order,
                ..
            } => {
                let of = top_k::Groups {
                    partition,
                    order,
                    site: self.site_over(input),
                };
                self.ordered(rel, (self.rel(input)?, &input.schema), of)
            }
        }
    }

    /// Renders a top-k or a window, which read the rows of each group in an order.
    fn ordered(
        &self,
        rel: &Rel,
        input: (ChunkStream<'scope>, &SchemaRef),
        of: top_k::Groups<'_>,
    ) -> Result<ChunkStream<'scope>> {
        match &rel.op {
            RelOp::TopK {
                offset,
                limit,
                ranked,
                ..
            } => {
                let kept = Kept {
                    offset: *offset,
                    limit: *limit,
                    numbered: *ranked,
                };
                top_k::top_k(input, self.context, of, kept, &rel.schema)
            }
            RelOp::Window { functions, .. } => {
                window::window(input, self.context, of, functions, &rel.schema)
            }
            _ => Err(Error::new(Kind::Bug, "the operator has no order")),
        }
    }
}

/// A stream without data that has the frontier of `stream`.
fn frontier_of<'scope, C: Clone + 'static>(
    stream: StreamVec<'scope, Epoch, C>,
) -> StreamVec<'scope, Epoch, ()> {
    use timely::dataflow::channels::pact::Pipeline;
    use timely::dataflow::operators::Operator;
    stream.unary::<CapacityContainerBuilder<Vec<()>>, _, _, _>(Pipeline, "Frontier", |_, _| {
        |input, _| input.for_each(|_, chunks| chunks.clear())
    })
}
