//! Rows that `REPLACE` removes because another row takes their value of a UNIQUE column.
//!
//! SQLite fires no DELETE trigger for them (unless `recursive_triggers` is on). So a trigger before
//! the change notes the rows that may go, and the one after the change captures the deletion of
//! those that went. `INSERT OR IGNORE` fires the first alone, and the next change of the table
//! forgets its note. Triggers of the user may change other tables between the two.

use rusqlite::Transaction;
use tidemill_log::schema::TableSchema;

use super::tables::{quote, row_json, text};
use super::{NOW_US, sql_error};
use crate::{Error, Kind, Result};

/// The unique indexes of a table besides its primary key, as a condition on a row of the table
/// beside the row `NEW`; none when there are none.
///
/// # Errors
/// [`Kind::Data`] for an index over an expression, which tells no columns.
pub(super) fn taken(transaction: &Transaction<'_>, table: &TableSchema) -> Result<Option<String>> {
    let failed = |error| sql_error("reading a table's unique indexes", error);
    let mut statement = transaction
        .prepare(
            "SELECT list.name, info.name, info.coll
             FROM pragma_index_list(?) AS list, pragma_index_xinfo(list.name) AS info
             WHERE list.\"unique\" AND list.origin <> 'pk' AND info.key
             ORDER BY list.seq, info.seqno",
        )
        .map_err(failed)?;
    let rows = statement.query_map([&table.name], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    });
    let columns: Vec<(String, Option<String>, String)> =
        rows.and_then(Iterator::collect).map_err(failed)?;
    let mut indexes: Vec<(String, Vec<String>)> = Vec::new();
    for (index, column, collation) in columns {
        let Some(column) = column else {
            let what = format!(
                "table `{}` has the unique index `{index}` over an expression, of whose REPLACE no \
                 trigger tells; make it an index over columns",
                table.name
            );
            return Err(Error::new(Kind::Data, what));
        };
        let (column, collation) = (quote(&column), quote(&collation));
        let same = format!(
            "{}.{column} COLLATE {collation} = NEW.{column}",
            quote(&table.name)
        );
        match indexes.last_mut().filter(|(name, _)| *name == index) {
            Some((_, columns)) => columns.push(same),
            None => indexes.push((index, vec![same])),
        }
    }
    let each = indexes
        .iter()
        .map(|(_, columns)| format!("({})", columns.join(" AND ")));
    let all = each.collect::<Vec<_>>().join(" OR ");
    Ok((!all.is_empty()).then_some(all))
}

/// The body of the trigger before a change: notes the rows that `NEW` may displace.
pub(super) fn noted(table: &TableSchema, taken: &str, is_update: bool) -> String {
    let (name, literal) = (quote(&table.name), text(&table.name));
    let row = row_json(table, &name);
    let itself = table.key.iter().filter_map(|&index| {
        let column = quote(&table.columns.get(index)?.name);
        Some(format!("{name}.{column} IS OLD.{column}"))
    });
    let other = match is_update {
        true => format!(" AND NOT ({})", itself.collect::<Vec<_>>().join(" AND ")),
        false => String::new(),
    };
    format!(
        "DELETE FROM _tidemill_displaced WHERE table_name = {literal}; \
         INSERT INTO _tidemill_displaced SELECT {literal}, {row} FROM {name} WHERE ({taken}){other}"
    )
}

/// What the trigger after a change does first: captures the deletion of the rows that are gone.
pub(super) fn captured(table: &TableSchema, taken: &str) -> String {
    let (name, literal) = (quote(&table.name), text(&table.name));
    let row = row_json(table, &name);
    format!(
        "INSERT INTO _tidemill_changes (table_name, op, before, after, committed_us) \
         SELECT {literal}, 'd', gone.row, NULL, {NOW_US} FROM _tidemill_displaced AS gone \
         WHERE gone.table_name = {literal} \
         AND NOT EXISTS (SELECT 1 FROM {name} WHERE ({taken}) AND {row} = gone.row); "
    )
}
