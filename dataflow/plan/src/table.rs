//! `CREATE TABLE`: a topic as a table.
//!
//! Input: the parsed statement and the registry. Output: a [`Table`] of the catalog. The columns of
//! an Avro table come from the registry (subjects `TOPIC-value` and `TOPIC-key`): all of them, or
//! those that are declared. The columns of a JSON table are the declared ones.
//!
//! | option | values | default |
//! |---|---|---|
//! | `topic` | a topic | the table's name |
//! | `format` | `avro`, `json` | `avro` |
//! | `envelope` | `append`, `upsert`, `debezium` | `debezium` for Avro, `append` for JSON |
//! | `unavailable` | a text, or `hex:` and digits | Debezium's default placeholder alone |
//! | `timestamps` | `seconds`, `millis`, `micros`, `nanos`, `iso` | JSON only |
//! | `decimals` | `string`, `double`, `base64` | JSON only |
//! | `binary` | `base64`, `hex`, `text` | JSON only |
//! | `missing` | `null`, `refuse` | JSON only |

pub(crate) mod options;
pub(crate) mod registered;

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion_sql::sqlparser::ast::{
    ColumnDef, ColumnOption, CreateTable, Expr, Ident, IndexColumn, Spanned, TableConstraint,
};
use datafusion_sql::sqlparser::tokenizer::Location;
use options::Options;
use registered::Registered;
use tidemill_ir::{Binary, Digits, Envelope, Format, Missing, Spelling, TimestampUnit, types};
use tidemill_log::Result;
use tidemill_log::registry::Registry;
use tidemill_log::schema::{SourceType, Unusable};

use super::catalog::{Catalog, Table};
use super::script::{Script, did_you_mean, normal, single};
use crate::catalog::sql_types;

/// The option `format`.
#[derive(Clone, Copy)]
enum Encoding {
    /// Avro with Confluent's wire format.
    Avro,
    /// JSON.
    Json,
}

/// The values of the option `format`.
const FORMATS: [(&str, Encoding); 2] = [("avro", Encoding::Avro), ("json", Encoding::Json)];
/// The values of the option `envelope`.
const ENVELOPES: [(&str, Envelope); 3] = [
    ("append", Envelope::Append),
    ("upsert", Envelope::Upsert),
    ("debezium", Envelope::Debezium),
];

/// The values of the option `timestamps`.
const TIMESTAMPS: [(&str, TimestampUnit); 5] = [
    ("seconds", TimestampUnit::Seconds),
    ("millis", TimestampUnit::Millis),
    ("micros", TimestampUnit::Micros),
    ("nanos", TimestampUnit::Nanos),
    ("iso", TimestampUnit::Iso),
];
/// The values of the option `decimals`.
///
/// `string` and `double` are read alike: the digits as they are in the JSON text.
const DECIMALS: [(&str, Digits); 3] = [
    ("string", Digits::Text),
    ("double", Digits::Text),
    ("base64", Digits::Base64),
];
/// The values of the option `binary`.
const BINARY: [(&str, Binary); 3] = [
    ("base64", Binary::Base64),
    ("hex", Binary::Hex),
    ("text", Binary::Text),
];
/// The values of the option `missing`.
const MISSING: [(&str, Missing); 2] = [("null", Missing::Null), ("refuse", Missing::Refuse)];
/// The options that say how JSON records write values.
const SPELLING: [&str; 4] = ["timestamps", "decimals", "binary", "missing"];

/// The option with Debezium's placeholder for a large value that a change left unchanged.
const UNAVAILABLE: &str = "unavailable";
/// The prefix of a placeholder that is given in hexadecimal digits, as in Debezium's own option.
const HEX: &str = "hex:";

/// What the statement itself declares.
struct Declared {
    /// The columns, with their names as written.
    columns: Vec<(Ident, Field)>,
    /// For each column: what its type demands besides the type that it is stored in.
    asked: Vec<Option<String>>,
    /// The columns of PRIMARY KEY.
    key: Vec<Ident>,
}

