//! Documents made of values: `to_json`, `json_build_array`, `json_build_object`, and their jsonb
//! forms; the elements and members that `json_agg` and `json_object_agg` collect.
//!
//! Each value becomes a jsonb first ([`TO_JSONB`]), so the functions of many values take jsonb
//! alone. Keys become texts as PostgreSQL's output functions write them.

use std::borrow::Cow;

use tidemill_ir::json::{Document, Number, quoted, string};

use crate::entry::{Answer, Entry, Kind, body, rows};
use crate::text::format;
use crate::value::datum::Datum;

/// The function of a value of any type.
pub(crate) const TO_JSONB: &str = "to_jsonb";

/// The same as a json, which writes numbers as their types do.
pub(crate) const TO_JSON: &str = "to_json";
/// A document that is an element of an aggregate; null becomes the null of JSON.
pub(crate) const ELEMENT: &str = "element";
/// A key and a value that are a member of an aggregate, as an array of both.
pub(crate) const MEMBER: &str = "member";

/// A number as a document; NaN and the infinities, which JSON does not have, as texts.
fn number(text: String) -> Result<Document, String> {
    match text.bytes().any(|byte| byte.is_ascii_digit()) {
        true => Number::parse(&text).map(Document::Number),
        false => Ok(Document::String(text)),
    }
}

/// A value as a document. `with_zone` says whether a timestamp is a timestamptz.
fn document(value: &Datum<'_>, with_zone: bool) -> Result<Document, String> {
    Ok(match value {
        Datum::Null => Document::Null,
        Datum::Bool(value) => Document::Bool(*value),
        Datum::Int(_) | Datum::Long(_) | Datum::Real(_) | Datum::Double(_) | Datum::Numeric(_) => {
            number(format::text(value, false))?
        }
        Datum::Json(text) | Datum::Jsonb(text) => Document::parse(text)?,
        Datum::Texts(values) => {
            let element = |value: &Option<Cow<'_, str>>| match value {
                Some(text) => Document::String(text.to_string()),
                None => Document::Null,
            };
            Document::Array(values.iter().map(element).collect())
        }
        Datum::Stamp(micros) => {
            // As ISO 8601 has it, and with the minutes of the zone.
            let zone = if with_zone { "+00:00" } else { "" };
            let text = format::timestamp(*micros, zone);
            Document::String(text.replacen(' ', "T", 1))
        }
        Datum::Text(text) => Document::String(text.to_string()),
        Datum::Bytes(_) | Datum::Date(_) | Datum::Span(_) => {
            Document::String(format::text(value, with_zone))
        }
    })
}

/// A value as the text of a json.
fn written(value: &Datum<'_>, with_zone: bool) -> Answer {
    let text = match value {
        Datum::Json(text) | Datum::Jsonb(text) => text.to_string(),
        Datum::Int(_) | Datum::Long(_) | Datum::Real(_) | Datum::Double(_) | Datum::Numeric(_) => {
            let text = format::text(value, false);
            match text.bytes().any(|byte| byte.is_ascii_digit()) {
                true => text,
                false => quoted(&text),
            }
        }
        value => document(value, with_zone)?.to_string(),
    };
    Ok(Datum::Json(Cow::Owned(text)))
}

/// The text of a document; that of the null of JSON for null.
fn part<'a>(argument: &'a Datum<'_>) -> &'a str {
    match argument {
        Datum::Json(text) | Datum::Jsonb(text) => text,
        _ => "null",
    }
}

/// The document of an argument; the null of SQL is the null of JSON.
fn given(argument: &Datum<'_>) -> Result<Document, String> {
    document(argument, false)
}

/// The text of an object's key, which is a json here; `place` counts arguments from 1.
fn key(argument: &Datum<'_>, place: usize) -> Result<String, String> {
    match argument {
        Datum::Json(text) if text.starts_with('"') => string(text),
        Datum::Json(text) => Ok(text.to_string()),
        _ => Err(format!("argument {place}: key must not be null")),
    }
}

