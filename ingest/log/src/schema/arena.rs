//! Parsed Avro schemas for readers: an arena of types in which names are resolved to indexes.
//!
//! In: a schema's JSON text. Out: [`Schema`], whose nodes refer to each other by index, so that
//! recursive schemas need no reference cycles. The planner takes the columns of a table from it and
//! the decoder compiles it, so both give a field the same name and the same meaning.
//!
//! The JSON form is that of the Avro specification 1.11, section "Schema Declaration". Debezium and
//! Kafka Connect annotate types with `connect.name` and `connect.parameters`.
//!
//! Invariants:
//! 1. Every index in a [`Node`] is within the arena.
//! 2. A logical type on a base type that it cannot annotate is ignored, as the Avro specification
//!    says.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::SourceType;
use super::avro::{COLUMN, JSON, MICRO_TIMESTAMP, SOURCE_SCHEMA, SOURCE_TABLE, SOURCE_TYPE};

/// A parsed schema.
///
/// ```
/// use tidemill_log::schema::arena::{Meaning, Node, Schema};
///
/// let text = r#"{"type": "record", "name": "User", "fields": [
///     {"name": "id", "type": "long"},
///     {"name": "born", "type": ["null", {"type": "int", "logicalType": "date"}]}]}"#;
/// let schema = Schema::parse(text).expect("an Avro schema");
/// let user = schema.record(schema.root).expect("a record");
/// assert!(matches!(schema.node(user.fields[0].node), Node::Long(Meaning::Plain)));
/// assert_eq!(schema.describe(user.fields[1].node), "a union of null, date");
/// ```
#[derive(Debug, Default)]
pub struct Schema {
    /// All types of the schema.
    nodes: Vec<Node>,
    /// Index of the outermost type.
    pub root: usize,
}

/// The unit of a time or timestamp.
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
    /// The number in microseconds. Nanoseconds are rounded to the nearest microsecond, half to
    /// even. `None` when the result does not fit 64 bits.
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

/// The meaning of a number, bytes or text, by the annotations of its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// No annotation: only what the base type says.
    Plain,
    /// Days since 1970-01-01.
    Days,
    /// A point in time, as a number since 1970-01-01.
    Timestamp {
        /// The unit of the number.
        unit: Unit,
        /// True for an instant; false for a date and time without a time zone.
        zoned: bool,
    },
    /// Time of day, as a number since midnight.
    Time(Unit),
    /// A timestamp with its offset, as text in ISO 8601.
    ZonedTimestamp,
    /// The unscaled value of a decimal: two's complement, big-endian.
    Decimal {
        /// Number of significant digits, where the schema says it.
        precision: Option<u32>,
        /// Number of digits after the decimal point.
        scale: i64,
    },
    /// A UUID, as text or as 16 bytes.
    Uuid,
    /// A JSON document as text.
    Json,
    /// The text of a type of the source database.
    Source(SourceType),
    /// A bit string of this length in bits; the first byte holds the lowest bits (Debezium's
    /// `Bits`).
    Bits(u32),
    /// Avro's `duration`: months, days and milliseconds, 32 bits each, little-endian.
    Duration,
}

/// A field of a record.
#[derive(Debug)]
pub struct Field {
    /// The name in the Avro schema.
    pub name: String,
    /// The name of the column, where Avro does not allow it as a field name.
    column: Option<String>,
    /// Earlier names of the field, as the Avro schema lists them.
    pub aliases: Vec<String>,
    /// Index of the field's type.
    pub node: usize,
    /// The value for records of writers that do not have the field.
    pub default: Option<Value>,
}

impl Field {
    /// The name of the field's column. It differs from the field's name where Avro does not allow
    /// the column's name.
    #[must_use]
    pub fn column(&self) -> &str {
        self.column.as_deref().unwrap_or(&self.name)
    }
}

