//! Decodes envelope records of the log into change events, with apache_avro's generic reader.
//!
//! Invariant: no byte of a record is trusted. Bytes that are not an envelope of Tidemill are an
//! error of kind `Data`. A registry that does not answer is an error of kind `Retry`.

use std::collections::HashMap;
use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;

use super::{CONNECTOR, REPLAYED, fingerprint_in, is_withheld, position_of};
use crate::envelope::event::{Change, Op, Position, Value};
use crate::log::OwnedRecord;
use crate::registry::Registry;
use crate::schema::{TableSchema, fingerprint, table_of};
use crate::{Error, Kind, Result};

/// Decodes the records of one topic. Schemas and tables are cached by their ids, for the life of
/// the decoder.
///
/// ```
/// use std::sync::Arc;
/// use tidemill_log::envelope::{Decoder, Encoder};
/// use tidemill_log::envelope::event::{Change, Op, Position, Value};
/// use tidemill_log::schema::{Column, ColumnType, TableSchema};
/// use tidemill_log::{log, registry};
///
/// # fn main() -> tidemill_log::Result<()> {
/// let folder = tempfile::tempdir().expect("a folder");
/// let url = format!("sqlite://{}", folder.path().join("log.db").display());
/// let registry = registry::open(&url)?;
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
///     committed_us: 0,
///     snapshot: false,
/// };
/// let log = log::open(&url)?;
/// log.create_topic("users", 1)?;
/// let record = Encoder::new("users", Arc::clone(&registry)).encode(&change)?;
/// log.producer()?.append(&[record])?;
///
/// let records = log.tail("users", 1)?;
/// let decoded = Decoder::new("users", registry).decode(&records[0])?;
/// assert_eq!(decoded, change);
/// # Ok(())
/// # }
/// ```
pub struct Decoder {
    /// The topic, for error messages and the name of the key's subject.
    topic: String,
    /// Where schema ids are looked up.
    registry: Arc<dyn Registry>,
    /// Schemas by id: the JSON text and its parsed form.
    schemas: HashMap<u32, (String, Schema)>,
    /// Tables by the ids of their value schema and key schema.
    tables: HashMap<(u32, u32), Arc<TableSchema>>,
    /// See [`Decoder::missing`].
    missing: Option<u32>,
    /// See [`Decoder::misnamed`].
    misnamed: Option<u32>,
}

/// The source position of a record, and whether the record begins a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The source position of the change.
    pub position: Position,
    /// Whether the record is the truncate that begins a snapshot. Positions before it may belong to
    /// another database and must not be compared.
    pub begins: bool,
}

impl Decoder {
    /// A decoder for the records of `topic`.
    pub fn new(topic: &str, registry: Arc<dyn Registry>) -> Self {
        let (schemas, tables) = (HashMap::new(), HashMap::new());
        Self {
            topic: topic.to_owned(),
            registry,
            schemas,
            tables,
            missing: None,
            misnamed: None,
        }
    }

    /// The last schema id that a record named and that the registry does not have.
    pub fn missing(&self) -> Option<u32> {
        self.missing
    }

    /// The last schema id that stands for another schema now than when the record was written: the
    /// registry was recreated and assigned its ids again.
    pub fn misnamed(&self) -> Option<u32> {
        self.misnamed
    }

    /// Decodes a record into its change.
    ///
    /// # Errors
    /// `Data` when the record is not an envelope of Tidemill, is damaged, or names a schema that
    /// the registry does not have; `Retry` when the registry does not answer.
    pub fn decode(&mut self, record: &OwnedRecord) -> Result<Change> {
        let (id, envelope) = self.envelope(record)?;
        let table = self.table(id, record)?;
        let wrong = |what: &str| wrong(&self.topic, what);
        let source = field(&envelope, "source").ok_or_else(|| wrong("no field `source`"))?;
        let row = |name: &str| match field(&envelope, name) {
            Some(Avro::Record(fields)) => fields
                .iter()
                .map(|(name, value)| {
                    value_of(value).ok_or_else(|| wrong(&format!("column `{name}`: {value:?}")))
                })
                .collect::<Result<Vec<Value>>>()
                .map(Some),
            _ => Ok(None),
        };
        let sequence = text(source, "sequence").unwrap_or_default();
        let op = match text(&envelope, "op").and_then(Op::of_letter) {
            Some(Op::Delete) if is_withheld(sequence.as_bytes()) => Op::Withheld,
            op => op.ok_or_else(|| wrong("no `op`"))?,
        };
        Ok(Change {
            op,
            before: row("before")?,
            after: row("after")?,
            position: position(source).ok_or_else(|| wrong("no `source.sequence`"))?,
            transaction: long(source, "txId").unwrap_or(0).cast_unsigned(),
            committed_us: long(source, "ts_us").ok_or_else(|| wrong("no `source.ts_us`"))?,
            snapshot: text(source, "snapshot") == Some("true"),
            table,
        })
    }

