//! Inner joins: both sides arranged by their keys, and each change of one paired with what is held
//! of the other ([`super::join_tactic`]).
//!
//! Frontier contract: pairs at the later of their rows' epochs, under the capability of the batch
//! that brought the later row, which is held until all its pairs are given. Either arrangement is
//! compacted to the frontier of the other side.

use std::rc::Rc;

use arrow::datatypes::SchemaRef;
use differential_dataflow::operators::join::join_with_tactic;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator;

use super::arrange::{Decoder, Layout, NullKeys, arrange_values};
use super::join_tactic::{Nested, Pair, Pairs};
use crate::Result;
use crate::chunk::{Chunk, ChunkStream};
use crate::context::Context;
use crate::plan::ir::Scalar;
use crate::row::{batch, nullable};
use crate::site::Site;

/// One of the two inputs.
pub(crate) struct Side<'scope> {
    pub(crate) rows: ChunkStream<'scope>,
    pub(crate) schema: SchemaRef,
    /// Where the rows are kept; none when they come out of other state.
    pub(crate) site: Option<Site>,
}

/// Renders a join on pairs of keys, for which null may equal null; `schema` is the left columns,
/// then the right ones.
pub(crate) fn join<'scope>(
    left: Side<'scope>,
    right: Side<'scope>,
    context: &Rc<Context>,
    (keys, nulls_equal): (&[(Scalar, Scalar)], bool),
    schema: &SchemaRef,
) -> Result<ChunkStream<'scope>> {
    let nulls = match nulls_equal {
        true => NullKeys::Kept,
        false => NullKeys::Dropped,
    };
    let arranged = |side: Side<'scope>, keys: &[Scalar], name| {
        let layout = Layout::new(&side.schema, keys, &[])?;
        let updates = layout.updates(side.rows, context, nulls)?;
        let arranged = arrange_values(updates, name, context, side.site.as_ref());
        Result::Ok((arranged, layout.decoder()?))
    };
    let (left_keys, right_keys): (Vec<_>, Vec<_>) = keys.iter().cloned().unzip();
    let (left, left_decoder) = arranged(left, &left_keys, "ArrangeJoinLeft")?;
    let (right, right_decoder) = arranged(right, &right_keys, "ArrangeJoinRight")?;
    let pairs = join_with_tactic(left, right, "Join", Nested);
    let joined = Joined {
        left: left_decoder,
        right: right_decoder,
        schema: nullable(schema),
    };
    let context = Rc::clone(context);
    Ok(
        pairs.unary::<CapacityContainerBuilder<Vec<Chunk>>, _, _, _>(
            Pipeline,
            "JoinedChunks",
            move |_, _| {
                move |input, output| {
                    input.for_each(|cap, pairs: &mut Pairs| {
                        let mut session = output.session(&cap);
                        let pairs = std::mem::take(pairs);
                        for pairs in pairs.by_epoch().chunk_by(|a, b| a.epoch == b.epoch) {
                            match joined.chunk(pairs) {
                                Ok(chunk) => session.give(chunk),
                                Err(error) => context.fail(error),
                            }
                        }
                    });
                }
            },
        ),
    )
}

/// Pairs back to columns.
struct Joined {
    left: Decoder,
    right: Decoder,
    schema: SchemaRef,
}

impl Joined {
    /// The rows of pairs of one epoch.
    fn chunk(&self, pairs: &[Pair<'_>]) -> Result<Chunk> {
        let keys = || pairs.iter().map(|pair| pair.key);
        let mut columns = self
            .left
            .columns(keys(), pairs.iter().map(|pair| pair.left))?;
        columns.extend(
            self.right
                .columns(keys(), pairs.iter().map(|pair| pair.right))?,
        );
        Ok(Chunk {
            epoch: pairs.first().map_or(0, |pair| pair.epoch),
            batch: batch(&self.schema, columns, pairs.len())?,
            diffs: pairs.iter().map(|pair| pair.diff as i64).collect(),
        })
    }
}
