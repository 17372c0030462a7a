//! The source operator: releases decoded rows of one topic, epoch by epoch.
//!
//! ```text
//! Start ──► replay the epochs of earlier runs, each cut exactly at its bound end offsets
//!       ──► live: read ahead ─► Report ─► (binder) ─► Bind(e) ─► send all of e at time e
//!       ──► Stop: drop the capability
//! ```
//!
//! Frontier contract: the operator holds one capability, from the least time on. When the binding
//! of an epoch arrives, it sends all rows of the epoch at that epoch, and downgrades the capability
//! to just past the epoch. A stop drops the capability. On a worker that owns no partition of the
//! topic, the operator sends nothing and only follows the epochs.
//!
//! Backpressure: reading pauses when the waiting rows or bytes reach the limits in [`Reading`].

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tidemill_ir::Epoch;
use tidemill_log::Result;
use tidemill_state::journal::Binding;
use timely::container::{CapacityContainerBuilder, PushInto};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilderSession;
use timely::dataflow::operators::generic::operator::source;
use timely::dataflow::{Scope, StreamVec};

use super::partitions::{MicroBatch, Partitions};
use super::record_batcher::RecordBatcher;
use crate::context::Context;
use crate::epoch::alarm::Alarm;
use crate::epoch::control::Control;
use crate::epoch::messages::{Command, Report, Start};

/// How often an idle source polls if an arrival may happen without a wake-up call, because another
/// process writes the embedded log.
const UNCALLED_LOOK: Duration = Duration::from_millis(20);
/// How often an idle source polls although it is woken at arrivals, so that it does not depend on
/// the call alone.
const CALLED_LOOK: Duration = Duration::from_millis(250);

type Builder<O> = CapacityContainerBuilder<Vec<O>>;

/// Which source of the plan an operator reads, and how far it reads ahead of the binder.
pub(crate) struct Reading {
    /// The source's index in the plan.
    pub(crate) index: usize,
    /// The source's topic.
    pub(crate) topic: String,
    /// Most records that wait for their epoch; reading pauses there.
    pub(crate) rows_waiting_max: usize,
    /// Most bytes of records that wait for their epoch; reading pauses there.
    pub(crate) bytes_waiting_max: usize,
}

/// Renders a source. `open` opens the reader of this worker's partitions when the start is known.
/// `item` converts an item of an epoch to what the operator sends. An error of reading or decoding
/// ends the job ([`Context::fail`]).
pub(crate) fn operator<'scope, G, O>(
    scope: Scope<'scope, Epoch>,
    reading: Reading,
    control: &Rc<RefCell<Control>>,
    context: &Rc<Context>,
    open: impl FnOnce(&Start) -> Result<Partitions<G>> + 'static,
    item: impl Fn(Epoch, G::Item) -> O + 'static,
) -> StreamVec<'scope, Epoch, O>
where
    G: RecordBatcher + 'static,
    O: Clone + 'static,
{
    let (control, context) = (Rc::clone(control), Rc::clone(context));
    source::<_, Builder<O>, _, _>(scope, "Source", move |cap, info| {
        let mut again = Alarm::new(scope.activator_for(Rc::clone(&info.address)));
        control
            .borrow_mut()
            .listen(scope.activator_for(Rc::clone(&info.address)));
        let wake = Arc::new(scope.worker().sync_activator_for(info.address.to_vec()));
        let mut open = Some(open);
        let mut running: Option<Running<G>> = None;
        let mut cap = Some(cap);
        move |output| {
            while let Some(command) = control.borrow_mut().next(reading.index) {
                match &*command {
                    Command::Start(start) => {
                        let opened = open.take().map(|open| open(start)).transpose();
                        let mut partitions = match opened {
                            Ok(partitions) => partitions,
                            Err(error) => context.fail(error),
                        };
                        let wake = Arc::clone(&wake);
                        let woken = move || {
                            // A worker that has ended needs no waking.
                            let _gone = wake.activate();
                        };
                        if let Some(partitions) = &mut partitions {
                            partitions.on_arrival(Arc::new(woken));
                        }
                        let (first, replay) = replay(start, context.hydrates(reading.index));
                        if let Some(cap) = &mut cap {
                            cap.downgrade(&first);
                        }
                        running = partitions.map(|partitions| Running { partitions, replay });
                    }
                    Command::Added(added) if added.topic == reading.topic => {
                        let running = running.as_mut();
                        let added = running.map(|it| it.partitions.add(&added.partitions));
                        if let Some(Err(error)) = added {
                            context.fail(error);
                        }
                    }
                    Command::Added(_) => {}
                    Command::Bind { binding, .. } => {
                        if let (Some(running), Some(cap)) = (&mut running, &mut cap) {
                            running.finish_replay(cap, output, &context, &item);
                            let cuts = running.partitions.release(binding);
                            send(cuts, binding.epoch, cap, output, &context, &item);
                        }
                    }
                    Command::Stop => {
                        if let (Some(running), Some(cap)) = (&mut running, &mut cap) {
                            running.finish_replay(cap, output, &context, &item);
                        }
                        (running, cap) = (None, None);
                    }
                }
            }
            let (Some(running), Some(cap)) = (&mut running, &mut cap) else {
                return;
            };
            if running.step(&reading, cap, output, &control, &context, &item) {
                again.now();
            } else if running.partitions.is_woken() {
                again.within(CALLED_LOOK);
            } else {
                again.within(UNCALLED_LOOK);
            }
        }
    })
}

