//! The shape of a table: what of it must stay as it is for its stream to be complete.
//!
//! The catalog flows in; out flows why a table must be read anew, as PostgreSQL's stream says
//! nothing of rows that were there before a change: of a column that got a value, of a type whose
//! texts changed, of partitions that came and went.

use std::collections::{BTreeMap, BTreeSet};

use postgres::Client;
use serde::{Deserialize, Serialize};

use super::catalog::{Table, quote};
use super::sql_error;
use crate::Result;

/// What of a table must stay as it is. Fields that earlier versions did not keep have a default,
/// which nothing is compared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shape {
    pub(super) oid: u32,
    #[serde(default)]
    namespace: Option<String>,
    /// The primary key's constraint and its columns' numbers.
    key: (u32, Vec<i16>),
    columns: BTreeMap<i16, Column>,
    /// The tables that hold the rows, itself or its partitions, each with its file.
    stored: BTreeMap<u32, u32>,
    /// The transaction that made each partition one.
    attached: BTreeMap<u32, i64>,
    /// The labels of enums and the columns of composite types that its columns are made of.
    #[serde(default)]
    types: BTreeMap<String, String>,
    /// Columns that were dropped since the table was read: older records still hold their values.
    #[serde(default)]
    dropped: BTreeSet<String>,
    /// How the publication sends it.
    #[serde(default)]
    pub(super) sent: Option<Sent>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Column {
    name: String,
    kind: u32,
    modifier: i32,
    /// Rows that were there before the column have a value in it.
    filled: bool,
    /// Its values are computed, and not in the stream.
    #[serde(default)]
    generated: bool,
    /// The transaction that altered it last.
    #[serde(default)]
    altered: Option<i64>,
    /// Whether its collation holds no two different texts equal.
    #[serde(default)]
    deterministic: Option<bool>,
}

/// `varchar`, whose values are those of `text`.
const VARCHAR: u32 = 1043;
const TEXT: u32 = 25;

/// A table's place in the publication, which changes with whatever is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sent {
    /// The publication's OID.
    pub(super) publication: u32,
    /// The transaction that set its options last.
    pub(super) options: i64,
    /// The OID of the table's membership.
    pub(super) membership: u32,
}

/// The columns, those of a partitioned table with what its partitions say of old rows.
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

/// What the texts of its values are made of, in domains, arrays, ranges and composites too.
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
    /// Reads the shape of a table, as the catalog has it now; not how it is sent.
    pub(super) fn read(client: &mut Client, table: &Table) -> Result<Self> {
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

    /// The schema that the table was in, if it is the same table in another one now.
    pub(super) fn moved(&self, now: &Table) -> Option<&str> {
        let was = self.namespace.as_deref();
        was.filter(|was| self.oid == now.oid && *was != now.schema.namespace)
    }

    /// Whether the rows are where they were.
    pub(super) fn is_stored_as(&self, other: &Self) -> bool {
        (self.oid, &self.stored) == (other.oid, &other.stored)
    }

    /// Takes over what the catalog has forgotten, of a table that is not read anew.
    pub(super) fn follows(&mut self, was: &Self) {
        let gone = was.columns.iter();
        let gone = gone.filter(|(number, it)| !it.generated && !self.columns.contains_key(number));
        self.dropped = gone.map(|(_, it)| it.name.clone()).collect();
        self.dropped.extend(was.dropped.iter().cloned());
    }

    /// Why rows of the table are missing or wrong downstream, if `self` was captured and the table
    /// is `now` another one.
    pub(super) fn outdated(&self, client: &mut Client, now: &Self) -> Option<String> {
        if self.oid != now.oid {
            return Some("the name stands for another table now".to_owned());
        }
        if self.key != now.key {
            return Some("its primary key was changed".to_owned());
        }
        let of_columns = self.column_outdated(now);
        of_columns.or_else(|| self.partition_outdated(client, now))
    }

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

    fn partition_outdated(&self, client: &mut Client, now: &Self) -> Option<String> {
        if now.stored.contains_key(&now.oid) {
            // The stream tells of its own TRUNCATE.
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
    /// Whether its values are written or compared in another way, also where none was rewritten.
    fn compares_otherwise(&self, now: &Self) -> bool {
        let kind = |column: &Self| match column.kind {
            VARCHAR => TEXT,
            kind => kind,
        };
        let collations = (self.deterministic, now.deterministic);
        let is_collated = matches!(collations, (Some(was), Some(is)) if was != is);
        is_collated || kind(self) != kind(now)
    }

    /// Whether an ALTER came between, which may have computed its values anew.
    fn is_altered(&self, now: &Self) -> bool {
        let is_known = self.altered.is_some();
        (self.kind, self.modifier) != (now.kind, now.modifier)
            || is_known && self.altered != now.altered
    }
}

/// Whether a partition has no rows. One that nobody may look into counts as filled.
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
