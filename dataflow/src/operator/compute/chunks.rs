//! From updates of a collection to chunks, as the last step of a stateful operator.

use std::rc::Rc;

use tidemill_log::Result;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator;

use crate::chunk::time::Time;
use crate::chunk::{Chunk, ChunkStream, by_epoch};
use crate::context::Context;

/// Makes one chunk of all updates of an epoch that arrive together. An error of `decode` ends the
/// job.
pub(crate) fn chunks<'scope, T: Time, D: Clone + 'static>(
    updates: StreamVec<'scope, T, (D, T, isize)>,
    name: &str,
    context: &Rc<Context>,
    decode: impl Fn(T, &[(D, i64)]) -> Result<Chunk<T>> + 'static,
) -> ChunkStream<'scope, T> {
    let context = Rc::clone(context);
    updates.unary(Pipeline, name, move |_, _| {
        move |input, output| {
            input.for_each(|cap, updates: &mut Vec<(D, T, isize)>| {
                let mut session = output.session(&cap);
                for (epoch, updates) in by_epoch(updates.drain(..)) {
                    match decode(epoch, &updates) {
                        Ok(chunk) => session.give(chunk),
                        Err(error) => context.fail(error),
                    }
                }
            });
        }
    })
}
