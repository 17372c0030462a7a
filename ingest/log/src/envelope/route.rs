//! Partitioning: the partition of a change, from the values of its primary key.
//!
//! Neither the schema id nor the names and types of the columns take part. So a key stays in its
//! partition when its column is renamed, or widened from `int` to `bigint`, `numeric` or `text`.
//! The rule has no version, because keys would move to other partitions with a new one:
//!
//! The partition is `murmur2(bytes) & 0x7fffffff % partitions`, with Kafka's murmur2
//! ([`partition_of`]). The bytes are, for each column of the key in the order of the key, the
//! length of the value's text in bytes (32 bits, big-endian), followed by the text in UTF-8:
//!
//! | value | text |
//! |---|---|
//! | boolean | `true` or `false` |
//! | integer | decimal digits, after `-` when negative |
//! | decimal | the same, with `.` and the fraction without zeros at its end, if any is left |
//! | floating-point number | the shortest digits that give the number back, without an exponent |
//! | text | the text itself |
//! | bytes | `\x` and two hexadecimal digits a byte |
//! | date | days since 1970-01-01 |
//! | timestamp | microseconds since 1970-01-01 |

use crate::envelope::event::{Change, Op, Value};
use crate::log::partition_of;
use crate::schema::ColumnType;

/// The partition of a change in a topic of `partitions` partitions. `None` for a truncate, which
/// belongs to all of them.
#[must_use]
pub fn partition_of_change(change: &Change, partitions: u32) -> Option<u32> {
    if change.op == Op::Truncate {
        return None;
    }
    let row = change.after.as_ref().or(change.before.as_ref())?;
    let mut bytes = Vec::with_capacity(32);
    for index in &change.table.key {
        let value = row.get(*index).unwrap_or(&Value::Null);
        let kind = change.table.columns.get(*index).map(|column| column.kind);
        let text = text(value, kind);
        bytes.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend(text.as_bytes());
    }
    Some(partition_of(&bytes, partitions))
}

/// The text of a value by the table in the module's documentation.
fn text(value: &Value, kind: Option<ColumnType>) -> String {
    match value {
        Value::Bool(it) => it.to_string(),
        Value::Int(it) | Value::Timestamp(it) => it.to_string(),
        Value::Date(it) => it.to_string(),
        Value::Float(it) => it.to_string(),
        Value::Text(it) => it.clone(),
        Value::Decimal(it) => match kind {
            Some(ColumnType::Decimal { scale, .. }) => decimal(*it, scale),
            _ => it.to_string(),
        },
        Value::Bytes(it) => {
            let digits = it.iter().map(|byte| format!("{byte:02x}"));
            format!("\\x{}", digits.collect::<String>())
        }
        other => format!("{other:?}"),
    }
}

/// The shortest text of `unscaled × 10^-scale`.
fn decimal(unscaled: i128, scale: i8) -> String {
    let places = usize::from(scale.unsigned_abs());
    let sign = if unscaled < 0 { "-" } else { "" };
    let digits = unscaled.unsigned_abs().to_string();
    if unscaled == 0 || scale <= 0 {
        let zeros = if unscaled == 0 { 0 } else { places };
        return format!("{sign}{digits}{:0<zeros$}", "");
    }
    let digits = format!("{digits:0>width$}", width = places + 1);
    let (whole, fraction) = digits.split_at(digits.len() - places);
    match fraction.trim_end_matches('0') {
        "" => format!("{sign}{whole}"),
        fraction => format!("{sign}{whole}.{fraction}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::envelope::event::Position;
    use crate::schema::{Column, TableSchema};

    fn change(key: &[(ColumnType, Value)]) -> Change {
        let columns = key.iter().enumerate().map(|(index, (kind, _))| Column {
            name: format!("k{index}"),
            kind: *kind,
            nullable: false,
        });
        let table = TableSchema {
            namespace: "public".to_owned(),
            name: "t".to_owned(),
            columns: columns.collect(),
            key: (0..key.len()).collect(),
        };
        Change {
            table: Arc::new(table),
            op: Op::Create,
            before: None,
            after: Some(key.iter().map(|(_, value)| value.clone()).collect()),
            position: Position::default(),
            transaction: 0,
            committed_us: 0,
            snapshot: false,
        }
    }

    const NUMERIC: ColumnType = ColumnType::Decimal {
        precision: 12,
        scale: 4,
    };

    #[test]
    fn a_value_has_one_partition_whatever_its_columns_type_is() {
        for number in [-7_i64, 0, 1, 40, 3_000_000_000] {
            let same = [
                (ColumnType::Int, Value::Int(number)),
                (ColumnType::Long, Value::Int(number)),
                (NUMERIC, Value::Decimal(i128::from(number) * 10_000)),
                (ColumnType::Double, Value::Float(number as f64)),
                (ColumnType::Text, Value::Text(number.to_string())),
            ];
            let places = same.map(|one| partition_of_change(&change(&[one]), 1_000));
            assert!(places.iter().all(|it| *it == places[0]), "{places:?}");
        }
        let a_long_with_two = [(ColumnType::Text, "ab"), (ColumnType::Text, "c")];
        let of = |texts: &[(ColumnType, &str)]| {
            let key: Vec<_> = texts
                .iter()
                .map(|(kind, text)| (*kind, Value::Text((*text).to_owned())))
                .collect();
            partition_of_change(&change(&key), 1 << 30)
        };
        let other = [(ColumnType::Text, "a"), (ColumnType::Text, "bc")];
        assert_ne!(of(&a_long_with_two), of(&other));
    }

    /// The rule is frozen: with another one the changes of a key would be in two partitions.
    #[test]
    fn the_rule_never_changes() {
        let known = [
            (ColumnType::Int, Value::Int(1)),
            (ColumnType::Text, Value::Text("foobar".to_owned())),
            (NUMERIC, Value::Decimal(-5)),
            (ColumnType::Bytes, Value::Bytes(vec![0, 255])),
            (ColumnType::Bool, Value::Bool(true)),
        ];
        let bytes: [&[u8]; 5] = [
            b"\0\0\0\x011",
            b"\0\0\0\x06foobar",
            b"\0\0\0\x07-0.0005",
            b"\0\0\0\x06\\x00ff",
            b"\0\0\0\x04true",
        ];
        for (one, bytes) in known.into_iter().zip(bytes) {
            let place = partition_of_change(&change(&[one]), 4_096);
            assert_eq!(place, Some(partition_of(bytes, 4_096)));
        }
        assert_eq!(decimal(12_500, 4), "1.25");
        assert_eq!(decimal(-12, -2), "-1200");
        assert_eq!(decimal(0, 4), "0");
    }
}
