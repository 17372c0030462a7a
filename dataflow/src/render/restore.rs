//! The state of an operator through a restart: restored from the last checkpoint, tapped for the
//! next one.
//!
//! Around the arrangement of a [`Site`] stand two operators: [`restore`] adds the state of the last
//! checkpoint at the checkpoint's epoch, and drops what the input has at or below that epoch; a
//! [`Tap`] adds up what changes after it, for the next checkpoint.

use std::rc::Rc;
use std::sync::Arc;

use differential_dataflow::trace::Span;
use differential_dataflow::trace::cursor::{Cursor, Navigable};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::{Capability, Operator};

use crate::Epoch;
use crate::checkpoint::writer::Sealed;
use crate::checkpoint::{Change, Changes, Entry, Reader};
use crate::context::Context;
use crate::row::Row;
use crate::site::Site;

/// Adds a site's restored state to its input. `epoch_of` tells an update's epoch, `make` makes an
/// update of an entry.
///
/// Frontier contract: holds a capability from the least time on until the start is known, then at
/// the checkpoint's epoch until all of the state was sent.
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

/// Adds up a site's changes for the next checkpoint.
pub(crate) struct Tap<C> {
    context: Rc<Context>,
    site: Site,
    /// Changes for the next checkpoint.
    now: Changes<C>,
    /// Changes after its epoch, where that is known already.
    later: Changes<C>,
    /// Through which epoch changes are in a checkpoint: the one that the site was restored from,
    /// then the last one that was handed over. Not known before the first change.
    sealed: Option<Epoch>,
}

impl<C: Change> Tap<C> {
    pub(crate) fn new(context: &Rc<Context>, site: Site) -> Self {
        Self {
            context: Rc::clone(context),
            site,
            now: Changes::default(),
            later: Changes::default(),
            sealed: None,
        }
    }

    /// The checkpoint that is asked for and not yet handed over.
    fn asked(&self) -> Option<Epoch> {
        let asked = self.context.checkpoint.get();
        asked.filter(|epoch| Some(*epoch) > self.sealed)
    }

    /// Takes a change. What the checkpoint that the site was restored from holds is no change.
    pub(crate) fn add(&mut self, epoch: Epoch, key: &Row, value: &Row, change: &C) {
        let (site, context) = (&self.site, &self.context);
        let restored = || context.restored(site).map_or(0, |(epoch, _)| epoch);
        let sealed = *self.sealed.get_or_insert_with(restored);
        // Epochs begin above 0, where the plan's own rows are.
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

    /// Hands over the checkpoint that is asked for, once every epoch through it is complete.
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

/// Taps the batches of an arrangement.
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
