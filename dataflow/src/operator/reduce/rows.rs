//! The rows of a batch that are added up: which group each belongs to, and how often it counts.

use tidemill_state::value::totals::Sum;

/// The group and multiplicity of each row of a batch.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// The index of each row's group.
    pub(crate) groups: &'a [u32],
    /// The multiplicity of each row; negative for retractions.
    pub(crate) times: &'a [i64],
}

impl Rows<'_> {
    /// Adds up the values by group, and counts those that are not null. `groups` is the number of
    /// groups. The totals are made at the end, so that the loop over rows touches only plain sums.
    pub(crate) fn add_up<V, S: Clone + Default>(
        self,
        values: impl Iterator<Item = Option<V>>,
        groups: usize,
        add: impl Fn(&mut S, V, i64),
        total: impl Fn(S) -> Sum,
    ) -> Vec<(i64, Sum)> {
        let mut sums = vec![(0, S::default()); groups];
        for ((value, &group), &times) in values.zip(self.groups).zip(self.times) {
            if let (Some(value), Some((count, sum))) = (value, sums.get_mut(group as usize)) {
                *count += times;
                add(sum, value, times);
            }
        }
        let sums = sums.into_iter();
        sums.map(|(count, sum)| (count, total(sum))).collect()
    }
}
