//! Arrays of texts: `text[]` of one dimension, written out, as a literal, or made of a text.
//!
//! The text of an array is that of PostgreSQL's `array_out`: elements in braces, quoted where they
//! are empty, are the word NULL, or contain a character of the syntax.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::entry::{Answer, Entry, Kind, body, rows};
use crate::value::datum::Datum;

/// The function that `ARRAY[…]` stands for.
pub const ARRAY: &str = "array";

/// `x = ANY (array)`.
pub(crate) const EQUALS_ANY: &str = "= ANY";

/// Elements, of which some are null.
type Elements<'a> = [Option<Cow<'a, str>>];

/// The text of an array.
pub(crate) fn written(elements: &Elements<'_>) -> String {
    let each = elements.iter().map(|element| match element {
        None => "NULL".to_owned(),
        Some(text) => element_text(text),
    });
    format!("{{{}}}", each.collect::<Vec<_>>().join(","))
}

/// An element, quoted where it must be.
fn element_text(text: &str) -> String {
    let special = |c: char| matches!(c, '"' | '\\' | '{' | '}' | ',') || space(c);
    if !text.is_empty() && !text.eq_ignore_ascii_case("null") && !text.contains(special) {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// What PostgreSQL's `array_isspace` takes for a blank.
fn space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

/// Reads the text of an array.
///
/// # Errors
/// The text is no array of one dimension.
pub(crate) fn read(text: &str) -> Result<Vec<Option<String>>, String> {
    let wrong = || format!("malformed array literal: \"{text}\"");
    let inner = text.trim_matches(space);
    let inner = inner.strip_prefix('{').and_then(|it| it.strip_suffix('}'));
    let inner = inner.ok_or_else(wrong)?;
    if inner.trim_matches(space).is_empty() {
        return Ok(Vec::new());
    }
    let mut elements = Vec::new();
    let mut rest = inner;
    loop {
        let (element, after) = first_element(rest).ok_or_else(wrong)?;
        elements.push(element);
        match after.strip_prefix(',') {
            Some(after) => rest = after,
            None if after.is_empty() => return Ok(elements),
            None => return Err(wrong()),
        }
    }
}

/// The first element of a list, and what follows it; `None` if it is malformed, or an array itself.
fn first_element(text: &str) -> Option<(Option<String>, &str)> {
    let text = text.trim_start_matches(space);
    if let Some(quoted) = text.strip_prefix('"') {
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => value.push(chars.next()?.1),
                '"' => {
                    let after = quoted.get(at + 1..)?.trim_start_matches(space);
                    return Some((Some(value), after));
                }
                c => value.push(c),
            }
        }
        return None;
    }
    let end = text.find(',').unwrap_or(text.len());
    let (value, after) = text.split_at(end);
    let value = value.trim_end_matches(space);
    if value.is_empty() || value.contains(['"', '{', '}', '\\']) {
        return None;
    }
    let null = value.eq_ignore_ascii_case("null");
    Some(((!null).then(|| value.to_owned()), after))
}

/// Owned elements as a value.
pub(crate) fn texts(elements: Vec<Option<String>>) -> Datum<'static> {
    let owned = elements.into_iter().map(|element| element.map(Cow::Owned));
    Datum::Texts(owned.collect())
}

/// `string_to_array`: the parts between separators. Without a separator, the characters.
fn split(text: &str, separator: Option<&str>, null: Option<&str>) -> Datum<'static> {
    let parts: Vec<&str> = match separator {
        _ if text.is_empty() => Vec::new(),
        None => text.split("").filter(|part| !part.is_empty()).collect(),
        Some("") => vec![text],
        Some(separator) => text.split(separator).collect(),
    };
    let part = |part: &str| (Some(part) != null).then(|| part.to_owned());
    texts(parts.into_iter().map(part).collect())
}

/// A text argument that may be null.
fn optional<'a>(argument: &'a Datum<'_>) -> Option<&'a str> {
    match argument {
        Datum::Text(text) => Some(text),
        _ => None,
    }
}

