//! Rows that have no values for some of their columns, because these columns refused what a record
//! says. They are kept and sent as the bytes of the columns' indexes before those of the row.

use std::sync::Arc;

use tidemill_ir::row::Row;

/// The bytes of an index or a count.
const WIDTH: usize = size_of::<u32>();

/// A row with placeholders in these columns, and the columns.
pub fn row(lacking: &[usize], row: &Row) -> Row {
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
    let numbers = std::iter::once(lacking.len()).chain(lacking.iter().copied());
    let mut bytes: Vec<u8> = numbers.flat_map(number).collect();
    bytes.extend(row.bytes());
    Row(bytes.into_boxed_slice())
}

/// The columns that a partial row has no values for, and the bytes of the row; `None` if it is no
/// partial row.
pub fn parts(row: &Row) -> Option<(Arc<[usize]>, &[u8])> {
    let (count, rest) = row.bytes().split_first_chunk::<WIDTH>()?;
    let count = u32::from_le_bytes(*count) as usize;
    let (lacking, row) = rest.split_at_checked(count.checked_mul(WIDTH)?)?;
    let lacking = lacking.as_chunks::<WIDTH>().0.iter();
    let lacking = lacking.map(|index| u32::from_le_bytes(*index) as usize);
    Some((lacking.collect(), row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_row_has_its_columns_and_its_bytes() {
        for (lacking, bytes) in [
            (vec![0], &b"abc"[..]),
            (vec![3, 70_000], b""),
            (vec![], b"x"),
        ] {
            let partial = row(&lacking, &Row::new(bytes));
            let (columns, rest) = parts(&partial).unwrap();
            assert_eq!((&*columns, rest), (&*lacking, bytes));
        }
        assert!(parts(&Row::new(&[1, 0])).is_none());
        assert!(parts(&Row::new(&[9, 0, 0, 0, 1])).is_none());
    }
}