/// Plans one `CREATE TABLE`.
///
/// # Errors
/// `Data` with the place when the statement is wrong; `Retry` when the registry is away or does not
/// have the subject yet.
///
/// `catalog` has the tables and views above this statement, whose names and topics are taken.
pub(super) fn create(
    create: &CreateTable,
    catalog: &Catalog,
    registry: Option<&dyn Registry>,
    script: Script<'_>,
    at: Location,
) -> Result<Table> {
    let name = new_name(single(&create.name), catalog, script, at)?;
    refuse_extras(create, script, at)?;
    let known = [&["topic", "format", "envelope", UNAVAILABLE][..], &SPELLING].concat();
    let options = Options::read(&create.table_options, &known, script, at)?;
    let encoding = options.choice("format", &FORMATS, script)?;
    let encoding = encoding.unwrap_or(Encoding::Avro);
    let spelling = spelling(&options, encoding, script)?;
    let envelope = options.choice("envelope", &ENVELOPES, script)?;
    let envelope = envelope.unwrap_or(match encoding {
        Encoding::Avro => Envelope::Debezium,
        Encoding::Json => Envelope::Append,
    });
    let topic = options.get("topic").map_or(name.as_str(), |it| it.0);
    let topic = topic.to_owned();
    read_once(&topic, catalog, script, at)?;
    let declared = declared(create, script)?;

    let (mut unusable, mut asked) = (Vec::new(), Vec::new());
    let (format, schema, source_types, registered_key) = match encoding {
        Encoding::Json if declared.columns.is_empty() => {
            let what = format!(
                "table `{name}` is JSON and declares no columns: write \
                 CREATE TABLE {name} (column type, …) WITH (format = 'json')"
            );
            return Err(script.error(at, what));
        }
        Encoding::Json => {
            let fields = declared.columns.iter().map(|(_, field)| field.clone());
            let schema = Schema::new(fields.collect::<Vec<_>>());
            asked.clone_from(&declared.asked);
            let types = asked.iter().map(|asked| compared_as(asked.as_deref()));
            let format = Format::Json(spelling);
            (format, Arc::new(schema), types.collect(), Vec::new())
        }
        Encoding::Avro => {
            let registered = registered::fetch(&name, &topic, envelope, registry)
                .map_err(|error| script.error_of(error.kind(), at, error.to_string()))?;
            let schema = declared_of(&declared, &registered, script)?;
            let of = |field: &Arc<Field>| {
                let index = registered.schema.index_of(field.name()).ok()?;
                registered.source_types.get(index).copied().flatten()
            };
            let source_types = schema.fields().iter().map(of).collect();
            unusable = registered.unusable;
            let format = Format::Avro {
                schema: registered.avro,
                newest: registered.newest,
                key: registered.key_schema,
            };
            (format, schema, source_types, registered.key)
        }
    };
    let key = match declared.key.is_empty() {
        true => registered_key,
        false => key_columns(&declared.key, &schema, script)?,
    };
    Ok(Table {
        name,
        topic,
        format,
        envelope,
        unavailable: unavailable(&options, envelope, script)?,
        schema,
        asked,
        source_types,
        key,
        unusable,
    })
}

/// The PostgreSQL type as which texts of a declared type compare.
///
/// Texts of other declared types compare as text.
fn compared_as(asked: Option<&str>) -> Option<SourceType> {
    match asked {
        Some(name @ ("uuid" | "json" | "jsonb")) => Some(SourceType::named(name)),
        _ => None,
    }
}

/// How the records write values. Only JSON leaves this open.
///
/// # Errors
/// `Data` with the place, when an option is given for Avro, or has an unknown value.
fn spelling(options: &Options, encoding: Encoding, script: Script<'_>) -> Result<Spelling> {
    let given = SPELLING
        .iter()
        .find_map(|name| Some((name, options.get(name)?.1)));
    if let (Encoding::Avro, Some((name, at))) = (encoding, given) {
        let what = format!("option `{name}` is for format = 'json': Avro's schemas say it");
        return Err(script.error(at, what));
    }
    Ok(Spelling {
        timestamps: options.choice("timestamps", &TIMESTAMPS, script)?,
        decimals: options.choice("decimals", &DECIMALS, script)?,
        binary: options.choice("binary", &BINARY, script)?,
        missing: options.choice("missing", &MISSING, script)?,
    })
}

