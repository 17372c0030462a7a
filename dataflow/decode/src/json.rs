//! The JSON decoder: one pass over a record's text that looks only at the columns in use.
//!
//! Input: one JSON object per record, or Debezium's envelope, with or without Kafka Connect's
//! wrapper of `schema` and `payload`. Output: rows of the source's columns.
//!
//! Invariant: fields that no column uses are skipped without being built. Used fields are kept as
//! slices of the record until the whole record has been read. Therefore the last of duplicate field
//! names wins, and a record that is broken at its end leaves no row.

pub(crate) mod connect;
pub(crate) mod declared_type;
pub(crate) mod key;
pub(crate) mod scan;
pub(crate) mod value;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use connect::Schemas;
use declared_type::Asked;
use key::KeyForm;
use scan::{Scan, Written};
use serde::de::IgnoredAny;
use smallvec::SmallVec;
use tidemill_ir::types::ASKED;
use tidemill_ir::{Envelope, Missing, Source, Spelling};
use tidemill_log::{Error, Kind, Result};
use tidemill_state::value::source_position::SourcePosition;
use value::{Misfit, Rules};

use super::columns::{Cells, Columns, DecodedValue};
use super::contract::{Decoder, Effect, Refused, Rest};
use super::duplicates::Said;
use super::text;

/// The decoder of one source's JSON records.
pub(super) struct Json {
    /// The columns' fields.
    fields: Vec<Field>,
    /// The builders of the columns.
    columns: Columns,
    /// How records become rows.
    envelope: Envelope,
    /// Whether a missing field refuses its record.
    complete: bool,
    /// Whether no column has a name of Connect's wrapper, so that the wrapper can be recognised.
    may_wrap: bool,
    /// How values are read.
    rules: Rules,
    /// Connect's schema of the last record.
    schemas: Schemas,
    /// The form of keys; `None` if keys do not identify rows.
    keys: Option<KeyForm>,
    /// The key of the record that is pushed next; empty if it has none.
    key: Vec<u8>,
    /// Why the job cannot continue: keys have another form.
    ends: Option<Error>,
    /// Set while a record is read without the values that their columns refuse.
    lenient: bool,
    /// The columns that refused their values in that record.
    rest: Option<Arc<[usize]>>,
}

/// A column, as a field of records.
struct Field {
    /// The field's name.
    name: Box<str>,
    /// The column's type.
    kind: DataType,
    /// The declared type, if the column is stored as another one.
    asked: Option<Asked>,
}

/// The raw text of each column's value; `None` where the record has no such field.
type Raws<'a> = SmallVec<[Option<&'a [u8]>; 8]>;

/// The object of a record: its values, and the fields beside them that matter.
#[derive(Default)]
struct Object<'a> {
    /// The values of the columns.
    raws: Raws<'a>,
    /// The number of fields.
    count: usize,
    /// The value of the field `schema`.
    schema: Option<&'a [u8]>,
    /// The value of the field `payload`.
    payload: Option<&'a [u8]>,
    /// The value of the field `__deleted`.
    deleted: Option<&'a [u8]>,
    /// Whether the object has the fields of a Debezium envelope.
    op: bool,
    /// Whether the object has an image of the row.
    image: bool,
}

impl Json {
    /// A decoder of a source.
    ///
    /// # Errors
    /// `Data` when a column has a type that records cannot hold.
    pub(super) fn new(source: &Source, spelling: Spelling) -> Result<Self> {
        let fields = source.schema.fields().iter();
        let debezium = source.envelope == Envelope::Debezium;
        let missing = spelling.missing.unwrap_or(match debezium {
            true => Missing::Refuse,
            false => Missing::Null,
        });
        let fields: Vec<Field> = fields
            .map(|field| Field {
                name: field.name().as_str().into(),
                kind: field.data_type().clone(),
                asked: field.metadata().get(ASKED).and_then(|it| Asked::named(it)),
            })
            .collect();
        let free = |field: &Field| !matches!(&*field.name, "schema" | "payload");
        Ok(Self {
            may_wrap: fields.iter().all(free),
            fields,
            columns: Columns::new(&source.name, &source.schema)?,
            envelope: source.envelope,
            complete: missing == Missing::Refuse,
            rules: Rules {
                spelling,
                debezium,
                unavailable: source.unavailable.clone(),
                utc: text::utc().ok_or_else(|| Error::new(Kind::Bug, "UTC is no time zone"))?,
            },
            schemas: Schemas::default(),
            keys: (source.envelope != Envelope::Append).then(|| KeyForm::new(source)),
            key: Vec::new(),
            ends: None,
            lenient: false,
            rest: None,
        })
    }