    /// The source position of a record; `None` when Tidemill did not write the record, or the
    /// record is damaged.
    ///
    /// # Errors
    /// `Retry` when the registry does not answer. Errors of the record itself give `None`.
    pub fn position_of(&mut self, record: &OwnedRecord) -> Result<Option<Position>> {
        Ok(self.place_of(record)?.map(|place| place.position))
    }

    /// Like [`Decoder::position_of`], and whether the record begins a snapshot.
    ///
    /// # Errors
    /// `Retry` when the registry does not answer.
    pub fn place_of(&mut self, record: &OwnedRecord) -> Result<Option<Place>> {
        match self.envelope(record) {
            Ok((_, envelope)) => {
                let source = field(&envelope, "source");
                let begins = text(&envelope, "op") == Some(Op::Truncate.letter())
                    && source.and_then(|source| text(source, "snapshot")) == Some("true");
                let position = source.and_then(position);
                Ok(position.map(|position| Place { position, begins }))
            }
            Err(error) if error.kind() == Kind::Data => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The value of a record as it is written when an operator puts the record back into its
    /// partition.
    ///
    /// Readers drop a record that stands behind newer changes of its partition. The value is marked
    /// (`source.connector`), so that readers do not drop it. `None` when Tidemill did not write the
    /// record.
    ///
    /// # Errors
    /// `Retry` when the registry does not answer; `Bug` when the marked envelope does not fit its
    /// own schema.
    pub fn put_back(&mut self, record: &OwnedRecord) -> Result<Option<Vec<u8>>> {
        if self.position_of(record)?.is_none() {
            return Ok(None);
        }
        let (id, mut envelope) = self.envelope(record)?;
        let connector =
            field_mut(&mut envelope, "source").and_then(|source| field_mut(source, "connector"));
        if let Some(connector) = connector {
            *connector = Avro::String(REPLAYED.to_owned());
        }
        let (_, schema) = self.schema(id)?;
        let written = GenericDatumWriter::builder(schema)
            .build()
            .and_then(|writer| writer.write_value_to_vec(envelope));
        let datum = written.map_err(|error| {
            let what = format!("topic `{}`: a value cannot be written again", self.topic);
            Error::with_source(Kind::Bug, what, error)
        })?;
        Ok(Some([&[0][..], &id.to_be_bytes(), &datum].concat()))
    }

    /// The schema id and the decoded datum of a record's value. Compares the fingerprint that the
    /// record carries with that of the registry's schema, before a byte is decoded.
    fn envelope(&mut self, record: &OwnedRecord) -> Result<(u32, Avro)> {
        let value = record.value.as_deref();
        let (id, mut datum) = value.and_then(split_wire_format).ok_or_else(|| {
            wrong(
                &self.topic,
                "a value that is not in Confluent's wire format",
            )
        })?;
        let topic = self.topic.clone();
        let (text, schema) = self.schema(id)?;
        if fingerprint_in(datum).is_some_and(|was| was != fingerprint(text)) {
            self.misnamed = Some(id);
            let what = format!("schema {id} is not the one that it was written with");
            return Err(wrong(&topic, &what));
        }
        let reader = GenericDatumReader::builder(schema).build();
        let envelope = reader
            .and_then(|reader| reader.read_value(&mut datum))
            .map_err(|error| {
                let what = format!("topic `{topic}`: a value does not fit its schema {id}");
                Error::with_source(Kind::Data, what, error)
            })?;
        // apache_avro reads a missing union at the end as null, and ignores bytes that follow the
        // datum.
        if !datum.is_empty() || long(&envelope, "ts_ms").is_none() {
            return Err(wrong(
                &topic,
                "a value that is cut off or followed by other bytes",
            ));
        }
        Ok((id, envelope))
    }

    /// The table of a record, by the schema ids of its value and its key. A truncate has no key, so
    /// its table has the newest key schema.
    fn table(&mut self, value_id: u32, record: &OwnedRecord) -> Result<Arc<TableSchema>> {
        let key_id = match record.key.as_deref() {
            Some(key) => split_wire_format(key).map(|(id, _)| id),
            None => self
                .registry
                .latest(&format!("{}-key", self.topic))?
                .map(|it| it.id),
        };
        let key_id = key_id.ok_or_else(|| wrong(&self.topic, "a key without its schema"))?;
        if let Some(table) = self.tables.get(&(value_id, key_id)) {
            return Ok(Arc::clone(table));
        }
        let key_schema = self.schema(key_id)?.0.clone();
        let table = Arc::new(table_of(&self.schema(value_id)?.0, &key_schema)?);
        self.tables.insert((value_id, key_id), Arc::clone(&table));
        Ok(table)
    }

    /// The schema with an id: from the cache, or else from the registry.
    fn schema(&mut self, id: u32) -> Result<&(String, Schema)> {
        use std::collections::hash_map::Entry;
        match self.schemas.entry(id) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(place) => {
                let Some(schema) = self.registry.by_id(id)? else {
                    self.missing = Some(id);
                    return Err(wrong(
                        &self.topic,
                        &format!("the registry has no schema {id}"),
                    ));
                };
                let parsed = Schema::parse_str(&schema).map_err(|error| {
                    let what = format!("topic `{}`: schema {id} is not Avro", self.topic);
                    Error::with_source(Kind::Data, what, error)
                })?;
                Ok(place.insert((schema, parsed)))
            }
        }
    }
}

/// The error of a record that is not a change of this topic.
fn wrong(topic: &str, what: &str) -> Error {
    Error::new(
        Kind::Data,
        format!("topic `{topic}`: not a change record of Tidemill: {what}"),
    )
}

/// Splits a value in Confluent's wire format into schema id and datum.
fn split_wire_format(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (id, datum) = bytes.strip_prefix(&[0])?.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*id), datum))
}

