//! JSON: one pass over a record's text that looks only at the columns in use.
//!
//! In: one JSON object a record (or Debezium's envelope, with or without `schema`/`payload`
//! around it). Out: rows of the source's columns.
//!
//! 1. Fields that no column uses are skipped without being built; used ones are kept as slices of
//!    the record until the whole record has been read. So the last of duplicate keys wins, and a
//!    record that turns out broken at its end leaves no row.

use std::borrow::Cow;
use std::fmt;

use arrow::array::timezone::Tz;
use arrow::datatypes::DataType;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::columns::{Cell, Cells, Columns};
use super::{Decoded, Decoder, Effect, Refused, text};
use crate::plan::ir::{Envelope, Source};
use crate::{Error, Kind, Result};

/// The decoder of one source's JSON records.
pub(super) struct Json {
    fields: Vec<Field>,
    columns: Columns,
    debezium: bool,
    utc: Tz,
}

struct Field {
    name: Box<str>,
    kind: DataType,
}

/// The raw text of each column's value, where the record has one.
type Raws<'de> = SmallVec<[Option<&'de str>; 8]>;

impl Json {
    pub(super) fn new(source: &Source) -> Result<Self> {
        let fields = source.schema.fields().iter();
        Ok(Self {
            fields: fields
                .map(|field| Field {
                    name: field.name().as_str().into(),
                    kind: field.data_type().clone(),
                })
                .collect(),
            columns: Columns::new(&source.name, &source.schema)?,
            debezium: source.envelope == Envelope::Debezium,
            utc: text::utc().ok_or_else(|| Error::new(Kind::Bug, "UTC is no time zone"))?,
        })
    }

    fn append(&mut self, raws: &Raws<'_>) -> std::result::Result<Effect, Refused> {
        let mut cells = Cells::new();
        for (field, raw) in self.fields.iter().zip(raws) {
            cells.push(match *raw {
                None | Some("null") => Cell::Null,
                Some(raw) => cell(raw, &field.kind, &self.utc).ok_or_else(|| {
                    Refused(format!(
                        "field `{}`: found {}, expected {}",
                        field.name,
                        text::excerpt(raw),
                        text::expected(&field.kind)
                    ))
                })?,
            });
        }
        self.columns.append(&cells)?;
        Ok(Effect::Row)
    }

    fn change(&mut self, value: &[u8]) -> std::result::Result<Effect, Refused> {
        let mut change = Change::default();
        parse(
            value,
            EnvelopeSeed {
                fields: &self.fields,
                change: &mut change,
            },
        )?;
        match change.op {
            Some("\"c\"" | "\"u\"" | "\"r\"") => match change.after {
                Some(raws) => self.append(&raws),
                None => Err(Refused(
                    "field `after`: found nothing, expected the row's object".into(),
                )),
            },
            Some("\"d\"") => Ok(Effect::Gone),
            Some("\"t\"") => Ok(Effect::Truncated),
            other => Err(Refused(format!(
                "field `op`: found {}, expected \"c\", \"u\", \"r\", \"d\" or \"t\"",
                other.map_or_else(|| "nothing".into(), text::excerpt)
            ))),
        }
    }
}

impl Decoder for Json {
    fn push(&mut self, value: &[u8]) -> std::result::Result<Effect, Refused> {
        if self.debezium {
            return self.change(value);
        }
        match parse(value, RowSeed(&self.fields))? {
            Some(raws) => self.append(&raws),
            None => Err(Refused("found null, expected a JSON object".into())),
        }
    }

    fn rows(&self) -> usize {
        self.columns.rows()
    }

    fn finish(&mut self) -> Result<Decoded> {
        Ok(Decoded {
            batch: self.columns.finish()?,
            refused: Vec::new(),
        })
    }
}

fn parse<'de, S: DeserializeSeed<'de>>(
    value: &'de [u8],
    seed: S,
) -> std::result::Result<S::Value, Refused> {
    let mut json = serde_json::Deserializer::from_slice(value);
    seed.deserialize(&mut json)
        .and_then(|parsed| json.end().map(|()| parsed))
        .map_err(|error| Refused(format!("not a JSON object as expected: {error}")))
}

