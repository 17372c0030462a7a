//! Containment and existence: `@>`, `<@`, `?`, `?|`, `?&`.
//!
//! Source: PostgreSQL's `JsonbDeepContains` and `jsonb_exists`. A document that is a single value
//! counts as an array of it, which an array may contain.

use std::borrow::Cow;

use tidemill_ir::json::Document;

use crate::entry::{Answer, Entry, Kind, body, rows};
use crate::value::datum::Datum;

/// Whether two values are equal.
fn equal(one: &Document, other: &Document) -> bool {
    one.compare(other).is_eq()
}

/// Whether a document contains another one.
fn contains(whole: &Document, part: &Document) -> bool {
    match (whole, part) {
        (Document::Array(elements), part) if part.is_scalar() => {
            elements.iter().any(|element| holds(element, part))
        }
        (whole, part) => holds(whole, part),
    }
}

/// Whether a value inside a document contains another one.
fn holds(whole: &Document, part: &Document) -> bool {
    match (whole, part) {
        (Document::Object(_), Document::Object(members)) => {
            let mut members = members.iter();
            members.all(|(key, part)| whole.member(key).is_some_and(|value| holds(value, part)))
        }
        (Document::Array(elements), Document::Array(parts)) => {
            let found = |part: &Document| elements.iter().any(|element| holds(element, part));
            parts.iter().all(found)
        }
        _ => whole.is_scalar() && part.is_scalar() && equal(whole, part),
    }
}

/// Whether a text is a key of an object, a text in an array, or the document itself.
fn exists(document: &Document, key: &str) -> bool {
    let is = |value: &Document| matches!(value, Document::String(text) if text == key);
    match document {
        Document::Object(_) => document.member(key).is_some(),
        Document::Array(elements) => elements.iter().any(is),
        single => is(single),
    }
}

/// Whether any or all of the keys exist. Nulls among them do not count.
fn any(text: &str, keys: &[Option<Cow<'_, str>>]) -> Answer {
    let document = Document::parse(text)?;
    let mut keys = keys.iter().flatten();
    Ok(Datum::Bool(keys.any(|key| exists(&document, key))))
}

/// Whether all of the keys exist. Nulls among them do not count.
fn all(text: &str, keys: &[Option<Cow<'_, str>>]) -> Answer {
    let document = Document::parse(text)?;
    let mut keys = keys.iter().flatten();
    Ok(Datum::Bool(keys.all(|key| exists(&document, key))))
}

/// Whether `whole` contains `part`, both as text.
fn contained(whole: &str, part: &str) -> Answer {
    let (whole, part) = (Document::parse(whole)?, Document::parse(part)?);
    Ok(Datum::Bool(contains(&whole, &part)))
}

/// All entries of this family.
pub(crate) fn entries() -> Vec<Entry> {
    use Datum::{Jsonb, Text, Texts};
    const B: Kind = Kind::Jsonb;
    const KEYS: &[Kind] = &[B, Kind::Texts];
    vec![
        rows(
            "@>",
            &[B, B],
            Kind::Bool,
            body!([Jsonb(whole), Jsonb(part)] => contained(whole, part)),
        ),
        rows(
            "<@",
            &[B, B],
            Kind::Bool,
            body!([Jsonb(part), Jsonb(whole)] => contained(whole, part)),
        ),
        rows(
            "?",
            &[B, Kind::Text],
            Kind::Bool,
            body!([Jsonb(text), Text(key)] => {
                Ok(Datum::Bool(exists(&Document::parse(text)?, key)))
            }),
        ),
        rows(
            "?|",
            KEYS,
            Kind::Bool,
            body!([Jsonb(text), Texts(keys)] => any(text, keys)),
        ),
        rows(
            "?&",
            KEYS,
            Kind::Bool,
            body!([Jsonb(text), Texts(keys)] => all(text, keys)),
        ),
    ]
}