/// A field of an Avro record by its name, out of its union.
fn field<'a>(record: &'a Avro, name: &str) -> Option<&'a Avro> {
    match record {
        Avro::Record(fields) => fields
            .iter()
            .find(|(it, _)| it == name)
            .map(|(_, it)| out_of_union(it)),
        _ => None,
    }
}

/// A field of an Avro record by its name, to be changed.
fn field_mut<'a>(record: &'a mut Avro, name: &str) -> Option<&'a mut Avro> {
    match record {
        Avro::Record(fields) => fields
            .iter_mut()
            .find(|(it, _)| it == name)
            .map(|(_, it)| it),
        _ => None,
    }
}

/// The value inside a union; any other value as it is.
fn out_of_union(value: &Avro) -> &Avro {
    match value {
        Avro::Union(_, inner) => inner,
        value => value,
    }
}

/// The text of a field.
fn text<'a>(record: &'a Avro, name: &str) -> Option<&'a str> {
    match field(record, name)? {
        Avro::String(text) => Some(text),
        _ => None,
    }
}

/// The 64-bit integer of a field.
fn long(record: &Avro, name: &str) -> Option<i64> {
    match field(record, name)? {
        Avro::Long(it) => Some(*it),
        _ => None,
    }
}

/// The source position in the record `source`; `None` when the connector is not Tidemill, also in
/// records that were put back.
fn position(source: &Avro) -> Option<Position> {
    if text(source, "connector") != Some(CONNECTOR) {
        return None;
    }
    position_of(text(source, "sequence")?.as_bytes())
}

/// The column value of an Avro value; `None` for types that no column has.
fn value_of(value: &Avro) -> Option<Value> {
    Some(match out_of_union(value) {
        Avro::Null => Value::Null,
        Avro::Boolean(it) => Value::Bool(*it),
        Avro::Int(it) => Value::Int((*it).into()),
        Avro::Long(it) => Value::Int(*it),
        Avro::Float(it) => Value::Float((*it).into()),
        Avro::Double(it) => Value::Float(*it),
        Avro::String(it) => Value::Text(it.clone()),
        Avro::Uuid(it) => Value::Text(it.to_string()),
        Avro::Bytes(it) => Value::Bytes(it.clone()),
        Avro::Date(it) => Value::Date(*it),
        Avro::TimestampMicros(it) => Value::Timestamp(*it),
        Avro::Decimal(it) => Value::Decimal(unscaled(&Vec::<u8>::try_from(it).ok()?)?),
        _ => return None,
    })
}

/// The unscaled value of a decimal: big-endian two's complement of at most 16 bytes.
fn unscaled(bytes: &[u8]) -> Option<i128> {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let mut all = [if negative { 0xff } else { 0 }; 16];
    let at = all.len().checked_sub(bytes.len())?;
    all.get_mut(at..)?.copy_from_slice(bytes);
    Some(i128::from_be_bytes(all))
}
