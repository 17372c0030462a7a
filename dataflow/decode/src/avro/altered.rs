//! Type changes of Avro columns: whether a newer schema gives a column a type the job is not
//! planned for.
//!
//! Input: the schema that a source was planned with, and the schema of a newer writer. Output: the
//! first column whose values would be read under the rules of its old type.
//!
//! The views were checked for the types of a captured table, so each change of its types counts.
//! The schema of another writer may change as Avro's schema resolution allows; a value that a
//! column does not take refuses its record.

use arrow::datatypes::SchemaRef;
use tidemill_ir::Envelope;
use tidemill_log::schema::arena::Schema;
use tidemill_log::schema::{ColumnType, Fields, columns_of_envelope, columns_of_record};

/// A column with another type than it was planned with.
pub(super) struct Altered {
    /// The column's name.
    pub(super) column: String,
    /// The planned type.
    pub(super) was: ColumnType,
    /// The new type; `None` when no column can have it.
    pub(super) is: Option<ColumnType>,
}

/// The types that a source's columns were planned with.
pub(super) struct Types {
    /// The fields of the planned schema.
    planned: Fields,
    /// The envelope, which says where the row is in the schema.
    envelope: Envelope,
}

impl Types {
    /// The types of a schema; none for a schema that is not one of rows, which planning refuses.
    pub(super) fn of(schema: &str, envelope: Envelope) -> Self {
        Self {
            planned: fields(schema, envelope),
            envelope,
        }
    }

    /// The first of the columns `used` to which the newer schema gives another type.
    pub(super) fn altered(&self, newer: &str, used: &SchemaRef) -> Option<Altered> {
        let own = Schema::parse(newer).is_ok_and(|schema| {
            let row = schema.after();
            row.is_some_and(|row| row.table.is_some())
        });
        let newer = fields(newer, self.envelope);
        let of = |fields: &Fields, name: &str| {
            let mut columns = fields.columns.iter();
            columns.find(|it| it.name == name).map(|it| it.kind)
        };
        used.fields().iter().find_map(|column| {
            let name = column.name();
            let was = of(&self.planned, name)?;
            let is = of(&newer, name);
            let unusable = newer.unusable.iter().any(|it| it.name == *name);
            let same = match is {
                Some(is) => is == was || (!own && is_taken(was, is)),
                // A column that is gone is found elsewhere.
                None => !unusable,
            };
            (!same).then(|| Altered {
                column: name.clone(),
                was,
                is,
            })
        })
    }
}

/// The fields of a row schema.
fn fields(schema: &str, envelope: Envelope) -> Fields {
    let fields = match envelope {
        Envelope::Debezium => columns_of_envelope(schema),
        Envelope::Append | Envelope::Upsert => columns_of_record(schema),
    };
    fields.unwrap_or_default()
}

/// Whether a column of the first type takes values of the second: each value exactly, or not at
/// all.
fn is_taken(planned: ColumnType, written: ColumnType) -> bool {
    use ColumnType::{Bytes, Decimal, Double, Float, Int, Long, Text};
    matches!(
        (planned, written),
        (Int, Long)
            | (Long, Int)
            | (Float, Int | Long)
            | (Double, Int | Long | Float)
            | (Text, Bytes)
            | (Bytes, Text)
            | (Decimal { .. }, Decimal { .. } | Int | Long)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{DataType, Field};
    use std::sync::Arc;

    fn altered(was: &str, is: &str) -> Option<String> {
        let schema = |kind: &str| {
            format!(
                r#"{{"type": "record", "name": "T", "fields": [
                    {{"name": "c", "type": {kind}}}, {{"name": "d", "type": "int"}}]}}"#
            )
        };
        let used = arrow::datatypes::Schema::new(vec![Field::new("c", DataType::Utf8, true)]);
        let types = Types::of(&schema(was), Envelope::Append);
        let altered = types.altered(&schema(is), &Arc::new(used))?;
        let is = altered.is.map(|is| is.to_string());
        Some(format!("{} {}", altered.was, is.unwrap_or_default()))
    }

    #[test]
    fn a_type_that_compares_otherwise_is_another_one() {
        let (text, citext) = (
            "\"string\"",
            r#"{"type": "string", "source.type": "citext"}"#,
        );
        assert_eq!(altered(text, text), None);
        assert_eq!(altered(text, citext).as_deref(), Some("text citext"));
        assert_eq!(altered(citext, text).as_deref(), Some("citext text"));
        assert_eq!(altered("\"int\"", "\"long\""), None);
        assert_eq!(altered("\"double\"", "\"int\""), None);
        assert_eq!(
            altered("\"int\"", "\"double\"").as_deref(),
            Some("int double precision")
        );
        let local = r#"{"type": "long", "logicalType": "local-timestamp-micros"}"#;
        let zoned = r#"{"type": "long", "logicalType": "timestamp-micros"}"#;
        assert_eq!(
            altered(local, zoned).as_deref(),
            Some("timestamp timestamptz")
        );
        assert_eq!(
            altered("\"long\"", zoned).as_deref(),
            Some("bigint timestamptz")
        );
        let list = r#"{"type": "array", "items": "int"}"#;
        assert_eq!(altered("\"long\"", list).as_deref(), Some("bigint "));
    }
}