/// The bytes of Debezium's `unavailable.value.placeholder`.
///
/// `None` if the option is not given.
///
/// # Errors
/// `Data` with the place, when the envelope is `append`, or the bytes are empty or not hexadecimal.
fn unavailable(
    options: &Options,
    envelope: Envelope,
    script: Script<'_>,
) -> Result<Option<Arc<[u8]>>> {
    let Some((text, at)) = options.get(UNAVAILABLE) else {
        return Ok(None);
    };
    let bytes = match text.strip_prefix(HEX) {
        Some(digits) => hex(digits),
        None => Some(text.as_bytes().to_vec()),
    };
    let why = match bytes {
        _ if envelope == Envelope::Append => "is for envelope = 'debezium' or 'upsert'",
        None => "has no bytes in hexadecimal digits behind `hex:`",
        Some(bytes) if bytes.is_empty() => "is empty",
        Some(bytes) => return Ok(Some(bytes.into())),
    };
    let what = format!(
        "option `{UNAVAILABLE}` {why}: it is what Debezium's unavailable.value.placeholder says"
    );
    Err(script.error(at, what))
}

/// Bytes from hexadecimal digits.
///
/// `None` for an odd number of digits, and for any other character.
fn hex(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = digits.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(digit(*high)? << 4 | digit(*low)?).ok(),
        _ => None,
    });
    pairs.collect()
}

/// Refuses a second table over a topic. Offsets are bound to epochs by topic, so of two readers one
/// would be ahead of the epoch.
fn read_once(topic: &str, catalog: &Catalog, script: Script<'_>, at: Location) -> Result<()> {
    let Some(other) = catalog.tables.iter().find(|table| table.topic == topic) else {
        return Ok(());
    };
    let what = format!(
        "topic `{topic}` is read by table `{}` already: use that one, in as many views as needed",
        other.name
    );
    Err(script.error(at, what))
}

/// Checks the name of a new table or view.
///
/// # Errors
/// `Data` with the place, when the name exists already or no sink can hold it.
///
/// The name is folded to lower case unless it is quoted.
pub(super) fn new_name(
    ident: Option<&Ident>,
    catalog: &Catalog,
    script: Script<'_>,
    at: Location,
) -> Result<String> {
    let ident = ident.ok_or_else(|| {
        script.error(
            at,
            "names of tables and views have no schema before them here",
        )
    })?;
    let name = normal(ident);
    let plain = |c: char| c == '_' || c.is_ascii_alphanumeric();
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !name.chars().all(plain) {
        let what = format!("`{name}` is no name that a sink can hold: use a-z, 0-9 and _");
        return Err(script.error(ident.span.start, what));
    }
    if catalog.find(&name).is_some() {
        let what = format!("`{name}` is already created above");
        return Err(script.error(ident.span.start, what));
    }
    Ok(name)
}

/// Refuses clauses of CREATE TABLE that have no meaning here.
fn refuse_extras(create: &CreateTable, script: Script<'_>, at: Location) -> Result<()> {
    let extra = [
        (create.or_replace, "OR REPLACE"),
        (create.if_not_exists, "IF NOT EXISTS"),
        (create.temporary, "TEMPORARY"),
        (create.external, "EXTERNAL"),
        (
            create.query.is_some(),
            "AS SELECT (a view is CREATE VIEW … AS SELECT)",
        ),
        (create.like.is_some(), "LIKE"),
        (create.partition_by.is_some(), "PARTITION BY"),
        (create.inherits.is_some(), "INHERITS"),
    ];
    match extra.iter().find(|(found, _)| *found) {
        Some((_, what)) => Err(script.error(at, format!("CREATE TABLE does not take {what}"))),
        None => Ok(()),
    }
}

/// The declared columns, their types and the primary key.
///
/// # Errors
/// `Data` with the place, when a column is declared twice, a type or constraint is not known, or
/// there are two primary keys.
fn declared(create: &CreateTable, script: Script<'_>) -> Result<Declared> {
    let (mut key, mut asked) = (Vec::new(), Vec::new());
    let mut columns: Vec<(Ident, Field)> = Vec::new();
    for column in &create.columns {
        let field = declared_column(column, &mut key, script)?;
        if columns
            .iter()
            .any(|(_, other)| other.name() == field.name())
        {
            let what = format!("column `{}` is declared twice", field.name());
            return Err(script.error(column.name.span.start, what));
        }
        columns.push((column.name.clone(), field));
        asked.push(sql_types::asked_of(&column.data_type));
    }
    for constraint in &create.constraints {
        let TableConstraint::PrimaryKey(primary) = constraint else {
            let what = format!("constraint `{constraint}` is not known: there is PRIMARY KEY (…)");
            return Err(script.error(constraint.span().start, what));
        };
        if !key.is_empty() {
            let what = "PRIMARY KEY is said twice";
            return Err(script.error(constraint.span().start, what));
        }
        for column in &primary.columns {
            let column = index_column(column).ok_or_else(|| {
                script.error(constraint.span().start, "PRIMARY KEY takes column names")
            })?;
            key.push(column.clone());
        }
    }
    Ok(Declared {
        columns,
        asked,
        key,
    })
}

