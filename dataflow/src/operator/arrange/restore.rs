//! Checkpointed operator state: restored from the last checkpoint, tapped for the next one.
//!
//! Two operators surround the arrangement of a [`Site`]:
//!
//! ```text
//! input ─► restore ─► arrangement ─► …
//!            ▲             └─► Tap: changes through epoch c ── seal ─► checkpoint writer
//!            └─ state of the last checkpoint, at its epoch
//! ```
//!
//! [`restore`] adds the state of the last checkpoint at the checkpoint's epoch, and drops updates
//! of the input at or below that epoch. A [`Tap`] collects the changes after that epoch for the
//! next checkpoint.

use std::rc::Rc;
use std::sync::Arc;

use differential_dataflow::trace::Span;
use differential_dataflow::trace::cursor::{Cursor, Navigable};
use tidemill_ir::Epoch;
use tidemill_ir::row::Row;
use tidemill_state::checkpoint::writer::Sealed;
use tidemill_state::checkpoint::{Change, Changes, Entry, Reader};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::{Capability, Operator};

use crate::context::Context;
use crate::context::site::Site;

/// Adds the restored state of a site to its input. `epoch_of` returns the epoch of an update,
/// `make` makes an update from an entry. Without a site the input passes unchanged.
///
/// Frontier contract: holds a capability from the least time until the start is known, then at the
/// checkpoint's epoch until all of the state has been sent. Input waits until the start is known.
pub(crate) fn restore<'scope, T: Clone + 'static, C: Change>(
    input: StreamVec<'scope, Epoch, T>,
    context: &Rc<Context>,
    site: Option<&Site>,
    epoch_of: impl Fn(&T) -> Epoch + 'static,
    make: impl Fn(Epoch, Entry<C>) -> T + 'static,
) -> StreamVec<'scope, Epoch, T> {
    let Some(site) = site.cloned() else {
        return input;
    };
    let context = Rc::clone(context);
    let scope = input.scope();
    let (index, peers) = (scope.index(), scope.peers());
    input.unary(Pipeline, "Restore", move |cap, info| {
        context.wake_at_start(scope.activator_for(Rc::clone(&info.address)));
        let again = scope.activator_for(info.address);
        let mut cap = Some(cap);
        let mut through: Option<Epoch> = None;
        let mut reading: Option<(Capability<Epoch>, Reader<C>)> = None;
        move |input, output| {
            if !context.started() {
                return; // what waits in the input is taken when it is known what to keep of it
            }
            if let Some(mut cap) = cap.take()
                && let Some((epoch, state)) = context.restored(&site)
            {
                cap.downgrade(&epoch);
                through = Some(epoch);
                match Reader::share(Arc::clone(&context.store), &state, index, peers) {
                    Ok(reader) => reading = Some((cap, reader)),
                    Err(error) => context.fail(error),
                }
            }
            input.for_each(|time, updates| {
                if let Some(through) = through {
                    updates.retain(|update| epoch_of(update) > through);
                }
                output.session(&time).give_container(updates);
            });
            if let Some((cap, reader)) = &mut reading {
                match reader.step() {
                    Ok(Some(entries)) => {
                        let epoch = *cap.time();
                        let made = entries.into_iter().map(|entry| make(epoch, entry));
                        output.session(cap).give_iterator(made);
                        again.activate();
                    }
                    Ok(None) => reading = None,
                    Err(error) => context.fail(error),
                }
            }
        }
    })
}

/// Collects a site's changes for the next checkpoint. Each worker has one per site.
pub(crate) struct Tap<C> {
    /// What operators share.
    context: Rc<Context>,
    /// The site whose changes are collected.
    site: Site,
    /// Changes for the next checkpoint.
    now: Changes<C>,
    /// Changes after the epoch of a checkpoint that is asked for and not sealed yet.
    later: Changes<C>,
    /// The epoch through which changes are in a checkpoint: first the one that the site was
    /// restored from, then the last one that was sealed. `None` before the first change.
    sealed: Option<Epoch>,
}

impl<C: Change> Tap<C> {
    /// A tap that has collected nothing.
    pub(crate) fn new(context: &Rc<Context>, site: Site) -> Self {
        Self {
            context: Rc::clone(context),
            site,
            now: Changes::default(),
            later: Changes::default(),
            sealed: None,
        }
    }

    /// The epoch of the checkpoint that is asked for and not sealed yet.
    fn asked(&self) -> Option<Epoch> {
        let asked = self.context.checkpoint.get();
        asked.filter(|epoch| Some(*epoch) > self.sealed)
    }

    /// Collects a change. Changes that the restored checkpoint contains are ignored.
    pub(crate) fn add(&mut self, epoch: Epoch, key: &Row, value: &Row, change: &C) {
        let (site, context) = (&self.site, &self.context);
        let restored = || context.restored(site).map_or(0, |(epoch, _)| epoch);
        let sealed = *self.sealed.get_or_insert_with(restored);
        // Records begin at epoch 1. Epoch 0 has the plan's own rows, which must be collected.
        if sealed > 0 && epoch <= sealed {
            return;
        }
        let added = match self.asked() {
            Some(asked) if epoch > asked => self.later.add(key, value, change),
            _ => self.now.add(key, value, change),
        };
        if let Err(error) = added {
            self.context.fail(error);
        }
    }

    /// Seals the checkpoint that is asked for, once `is_complete` holds for its epoch: hands the
    /// changes through this epoch to the checkpoint writer.
    pub(crate) fn seal(&mut self, is_complete: impl Fn(Epoch) -> bool) {
        let Some(epoch) = self.asked().filter(|epoch| is_complete(*epoch)) else {
            return;
        };
        self.sealed = Some(epoch);
        let changes = std::mem::replace(&mut self.now, std::mem::take(&mut self.later));
        self.context.writer.seal(Sealed {
            epoch,
            site: Arc::clone(&self.site.name),
            sum: C::SUM,
            blocks: changes.into_blocks(),
            of: self.context.sites.borrow().len() * self.context.threads,
        });
    }
}

/// Taps the batches of an arrangement; `value_of` returns a value as a row. Without a site it does
/// nothing.
pub(crate) fn tap<'scope, B, V>(
    batches: StreamVec<'scope, Epoch, Span<Epoch, B>>,
    context: &Rc<Context>,
    site: Option<&Site>,
    value_of: impl Fn(&V) -> Row + 'static,
) where
    B: Navigable + Clone + 'static,
    V: 'static,
    for<'a> B::Cursor:
        Cursor<Key<'a> = &'a Row, Val<'a> = &'a V, Time = Epoch, TimeGat<'a> = &'a Epoch>,
    <B::Cursor as Cursor>::Diff: Change,
{
    let Some(site) = site.cloned() else { return };
    let mut tap = Tap::<<B::Cursor as Cursor>::Diff>::new(context, site);
    batches.sink(Pipeline, "Tap", move |(input, frontier)| {
        input.for_each(|_, spans| {
            for batch in spans.drain(..).filter_map(|span| span.inner) {
                let mut cursor = batch.cursor();
                while let Some(key) = cursor.get_key(&batch) {
                    while let Some(value) = cursor.get_val(&batch) {
                        let value = value_of(value);
                        cursor.map_times(&batch, |epoch, change| {
                            tap.add(*epoch, key, &value, &B::Cursor::owned_diff(change));
                        });
                        cursor.step_val(&batch);
                    }
                    cursor.step_key(&batch);
                }
            }
        });
        tap.seal(|epoch| !frontier.less_equal(&epoch));
    });
}
