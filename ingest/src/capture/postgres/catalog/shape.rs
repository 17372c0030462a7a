//! The shape of a table: everything that must not change for its replication stream to be complete.
//!
//! In: the catalog. Out: why a table must be read again. PostgreSQL's stream reports nothing of
//! changes to rows that exist: a new column with a default, a type whose output changed, partitions
//! that were attached or detached, a table that was rewritten. All of these show in the shape.

use std::collections::{BTreeMap, BTreeSet};

use postgres::Client;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::capture::postgres::catalog::{Table, quote};
use crate::capture::postgres::sql_error;

/// The shape of a table, kept as JSON. A field that earlier versions did not record has a default,
/// which is not compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shape {
    /// The OID of the table.
    pub(crate) oid: u32,
    /// The schema that holds the table.
    #[serde(default)]
    namespace: Option<String>,
    /// OID of the primary key's constraint, and the numbers of its columns.
    key: (u32, Vec<i16>),
    /// The columns by their numbers (`attnum`).
    columns: BTreeMap<i16, Column>,
    /// The tables that store the rows (the table itself or its partitions), each with its file
    /// (`relfilenode`).
    stored: BTreeMap<u32, u32>,
    /// For each partition the transaction that attached it.
    attached: BTreeMap<u32, i64>,
    /// Labels of enums and columns of composite types that the column types consist of.
    #[serde(default)]
    types: BTreeMap<String, String>,
    /// Columns that were dropped since the snapshot: older records still hold their values.
    #[serde(default)]
    dropped: BTreeSet<String>,
    /// How the publication sends the table.
    #[serde(default)]
    pub(crate) sent: Option<Sent>,
}

/// A column in a shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Column {
    /// Its name.
    name: String,
    /// The OID of its type.
    kind: u32,
    /// Its type modifier.
    modifier: i32,
    /// Whether rows that are older than the column have a value in it (`atthasmissing`).
    filled: bool,
    /// Whether it is generated, and so not in the stream.
    #[serde(default)]
    generated: bool,
    /// The transaction that altered it last.
    #[serde(default)]
    altered: Option<i64>,
    /// Whether different texts always differ in its collation.
    #[serde(default)]
    deterministic: Option<bool>,
}

/// OID of `varchar`, whose values are those of `text`.
const VARCHAR: u32 = 1043;
/// OID of `text`.
const TEXT: u32 = 25;

/// The membership of a table in the publication. Any alteration of the membership changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sent {
    /// The OID of the publication.
    pub(crate) publication: u32,
    /// The transaction that set the options of the publication last.
    pub(crate) options: i64,
    /// The OID of the membership (`pg_publication_rel`).
    pub(crate) membership: u32,
}

/// The columns of a table; for a partitioned table with `atthasmissing` of its partitions.
const COLUMNS: &str = "
    SELECT a.attnum, a.attname::text, a.atttypid, a.atttypmod, a.attgenerated <> '',
           a.xmin::text::bigint,
           a.atthasmissing OR EXISTS (
               SELECT FROM pg_partition_tree($1::oid::regclass) p
               JOIN pg_attribute part ON part.attrelid = p.relid
               WHERE part.attname = a.attname AND part.atthasmissing),
           coalesce(c.collisdeterministic, true)
    FROM pg_attribute a LEFT JOIN pg_collation c ON c.oid = a.attcollation
    WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped";

