//! PostgreSQL's catalog: columns, types and primary key of a captured table.
//!
//! In: table names. Out: [`Table`]. A table that cannot be captured correctly is refused here with
//! its name and the remedy, before any row is read: views and foreign tables, tables with children
//! by INHERITS, without a primary key or with a deferrable one, without the key in the replica
//! identity, or with partitions that PostgreSQL does not replicate.

pub(crate) mod altered;
pub(crate) mod shape;
pub(crate) mod types;

use std::sync::Arc;

use postgres::Client;
use postgres::types::PgLsn;
use tidemill_log::schema::{Column, TableSchema};

use super::super::Generated;
use super::pgoutput::Relation;
use super::sql_error;
use crate::{Error, Kind, Result};

pub(super) use tidemill_log::schema::sql::quoted as quote;

/// A table that can be captured.
#[derive(Debug, Clone)]
pub(super) struct Table {
    /// The OID, by which the stream names the table.
    pub(super) oid: u32,
    /// Columns and primary key.
    pub(super) schema: Arc<TableSchema>,
}

impl Table {
    /// `"schema"."table"`.
    pub(super) fn quoted(&self) -> String {
        format!(
            "{}.{}",
            quote(&self.schema.namespace),
            quote(&self.schema.name)
        )
    }
}

/// A column as the catalog has it now (`pg_attribute`).
struct Attribute {
    /// `attname`.
    name: String,
    /// Whether the column lacks NOT NULL.
    nullable: bool,
    /// `atttypid`.
    type_oid: u32,
    /// `atttypmod`: precision and length; -1 for none.
    modifier: i32,
    /// Whether different texts always differ in the column's collation.
    deterministic: bool,
}

