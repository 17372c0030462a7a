//! Rows that Cassandra cannot hold, found before they are written.
//!
//! Invariants:
//! 1. The decision depends only on the row and on the cluster's settings. Therefore it is the same
//!    in a replay and in `verify`.
//! 2. A key that Cassandra refuses is always refused here, because no row with this key could be
//!    deleted either.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType, TimestampNanosecondType};
use arrow::record_batch::RecordBatch;
use scylla::client::session::Session;

use super::super::contract::{Table, Unfit};
use super::super::convert::beyond_bigint;

/// Most bytes of a partition key, and of the clustering columns together.
const KEY_BYTES_MAX: usize = 65_535;
/// Bytes of a column in a composite partition key, beside its value.
const KEY_COLUMN_BYTES: usize = 3;
/// Most bytes of a row if the cluster does not report its limit: half of a commit log segment.
const ROW_BYTES_MAX: usize = 16 << 20;
/// Bytes of a statement beside the row's values: its header, and a bit for each column.
const STATEMENT_BYTES: usize = 1024;
/// An upper bound for the bytes of a value that is neither text nor blob, and of a value's header.
const VALUE_BYTES: usize = 32;

/// The settings that limit the size of a row: of the commit log and of a message.
const SETTINGS: [&str; 3] = [
    "max_mutation_size",
    "native_transport_max_message_size",
    "native_transport_max_frame_size",
];

/// The sizes that a cluster takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Most bytes of a row.
    row_bytes: usize,
}

impl Limits {
    /// Asks the connected node. Cassandra reports its settings since version 4; without an answer
    /// the default limit holds.
    pub(super) async fn ask(session: &Session) -> Self {
        let settings = Box::pin(told(session)).await.unwrap_or_default();
        let told = settings
            .iter()
            .filter(|(name, _)| SETTINGS.contains(&name.as_str()));
        let told = told.filter_map(|(_, value)| bytes(value.as_deref()?));
        Self {
            row_bytes: told.fold(ROW_BYTES_MAX, usize::min),
        }
    }

    /// See [`super::super::Sink::unfit`].
    pub(super) fn unfit(&self, table: &Table, rows: &RecordBatch) -> Vec<Unfit> {
        let mut unfit = Vec::new();
        beyond_bigint(table, rows, &mut unfit);
        let columns: Vec<Lengths> = rows.columns().iter().map(Lengths::of).collect();
        self.long(table, rows.num_rows(), &columns, &mut unfit);
        fine_keys(table, rows, &mut unfit);
        // A row gets one reason: the first one.
        let by_row = unfit.into_iter().rev().map(|it| (it.row, it.reason));
        let by_row: BTreeMap<usize, String> = by_row.collect();
        let unfit = by_row.into_iter();
        unfit.map(|(row, reason)| Unfit { row, reason }).collect()
    }

    /// Finds rows whose key or whose whole is too long.
    fn long(&self, table: &Table, rows: usize, columns: &[Lengths], unfit: &mut Vec<Unfit>) {
        let key = table.primary_key.iter();
        let key: Vec<&Lengths> = key.filter_map(|column| columns.get(*column)).collect();
        let (partition, clustering) = key.split_at(table.partition_columns.min(key.len()));
        let most: usize = columns.iter().map(Lengths::most).sum();
        let alone = matches!(partition, [Lengths::Each(_)]);
        if !alone && most < KEY_BYTES_MAX.min(self.row_bytes - STATEMENT_BYTES) / 2 {
            return;
        }
        for row in 0..rows {
            let length = |columns: &[&Lengths], each: usize| -> usize {
                columns.iter().map(|column| column.at(row) + each).sum()
            };
            let each = if partition.len() == 1 {
                0
            } else {
                KEY_COLUMN_BYTES
            };
            let all = columns.iter().map(|column| column.at(row) + 8);
            let row_bytes = self.row_bytes;
            let reason = if alone && length(partition, 0) == 0 {
                "its partition key is empty, which Cassandra does not take".to_owned()
            } else if length(partition, each) > KEY_BYTES_MAX {
                format!("its partition key is longer than Cassandra's {KEY_BYTES_MAX} bytes")
            } else if length(clustering, 0) > KEY_BYTES_MAX {
                format!("its clustering key is longer than Cassandra's {KEY_BYTES_MAX} bytes")
            } else if all.sum::<usize>() + STATEMENT_BYTES > row_bytes {
                format!("it is larger than the {row_bytes} bytes that the cluster takes at a time")
            } else {
                continue;
            };
            unfit.push(Unfit { row, reason });
        }
    }
}

