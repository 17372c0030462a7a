//! Avro schemas as readers need them: an arena of types, names resolved to indexes.
//!
//! In: a schema's JSON text. Out: [`Schema`], whose nodes refer to each other by index, so that
//! recursive schemas need no recursion to hold. The planner takes a table's columns from it and
//! the decoder compiles it, so both know a field by the same name and the same meaning.
//!
//! 1. Every index in a [`Node`] is within the arena.
//! 2. A logical type on a base type that it does not annotate is ignored, as Avro says.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::SourceType;
use super::avro::{COLUMN, JSON, MICRO_TIMESTAMP, SOURCE_SCHEMA, SOURCE_TABLE, SOURCE_TYPE};

/// A parsed schema.
#[derive(Debug, Default)]
pub struct Schema {
    nodes: Vec<Node>,
    /// The index of the outermost type.
    pub root: usize,
}

/// What a number of time counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
    /// Nanoseconds.
    Nanos,
}

impl Unit {
    /// The number in microseconds; nanoseconds are rounded to the nearest, half to even. None when
    /// 64 bits do not hold it.
    #[must_use]
    pub fn in_micros(self, value: i64) -> Option<i64> {
        match self {
            Self::Millis => value.checked_mul(1000),
            Self::Micros => Some(value),
            Self::Nanos => {
                let (whole, rest) = (value.div_euclid(1000), value.rem_euclid(1000));
                let up = rest > 500 || (rest == 500 && whole % 2 != 0);
                Some(whole + i64::from(up))
            }
        }
    }
}

/// What the annotations on a type say that its number, bytes or text mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Nothing more than its type.
    Plain,
    /// Days since 1970-01-01.
    Days,
    /// Time since 1970-01-01.
    Timestamp {
        /// Of the number.
        unit: Unit,
        /// Whether it is an instant; a date and time of no zone otherwise.
        zoned: bool,
    },
    /// Time since midnight.
    Time(Unit),
    /// A timestamp with its offset, as ISO 8601 text.
    ZonedTimestamp,
    /// An unscaled value in two's complement, big-endian.
    Decimal {
        /// Digits in all, where that is said.
        precision: Option<u32>,
        /// Digits behind the point.
        scale: i64,
    },
    /// A UUID, as text or as 16 bytes.
    Uuid,
    /// A JSON document as text.
    Json,
    /// The text that the source writes of a type of its own.
    Source(SourceType),
    /// So many bits, the first byte holding the lowest.
    Bits(u32),
    /// Avro's months, days and milliseconds.
    Duration,
}

/// A record's field.
#[derive(Debug)]
pub struct Field {
    /// Its name as Avro has it.
    pub name: String,
    column: Option<String>,
    /// Other names that it had, as Avro has them.
    pub aliases: Vec<String>,
    /// Its type.
    pub node: usize,
    /// What stands in for it where a writer does not have it.
    pub default: Option<Value>,
}

impl Field {
    /// The column that it is: the name that its table has for it, which Avro may not allow.
    #[must_use]
    pub fn column(&self) -> &str {
        self.column.as_deref().unwrap_or(&self.name)
    }
}

/// A record type.
#[derive(Debug)]
pub struct Record {
    /// Its name with its namespace.
    pub name: String,
    /// Its fields in order.
    pub fields: Vec<Field>,
    /// The schema and the name of the table whose row it is, where the own ingest wrote it.
    pub table: Option<(String, String)>,
}

impl Record {
    /// The field of this writer's record that a column is read from: the one of the column's name,
    /// else the one that had a name which the reader's field lists as an alias.
    #[must_use]
    pub fn field_of(&self, column: &str, reader: Option<&Field>) -> Option<usize> {
        let named = self.fields.iter().position(|it| it.column() == column);
        named.or_else(|| {
            let aliases = &reader?.aliases;
            let was = |field: &Field| aliases.contains(&field.name);
            self.fields.iter().position(was)
        })
    }
}

/// A type.
#[derive(Debug)]
pub enum Node {
    /// No value.
    Null,
    /// True or false.
    Boolean,
    /// 32 bits.
    Int(Meaning),
    /// 64 bits.
    Long(Meaning),
    /// A number of 32 bits.
    Float,
    /// A number of 64 bits.
    Double,
    /// Bytes of any length.
    Bytes(Meaning),
    /// Text.
    String(Meaning),
    /// So many bytes.
    Fixed(usize, Meaning),
    /// One of these symbols.
    Enum(Vec<String>),
    /// Items of one type.
    Array(usize),
    /// Values of one type by text.
    Map(usize),
    /// One of several types.
    Union(Vec<usize>),
    /// Named fields.
    Record(Record),
}

