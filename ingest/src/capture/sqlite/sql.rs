//! Names, texts and rows as SQL.

use tidemill_log::schema::TableSchema;

use super::cell::cell_json;

pub(super) use tidemill_log::schema::sql::quoted as quote;

/// SQL: a row (`NEW`, `OLD` or the table itself) as a JSON object.
pub(super) fn row_json(table: &TableSchema, row: &str) -> String {
    let cells = table.columns.iter().map(|column| {
        let cell = cell_json(column.kind, &format!("{row}.{}", quote(&column.name)));
        format!("{}, {cell}", text(&column.name))
    });
    format!("json_object({})", cells.collect::<Vec<_>>().join(", "))
}

/// A text as an SQL string literal.
pub(super) fn text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
