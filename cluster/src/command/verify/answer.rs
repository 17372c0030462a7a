//! SQL queries that ask PostgreSQL for a view's rows, and the values of both sides as text that can
//! be compared.
//!
//! In: the job's views and the tables that fill its topics. Out: one query per view, whose columns
//! are all text, and the same texts of the rows in the sink's table. Nothing here plans, decodes or
//! evaluates: PostgreSQL parses and answers the view's own SQL.
//!
//! ```text
//! WITH "users" AS (SELECT * FROM "public"."users"),
//!      "users_by_country" ("country", "users") AS (… the view's own query …)
//! SELECT "country"::text, "users"::text FROM "users_by_country"
//! ```

use std::fmt::Write as _;

use anyhow::{Context, anyhow, bail};
use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType,
};
use arrow::record_batch::RecordBatch;
use tidemill_ir::View;

/// The values of a row as text; `None` is null.
pub(super) type Texts = Vec<Option<String>>;

/// A quoted identifier.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The query of a `CREATE … VIEW … AS query`: the text after the first `AS` outside of parentheses,
/// quotes and comments. `None` if there is none.
pub(super) fn query_of(statement: &str) -> Option<&str> {
    let (mut depth, mut rest) = (0_usize, statement);
    while let Some(first) = rest.chars().next() {
        let word = rest.len()
            - rest
                .trim_start_matches(|c: char| c.is_alphanumeric() || c == '_')
                .len();
        let token = match first {
            '\'' | '"' => 2 + rest.get(1..)?.find(first)?,
            _ if rest.starts_with("--") => rest.find('\n')?,
            _ if rest.starts_with("/*") => rest.find("*/")? + 2,
            _ if word > 0 => word,
            _ => first.len_utf8(),
        };
        let (token, after) = rest.split_at_checked(token)?;
        match token {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            _ if depth == 0 && token.eq_ignore_ascii_case("as") => return Some(after),
            _ => {}
        }
        rest = after;
    }
    None
}

/// Builds the queries of a job's views.
pub(super) struct Queries {
    /// Common table expressions: first each table of the job, as the captured table that fills it;
    /// then each view.
    tables: Vec<Named>,
}

/// A common table expression.
struct Named {
    /// The name of the table or view.
    name: String,
    /// The name, followed by its columns for a view.
    head: String,
    /// What the expression stands for.
    query: String,
}

impl Named {
    /// Whether a query may read this expression: its name occurs in the text.
    fn is_in(&self, query: &str) -> bool {
        let name = self.name.replace('"', "\"\"").to_lowercase();
        query.to_lowercase().contains(&name)
    }
}

impl Queries {
    /// `tables` contains each table of the job with the quoted name of its captured table.
    ///
    /// # Errors
    ///
    /// A view's statement has no `AS`.
    pub(super) fn new(tables: Vec<(String, String)>, views: &[View]) -> anyhow::Result<Self> {
        let mut named: Vec<Named> = tables
            .into_iter()
            .map(|(name, table)| Named {
                head: quote(&name),
                query: format!("SELECT * FROM {table}"),
                name,
            })
            .collect();
        for view in views {
            let query = query_of(&view.sql)
                .ok_or_else(|| anyhow!("view `{}`: its statement has no AS", view.name))?;
            let columns = view.rel.schema.fields().iter();
            let columns: Vec<String> = columns.map(|field| quote(field.name())).collect();
            named.push(Named {
                name: view.name.clone(),
                head: format!("{} ({})", quote(&view.name), columns.join(", ")),
                // The line break ends a line comment at the end of the query.
                query: format!("{query}\n"),
            });
        }
        Ok(Self { tables: named })
    }

