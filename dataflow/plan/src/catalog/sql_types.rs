//! The Arrow types of SQL types: of declared columns and of casts.
//!
//! | SQL | Arrow |
//! |---|---|
//! | `boolean` | Boolean |
//! | `smallint`, `int` | Int32 |
//! | `bigint` | Int64 |
//! | `real`, `float(1)` to `float(24)` | Float32 |
//! | `double precision`, `float` | Float64 |
//! | `text`, `varchar`, `uuid`, `json`, `jsonb` | Utf8 |
//! | `bytea` | Binary |
//! | `date` | Date32 |
//! | `timestamp`, `timestamptz` | Timestamp(Microsecond, none or UTC) |
//! | `numeric(p,s)` with p up to 38 and s from 0 to p | Decimal128(p, s) |
//!
//! What a type demands beyond its Arrow type (`smallint`, `uuid`, `json`, `varchar(n)`) is its
//! "asked" type, which the column's metadata holds under [`ASKED`].

use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion_sql::sqlparser::ast::DataType as SqlType;
use tidemill_ir::types::{ASKED, JSON, JSONB, instant, texts};

/// The Arrow type of a declared column or a cast; `None` for types without a column form.
///
/// A `numeric` without precision has no column form, because its values have scales of their own.
pub(crate) fn of_sql(sql: &SqlType) -> Option<DataType> {
    let text = sql.to_string().to_lowercase();
    let (base, arguments) = match (text.find('('), text.rfind(')')) {
        (Some(open), Some(close)) => (
            format!("{}{}", text.get(..open)?.trim_end(), text.get(close + 1..)?),
            text.get(open + 1..close)?,
        ),
        _ => (text.clone(), ""),
    };
    Some(match base.trim() {
        "boolean" | "bool" => DataType::Boolean,
        "smallint" | "int2" | "int" | "integer" | "int4" => DataType::Int32,
        "bigint" | "int8" => DataType::Int64,
        "real" | "float4" => DataType::Float32,
        "float" if arguments.trim().parse::<u8>().is_ok_and(|bits| bits <= 24) => DataType::Float32,
        "double precision" | "double" | "float8" | "float" => DataType::Float64,
        "text" | "varchar" | "character varying" | "uuid" | "json" | "jsonb" => DataType::Utf8,
        "bytea" => DataType::Binary,
        "date" => DataType::Date32,
        "timestamp" | "timestamp without time zone" => {
            DataType::Timestamp(TimeUnit::Microsecond, None)
        }
        "timestamptz" | "timestamp with time zone" => instant(),
        "numeric" | "decimal" => {
            let (precision, scale) = arguments.split_once(',').unwrap_or((arguments, "0"));
            let precision = precision.trim().parse().ok()?;
            let scale = scale.trim().parse().ok()?;
            let fits = (1..=38).contains(&precision) && (0..=precision as i8).contains(&scale);
            fits.then_some(DataType::Decimal128(precision, scale))?
        }
        _ => return None,
    })
}

/// What a SQL type demands of its values besides the type that they are stored in.
///
/// The result is `smallint`, `uuid`, `json`, `jsonb` or `varchar N`; `None` for other types.
pub(crate) fn asked_of(sql: &SqlType) -> Option<String> {
    let text = sql.to_string().to_lowercase();
    let base = text.split('(').next().unwrap_or_default().trim_end();
    Some(match base {
        "smallint" | "int2" => "smallint".to_owned(),
        "uuid" => "uuid".to_owned(),
        "json" | "jsonb" => base.to_owned(),
        "varchar" | "character varying" if text.contains('(') => {
            let most = text.split(['(', ')']).nth(1).unwrap_or_default();
            format!("varchar {most}")
        }
        _ => return None,
    })
}

/// The type that a cast names; the error says why there is no such cast.
///
/// # Errors
/// When the type is not supported.
///
/// The field has no name. A cast to `numeric` without precision is allowed here and gets its scale
/// from its operand in the typing pass.
pub(crate) fn of_cast(sql: &SqlType) -> Result<Field, String> {
    let text = sql.to_string().to_lowercase();
    let base = text.split('(').next().unwrap_or_default().trim_end();
    let asked = match (base, text.contains('(')) {
        ("numeric" | "decimal", false) => Some("numeric".to_owned()),
        ("json", _) => return Ok(Field::new("", JSON, true)),
        ("jsonb", _) => return Ok(Field::new("", JSONB, true)),
        ("text[]", _) => return Ok(Field::new("", texts(), true)),
        (
            "timestamp"
            | "timestamptz"
            | "timestamp with time zone"
            | "timestamp without time zone"
            | "float"
            | "time"
            | "interval",
            true,
        ) => {
            return Err(format!("a cast to {text} is not supported in views"));
        }
        _ => asked_of(sql),
    };
    let kind = of_sql(sql).or_else(|| {
        asked.as_deref().and_then(|asked| match asked {
            "numeric" => Some(DataType::Decimal128(38, 0)),
            _ => None,
        })
    });
    let kind = kind.ok_or_else(|| format!("a cast to {text} is not supported in views"))?;
    let metadata = asked.map(|asked| (ASKED.to_owned(), asked));
    Ok(Field::new("", kind, true).with_metadata(metadata.into_iter().collect()))
}
