//! Rows that no PostgreSQL table can hold, found before they are written.
//!
//! Invariant: the decision depends only on the row. Therefore it is the same in a replay and in
//! `verify`.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Date32Type, TimeUnit, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;

use super::super::contract::{Table, Unfit};
use super::super::convert::beyond_bigint;
use super::column::{DAYS_TO_2000, MICROS_TO_2000};

/// The first day that PostgreSQL knows, 4714-11-24 BC, in days since 1970.
const FIRST_DAY: i64 = -2_440_588;
/// The first day that its dates do not reach, 5874898-01-01.
const DAYS_END: i64 = 2_145_031_949 + DAYS_TO_2000 as i64;
/// The first instant, and the first that is out of range, 294277-01-01, in µs since 1970.
const FIRST_INSTANT: i64 = FIRST_DAY * 86_400_000_000;
const INSTANTS_END: i64 = 9_223_371_331_200_000_000_i64.saturating_add(MICROS_TO_2000);

/// See [`super::super::Sink::unfit`].
pub(super) fn unfit(table: &Table, rows: &RecordBatch) -> Vec<Unfit> {
    let mut unfit = Vec::new();
    beyond_bigint(table, rows, &mut unfit);
    for (field, column) in table.schema.fields().iter().zip(rows.columns()) {
        for (row, what) in wrong(column) {
            let reason = format!("column `{}` holds {what}", field.name());
            unfit.push(Unfit { row, reason });
        }
    }
    // A row gets one reason: the first one.
    let by_row = unfit.into_iter().rev().map(|it| (it.row, it.reason));
    let by_row: BTreeMap<usize, String> = by_row.collect();
    let unfit = by_row.into_iter();
    unfit.map(|(row, reason)| Unfit { row, reason }).collect()
}

/// The rows of a column whose values PostgreSQL does not have.
fn wrong(column: &ArrayRef) -> Vec<(usize, &'static str)> {
    const ZERO: &str = "the character U+0000, which PostgreSQL does not take";
    const DATE: &str = "a date beyond those of PostgreSQL (4713 BC to 5874897)";
    const INSTANT: &str = "a time beyond those of PostgreSQL (4713 BC to 294276)";
    fn of<T>(
        values: impl Iterator<Item = Option<T>>,
        is_wrong: impl Fn(T) -> bool,
        what: &'static str,
    ) -> Vec<(usize, &'static str)> {
        let values = values.enumerate();
        let wrong = values.filter_map(|(row, value)| is_wrong(value?).then_some((row, what)));
        wrong.collect()
    }
    let zero = |text: &str| text.contains('\0');
    match column.data_type() {
        DataType::Utf8 => of(column.as_string::<i32>().iter(), zero, ZERO),
        DataType::LargeUtf8 => of(column.as_string::<i64>().iter(), zero, ZERO),
        DataType::Utf8View => of(column.as_string_view().iter(), zero, ZERO),
        DataType::Date32 => {
            let days = column.as_primitive::<Date32Type>().iter();
            let far = |day: i32| !(FIRST_DAY..DAYS_END).contains(&i64::from(day));
            of(days, far, DATE)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let instants = column.as_primitive::<TimestampMicrosecondType>().iter();
            let far = |at: i64| !(FIRST_INSTANT..INSTANTS_END).contains(&at);
            of(instants, far, INSTANT)
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Date32Array, StringArray, TimestampMicrosecondArray};

    use super::*;

    #[test]
    fn values_that_postgresql_does_not_have() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some("a\0"), None]));
        let of = |column: &ArrayRef| -> Vec<usize> {
            wrong(column).into_iter().map(|(row, _)| row).collect()
        };
        assert_eq!(of(&texts), [1]);
        let days: ArrayRef = Arc::new(Date32Array::from(vec![i32::MIN, 0, i32::MAX]));
        assert_eq!(of(&days), [0, 2]);
        let instants = vec![i64::MIN, -62_135_596_800_000_000, i64::MAX];
        let instants: ArrayRef = Arc::new(TimestampMicrosecondArray::from(instants));
        assert_eq!(of(&instants), [0, 2]);
    }
}
