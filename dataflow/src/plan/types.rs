//! Type mapping between SQL types, source column types, Arrow types and view columns.

use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion_sql::sqlparser::ast::DataType as SqlType;
use tidemill_log::schema::ColumnType;

/// The type of `timestamptz`: an instant in µs.
fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The Arrow type of a column that capture or a registry describes.
pub(super) fn of_column(kind: ColumnType) -> DataType {
    match kind {
        ColumnType::Bool => DataType::Boolean,
        ColumnType::Int => DataType::Int32,
        ColumnType::Long => DataType::Int64,
        ColumnType::Float => DataType::Float32,
        ColumnType::Double => DataType::Float64,
        ColumnType::Text | ColumnType::Source(_) | ColumnType::Uuid | ColumnType::Json => {
            DataType::Utf8
        }
        ColumnType::Bytes => DataType::Binary,
        ColumnType::Date => DataType::Date32,
        ColumnType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        ColumnType::Timestamptz => instant(),
        ColumnType::Decimal { precision, scale } => DataType::Decimal128(precision, scale),
    }
}

/// The Arrow type of a declared column or a cast; `None` for types without a column form.
pub(super) fn of_sql(sql: &SqlType) -> Option<DataType> {
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

/// The key of a field's metadata with what a cast or a JSON table's column demands besides the type
/// that the value is stored in: `smallint`, `uuid`, `json`, `numeric` without a scale, `varchar 5`.
pub(crate) const ASKED: &str = "asked";

/// What a SQL type demands of its values besides the type that they are stored in.
pub(super) fn asked_of(sql: &SqlType) -> Option<String> {
    let text = sql.to_string().to_lowercase();
    let base = text.split('(').next().unwrap_or_default().trim_end();
    Some(match base {
        "smallint" | "int2" => "smallint".to_owned(),
        "uuid" => "uuid".to_owned(),
        "json" | "jsonb" => "json".to_owned(),
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
pub(super) fn of_cast(sql: &SqlType) -> Result<Field, String> {
    let text = sql.to_string().to_lowercase();
    let base = text.split('(').next().unwrap_or_default().trim_end();
    let asked = match (base, text.contains('(')) {
        ("numeric" | "decimal", false) => Some("numeric".to_owned()),
        ("json" | "jsonb", _) => {
            return Err(format!(
                "a cast to {text} is not supported in views: its text would not be normalised as \
                 PostgreSQL does"
            ));
        }
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

/// The type in which a view's column of a computed type is stored; `None` if a view cannot hold it.
pub(super) fn of_view(computed: &DataType) -> Option<DataType> {
    Some(match computed {
        DataType::Boolean
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Utf8
        | DataType::Binary
        | DataType::Date32
        | DataType::Decimal128(..) => computed.clone(),
        DataType::Int8 | DataType::Int16 | DataType::UInt8 | DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        DataType::Utf8View | DataType::LargeUtf8 | DataType::Null => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary | DataType::FixedSizeBinary(_) => {
            DataType::Binary
        }
        DataType::Date64 => DataType::Date32,
        DataType::Timestamp(_, None) => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(_, Some(_)) => instant(),
        DataType::Dictionary(_, values) => of_view(values)?,
        _ => return None,
    })
}

/// Whether a union of columns of these types has a type of the same kind.
pub(super) fn alike(one: &DataType, other: &DataType) -> bool {
    let kinds: [fn(&DataType) -> bool; 3] = [
        DataType::is_numeric,
        DataType::is_string,
        DataType::is_temporal,
    ];
    let common = kinds.iter().any(|kind| kind(one) && kind(other));
    common || of_view(one) == of_view(other)
}

/// The SQL name of a type, for messages.
pub(super) fn name(kind: &DataType) -> String {
    match kind {
        DataType::Boolean => "boolean".into(),
        DataType::Int32 => "int".into(),
        DataType::Int64 => "bigint".into(),
        DataType::Float32 => "real".into(),
        DataType::Float64 => "double".into(),
        DataType::Utf8 => "text".into(),
        DataType::Binary => "bytea".into(),
        DataType::Date32 => "date".into(),
        DataType::Timestamp(TimeUnit::Microsecond, None) => "timestamp".into(),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => "timestamptz".into(),
        DataType::Decimal128(precision, scale) => format!("numeric({precision},{scale})"),
        DataType::Interval(_) => "interval".into(),
        other => other.to_string().to_lowercase(),
    }
}
