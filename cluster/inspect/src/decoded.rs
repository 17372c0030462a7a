//! Bytes of a record as people read them: Avro by the schema that the record names, JSON, text, or
//! hexadecimal digits.
//!
//! Values are texts of JSON and not JSON values, because a browser's numbers would round large
//! integers. Avro values are shown as they are on the wire; of the logical types, decimals, dates
//! and UUIDs are written out.
//!
//! Invariant: bytes that cannot be decoded are shown as bytes, with the reason.

use std::collections::HashMap;
use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema::{Name, ResolvedSchema};
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use num_bigint::BigInt;
use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq, Serializer};
use serde_json::value::RawValue;
use tidemill_log::envelope::fingerprint_in;
use tidemill_log::log::dead_letter::hex;
use tidemill_log::registry::Registry;
use tidemill_log::schema::fingerprint;

/// How bytes were decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Form {
    /// Confluent's wire format; the text is JSON.
    Avro,
    /// The bytes are JSON, and the text is as it was written.
    Json,
    /// The bytes are text in UTF-8.
    Text,
    /// Other bytes; the text is their hexadecimal digits.
    Bytes,
}

/// A key or a value, decoded.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Decoded {
    /// How the bytes were decoded.
    pub(crate) form: Form,
    /// The number of bytes in the record.
    pub(crate) bytes: usize,
    /// The text, perhaps only its beginning.
    pub(crate) text: String,
    /// Whether the text is only the beginning.
    pub(crate) is_cut: bool,
    /// The id of the Avro schema that the record names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) schema_id: Option<u32>,
    /// Why the bytes could not be decoded by that schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
}

impl Decoded {
    /// The same with a text of at most `most` bytes.
    pub(crate) fn cut(mut self, most: usize) -> Self {
        if self.text.len() > most {
            let mut end = most;
            while !self.text.is_char_boundary(end) {
                end -= 1;
            }
            self.text.truncate(end);
            self.is_cut = true;
        }
        self
    }

    /// The text as a JSON value: as it is if it is JSON, else as a string.
    pub(crate) fn json(&self) -> Box<RawValue> {
        let whole = matches!(self.form, Form::Avro | Form::Json) && !self.is_cut;
        let raw = whole.then(|| RawValue::from_string(self.text.clone()).ok());
        let text = || serde_json::value::to_raw_value(&self.text).unwrap_or_default();
        raw.flatten().unwrap_or_else(text)
    }
}

/// Schemas by their ids, parsed.
type Schemas = HashMap<u32, Result<Arc<(Schema, u64)>, String>>;

/// Decodes keys and values. The schemas are kept for the life of the decoder.
pub(crate) struct Decoder {
    registry: Arc<dyn Registry>,
    schemas: Schemas,
}

impl Decoder {
    /// A decoder that looks schema ids up in the registry.
    pub(crate) fn new(registry: Arc<dyn Registry>) -> Self {
        let schemas = Schemas::new();
        Self { registry, schemas }
    }

    /// Decodes bytes.
    pub(crate) fn decoded(&mut self, bytes: &[u8]) -> Decoded {
        let mut decoded = Decoded {
            form: Form::Bytes,
            bytes: bytes.len(),
            text: String::new(),
            is_cut: false,
            schema_id: None,
            problem: None,
        };
        if let Some(([0, id @ ..], datum)) = bytes.split_first_chunk::<5>() {
            let id = u32::from_be_bytes(*id);
            decoded.schema_id = Some(id);
            match self.avro(id, datum) {
                Ok(text) => (decoded.form, decoded.text) = (Form::Avro, text),
                Err(problem) => {
                    decoded.problem = Some(problem);
                    decoded.text = hex(bytes);
                }
            }
            return decoded;
        }
        (decoded.form, decoded.text) = match std::str::from_utf8(bytes) {
            Err(_) => (Form::Bytes, hex(bytes)),
            Ok(text) if serde_json::from_str::<&RawValue>(text).is_ok() => {
                (Form::Json, text.to_owned())
            }
            Ok(text) => (Form::Text, text.to_owned()),
        };
        decoded
    }

