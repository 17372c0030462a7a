//! Frontier writer: moves the sink's frontier when all workers' writes of an epoch are durable.
//!
//! It runs on worker 0. Moving the frontier is the last step of the commit protocol of an epoch;
//! see `time/mod.rs`.
//!
//! Frontier contract: consumes a stream without data, whose frontier is what is durable in the sink
//! on all workers. Holds no capability. Epochs that become complete while a move is under way are
//! moved together with the next one.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use tidemill_ir::Epoch;
use tidemill_log::backoff::retry;
use tidemill_log::{Result, failpoint};
use tidemill_sinks::Sink;
use tidemill_state::failure::Failure;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Operator;
use timely::progress::Antichain;
use timely::scheduling::SyncActivator;

use crate::context::Context;
use crate::epoch::alarm::Alarm;
use crate::epoch::binder::Binder;

/// The handle of the thread that moves frontiers. At most one move is under way.
pub(crate) struct Advance {
    /// Epochs to move to.
    to: SyncSender<Epoch>,
    /// Epochs that were moved to.
    done: Receiver<Epoch>,
    /// Hands the waker of the operator to the thread, once.
    wake: SyncSender<SyncActivator>,
    /// The epoch of the move that is under way, or of the last move.
    asked: Epoch,
    /// The epoch of the last move that is durable.
    arrived: Epoch,
}

/// The binder and the frontier writer, which only worker 0 has.
pub(crate) type Leading = (Rc<RefCell<Binder>>, Rc<RefCell<Advance>>);

/// What the thread works on.
pub(crate) struct Frontiers {
    /// The job's name.
    pub(crate) job: String,
    /// The indices of all sink tables.
    pub(crate) tables: Vec<usize>,
    /// The sink.
    pub(crate) sink: Arc<dyn Sink>,
    /// Ends the job if a move fails.
    pub(crate) failure: Failure,
}

impl Advance {
    /// Starts the thread.
    ///
    /// # Errors
    /// `Retry` when the system cannot create a thread.
    pub(crate) fn start(frontiers: Frontiers) -> Result<Self> {
        let (to, epochs) = sync_channel::<Epoch>(1);
        let (tell, done) = sync_channel(1);
        let (wake, wakes) = sync_channel::<SyncActivator>(1);
        let failure = frontiers.failure.clone();
        failure.spawn("frontier", move || {
            let Ok(wake) = wakes.recv() else {
                return Ok(());
            };
            while let Ok(epoch) = epochs.recv() {
                frontiers.advance(epoch)?;
                if tell.send(epoch).is_err() {
                    break;
                }
                // At shutdown the operator may be gone. `finish` then waits on the channel.
                let _gone = wake.activate();
            }
            Ok(())
        })?;
        Ok(Self {
            to,
            done,
            wake,
            asked: 0,
            arrived: 0,
        })
    }

    /// Takes in the moves that are durable, and tells the binder.
    fn take(&mut self, binder: &mut Binder) {
        while let Ok(epoch) = self.done.try_recv() {
            self.arrived = epoch;
            binder.durable(epoch);
        }
    }

    /// Asks for a move to `epoch`, unless one is under way.
    fn ask(&mut self, epoch: Epoch) {
        if self.asked == self.arrived && epoch > self.arrived && self.to.try_send(epoch).is_ok() {
            self.asked = epoch;
        }
    }

    /// After the dataflow has ended: moves the frontier to the last bound epoch and waits for it.
    /// Returns false if the thread has ended with an error, or after `patience`.
    pub(crate) fn finish(&mut self, binder: &mut Binder, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            self.take(binder);
            let Some(last) = binder.last_complete(|_| true) else {
                return true;
            };
            self.ask(last);
            let left = deadline.saturating_duration_since(Instant::now());
            match self.done.recv_timeout(left) {
                Ok(epoch) => {
                    self.arrived = epoch;
                    binder.durable(epoch);
                }
                Err(_) => return false,
            }
        }
    }
}

impl Frontiers {
    /// Moves the frontier rows of all tables to `epoch`. Retries while the sink is away.
    fn advance(&self, epoch: Epoch) -> Result<()> {
        if self.tables.is_empty() {
            return Ok(());
        }
        failpoint::hit(failpoint::SINK_BEFORE_ADVANCE);
        retry("move the sink's frontier", || {
            self.sink.advance(&self.job, &self.tables, epoch)
        })?;
        failpoint::hit(failpoint::SINK_AFTER_ADVANCE);
        Ok(())
    }
}

/// The operator that follows the durable frontier of all workers' sinks.
pub(crate) fn advance(
    durable: StreamVec<'_, Epoch, ()>,
    worker0: Option<Leading>,
    context: Rc<Context>,
) {
    let scope = durable.scope();
    let pact = Exchange::new(|(): &()| 0);
    let stream = durable.unary_frontier(pact, "Advance", move |_, info| {
        if let Some((_, advance)) = &worker0 {
            let wake = scope.worker().sync_activator_for(info.address.to_vec());
            // The operator is built once. A second waker would be ignored.
            let _first = advance.borrow().wake.try_send(wake);
        }
        let mut again = Alarm::new(scope.activator_for(info.address));
        move |(input, frontier), output| {
            let _: &mut timely::dataflow::operators::generic::OutputBuilderSession<
                '_,
                Epoch,
                timely::container::CapacityContainerBuilder<Vec<()>>,
            > = output;
            input.for_each(|_, nothing| nothing.clear());
            context.is_complete(frontier.frontier().first().copied());
            let Some((binder, advance)) = &worker0 else {
                return;
            };
            let (mut binder, mut advance) = (binder.borrow_mut(), advance.borrow_mut());
            advance.take(&mut binder);
            let frontier: Antichain<Epoch> = frontier.frontier().to_owned();
            if let Some(epoch) = binder.last_complete(|epoch| !frontier.less_equal(&epoch)) {
                advance.ask(epoch);
            }
            // An epoch may be complete before this worker learns that it was bound.
            if frontier.is_empty() {
                again.within(Duration::from_millis(5));
            }
        }
    });
    let _ends_here = stream;
}