/// A record type.
#[derive(Debug)]
pub struct Record {
    /// The name with its namespace.
    pub name: String,
    /// The fields in their order.
    pub fields: Vec<Field>,
    /// Database schema and name of the table whose rows these are, if Tidemill wrote the schema.
    pub table: Option<(String, String)>,
}

impl Record {
    /// Resolves a column to a field of this writer's record, as in Avro's schema resolution: the
    /// field of the column's name, or else a field whose name is an alias of the reader's field.
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

/// A type of the schema. The indexes point into the same schema.
#[derive(Debug)]
pub enum Node {
    /// No value.
    Null,
    /// True or false; one byte.
    Boolean,
    /// 32-bit integer.
    Int(Meaning),
    /// 64-bit integer.
    Long(Meaning),
    /// 32-bit floating-point number.
    Float,
    /// 64-bit floating-point number.
    Double,
    /// Bytes of any length.
    Bytes(Meaning),
    /// Text in UTF-8.
    String(Meaning),
    /// Exactly so many bytes.
    Fixed(usize, Meaning),
    /// One of these symbols.
    Enum(Vec<String>),
    /// A list of items of one type.
    Array(usize),
    /// Values of one type, by keys that are text.
    Map(usize),
    /// A value of one of these types.
    Union(Vec<usize>),
    /// Named fields.
    Record(Record),
}

impl Schema {
    /// Parses the JSON text of a schema.
    ///
    /// # Errors
    /// A description of the first problem: the text is not JSON, a type is not defined, an
    /// attribute is missing.
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

    /// The type at an index of this schema.
    #[must_use]
    pub fn node(&self, index: usize) -> &Node {
        // Invariant 1 makes the fallback unreachable.
        self.nodes.get(index).unwrap_or(&Node::Null)
    }

    /// The record at an index, also when it is a branch of a union.
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

    /// The record `after` of a Debezium envelope: the row.
    #[must_use]
    pub fn after(&self) -> Option<&Record> {
        let envelope = self.record(self.root)?;
        let after = envelope.fields.iter().find(|field| field.name == "after")?;
        self.record(after.node)
    }

    /// A description of a type for messages: its Avro name, logical type and record name.
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

/// The description of a base type with its meaning.
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

/// The state of a parse: the types so far, and the indexes of the named ones.
#[derive(Default)]
struct Parser {
    nodes: Vec<Node>,
    names: HashMap<String, usize>,
}

impl Parser {
    /// Appends a type and returns its index.
    fn add(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Parses a type. `space` is the enclosing namespace.
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

    /// Parses a type that is a JSON object.
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

    /// Parses a record, enum or fixed type, and makes its name known.
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
        // The index is reserved first: the fields of a record may refer to the record.
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

    /// Parses a field of a record.
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

/// A name with its namespace, unless it has one already.
fn full_name(name: &str, space: &str) -> String {
    if name.contains('.') || space.is_empty() {
        name.to_owned()
    } else {
        format!("{space}.{name}")
    }
}

/// The texts in a JSON array.
fn strings(json: Option<&Value>) -> Vec<String> {
    let items = json.and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The primitive type of a name.
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

/// An attribute that is text.
fn text<'a>(object: &'a Map<String, Value>, attribute: &str) -> Option<&'a str> {
    object.get(attribute).and_then(Value::as_str)
}

fn timestamp(unit: Unit, zoned: bool) -> Meaning {
    Meaning::Timestamp { unit, zoned }
}

/// The meaning of a type with this base. `connect.name` (Debezium, Kafka Connect) is more precise
/// than Avro's `logicalType` and is looked at first.
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

/// The meaning of a Kafka Connect schema name on an Avro base type; `None` for a name that says no
/// more than the base does. `parameter` looks up the parameters of the schema, as `scale`.
///
/// Names are those of `org.apache.kafka.connect.data` and of Debezium's `io.debezium.time` and
/// `io.debezium.data`.
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

/// The source type whose text Debezium writes under this schema name. The empty name stands for
/// types that only the source database can compare.
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
