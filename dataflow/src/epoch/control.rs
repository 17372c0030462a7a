//! The control dataflow: carries reports to worker 0, and commands from worker 0 to all workers.
//!
//! Every worker reports how far it has read. Worker 0 binds the reported offsets to the next epoch
//! ([`super::binder`]) and sends the binding to all workers when the journal holds it.
//!
//! ```text
//! source operators ─► Report (all workers) ─► Bind (worker 0) ─► Deliver (all workers) ─► sources
//! ```
//!
//! Messages from worker 0 to one worker keep their order. Therefore all workers release the same
//! epochs in the same order, and `Stop` comes after the last epoch. The dataflow has one timestamp
//! of type `u64` and holds its capabilities until `Stop`, so its frontier says nothing.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;

use tidemill_state::checkpoint::writer::Writer;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::operator::source;
use timely::dataflow::operators::{Capability, Operator};
use timely::dataflow::{Scope, StreamVec};
use timely::scheduling::Activator;

use super::alarm::Alarm;
use super::binder::Binder;
use super::messages::{Added, Command, Report, Wanted};
use super::ticks::Ticks;

/// A worker's end of the control dataflow, shared with the worker's source operators.
pub(crate) struct Control {
    /// Reports that were not sent yet.
    reports: Vec<Report>,
    /// Wakes the operator `Report`.
    report: Option<Activator>,
    /// One inbox of commands for each source, in the order of the plan's sources.
    inboxes: Vec<VecDeque<Arc<Command>>>,
    /// Wakes the source operators.
    sources: Vec<Activator>,
    /// Whether `Stop` was delivered.
    stopped: bool,
}

impl Control {
    /// The end of a worker with this number of sources.
    pub(crate) fn new(sources: usize) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            reports: Vec::new(),
            report: None,
            inboxes: vec![VecDeque::new(); sources],
            sources: Vec::new(),
            stopped: false,
        }))
    }

    /// Sends a report of a source to worker 0.
    pub(crate) fn report(&mut self, report: Report) {
        self.reports.push(report);
        if let Some(activator) = &self.report {
            activator.activate();
        }
    }

    /// Registers a source operator for waking, in the order of the plan's sources.
    pub(crate) fn listen(&mut self, activator: Activator) {
        self.sources.push(activator);
    }

    /// The next command for a source, in order; `None` when there is none yet.
    pub(crate) fn next(&mut self, source: usize) -> Option<Arc<Command>> {
        self.inboxes.get_mut(source)?.pop_front()
    }

    /// Hands a command to all sources of this worker, and wakes them.
    fn deliver(&mut self, command: Command) {
        let command = Arc::new(command);
        self.stopped |= matches!(*command, Command::Stop);
        for inbox in &mut self.inboxes {
            inbox.push_back(Arc::clone(&command));
        }
        self.sources.iter().for_each(Activator::activate);
    }
}

/// The channels by which threads beside the workers reach the control dataflow.
pub(crate) struct Told {
    /// Partitions that were added to topics; only worker 0 has this channel.
    pub(crate) added: Option<Receiver<Added>>,
    /// The process's checkpoint writer, for the parts that it wrote.
    pub(crate) writer: Writer,
    /// When the worker's operators need an epoch.
    pub(crate) ticks: Rc<Ticks>,
}

/// Builds the control dataflow. `binder` is set on worker 0 only. `on` is called with every command
/// on every worker, before the worker's sources receive the command.
pub(crate) fn control<'scope>(
    scope: Scope<'scope, u64>,
    control: &Rc<RefCell<Control>>,
    binder: Option<Rc<RefCell<Binder>>>,
    told: Told,
    stop: &Arc<AtomicBool>,
    mut on: impl FnMut(&Command) + 'static,
) {
    let commands = bind(scope, reports(scope, control, told, stop), binder);
    let control = Rc::clone(control);
    let pact = Exchange::new(|(worker, _): &(u64, Command)| *worker);
    commands.sink(pact, "Deliver", move |(input, _frontier)| {
        input.for_each(|_, commands| {
            for (_, command) in commands.drain(..) {
                on(&command);
                control.borrow_mut().deliver(command);
            }
        });
    });
}

/// How often a worker checks whether its process was told to stop.
const STOP_CHECK: std::time::Duration = std::time::Duration::from_millis(100);

/// The operator `Report`: sends the worker's reports, and drops its capability after `Stop`.
fn reports<'scope>(
    scope: Scope<'scope, u64>,
    control: &Rc<RefCell<Control>>,
    told: Told,
    stop: &Arc<AtomicBool>,
) -> StreamVec<'scope, u64, Report> {
    let (control, stop) = (Rc::clone(control), Arc::clone(stop));
    source::<_, CapacityContainerBuilder<Vec<Report>>, _, _>(scope, "Report", move |cap, info| {
        let mut again = Alarm::new(scope.activator_for(Rc::clone(&info.address)));
        told.ticks
            .report_with(scope.activator_for(Rc::clone(&info.address)));
        control.borrow_mut().report = Some(scope.activator_for(info.address));
        let worker = scope.index();
        let mut cap = Some(cap);
        let mut asked = false;
        move |output| {
            let mut control = control.borrow_mut();
            let Some(held) = &cap else { return };
            let mut session = output.session(held);
            session.give_iterator(control.reports.drain(..));
            let added = told.added.iter().flat_map(Receiver::try_iter);
            session.give_iterator(added.map(|added| Report {
                topic: added.topic,
                added: added.partitions,
                ..Report::default()
            }));
            session.give_iterator(told.ticks.news().into_iter().map(|at| Report {
                wanted: Some(Wanted { worker, at }),
                ..Report::default()
            }));
            let written = told.writer.written();
            let stop = stop.load(Ordering::Relaxed) && !asked;
            if stop || !written.is_empty() {
                asked |= stop;
                session.give(Report {
                    written,
                    stop,
                    ..Report::default()
                });
            }
            drop(session);
            if control.stopped {
                cap = None;
            } else {
                again.within(STOP_CHECK);
            }
        }
    })
}

/// The operator `Bind`: turns reports into commands. Only worker 0 receives reports, and only
/// worker 0 keeps its capability.
fn bind<'scope>(
    scope: Scope<'scope, u64>,
    reports: StreamVec<'scope, u64, Report>,
    binder: Option<Rc<RefCell<Binder>>>,
) -> StreamVec<'scope, u64, (u64, Command)> {
    let peers = scope.peers() as u64;
    reports.unary_frontier(Exchange::new(|_: &Report| 0), "Bind", move |cap, info| {
        let mut again = Alarm::new(scope.activator_for(Rc::clone(&info.address)));
        if let Some(binder) = &binder {
            let wake = scope.worker().sync_activator_for(info.address.to_vec());
            binder
                .borrow_mut()
                .wake_with(scope.activator_for(info.address), wake);
        }
        let mut cap: Option<Capability<u64>> = binder.is_some().then_some(cap);
        move |(input, _frontier), output| {
            let mut reported = Vec::new();
            input.for_each(|_, reports| reported.append(reports));
            let (Some(held), Some(binder)) = (&cap, &binder) else {
                return;
            };
            let mut binder = binder.borrow_mut();
            reported.into_iter().for_each(|report| binder.read(report));
            let mut session = output.session(held);
            let mut last = false;
            for command in binder.commands() {
                last |= matches!(command, Command::Stop);
                session.give_iterator((0..peers).map(|worker| (worker, command.clone())));
            }
            drop(session);
            if last {
                cap = None;
            } else if let Some(wait) = binder.due_in() {
                again.within(wait);
            }
        }
    })
}