    /// Appends a row. `schema` is the text of Connect's schema, if the record has one.
    fn append(
        &mut self,
        raws: &Raws<'_>,
        schema: Option<&[u8]>,
    ) -> std::result::Result<Effect, Refused> {
        let names = self.fields.iter().map(|field| &*field.name);
        let written = schema.and_then(|text| {
            let after = self.envelope == Envelope::Debezium;
            self.schemas.columns(text, after, names)
        });
        let mut cells = Cells::new();
        for (index, (field, raw)) in self.fields.iter().zip(raws).enumerate() {
            let written = written.and_then(|columns| columns.get(index).copied().flatten());
            let cell = self.rules.field(field, *raw, written, self.complete);
            cells.push(match cell {
                Err(_) if self.lenient => DecodedValue::Unfit,
                cell => cell?,
            });
        }
        match self.lenient {
            true => self.rest = self.columns.append_rest(&cells),
            false => self.columns.append(&cells)?,
        }
        Ok(Effect::Row)
    }

    /// Checks the form of the key of a record that is about a row. Other records have keys of their
    /// own.
    fn follow_key(&mut self) {
        if let Some(form) = &mut self.keys
            && let Some(changed) = form.follow(&self.key)
        {
            self.ends = Some(changed);
        }
    }

    /// Decodes a record that is a row.
    fn row(&mut self, value: &[u8]) -> std::result::Result<Effect, Refused> {
        let object = whole(&self.fields, value)?;
        let Some(payload) = object
            .payload
            .filter(|_| self.may_wrap && object.is_wrapper())
        else {
            return self.take(&object, None);
        };
        let inner = whole(&self.fields, payload)?;
        self.take(&inner, object.schema)
    }

    /// Takes the row in an object.
    fn take(
        &mut self,
        object: &Object<'_>,
        schema: Option<&[u8]>,
    ) -> std::result::Result<Effect, Refused> {
        let deleted = matches!(object.deleted, Some(b"true" | b"\"true\""));
        if deleted && self.envelope == Envelope::Upsert {
            return Ok(Effect::Gone);
        }
        let nothing = object.raws.iter().all(Option::is_none);
        if nothing && !object.raws.is_empty() && object.op && object.image {
            return Err(Refused(
                "found a Debezium envelope, none of whose fields is a column: give the table the \
                 option envelope = 'debezium'"
                    .into(),
            ));
        }
        self.append(&object.raws, schema)
    }

    /// Decodes a Debezium envelope.
    fn change(
        &mut self,
        value: &[u8],
        newest: &mut Option<SourcePosition>,
    ) -> std::result::Result<Effect, Refused> {
        let mut change = Change::default();
        let mut scan = Scan::new(value);
        let read = envelope(&self.fields, &mut scan, &mut change, true);
        if read.is_none() || !scan.is_done() {
            return Err(broken(value));
        }
        let effect = self.effect(&change)?;
        // Only a record that is not refused moves the partition's position.
        if let Some(said) = change.source.said() {
            *newest = said.after(*newest);
        }
        Ok(effect)
    }

