//! Avro schemas as the decoder needs them: an arena of nodes, names resolved to indexes.
//!
//! In: a schema's JSON text. Out: [`Schema`], whose nodes refer to each other by index, so that
//! recursive schemas need no recursion to hold.
//!
//! 1. Every index in a [`Node`] is within the arena.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// A parsed schema.
#[derive(Debug)]
pub(super) struct Schema {
    nodes: Vec<Node>,
    /// The index of the outermost type.
    pub(super) root: usize,
}

/// What the annotations on a primitive type say that its number or text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Nothing more than its type.
    Plain,
    /// Days since 1970-01-01.
    Days,
    /// Milliseconds since 1970-01-01.
    Millis,
    /// Microseconds since 1970-01-01.
    Micros,
    /// Nanoseconds since 1970-01-01.
    Nanos,
    /// An unscaled value in two's complement, big-endian.
    Decimal {
        /// Digits behind the point.
        scale: i64,
    },
}

/// A record's field.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) aliases: Vec<String>,
    pub(super) node: usize,
    pub(super) default: Option<Value>,
}

/// A type.
#[derive(Debug)]
pub(super) enum Node {
    Null,
    Boolean,
    Int(Meaning),
    Long(Meaning),
    Float,
    Double,
    Bytes(Meaning),
    String,
    Fixed(usize, Meaning),
    Enum(Vec<String>),
    Array(usize),
    Map(usize),
    Union(Vec<usize>),
    Record(Vec<Field>),
}

impl Schema {
    /// Parses a schema; the error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let json: Value =
            serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
        let mut parser = Parser::default();
        let root = parser.node(&json, "")?;
        Ok(Self {
            nodes: parser.nodes,
            root,
        })
    }

    /// The node at an index of this schema.
    pub(super) fn node(&self, index: usize) -> &Node {
        // Invariant 1 makes the fallback unreachable.
        self.nodes.get(index).unwrap_or(&Node::Null)
    }

    /// The fields of a record, also of the one record in a union with null.
    pub(super) fn record(&self, index: usize) -> Option<&[Field]> {
        match self.node(index) {
            Node::Record(fields) => Some(fields),
            Node::Union(branches) => branches.iter().find_map(|b| match self.node(*b) {
                Node::Record(fields) => Some(fields.as_slice()),
                _ => None,
            }),
            _ => None,
        }
    }
}

#[derive(Default)]
struct Parser {
    nodes: Vec<Node>,
    names: HashMap<String, usize>,
}

