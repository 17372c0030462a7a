//! Ticks: the epochs that were bound, as operators of a worker see them, and the times at which
//! operators need another one.
//!
//! An operator whose output changes because time passes needs an epoch although no record arrives.
//! It says when, and the binder binds an epoch at that time:
//!
//! ```text
//! operator ─► Ticks::want(at) ─► Report (worker's earliest) ─► binder: at <= time ─► Bind(e)
//!    ▲                                                                                 │
//!    └── Ticks::next: e, once the input is complete through e ◄── Ticks::bound(e) ◄────┘
//! ```
//!
//! Every listener gets every epoch once, in order: first the epochs of earlier runs that are
//! replayed, then those that are bound. A worker hears of an epoch before its sources do. Therefore
//! an operator whose input frontier has passed an epoch has that epoch in its queue.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use tidemill_ir::Epoch;
use timely::scheduling::Activator;

use super::messages::Start;

/// The ticks of one worker.
#[derive(Default)]
pub(crate) struct Ticks {
    /// The operators that get ticks.
    listeners: RefCell<Vec<Listener>>,
    /// Wakes the operator `Report`.
    report: RefCell<Option<Activator>>,
    /// The earliest wanted time that worker 0 was told.
    told: Cell<Option<Epoch>>,
    /// Whether no other tick follows.
    stopped: Cell<bool>,
}

/// An operator that gets ticks.
struct Listener {
    /// The epochs that the operator has not taken yet, oldest first.
    epochs: VecDeque<Epoch>,
    /// The time at which the operator needs an epoch; `None` if it needs none.
    wanted: Option<Epoch>,
    /// Wakes the operator.
    activator: Activator,
}

impl Ticks {
    /// Sets how the operator is woken that sends reports to worker 0.
    pub(crate) fn report_with(&self, activator: Activator) {
        *self.report.borrow_mut() = Some(activator);
    }

    /// Registers an operator; returns its number.
    pub(crate) fn listen(&self, activator: Activator) -> usize {
        let mut listeners = self.listeners.borrow_mut();
        listeners.push(Listener {
            epochs: VecDeque::new(),
            wanted: None,
            activator,
        });
        listeners.len() - 1
    }

    /// Takes in the epochs of earlier runs: the checkpoint's, and those after it.
    pub(crate) fn started(&self, start: &Start) {
        let restored = start.checkpoint.iter().map(|checkpoint| checkpoint.epoch);
        let replayed = start.bindings.iter().map(|binding| binding.epoch);
        let epochs: Vec<Epoch> = restored.chain(replayed).collect();
        for listener in self.listeners.borrow_mut().iter_mut() {
            listener.epochs.extend(&epochs);
            listener.activator.activate();
        }
    }

    /// Takes in an epoch that is bound.
    pub(crate) fn bound(&self, epoch: Epoch) {
        for listener in self.listeners.borrow_mut().iter_mut() {
            listener.epochs.push_back(epoch);
            listener.activator.activate();
        }
    }

    /// Takes in that no epoch follows.
    pub(crate) fn stop(&self) {
        self.stopped.set(true);
        for listener in self.listeners.borrow().iter() {
            listener.activator.activate();
        }
    }

    /// The next epoch of a listener, if it `is_complete`. The listener does not get it again.
    pub(crate) fn next(
        &self,
        listener: usize,
        is_complete: impl Fn(Epoch) -> bool,
    ) -> Option<Epoch> {
        let mut listeners = self.listeners.borrow_mut();
        let epochs = &mut listeners.get_mut(listener)?.epochs;
        epochs.pop_front_if(|epoch| is_complete(*epoch))
    }

    /// Whether a listener has taken all epochs so far.
    pub(crate) fn is_idle(&self, listener: usize) -> bool {
        let listeners = self.listeners.borrow();
        listeners
            .get(listener)
            .is_none_or(|it| it.epochs.is_empty())
    }

    /// Whether a listener has taken all epochs, and gets no other one.
    pub(crate) fn is_over(&self, listener: usize) -> bool {
        self.stopped.get() && self.is_idle(listener)
    }

    /// Sets the time at which a listener needs an epoch.
    pub(crate) fn want(&self, listener: usize, at: Option<Epoch>) {
        let mut listeners = self.listeners.borrow_mut();
        if let Some(listener) = listeners.get_mut(listener) {
            listener.wanted = at;
        }
        let earliest = listeners.iter().filter_map(|it| it.wanted).min();
        if earliest != self.told.get()
            && let Some(report) = self.report.borrow().as_ref()
        {
            report.activate();
        }
    }

    /// The earliest time at which an operator of this worker needs an epoch, if it is another one
    /// than this method has returned before.
    pub(crate) fn news(&self) -> Option<Option<Epoch>> {
        let listeners = self.listeners.borrow();
        let earliest = listeners.iter().filter_map(|it| it.wanted).min();
        (self.told.replace(earliest) != earliest).then_some(earliest)
    }
}
