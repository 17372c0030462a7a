//! What PostgreSQL's catalog says about a captured table: its columns, types and primary key.
//!
//! Names flow in, [`Table`] flows out. A table that cannot be captured rightly is refused here by
//! name, before anything is read of it.

use std::sync::Arc;

use postgres::Client;
use tidemill_log::schema::{Column, ColumnType, TableSchema};

use super::pgoutput::Relation;
use super::sql_error;
use crate::{Error, Kind, Result};

/// A captured table.
#[derive(Debug, Clone)]
pub(super) struct Table {
    /// Its OID, by which the stream names it.
    pub(super) oid: u32,
    /// Its columns.
    pub(super) schema: Arc<TableSchema>,
}

impl Table {
    /// `"schema"."table"`
    pub(super) fn quoted(&self) -> String {
        format!(
            "{}.{}",
            quote(&self.schema.namespace),
            quote(&self.schema.name)
        )
    }
}

/// A name as SQL takes it.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A column as the catalog has it now.
struct Attribute {
    name: String,
    nullable: bool,
    type_oid: u32,
    base_oid: u32,
    base_modifier: i32,
}

/// The type that a column of a PostgreSQL type travels as.
fn kind_of(type_oid: u32, modifier: i32) -> ColumnType {
    match type_oid {
        16 => ColumnType::Bool,
        21 | 23 => ColumnType::Int,
        20 | 26 => ColumnType::Long,
        700 => ColumnType::Float,
        701 => ColumnType::Double,
        1700 => numeric(modifier),
        2950 => ColumnType::Uuid,
        114 | 3802 => ColumnType::Json,
        17 => ColumnType::Bytes,
        1082 => ColumnType::Date,
        1114 => ColumnType::Timestamp,
        1184 => ColumnType::Timestamptz,
        _ => ColumnType::Text,
    }
}

/// `numeric(p, s)` is a decimal; one without limits, or beyond 38 digits, is exact only as text.
fn numeric(modifier: i32) -> ColumnType {
    let packed = modifier.saturating_sub(4);
    let (precision, scale) = (packed >> 16, packed & 0x7ff);
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(precision @ 1..=38), Ok(scale))
            if modifier >= 4 && i32::from(scale) <= packed >> 16 =>
        {
            ColumnType::Decimal { precision, scale }
        }
        _ => ColumnType::Text,
    }
}

/// Reads the table called `table` or `schema.table`, as the catalog has it now.
pub(super) fn load(client: &mut Client, name: &str) -> Result<Table> {
    let failed = |error| sql_error(format!("reading the columns of table `{name}`"), error);
    let quoted: Vec<String> = name.split('.').map(quote).collect();
    let row = client
        .query_opt(
            "SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relreplident::text
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.oid = to_regclass($1)",
            &[&quoted.join(".")],
        )
        .map_err(failed)?
        .ok_or_else(|| refused(name, "does not exist in this database; create it first"))?;
    let (oid, kind, identity): (u32, String, String) = (row.get(0), row.get(3), row.get(4));
    if kind != "r" && kind != "p" {
        return Err(refused(name, "is not a table; only tables can be captured"));
    }
    if identity == "n" || identity == "i" {
        return Err(refused(
            name,
            &format!(
                "does not log the old key of updates and deletes; run ALTER TABLE {} REPLICA \
                 IDENTITY FULL",
                quoted.join(".")
            ),
        ));
    }
    let columns: Vec<Column> = attributes(client, oid, name)?
        .into_iter()
        .map(|attribute| Column {
            kind: kind_of(attribute.base_oid, attribute.base_modifier),
            nullable: attribute.nullable,
            name: attribute.name,
        })
        .collect();
    let schema = with_key(
        row.get(1),
        row.get(2),
        columns,
        &key_names(client, oid, name)?,
    )?;
    Ok(Table { oid, schema })
}

