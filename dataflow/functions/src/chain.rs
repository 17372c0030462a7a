//! Chains of operands as trees of small depth.
//!
//! Planning and evaluation recurse as deep as an expression nests.

/// Chains with more operands than this are balanced. Shorter chains stay as they are, so that the
/// fingerprints of views that earlier versions planned stay the same.
pub const BALANCED_FROM: usize = 32;

/// Combines the operands by `both`: from left to right while they are few, otherwise as a tree of
/// small depth. `None` if there are no operands.
pub fn chained<T>(operands: Vec<T>, both: impl Fn(T, T) -> T) -> Option<T> {
    if operands.len() <= BALANCED_FROM {
        return operands.into_iter().reduce(both);
    }
    let mut operands = operands;
    while operands.len() > 1 {
        let mut pairs = Vec::with_capacity(operands.len().div_ceil(2));
        let mut left_over = operands.into_iter();
        while let Some(left) = left_over.next() {
            pairs.push(match left_over.next() {
                None => left,
                Some(right) => both(left, right),
            });
        }
        operands = pairs;
    }
    operands.pop()
}
