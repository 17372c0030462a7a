//! Which rows Cassandra cannot hold, told before they are written.
//!
//! Invariants: (1) what is refused here depends on the row and on the cluster's settings alone, so
//! it is the same in a replay and in `verify`; (2) a key that Cassandra refuses is always refused
//! here, since no row of it could be deleted either.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType, TimestampNanosecondType};
use arrow::record_batch::RecordBatch;
use scylla::client::session::Session;

use super::super::contract::{Table, Unfit};
use super::super::convert::beyond_bigint;

/// Bytes of a partition key, and of the clustering columns together.
const KEY_BYTES_MAX: usize = 65_535;
/// What a column of a partition key of several takes beside its value.
const KEY_COLUMN_BYTES: usize = 3;
/// Bytes of a row where the cluster does not tell its limit: half of a commit log segment.
const ROW_BYTES_MAX: usize = 16 << 20;
/// What a statement takes beside the row's values: its head, and a bit for each column.
const STATEMENT_BYTES: usize = 1024;
/// The bytes of a value that is neither text nor blob, and of what stands before each value.
const VALUE_BYTES: usize = 32;

/// The settings that limit a row: of the commit log, of a message.
const SETTINGS: [&str; 3] = [
    "max_mutation_size",
    "native_transport_max_message_size",
    "native_transport_max_frame_size",
];

/// What a cluster takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    row_bytes: usize,
}

impl Limits {
    /// Asks the node that is connected, since version 4 Cassandra tells its settings.
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
        // One reason a row, whichever comes first.
        let by_row = unfit.into_iter().rev().map(|it| (it.row, it.reason));
        let by_row: BTreeMap<usize, String> = by_row.collect();
        let unfit = by_row.into_iter();
        unfit.map(|(row, reason)| Unfit { row, reason }).collect()
    }

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

async fn told(
    session: &Session,
) -> Result<Vec<(String, Option<String>)>, Box<dyn std::error::Error + Send + Sync>> {
    let all = "SELECT name, value FROM system_views.settings";
    let rows = session.query_unpaged(all, ()).await?.into_rows_result()?;
    let rows = rows.rows::<(String, Option<String>)>()?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A size as Cassandra writes it, such as `8192KiB` or `8388608B`.
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
    // Less than any cluster is run with is no limit.
    (bytes >= 1 << 16).then_some(bytes)
}

/// How long the values of a column are.
enum Lengths {
    /// Of text and blobs.
    Each(Vec<usize>),
    Fixed,
}

impl Lengths {
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

    fn at(&self, row: usize) -> usize {
        match self {
            Self::Each(lengths) => lengths.get(row).copied().unwrap_or(0),
            Self::Fixed => VALUE_BYTES,
        }
    }

    /// Of the longest value.
    fn most(&self) -> usize {
        match self {
            Self::Each(lengths) => lengths.iter().max().copied().unwrap_or(0) + VALUE_BYTES,
            Self::Fixed => 2 * VALUE_BYTES,
        }
    }
}

/// Rows whose key has an instant that is finer than Cassandra's: without its rest it could be the
/// key of another row.
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
