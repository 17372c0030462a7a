//! Which texts of a value are the same: both sides' as far as the sink keeps them.

use postgres::types::Type;

use crate::types::source::{Column, Rows};

/// Digits of a second that the sink keeps.
pub(crate) type Digits = usize;

/// The rows in one spelling, sorted.
pub(crate) fn spelled(rows: &Rows, columns: &[Column], digits: Digits) -> Rows {
    let row = |row: &Vec<Option<String>>| {
        let cells = row.iter().zip(columns);
        cells
            .map(|(cell, column)| cell.as_ref().map(|text| spell(text, &column.kind, digits)))
            .collect()
    };
    let mut rows: Rows = rows.iter().map(row).collect();
    rows.sort();
    rows
}

fn spell(text: &str, kind: &Type, digits: Digits) -> String {
    match *kind {
        // Rows hold one zero, which both are equal to. What a column of another type held before
        // may be no number.
        Type::FLOAT4 => text
            .parse::<f32>()
            .map_or(text.to_owned(), |it| format!("{:?}", it + 0.0)),
        Type::FLOAT8 => text
            .parse::<f64>()
            .map_or(text.to_owned(), |it| format!("{:?}", it + 0.0)),
        Type::TIMESTAMP | Type::TIMESTAMPTZ => {
            let (at, zone) = match text.strip_suffix("+00") {
                Some(at) => (at, "+00"),
                None => (text, ""),
            };
            let (whole, fraction) = at.split_once('.').unwrap_or((at, ""));
            format!("{whole}.{:.digits$}{zone}", format!("{fraction:0<6}"))
        }
        _ => text.to_owned(),
    }
}

/// How rows of the sink differ from PostgreSQL's; none when they do not.
pub(crate) fn difference(
    found: &Rows,
    expected: &Rows,
    columns: &[Column],
    digits: Digits,
) -> Option<String> {
    let (found, expected) = (
        spelled(found, columns, digits),
        spelled(expected, columns, digits),
    );
    if found == expected {
        return None;
    }
    let only = |rows: &Rows, others: &Rows| {
        let rows = rows.iter().filter(|row| others.binary_search(row).is_err());
        let cells = |row: &Vec<Option<String>>| {
            let cells = row.iter().zip(columns).filter(|(cell, _)| cell.is_some());
            let cells = cells.map(|(cell, column)| {
                let cell = cell.as_deref().unwrap_or_default();
                format!(
                    "{}={}",
                    column.name,
                    cell.chars().take(60).collect::<String>()
                )
            });
            cells.collect::<Vec<_>>().join(" ")
        };
        rows.map(cells).take(12).collect::<Vec<_>>().join("\n    ")
    };
    Some(format!(
        "\n  PostgreSQL alone ({} rows):\n    {}\n  the view alone ({} rows):\n    {}",
        expected.len(),
        only(&expected, &found),
        found.len(),
        only(&found, &expected)
    ))
}
