//! Changed documents: `||`, `-`, `#-`, `jsonb_set`, `jsonb_insert`, `jsonb_strip_nulls`.
//!
//! Source: PostgreSQL's `jsonb_concat`, `jsonb_delete` and `setPath` (`jsonfuncs.c`).

use std::borrow::Cow;

use tidemill_ir::json::Document;

use super::access::place;
use crate::entry::{Answer, Entry, Kind, body, rows};
use crate::value::datum::Datum;

/// The steps of a path.
type Path<'a> = [Option<Cow<'a, str>>];

/// Two documents as one: members of both objects, or elements of both arrays. A value that is no
/// array becomes an array of it.
fn joined(one: Document, other: Document) -> Document {
    match (one, other) {
        (Document::Object(mut members), Document::Object(more)) => {
            members.extend(more);
            Document::object(members)
        }
        (one, other) => {
            let elements = |value| match value {
                Document::Array(elements) => elements,
                value => vec![value],
            };
            let mut all = elements(one);
            all.extend(elements(other));
            Document::Array(all)
        }
    }
}

/// A document without some keys or texts.
fn without(document: Document, keys: &[&str]) -> Result<Document, String> {
    match document {
        Document::Object(mut members) => {
            members.retain(|(key, _)| !keys.contains(&key.as_str()));
            Ok(Document::Object(members))
        }
        Document::Array(mut elements) => {
            let named = |text: &String| keys.contains(&text.as_str());
            elements.retain(|it| !matches!(it, Document::String(text) if named(text)));
            Ok(Document::Array(elements))
        }
        _ => Err("cannot delete from scalar".to_owned()),
    }
}

/// A document without the element at a place.
fn without_element(document: Document, at: i32) -> Result<Document, String> {
    match document {
        Document::Array(mut elements) => {
            if let Some(index) = index(at, elements.len()).filter(|it| *it < elements.len()) {
                elements.remove(index);
            }
            Ok(Document::Array(elements))
        }
        Document::Object(_) => Err("cannot delete from object using integer index".to_owned()),
        _ => Err("cannot delete from scalar".to_owned()),
    }
}

/// The index of a place in an array of `count` elements; `None` before its beginning.
fn index(place: i32, count: usize) -> Option<usize> {
    match usize::try_from(place) {
        Ok(index) => Some(index),
        Err(_) => count.checked_sub(usize::try_from(place.unsigned_abs()).ok()?),
    }
}

/// What happens at the end of a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    /// The value is removed.
    Delete,
    /// The value is replaced, if it is there.
    Replace,
    /// The value is replaced or added.
    Create,
    /// A value is put before the element, or is added to the object.
    Before,
    /// A value is put after the element, or is added to the object.
    After,
}

impl Action {
    /// Whether a value is added where there is none.
    fn adds(self) -> bool {
        matches!(self, Self::Create | Self::Before | Self::After)
    }

    /// Whether it is `jsonb_insert`.
    fn inserts(self) -> bool {
        matches!(self, Self::Before | Self::After)
    }
}

/// A change at the end of a path.
struct Change<'a> {
    /// The steps.
    path: &'a Path<'a>,
    /// What happens there.
    action: Action,
    /// The new value; null for a deletion.
    value: Document,
}

impl Change<'_> {
    /// The document after the change.
    fn applied(&self, document: Document, level: usize) -> Result<Document, String> {
        let Some(step) = self.path.get(level) else {
            return Ok(document);
        };
        let Some(step) = step else {
            return Err(format!("path element at position {} is null", level + 1));
        };
        match document {
            Document::Object(members) => self.in_object(members, step, level),
            Document::Array(elements) => self.in_array(elements, step, level),
            single => Ok(single),
        }
    }

    /// Whether the path ends at this level.
    fn ends(&self, level: usize) -> bool {
        level + 1 == self.path.len()
    }

    /// The change in an object.
    fn in_object(
        &self,
        mut members: Vec<(String, Document)>,
        key: &str,
        level: usize,
    ) -> Result<Document, String> {
        let found = members.iter().position(|(other, _)| other == key);
        let Some(found) = found else {
            if self.ends(level) && self.action.adds() {
                members.push((key.to_owned(), self.value.clone()));
            }
            return Ok(Document::object(members));
        };
        if !self.ends(level) {
            let (key, value) = members.remove(found);
            members.push((key, self.applied(value, level + 1)?));
            return Ok(Document::object(members));
        }
        if self.action.inserts() {
            return Err("cannot replace existing key".to_owned());
        }
        let (key, _) = members.remove(found);
        if self.action != Action::Delete {
            members.push((key, self.value.clone()));
        }
        Ok(Document::object(members))
    }

    /// The change in an array.
    fn in_array(
        &self,
        mut elements: Vec<Document>,
        step: &str,
        level: usize,
    ) -> Result<Document, String> {
        let adds = self.ends(level) && self.action.adds();
        let Some(at) = place(step) else {
            let level = level + 1;
            return Err(format!(
                "path element at position {level} is not an integer: \"{step}\""
            ));
        };
        if elements.is_empty() {
            let added = adds.then(|| self.value.clone());
            return Ok(Document::Array(added.into_iter().collect()));
        }
        let Some(index) = index(at, elements.len()) else {
            if adds {
                elements.insert(0, self.value.clone());
            }
            return Ok(Document::Array(elements));
        };
        if index >= elements.len() {
            elements.extend(adds.then(|| self.value.clone()));
            return Ok(Document::Array(elements));
        }
        if !self.ends(level) {
            let element = elements.remove(index);
            elements.insert(index, self.applied(element, level + 1)?);
            return Ok(Document::Array(elements));
        }
        match self.action {
            Action::Before => elements.insert(index, self.value.clone()),
            Action::After => elements.insert(index + 1, self.value.clone()),
            Action::Delete => drop(elements.remove(index)),
            Action::Replace | Action::Create => {
                elements.remove(index);
                elements.insert(index, self.value.clone());
            }
        }
        Ok(Document::Array(elements))
    }
}

