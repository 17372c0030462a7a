//! The planner's errors about types, with the source types that the planner does not know.

use std::collections::BTreeSet;

use datafusion_common::DataFusionError;
use datafusion_sql::sqlparser::ast::Query;

use super::at;
use crate::catalog::Catalog;
use crate::script::first_line;

/// Adds the columns with source types to the planner's error about types. For the planner such
/// columns are text, so its error does not name them.
///
/// The message of the planner is kept, and the columns of the query with source types are appended
/// to it.
pub(crate) fn named(error: DataFusionError, query: &Query, catalog: &Catalog) -> DataFusionError {
    let DataFusionError::Plan(text) = error.find_root() else {
        return error;
    };
    let about_types = ["signature", "coerce", "operator"];
    if !about_types.iter().any(|word| text.contains(word)) {
        return error;
    }
    let query = query.to_string();
    let word = |c: char| !(c.is_alphanumeric() || c == '_');
    let words: BTreeSet<&str> = query.split(word).collect();
    let tables = catalog
        .tables
        .iter()
        .map(|table| (&table.schema, &table.source_types));
    let views = catalog.views.iter().map(|(_, schema)| schema);
    let columns = tables.chain(views.zip(&catalog.view_types));
    let columns = columns.flat_map(|(schema, types)| schema.fields().iter().zip(types));
    let named: BTreeSet<String> = columns
        .filter_map(|(field, kind)| Some((field.name(), (*kind)?)))
        .filter(|(name, _)| words.contains(name.as_str()))
        .map(|(name, kind)| format!("`{name}` ({})", kind.name()))
        .collect();
    if named.is_empty() {
        return error;
    }
    let named = named.into_iter().collect::<Vec<_>>().join(", ");
    let text = format!(
        "{}; in PostgreSQL's text, which is no number and no time here: {named}; cast such a \
         column first, as in CAST(column AS numeric(20,4))",
        first_line(text)
    );
    at(error.diagnostic().and_then(|it| it.span), text)
}