/// `string_to_array` of two or three arguments.
fn to_array(arguments: &[Datum<'_>]) -> Answer {
    let [Datum::Text(text), more @ ..] = arguments else {
        return Ok(Datum::Null);
    };
    let separator = more.first().and_then(optional);
    Ok(split(text, separator, more.get(1).and_then(optional)))
}

/// `array_to_string`: the elements with a separator between them, and a text for nulls.
fn to_text(arguments: &[Datum<'_>]) -> Answer {
    let [Datum::Texts(elements), Datum::Text(separator), more @ ..] = arguments else {
        return Ok(Datum::Null);
    };
    let null = more.first().and_then(optional);
    let shown = elements.iter().filter_map(|it| it.as_deref().or(null));
    Ok(Datum::text(shown.collect::<Vec<_>>().join(separator)))
}

/// The order of two arrays: element by element, nulls last, then by length (`array_cmp`).
pub(crate) fn order(one: &Elements<'_>, other: &Elements<'_>) -> Ordering {
    let pairs = one.iter().zip(other);
    let mut orders = pairs.map(|(one, other)| match (one, other) {
        (Some(one), Some(other)) => one.cmp(other),
        (one, other) => one.is_none().cmp(&other.is_none()),
    });
    let first = orders.find(|order| order.is_ne());
    first.unwrap_or_else(|| one.len().cmp(&other.len()))
}

/// Whether a text is among the elements; null if it is not, and one of them is null. Nothing, and
/// so not null either, is among no elements.
fn any_equals(arguments: &[Datum<'_>]) -> Answer {
    let [text, Datum::Texts(elements)] = arguments else {
        return Ok(Datum::Null);
    };
    if elements.is_empty() {
        return Ok(Datum::Bool(false));
    }
    let Some(text) = optional(text) else {
        return Ok(Datum::Null);
    };
    let found = elements.iter().flatten().any(|element| element == text);
    Ok(match found || elements.iter().all(Option::is_some) {
        true => Datum::Bool(found),
        false => Datum::Null,
    })
}

/// The number of elements.
fn count(elements: &Elements<'_>) -> Answer {
    let count = i32::try_from(elements.len());
    count
        .map(Datum::Int)
        .map_err(|_| "integer out of range".to_owned())
}

/// `array_length` and `array_upper`: null for dimensions that the array does not have.
fn length(elements: &Elements<'_>, dimension: i32) -> Answer {
    match dimension == 1 && !elements.is_empty() {
        true => count(elements),
        false => Ok(Datum::Null),
    }
}

/// The array of texts that the arguments are.
fn array(arguments: &[Datum<'_>]) -> Answer {
    let element = |argument: &Datum<'_>| optional(argument).map(str::to_owned);
    Ok(texts(arguments.iter().map(element).collect()))
}

/// All entries of this family.
pub(crate) fn entries() -> Vec<Entry> {
    use Datum::{Int, Texts};
    const X: Kind = Kind::Text;
    const A: Kind = Kind::Texts;
    vec![
        rows(ARRAY, &[X], A, array).with_more(),
        rows(EQUALS_ANY, &[X, A], Kind::Bool, any_equals).lax(),
        rows("string_to_array", &[X, X], A, to_array).lax(),
        rows("string_to_array", &[X, X, X], A, to_array).lax(),
        rows("array_to_string", &[A, X], X, to_text).lax(),
        rows("array_to_string", &[A, X, X], X, to_text).lax(),
        rows(
            "cardinality",
            &[A],
            Kind::Int,
            body!([Texts(elements)] => count(elements)),
        ),
        rows(
            "array_length",
            &[A, Kind::Int],
            Kind::Int,
            body!([Texts(elements), Int(of)] => length(elements, *of)),
        ),
        rows(
            "array_upper",
            &[A, Kind::Int],
            Kind::Int,
            body!([Texts(elements), Int(of)] => length(elements, *of)),
        ),
    ]
}