    /// The query of one view: its columns in order, each as text.
    ///
    /// # Errors
    ///
    /// A column has a type that cannot be compared.
    pub(super) fn of(&self, view: &View) -> anyhow::Result<String> {
        let expressions: Vec<String> = self
            .read_by(view)
            .iter()
            .map(|it| format!("{} AS ({})", it.head, it.query))
            .collect();
        let mut sql = format!("WITH {}", expressions.join(",\n"));
        let columns = view.rel.schema.fields().iter();
        let columns: Vec<String> = columns
            .map(|field| as_text(&quote(field.name()), field.data_type()))
            .collect::<anyhow::Result<_>>()
            .with_context(|| format!("view `{}`", view.name))?;
        write!(
            sql,
            "\nSELECT {} FROM {}",
            columns.join(", "),
            quote(&view.name)
        )?;
        Ok(sql)
    }

    /// The expressions that a view reads, and the view itself, in the order of the job. The others
    /// are left out, because a job may have hundreds of views and PostgreSQL parses all that a
    /// query defines.
    fn read_by(&self, view: &View) -> Vec<&Named> {
        let mut read: Vec<&Named> = Vec::new();
        for named in self.tables.iter().rev() {
            if named.name == view.name || read.iter().any(|it| named.is_in(&it.query)) {
                read.push(named);
            }
        }
        read.reverse();
        read
    }
}

/// PostgreSQL's expression for a column as text: numbers as digits, times as µs since 1970, bytes
/// in hexadecimal.
///
/// # Errors
/// The type has no text that both sides write alike.
fn as_text(column: &str, kind: &DataType) -> anyhow::Result<String> {
    let finite = |number: &str| {
        format!("CASE WHEN isfinite({column}) THEN ({number})::text ELSE {column}::text END")
    };
    Ok(match kind {
        DataType::Boolean | DataType::Int32 | DataType::Int64 | DataType::Utf8 => {
            format!("{column}::text")
        }
        DataType::Float32 => format!("{column}::float4::text"),
        DataType::Float64 => format!("{column}::float8::text"),
        DataType::Binary => format!("encode({column}, 'hex')"),
        DataType::Date32 => finite(&format!("{column}::date - DATE '1970-01-01'")),
        DataType::Timestamp(_, _) => {
            finite(&format!("(extract(epoch FROM {column}) * 1000000)::bigint"))
        }
        DataType::Decimal128(_, scale) => format!("round({column}::numeric, {scale})::text"),
        other => bail!("its type {other} cannot be compared with PostgreSQL's answer"),
    })
}

/// The rows of a batch as the texts that [`Queries::of`] asks PostgreSQL for.
///
/// # Errors
/// A column has a type that cannot be compared.
pub(super) fn texts(batch: &RecordBatch) -> anyhow::Result<Vec<Texts>> {
    let mut rows = vec![Texts::with_capacity(batch.num_columns()); batch.num_rows()];
    for column in batch.columns() {
        for (index, row) in rows.iter_mut().enumerate() {
            row.push(text(column.as_ref(), index)?);
        }
    }
    Ok(rows)
}

/// One value as text; `None` is null.
fn text(column: &dyn Array, row: usize) -> anyhow::Result<Option<String>> {
    if column.is_null(row) {
        return Ok(None);
    }
    Ok(Some(match column.data_type() {
        DataType::Boolean => column.as_boolean().value(row).to_string(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float32 => column.as_primitive::<Float32Type>().value(row).to_string(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).to_string(),
        DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
        DataType::Binary => {
            let bytes = column.as_binary::<i32>().value(row).iter();
            bytes.fold(String::new(), |mut hex, byte| {
                // Writing to a string never fails.
                let _written = write!(hex, "{byte:02x}");
                hex
            })
        }
        DataType::Date32 => column.as_primitive::<Date32Type>().value(row).to_string(),
        DataType::Timestamp(TimeUnit::Microsecond, _) => column
            .as_primitive::<TimestampMicrosecondType>()
            .value(row)
            .to_string(),
        DataType::Decimal128(_, _) => column.as_primitive::<Decimal128Type>().value_as_string(row),
        other => bail!("a value of type {other} cannot be compared with PostgreSQL's answer"),
    }))
}

/// How two values of a column are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sameness {
    /// The texts are equal.
    Exact,
    /// Floating-point numbers are equal within [`FLOAT_TOLERANCE`], because a sum depends on the
    /// order of its terms.
    Float,
    /// Times in µs are equal in ms, because the table keeps only ms.
    Milliseconds,
}