/// A value's cell, none when the column does not take it. `raw` is valid JSON and not null.
fn cell<'de>(raw: &'de str, kind: &DataType, utc: &Tz) -> Option<Cell<'de>> {
    Some(match kind {
        DataType::Boolean => match raw {
            "true" => Cell::Bool(true),
            "false" => Cell::Bool(false),
            _ => return None,
        },
        DataType::Int32 => Cell::Int(integer(raw).filter(|v| i32::try_from(*v).is_ok())?),
        DataType::Int64 => Cell::Int(integer(raw)?),
        // Parsed at the column's own width: rounding twice could differ in the last bit.
        DataType::Float32 => Cell::Float(f64::from(
            raw.parse::<f32>().ok().filter(|v| v.is_finite())?,
        )),
        DataType::Float64 => Cell::Float(raw.parse::<f64>().ok().filter(|v| v.is_finite())?),
        DataType::Utf8 => match raw.as_bytes().first() {
            Some(b'"') => Cell::Text(string(raw)?),
            Some(b'{' | b'[') | None => return None,
            // APIs mix "12" and 12 in one field: a number keeps its spelling.
            Some(_) => Cell::Text(Cow::Borrowed(raw)),
        },
        DataType::Binary => Cell::Text(string(raw)?),
        DataType::Date32 => Cell::Int(i64::from(text::date(&string(raw)?)?)),
        DataType::Timestamp(_, _) => Cell::Int(match raw.as_bytes().first() {
            Some(b'"') => text::timestamp(&string(raw)?, utc)?,
            _ => integer(raw)?.checked_mul(1000)?,
        }),
        DataType::Decimal128(precision, scale) => Cell::Decimal(match raw.as_bytes().first() {
            Some(b'"') => text::decimal(&string(raw)?, *precision, *scale)?,
            _ => text::decimal(raw, *precision, *scale)?,
        }),
        _ => return None,
    })
}

/// A whole number: `30`, and `30.0` and `3e1`, which some writers make of it.
fn integer(raw: &str) -> Option<i64> {
    match raw.parse() {
        Ok(value) => Some(value),
        Err(_) => i64::try_from(text::decimal(raw, 38, 0)?).ok(),
    }
}

/// A JSON string's text, borrowed when it holds no escapes.
fn string(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.as_bytes().contains(&b'\\') {
        return serde_json::from_str::<String>(raw).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

/// Reads a row's object; none when there is null in its place.
struct RowSeed<'f>(&'f [Field]);

impl<'de> DeserializeSeed<'de> for RowSeed<'_> {
    type Value = Option<Raws<'de>>;

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_> {
    type Value = Option<Raws<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_unit<E>(self) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(
        self,
        mut map: A,
    ) -> std::result::Result<Self::Value, A::Error> {
        let mut raws: Raws<'de> = smallvec::smallvec![None; self.0.len()];
        while let Some(column) = map.next_key_seed(KeySeed(self.0))? {
            match column.and_then(|column| raws.get_mut(column)) {
                Some(raw) => *raw = Some(map.next_value::<&'de RawValue>()?.get()),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Some(raws))
    }
}

/// Finds a key's column. Keys come as bytes: comparing needs no UTF-8 check.
struct KeySeed<'f>(&'f [Field]);

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<Self::Value, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    #[inline]
    fn visit_bytes<E>(self, key: &[u8]) -> std::result::Result<Self::Value, E> {
        let mut fields = self.0.iter();
        Ok(fields.position(|field| field.name.as_bytes() == key))
    }
}

/// What an envelope says.
#[derive(Default)]
struct Change<'de> {
    after: Option<Raws<'de>>,
    op: Option<&'de str>,
}

/// Reads a Debezium envelope, also inside `payload`.
struct EnvelopeSeed<'f, 'c, 'de> {
    fields: &'f [Field],
    change: &'c mut Change<'de>,
}

impl<'de> DeserializeSeed<'de> for EnvelopeSeed<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for EnvelopeSeed<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a Debezium change event with `after` and `op`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match key.as_ref() {
                "after" => self.change.after = map.next_value_seed(RowSeed(self.fields))?,
                "op" => self.change.op = Some(map.next_value::<&'de RawValue>()?.get()),
                "payload" => map.next_value_seed(EnvelopeSeed {
                    fields: self.fields,
                    change: self.change,
                })?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}
