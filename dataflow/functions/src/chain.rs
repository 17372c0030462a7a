//! Chains of operands as trees of small depth.
//!
//! Planning and evaluation recurse as deep as an expression nests.
//!
//! Input: the operands of a chain in the order in which they are written, such as the 5000
//! comparisons that `IN (…)` becomes. Output: one expression. The operands keep their order; only
//! the nesting changes, so `both` must be associative (AND, OR, UNION ALL).
//!
//! ```text
//! 32 operands:  ((((a b) c) d) …)     depth 31, as they were written
//! 33 operands:  ((a b) (c d)) …       depth  6, the logarithm of their number
//! ```

/// Chains with more operands than this are balanced. Shorter chains stay as they are, so that the
/// fingerprints of views that earlier versions planned stay the same.
pub const BALANCED_FROM: usize = 32;

/// Combines the operands by `both`: from left to right while they are few, otherwise as a tree of
/// small depth. `None` if there are no operands.
///
/// ```
/// use tidemill_functions::chain::chained;
///
/// let or = |left: String, right: String| format!("({left} OR {right})");
/// let operands = ["a", "b", "c"].map(str::to_owned).to_vec();
/// assert_eq!(chained(operands, or).as_deref(), Some("((a OR b) OR c)"));
///
/// // A thousand operands nest only ten levels deep.
/// let depth = |left: u32, right: u32| 1 + left.max(right);
/// assert_eq!(chained(vec![0; 1000], depth), Some(10));
/// ```
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