/// An array of the arguments.
fn array(arguments: &[Datum<'_>]) -> Answer {
    let elements = arguments.iter().map(given).collect::<Result<_, _>>()?;
    Ok(Datum::jsonb(&Document::Array(elements)))
}

/// An object of the arguments, which are keys and values in turn.
fn object(arguments: &[Datum<'_>]) -> Answer {
    let mut members = Vec::with_capacity(arguments.len() / 2);
    for (pair, at) in arguments.chunks(2).zip(0..) {
        let [name, value] = pair else {
            return Err("argument list must have even number of elements".to_owned());
        };
        members.push((key(name, 2 * at + 1)?, given(value)?));
    }
    Ok(Datum::jsonb(&Document::object(members)))
}

/// The members of an object as the text of a json.
fn json_object(arguments: &[Datum<'_>]) -> Answer {
    let mut members = Vec::with_capacity(arguments.len() / 2);
    for (pair, at) in arguments.chunks(2).zip(0..) {
        let [name, value] = pair else {
            return Err("argument list must have even number of elements".to_owned());
        };
        let name = quoted(&key(name, 2 * at + 1)?);
        members.push(format!("{name} : {}", part(value)));
    }
    Ok(Datum::Json(Cow::Owned(format!(
        "{{{}}}",
        members.join(", ")
    ))))
}

/// An array of the arguments as the text of a json.
fn json_array(arguments: &[Datum<'_>]) -> Answer {
    let elements: Vec<&str> = arguments.iter().map(part).collect();
    Ok(Datum::Json(Cow::Owned(format!(
        "[{}]",
        elements.join(", ")
    ))))
}

/// A key and a value as the text of an array.
fn member(name: &Datum<'_>, value: &Datum<'_>) -> Result<String, String> {
    if *name == Datum::Null {
        return Err("field name must not be null".to_owned());
    }
    Ok(format!("[{}, {}]", quoted(&key(name, 1)?), part(value)))
}

/// All entries of this family.
pub(crate) fn entries() -> Vec<Entry> {
    const B: Kind = Kind::Jsonb;
    const J: Kind = Kind::Json;
    const OF: [&[Kind]; 14] = [
        &[Kind::Bool],
        &[Kind::Int],
        &[Kind::Long],
        &[Kind::Numeric],
        &[Kind::Real],
        &[Kind::Double],
        &[Kind::Text],
        &[Kind::Bytes],
        &[Kind::Date],
        &[Kind::Timestamp],
        &[Kind::Interval],
        &[J],
        &[B],
        &[Kind::Texts],
    ];
    let zoned: &[Kind] = &[Kind::Timestamptz];
    let of = body!([value] => Ok(Datum::jsonb(&document(value, false)?)));
    let mut entries: Vec<Entry> = OF.map(|takes| rows(TO_JSONB, takes, B, of)).into();
    let with_zone = body!([value] => Ok(Datum::jsonb(&document(value, true)?)));
    entries.push(rows(TO_JSONB, zoned, B, with_zone));
    let of = body!([value] => written(value, false));
    let simple = OF.into_iter().filter(|takes| *takes != [Kind::Texts]);
    entries.extend(simple.map(|takes| rows(TO_JSON, takes, J, of)));
    entries.push(rows(
        TO_JSON,
        zoned,
        J,
        body!([value] => written(value, true)),
    ));
    entries.push(rows("jsonb_build_array", &[B], B, array).with_more());
    entries.push(rows("jsonb_build_object", &[J, B], B, object).with_more());
    entries.push(rows("json_build_array", &[J], J, json_array).with_more());
    entries.push(rows("json_build_object", &[J, J], J, json_object).with_more());
    let element = body!([value] => Ok(Datum::Jsonb(Cow::Owned(part(value).to_owned()))));
    entries.push(rows(ELEMENT, &[B], B, element).lax());
    let element = body!([value] => Ok(Datum::Json(Cow::Owned(part(value).to_owned()))));
    entries.push(rows(ELEMENT, &[J], J, element).lax());
    let pair = body!([name, value] => Ok(Datum::Jsonb(Cow::Owned(member(name, value)?))));
    entries.push(rows(MEMBER, &[J, B], B, pair).lax());
    let pair = body!([name, value] => Ok(Datum::Json(Cow::Owned(member(name, value)?))));
    entries.push(rows(MEMBER, &[J, J], J, pair).lax());
    entries
}