    /// An Avro datum as JSON, by the schema with this id.
    fn avro(&mut self, id: u32, datum: &[u8]) -> Result<String, String> {
        let known = self.schema(id)?;
        let (schema, written) = (&known.0, known.1);
        if fingerprint_in(datum).is_some_and(|it| it != written) {
            return Err(format!(
                "schema id {id} stands for another schema now than when the record was written"
            ));
        }
        let reader = GenericDatumReader::builder(schema).build();
        let reader = reader.map_err(|error| error.to_string())?;
        let mut rest = datum;
        let value = reader.read_value(&mut rest);
        let value = value.map_err(|error| format!("not a value of schema {id}: {error}"))?;
        if !rest.is_empty() {
            let count = rest.len();
            return Err(format!("{count} bytes follow the value of schema {id}"));
        }
        // The reader takes a missing union at the end for null.
        let whole = GenericDatumWriter::builder(schema).build();
        let whole = whole.and_then(|writer| writer.write_value_to_vec(value.clone()));
        if whole.is_ok_and(|whole| whole.len() > datum.len()) {
            return Err(format!("the value of schema {id} is cut off"));
        }
        let names = ResolvedSchema::try_from(schema).map_err(|error| error.to_string())?;
        let names = names.get_names();
        let shown = Shown {
            value: &value,
            schema: Some(schema),
            names: &|name| names.get(name).copied(),
        };
        serde_json::to_string(&shown).map_err(|error| error.to_string())
    }

    /// The schema with this id, and its fingerprint.
    fn schema(&mut self, id: u32) -> Result<Arc<(Schema, u64)>, String> {
        if let Some(known) = self.schemas.get(&id) {
            return known.clone();
        }
        let found = match self.registry.by_id(id) {
            Ok(Some(text)) => Schema::parse_str(&text)
                .map(|schema| Arc::new((schema, fingerprint(&text))))
                .map_err(|error| format!("schema {id} is not Avro: {error}")),
            Ok(None) => Err(format!("the registry has no schema with the id {id}")),
            Err(error) => Err(format!("schema {id} cannot be read: {error}")),
        };
        self.schemas.insert(id, found.clone());
        found
    }
}

/// An Avro value that is written as JSON, with its schema as far as it is known.
struct Shown<'a> {
    value: &'a Avro,
    schema: Option<&'a Schema>,
    names: &'a dyn Fn(&Name) -> Option<&'a Schema>,
}

impl<'a> Shown<'a> {
    /// A value within this one.
    fn within(&self, value: &'a Avro, schema: Option<&'a Schema>) -> Self {
        let names = self.names;
        let schema = match schema {
            Some(Schema::Ref { name }) => names(name),
            other => other,
        };
        Self {
            value,
            schema,
            names,
        }
    }

    /// A value that holds others.
    fn container<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match (self.value, self.schema) {
            (Avro::Array(items), schema) => {
                let kind = match schema {
                    Some(Schema::Array(array)) => Some(array.items.as_ref()),
                    _ => None,
                };
                let mut list = out.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(&self.within(item, kind))?;
                }
                list.end()
            }
            (Avro::Map(entries), schema) => {
                let kind = match schema {
                    Some(Schema::Map(map)) => Some(map.types.as_ref()),
                    _ => None,
                };
                let mut map = out.serialize_map(Some(entries.len()))?;
                let mut entries: Vec<_> = entries.iter().collect();
                entries.sort_by_key(|(name, _)| *name);
                for (name, value) in entries {
                    map.serialize_entry(name, &self.within(value, kind))?;
                }
                map.end()
            }
            (Avro::Record(fields), schema) => {
                let kinds = match schema {
                    Some(Schema::Record(record)) => record.fields.as_slice(),
                    _ => &[],
                };
                let mut map = out.serialize_map(Some(fields.len()))?;
                for (index, (name, value)) in fields.iter().enumerate() {
                    let kind = kinds.get(index).map(|field| &field.schema);
                    map.serialize_entry(name, &self.within(value, kind))?;
                }
                map.end()
            }
            _ => out.serialize_unit(),
        }
    }
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match (self.value, self.schema) {
            (Avro::Null, _) => out.serialize_unit(),
            (Avro::Boolean(it), _) => out.serialize_bool(*it),
            (Avro::Int(it), _) => out.serialize_i32(*it),
            (Avro::Date(days), _) => out.serialize_str(&date(*days)),
            (Avro::TimeMillis(it), _) => out.serialize_i32(*it),
            (
                Avro::Long(it)
                | Avro::TimeMicros(it)
                | Avro::TimestampMillis(it)
                | Avro::TimestampMicros(it)
                | Avro::TimestampNanos(it)
                | Avro::LocalTimestampMillis(it)
                | Avro::LocalTimestampMicros(it)
                | Avro::LocalTimestampNanos(it),
                _,
            ) => out.serialize_i64(*it),
            (Avro::Float(it), _) if it.is_finite() => out.serialize_f32(*it),
            (Avro::Double(it), _) if it.is_finite() => out.serialize_f64(*it),
            (Avro::Float(it), _) => out.serialize_str(&it.to_string()),
            (Avro::Double(it), _) => out.serialize_str(&it.to_string()),
            (Avro::String(it) | Avro::Enum(_, it), _) => out.serialize_str(it),
            (Avro::Bytes(it) | Avro::Fixed(_, it), _) => out.serialize_str(&hex(it)),
            (Avro::Uuid(it), _) => out.serialize_str(&it.to_string()),
            (Avro::Decimal(it), Some(Schema::Decimal(kind))) => match <Vec<u8>>::try_from(it) {
                Ok(bytes) => out.serialize_str(&digits(&bytes, kind.scale)),
                Err(error) => Err(serde::ser::Error::custom(error)),
            },
            (Avro::Union(index, inner), schema) => {
                let chosen = match schema {
                    Some(Schema::Union(union)) => union.variants().get(*index as usize),
                    _ => None,
                };
                self.within(inner, chosen).serialize(out)
            }
            (Avro::Array(_) | Avro::Map(_) | Avro::Record(_), _) => self.container(out),
            (other, _) => out.serialize_str(&format!("{other:?}")),
        }
    }
}

