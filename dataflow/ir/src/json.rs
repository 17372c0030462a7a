//! JSON documents as PostgreSQL's `jsonb` holds them: read, compared, and written in one form.
//!
//! Input: a text. Output: a [`Document`], or PostgreSQL's error. A document is written as
//! `jsonb_out` writes it: keys are sorted by length and then by bytes, of equal keys the last one
//! stays, numbers keep their digits and their scale.
//!
//! ```text
//! {"b": 1e2, "a": 1.50, "a": 2}  ─►  {"a": 2, "b": 100}
//! ```
//!
//! serde_json reads the syntax. Numbers are kept as text ([`number`]), because a double would lose
//! digits. [`members`] and [`elements`] give the parts of a text as they are written, which is what
//! the type `json` keeps.

mod number;
mod order;

use std::borrow::Cow;
use std::fmt;

pub use number::Number;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Nesting of a document; a deeper one fails its row. Each level reads its part of the text again.
pub const DOCUMENT_DEPTH_MAX: usize = 100;

/// A value of `jsonb`.
///
/// ```
/// use tidemill_ir::json::Document;
///
/// let document = Document::parse(r#"{"bb":[1.50,1e2], "a":null}"#)?;
/// assert_eq!(document.to_string(), r#"{"a": null, "bb": [1.50, 100]}"#);
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone)]
pub enum Document {
    /// `null`, which is not SQL's null.
    Null,
    /// A text.
    String(String),
    /// A number.
    Number(Number),
    /// `true` or `false`.
    Bool(bool),
    /// Values in an order.
    Array(Vec<Document>),
    /// Values by key, sorted by key, each key once.
    Object(Vec<(String, Document)>),
}

impl Document {
    /// Reads a text.
    ///
    /// # Errors
    /// PostgreSQL's message, when the text is no JSON, has the character zero, is nested deeper
    /// than [`DOCUMENT_DEPTH_MAX`] or contains a number of too many digits.
    pub fn parse(text: &str) -> Result<Self, String> {
        let raw: &RawValue = serde_json::from_str(text).map_err(|_| invalid())?;
        read(raw.get(), 0)
    }

    /// An object of these members. Of members with one key the last one stays.
    #[must_use]
    pub fn object(mut members: Vec<(String, Self)>) -> Self {
        // The sort is stable: of equal keys the last one is the last one written.
        members.sort_by(|(one, _), (other, _)| order::keys(one, other));
        let mut kept: Vec<(String, Self)> = Vec::with_capacity(members.len());
        for member in members {
            match kept.last_mut() {
                Some(last) if last.0 == member.0 => *last = member,
                _ => kept.push(member),
            }
        }
        Self::Object(kept)
    }

    /// The member of an object with this key.
    pub fn member(&self, key: &str) -> Option<&Self> {
        let Self::Object(members) = self else {
            return None;
        };
        let found = members.binary_search_by(|(other, _)| order::keys(other, key));
        Some(&members.get(found.ok()?)?.1)
    }

    /// What `jsonb_typeof` calls the value.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::String(_) => "string",
            Self::Number(_) => "number",
            Self::Bool(_) => "boolean",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }

    /// Whether the value has no parts.
    pub fn is_scalar(&self) -> bool {
        !matches!(self, Self::Array(_) | Self::Object(_))
    }
}

/// The error of a text that is no JSON.
fn invalid() -> String {
    "invalid input syntax for type json".to_owned()
}

/// The document of a valid text without blanks around it.
fn read(raw: &str, depth: usize) -> Result<Document, String> {
    if depth > DOCUMENT_DEPTH_MAX {
        return Err(format!(
            "a document is nested deeper than {DOCUMENT_DEPTH_MAX} levels"
        ));
    }
    Ok(match raw.bytes().next() {
        Some(b'{') => {
            let members = members(raw)?.into_iter().map(|(key, value)| {
                checked(&key)?;
                Ok((key.into_owned(), read(value, depth + 1)?))
            });
            Document::object(members.collect::<Result<_, String>>()?)
        }
        Some(b'[') => {
            let elements = elements(raw)?.into_iter();
            let elements = elements.map(|element| read(element, depth + 1));
            Document::Array(elements.collect::<Result<_, _>>()?)
        }
        Some(b'"') => Document::String(string(raw)?),
        Some(b't') => Document::Bool(true),
        Some(b'f') => Document::Bool(false),
        Some(b'n') => Document::Null,
        _ => Document::Number(Number::parse(raw)?),
    })
}

