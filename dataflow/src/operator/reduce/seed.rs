//! A constant input: one update at the least epoch, from worker 0.

use tidemill_ir::Epoch;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::generic::operator::source;
use timely::dataflow::{Scope, StreamVec};

/// A stream with one update at epoch 0 from worker 0. Its capability is dropped at once.
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
