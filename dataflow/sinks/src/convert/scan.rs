//! Reading tables back for comparison: engine values as view columns, odd values apart.
//!
//! A table is compared with its view as it is, whatever other writers did to it. Input: the
//! engines' own values. Output: [`Scanned`] batches in the view's types.
//!
//! Invariant: a value that the view could not have written is never taken for one that it could.

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field};
use arrow::record_batch::RecordBatch;
use tidemill_ir::row::{batch, nullable};
use tidemill_log::{Error, Kind, Result};

use super::super::contract::{Odd, Scanned, Table};
use super::convert;

/// Rows that are read from a table at a time.
pub(in super::super) const PAGE_ROWS: usize = 5_000;

/// What an engine knows about its values.
pub(in super::super) struct Engine<V> {
    /// The type in which a column is stored.
    pub(in super::super) stored: fn(&DataType) -> Result<DataType>,
    /// Values as an array of that type; the error says what is wrong with a value.
    pub(in super::super) array_of: fn(&DataType, Vec<V>) -> std::result::Result<ArrayRef, String>,
    /// The null value.
    pub(in super::super) null: fn() -> V,
    /// A value as text, for messages.
    pub(in super::super) text: fn(&V) -> String,
}

impl<V: Clone> Engine<V> {
    /// Converts `count` rows of `table`, given column by column. If a column cannot be converted as
    /// a whole, its values are tried one by one, and those that fail are odd.
    ///
    /// # Errors
    /// `Data` when an odd value is in a key column.
    pub(in super::super) fn scanned(
        &self,
        table: &Table,
        count: usize,
        columns: Vec<Vec<V>>,
    ) -> Result<Scanned> {
        let (mut arrays, mut odd) = (Vec::with_capacity(columns.len()), Vec::new());
        for (column, (field, values)) in table.schema.fields().iter().zip(columns).enumerate() {
            let stored = (self.stored)(field.data_type())?;
            let array = match self.array(table, field, &stored, values.clone()) {
                Ok(array) => array,
                Err(_) => {
                    let values = values.into_iter().enumerate().map(|(row, value)| {
                        if self
                            .array(table, field, &stored, vec![value.clone()])
                            .is_ok()
                        {
                            return value;
                        }
                        let text = (self.text)(&value);
                        odd.push(Odd { row, column, text });
                        (self.null)()
                    });
                    let values = values.collect();
                    self.array(table, field, &stored, values)?
                }
            };
            arrays.push(array);
        }
        if let Some(odd) = odd
            .iter()
            .find(|odd| table.primary_key.contains(&odd.column))
        {
            let what = format!(
                "table `{}`: key column `{}` holds {}, which no row of the view can have; delete \
                 that row by hand",
                table.name,
                table.schema.field(odd.column).name(),
                odd.text
            );
            return Err(Error::new(Kind::Data, what));
        }
        let rows = batch(&nullable(&table.schema), arrays, count)?;
        Ok(Scanned { rows, odd })
    }

    /// Converts the values of one column to the view's type.
    fn array(
        &self,
        table: &Table,
        field: &Field,
        stored: &DataType,
        values: Vec<V>,
    ) -> Result<ArrayRef> {
        let array = (self.array_of)(stored, values).map_err(|problem| {
            let what = format!(
                "table `{}`, column `{}` {problem}",
                table.name,
                field.name()
            );
            Error::new(Kind::Data, what)
        })?;
        convert(&table.name, field.name(), &array, field.data_type())
    }
}

/// Rows as they are read back after they were written. A column that is stored in a coarser type,
/// such as a timestamp with milliseconds, has lost the rest.
///
/// # Errors
/// `Data` when the sink cannot store a type, or a value does not fit its column.
pub(in super::super) fn stored_form(
    table: &Table,
    rows: &RecordBatch,
    stored: fn(&DataType) -> Result<DataType>,
) -> Result<RecordBatch> {
    let columns = table.schema.fields().iter().zip(rows.columns());
    let columns = columns.map(|(field, column)| {
        let (name, kind) = (field.name(), field.data_type());
        let kept = convert(&table.name, name, column, &stored(kind)?)?;
        convert(&table.name, name, &kept, kind)
    });
    let columns = columns.collect::<Result<_>>()?;
    batch(&nullable(&table.schema), columns, rows.num_rows())
}