/// All settings of the connected node, by name.
async fn told(
    session: &Session,
) -> Result<Vec<(String, Option<String>)>, Box<dyn std::error::Error + Send + Sync>> {
    let all = "SELECT name, value FROM system_views.settings";
    let rows = session.query_unpaged(all, ()).await?.into_rows_result()?;
    let rows = rows.rows::<(String, Option<String>)>()?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Parses a size in Cassandra's notation, such as `8192KiB` or `8388608B`.
fn bytes(text: &str) -> Option<usize> {
    let digits = text.find(|sign: char| !sign.is_ascii_digit());
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let factor = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    let bytes = number.parse::<usize>().ok()?.checked_mul(factor)?;
    // A value smaller than any real configuration is not taken as a limit.
    (bytes >= 1 << 16).then_some(bytes)
}

/// The lengths of a column's values, in bytes.
enum Lengths {
    /// The length of each value, for text and blobs.
    Each(Vec<usize>),
    /// Values of a bounded size.
    Fixed,
}

impl Lengths {
    /// The lengths of a column's values.
    fn of(column: &ArrayRef) -> Self {
        fn all<'a, T: AsRef<[u8]> + ?Sized + 'a>(
            values: impl Iterator<Item = Option<&'a T>>,
        ) -> Lengths {
            let lengths = values.map(|value| value.map_or(0, |value| value.as_ref().len()));
            Lengths::Each(lengths.collect())
        }
        match column.data_type() {
            DataType::Utf8 => all(column.as_string::<i32>().iter()),
            DataType::LargeUtf8 => all(column.as_string::<i64>().iter()),
            DataType::Utf8View => all(column.as_string_view().iter()),
            DataType::Binary => all(column.as_binary::<i32>().iter()),
            DataType::LargeBinary => all(column.as_binary::<i64>().iter()),
            DataType::BinaryView => all(column.as_binary_view().iter()),
            _ => Self::Fixed,
        }
    }

    /// The length of a row's value.
    fn at(&self, row: usize) -> usize {
        match self {
            Self::Each(lengths) => lengths.get(row).copied().unwrap_or(0),
            Self::Fixed => VALUE_BYTES,
        }
    }

    /// The length of the longest value, with its header.
    fn most(&self) -> usize {
        match self {
            Self::Each(lengths) => lengths.iter().max().copied().unwrap_or(0) + VALUE_BYTES,
            Self::Fixed => 2 * VALUE_BYTES,
        }
    }
}

/// Finds rows whose key contains an instant that is finer than Cassandra's milliseconds. Cut off,
/// the key could be that of another row.
fn fine_keys(table: &Table, rows: &RecordBatch, unfit: &mut Vec<Unfit>) {
    for column in &table.primary_key {
        let Some(values) = rows.columns().get(*column) else {
            continue;
        };
        let (values, unit): (Vec<Option<i64>>, i64) = match values.data_type() {
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                let values = values.as_primitive::<TimestampMicrosecondType>();
                (values.iter().collect(), 1_000)
            }
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                let values = values.as_primitive::<TimestampNanosecondType>();
                (values.iter().collect(), 1_000_000)
            }
            _ => continue,
        };
        let name = table.schema.field(*column).name();
        let fine = values.iter().enumerate();
        let fine = fine.filter(|(_, at)| at.is_some_and(|at| at % unit != 0));
        unfit.extend(fine.map(|(row, _)| Unfit {
            row,
            reason: format!(
                "key column `{name}` is finer than Cassandra's milliseconds; use \
                 date_trunc('millisecond', …) in the view"
            ),
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_cassandra_writes_them() {
        assert_eq!(bytes("8192KiB"), Some(8 << 20));
        assert_eq!(bytes("8388608B"), Some(8 << 20));
        assert_eq!(bytes("16MiB"), Some(16 << 20));
        for other in [
            "",
            "16",
            "KiB",
            "0KiB",
            "-1B",
            "1024B",
            "99999999999999999999B",
        ] {
            assert_eq!(bytes(other), None, "{other}");
        }
    }
}