/// The parts that determine the text of a value, also inside of domains, arrays, ranges and
/// composites.
const TYPES: &str = "
    WITH RECURSIVE used (oid) AS (
        SELECT atttypid FROM pg_attribute
        WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped
        UNION
        SELECT part.oid FROM used u JOIN pg_type t ON t.oid = u.oid CROSS JOIN LATERAL (
            SELECT t.typbasetype UNION ALL SELECT t.typelem
            UNION ALL SELECT rngsubtype FROM pg_range WHERE t.oid IN (rngtypid, rngmultitypid)
            UNION ALL SELECT atttypid FROM pg_attribute
                      WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped
        ) AS part (oid) WHERE part.oid <> 0)
    SELECT 'label ' || e.oid, e.enumlabel::text FROM pg_enum e JOIN used u ON u.oid = e.enumtypid
    UNION ALL
    SELECT 'composite ' || t.oid, string_agg(a.atttypid::text, ' ' ORDER BY a.attnum)
    FROM used u JOIN pg_type t ON t.oid = u.oid AND t.typtype = 'c'
    JOIN pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
    GROUP BY t.oid";

impl Shape {
    /// Reads the shape of a table from the catalog, without its membership in the publication.
    pub(crate) fn read(client: &mut Client, table: &Table) -> Result<Self> {
        let failed = |error| sql_error(format!("reading table `{}`", table.schema.name), error);
        let oid: &[&(dyn postgres::types::ToSql + Sync)] = &[&table.oid];
        let key = client
            .query_opt(
                "SELECT oid, conkey FROM pg_constraint WHERE conrelid = $1 AND contype = 'p'",
                oid,
            )
            .map_err(failed)?;
        let columns = client.query(COLUMNS, oid).map_err(failed)?;
        let types = client.query(TYPES, oid).map_err(failed)?;
        let stored = client
            .query(
                "SELECT oid, coalesce(pg_relation_filenode(oid), 0)
                 FROM pg_class
                 WHERE relkind <> 'p' AND (oid = $1 OR oid IN (
                     SELECT relid::oid FROM pg_partition_tree($1::oid::regclass)))",
                oid,
            )
            .map_err(failed)?;
        let attached = client
            .query(
                "SELECT i.inhrelid, i.xmin::text::bigint FROM pg_inherits i
                 WHERE i.inhrelid IN (
                     SELECT relid::oid FROM pg_partition_tree($1::oid::regclass))",
                oid,
            )
            .map_err(failed)?;
        let column = |row: &postgres::Row| {
            let column = Column {
                name: row.get(1),
                kind: row.get(2),
                modifier: row.get(3),
                generated: row.get(4),
                altered: row.get(5),
                filled: row.get(6),
                deterministic: Some(row.get(7)),
            };
            (row.get(0), column)
        };
        Ok(Self {
            oid: table.oid,
            namespace: Some(table.schema.namespace.clone()),
            key: key.map_or((0, Vec::new()), |row| (row.get(0), row.get(1))),
            columns: columns.iter().map(column).collect(),
            stored: stored.iter().map(|row| (row.get(0), row.get(1))).collect(),
            attached: attached
                .iter()
                .map(|row| (row.get(0), row.get(1)))
                .collect(),
            types: types.iter().map(|row| (row.get(0), row.get(1))).collect(),
            dropped: BTreeSet::new(),
            sent: None,
        })
    }

    /// The schema that the table was in, if the same table is in another one now.
    pub(crate) fn moved(&self, now: &Table) -> Option<&str> {
        let was = self.namespace.as_deref();
        was.filter(|was| self.oid == now.oid && *was != now.schema.namespace)
    }

    /// Whether the rows are stored in the same files.
    pub(crate) fn is_stored_as(&self, other: &Self) -> bool {
        (self.oid, &self.stored) == (other.oid, &other.stored)
    }

    /// Takes over what the catalog does not know any more, for a table whose stream continues.
    pub(crate) fn follows(&mut self, was: &Self) {
        let gone = was.columns.iter();
        let gone = gone.filter(|(number, it)| !it.generated && !self.columns.contains_key(number));
        self.dropped = gone.map(|(_, it)| it.name.clone()).collect();
        self.dropped.extend(was.dropped.iter().cloned());
    }

