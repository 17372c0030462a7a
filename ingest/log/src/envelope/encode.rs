//! Writes a change as Avro, straight in the order of [`value_schema`]'s fields, with no tree of
//! values in between.

use std::sync::Arc;

use apache_avro::Uuid;

use super::subject::{self, Evolution};
use super::{CONNECTOR, fingerprint_of, sequence_of, version_of};
use crate::event::{Change, Op, Value};
use crate::log::Record;
use crate::registry::Registry;
use crate::schema::{Column, ColumnType, TableSchema, fingerprint, key_schema, value_schema};
use crate::{Error, Kind, Result};

/// Encodes the changes of one table for one topic.
pub struct Encoder {
    topic: String,
    database: String,
    registry: Arc<dyn Registry>,
    current: Option<Registered>,
}

/// Whether a change's schemas are registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// The change can be encoded.
    Registered,
    /// Not: what the topic holds could not be read with one of them, for this reason. The table
    /// must begin anew first.
    Unreadable(String),
}

/// The table's schema as it was registered last.
struct Registered {
    table: Arc<TableSchema>,
    key_id: u32,
    value_id: u32,
    /// `source.version`, which names the value's schema.
    version: String,
    /// Whether each column is part of the key, and so never null.
    in_key: Vec<bool>,
    /// Whether they are the newest versions of their subjects.
    newest: bool,
}

impl Encoder {
    /// An encoder for `topic`; its subjects are `TOPIC-key` and `TOPIC-value`.
    pub fn new(topic: &str, registry: Arc<dyn Registry>) -> Self {
        Self {
            topic: topic.to_owned(),
            database: String::new(),
            registry,
            current: None,
        }
    }

    /// The database's name, for `source.db`.
    #[must_use]
    pub fn of_database(mut self, database: &str) -> Self {
        database.clone_into(&mut self.database);
        self
    }

    /// The change as a record, without a partition: its key decides. A truncate has no key; it is
    /// up to the caller to give it to every partition. The table's schemas are registered when
    /// they are new or changed; a refusal is an error of kind `Data`.
    pub fn encode(&mut self, change: &Change) -> Result<Record> {
        let known = self.current.as_ref();
        if !known.is_some_and(|current| current.table == change.table)
            && let Followed::Unreadable(why) = self.follow(&change.table, Evolution::Next)?
        {
            return Err(wrong(&change.table, &why));
        }
        let Some(current) = &self.current else {
            return Err(Error::new(Kind::Bug, "envelope: no schema was registered"));
        };
        Ok(Record {
            topic: self.topic.clone(),
            partition: None,
            key: key(current, change)?,
            value: Some(self.value(current, change)?),
            timestamp_ms: change.committed_us.div_euclid(1000),
        })
    }

    /// Whether the registry still has the schema that changes are written with, under its id; true
    /// where none is registered yet.
    ///
    /// # Errors
    /// The registry's.
    pub fn is_registered(&self) -> Result<bool> {
        let Some(current) = &self.current else {
            return Ok(true);
        };
        let schema = self.registry.by_id_now(current.value_id)?;
        let is = schema.map(|schema| fingerprint(&schema));
        Ok(is.is_some() && is == fingerprint_of(current.version.as_bytes()))
    }

    /// Registers a table's schemas, unless they are the current ones, as `evolution` allows it.
    ///
    /// # Errors
    /// Of kind `Data` when the registry refuses one of them, or the table has no key.
    pub fn follow(&mut self, table: &Arc<TableSchema>, evolution: Evolution) -> Result<Followed> {
        let newest = evolution != Evolution::Written;
        if let Some(current) = &mut self.current
            && (Arc::ptr_eq(&current.table, table) || current.table == *table)
            && (current.newest || !newest)
        {
            current.table = Arc::clone(table);
            return Ok(Followed::Registered);
        }
        if table.key.is_empty() || table.key.iter().any(|&index| index >= table.columns.len()) {
            let what = format!("table `{}.{}`: no primary key", table.namespace, table.name);
            return Err(Error::new(Kind::Data, what));
        }
        let mut ids = [0; 2];
        let schemas = [
            ("key", key_schema(table, &self.topic)),
            ("value", value_schema(table, &self.topic)),
        ];
        for ((part, schema), id) in schemas.iter().zip(&mut ids) {
            let subject = format!("{}-{part}", self.topic);
            match subject::register(&*self.registry, &subject, schema, evolution)? {
                Ok(registered) => *id = registered,
                Err(why) => return Ok(Followed::Unreadable(format!("subject `{subject}`: {why}"))),
            }
        }
        let [key_id, value_id] = ids;
        self.current = Some(Registered {
            table: Arc::clone(table),
            key_id,
            value_id,
            version: version_of(&schemas[1].1),
            in_key: (0..table.columns.len())
                .map(|index| table.in_key(index))
                .collect(),
            newest,
        });
        Ok(Followed::Registered)
    }

    fn value(&self, current: &Registered, change: &Change) -> Result<Vec<u8>> {
        let table = &change.table;
        let out = &mut started(current.value_id);
        put_row(out, current, change.before.as_deref())?;
        put_row(out, current, change.after.as_deref())?;
        let commit_ms = change.committed_us.div_euclid(1000);
        put_text(out, &current.version);
        put_text(out, CONNECTOR);
        put_text(out, CONNECTOR);
        put_long(out, commit_ms);
        put_some(out);
        put_long(out, change.committed_us);
        put_some(out);
        put_text(out, if change.snapshot { "true" } else { "false" });
        put_text(out, &self.database);
        put_text(out, &table.namespace);
        put_text(out, &table.name);
        put_some(out);
        put_long(out, change.transaction.cast_signed());
        put_some(out);
        put_long(out, change.position.commit.cast_signed());
        put_some(out);
        put_text(out, &sequence_of(change.position, change.op));
        put_text(out, change.op.letter());
        put_some(out);
        put_long(out, commit_ms);
        Ok(std::mem::take(out))
    }
}