/// The relative difference up to which two floating-point numbers count as equal.
const FLOAT_TOLERANCE: f64 = 1e-9;

impl Sameness {
    /// How a column of this type is compared. `keeps_micros`: whether the table keeps µs.
    pub(super) fn of(kind: &DataType, keeps_micros: bool) -> Self {
        match kind {
            DataType::Float32 | DataType::Float64 => Self::Float,
            DataType::Timestamp(_, _) if !keeps_micros => Self::Milliseconds,
            _ => Self::Exact,
        }
    }

    /// Whether the table's value equals PostgreSQL's.
    pub(super) fn holds(self, is: Option<&str>, should: Option<&str>) -> bool {
        let (Some(is), Some(should)) = (is, should) else {
            return is == should;
        };
        match self {
            Self::Exact => is == should,
            Self::Milliseconds => match (is.parse::<i64>(), should.parse::<i64>()) {
                (Ok(is), Ok(should)) => is.div_euclid(1000) == should.div_euclid(1000),
                _ => is == should,
            },
            Self::Float => match (is.parse::<f64>(), should.parse::<f64>()) {
                (Ok(is), Ok(should)) if is.is_finite() && should.is_finite() => {
                    (is - should).abs() <= FLOAT_TOLERANCE * is.abs().max(should.abs())
                }
                (Ok(is), Ok(should)) => is == should || (is.is_nan() && should.is_nan()),
                _ => is == should,
            },
        }
    }

    /// A value as part of a row's key.
    pub(super) fn key(self, value: &str) -> String {
        match (self, value.parse::<i64>()) {
            (Self::Milliseconds, Ok(micros)) => (micros.div_euclid(1000) * 1000).to_string(),
            _ => value.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_follows_the_first_as_outside_of_everything() {
        for (statement, query) in [
            ("CREATE VIEW v AS SELECT 1 AS one", " SELECT 1 AS one"),
            (
                "create materialized view \"as\" with (primary_key = 'a) as') As SELECT a FROM t",
                " SELECT a FROM t",
            ),
            (
                "CREATE VIEW /* as */ v -- as\n (a, b) AS(SELECT 1, 2)",
                "(SELECT 1, 2)",
            ),
        ] {
            assert_eq!(query_of(statement), Some(query), "{statement}");
        }
        for statement in [
            "CREATE VIEW v",
            "CREATE VIEW 'v AS",
            "CREATE VIEW basic(as)",
        ] {
            assert_eq!(query_of(statement), None, "{statement}");
        }
    }

    #[test]
    fn values_are_the_same_as_far_as_both_sides_keep_them() {
        let same = |sameness: Sameness, is, should| sameness.holds(Some(is), Some(should));
        assert!(same(Sameness::Exact, "1.20", "1.20"));
        assert!(!same(Sameness::Exact, "1.2", "1.20"));
        assert!(same(Sameness::Float, "0.30000000000000004", "0.3"));
        assert!(!same(Sameness::Float, "0.3000001", "0.3"));
        assert!(same(Sameness::Float, "NaN", "NaN"));
        assert!(same(Sameness::Float, "inf", "Infinity"));
        assert!(!same(Sameness::Float, "inf", "-Infinity"));
        assert!(same(Sameness::Milliseconds, "-1000", "-1"));
        assert!(!same(Sameness::Milliseconds, "0", "-1"));
        assert!(!Sameness::Exact.holds(None, Some("")));
        assert!(Sameness::Float.holds(None, None));
    }
}
