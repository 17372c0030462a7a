//! The order of documents, as PostgreSQL's `compareJsonbContainers` has it.
//!
//! Null, then texts, numbers, booleans, arrays, objects. Arrays and objects are ordered by their
//! size first. One exception is kept as PostgreSQL has it: a document that is a single value counts
//! as an array of one element, so an empty array is less than any such document.

use std::cmp::Ordering;

use super::Document;

/// The order of keys in an object: by length, then by bytes.
pub(super) fn keys(one: &str, other: &str) -> Ordering {
    one.len().cmp(&other.len()).then(one.cmp(other))
}

impl Document {
    /// The order of two documents. Equal documents may be written with different zeros at the end
    /// of their numbers.
    pub fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Array(elements), single) if single.is_scalar() => {
                elements.len().cmp(&1).then(Ordering::Greater)
            }
            (single, Self::Array(elements)) if single.is_scalar() => {
                1.cmp(&elements.len()).then(Ordering::Less)
            }
            _ => inner(self, other),
        }
    }
}

/// The order of two values inside documents.
fn inner(one: &Document, other: &Document) -> Ordering {
    match (one, other) {
        (Document::String(one), Document::String(other)) => one.cmp(other),
        (Document::Number(one), Document::Number(other)) => one.compare(other),
        (Document::Bool(one), Document::Bool(other)) => one.cmp(other),
        (Document::Array(one), Document::Array(other)) => {
            let pairs = one.iter().zip(other);
            let parts = pairs.map(|(one, other)| inner(one, other));
            one.len().cmp(&other.len()).then_with(|| first(parts))
        }
        (Document::Object(one), Document::Object(other)) => {
            let pairs = one.iter().zip(other);
            let parts = pairs.map(|((key, value), (other_key, other))| {
                key.cmp(other_key).then_with(|| inner(value, other))
            });
            one.len().cmp(&other.len()).then_with(|| first(parts))
        }
        _ => rank(one).cmp(&rank(other)),
    }
}

/// The first order that is not equal.
fn first(mut parts: impl Iterator<Item = Ordering>) -> Ordering {
    parts.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

/// The place of a type in the order.
fn rank(document: &Document) -> u8 {
    match document {
        Document::Null => 0,
        Document::String(_) => 1,
        Document::Number(_) => 2,
        Document::Bool(_) => 3,
        Document::Array(_) => 4,
        Document::Object(_) => 5,
    }
}
