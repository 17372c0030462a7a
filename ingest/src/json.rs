//! JSON paths into a text, without conversion of the values: numbers keep their digits.
//!
//! No number passes through a floating-point type. No value is parsed deeper than a path leads, so
//! nesting costs no stack. When an object has two fields of one name the last one counts, as in
//! PostgreSQL's `jsonb`.

use std::collections::HashMap;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A path into JSON: field names and list positions, separated by dots, such as `login.uuid` or
/// `emails.0`. A name that holds a dot is in double quotes: `"user.name".first`.
///
/// ```
/// use tidemill_ingest::json::Path;
///
/// assert!(Path::parse("login.uuid").is_ok());
/// assert!(Path::parse("login..uuid").is_err());
/// assert!(Path::parse("").expect("a path").is_top());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Path {
    /// Field names and positions, from the outside in.
    steps: Vec<String>,
    /// The path as it was written.
    text: String,
}

impl Path {
    /// The path to one field of the outermost object. The name may hold dots.
    pub fn of_field(name: &str) -> Self {
        Self {
            steps: vec![name.to_owned()],
            text: name.to_owned(),
        }
    }

    /// Parses a path. An empty text and `.` mean the whole value.
    ///
    /// # Errors
    /// A sentence that says what a path looks like.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut path = Self {
            steps: Vec::new(),
            text: text.to_owned(),
        };
        if matches!(text, "" | ".") {
            return Ok(path);
        }
        let wrong = || {
            let right = "field names with dots between, such as `login.uuid`; a name that holds a \
                         dot is written in double quotes, as in `\"user.name\".first`";
            format!("path `{text}` must be {right}")
        };
        let mut rest = text;
        loop {
            let (step, behind) = match rest.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"').ok_or_else(wrong)?,
                None => rest.split_at(rest.find('.').unwrap_or(rest.len())),
            };
            if step.is_empty() {
                return Err(wrong());
            }
            path.steps.push(step.to_owned());
            if behind.is_empty() {
                return Ok(path);
            }
            rest = behind.strip_prefix('.').ok_or_else(wrong)?;
        }
    }

    /// The path as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the path means the whole value.
    pub fn is_top(&self) -> bool {
        self.steps.is_empty()
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Path {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// One level of a JSON text: its fields or items, whose own content is not parsed.
enum Level<'a> {
    Object(HashMap<String, &'a RawValue>),
    List(Vec<&'a RawValue>),
    Other,
}

impl<'a> Level<'a> {
    /// Parses one level.
    fn of(raw: &'a RawValue) -> Result<Self, String> {
        let text = raw.get();
        let read = match text.bytes().next() {
            Some(b'{') => serde_json::from_str(text).map(Level::Object),
            Some(b'[') => serde_json::from_str(text).map(Level::List),
            _ => Ok(Level::Other),
        };
        read.map_err(|error| format!("it cannot be read: {error}"))
    }
}

/// A JSON text for several paths: each level is parsed once.
pub(crate) struct Text<'a> {
    /// The whole value.
    top: &'a RawValue,
    /// Parsed levels, by the address at which the value begins.
    levels: HashMap<usize, Level<'a>>,
}

impl<'a> Text<'a> {
    /// A text without a parsed level.
    pub(crate) fn new(top: &'a RawValue) -> Self {
        Self {
            top,
            levels: HashMap::new(),
        }
    }

    /// The value at a path. `None` when a field or position does not exist or lies below null.
    ///
    /// # Errors
    /// A fragment for people when the path leads through a value without fields.
    pub(crate) fn at(&mut self, path: &Path) -> Result<Option<&'a RawValue>, String> {
        let mut value = self.top;
        for step in &path.steps {
            let begin = value.get().as_ptr() as usize;
            let level = match self.levels.entry(begin) {
                std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::hash_map::Entry::Vacant(new) => new.insert(Level::of(value)?),
            };
            let next = match level {
                Level::Object(fields) => fields.get(step).copied(),
                Level::List(list) => match step.parse::<usize>() {
                    Ok(position) => list.get(position).copied(),
                    Err(_) => return Err(format!("no `{step}` in a list")),
                },
                Level::Other if value.get() == "null" => None,
                Level::Other => return Err(format!("no `{step}` in {}", described(value))),
            };
            match next {
                Some(next) => value = next,
                None => return Ok(None),
            }
        }
        Ok(Some(value))
    }
}

/// A short description of a value for messages: its kind, or its first 40 characters.
pub(crate) fn described(value: &RawValue) -> String {
    let text = value.get();
    match text.bytes().next() {
        Some(b'[') => "a list".into(),
        Some(b'{') => "an object".into(),
        Some(b'n') => "null".into(),
        Some(b'"') => {
            let inner = text.trim_matches('"');
            format!("`{}`", inner.chars().take(40).collect::<String>())
        }
        _ => format!("`{}`", text.chars().take(40).collect::<String>()),
    }
}

/// The field names of an object for messages, at most 10; `None` without fields.
pub(crate) fn fields_of(value: &RawValue) -> Option<String> {
    /// Number of names that are shown.
    const SHOWN: usize = 10;
    let Ok(Level::Object(fields)) = Level::of(value) else {
        return None;
    };
    let mut names: Vec<String> = fields.keys().map(|name| format!("`{name}`")).collect();
    names.sort();
    let more = names.len().saturating_sub(SHOWN);
    names.truncate(SHOWN);
    let names = names.join(", ");
    match (names.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(names),
        (false, more) => Some(format!("{names} and {more} more")),
    }
}

/// What a JSON text holds in its escapes that no database text can store: `\u0000`, or half of a
/// surrogate pair. `None` when there is nothing.
pub(crate) fn unstorable(text: &str) -> Option<&'static str> {
    /// What is wrong with `\u0000`.
    const ZERO: &str = "the character U+0000, which no database text can hold";
    /// What is wrong with a lone `\ud800` to `\udfff`.
    const HALF: &str = "half of a surrogate pair, which is no character";
    let mut high = false;
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        if high && at > 0 {
            return Some(HALF);
        }
        let escape = rest.get(at + 1..).unwrap_or_default();
        let hex = escape.strip_prefix(b"u").and_then(|hex| hex.get(..4));
        let unit = hex
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u16::from_str_radix(hex, 16).ok());
        let low = matches!(unit, Some(0xdc00..=0xdfff));
        if unit == Some(0) {
            return Some(ZERO);
        }
        if high != low {
            return Some(HALF);
        }
        high = matches!(unit, Some(0xd800..=0xdbff));
        let length = if unit.is_some() { 5 } else { 1 };
        rest = escape.get(length..).unwrap_or_default();
    }
    high.then_some(HALF)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, path: &str) -> Result<Option<String>, String> {
        let raw: &RawValue = serde_json::from_str(text).unwrap();
        let path = Path::parse(path).unwrap();
        let found = Text::new(raw).at(&path)?;
        Ok(found.map(|value| value.get().to_owned()))
    }

    #[test]
    fn a_path_gives_the_unchanged_bytes() {
        let text = r#"{"a":{"b":[{"c":19.90},1E400]},"d.e":{"f":1},"a2":null,"x":1,"x":2}"#;
        let found = |path: &str| at(text, path).unwrap();
        assert_eq!(found("a.b.0.c").unwrap(), "19.90");
        assert_eq!(found("a.b.1").unwrap(), "1E400");
        assert_eq!(found("a.b.2"), None);
        assert_eq!(found("\"d.e\".f").unwrap(), "1");
        assert_eq!(found("a2.deep.er"), None);
        assert_eq!(found("nothing"), None);
        assert_eq!(found("x").unwrap(), "2", "the last one counts");
        assert_eq!(found(".").unwrap(), text);
        assert_eq!(at(text, "a.b.c").unwrap_err(), "no `c` in a list");
        assert_eq!(at(text, "x.y").unwrap_err(), "no `y` in `2`");
        for wrong in ["a..b", ".a", "a.", "\"a", "\"a\"b", "\"\""] {
            let error = Path::parse(wrong).unwrap_err();
            assert!(error.contains("`login.uuid`"), "{error}");
        }
    }

    #[test]
    fn unstorable_escapes_are_found() {
        for fine in [
            r#""plain \" \\ \n é""#,
            r#""\\u0000""#,
            r#""\ud83d\ude00""#,
            r#"{"a":"\u00e9"}"#,
        ] {
            assert_eq!(unstorable(fine), None, "{fine}");
        }
        for half in [
            r#""\ud83d""#,
            r#""\ud83dx\ude00""#,
            r#""\ude00""#,
            r#""\ud83d\n""#,
            r#"["\ud83d","\ude00"]"#,
        ] {
            assert!(unstorable(half).unwrap().contains("surrogate"), "{half}");
        }
        assert!(unstorable(r#""a\\\u0000""#).unwrap().contains("U+0000"));
    }

    #[test]
    fn deep_nesting_costs_no_stack() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
        let raw: &RawValue = serde_json::from_str(&deep).unwrap();
        let path = Path::parse("a.0.0.0.0").unwrap();
        assert!(Text::new(raw).at(&path).unwrap().is_some());
        assert_eq!(unstorable(&deep), None);
    }
}
