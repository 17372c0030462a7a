//! Chunks: Arrow batches with a difference per row, which flow between the operators of one worker.

pub(crate) mod time;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use arrow::record_batch::RecordBatch;
use tidemill_ir::Epoch;
use tidemill_ir::row::{Row, RowCodec};
use tidemill_log::Result;
use timely::dataflow::StreamVec;

/// Changes to a collection at one time: row `i` of `batch` is added `diffs[i]` times, or removed
/// if `diffs[i]` is negative.
#[derive(Debug, Clone)]
pub(crate) struct Chunk<T = Epoch> {
    /// The time of all rows: an epoch, or within a recursion a [`crate::chunk::time::Round`].
    pub(crate) epoch: T,
    /// The rows.
    pub(crate) batch: RecordBatch,
    /// The difference of each row; as long as the batch.
    pub(crate) diffs: Arc<[i64]>,
}

/// A collection as a stream between operators of one worker. It never crosses workers.
pub(crate) type ChunkStream<'scope, T = Epoch> = StreamVec<'scope, T, Chunk<T>>;

/// Rows of a source.
#[derive(Debug, Clone)]
pub(crate) struct SourceChunk {
    /// The rows.
    pub(crate) rows: Chunk,
    /// The indexes of the columns that all of these rows have only placeholders in, because the
    /// columns refused what the records say. Only views that do not read them have these rows.
    pub(crate) lacking: Arc<[usize]>,
}

/// The rows of a source as a stream between operators of one worker.
pub(crate) type SourceStream<'scope> = StreamVec<'scope, Epoch, SourceChunk>;

impl<T: Copy> Chunk<T> {
    /// A chunk of rows that are each added once.
    pub(crate) fn insertions(epoch: T, batch: RecordBatch) -> Self {
        let diffs = vec![1; batch.num_rows()].into();
        Self {
            epoch,
            batch,
            diffs,
        }
    }

    /// Decodes rows with their differences.
    ///
    /// # Errors
    /// `Bug` when the bytes are not what the codec wrote.
    pub(crate) fn decode<'a>(
        epoch: T,
        codec: &RowCodec,
        rows: impl Iterator<Item = (&'a Row, i64)>,
    ) -> Result<Self> {
        let (rows, diffs): (Vec<_>, Vec<_>) = rows.unzip();
        let batch = codec.decode(rows.into_iter())?;
        Ok(Self {
            epoch,
            batch,
            diffs: diffs.into(),
        })
    }

    /// The rows for which `keep` is true. False and null drop a row.
    ///
    /// # Errors
    /// `Bug` when `keep` has another length than the chunk.
    pub(crate) fn filter(&self, keep: &BooleanArray) -> Result<Self> {
        let batch = filter_record_batch(&self.batch, keep).map_err(tidemill_ir::row::bug)?;
        let kept = self.diffs.iter().zip(keep.iter());
        let diffs = kept
            .filter(|(_, keep)| *keep == Some(true))
            .map(|(diff, _)| *diff)
            .collect();
        Ok(Self {
            epoch: self.epoch,
            batch,
            diffs,
        })
    }

    /// Rows `from..from + count`, which must exist.
    pub(crate) fn slice(&self, from: usize, count: usize) -> Self {
        let batch = self.batch.slice(from, count);
        Self {
            epoch: self.epoch,
            batch,
            diffs: self.diffs[from..from + count].into(),
        }
    }

    /// The same changes at another time.
    pub(crate) fn at<U>(self, epoch: U) -> Chunk<U> {
        Chunk {
            epoch,
            batch: self.batch,
            diffs: self.diffs,
        }
    }
}

/// Groups updates of a differential collection by epoch, in epoch order.
pub(crate) fn by_epoch<T: Ord, D>(
    updates: impl Iterator<Item = (D, T, isize)>,
) -> BTreeMap<T, Vec<(D, i64)>> {
    let mut epochs: BTreeMap<T, Vec<(D, i64)>> = BTreeMap::new();
    for (data, epoch, diff) in updates {
        epochs.entry(epoch).or_default().push((data, diff as i64));
    }
    epochs
}