/// The document after a change at a path.
fn changed(text: &str, path: &Path<'_>, action: Action, value: Document) -> Answer {
    let document = Document::parse(text)?;
    if document.is_scalar() {
        let what = match action {
            Action::Delete => "delete path",
            _ => "set path",
        };
        return Err(format!("cannot {what} in scalar"));
    }
    let empty = match &document {
        Document::Array(elements) => elements.is_empty(),
        Document::Object(members) => members.is_empty(),
        _ => false,
    };
    // Nothing is looked for in an empty document, so its path may be anything.
    if empty && matches!(action, Action::Delete | Action::Replace) {
        return Ok(Datum::jsonb(&document));
    }
    let change = Change {
        path,
        action,
        value,
    };
    Ok(Datum::jsonb(&change.applied(document, 0)?))
}

/// `jsonb_set`.
fn set(text: &str, path: &Path<'_>, value: &str, create: bool) -> Answer {
    let action = match create {
        true => Action::Create,
        false => Action::Replace,
    };
    changed(text, path, action, Document::parse(value)?)
}

/// `jsonb_insert`.
fn insert(text: &str, path: &Path<'_>, value: &str, after: bool) -> Answer {
    let action = match after {
        true => Action::After,
        false => Action::Before,
    };
    changed(text, path, action, Document::parse(value)?)
}

/// A document without the members that are null, at any depth.
fn stripped(document: Document) -> Document {
    match document {
        Document::Object(members) => {
            let kept = members
                .into_iter()
                .filter(|(_, value)| !matches!(value, Document::Null));
            Document::Object(kept.map(|(key, value)| (key, stripped(value))).collect())
        }
        Document::Array(elements) => Document::Array(elements.into_iter().map(stripped).collect()),
        single => single,
    }
}

/// All entries of this family.
#[expect(clippy::too_many_lines, reason = "a list of entries, and no steps")]
pub(crate) fn entries() -> Vec<Entry> {
    use Datum::{Bool, Int, Jsonb, Text, Texts};
    const B: Kind = Kind::Jsonb;
    const P: Kind = Kind::Texts;
    vec![
        rows(
            "||",
            &[B, B],
            B,
            body!([Jsonb(one), Jsonb(other)] => {
                Ok(Datum::jsonb(&joined(Document::parse(one)?, Document::parse(other)?)))
            }),
        ),
        rows(
            "-",
            &[B, Kind::Text],
            B,
            body!([Jsonb(text), Text(key)] => {
                Ok(Datum::jsonb(&without(Document::parse(text)?, &[key.as_ref()])?))
            }),
        ),
        rows(
            "-",
            &[B, P],
            B,
            body!([Jsonb(text), Texts(keys)] => {
                let keys: Vec<&str> = keys.iter().flatten().map(Cow::as_ref).collect();
                Ok(Datum::jsonb(&without(Document::parse(text)?, &keys)?))
            }),
        ),
        rows(
            "-",
            &[B, Kind::Int],
            B,
            body!([Jsonb(text), Int(at)] => {
                Ok(Datum::jsonb(&without_element(Document::parse(text)?, *at)?))
            }),
        ),
        rows(
            "#-",
            &[B, P],
            B,
            body!([Jsonb(text), Texts(path)] => {
                changed(text, path, Action::Delete, Document::Null)
            }),
        ),
        rows(
            "jsonb_set",
            &[B, P, B],
            B,
            body!([Jsonb(text), Texts(path), Jsonb(value)] => {
                set(text, path, value, true)
            }),
        ),
        rows(
            "jsonb_set",
            &[B, P, B, Kind::Bool],
            B,
            body!([Jsonb(text), Texts(path), Jsonb(value), Bool(create)] => {
                set(text, path, value, *create)
            }),
        ),
        rows(
            "jsonb_insert",
            &[B, P, B],
            B,
            body!([Jsonb(text), Texts(path), Jsonb(value)] => {
                insert(text, path, value, false)
            }),
        ),
        rows(
            "jsonb_insert",
            &[B, P, B, Kind::Bool],
            B,
            body!([Jsonb(text), Texts(path), Jsonb(value), Bool(after)] => {
                insert(text, path, value, *after)
            }),
        ),
        rows(
            "jsonb_strip_nulls",
            &[B],
            B,
            body!([Jsonb(text)] => {
                Ok(Datum::jsonb(&stripped(Document::parse(text)?)))
            }),
        ),
    ]
}
