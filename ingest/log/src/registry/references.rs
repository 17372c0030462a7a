//! Schema references: inlines types of other subjects into a schema.
//!
//! In: an Avro schema and the schemas to which its references lead. Out: one schema that defines
//! every type where it is named first, so that it can be read without a registry.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

/// The referenced types, by their names.
#[derive(Default)]
pub(super) struct Types(HashMap<String, Value>);

impl Types {
    /// Adds the schema of the reference `name`. It is also known by its own full name.
    pub(super) fn add(&mut self, name: &str, schema: Value) {
        if let Some(own) = schema.as_object().and_then(|it| own_name(it, "")) {
            self.0.insert(own, schema.clone());
        }
        self.0.insert(name.to_owned(), schema);
    }

    /// The schema with the referenced types inlined.
    pub(super) fn inlined(&self, schema: &Value) -> Value {
        self.inline(schema, "", &mut HashSet::new())
    }

    /// Inlines the types of a schema. `space` is the enclosing namespace, `defined` the names whose
    /// definitions were written already.
    fn inline(&self, schema: &Value, space: &str, defined: &mut HashSet<String>) -> Value {
        match schema {
            Value::String(name) => self.named(name, space, defined),
            Value::Array(branches) => {
                let branches = branches.iter();
                branches.map(|it| self.inline(it, space, defined)).collect()
            }
            Value::Object(object) => self.object(object, space, defined),
            other => other.clone(),
        }
    }

    /// A type by its name: its definition at the first use, its name afterwards.
    fn named(&self, name: &str, space: &str, defined: &mut HashSet<String>) -> Value {
        let full = full_name(name, space);
        let known = [full.as_str(), name]
            .into_iter()
            .find_map(|name| Some((name, self.0.get(name)?.as_object()?)));
        let Some((_, definition)) = known.filter(|_| !defined.contains(&full)) else {
            return Value::String(name.to_owned());
        };
        let Some(own) = own_name(definition, "").filter(|own| !defined.contains(own)) else {
            return Value::String(name.to_owned());
        };
        // The definition names its namespace, or else it would have the enclosing one.
        let (space, short) = own.rsplit_once('.').unwrap_or(("", &own));
        let mut definition = definition.clone();
        definition.insert("name".to_owned(), short.into());
        definition.insert("namespace".to_owned(), space.into());
        self.object(&definition, space, defined)
    }

    /// Inlines the types in a definition or annotated type.
    fn object(
        &self,
        object: &Map<String, Value>,
        space: &str,
        defined: &mut HashSet<String>,
    ) -> Value {
        let mut object = object.clone();
        let kind = object.get("type").cloned().unwrap_or_default();
        let kind_name = kind.as_str().unwrap_or_default();
        let mut space = space.to_owned();
        match kind_name {
            "record" | "error" | "enum" | "fixed" => {
                if let Some(own) = own_name(&object, &space) {
                    space = own
                        .rsplit_once('.')
                        .map_or_else(String::new, |it| it.0.to_owned());
                    defined.insert(own);
                }
            }
            "array" | "map" => {}
            _ => {
                object.insert("type".to_owned(), self.inline(&kind, &space, defined));
            }
        }
        for inner in ["items", "values"] {
            if let Some(value) = object.get_mut(inner) {
                *value = self.inline(value, &space, defined);
            }
        }
        let fields = object.get_mut("fields").and_then(Value::as_array_mut);
        for kind in fields
            .into_iter()
            .flatten()
            .filter_map(|it| it.get_mut("type"))
        {
            *kind = self.inline(kind, &space, defined);
        }
        Value::Object(object)
    }
}

/// A name with its namespace, unless it has one already.
fn full_name(name: &str, space: &str) -> String {
    if name.contains('.') || space.is_empty() {
        name.to_owned()
    } else {
        format!("{space}.{name}")
    }
}

/// The full name of a definition inside the namespace `space`.
fn own_name(definition: &Map<String, Value>, space: &str) -> Option<String> {
    let name = definition.get("name")?.as_str()?;
    let own = definition.get("namespace").and_then(Value::as_str);
    Some(full_name(name, own.unwrap_or(space)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::arena::{Node, Schema};

    #[test]
    fn types_of_other_subjects_are_defined_where_they_are_named_first() {
        let mut types = Types::default();
        let country = json!({"type": "enum", "name": "shop.Country", "symbols": ["DE"]});
        let address = json!({"type": "record", "name": "Address", "namespace": "shop", "fields": [
            {"name": "country", "type": "Country"},
            {"name": "next", "type": ["null", "Address"]}]});
        types.add("shop.Country", country);
        types.add("shop.Address", address);
        let person = json!({"type": "record", "name": "shop.people.Person", "fields": [
            {"name": "id", "type": "long"},
            {"name": "homes", "type": {"type": "array", "items": "shop.Address"}},
            {"name": "work", "type": {"type": "shop.Address"}},
            {"name": "born", "type": ["null", "shop.Country"]},
            {"name": "self", "type": ["null", "Person"]}]});
        let whole = types.inlined(&person).to_string();
        assert_eq!(whole.matches("symbols").count(), 1, "{whole}");
        let schema = Schema::parse(&whole).unwrap();
        let Node::Record(record) = schema.node(schema.root) else {
            panic!("{whole}");
        };
        let kinds: Vec<String> = record
            .fields
            .iter()
            .map(|it| schema.describe(it.node))
            .collect();
        let expected = [
            "long",
            "an array",
            "a record (shop.Address)",
            "a union of null, enum",
            "a union of null, a record (shop.people.Person)",
        ];
        assert_eq!(kinds, expected);
        assert!(apache_avro::Schema::parse_str(&whole).is_ok(), "{whole}");
    }
}