/// Days since 1970-01-01 as a date; the number if no calendar has that day.
fn date(days: i32) -> String {
    let epoch = jiff::civil::date(1970, 1, 1);
    let day = epoch.checked_add(jiff::ToSpan::days(i64::from(days)));
    day.map_or_else(|_| days.to_string(), |day| day.to_string())
}

/// A decimal number: a big-endian two's complement, with `scale` digits behind the point.
fn digits(bytes: &[u8], scale: usize) -> String {
    let number = BigInt::from_signed_bytes_be(bytes).to_string();
    let (sign, all) = match number.strip_prefix('-') {
        Some(all) => ("-", all),
        None => ("", number.as_str()),
    };
    let all = format!("{all:0>width$}", width = scale + 1);
    let (whole, behind) = all.split_at(all.len() - scale);
    match scale {
        0 => format!("{sign}{whole}"),
        _ => format!("{sign}{whole}.{behind}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_and_dates_are_written_out() {
        assert_eq!(digits(&[0x04, 0xd2], 2), "12.34");
        assert_eq!(digits(&[0xff], 3), "-0.001");
        assert_eq!(digits(&[7], 0), "7");
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(-1), "1969-12-31");
    }

    #[test]
    fn bytes_are_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("r.db").display());
        let registry = tidemill_log::registry::open(&url).unwrap();
        let schema = r#"{"type":"record","name":"r","fields":[
            {"name":"b","type":["null","long"]},
            {"name":"a","type":{"type":"bytes","logicalType":"decimal",
                "precision":4,"scale":2}}]}"#;
        let id = registry.register("s", schema).unwrap().id;
        let mut decoder = Decoder::new(registry);
        let wire = |id: u32, datum: &[u8]| [&[0], &id.to_be_bytes()[..], datum].concat();
        let big = [0x02, 0x82, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20];
        let whole = [&big[..], &[0x04, 0x04, 0xd2]].concat();
        let shown = decoder.decoded(&wire(id, &whole));
        assert_eq!(shown.problem, None);
        assert_eq!(shown.text, r#"{"b":9007199254740993,"a":"12.34"}"#);
        assert_eq!((shown.form, shown.schema_id), (Form::Avro, Some(id)));
        let left = decoder.decoded(&wire(id, &[whole.as_slice(), &[0]].concat()));
        assert!(left.problem.unwrap().contains("1 bytes follow"));
        let unknown = decoder.decoded(&wire(id + 1, &whole));
        assert!(unknown.problem.unwrap().contains("no schema with the id"));
        assert_eq!(unknown.form, Form::Bytes);
        let json = decoder.decoded(b"{\"n\": 12345678901234567890.10}");
        assert_eq!(json.form, Form::Json);
        assert_eq!(json.json().get(), "{\"n\": 12345678901234567890.10}");
        assert_eq!(decoder.decoded(b"{broken").form, Form::Text);
        assert_eq!(decoder.decoded(&[0xff, 0xfe]).text, "fffe");
        let cut = decoder.decoded("aé".as_bytes()).cut(2);
        assert_eq!((cut.text.as_str(), cut.is_cut), ("a", true));
        assert_eq!(cut.json().get(), "\"a\"");
    }
}