/// The primary key, from the row that the change leaves or, for a delete, removes.
fn key(current: &Registered, change: &Change) -> Result<Option<Vec<u8>>> {
    if change.op == Op::Truncate {
        return Ok(None);
    }
    let row = change
        .after
        .as_ref()
        .or(change.before.as_ref())
        .ok_or_else(|| {
            let what = format!("a change with op `{}` has no row", change.op.letter());
            wrong(&current.table, &what)
        })?;
    let mut out = started(current.key_id);
    for &index in &current.table.key {
        let (Some(column), Some(value)) = (current.table.columns.get(index), row.get(index)) else {
            return Err(wrong(&current.table, "a row without its key columns"));
        };
        put_value(&mut out, column, value).map_err(|what| wrong(&current.table, &what))?;
    }
    Ok(Some(out))
}

/// Confluent's wire format: a zero, the schema's id, then the datum.
fn started(id: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    out.push(0);
    out.extend_from_slice(&id.to_be_bytes());
    out
}

fn wrong(table: &TableSchema, what: &str) -> Error {
    Error::new(
        Kind::Data,
        format!("table `{}.{}`: {what}", table.namespace, table.name),
    )
}

fn put_row(out: &mut Vec<u8>, current: &Registered, row: Option<&[Value]>) -> Result<()> {
    let Some(row) = row else {
        put_null(out);
        return Ok(());
    };
    let columns = &current.table.columns;
    if row.len() != columns.len() {
        let what = format!(
            "a row of {} values for {} columns",
            row.len(),
            columns.len()
        );
        return Err(wrong(&current.table, &what));
    }
    put_some(out);
    for ((column, value), in_key) in columns.iter().zip(row).zip(&current.in_key) {
        if !in_key {
            if *value == Value::Null {
                put_null(out);
                continue;
            }
            put_some(out);
        }
        put_value(out, column, value).map_err(|what| wrong(&current.table, &what))?;
    }
    Ok(())
}

/// The branch `null` of a union whose first branch it is.
fn put_null(out: &mut Vec<u8>) {
    out.push(0);
}

/// The other branch of that union.
fn put_some(out: &mut Vec<u8>) {
    out.push(2);
}

/// Avro's `int` and `long`: zigzag, then 7 bits a byte, the lowest first.
fn put_long(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    // A slice is never longer than i64::MAX.
    put_long(out, bytes.len() as i64);
    out.extend_from_slice(bytes);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, column: &Column, value: &Value) -> std::result::Result<(), String> {
    match (column.kind, value) {
        (ColumnType::Bool, Value::Bool(it)) => out.push(u8::from(*it)),
        (ColumnType::Int, Value::Int(it)) => match i32::try_from(*it) {
            Ok(it) => put_long(out, it.into()),
            Err(_) => {
                return Err(format!(
                    "column `{}`: {it} is no 32 bit integer",
                    column.name
                ));
            }
        },
        (ColumnType::Long, Value::Int(it)) => put_long(out, *it),
        (ColumnType::Float, Value::Float(it)) => {
            out.extend_from_slice(&(*it as f32).to_le_bytes());
        }
        (ColumnType::Double, Value::Float(it)) => out.extend_from_slice(&it.to_le_bytes()),
        (ColumnType::Text | ColumnType::Json | ColumnType::Source(_), Value::Text(it)) => {
            put_text(out, it);
        }
        (ColumnType::Uuid, Value::Text(it)) => match Uuid::parse_str(it) {
            Ok(it) => put_text(
                out,
                it.hyphenated().encode_lower(&mut Uuid::encode_buffer()),
            ),
            Err(_) => return Err(format!("column `{}`: `{it}` is no uuid", column.name)),
        },
        (ColumnType::Bytes, Value::Bytes(it)) => put_bytes(out, it),
        (ColumnType::Date, Value::Date(it)) => put_long(out, (*it).into()),
        (ColumnType::Timestamp | ColumnType::Timestamptz, Value::Timestamp(it)) => {
            put_long(out, *it);
        }
        (ColumnType::Decimal { scale, .. }, Value::Decimal(it)) => {
            let unscaled = 10i128
                .checked_pow(u32::from(scale.min(0).unsigned_abs()))
                .and_then(|factor| it.checked_mul(factor))
                .ok_or_else(|| format!("column `{}`: a decimal is too large", column.name))?;
            put_bytes(out, shortest(&unscaled.to_be_bytes()));
        }
        (_, Value::Null) => {
            return Err(format!(
                "column `{}` of the primary key is null",
                column.name
            ));
        }
        (kind, value) => {
            return Err(format!(
                "column `{}` of type {kind:?} was given {value:?}",
                column.name
            ));
        }
    }
    Ok(())
}

/// Two's complement without the leading bytes that only repeat the sign.
fn shortest(mut bytes: &[u8]) -> &[u8] {
    while let [first @ (0 | 0xff), rest @ ..] = bytes
        && rest
            .first()
            .is_some_and(|second| (first ^ second) & 0x80 == 0)
    {
        bytes = rest;
    }
    bytes
}