/// The first epoch at which a source may send, and the epochs of earlier runs that it must send. A
/// source with a view that hydrates also sends everything that is in the checkpoint, as one epoch.
fn replay(start: &Start, hydrates: bool) -> (Epoch, VecDeque<Binding>) {
    let mut replay: VecDeque<Binding> = start.bindings.clone().into();
    let Some(checkpoint) = &start.checkpoint else {
        // The plan's own rows are at the least epoch (the one row of an aggregate without keys).
        // They are complete before any record, because sources begin at epoch 1.
        return (1, replay);
    };
    if !hydrates {
        return (checkpoint.epoch + 1, replay);
    }
    replay.push_front(checkpoint.at());
    (checkpoint.epoch, replay)
}

/// A source that has been started on a worker that owns partitions.
struct Running<G: RecordBatcher> {
    /// The worker's partitions of the topic.
    partitions: Partitions<G>,
    /// Epochs of earlier runs that are still to be sent, in order.
    replay: VecDeque<Binding>,
}

impl<G: RecordBatcher> Running<G> {
    /// Reads once, and reports what was read. Returns true if there may be more to read at once.
    fn step<O: Clone + 'static>(
        &mut self,
        reading: &Reading,
        cap: &mut Capability<Epoch>,
        output: &mut OutputBuilderSession<'_, Epoch, Builder<O>>,
        control: &RefCell<Control>,
        context: &Context,
        item: &impl Fn(Epoch, G::Item) -> O,
    ) -> bool {
        if !self.replay.is_empty() {
            return self.replay_step(cap, output, context, item);
        }
        let (records, bytes) = self.partitions.waiting();
        if records >= reading.rows_waiting_max || bytes >= reading.bytes_waiting_max {
            return false;
        }
        let cut = match self.partitions.read() {
            Ok(Some(cut)) => cut,
            Ok(None) => return false,
            Err(error) => context.fail(error),
        };
        count(&reading.topic, cut, context);
        let mut report = Report {
            topic: reading.topic.clone(),
            ends: cut.ends.clone(),
            positions: cut.positions.clone(),
            commits: cut.commits.clone(),
            bytes: cut.bytes,
            ..Report::default()
        };
        report.schemas = self.partitions.noted();
        control.borrow_mut().report(report);
        true
    }

    /// Reads towards the end of the epoch that is being replayed, and sends it when it is complete.
    fn replay_step<O: Clone + 'static>(
        &mut self,
        cap: &mut Capability<Epoch>,
        output: &mut OutputBuilderSession<'_, Epoch, Builder<O>>,
        context: &Context,
        item: &impl Fn(Epoch, G::Item) -> O,
    ) -> bool {
        let Some(binding) = self.replay.front() else {
            return false;
        };
        let cut = match self.partitions.replay(binding) {
            Ok(cut) => cut,
            Err(error) => context.fail(error),
        };
        if let Some(cut) = cut {
            count(self.partitions.topic(), &cut, context);
            send(vec![cut], binding.epoch, cap, output, context, item);
            self.replay.pop_front();
        }
        true
    }

    /// Sends the rest of earlier epochs, blocking until it is read, because later epochs may not
    /// overtake them.
    fn finish_replay<O: Clone + 'static>(
        &mut self,
        cap: &mut Capability<Epoch>,
        output: &mut OutputBuilderSession<'_, Epoch, Builder<O>>,
        context: &Context,
        item: &impl Fn(Epoch, G::Item) -> O,
    ) {
        while !self.replay.is_empty() {
            self.replay_step(cap, output, context, item);
        }
    }
}

/// Counts what was read, and logs duplicates.
fn count<T>(topic: &str, cut: &MicroBatch<T>, context: &Context) {
    let (records, duplicates) = (cut.records, cut.duplicates);
    context.stats.read(records, cut.bytes, duplicates);
    if duplicates > 0 {
        tracing::info!(
            topic,
            duplicates,
            "changes that came before came again; they are dropped"
        );
    }
}

/// Sends the micro-batches of an epoch and moves the capability just past the epoch.
fn send<T, O: Clone + 'static>(
    cuts: Vec<MicroBatch<T>>,
    epoch: Epoch,
    cap: &mut Capability<Epoch>,
    output: &mut OutputBuilderSession<'_, Epoch, Builder<O>>,
    context: &Context,
    item: &impl Fn(Epoch, T) -> O,
) where
    Builder<O>: PushInto<O>,
{
    cap.downgrade(&epoch);
    let mut session = output.session(&*cap);
    for cut in cuts {
        context.refuse_records(epoch, &cut.refusals);
        session.give_iterator(cut.items.into_iter().map(|i| item(epoch, i)));
    }
    drop(session);
    cap.downgrade(&(epoch + 1));
}