impl Schema {
    /// Parses a schema; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
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
    #[must_use]
    pub fn node(&self, index: usize) -> &Node {
        // Invariant 1 makes the fallback unreachable.
        self.nodes.get(index).unwrap_or(&Node::Null)
    }

    /// A record, also the one in a union with null.
    #[must_use]
    pub fn record(&self, index: usize) -> Option<&Record> {
        match self.node(index) {
            Node::Record(record) => Some(record),
            Node::Union(branches) => branches.iter().find_map(|b| match self.node(*b) {
                Node::Record(record) => Some(record),
                _ => None,
            }),
            _ => None,
        }
    }

    /// The row of a Debezium envelope: the record `after`.
    #[must_use]
    pub fn after(&self) -> Option<&Record> {
        let envelope = self.record(self.root)?;
        let after = envelope.fields.iter().find(|field| field.name == "after")?;
        self.record(after.node)
    }

    /// A type for people: what it is, with its name where it has one.
    #[must_use]
    pub fn describe(&self, index: usize) -> String {
        match self.node(index) {
            Node::Null => "null".to_owned(),
            Node::Boolean => "boolean".to_owned(),
            Node::Int(meaning) => described("int", *meaning),
            Node::Long(meaning) => described("long", *meaning),
            Node::Float => "float".to_owned(),
            Node::Double => "double".to_owned(),
            Node::Bytes(meaning) => described("bytes", *meaning),
            Node::String(meaning) => described("string", *meaning),
            Node::Fixed(size, meaning) => described(&format!("fixed({size})"), *meaning),
            Node::Enum(_) => "enum".to_owned(),
            Node::Array(_) => "an array".to_owned(),
            Node::Map(_) => "a map".to_owned(),
            Node::Record(record) => format!("a record ({})", record.name),
            Node::Union(branches) => {
                let types = branches.iter().map(|branch| self.describe(*branch));
                format!("a union of {}", types.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

fn described(base: &str, meaning: Meaning) -> String {
    match meaning {
        Meaning::Plain => base.to_owned(),
        Meaning::Days => "date".to_owned(),
        Meaning::Timestamp { .. } | Meaning::ZonedTimestamp => "timestamp".to_owned(),
        Meaning::Time(_) => "time of day".to_owned(),
        Meaning::Decimal { precision, scale } => match precision {
            Some(precision) => format!("decimal({precision},{scale})"),
            None => format!("decimal of scale {scale}"),
        },
        Meaning::Uuid => "uuid".to_owned(),
        Meaning::Json => "JSON".to_owned(),
        Meaning::Source(kind) => kind.name().to_owned(),
        Meaning::Bits(count) => format!("bit({count})"),
        Meaning::Duration => "duration (months, days and milliseconds)".to_owned(),
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
            _ => match primitive(kind, meaning(kind, object)) {
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
        self.names.insert(full.clone(), index);
        let node = match kind {
            "enum" => Node::Enum(strings(object.get("symbols"))),
            "fixed" => {
                let size = object.get("size").and_then(Value::as_u64);
                let size = size.and_then(|size| usize::try_from(size).ok());
                let size = size.ok_or_else(|| format!("fixed `{name}` without `size`"))?;
                let meaning = match meaning("fixed", object) {
                    Meaning::Uuid if size != 16 => Meaning::Plain,
                    Meaning::Duration if size != 12 => Meaning::Plain,
                    meaning => meaning,
                };
                Node::Fixed(size, meaning)
            }
            _ => {
                let fields = object.get("fields").and_then(Value::as_array);
                let fields = fields.ok_or_else(|| format!("record `{name}` without `fields`"))?;
                let fields = fields.iter().map(|field| self.field(field, &space));
                let table = text(object, SOURCE_TABLE);
                let schema = text(object, SOURCE_SCHEMA).unwrap_or_default();
                Node::Record(Record {
                    name: full,
                    fields: fields.collect::<Result<_, _>>()?,
                    table: table.map(|table| (schema.to_owned(), table.to_owned())),
                })
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
            column: json.get(COLUMN).and_then(Value::as_str).map(str::to_owned),
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
        "string" => Node::String(meaning),
        _ => return None,
    })
}

fn text<'a>(object: &'a Map<String, Value>, attribute: &str) -> Option<&'a str> {
    object.get(attribute).and_then(Value::as_str)
}

fn timestamp(unit: Unit, zoned: bool) -> Meaning {
    Meaning::Timestamp { unit, zoned }
}

/// What a type of this base means. Debezium and Connect say it in `connect.name`, which is the
/// closer one, Avro itself in `logicalType`.
fn meaning(base: &str, object: &Map<String, Value>) -> Meaning {
    let connect = text(object, "connect.name").unwrap_or_default();
    let parameter = |name: &str| {
        let parameters = object.get("connect.parameters")?;
        parameters.get(name)?.as_str()
    };
    if let Some(meaning) = connect_meaning(base, connect, parameter) {
        return meaning;
    }
    let logical = text(object, "logicalType").unwrap_or_default();
    match (base, logical) {
        ("int", "date") => Meaning::Days,
        ("int", "time-millis") => Meaning::Time(Unit::Millis),
        ("long", "time-micros") => Meaning::Time(Unit::Micros),
        ("long", "timestamp-millis") => timestamp(Unit::Millis, true),
        ("long", "timestamp-micros") => timestamp(Unit::Micros, true),
        ("long", "timestamp-nanos") => timestamp(Unit::Nanos, true),
        ("long", "local-timestamp-millis") => timestamp(Unit::Millis, false),
        ("long", "local-timestamp-micros") => timestamp(Unit::Micros, false),
        ("long", "local-timestamp-nanos") => timestamp(Unit::Nanos, false),
        ("string" | "fixed", "uuid") => Meaning::Uuid,
        ("string", _) => match text(object, SOURCE_TYPE) {
            Some(name) => Meaning::Source(SourceType::named(name)),
            None => Meaning::Plain,
        },
        ("fixed", "duration") => Meaning::Duration,
        ("bytes" | "fixed", "decimal") => {
            let precision = object.get("precision").and_then(Value::as_u64);
            let precision = precision.and_then(|digits| u32::try_from(digits).ok());
            let scale = object.get("scale").map_or(Some(0), Value::as_i64);
            match (precision, scale) {
                (Some(_), Some(scale)) if scale >= 0 => Meaning::Decimal { precision, scale },
                _ => Meaning::Plain,
            }
        }
        _ => Meaning::Plain,
    }
}

/// What the name of a Kafka Connect schema on a type of this Avro base means; none for names that
/// say no more than the base does. `parameter` gives the schema's parameters.
#[must_use]
pub fn connect_meaning<'a>(
    base: &str,
    name: &str,
    parameter: impl Fn(&str) -> Option<&'a str>,
) -> Option<Meaning> {
    let number = |name: &str| parameter(name).and_then(|text| text.parse().ok());
    let connect = name.strip_prefix("org.apache.kafka.connect.data.");
    let time = name.strip_prefix("io.debezium.time.");
    Some(match (base, connect, time, name) {
        ("int", Some("Date"), ..) | ("int", _, Some("Date"), _) => Meaning::Days,
        ("long", Some("Timestamp"), ..) => timestamp(Unit::Millis, true),
        ("int", Some("Time"), ..) | ("int", _, Some("Time"), _) => Meaning::Time(Unit::Millis),
        ("bytes", Some("Decimal"), ..) => Meaning::Decimal {
            precision: number("connect.decimal.precision"),
            scale: parameter("scale")?.parse().ok()?,
        },
        ("long", _, Some("Timestamp"), _) => timestamp(Unit::Millis, false),
        ("long", _, _, MICRO_TIMESTAMP) => timestamp(Unit::Micros, false),
        ("long", _, Some("NanoTimestamp"), _) => timestamp(Unit::Nanos, false),
        ("long", _, Some("MicroTime"), _) => Meaning::Time(Unit::Micros),
        ("long", _, Some("NanoTime"), _) => Meaning::Time(Unit::Nanos),
        ("string", _, Some("ZonedTimestamp"), _) => Meaning::ZonedTimestamp,
        ("string", _, _, "io.debezium.data.Uuid") => Meaning::Uuid,
        ("string", _, _, JSON) => Meaning::Json,
        ("string", ..) => Meaning::Source(SourceType::named(debezium_text(name)?)),
        ("bytes", _, _, "io.debezium.data.Bits") => Meaning::Bits(number("length")?),
        _ => return None,
    })
}

/// The source's type whose text Debezium writes under this name. A type without an entry of its
/// own is one that only the source can compare.
fn debezium_text(name: &str) -> Option<&'static str> {
    Some(match name {
        "io.debezium.data.Enum" | "io.debezium.data.EnumSet" => "enum",
        "io.debezium.data.Xml" => "xml",
        "io.debezium.data.TsVector" => "tsvector",
        "io.debezium.time.Interval" => "interval",
        "io.debezium.time.ZonedTime" => "timetz",
        "io.debezium.data.Ltree" | "io.debezium.time.IsoTime" | "io.debezium.time.IsoTimestamp" => {
            ""
        }
        _ => return None,
    })
}
