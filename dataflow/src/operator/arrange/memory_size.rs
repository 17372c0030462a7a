//! Memory size of arrangements: rows are counted, bytes are estimated from a sample.

use std::rc::Rc;

use differential_dataflow::difference::Semigroup;
use differential_dataflow::trace::implementations::Vector;
use differential_dataflow::trace::implementations::ord_neu::{OrdKeyBatch, OrdValBatch};
use tidemill_ir::row::Row;

use crate::chunk::time::Time;
use crate::stats::operators::Size;

/// Items of a batch that are measured. All others are assumed to be like them.
const SAMPLE: usize = 32;

/// A key or value of an arrangement.
pub(crate) trait Weigh: Sized {
    /// Bytes on the heap, beyond `size_of`.
    fn beyond(&self) -> usize;
}

impl Weigh for Row {
    fn beyond(&self) -> usize {
        self.bytes().len()
    }
}

impl<T: Weigh> Weigh for Vec<T> {
    fn beyond(&self) -> usize {
        self.iter().map(|item| size_of::<T>() + item.beyond()).sum()
    }
}

impl<T: Weigh> Weigh for (u32, T) {
    fn beyond(&self) -> usize {
        self.1.beyond()
    }
}

/// Estimated bytes of a list: its own, and the heap bytes extrapolated from a sample.
fn list<T: Weigh>(items: &[T]) -> usize {
    let sample = items.iter().step_by(items.len().div_ceil(SAMPLE).max(1));
    let count = sample.len();
    let beyond: usize = sample.map(Weigh::beyond).sum();
    size_of_val(items) + (beyond * items.len()).checked_div(count).unwrap_or(0)
}

/// The size of a batch with so many updates and times; `rows` are the bytes of keys and values.
fn size<T, D>(updates: usize, times: usize, rows: usize) -> Size {
    let bytes = rows + times * (size_of::<T>() + size_of::<D>());
    Size {
        rows: updates as u64,
        bytes: bytes as u64,
    }
}

/// Batches in the form in which the spines of [`crate::operator::arrange`] hold them.
type Values<V, T, D> = Rc<OrdValBatch<Vector<((Row, V), T, D)>>>;
type Keys<T, D> = Rc<OrdKeyBatch<Vector<((Row, ()), T, D)>>>;

/// The size of a batch of values by key.
pub(crate) fn values<V, T, D>(batch: &Values<V, T, D>) -> Size
where
    T: Time,
    V: Weigh + Ord + Clone + 'static,
    D: Semigroup + Ord + 'static,
{
    let storage = &batch.storage;
    let rows = list(&storage.keys) + list(&storage.vals.vals);
    size::<T, D>(batch.updates, storage.upds.times.len(), rows)
}

/// The size of a batch of keys without values.
pub(crate) fn keys<T, D>(batch: &Keys<T, D>) -> Size
where
    T: Time,
    D: Semigroup + Ord + 'static,
{
    let storage = &batch.storage;
    let times = storage.upds.times.len();
    size::<T, D>(batch.updates, times, list(&storage.keys))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_stands_for_all() {
        let rows = |count: usize| -> Vec<Row> { vec![Row::new(&[7; 10]); count] };
        let each = size_of::<Row>() + 10;
        for count in [0, 1, 31, 32, 33, 1000] {
            assert_eq!(list(&rows(count)), count * each, "{count} rows");
        }
        let nested = vec![(0_u32, rows(3)); 2];
        let of = size_of::<(u32, Vec<Row>)>();
        assert_eq!(list(&nested), 2 * (of + 3 * each));
    }
}