    /// Applies a Debezium envelope.
    fn effect(&mut self, change: &Change<'_>) -> std::result::Result<Effect, Refused> {
        match change.op {
            Some(b"\"c\"" | b"\"u\"" | b"\"r\"") => match &change.after {
                Some(raws) => self.append(raws, change.schema),
                None => Err(Refused(
                    "field `after`: found nothing, expected the row's object".into(),
                )),
            },
            Some(b"\"m\"") => Ok(Effect::Nothing),
            // The begin or the end of a transaction.
            None if change.transaction => Ok(Effect::Nothing),
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
    fn push_after(
        &mut self,
        value: &[u8],
        newest: &mut Option<SourcePosition>,
    ) -> std::result::Result<Effect, Refused> {
        let effect = match self.envelope {
            Envelope::Debezium => self.change(value, newest),
            Envelope::Append | Envelope::Upsert => self.row(value),
        };
        if matches!(effect, Ok(Effect::Row | Effect::Gone)) {
            self.follow_key();
        }
        self.key.clear();
        effect
    }

    fn push_rest(&mut self, value: &[u8], newest: &mut Option<SourcePosition>) -> Rest {
        let before = *newest;
        self.lenient = true;
        let effect = self.push_after(value, newest);
        self.lenient = false;
        Rest::of(effect, self.rest.take(), newest, before)
    }

    fn key(&mut self, key: &[u8]) {
        self.key.clear();
        self.key.extend_from_slice(key);
    }

    fn remember(&mut self, schemas: BTreeMap<u32, i64>) {
        if let Some(form) = &mut self.keys {
            form.kept.remember(schemas);
        }
    }

    fn noted(&mut self) -> BTreeMap<u32, i64> {
        let keys = self.keys.as_mut();
        keys.map(|form| form.kept.noted()).unwrap_or_default()
    }

    fn rows(&self) -> usize {
        self.columns.rows()
    }

    fn finish(&mut self) -> Result<RecordBatch> {
        if let Some(fatal) = self.ends.take() {
            return Err(fatal);
        }
        self.columns.finish()
    }
}

impl Rules {
    /// The cell of a field. `written` is what Connect's schema says of it; a missing field is
    /// refused if records must be `complete`.
    fn field<'a>(
        &self,
        field: &Field,
        raw: Option<&'a [u8]>,
        written: Option<connect::Written>,
        complete: bool,
    ) -> std::result::Result<DecodedValue<'a>, Refused> {
        let raw = raw.map(std::str::from_utf8).transpose();
        let raw = match raw.map_err(|_| refused(field, "bytes that are not UTF-8"))? {
            None if complete => return Err(absent(field)),
            None | Some("null") => return Ok(DecodedValue::Null),
            Some(raw) => raw,
        };
        let cell = match field.asked.and_then(|asked| asked.whole(raw)) {
            Some(cell) => cell,
            None => {
                let cell = self.cell(raw, written, &field.kind);
                cell.map_err(|misfit| misfitted(field, raw, &misfit))?
            }
        };
        let Some(asked) = field.asked else {
            return Ok(cell);
        };
        asked.kept(cell).ok_or_else(|| {
            let (name, found) = (&field.name, text::excerpt(raw));
            let expected = asked.expected();
            Refused(format!(
                "field `{name}`: found {found}, expected {expected}"
            ))
        })
    }
}

/// The refusal of a value that a column does not take.
fn refused(field: &Field, found: &str) -> Refused {
    let (name, expected) = (&field.name, text::expected(&field.kind));
    Refused(format!(
        "field `{name}`: found {found}, expected {expected}"
    ))
}

/// The refusal of a record that is not a JSON object. The reason is looked for only now.
fn broken(value: &[u8]) -> Refused {
    let why = match serde_json::from_slice::<IgnoredAny>(value) {
        Err(error) => error.to_string(),
        Ok(_) => "another value stands in its place, or is nested too deep".into(),
    };
    Refused(format!("not a JSON object as expected: {why}"))
}

/// The refusal of a value, with what is known about it.
fn misfitted(field: &Field, raw: &str, misfit: &Misfit) -> Refused {
    let (name, found) = (&field.name, text::excerpt(raw));
    match misfit {
        Misfit::Kind => refused(field, &found),
        Misfit::Why(why) => Refused(format!("field `{name}`: found {found}: {why}")),
    }
}

/// The refusal of a missing field. Debezium writes all columns of a row.
fn absent(field: &Field) -> Refused {
    let name = &field.name;
    Refused(format!(
        "field `{name}`: the record has no such field: the column was renamed or dropped, or is \
         not there yet. Change views.sql, or give the table the option missing = 'null' to read \
         it as NULL"
    ))
}

impl Object<'_> {
    /// Whether the object is Connect's wrapper and nothing else.
    fn is_wrapper(&self) -> bool {
        let is_schema = |text: &[u8]| text.starts_with(b"{") || text == b"null";
        self.count == 2 && self.schema.is_some_and(is_schema)
    }
}