impl Parser {
    fn add(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// `space` is the enclosing namespace.
    fn node(&mut self, json: &Value, space: &str) -> Result<usize, String> {
        match json {
            Value::String(name) => match primitive(name, Meaning::Plain) {
                Some(node) => Ok(self.add(node)),
                None => self
                    .names
                    .get(&full_name(name, space))
                    .or_else(|| self.names.get(name))
                    .copied()
                    .ok_or_else(|| format!("type `{name}` is not defined")),
            },
            Value::Array(branches) => {
                let branches = branches
                    .iter()
                    .map(|branch| self.node(branch, space))
                    .collect::<Result<_, _>>()?;
                Ok(self.add(Node::Union(branches)))
            }
            Value::Object(object) => match object.get("type") {
                Some(Value::String(kind)) => self.object(kind, object, space),
                Some(nested) => self.node(nested, space),
                None => Err("an object without `type`".into()),
            },
            other => Err(format!("{other} stands where a type is expected")),
        }
    }

    fn object(
        &mut self,
        kind: &str,
        object: &Map<String, Value>,
        space: &str,
    ) -> Result<usize, String> {
        let inner = |key: &str| {
            object
                .get(key)
                .ok_or_else(|| format!("{kind} without `{key}`"))
        };
        match kind {
            "array" => {
                let items = self.node(inner("items")?, space)?;
                Ok(self.add(Node::Array(items)))
            }
            "map" => {
                let values = self.node(inner("values")?, space)?;
                Ok(self.add(Node::Map(values)))
            }
            "record" | "error" | "enum" | "fixed" => self.named(kind, object, space),
            _ => match primitive(kind, meaning(object)) {
                Some(node) => Ok(self.add(node)),
                None => self.node(&Value::String(kind.to_owned()), space),
            },
        }
    }

    fn named(
        &mut self,
        kind: &str,
        object: &Map<String, Value>,
        space: &str,
    ) -> Result<usize, String> {
        let name = object
            .get("name")
            .and_then(Value::as_str)
            .ok_or_else(|| format!("{kind} without `name`"))?;
        let space = object
            .get("namespace")
            .and_then(Value::as_str)
            .unwrap_or(space);
        let full = full_name(name, space);
        let space = full
            .rsplit_once('.')
            .map_or("", |(space, _)| space)
            .to_owned();
        // The place is taken first: a record's fields may refer to it.
        let index = self.add(Node::Null);
        self.names.insert(full, index);
        let node = match kind {
            "enum" => Node::Enum(strings(object.get("symbols"))),
            "fixed" => {
                let size = object.get("size").and_then(Value::as_u64);
                let size = size.and_then(|size| usize::try_from(size).ok());
                let size = size.ok_or_else(|| format!("fixed `{name}` without `size`"))?;
                Node::Fixed(size, meaning(object))
            }
            _ => {
                let fields = object.get("fields").and_then(Value::as_array);
                let fields = fields.ok_or_else(|| format!("record `{name}` without `fields`"))?;
                let fields = fields.iter().map(|field| self.field(field, &space));
                Node::Record(fields.collect::<Result<_, _>>()?)
            }
        };
        if let Some(place) = self.nodes.get_mut(index) {
            *place = node;
        }
        Ok(index)
    }

    fn field(&mut self, json: &Value, space: &str) -> Result<Field, String> {
        let name = json.get("name").and_then(Value::as_str);
        let name = name.ok_or("a field without `name`")?.to_owned();
        let kind = json
            .get("type")
            .ok_or_else(|| format!("field `{name}` without `type`"))?;
        let node = self
            .node(kind, space)
            .map_err(|error| format!("field `{name}`: {error}"))?;
        Ok(Field {
            name,
            aliases: strings(json.get("aliases")),
            node,
            default: json.get("default").cloned(),
        })
    }
}

fn full_name(name: &str, space: &str) -> String {
    if name.contains('.') || space.is_empty() {
        name.to_owned()
    } else {
        format!("{space}.{name}")
    }
}

fn strings(json: Option<&Value>) -> Vec<String> {
    let items = json.and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn primitive(name: &str, meaning: Meaning) -> Option<Node> {
    Some(match name {
        "null" => Node::Null,
        "boolean" => Node::Boolean,
        "int" => Node::Int(meaning),
        "long" => Node::Long(meaning),
        "float" => Node::Float,
        "double" => Node::Double,
        "bytes" => Node::Bytes(meaning),
        "string" => Node::String,
        _ => return None,
    })
}

/// Debezium and Connect name a meaning in `connect.name`, Avro itself in `logicalType`.
fn meaning(object: &Map<String, Value>) -> Meaning {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    match text("connect.name") {
        "io.debezium.time.Date" => return Meaning::Days,
        "io.debezium.time.Timestamp" => return Meaning::Millis,
        "io.debezium.time.MicroTimestamp" => return Meaning::Micros,
        "io.debezium.time.NanoTimestamp" => return Meaning::Nanos,
        "org.apache.kafka.connect.data.Date" => return Meaning::Days,
        "org.apache.kafka.connect.data.Timestamp" => return Meaning::Millis,
        _ => {}
    }
    match text("logicalType") {
        "date" => Meaning::Days,
        "timestamp-millis" | "local-timestamp-millis" => Meaning::Millis,
        "timestamp-micros" | "local-timestamp-micros" => Meaning::Micros,
        "timestamp-nanos" | "local-timestamp-nanos" => Meaning::Nanos,
        "decimal" => Meaning::Decimal {
            scale: object.get("scale").and_then(Value::as_i64).unwrap_or(0),
        },
        _ if text("connect.name") == "org.apache.kafka.connect.data.Decimal" => {
            let parameters = object.get("connect.parameters");
            let scale = parameters
                .and_then(|p| p.get("scale"))
                .and_then(Value::as_str);
            Meaning::Decimal {
                scale: scale.and_then(|scale| scale.parse().ok()).unwrap_or(0),
            }
        }
        _ => Meaning::Plain,
    }
}
