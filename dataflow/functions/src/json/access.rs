//! Parts of documents: `->`, `->>`, `#>`, `#>>` and what describes a document.
//!
//! A part is a piece of the document's text. Of equal keys in a json, PostgreSQL gives the last
//! one.

use std::borrow::Cow;

use tidemill_ir::json::{elements, members, string, trimmed};

use crate::entry::{Answer, Entry, Kind, body, rows};
use crate::value::datum::Datum;

/// What the text of a value is, by its first byte.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Object,
    Array,
    String,
    Null,
    Other,
}

/// The shape of a text without blanks before it.
fn shape(text: &str) -> Shape {
    match text.bytes().next() {
        Some(b'{') => Shape::Object,
        Some(b'[') => Shape::Array,
        Some(b'"') => Shape::String,
        Some(b'n') => Shape::Null,
        _ => Shape::Other,
    }
}

/// The value of a key, if the text is an object that has it.
fn field<'a>(text: &'a str, key: &str) -> Result<Option<&'a str>, String> {
    if shape(text) != Shape::Object {
        return Ok(None);
    }
    let members = members(text)?.into_iter().rev();
    let mut found = members.filter(|(other, _)| other == key);
    Ok(found.next().map(|(_, value)| value))
}

/// The element of an array at a place, which counts from the end if it is negative.
fn element(text: &str, place: i32) -> Result<Option<&str>, String> {
    if shape(text) != Shape::Array {
        return Ok(None);
    }
    let elements = elements(text)?;
    let count = i64::try_from(elements.len()).unwrap_or(i64::MAX);
    let place = i64::from(place);
    let place = if place < 0 { place + count } else { place };
    let place = usize::try_from(place).ok();
    Ok(place.and_then(|place| elements.get(place).copied()))
}

/// The element of a document at a place. A jsonb that is a single value counts as an array of it
/// (as `jsonb_array_element` has it), a json does not.
fn element_of<'a>(document: &'a Datum<'_>, place: i32) -> Result<Option<&'a str>, String> {
    let (text, is_jsonb) = match document {
        Datum::Jsonb(text) => (text, true),
        Datum::Json(text) => (text, false),
        _ => return Ok(None),
    };
    let text = trimmed(text)?;
    let single = !matches!(shape(text), Shape::Object | Shape::Array);
    match (single && matches!(place, 0 | -1), is_jsonb) {
        (true, true) => Ok(Some(text)),
        (true, false) => Err(
            "an element of a document that is no array: a jsonb has it and a json has not; cast \
             the column to jsonb"
                .to_owned(),
        ),
        _ => element(text, place),
    }
}

