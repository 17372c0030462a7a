//! Schema fingerprints: a 64-bit hash (XXH3) of an Avro schema in a canonical form.
//!
//! Records and journals keep the fingerprint of the writer's schema beside the schema id, because a
//! registry that was recreated gives an id to another schema.
//!
//! The canonical form is like Avro's "Parsing Canonical Form": no whitespace, attributes sorted,
//! full names. Unlike that form it keeps logical types, defaults and unknown attributes, since
//! readers use them. So schemas that differ in whitespace, the order of attributes, documentation
//! or the spelling of names have one fingerprint: a registry that was migrated may write the text
//! differently.
//!
//! Invariant: fingerprints are stored, so the canonical form never changes.

use serde_json::{Map, Value as Json};
use xxhash_rust::xxh3::xxh3_64;

/// Attributes without influence on the content of records. The namespace is part of the full name.
const IGNORED: [&str; 4] = ["doc", "namespace", "order", "revision"];
/// Names of primitive types, which no namespace changes.
const PRIMITIVE: [&str; 8] = [
    "null", "boolean", "int", "long", "float", "double", "bytes", "string",
];
/// Kinds of types that have a name.
const NAMED: [&str; 4] = ["record", "error", "enum", "fixed"];

/// The fingerprint of a schema; of a text that is not JSON, the hash of its bytes.
///
/// ```
/// use tidemill_log::schema::fingerprint;
///
/// let one = fingerprint(r#"{"type": "enum", "name": "t.E", "symbols": ["A"]}"#);
/// let same = fingerprint(r#"{"name":"E","namespace":"t","type":"enum","symbols":["A"]}"#);
/// assert_eq!(one, same);
/// assert_ne!(one, fingerprint(r#"{"type": "enum", "name": "t.E", "symbols": ["B"]}"#));
/// ```
#[must_use]
pub fn fingerprint(schema: &str) -> u64 {
    let Ok(json) = serde_json::from_str::<Json>(schema) else {
        return xxh3_64(schema.as_bytes());
    };
    let mut text = String::with_capacity(schema.len());
    write_type(&json, "", &mut text);
    xxh3_64(text.as_bytes())
}

/// Writes the canonical form of a type inside a namespace.
fn write_type(json: &Json, namespace: &str, to: &mut String) {
    match json {
        Json::String(name) if PRIMITIVE.contains(&name.as_str()) => write_quoted(name, to),
        Json::String(name) => write_quoted(&full_name(name, namespace), to),
        Json::Array(branches) => write_list(branches, to, |one, to| write_type(one, namespace, to)),
        Json::Object(object) => write_object(object, namespace, to),
        other => write_plain(other, to),
    }
}

/// Writes the canonical form of a type that is a JSON object.
fn write_object(object: &Map<String, Json>, outer: &str, to: &mut String) {
    let kind = object.get("type");
    if let (1, Some(kind)) = (object.len(), kind) {
        return write_type(kind, outer, to);
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
    let name = name.map(|name| full_name(name, said.unwrap_or(outer)));
    let space = name
        .as_deref()
        .map_or(outer, |name| name.rsplit_once('.').map_or("", |it| it.0));
    write_attributes(object, to, |attribute, value, to| match attribute {
        "name" => match &name {
            Some(name) => write_quoted(name, to),
            None => write_plain(value, to),
        },
        "type" if is(&NAMED) => write_plain(value, to),
        "type" | "items" | "values" => write_type(value, space, to),
        "fields" => match value {
            Json::Array(fields) => {
                write_list(fields, to, |field, to| write_field(field, space, to))
            }
            other => write_plain(other, to),
        },
        _ => write_plain(value, to),
    });
}

/// Writes the canonical form of a field of a record.
fn write_field(field: &Json, namespace: &str, to: &mut String) {
    let Json::Object(object) = field else {
        return write_plain(field, to);
    };
    write_attributes(object, to, |attribute, value, to| match attribute {
        "type" => write_type(value, namespace, to),
        _ => write_plain(value, to),
    });
}

/// A name with its namespace.
fn full_name(name: &str, namespace: &str) -> String {
    match name.contains('.') || namespace.is_empty() {
        true => name.to_owned(),
        false => format!("{namespace}.{name}"),
    }
}

/// Writes the attributes of an object, sorted by name; `each` writes the values.
fn write_attributes(
    object: &Map<String, Json>,
    to: &mut String,
    mut each: impl FnMut(&str, &Json, &mut String),
) {
    let mut sorted: Vec<(&String, &Json)> = object.iter().collect();
    sorted.retain(|(name, _)| !IGNORED.contains(&name.as_str()));
    sorted.sort_unstable_by_key(|(name, _)| *name);
    to.push('{');
    for (name, value) in sorted {
        write_quoted(name, to);
        to.push(':');
        each(name, value, to);
        to.push(',');
    }
    to.push('}');
}

/// Writes an array; `each` writes the items.
fn write_list(all: &[Json], to: &mut String, mut each: impl FnMut(&Json, &mut String)) {
    to.push('[');
    for one in all {
        each(one, to);
        to.push(',');
    }
    to.push(']');
}

/// Writes JSON that holds no type: defaults, aliases, symbols, unknown attributes.
fn write_plain(json: &Json, to: &mut String) {
    match json {
        Json::Array(all) => write_list(all, to, write_plain),
        Json::Object(object) => {
            let mut sorted: Vec<(&String, &Json)> = object.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| *name);
            to.push('{');
            for (name, value) in sorted {
                write_quoted(name, to);
                to.push(':');
                write_plain(value, to);
                to.push(',');
            }
            to.push('}');
        }
        Json::String(text) => write_quoted(text, to),
        other => to.push_str(&other.to_string()),
    }
}

/// Writes a text as a JSON string.
fn write_quoted(text: &str, to: &mut String) {
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
    fn equivalent_schemas_have_one_fingerprint() {
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
    fn different_schemas_have_different_fingerprints() {
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

    /// Frozen: topics and journals of earlier versions hold fingerprints.
    #[test]
    fn a_fingerprint_never_changes() {
        assert_eq!(fingerprint("\"int\""), xxh3_64(b"\"int\""));
        assert_eq!(fingerprint(SCHEMA), 16_682_451_313_829_254_587);
    }
}
