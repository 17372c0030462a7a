//! Rows as an aligned table, in psql's form.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// Cells wider than this are cut: a table that wraps cannot be read.
const CELL_WIDTH_MAX: usize = 32;

/// A header, a rule, and the first `rows_max` rows.
pub(crate) fn lines(batch: &RecordBatch, rows_max: usize) -> Result<Vec<String>, ArrowError> {
    let rows = batch.num_rows().min(rows_max);
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
        let mut cells = vec![cut(field.name())];
        cells.extend(cells_of(array.as_ref(), rows)?);
        let width = cells
            .iter()
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0);
        columns.push((cells, width, is_number(array.data_type())));
    }
    let mut lines = Vec::with_capacity(rows + 2);
    for row in 0..=rows {
        let cells: Vec<String> = columns
            .iter()
            .map(|(cells, width, right)| {
                let cell = cells.get(row).map_or("", String::as_str);
                match (row, right) {
                    (0, _) => format!("{cell:^width$}"),
                    (_, true) => format!("{cell:>width$}"),
                    (_, false) => format!("{cell:<width$}"),
                }
            })
            .collect();
        lines.push(format!(" {}", cells.join(" | ")).trim_end().to_owned());
        if row == 0 {
            let rules: Vec<String> = columns
                .iter()
                .map(|(_, width, _)| "-".repeat(width + 2))
                .collect();
            lines.push(rules.join("+"));
        }
    }
    Ok(lines)
}

fn is_number(kind: &DataType) -> bool {
    kind.is_numeric()
}

fn cells_of(array: &dyn Array, rows: usize) -> Result<Vec<String>, ArrowError> {
    let float = |value: f64| {
        if value != 0.0 && value.abs() < 0.001 {
            value.to_string()
        } else {
            format!("{value:.3}")
        }
    };
    let options = FormatOptions::default()
        .with_null("")
        .with_timestamp_format(Some("%F %T%.f"));
    let formatter = ArrayFormatter::try_new(array, &options)?;
    (0..rows)
        .map(|row| match array.data_type() {
            _ if array.is_null(row) => Ok(String::new()),
            DataType::Float64 => Ok(float(array.as_primitive::<Float64Type>().value(row))),
            DataType::Float32 => Ok(float(f64::from(
                array.as_primitive::<Float32Type>().value(row),
            ))),
            _ => Ok(cut(&formatter.value(row).try_to_string()?)),
        })
        .collect()
}

fn cut(text: &str) -> String {
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().count() <= CELL_WIDTH_MAX {
        return text;
    }
    text.chars().take(CELL_WIDTH_MAX - 1).chain(['…']).collect()
}

/// `12,345`.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};

    use super::*;

    #[test]
    fn as_psql_shows_it() {
        let long = "x".repeat(40);
        let names = StringArray::from(vec![Some("Norway"), None, Some(long.as_str())]);
        let batch = RecordBatch::try_from_iter([
            ("country", Arc::new(names) as ArrayRef),
            (
                "users",
                Arc::new(Int64Array::from(vec![1200, 7, 1])) as ArrayRef,
            ),
            (
                "age",
                Arc::new(Float64Array::from(vec![44.33333, 0.0, 1e-5])) as ArrayRef,
            ),
        ])
        .unwrap();
        assert_eq!(
            lines(&batch, 2).unwrap(),
            [
                " country | users |  age",
                "---------+-------+--------",
                " Norway  |  1200 | 44.333",
                "         |     7 |  0.000",
            ]
        );
        let all = lines(&batch, 9).unwrap();
        assert!(
            all[4].contains(&format!(" {}… |", "x".repeat(31))),
            "{}",
            all[4]
        );
        assert!(all[4].ends_with("0.00001"), "{}", all[4]);
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