/// Loads the table `table` or `schema.table` from the catalog. This takes several queries, which do
/// not fit together if another table gets the name meanwhile.
///
/// # Errors
/// `Data` when the table does not exist or cannot be captured; `Retry` when the server cannot be
/// reached.
pub(super) fn load(client: &mut Client, name: &str) -> Result<Table> {
    let failed = |error| sql_error(format!("reading the columns of table `{name}`"), error);
    let quoted: Vec<String> = name.split('.').map(quote).collect();
    let row = client
        .query_opt(
            "SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relreplident::text,
                    (SELECT min(i.inhrelid::regclass::text) FROM pg_inherits i
                     WHERE i.inhparent = c.oid AND c.relkind = 'r'),
                    (SELECT k.conname::text FROM pg_constraint k
                     WHERE k.conrelid = c.oid AND k.contype = 'p' AND k.condeferrable)
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
    if let Some(child) = row.get::<_, Option<String>>(5) {
        let why = "has children by INHERITS, whose rows PostgreSQL sends as theirs";
        let way = "list tables without children, or partition the table instead";
        return Err(refused(name, &format!("{why} (`{child}`); {way}")));
    }
    if let Some(key) = row.get::<_, Option<String>>(6) {
        // `UPDATE t SET id = id + 1` may then move a row onto the key of a row that still exists.
        // The stream reports row by row, so it holds two rows of one key for a moment.
        let why = format!(
            "has a deferrable primary key (`{key}`), which does not identify a row within a \
             transaction; make it NOT DEFERRABLE"
        );
        return Err(refused(name, &why));
    }
    if identity == "n" || identity == "i" && !index_has_key(client, oid, name)? {
        return Err(refused(
            name,
            &format!(
                "does not log the old key of updates and deletes; run ALTER TABLE {} REPLICA \
                 IDENTITY FULL",
                quoted.join(".")
            ),
        ));
    }
    refuse_unreplicated_partitions(client, oid, name)?;
    let attributes = attributes(client, oid, name)?;
    let wanted: Vec<_> = attributes
        .iter()
        .map(|a| (a.type_oid, a.modifier))
        .collect();
    let kinds = types::resolve(client, &wanted, name)?;
    let columns = attributes.into_iter().zip(kinds);
    let columns: Vec<Column> = columns
        .map(|(attribute, kind)| Column {
            kind: types::collated(kind, attribute.deterministic),
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

/// The end of the WAL: everything that a session saw before the call was committed before this LSN.
pub(super) fn wal_end(client: &mut Client) -> Result<u64> {
    let row = client
        .query_one("SELECT pg_current_wal_insert_lsn()", &[])
        .map_err(|error| sql_error("reading the WAL's end".to_owned(), error))?;
    Ok(u64::from(row.get::<_, PgLsn>(0)))
}

/// Refuses a partition together with its root: its changes are sent under the name of the root
/// only.
pub(super) fn refuse_partition_beside_root(
    client: &mut Client,
    tables: &[(String, Table)],
) -> Result<()> {
    let oids: Vec<u32> = tables.iter().map(|(_, table)| table.oid).collect();
    let found = client
        .query_opt(
            "SELECT t.oid, a.relid::oid FROM unnest($1::oid[]) t (oid)
             CROSS JOIN LATERAL pg_partition_ancestors(t.oid::regclass) a
             WHERE a.relid::oid <> t.oid AND a.relid::oid = ANY ($1) LIMIT 1",
            &[&oids],
        )
        .map_err(|error| sql_error("reading the partitions".to_owned(), error))?;
    let Some(row) = found else {
        return Ok(());
    };
    let named = |oid: u32| {
        let known = tables.iter().find(|(_, table)| table.oid == oid);
        known.map_or("?", |(name, _)| name.as_str())
    };
    let why = format!(
        "is a partition of table `{}`, which is captured too and holds its rows; name only one",
        named(row.get(1))
    );
    Err(refused(named(row.get(0)), &why))
}

/// Refuses a table with a partition whose changes PostgreSQL does not send.
fn refuse_unreplicated_partitions(client: &mut Client, oid: u32, name: &str) -> Result<()> {
    let row = client
        .query_one(
            "SELECT min(part.oid::regclass::text)
             FROM pg_partition_tree($1::oid::regclass) p JOIN pg_class part ON part.oid = p.relid
             WHERE part.relkind = 'f' OR part.relpersistence <> 'p'",
            &[&oid],
        )
        .map_err(|error| sql_error(format!("reading table `{name}`"), error))?;
    match row.get::<_, Option<String>>(0) {
        Some(part) => Err(refused(
            name,
            &format!(
                "has the partition `{part}`, which is unlogged or a foreign table: PostgreSQL does \
                 not send its changes; make it an ordinary table"
            ),
        )),
        None => Ok(()),
    }
}

/// Whether the index of the replica identity holds all columns of the primary key.
fn index_has_key(client: &mut Client, oid: u32, name: &str) -> Result<bool> {
    let row = client
        .query_one(
            "SELECT EXISTS (
                SELECT FROM pg_index told JOIN pg_index key ON key.indrelid = told.indrelid
                WHERE told.indrelid = $1 AND told.indisreplident AND key.indisprimary
                  AND key.indkey::int2[] <@ told.indkey::int2[])",
            &[&oid],
        )
        .map_err(|error| sql_error(format!("reading the key of table `{name}`"), error))?;
    Ok(row.get(0))
}

/// The table as the stream sends it from now on: the columns of the relation, and from the catalog
/// what the stream does not contain. `known` is the schema before.
pub(super) fn of_relation(
    client: &mut Client,
    relation: &Relation,
    known: &TableSchema,
) -> Result<Table> {
    let attributes = attributes(client, relation.oid, &relation.name)?;
    let sent = relation.columns.iter();
    let wanted: Vec<_> = sent.map(|c| (c.type_oid, c.modifier)).collect();
    let kinds = types::resolve(client, &wanted, &relation.name)?;
    let columns = relation.columns.iter().zip(kinds);
    let columns = columns
        .map(|(column, kind)| {
            // `None` when the column was dropped or altered meanwhile.
            let now = attributes
                .iter()
                .find(|a| a.name == column.name && a.type_oid == column.type_oid);
            Column {
                name: column.name.clone(),
                kind: types::collated(kind, now.is_none_or(|now| now.deterministic)),
                nullable: now.is_none_or(|now| now.nullable),
            }
        })
        .collect();
    let key = key_of_relation(client, relation, known)?;
    let (namespace, name) = (relation.namespace.clone(), relation.name.clone());
    Ok(Table {
        oid: relation.oid,
        schema: with_key(namespace, name, columns, &key)?,
    })
}

/// The key of rows as the stream sends them. The catalog may have another key already.
fn key_of_relation(
    client: &mut Client,
    relation: &Relation,
    known: &TableSchema,
) -> Result<Vec<String>> {
    let now = key_names(client, relation.oid, &relation.name)?;
    let columns = || relation.columns.iter();
    let is_sent = |key: &[String]| {
        key.iter()
            .all(|it| columns().any(|column| column.name == *it))
    };
    let told = columns().filter(|column| column.in_identity && relation.identity == b'd');
    let told: Vec<String> = told.map(|column| column.name.clone()).collect();
    let is_told = |key: &[String]| {
        let is_same = key.len() == told.len() && key.iter().all(|it| told.contains(it));
        told.is_empty() || is_same
    };
    if !now.is_empty() && is_sent(&now) && is_told(&now) {
        return Ok(now);
    }
    let known = known
        .key
        .iter()
        .filter_map(|&index| known.columns.get(index));
    let known: Vec<String> = known.map(|column| column.name.clone()).collect();
    Ok(match told.is_empty() || is_told(&known) {
        true => known,
        false => told,
    })
}

/// The schema of a table with its key. Refuses a table without a key, and key columns whose text
/// does not identify a row.
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
    let unstable = key.iter().filter_map(|&index| columns.get(index)).find_map(|column| {
        let kind = column.kind.source_type().filter(|kind| !kind.identifies())?;
        Some(format!(
            "has the key column `{}` of type {}, which does not identify a row: {}; make another \
             column the primary key",
            column.name,
            kind.name(),
            kind.why()
        ))
    });
    if let Some(why) = unstable {
        return Err(refused(&name, &why));
    }
    Ok(Arc::new(TableSchema {
        namespace,
        name,
        columns,
        key,
    }))
}

/// The error of a table that cannot be captured.
fn refused(table: &str, why: &str) -> Error {
    Error::new(Kind::Data, format!("table `{table}` {why}"))
}

/// The replicated columns. Generated columns are not in the stream.
fn attributes(client: &mut Client, oid: u32, table: &str) -> Result<Vec<Attribute>> {
    let rows = client
        .query(
            "SELECT a.attname::text, NOT a.attnotnull, a.atttypid, a.atttypmod,
                    coalesce(c.collisdeterministic, true)
             FROM pg_attribute a LEFT JOIN pg_collation c ON c.oid = a.attcollation
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
        modifier: row.get(3),
        deterministic: row.get(4),
    };
    Ok(rows.iter().map(attribute).collect())
}

/// The generated columns of the table `table` or `schema.table`.
pub(super) fn generated(client: &mut Client, table: &str) -> Result<Vec<Generated>> {
    let quoted: Vec<String> = table.split('.').map(quote).collect();
    let rows = client
        .query(
            "SELECT a.attname::text, pg_get_expr(d.adbin, d.adrelid)
             FROM pg_attribute a JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
             WHERE a.attrelid = to_regclass($1) AND NOT a.attisdropped AND a.attgenerated <> ''
             ORDER BY a.attnum",
            &[&quoted.join(".")],
        )
        .map_err(|error| sql_error(format!("reading the columns of table `{table}`"), error))?;
    let column = |row: &postgres::Row| Generated {
        table: table.to_owned(),
        column: row.get(0),
        expression: row.get(1),
    };
    Ok(rows.iter().map(column).collect())
}

/// The columns of the primary key in the order of the key; empty without a primary key.
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