    /// Why rows of the table are missing or wrong downstream, if it was captured with the shape
    /// `self` and has the shape `now`. `None` when the stream is complete.
    pub(crate) fn outdated(&self, client: &mut Client, now: &Self) -> Option<String> {
        if self.oid != now.oid {
            return Some("the name stands for another table now".to_owned());
        }
        if self.key != now.key {
            return Some("its primary key was changed".to_owned());
        }
        let of_columns = self.column_outdated(now);
        of_columns.or_else(|| self.partition_outdated(client, now))
    }

    /// The reason in the columns and their types.
    fn column_outdated(&self, now: &Self) -> Option<String> {
        let rewritten = self.stored != now.stored;
        let is_gone = |name: &String| {
            let mut columns = self.columns.iter();
            let known = columns.find(|(_, it)| it.name == *name && !it.generated);
            self.dropped.contains(name)
                || known.is_some_and(|(number, _)| !now.columns.contains_key(number))
        };
        for (number, column) in now.columns.iter().filter(|(_, it)| !it.generated) {
            let what = match self.columns.get(number) {
                None if is_gone(&column.name) => "was dropped and made anew",
                None if column.filled || rewritten => "was added with a value for its rows",
                None => continue,
                Some(was) if was.generated => "is no longer generated",
                Some(was) if was.name != column.name => "was renamed",
                Some(was) if rewritten && was.is_altered(column) => "was altered with its values",
                Some(was) if was.compares_otherwise(column) => "has another type",
                Some(_) => continue,
            };
            return Some(format!("its column `{}` {what}", column.name));
        }
        let mut types = self.types.iter();
        types
            .any(|(part, was)| now.types.get(part).is_some_and(|is| is != was))
            .then(|| "a type of its columns was changed".to_owned())
    }

    /// The reason in the partitions.
    fn partition_outdated(&self, client: &mut Client, now: &Self) -> Option<String> {
        if now.stored.contains_key(&now.oid) {
            // The stream reports a TRUNCATE of the table itself.
            return None;
        }
        for (part, file) in &self.stored {
            match now.stored.get(part) {
                None => return Some("a partition was detached or dropped".to_owned()),
                Some(now) if now != file => {
                    return Some("a partition was truncated or rewritten".to_owned());
                }
                Some(_) => {}
            }
        }
        let mut known = self.attached.iter();
        if known.any(|(part, was)| now.attached.get(part).is_some_and(|is| is != was)) {
            return Some("a partition was detached and attached again".to_owned());
        }
        let mut new = now.stored.keys().filter(|it| !self.stored.contains_key(it));
        new.any(|&part| !is_empty(client, part))
            .then(|| "a partition with rows was attached".to_owned())
    }
}

impl Column {
    /// Whether its values are written or compared differently, also if no row was rewritten.
    fn compares_otherwise(&self, now: &Self) -> bool {
        let kind = |column: &Self| match column.kind {
            VARCHAR => TEXT,
            kind => kind,
        };
        let collations = (self.deterministic, now.deterministic);
        let is_collated = matches!(collations, (Some(was), Some(is)) if was != is);
        is_collated || kind(self) != kind(now)
    }

    /// Whether an ALTER TABLE in between may have computed its values again.
    fn is_altered(&self, now: &Self) -> bool {
        let is_known = self.altered.is_some();
        (self.kind, self.modifier) != (now.kind, now.modifier)
            || is_known && self.altered != now.altered
    }
}

/// Whether a partition has no rows. A partition that cannot be read counts as filled.
fn is_empty(client: &mut Client, oid: u32) -> bool {
    let name = client.query_opt(
        "SELECT n.nspname::text, c.relname::text
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1",
        &[&oid],
    );
    let Ok(Some(name)) = name else {
        return false;
    };
    let (schema, name): (String, String) = (name.get(0), name.get(1));
    let sql = format!("SELECT 1 FROM {}.{} LIMIT 1", quote(&schema), quote(&name));
    client.query(&sql, &[]).is_ok_and(|rows| rows.is_empty())
}
