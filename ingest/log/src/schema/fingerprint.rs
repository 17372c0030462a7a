//! What tells a schema from another one: a registry that was made anew gives an id to another one.
//!
//! Invariant: a fingerprint is kept with records and in journals, so what it is made of never
//! changes. Two texts that records are read by in the same way have one fingerprint where they
//! differ in spaces, in the order of attributes, in documentation, or in how they write a name: a
//! registry that was moved may write a schema otherwise.

use serde_json::{Map, Value as Json};
use xxhash_rust::xxh3::xxh3_64;

/// Attributes that say nothing of what records hold; a name says its namespace itself.
const PASSED_OVER: [&str; 4] = ["doc", "namespace", "order", "revision"];
/// Types that a name cannot stand for.
const PRIMITIVE: [&str; 8] = [
    "null", "boolean", "int", "long", "float", "double", "bytes", "string",
];
const NAMED: [&str; 4] = ["record", "error", "enum", "fixed"];

/// A schema's fingerprint; of what is no JSON, that of its bytes.
#[must_use]
pub fn fingerprint(schema: &str) -> u64 {
    let Ok(json) = serde_json::from_str::<Json>(schema) else {
        return xxh3_64(schema.as_bytes());
    };
    let mut text = String::with_capacity(schema.len());
    of_type(&json, "", &mut text);
    xxh3_64(text.as_bytes())
}

fn of_type(json: &Json, namespace: &str, to: &mut String) {
    match json {
        Json::String(name) if PRIMITIVE.contains(&name.as_str()) => quoted(name, to),
        Json::String(name) => quoted(&full(name, namespace), to),
        Json::Array(branches) => list(branches, to, |one, to| of_type(one, namespace, to)),
        Json::Object(object) => of_object(object, namespace, to),
        other => plain(other, to),
    }
}

fn of_object(object: &Map<String, Json>, outer: &str, to: &mut String) {
    let kind = object.get("type");
    if let (1, Some(kind)) = (object.len(), kind) {
        return of_type(kind, outer, to);
    }
    let is = |names: &[&str]| {
        kind.and_then(Json::as_str)
            .is_some_and(|it| names.contains(&it))
    };
    let said = object.get("namespace").and_then(Json::as_str);
    let name = object
        .get("name")
        .and_then(Json::as_str)
        .filter(|_| is(&NAMED));
    let name = name.map(|name| full(name, said.unwrap_or(outer)));
    let space = name
        .as_deref()
        .map_or(outer, |name| name.rsplit_once('.').map_or("", |it| it.0));
    attributes(object, to, |attribute, value, to| match attribute {
        "name" => match &name {
            Some(name) => quoted(name, to),
            None => plain(value, to),
        },
        "type" if is(&NAMED) => plain(value, to),
        "type" | "items" | "values" => of_type(value, space, to),
        "fields" => match value {
            Json::Array(fields) => list(fields, to, |field, to| of_field(field, space, to)),
            other => plain(other, to),
        },
        _ => plain(value, to),
    });
}

fn of_field(field: &Json, namespace: &str, to: &mut String) {
    let Json::Object(object) = field else {
        return plain(field, to);
    };
    attributes(object, to, |attribute, value, to| match attribute {
        "type" => of_type(value, namespace, to),
        _ => plain(value, to),
    });
}

/// A name with its namespace.
fn full(name: &str, namespace: &str) -> String {
    match name.contains('.') || namespace.is_empty() {
        true => name.to_owned(),
        false => format!("{namespace}.{name}"),
    }
}

fn attributes(
    object: &Map<String, Json>,
    to: &mut String,
    mut each: impl FnMut(&str, &Json, &mut String),
) {
    let mut sorted: Vec<(&String, &Json)> = object.iter().collect();
    sorted.retain(|(name, _)| !PASSED_OVER.contains(&name.as_str()));
    sorted.sort_unstable_by_key(|(name, _)| *name);
    to.push('{');
    for (name, value) in sorted {
        quoted(name, to);
        to.push(':');
        each(name, value, to);
        to.push(',');
    }
    to.push('}');
}

fn list(all: &[Json], to: &mut String, mut each: impl FnMut(&Json, &mut String)) {
    to.push('[');
    for one in all {
        each(one, to);
        to.push(',');
    }
    to.push(']');
}

/// What holds no type: defaults, aliases, symbols, attributes of others.
fn plain(json: &Json, to: &mut String) {
    match json {
        Json::Array(all) => list(all, to, plain),
        Json::Object(object) => {
            let mut sorted: Vec<(&String, &Json)> = object.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| *name);
            to.push('{');
            for (name, value) in sorted {
                quoted(name, to);
                to.push(':');
                plain(value, to);
                to.push(',');
            }
            to.push('}');
        }
        Json::String(text) => quoted(text, to),
        other => to.push_str(&other.to_string()),
    }
}

fn quoted(text: &str, to: &mut String) {
    to.push_str(&Json::from(text).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = r#"{"type": "record", "name": "Envelope", "namespace": "t", "fields": [
        {"name": "after", "type": ["null", {"type": "record", "name": "Value", "fields": [
            {"name": "id", "type": "int"},
            {"name": "n", "type": {"type": "bytes", "logicalType": "decimal",
                "precision": 9, "scale": 2}}]}], "default": null},
        {"name": "before", "type": ["null", "Value"]}]}"#;

    #[test]
    fn what_is_written_otherwise_and_read_alike_is_the_same() {
        let is = fingerprint(SCHEMA);
        for (from, to) in [
            (" ", ""),
            (
                r#""name": "Envelope", "namespace": "t""#,
                r#""name": "t.Envelope", "doc": "D""#,
            ),
            (r#"["null", "Value"]"#, r#"["null", "t.Value"]"#),
            (
                r#"{"name": "id", "type": "int"}"#,
                r#"{"type": {"type": "int"}, "name": "id"}"#,
            ),
            (
                r#""type": "record", "name": "Value""#,
                r#""name": "Value", "type": "record""#,
            ),
            (r#""namespace": "t""#, r#""namespace": "t", "revision": 3"#),
        ] {
            let other = SCHEMA.replace(from, to);
            assert_ne!(other, SCHEMA, "{from}");
            assert_eq!(fingerprint(&other), is, "{other}");
        }
    }

    #[test]
    fn what_is_read_otherwise_is_another() {
        let is = fingerprint(SCHEMA);
        for (from, to) in [
            ("\"id\"", "\"no\""),
            ("\"int\"", "\"long\""),
            ("\"scale\": 2", "\"scale\": 3"),
            ("\"namespace\": \"t\"", "\"namespace\": \"s\""),
            ("[\"null\", \"Value\"]", "[\"Value\", \"null\"]"),
        ] {
            assert_ne!(fingerprint(&SCHEMA.replacen(from, to, 1)), is, "{to}");
        }
        assert_ne!(fingerprint("no JSON"), fingerprint("no JSON either"));
    }

    /// Frozen: topics and journals hold fingerprints of earlier versions.
    #[test]
    fn a_fingerprint_never_changes() {
        assert_eq!(fingerprint("\"int\""), xxh3_64(b"\"int\""));
        assert_eq!(fingerprint(SCHEMA), 16_682_451_313_829_254_587);
    }
}
