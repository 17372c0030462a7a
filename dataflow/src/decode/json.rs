//! JSON: one pass over a record's text that looks only at the columns in use.
//!
//! In: one JSON object a record (or Debezium's envelope, with or without `schema`/`payload`
//! around it). Out: rows of the source's columns.
//!
//! 1. Fields that no column uses are passed over without being built; used ones are kept as slices
//!    of the record until the whole record has been read. So the last of duplicate keys wins, and
//!    a record that turns out broken at its end leaves no row.

use std::borrow::Cow;

use arrow::array::timezone::Tz;
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use serde::de::IgnoredAny;
use smallvec::SmallVec;

use super::columns::{Cell, Cells, Columns};
use super::scan::{Scan, Written};
use super::{Decoder, Effect, Refused, text};
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
type Raws<'a> = SmallVec<[Option<&'a [u8]>; 8]>;

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
            let raw = raw.map(std::str::from_utf8).transpose();
            let raw = raw.map_err(|_| refused(field, "bytes that are not UTF-8"))?;
            cells.push(match raw {
                None | Some("null") => Cell::Null,
                Some(raw) => cell(raw, &field.kind, &self.utc)
                    .ok_or_else(|| refused(field, &text::excerpt(raw)))?,
            });
        }
        self.columns.append(&cells)?;
        Ok(Effect::Row)
    }

    fn change(&mut self, value: &[u8]) -> std::result::Result<Effect, Refused> {
        let mut change = Change::default();
        let mut scan = Scan::new(value);
        let read = envelope(&self.fields, &mut scan, &mut change, true);
        if read.is_none() || !scan.is_done() {
            return Err(broken(value));
        }
        match change.op {
            Some(b"\"c\"" | b"\"u\"" | b"\"r\"") => match change.after {
                Some(raws) => self.append(&raws),
                None => Err(Refused(
                    "field `after`: found nothing, expected the row's object".into(),
                )),
            },
            Some(b"\"d\"") => Ok(Effect::Gone),
            Some(b"\"t\"") => Ok(Effect::Truncated),
            other => Err(Refused(format!(
                "field `op`: found {}, expected \"c\", \"u\", \"r\", \"d\" or \"t\"",
                other.map_or_else(
                    || "nothing".into(),
                    |op| text::excerpt(&String::from_utf8_lossy(op))
                )
            ))),
        }
    }
}

impl Decoder for Json {
    fn push(&mut self, value: &[u8]) -> std::result::Result<Effect, Refused> {
        if self.debezium {
            return self.change(value);
        }
        let mut scan = Scan::new(value);
        let raws = row(&self.fields, &mut scan).filter(|_| scan.is_done());
        match raws.ok_or_else(|| broken(value))? {
            Some(raws) => self.append(&raws),
            None => Err(Refused("found null, expected a JSON object".into())),
        }
    }

    fn rows(&self) -> usize {
        self.columns.rows()
    }

    fn finish(&mut self) -> Result<RecordBatch> {
        self.columns.finish()
    }
}

fn refused(field: &Field, found: &str) -> Refused {
    let (name, expected) = (&field.name, text::expected(&field.kind));
    Refused(format!(
        "field `{name}`: found {found}, expected {expected}"
    ))
}

/// Why a record is no JSON object: found out only once it is known not to be one.
fn broken(value: &[u8]) -> Refused {
    let why = match serde_json::from_slice::<IgnoredAny>(value) {
        Err(error) => error.to_string(),
        Ok(_) => "another value stands in its place, or is nested too deep".into(),
    };
    Refused(format!("not a JSON object as expected: {why}"))
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

/// Reads a row's object; the inner none when there is null in its place.
fn row<'a>(fields: &[Field], scan: &mut Scan<'a>) -> Option<Option<Raws<'a>>> {
    if scan.null() {
        return Some(None);
    }
    let mut raws: Raws<'a> = smallvec::smallvec![None; fields.len()];
    let mut expected = 0;
    scan.object(|scan, name| {
        let raw = scan.value()?;
        if let Some(column) = column(fields, expected, name) {
            if let Some(place) = raws.get_mut(column) {
                *place = Some(raw);
            }
            expected = column + 1;
        }
        Some(())
    })?;
    Some(Some(raws))
}

/// A field's column. Records mostly have their fields in the columns' order: `expected` is looked
/// at first.
#[inline]
fn column(fields: &[Field], expected: usize, name: Written<'_>) -> Option<usize> {
    if name.escaped {
        let name = unescaped(name)?;
        return fields.iter().position(|field| *field.name == *name);
    }
    let is = |field: &Field| field.name.as_bytes() == name.bytes;
    if fields.get(expected).is_some_and(is) {
        return Some(expected);
    }
    fields.iter().position(is)
}

fn unescaped(name: Written<'_>) -> Option<String> {
    let quoted = [b"\"", name.bytes, b"\""].concat();
    serde_json::from_slice(&quoted).ok()
}

/// What an envelope says.
#[derive(Default)]
struct Change<'a> {
    after: Option<Raws<'a>>,
    op: Option<&'a [u8]>,
}

/// Reads a Debezium envelope; `wrapped` when it may also be inside `payload`.
fn envelope<'a>(
    fields: &[Field],
    scan: &mut Scan<'a>,
    change: &mut Change<'a>,
    wrapped: bool,
) -> Option<()> {
    scan.object(|scan, name| match name.bytes {
        b"after" => row(fields, scan).map(|after| change.after = after),
        b"op" => scan.value().map(|op| change.op = Some(op)),
        b"payload" if wrapped => envelope(fields, scan, change, false),
        _ => scan.value().map(drop),
    })
}