/// The table as the stream now sends it: the relation's columns, and from the catalog what the
/// stream does not tell. `known` is what was known of it before.
pub(super) fn of_relation(
    client: &mut Client,
    relation: &Relation,
    known: &TableSchema,
) -> Result<Table> {
    let attributes = attributes(client, relation.oid, &relation.name)?;
    let columns = relation
        .columns
        .iter()
        .map(|column| {
            let now = attributes
                .iter()
                .find(|a| a.name == column.name && a.type_oid == column.type_oid);
            let (kind, nullable) = match now {
                Some(now) => (kind_of(now.base_oid, now.base_modifier), now.nullable),
                // The column was dropped or altered since: what it was is only known here.
                None => (kind_of(column.type_oid, column.modifier), true),
            };
            Column {
                name: column.name.clone(),
                kind,
                nullable,
            }
        })
        .collect();
    let mut key = key_names(client, relation.oid, &relation.name)?;
    if key.is_empty() {
        let names = known
            .key
            .iter()
            .filter_map(|&index| known.columns.get(index));
        key = names.map(|column| column.name.clone()).collect();
    }
    let (namespace, name) = (relation.namespace.clone(), relation.name.clone());
    Ok(Table {
        oid: relation.oid,
        schema: with_key(namespace, name, columns, &key)?,
    })
}

fn with_key(
    namespace: String,
    name: String,
    columns: Vec<Column>,
    key: &[String],
) -> Result<Arc<TableSchema>> {
    if key.is_empty() {
        return Err(refused(&name, "has no primary key; add one to capture it"));
    }
    let key = key
        .iter()
        .map(|wanted| columns.iter().position(|column| column.name == *wanted))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| {
            refused(
                &name,
                "has a primary key on a column that is not replicated",
            )
        })?;
    Ok(Arc::new(TableSchema {
        namespace,
        name,
        columns,
        key,
    }))
}

fn refused(table: &str, why: &str) -> Error {
    Error::new(Kind::Data, format!("table `{table}` {why}"))
}

/// The replicated columns: generated ones are not in the stream. A domain counts as what it is of.
fn attributes(client: &mut Client, oid: u32, table: &str) -> Result<Vec<Attribute>> {
    let rows = client
        .query(
            "SELECT a.attname::text, NOT a.attnotnull, a.atttypid,
                    CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE a.atttypid END,
                    CASE t.typtype WHEN 'd' THEN t.typtypmod ELSE a.atttypmod END
             FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
             WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
               AND a.attgenerated = ''
             ORDER BY a.attnum",
            &[&oid],
        )
        .map_err(|error| sql_error(format!("reading the columns of table `{table}`"), error))?;
    let attribute = |row: &postgres::Row| Attribute {
        name: row.get(0),
        nullable: row.get(1),
        type_oid: row.get(2),
        base_oid: row.get(3),
        base_modifier: row.get(4),
    };
    Ok(rows.iter().map(attribute).collect())
}

/// The names of the primary key's columns in key order; none when there is no key.
fn key_names(client: &mut Client, oid: u32, table: &str) -> Result<Vec<String>> {
    let rows = client
        .query(
            "SELECT a.attname::text
             FROM pg_index i CROSS JOIN unnest(i.indkey) WITH ORDINALITY AS k(attnum, n)
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
             WHERE i.indrelid = $1 AND i.indisprimary ORDER BY k.n",
            &[&oid],
        )
        .map_err(|error| sql_error(format!("reading the key of table `{table}`"), error))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_numeric_is_a_decimal_only_where_it_is_exact() {
        let modifier = |precision: i32, scale: i32| (precision << 16 | (scale & 0x7ff)) + 4;
        let decimal = |precision, scale| ColumnType::Decimal { precision, scale };
        assert_eq!(numeric(modifier(10, 2)), decimal(10, 2));
        assert_eq!(numeric(modifier(38, 38)), decimal(38, 38));
        for text in [-1, modifier(39, 2), modifier(3, 5), modifier(5, -2)] {
            assert_eq!(numeric(text), ColumnType::Text, "{text}");
        }
    }
}
