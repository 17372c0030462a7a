//! Column types from PostgreSQL types.
//!
//! In: type OIDs and modifiers. Out: [`ColumnType`]s. A domain counts as its base type, through any
//! number of domains. A type without a column type of its own is published as PostgreSQL's text and
//! keeps its name ([`SourceType`]), so that no reader compares such texts as if they were values.

use postgres::{Client, Row};
use tidemill_log::schema::{ColumnType, SourceType};

use crate::Result;
use crate::capture::postgres::sql_error;

/// Resolves domains to their base types. A domain over a domain has no modifier of its own.
const INNERMOST: &str = "
    WITH RECURSIVE unwrapped (place, oid, modifier, kind, inner_oid, inner_modifier) AS (
        SELECT w.place, t.oid, w.modifier, t.typtype, t.typbasetype, t.typtypmod
        FROM unnest($1::oid[], $2::int4[]) WITH ORDINALITY AS w (oid, modifier, place)
        JOIN pg_type t ON t.oid = w.oid
        UNION ALL
        SELECT u.place, t.oid, u.inner_modifier, t.typtype, t.typbasetype, t.typtypmod
        FROM unwrapped u JOIN pg_type t ON t.oid = u.inner_oid WHERE u.kind = 'd')
    SELECT u.place, u.oid, u.modifier, t.typtype::text, t.typcategory::text, t.typname::text,
           n.nspname = 'pg_catalog'
    FROM unwrapped u JOIN pg_type t ON t.oid = u.oid JOIN pg_namespace n ON n.oid = t.typnamespace
    WHERE u.kind <> 'd'";

/// The column types of PostgreSQL types, each given as OID and modifier. A type that was dropped
/// meanwhile gives an unknown source type.
///
/// # Errors
/// `Retry` when the server cannot be reached.
pub(crate) fn resolve(
    client: &mut Client,
    wanted: &[(u32, i32)],
    table: &str,
) -> Result<Vec<ColumnType>> {
    let (oids, modifiers): (Vec<u32>, Vec<i32>) = wanted.iter().copied().unzip();
    let rows = client
        .query(INNERMOST, &[&oids, &modifiers])
        .map_err(|error| sql_error(format!("reading the types of table `{table}`"), error))?;
    let mut kinds = vec![ColumnType::Source(SourceType::named("")); wanted.len()];
    for row in &rows {
        let place: i64 = row.get(0);
        let index = usize::try_from(place - 1).unwrap_or(usize::MAX);
        if let Some(kind) = kinds.get_mut(index) {
            *kind = kind_of(row);
        }
    }
    Ok(kinds)
}

/// The column type under a collation. Text under a nondeterministic collation is a source type,
/// because different texts may be equal there.
pub(crate) fn collated(kind: ColumnType, deterministic: bool) -> ColumnType {
    match (kind, deterministic) {
        (ColumnType::Text | ColumnType::Source(_), false) => {
            ColumnType::Source(SourceType::named("text of its own collation"))
        }
        (kind, _) => kind,
    }
}

/// The column type of a row of [`INNERMOST`].
fn kind_of(row: &Row) -> ColumnType {
    let (oid, modifier): (u32, i32) = (row.get(1), row.get(2));
    let (kind, category): (&str, &str) = (row.get(3), row.get(4));
    let (name, built_in): (&str, bool) = (row.get(5), row.get(6));
    if let Some(own) = own(oid, modifier) {
        return own;
    }
    let name = match (kind, category, name) {
        ("e", ..) => "enum",
        ("c", ..) => "composite",
        ("r" | "m", ..) if !built_in => "range",
        ("b", "A", _) => "array",
        ("b", _, "citext" | "hstore") => name,
        _ if !built_in => "",
        (_, _, "char") => "\"char\"",
        (_, _, "bpchar") if modifier >= 4 => "char(n)",
        (_, _, "jsonb") => "json",
        (_, _, name) => name,
    };
    ColumnType::Source(SourceType::named(name))
}

/// The column type of a built-in type that has one, by its OID (`pg_type.dat`).
fn own(oid: u32, modifier: i32) -> Option<ColumnType> {
    Some(match oid {
        16 => ColumnType::Bool,
        21 | 23 => ColumnType::Int,
        20 | 26 => ColumnType::Long,
        700 => ColumnType::Float,
        701 => ColumnType::Double,
        1700 => return decimal(modifier),
        2950 => ColumnType::Uuid,
        114 | 3802 => ColumnType::Json,
        17 => ColumnType::Bytes,
        25 | 1043 => ColumnType::Text,
        1082 => ColumnType::Date,
        1114 => ColumnType::Timestamp,
        1184 => ColumnType::Timestamptz,
        _ => return None,
    })
}

/// The column type of `numeric(p, s)`. Without precision, or with more than 38 digits, only the
/// text is exact.
fn decimal(modifier: i32) -> Option<ColumnType> {
    let packed = modifier.checked_sub(4).filter(|packed| *packed >= 0)?;
    let (precision, scale) = (packed >> 16, packed & 0x7ff);
    if precision > 38 || scale > precision {
        return None;
    }
    Some(ColumnType::Decimal {
        precision: u8::try_from(precision).ok()?,
        scale: i8::try_from(scale).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_numeric_is_a_decimal_only_where_it_is_exact() {
        let modifier = |precision: i32, scale: i32| (precision << 16 | (scale & 0x7ff)) + 4;
        let is = |precision, scale| Some(ColumnType::Decimal { precision, scale });
        assert_eq!(decimal(modifier(10, 2)), is(10, 2));
        assert_eq!(decimal(modifier(38, 38)), is(38, 38));
        for text in [-1, modifier(39, 2), modifier(3, 5), modifier(5, -2)] {
            assert_eq!(decimal(text), None, "{text}");
        }
    }
}