/// One declared column. A PRIMARY KEY on it is added to `key`.
fn declared_column(column: &ColumnDef, key: &mut Vec<Ident>, script: Script<'_>) -> Result<Field> {
    let at = column.name.span.start;
    let name = normal(&column.name);
    let kind = sql_types::of_sql(&column.data_type).ok_or_else(|| {
        let what = format!(
            "column `{name}`: type `{}` is not known; there are boolean, smallint, int, bigint, \
             real, double precision, text, varchar, numeric(precision, scale), date, timestamp, \
             timestamptz, bytea, uuid, json",
            column.data_type
        );
        script.error(at, what)
    })?;
    let mut nullable = true;
    for option in &column.options {
        match &option.option {
            ColumnOption::Null => {}
            ColumnOption::NotNull => nullable = false,
            ColumnOption::PrimaryKey(_) => {
                nullable = false;
                key.push(column.name.clone());
            }
            other => {
                let what = format!(
                    "column `{name}`: `{other}` is not known; there are NOT NULL and PRIMARY KEY"
                );
                return Err(script.error(at, what));
            }
        }
    }
    Ok(Field::new(name, kind, nullable))
}

/// The column of an index, if it is a plain name.
fn index_column(column: &IndexColumn) -> Option<&Ident> {
    match &column.column.expr {
        Expr::Identifier(ident) => Some(ident),
        _ => None,
    }
}

/// The registry's columns, or only the declared ones, which must exist with the declared type.
///
/// The columns are in the order of the declaration. Nullability is the registry's.
///
/// # Errors
/// `Data` with the place, when a column does not exist or has another type.
fn declared_of(
    declared: &Declared,
    registered: &Registered,
    script: Script<'_>,
) -> Result<SchemaRef> {
    if declared.columns.is_empty() {
        return Ok(Arc::clone(&registered.schema));
    }
    let mut fields = Vec::new();
    for (ident, field) in &declared.columns {
        let at = ident.span.start;
        let (name, subject) = (field.name(), &registered.subject);
        let Some((_, found)) = registered.schema.column_with_name(name) else {
            let unusable = registered.unusable.iter().find(|field| field.name == *name);
            if let Some(field) = unusable {
                return Err(script.error(at, unusable_column(field, &registered.subject)));
            }
            let known = registered.schema.fields().iter().map(|field| field.name());
            let hint = did_you_mean(name, known);
            let what = format!("column `{name}` is not in the schema of `{subject}`{hint}");
            return Err(script.error(at, what));
        };
        if found.data_type() != field.data_type() {
            let said = types::name(field.data_type());
            let is = types::name(found.data_type());
            let what = format!("column `{name}` is {is} in the schema of `{subject}`, not {said}");
            return Err(script.error(at, what));
        }
        fields.push(found.clone());
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// The message about a field that cannot be a column; `place` is the table or the subject.
pub(super) fn unusable_column(field: &Unusable, place: &str) -> String {
    let Unusable { name, kind } = field;
    format!("column `{name}` of `{place}` is {kind}, which a view cannot read")
}

/// The names of the primary key's columns, which must exist.
fn key_columns(key: &[Ident], schema: &SchemaRef, script: Script<'_>) -> Result<Vec<String>> {
    key.iter()
        .map(|ident| {
            let name = normal(ident);
            let at = ident.span.start;
            match schema.column_with_name(&name) {
                Some(_) => Ok(name),
                None => {
                    let known = schema.fields().iter().map(|field| field.name());
                    let hint = did_you_mean(&name, known);
                    let what = format!("PRIMARY KEY names `{name}`, which is no column{hint}");
                    Err(script.error(at, what))
                }
            }
        })
        .collect()
}
