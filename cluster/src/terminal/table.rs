//! Text tables in psql's format, fitted to the width of the terminal.
//!
//! ```text
//!  country | users |  age
//! ---------+-------+--------
//!  Norway  |  1200 | 44.333
//! ```
//!
//! In: a batch of Arrow columns. Out: lines that are at most as wide as the terminal. Numbers are
//! aligned to the right, and null is empty, as in psql.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// Limit of a cell's width in characters; wider cells are cut.
const CELL_WIDTH_MAX: usize = 32;

/// Cells are not cut below this width. Columns are left out instead.
const CELL_WIDTH_MIN: usize = 14;

/// A table as text.
pub(crate) struct Text {
    /// Header, rule and rows.
    pub(crate) lines: Vec<String>,
    /// The names of columns that did not fit.
    pub(crate) left_out: Vec<String>,
}

/// The first `rows_max` rows in at most `width_max` characters per line.
///
/// # Errors
///
/// A value cannot be formatted.
///
/// Floating-point numbers have three decimals, and very small ones all of them.
pub(crate) fn fitted(
    batch: &RecordBatch,
    rows_max: usize,
    width_max: usize,
) -> Result<Text, ArrowError> {
    let rows = batch.num_rows().min(rows_max);
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
        let mut cells = vec![cut(field.name(), CELL_WIDTH_MAX)];
        cells.extend(cells_of(array.as_ref(), rows)?);
        let width = cells
            .iter()
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0);
        columns.push((cells, width, is_number(array.data_type())));
    }
    let mut widths: Vec<usize> = columns.iter().map(|(_, width, _)| *width).collect();
    fit(&mut widths, width_max);
    let left_out = columns.drain(widths.len()..);
    let left_out = left_out.filter_map(|(cells, ..)| cells.into_iter().next());
    let left_out = left_out.collect();
    for ((cells, width, _), fitted) in columns.iter_mut().zip(widths) {
        if fitted < *width {
            cells.iter_mut().for_each(|cell| *cell = cut(cell, fitted));
            *width = fitted;
        }
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
    Ok(Text { lines, left_out })
}

/// Narrows the widest columns until all fit. If that is not enough, the last columns are left out.
///
/// A column takes three more characters for its borders. The first column always stays, because it
/// is the key.
fn fit(widths: &mut Vec<usize>, width_max: usize) {
    let total = |widths: &[usize]| widths.iter().map(|width| width + 3).sum::<usize>() - 1;
    let least = |width: &usize| (*width).min(CELL_WIDTH_MIN);
    while widths.len() > 1 && total(&widths.iter().map(least).collect::<Vec<_>>()) > width_max {
        widths.pop();
    }
    while total(widths) > width_max {
        match widths.iter_mut().max() {
            Some(widest) if *widest > CELL_WIDTH_MIN => *widest -= 1,
            _ => return,
        }
    }
}

/// Whether a column is aligned to the right.
fn is_number(kind: &DataType) -> bool {
    kind.is_numeric()
}

/// The first cells of a column as text.
///
/// # Errors
/// Arrow cannot format a value of this type.
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
            _ => Ok(cut(&formatter.value(row).try_to_string()?, CELL_WIDTH_MAX)),
        })
        .collect()
}

/// Text on one line, cut to `width` characters.
fn cut(text: &str, width: usize) -> String {
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().count() <= width {
        return text;
    }
    let kept = width.saturating_sub(1);
    text.chars().take(kept).chain(['…']).collect()
}

/// A number with separators, as in `12,345`.
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
            fitted(&batch, 2, 120).unwrap().lines,
            [
                " country | users |  age",
                "---------+-------+--------",
                " Norway  |  1200 | 44.333",
                "         |     7 |  0.000",
            ]
        );
        let all = fitted(&batch, 9, 120).unwrap().lines;
        assert!(
            all[4].contains(&format!(" {}… |", "x".repeat(31))),
            "{}",
            all[4]
        );
        assert!(all[4].ends_with("0.00001"), "{}", all[4]);
    }

    #[test]
    fn a_table_is_not_wider_than_there_is_room_for() {
        let mut widths = vec![32, 4, 30, 20];
        fit(&mut widths, 80);
        assert_eq!(widths, [23, 4, 22, 20]);
        fit(&mut widths, 50);
        assert_eq!(widths, [19, 4, 19]);
        fit(&mut widths, 5);
        assert_eq!(widths, [14], "the key is always shown");
        let long = Arc::new(StringArray::from(vec!["y".repeat(30)])) as ArrayRef;
        let batch = RecordBatch::try_from_iter([
            ("id", Arc::clone(&long)),
            ("name", Arc::clone(&long)),
            ("address", long),
        ]);
        let text = fitted(&batch.unwrap(), 5, 40).unwrap();
        assert_eq!(text.left_out, ["address"]);
        let widest = text.lines.iter().map(|line| line.chars().count()).max();
        assert!(widest <= Some(40), "{:?}", text.lines);
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