/// The value at a path: keys of objects, and places in arrays.
fn at<'a>(text: &'a str, path: &[Option<Cow<'_, str>>]) -> Result<Option<&'a str>, String> {
    let mut found = trimmed(text)?;
    for step in path {
        let Some(step) = step else {
            return Ok(None);
        };
        let next = match shape(found) {
            Shape::Object => field(found, step)?,
            Shape::Array => match place(step) {
                Some(place) => element(found, place)?,
                None => None,
            },
            _ => None,
        };
        match next {
            Some(next) => found = next,
            None => return Ok(None),
        }
    }
    Ok(Some(found))
}

/// A place in an array, as C's `strtoint` reads it.
pub(super) fn place(step: &str) -> Option<i32> {
    let spaces = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c');
    step.trim_start_matches(spaces).parse().ok()
}

/// A part as a document of the same type.
fn part(document: &Datum<'_>, found: Option<&str>) -> Answer {
    Ok(match (found, document) {
        (None, _) => Datum::Null,
        (Some(text), Datum::Jsonb(_)) => Datum::Jsonb(Cow::Owned(text.to_owned())),
        (Some(text), _) => Datum::Json(Cow::Owned(text.to_owned())),
    })
}

/// A part as text: strings without quotes, and the null of JSON as null.
pub(super) fn text_of(found: Option<&str>) -> Answer {
    Ok(match found.map(|text| (shape(text), text)) {
        None | Some((Shape::Null, _)) => Datum::Null,
        Some((Shape::String, text)) => Datum::text(string(text)?),
        Some((_, text)) => Datum::text(text),
    })
}

/// The text of a document.
fn written<'a>(document: &'a Datum<'_>) -> Result<&'a str, String> {
    match document {
        Datum::Json(text) | Datum::Jsonb(text) => Ok(text),
        _ => Err("arguments of other types than were planned".to_owned()),
    }
}

/// The value of a key in a document.
fn field_of<'a>(document: &'a Datum<'_>, key: &str) -> Result<Option<&'a str>, String> {
    field(trimmed(written(document)?)?, key)
}

/// The texts after the first argument, as a path.
fn path(arguments: &[Datum<'_>]) -> Vec<Option<Cow<'static, str>>> {
    let step = |argument: &Datum<'_>| match argument {
        Datum::Text(text) => Some(Cow::Owned(text.to_string())),
        _ => None,
    };
    arguments.iter().skip(1).map(step).collect()
}

/// `json_extract_path`, and as text.
fn extracted(arguments: &[Datum<'_>], as_text: bool) -> Answer {
    let [document, ..] = arguments else {
        return Err("arguments of other types than were planned".to_owned());
    };
    let path = path(arguments);
    let found = at(written(document)?, &path)?;
    if as_text {
        text_of(found)
    } else {
        part(document, found)
    }
}

/// What a value is called.
fn kind(text: &str) -> Answer {
    let text = trimmed(text)?;
    Ok(Datum::text(match shape(text) {
        Shape::Object => "object",
        Shape::Array => "array",
        Shape::String => "string",
        Shape::Null => "null",
        Shape::Other if text.starts_with(['t', 'f']) => "boolean",
        Shape::Other => "number",
    }))
}

/// The number of elements of an array.
fn length(text: &str) -> Answer {
    let text = trimmed(text)?;
    match shape(text) {
        Shape::Array => {
            let count = elements(text)?.len();
            i32::try_from(count)
                .map(Datum::Int)
                .map_err(|_| "integer out of range".to_owned())
        }
        Shape::Object => Err("cannot get array length of a non-array".to_owned()),
        _ => Err("cannot get array length of a scalar".to_owned()),
    }
}

/// All entries of this family.
pub(crate) fn entries() -> Vec<Entry> {
    use Datum::{Int, Json, Jsonb, Text, Texts};
    const J: Kind = Kind::Json;
    const B: Kind = Kind::Jsonb;
    const X: Kind = Kind::Text;
    let mut entries = Vec::new();
    for (takes, gives) in [(&[J, X], J), (&[B, X], B)] {
        let part_of = body!([d, Text(key)] => part(d, field_of(d, key)?));
        let as_text = body!([d, Text(key)] => text_of(field_of(d, key)?));
        entries.push(rows("->", takes, gives, part_of));
        entries.push(rows("->>", takes, X, as_text));
    }
    for (takes, gives) in [(&[J, Kind::Int], J), (&[B, Kind::Int], B)] {
        let part_of = body!([d, Int(at)] => part(d, element_of(d, *at)?));
        let as_text = body!([d, Int(at)] => text_of(element_of(d, *at)?));
        let marked = |entry: Entry| match gives {
            // Of a json, an element of a single value fails.
            J => entry.narrower(),
            _ => entry,
        };
        entries.push(marked(rows("->", takes, gives, part_of)));
        entries.push(marked(rows("->>", takes, X, as_text)));
    }
    for (takes, gives) in [(&[J, Kind::Texts], J), (&[B, Kind::Texts], B)] {
        let part_of = body!([d, Texts(path)] => part(d, at(written(d)?, path)?));
        let as_text = body!([d, Texts(path)] => text_of(at(written(d)?, path)?));
        entries.push(rows("#>", takes, gives, part_of));
        entries.push(rows("#>>", takes, X, as_text));
    }
    for (name, takes, gives, as_text) in [
        ("json_extract_path", &[J, X], J, false),
        ("jsonb_extract_path", &[B, X], B, false),
        ("json_extract_path_text", &[J, X], X, true),
        ("jsonb_extract_path_text", &[B, X], X, true),
    ] {
        let each: fn(&[Datum<'_>]) -> Answer = match as_text {
            true => |arguments| extracted(arguments, true),
            false => |arguments| extracted(arguments, false),
        };
        let mut entry = rows(name, takes, gives, each);
        // A null in a path gives null, as for strict functions.
        entry.more = true;
        entries.push(entry);
    }
    let kinds = body!([Json(text) | Jsonb(text)] => kind(text));
    let lengths = body!([Json(text) | Jsonb(text)] => length(text));
    entries.push(rows("json_typeof", &[J], X, kinds));
    entries.push(rows("jsonb_typeof", &[B], X, kinds));
    entries.push(rows("json_array_length", &[J], Kind::Int, lengths));
    entries.push(rows("jsonb_array_length", &[B], Kind::Int, lengths));
    entries
}
