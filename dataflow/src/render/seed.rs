//! A constant input of an operator.

use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::generic::operator::source;
use timely::dataflow::{Scope, StreamVec};

use crate::Epoch;

/// One update at the least epoch, from one worker.
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