/// The text of a quoted string, with its escapes resolved.
///
/// # Errors
/// The string is no JSON, or has the character zero, which no text can hold.
pub fn string(raw: &str) -> Result<String, String> {
    let text: String = serde_json::from_str(raw).map_err(|_| invalid())?;
    checked(&text)?;
    Ok(text)
}

/// Refuses the character zero.
fn checked(text: &str) -> Result<(), String> {
    match text.contains('\0') {
        true => Err("unsupported Unicode escape sequence: \\u0000 cannot be text".to_owned()),
        false => Ok(()),
    }
}

/// The members of an object's text, in the order in which they are written, with the values as they
/// are written.
///
/// # Errors
/// The text is not that of an object.
pub fn members(text: &str) -> Result<Vec<(Cow<'_, str>, &str)>, String> {
    let members: Members<'_> = serde_json::from_str(text).map_err(|_| invalid())?;
    Ok(members.0)
}

/// The elements of an array's text, as they are written.
///
/// # Errors
/// The text is not that of an array.
pub fn elements(text: &str) -> Result<Vec<&str>, String> {
    let elements: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| invalid())?;
    Ok(elements.into_iter().map(RawValue::get).collect())
}

/// The value in a text, without the blanks around it.
///
/// # Errors
/// The text is no JSON.
pub fn trimmed(text: &str) -> Result<&str, String> {
    let raw: &RawValue = serde_json::from_str(text).map_err(|_| invalid())?;
    Ok(raw.get())
}

/// The members of an object.
struct Members<'a>(Vec<(Cow<'a, str>, &'a str)>);

/// A key, borrowed where it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(key)))
            }
            fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }
        deserializer.deserialize_str(Keys)
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((key, value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
                    members.push((key.0, value.get()));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(number) => f.write_str(number.text()),
            Self::String(text) => f.write_str(&quoted(text)),
            Self::Array(elements) => {
                f.write_str("[")?;
                for (place, element) in elements.iter().enumerate() {
                    let between = if place == 0 { "" } else { ", " };
                    write!(f, "{between}{element}")?;
                }
                f.write_str("]")
            }
            Self::Object(members) => {
                f.write_str("{")?;
                for (place, (key, value)) in members.iter().enumerate() {
                    let between = if place == 0 { "" } else { ", " };
                    write!(f, "{between}{}: {value}", quoted(key))?;
                }
                f.write_str("}")
            }
        }
    }
}

/// A text as a JSON string.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_written_as_postgresql_writes_them() {
        for (text, written) in [
            (" [ ] ", "[]"),
            ("{}", "{}"),
            ("-0", "0"),
            ("-0.00", "0.00"),
            ("1.50e1", "15.0"),
            ("1e-3", "0.001"),
            ("12345678901234567890.10", "12345678901234567890.10"),
            (r#"{"bb":1,"a":2,"c":3}"#, r#"{"a": 2, "c": 3, "bb": 1}"#),
            (r#"{"a":1,"a":{"x":[]}}"#, r#"{"a": {"x": []}}"#),
            (r#""a\u00e9\n\/\u001f""#, "\"aé\\n/\\u001f\""),
        ] {
            assert_eq!(
                Document::parse(text).unwrap().to_string(),
                written,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_document_is_refused() {
        let deep = "[".repeat(200) + &"]".repeat(200);
        let far = "1e99999";
        for text in [
            "",
            "{",
            "[1,]",
            "01",
            "nul",
            r#""\u0000""#,
            r#""\ud800""#,
            &deep,
            far,
        ] {
            assert!(Document::parse(text).is_err(), "{text}");
        }
    }
}
