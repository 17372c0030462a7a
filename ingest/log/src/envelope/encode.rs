//! Encodes change events as Avro records under the schemas of [`value_schema`] and [`key_schema`].
//!
//! The bytes are written directly in the order of the schema's fields, without a tree of Avro
//! values in between. The binary encoding is that of the Avro specification 1.11, section "Binary
//! Encoding".
//!
//! Invariant: the order of the `put_*` calls in `Encoder::value` is the order of the fields in
//! [`value_schema`]. A change to one needs the same change to the other.

use std::sync::Arc;

use apache_avro::Uuid;

use super::subject::Evolution;
use super::{CONNECTOR, fingerprint_of, sequence_of, subject, version_of};
use crate::envelope::event::{Change, Op, Value};
use crate::log::Record;
use crate::registry::Registry;
use crate::schema::{Column, ColumnType, TableSchema, fingerprint, key_schema, value_schema};
use crate::{Error, Kind, Result};

/// Encodes the changes of one table for one topic, and registers the table's schemas under the
/// subjects `TOPIC-key` and `TOPIC-value`.
///
/// ```
/// use std::sync::Arc;
/// use tidemill_log::envelope::Encoder;
/// use tidemill_log::envelope::event::{Change, Op, Position, Value};
/// use tidemill_log::schema::{Column, ColumnType, TableSchema};
///
/// # fn main() -> tidemill_log::Result<()> {
/// let folder = tempfile::tempdir().expect("a folder");
/// let url = format!("sqlite://{}", folder.path().join("log.db").display());
/// let registry = tidemill_log::registry::open(&url)?;
/// let change = Change {
///     table: Arc::new(TableSchema {
///         namespace: "public".into(),
///         name: "users".into(),
///         columns: vec![Column { name: "id".into(), kind: ColumnType::Int, nullable: false }],
///         key: vec![0],
///     }),
///     op: Op::Create,
///     before: None,
///     after: Some(vec![Value::Int(7)]),
///     position: Position { commit: 100, index: 0 },
///     transaction: 1,
///     committed_us: 1_700_000_000_000_000,
///     snapshot: false,
/// };
/// let mut encoder = Encoder::new("users", Arc::clone(&registry)).of_database("shop");
/// let record = encoder.encode(&change)?;
/// assert_eq!(record.timestamp_ms, 1_700_000_000_000);
/// // Confluent's wire format: a zero, then the schema id of the subject `users-key`.
/// let id = registry.latest("users-key")?.expect("a schema").id;
/// assert_eq!(record.key.expect("a key")[..5], [&[0][..], &id.to_be_bytes()].concat());
/// # Ok(())
/// # }
/// ```
pub struct Encoder {
    /// The topic of the records, which also names the subjects.
    topic: String,
    /// `source.db` of the records.
    database: String,
    /// Where the schemas are registered.
    registry: Arc<dyn Registry>,
    /// The schemas in use; `None` before the first change.
    current: Option<Registered>,
}

/// The outcome of [`Encoder::follow`]: whether the schemas of a table are registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// Both schemas are registered: the change can be encoded.
    Registered,
    /// A new schema cannot read the records that the topic holds, for this reason. The table must
    /// be published anew, as a snapshot, before the change can be encoded.
    Unreadable(String),
}

/// The schemas of the table that were registered last.
struct Registered {
    /// The columns that the schemas describe.
    table: Arc<TableSchema>,
    /// Schema id of the keys.
    key_id: u32,
    /// Schema id of the values.
    value_id: u32,
    /// `source.version`, which holds the fingerprint of the value schema.
    version: String,
    /// For each column whether it is part of the key, and therefore never null.
    in_key: Vec<bool>,
    /// Whether both schemas were checked to be the newest versions of their subjects.
    newest: bool,
}

impl Encoder {
    /// An encoder for the records of `topic`. Nothing is registered before the first change.
    pub fn new(topic: &str, registry: Arc<dyn Registry>) -> Self {
        Self {
            topic: topic.to_owned(),
            database: String::new(),
            registry,
            current: None,
        }
    }

    /// Sets the database name that `source.db` of the records holds.
    #[must_use]
    pub fn of_database(mut self, database: &str) -> Self {
        database.clone_into(&mut self.database);
        self
    }

    /// Encodes a change as a record. The record names no partition: the caller sets it by
    /// [`partition_of_change`](super::partition_of_change), and appends a truncate, which has no
    /// key, to every partition. New or changed schemas are registered first.
    ///
    /// # Errors
    /// `Data` when the registry refuses a schema, a new schema cannot read what the topic holds, or
    /// a value does not fit its column; `Retry` when the registry does not answer.
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

    /// Whether the registry still holds the schema in use under its id. True when no schema is in
    /// use yet.
    ///
    /// # Errors
    /// Those of [`Registry::by_id_now`].
    pub fn is_registered(&self) -> Result<bool> {
        let Some(current) = &self.current else {
            return Ok(true);
        };
        let schema = self.registry.by_id_now(current.value_id)?;
        let is = schema.map(|schema| fingerprint(&schema));
        Ok(is.is_some() && is == fingerprint_of(current.version.as_bytes()))
    }

    /// Registers the schemas of a table as far as `evolution` allows. Does nothing when they are in
    /// use already.
    ///
    /// # Errors
    /// `Data` when the registry refuses a schema, or the table has no primary key; `Retry` when the
    /// registry does not answer.
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

    /// The value of a record: header, envelope. The order is that of the fields in
    /// [`value_schema`].
    fn value(&self, current: &Registered, change: &Change) -> Result<Vec<u8>> {
        let table = &change.table;
        let out = &mut wire_header(current.value_id);
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

/// The key of a record: the primary key of the row after the change or, for a delete, of the row
/// before it. `None` for a truncate.
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
    let mut out = wire_header(current.key_id);
    for &index in &current.table.key {
        let (Some(column), Some(value)) = (current.table.columns.get(index), row.get(index)) else {
            return Err(wrong(&current.table, "a row without its key columns"));
        };
        put_value(&mut out, column, value).map_err(|what| wrong(&current.table, &what))?;
    }
    Ok(Some(out))
}

/// A buffer with the header of Confluent's wire format: a zero byte and the schema id.
fn wire_header(id: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    out.push(0);
    out.extend_from_slice(&id.to_be_bytes());
    out
}

/// An error of the data of a table.
fn wrong(table: &TableSchema, what: &str) -> Error {
    Error::new(
        Kind::Data,
        format!("table `{}.{}`: {what}", table.namespace, table.name),
    )
}

/// Writes a row as the branch `Value` of the union, or the branch null. Columns outside of the key
/// are unions with null themselves.
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

/// Writes the index of the branch `null` of a union `["null", T]`.
fn put_null(out: &mut Vec<u8>) {
    out.push(0);
}

/// Writes the index of the branch `T` of a union `["null", T]`; the value follows.
fn put_some(out: &mut Vec<u8>) {
    out.push(2);
}

/// Writes Avro's `int` or `long`: zigzag, then a variable-length integer of 7 bits a byte, the
/// lowest bits first.
fn put_long(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Writes Avro's `bytes`: the length, then the bytes.
fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    // A slice is never longer than i64::MAX.
    put_long(out, bytes.len() as i64);
    out.extend_from_slice(bytes);
}

/// Writes Avro's `string`, which is encoded as `bytes`.
fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

/// Writes the value of one column in the Avro type of the column. The error says what does not fit.
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

/// Big-endian two's complement without the leading bytes that only repeat the sign.
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
