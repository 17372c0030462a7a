//! Type conversion between a view's columns and the types that an engine stores.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatchOptions, make_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, UInt64Type,
};
use arrow::record_batch::RecordBatch;
use tidemill_log::Result;

use super::contract::{Table, Unfit};
use super::existing::mismatch;

pub(super) mod scan;

/// The same instants with another time zone name, or none. The stored numbers are UTC in any case.
fn with_zone(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let data = array
        .to_data()
        .into_builder()
        .data_type(to.clone())
        .build()
        .map_err(|e| {
            tidemill_log::Error::with_source(tidemill_log::Kind::Bug, format!("as {to}"), e)
        })?;
    Ok(make_array(data))
}

/// Casts a column of `table`.
///
/// # Errors
/// `Data` when a value does not fit the type.
pub(super) fn convert(
    table: &str,
    column: &str,
    array: &ArrayRef,
    to: &DataType,
) -> Result<ArrayRef> {
    let array = match array.data_type() {
        DataType::Timestamp(unit, Some(_)) => with_zone(array, &DataType::Timestamp(*unit, None))?,
        _ => Arc::clone(array),
    };
    if array.data_type() == to {
        return Ok(array);
    }
    if let DataType::Timestamp(unit, Some(_)) = to {
        let naive = convert(table, column, &array, &DataType::Timestamp(*unit, None))?;
        return with_zone(&naive, to);
    }
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let array = match (array.data_type(), to) {
        (DataType::Timestamp(TimeUnit::Microsecond, _), DataType::Timestamp(unit, _))
            if *unit == TimeUnit::Millisecond =>
        {
            // A cast truncates towards 1970, which would move earlier instants forward. This rounds
            // down.
            let micros = array.as_primitive::<TimestampMicrosecondType>();
            Arc::new(micros.unary::<_, TimestampMillisecondType>(|at| at.div_euclid(1000)))
        }
        _ => array,
    };
    cast_with_options(&array, to, &options).map_err(|e| {
        tidemill_log::Error::with_source(
            tidemill_log::Kind::Data,
            format!("table `{table}`, column `{column}`: a value does not fit {to}: {e}"),
            e,
        )
    })
}

/// `count` rows that were read from `table`, given column by column. `array_of` makes an array of
/// the type that the engine stores, or says what is wrong with the values.
///
/// # Errors
/// `Data` when a value cannot be one of the view's.
pub(super) fn batch_of<V>(
    table: &Table,
    count: usize,
    columns: Vec<Vec<V>>,
    array_of: impl Fn(&DataType, Vec<V>) -> Result<std::result::Result<ArrayRef, String>>,
) -> Result<RecordBatch> {
    let mut arrays = Vec::with_capacity(columns.len());
    for (field, values) in table.schema.fields().iter().zip(columns) {
        let array = array_of(field.data_type(), values)?.map_err(|problem| {
            mismatch(&table.name, &format!("column `{}` {problem}", field.name()))
        })?;
        let array = convert(&table.name, field.name(), &array, field.data_type())?;
        arrays.push(array);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    let schema = Arc::clone(&table.schema);
    RecordBatch::try_new_with_options(schema, arrays, &options).map_err(|error| {
        let what = format!("rows of table `{}`", table.name);
        tidemill_log::Error::with_source(tidemill_log::Kind::Data, what, error)
    })
}

/// Finds unsigned integers that do not fit the signed 64 bits in which they are stored.
pub(super) fn beyond_bigint(table: &Table, rows: &RecordBatch, unfit: &mut Vec<Unfit>) {
    for (field, column) in table.schema.fields().iter().zip(rows.columns()) {
        let Some(numbers) = column.as_primitive_opt::<UInt64Type>() else {
            continue;
        };
        let large = numbers.iter().enumerate();
        let large = large.filter(|(_, number)| number.is_some_and(|it| i64::try_from(it).is_err()));
        let name = field.name();
        unfit.extend(large.map(|(row, _)| Unfit {
            row,
            reason: format!("column `{name}` holds a number beyond 9223372036854775807"),
        }));
    }
}
