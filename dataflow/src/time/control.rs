//! The control dataflow: reports to worker 0, bindings to all workers.
//!
//! Every worker reports how far it has read; worker 0 binds what was reported to the next epoch
//! ([`super::binder`]) and sends the binding to all workers once the journal has it. Messages from
//! worker 0 to one worker keep their order, so all workers release the same epochs in the same
//! order, and a stop comes after the last epoch.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::operator::source;
use timely::dataflow::operators::{Capability, Operator};
use timely::dataflow::{Scope, StreamVec};
use timely::scheduling::Activator;

use super::alarm::Alarm;
use super::binder::Binder;
use super::messages::{Added, Command, Report};
use crate::checkpoint::writer::Writer;

/// A worker's end of the control dataflow, shared with its sources.
pub(crate) struct Control {
    reports: Vec<Report>,
    report: Option<Activator>,
    /// Commands for each source, in order.
    inboxes: Vec<VecDeque<Arc<Command>>>,
    sources: Vec<Activator>,
    stopped: bool,
}

impl Control {
    pub(crate) fn new(sources: usize) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            reports: Vec::new(),
            report: None,
            inboxes: vec![VecDeque::new(); sources],
            sources: Vec::new(),
            stopped: false,
        }))
    }

    /// Tells worker 0 how far a source has read.
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

    /// The next command for a source.
    pub(crate) fn next(&mut self, source: usize) -> Option<Arc<Command>> {
        self.inboxes.get_mut(source)?.pop_front()
    }

    fn deliver(&mut self, command: Command) {
        let command = Arc::new(command);
        self.stopped |= matches!(*command, Command::Stop);
        for inbox in &mut self.inboxes {
            inbox.push_back(Arc::clone(&command));
        }
        self.sources.iter().for_each(Activator::activate);
    }
}

/// What threads beside the workers tell.
pub(crate) struct Told {
    /// Partitions that were added; to worker 0 only.
    pub(crate) added: Option<Receiver<Added>>,
    /// What was written for a checkpoint.
    pub(crate) writer: Writer,
}

/// Builds the control dataflow. `on` hears every command on every worker before its sources do.
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

/// How often a worker looks whether its process was told to stop.
const STOP_CHECK: std::time::Duration = std::time::Duration::from_millis(100);

fn reports<'scope>(
    scope: Scope<'scope, u64>,
    control: &Rc<RefCell<Control>>,
    told: Told,
    stop: &Arc<AtomicBool>,
) -> StreamVec<'scope, u64, Report> {
    let (control, stop) = (Rc::clone(control), Arc::clone(stop));
    source::<_, CapacityContainerBuilder<Vec<Report>>, _, _>(scope, "Report", move |cap, info| {
        let mut again = Alarm::new(scope.activator_for(Rc::clone(&info.address)));
        control.borrow_mut().report = Some(scope.activator_for(info.address));
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

/// Reports to commands, on worker 0.
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
