//! Grouping the rows of one batch: the group of each row, and the encoded key of each group.
//!
//! Keys of common types are compared as values, and only one row of each group is encoded. With
//! several key columns, the columns are grouped one after the other: the next step numbers pairs of
//! (group so far, value of the next column). Keys of other types are encoded row by row and
//! compared as bytes.

use std::hash::{BuildHasher, Hash};

use arrow::array::{ArrayRef, AsArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{
    DataType, Date32Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use tidemill_ir::row::{Row, RowCodec};
use tidemill_log::Result;

/// The groups of one batch.
pub(crate) struct Groups {
    /// The index of each row's group.
    pub(crate) of_row: Vec<u32>,
    /// The encoded key of each group.
    pub(crate) keys: Vec<Row>,
}

/// Groups rows by their key columns; `count` is the number of rows.
///
/// # Errors
/// `Bug` when a key cannot be encoded.
pub(crate) fn group(codec: &RowCodec, keys: &[ArrayRef], count: usize) -> Result<Groups> {
    let Some(numbers) = by_value(keys) else {
        let encoded = codec.encode(keys, count)?;
        let numbers = number((0..count).map(|row| Some(encoded.bytes(row))), count);
        let first_rows = numbers.first_rows.into_iter();
        return Ok(Groups {
            keys: first_rows.map(|row| encoded.row(row as usize)).collect(),
            of_row: numbers.of_row,
        });
    };
    let first_rows = UInt32Array::from(numbers.first_rows);
    let firsts = keys.iter().map(|key| take(key, &first_rows, None));
    let firsts: Vec<ArrayRef> = firsts
        .collect::<std::result::Result<_, _>>()
        .map_err(tidemill_ir::row::bug)?;
    let encoded = codec.encode(&firsts, first_rows.len())?;
    Ok(Groups {
        of_row: numbers.of_row,
        keys: (0..encoded.num_rows())
            .map(|row| encoded.row(row))
            .collect(),
    })
}

/// The distinct values of a column, numbered in the order of their first rows.
struct Numbers {
    /// The number of each row's value.
    of_row: Vec<u32>,
    /// The first row of each value.
    first_rows: Vec<u32>,
}

/// Groups by value; `None` if there are no keys, or one whose type is not compared by value here.
fn by_value(keys: &[ArrayRef]) -> Option<Numbers> {
    let (first, others) = keys.split_first()?;
    let mut numbers = column(first)?;
    for other in others {
        let other = column(other)?.of_row.into_iter();
        let pairs = numbers.of_row.iter().copied().zip(other);
        numbers = number(pairs.map(Some), first.len());
    }
    Some(numbers)
}

/// Numbers the values of one column; `None` if its type is not compared by value here.
fn column(key: &ArrayRef) -> Option<Numbers> {
    let rows = key.len();
    Some(match key.data_type() {
        DataType::Utf8 => {
            let texts = key.as_string::<i32>().iter();
            number(texts.map(|text| text.map(str::as_bytes)), rows)
        }
        DataType::Boolean => number(key.as_boolean().iter(), rows),
        DataType::Int32 => number(key.as_primitive::<Int32Type>().iter(), rows),
        DataType::Int64 => number(key.as_primitive::<Int64Type>().iter(), rows),
        DataType::Date32 => number(key.as_primitive::<Date32Type>().iter(), rows),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            number(key.as_primitive::<TimestampMicrosecondType>().iter(), rows)
        }
        _ => return None,
    })
}

/// Numbers values by a hash table. All nulls are one value.
fn number<V: Hash + Eq + Copy>(values: impl Iterator<Item = Option<V>>, rows: usize) -> Numbers {
    let state = foldhash::fast::RandomState::default();
    let mut table: HashTable<(V, u32)> = HashTable::new();
    let mut numbers = Numbers {
        of_row: Vec::with_capacity(rows),
        first_rows: Vec::new(),
    };
    let mut null = None;
    // A batch has far fewer than 2³² rows, because sources limit their micro-batches.
    for (row, value) in values.enumerate() {
        let next = numbers.first_rows.len() as u32;
        let number = match value {
            None => *null.get_or_insert(next),
            Some(value) => {
                let found = table.entry(
                    state.hash_one(value),
                    |(other, _)| *other == value,
                    |(other, _)| state.hash_one(other),
                );
                match found {
                    Entry::Occupied(entry) => entry.get().1,
                    Entry::Vacant(entry) => entry.insert((value, next)).get().1,
                }
            }
        };
        if number == next {
            numbers.first_rows.push(row as u32);
        }
        numbers.of_row.push(number);
    }
    numbers
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BooleanArray, Float64Array, Int32Array, StringArray};
    use arrow::datatypes::{Field, Schema};
    use proptest::prelude::*;

    use super::*;

    /// The groups of encoded rows, found by looking through all that came before.
    fn slow(codec: &RowCodec, keys: &[ArrayRef], count: usize) -> (Vec<u32>, Vec<Row>) {
        let encoded = codec.encode(keys, count).unwrap();
        let mut groups: Vec<Row> = Vec::new();
        let of_row = (0..count).map(|row| {
            let row = encoded.row(row);
            let known = groups.iter().position(|group| *group == row);
            known.unwrap_or_else(|| {
                groups.push(row);
                groups.len() - 1
            }) as u32
        });
        (of_row.collect(), groups)
    }

    proptest! {
        #[test]
        fn groups_are_those_of_the_encoded_rows(
            rows in prop::collection::vec((
                prop::option::of("[ab]{0,2}"),
                prop::option::of(0..3),
                prop::option::of(any::<bool>()),
                prop::option::of(prop_oneof![Just(0.0), Just(-0.0), Just(f64::NAN)]),
            ), 0..40),
            first in 0..4_usize,
            columns in 0..5_usize,
        ) {
            let all: [ArrayRef; 4] = [
                Arc::new(rows.iter().map(|row| row.0.clone()).collect::<StringArray>()),
                Arc::new(rows.iter().map(|row| row.1).collect::<Int32Array>()),
                Arc::new(rows.iter().map(|row| row.2).collect::<BooleanArray>()),
                Arc::new(rows.iter().map(|row| row.3).collect::<Float64Array>()),
            ];
            let keys: Vec<ArrayRef> =
                all.iter().cycle().skip(first).take(columns).map(Arc::clone).collect();
            let fields = keys.iter().enumerate();
            let fields = fields.map(|(i, key)| {
                Field::new(format!("{i}"), key.data_type().clone(), true)
            });
            let codec = RowCodec::new(Arc::new(Schema::new(fields.collect::<Vec<_>>()))).unwrap();
            let groups = group(&codec, &keys, rows.len()).unwrap();
            prop_assert_eq!((groups.of_row, groups.keys), slow(&codec, &keys, rows.len()));
        }
    }
}