/// Reads a text that is a single object.
fn whole<'a>(fields: &[Field], text: &'a [u8]) -> std::result::Result<Object<'a>, Refused> {
    let mut scan = Scan::new(text);
    let object = object(fields, &mut scan).filter(|_| scan.is_done());
    match object.ok_or_else(|| broken(text))? {
        Some(object) => Ok(object),
        None => Err(Refused("found null, expected a JSON object".into())),
    }
}

/// Reads an object; the inner option is `None` if null is in its place.
fn object<'a>(fields: &[Field], scan: &mut Scan<'a>) -> Option<Option<Object<'a>>> {
    if scan.null() {
        return Some(None);
    }
    let mut object = Object {
        raws: smallvec::smallvec![None; fields.len()],
        ..Object::default()
    };
    let mut expected = 0;
    scan.object(|scan, name| {
        let raw = scan.value()?;
        object.count += 1;
        if let Some(column) = column(fields, expected, name) {
            if let Some(place) = object.raws.get_mut(column) {
                *place = Some(raw);
            }
            expected = column + 1;
        }
        match name.bytes {
            b"schema" => object.schema = Some(raw),
            b"payload" => object.payload = Some(raw),
            b"__deleted" => object.deleted = Some(raw),
            b"op" => object.op = true,
            b"before" | b"after" => object.image = true,
            _ => {}
        }
        Some(())
    })?;
    Some(Some(object))
}

/// The column of a field. Records mostly have their fields in the order of the columns, so
/// `expected` is compared first.
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

/// A field name without its escapes.
fn unescaped(name: Written<'_>) -> Option<String> {
    let quoted = [b"\"", name.bytes, b"\""].concat();
    serde_json::from_slice(&quoted).ok()
}

/// What a Debezium envelope says.
#[derive(Default)]
struct Change<'a> {
    /// The columns in the field `after`.
    after: Option<Raws<'a>>,
    /// The field `op`.
    op: Option<&'a [u8]>,
    /// The field `schema` of the record.
    schema: Option<&'a [u8]>,
    /// The field `source`.
    source: Origin<'a>,
    /// Whether the record is about the begin or end of a transaction.
    transaction: bool,
}

/// The fields of the envelope's `source` with the record's position.
#[derive(Default)]
struct Origin<'a> {
    /// The field `connector`.
    connector: &'a [u8],
    /// The field `lsn`, as written.
    lsn: &'a [u8],
}

impl Origin<'_> {
    /// The source position; `None` if the connector gives none.
    fn said(&self) -> Option<Said> {
        let lsn = std::str::from_utf8(self.lsn).ok()?.parse().ok()?;
        Said::of_lsn(
            self.connector.strip_prefix(b"\"")?.strip_suffix(b"\"")?,
            lsn,
        )
    }
}

/// Reads a Debezium envelope. `wrapped` says that it may be inside `payload`.
fn envelope<'a>(
    fields: &[Field],
    scan: &mut Scan<'a>,
    change: &mut Change<'a>,
    wrapped: bool,
) -> Option<()> {
    scan.object(|scan, name| match name.bytes {
        b"after" => object(fields, scan).map(|after| change.after = after.map(|row| row.raws)),
        b"op" => scan.value().map(|op| change.op = Some(op)),
        b"status" => scan.value().map(|status| {
            change.transaction = matches!(status, b"\"BEGIN\"" | b"\"END\"");
        }),
        b"source" => source(scan, &mut change.source),
        b"schema" if wrapped => scan.value().map(|schema| change.schema = Some(schema)),
        b"payload" if wrapped => envelope(fields, scan, change, false),
        _ => scan.value().map(drop),
    })
}

/// Reads the position in an envelope's `source`, which may be null or another value.
fn source<'a>(scan: &mut Scan<'a>, origin: &mut Origin<'a>) -> Option<()> {
    let text = scan.value()?;
    if !text.starts_with(b"{") {
        return Some(());
    }
    Scan::new(text).object(|scan, name| {
        let value = scan.value()?;
        match name.bytes {
            b"connector" => origin.connector = value,
            b"lsn" => origin.lsn = value,
            _ => {}
        }
        Some(())
    })
}
