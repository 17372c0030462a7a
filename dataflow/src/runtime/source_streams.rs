//! The streams of sources: topics that are read, decoded and bound to epochs.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use tidemill_ir::row::RowCodec;
use tidemill_ir::{Envelope, Epoch, Source};
use tidemill_log::Result;
use tidemill_log::log::Log;
use tidemill_log::registry::Registry;
use tidemill_state::value::source_position::SourcePosition;

use crate::chunk::{Chunk, SourceChunk, SourceStream};
use crate::config::Limits;
use crate::context::{Context, Sites};
use crate::epoch::control::Control;
use crate::epoch::messages::{Held, Start};
use crate::epoch::resume;
use crate::operator::upsert;
use crate::source::operator::{Reading, operator};
use crate::source::partitions::{Assigned, Partitions};
use crate::source::record_batcher::{AppendBatcher, KeyedBatcher};

/// What sources are read from, and how much of them at a time.
pub(crate) struct Services<'a> {
    /// The log.
    pub(crate) log: &'a Arc<dyn Log>,
    /// The registry; only Avro needs one.
    pub(crate) registry: Option<&'a Arc<dyn Registry>>,
    /// The limits of the job.
    pub(crate) limits: &'a Limits,
}

/// A topic's partitions with the offsets at which reading begins (after the checkpoint, or at the
/// beginning if the source hydrates), and the source positions of the newest changes before.
fn held_from(
    start: &Start,
    topic: &str,
    hydrates: bool,
) -> (Vec<Held>, BTreeMap<u32, SourcePosition>) {
    let restored = start.checkpoint.as_ref().filter(|_| !hydrates);
    let ends = restored.and_then(|checkpoint| checkpoint.ends.get(topic));
    let positions = restored.and_then(|checkpoint| checkpoint.positions.get(topic));
    let mut held = start.partitions.get(topic).cloned().unwrap_or_default();
    for held in &mut held {
        let end = ends.and_then(|ends| ends.get(&held.partition));
        held.low = end.copied().unwrap_or(held.low);
    }
    (held, positions.cloned().unwrap_or_default())
}

/// Renders the rows of a source.
pub(crate) fn source_stream<'scope>(
    scope: timely::dataflow::Scope<'scope, Epoch>,
    index: usize,
    source: &Source,
    services: &Services<'_>,
    commands: &Rc<RefCell<Control>>,
    context: &Rc<Context>,
) -> Result<SourceStream<'scope>> {
    let reading = Reading {
        index,
        topic: source.topic.clone(),
        rows_waiting_max: services.limits.rows_waiting_max,
        bytes_waiting_max: services.limits.bytes_waiting_max,
    };
    let (me, peers) = (scope.index(), scope.peers());
    let mut decoder = tidemill_decode::open(source, services.registry.cloned())?;
    let assigned = Assigned {
        log: Arc::clone(services.log),
        topic: source.topic.clone(),
        source: index,
        worker: me,
        workers: peers,
    };
    let held = {
        let context = Rc::clone(context);
        move |start: &Start, topic: &str| held_from(start, topic, context.hydrates(index))
    };
    if source.envelope == Envelope::Append {
        let open = move |start: &Start| {
            let (held, positions) = held(start, &assigned.topic);
            decoder.remember(resume::schemas(start, &assigned.topic));
            Partitions::open(assigned, &held, positions, AppendBatcher::new(decoder))
        };
        return Ok(operator(
            scope,
            reading,
            commands,
            context,
            open,
            |epoch, (rows, lacking)| SourceChunk {
                rows: Chunk::insertions(epoch, rows),
                lacking,
            },
        ));
    }
    let codec = RowCodec::new(Arc::clone(&source.schema))?;
    let mut batcher = KeyedBatcher::new(decoder, codec, source.envelope, &source.format, peers);
    let open = move |start: &Start| {
        let (held, positions) = held(start, &assigned.topic);
        batcher.remember(resume::schemas(start, &assigned.topic));
        Partitions::open(assigned, &held, positions, batcher)
    };
    let keyed = operator(scope, reading, commands, context, open, |epoch, keyed| {
        (epoch, keyed)
    });
    let sites = Sites::new(
        context,
        tidemill_ir::state_of(source),
        BTreeSet::from([index]),
    );
    let site = sites.site(None);
    upsert::upsert(keyed, context, &source.schema, site, &source.name)
}
