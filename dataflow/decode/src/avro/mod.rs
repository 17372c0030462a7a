//! The Avro decoder, for Confluent's wire format: a zero byte, the schema id, and Avro's binary
//! encoding.
//!
//! ```text
//! ┌──────┬────────────────┬──────────────────────────────┐
//! │ 0x00 │ schema id      │ body: Avro binary encoding   │
//! │ 1 B  │ u32 big-endian │ of the writer's schema       │
//! └──────┴────────────────┴──────────────────────────────┘
//! ```
//!
//! Input: records of any writer schemas that the registry has. Output: rows of the source's
//! columns; fields that no column uses are skipped. A writer's schema is fetched at the first
//! record with its id, and compiled into a [`program`].
//!
//! `arrow-avro` is not used, for two reasons. A corrupt record must be refused alone, but that
//! decoder fails in the middle of a batch, whose rows are then lost. And schemas must be looked up
//! when a record first carries their id, but that decoder must know all of them at the start.
//!
//! 1. A record is decoded completely before its row is appended, so a corrupt record is refused
//!    alone.
//! 2. A registry that is away refuses nothing: `push` blocks and asks again until the registry
//!    answers. An id that the registry does not have is refused, and asked for again only after a
//!    while.
//! 3. A column for which the writer has no field gets the default of the field that it was planned
//!    from. Without a default the record is refused, as Avro's schema resolution says. If the
//!    writer's schema is newer than the plan, the column was dropped, and the job ends because its
//!    values would be invented. The job also ends when a newer schema gives a column another type;
//!    see [`altered`].
//! 4. The ids of a recreated registry may stand for other schemas. The job ends when one does. This
//!    is detected from what earlier runs read ([`known`]), and from the fingerprint that the
//!    records of Tidemill's own ingest carry.
//! 5. A registry that lost its schemas ends the job. It is detected when a record carries an id
//!    that must have existed. Otherwise all records of that schema would be missing in the views
//!    unnoticed.
//! 6. Before the own ingest changes the type of a column, it begins the table again in all
//!    partitions. An earlier record that does not fit the planned type is not a dead letter. Its
//!    row is withheld until the new beginning of the table, which comes after it.

mod altered;
mod input;
mod keys;
mod known;
mod program;
mod writers;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use tidemill_ir::{Envelope, KeySchema, Source};
use tidemill_log::registry::Registry;
use tidemill_log::{Error, Kind, Result};
use tidemill_state::value::source_position::SourcePosition;

use self::keys::Keys;
use self::program::{Change, Program};
use self::writers::Writers;
use super::columns::{Cells, Columns};
use super::contract::{Decoder, Effect, Refused, Rest};
use super::text;

/// The decoder of one source's Avro records.
pub(super) struct Avro {
    /// The builders of the source's columns.
    columns: Columns,
    /// Whether records have Debezium's envelope.
    debezium: bool,
    /// Whether Tidemill's own ingest writes the topic.
    own: bool,
    /// The writers' schemas.
    writers: Writers,
    /// The schemas of keys; `None` if keys do not identify rows or have no schema.
    keys: Option<Keys>,
    /// Set while a record is read without the values that their columns refuse.
    lenient: bool,
    /// The columns that refused their values in that record.
    rest: Option<Arc<[usize]>>,
}

/// Where the row of a record is appended.
struct Rows<'a> {
    /// The builders of the source's columns.
    columns: &'a mut Columns,
    /// Set if values that their columns refuse are left out: these columns.
    rest: Option<&'a mut Option<Arc<[usize]>>>,
}

impl Rows<'_> {
    /// Appends a row.
    fn append(&mut self, cells: &Cells<'_>) -> std::result::Result<(), Refused> {
        match &mut self.rest {
            Some(rest) => **rest = self.columns.append_rest(cells),
            None => self.columns.append(cells)?,
        }
        Ok(())
    }
}

impl Avro {
    /// A decoder of a source. `schema` is the schema that the source was planned with, `newest` the
    /// newest version at that time, and `key` the schema of its keys.
    ///
    /// # Errors
    /// `Data` when no registry is given or the planned schema is unusable.
    pub(super) fn new(
        source: &Source,
        (schema, newest): (&str, u32),
        key: Option<&KeySchema>,
        registry: Option<Arc<dyn Registry>>,
    ) -> Result<Self> {
        let name = &source.name;
        let registry = registry.ok_or_else(|| {
            Error::new(
                Kind::Data,
                format!("`{name}` is Avro, which needs a schema registry: give its URL"),
            )
        })?;
        let writers = Writers::new(source, (schema, newest), registry)?;
        let key = key.filter(|_| source.envelope != Envelope::Append);
        Ok(Self {
            columns: Columns::new(name, &source.schema)?,
            debezium: source.envelope == Envelope::Debezium,
            own: writers.is_own(),
            keys: key.and_then(|key| Keys::new(source, key, writers.is_own())),
            writers,
            lenient: false,
            rest: None,
        })
    }

    /// Decodes the body of a record.
    fn read(
        &mut self,
        id: u32,
        body: &[u8],
        newest: &mut Option<SourcePosition>,
    ) -> std::result::Result<Effect, Refused> {
        let program = self.writers.program(id)?;
        if program.is_silent() {
            return Ok(Effect::Nothing);
        }
        let mut cells = Cells::new();
        let change = program
            .run(body, &mut cells, self.lenient)
            .map_err(|why| Refused(format!("not a record of schema {id}: {}", why.0)))?;
        if self.debezium {
            program
                .agrees(&change, body, self.own)
                .map_err(|why| Refused(format!("not a record of schema {id}: {why}")))?;
            let rows = Rows {
                columns: &mut self.columns,
                rest: self.lenient.then_some(&mut self.rest),
            };
            return effect(rows, program, &change, &cells, newest);
        }
        if change.deleted {
            return Ok(Effect::Gone);
        }
        let mut rows = Rows {
            columns: &mut self.columns,
            rest: self.lenient.then_some(&mut self.rest),
        };
        rows.append(&cells)?;
        Ok(Effect::Row)
    }
}

impl Decoder for Avro {
    fn push_after(
        &mut self,
        value: &[u8],
        newest: &mut Option<SourcePosition>,
    ) -> std::result::Result<Effect, Refused> {
        let (id, body) = unframe(value)?;
        let pushed = self.read(id, body, newest);
        if self.debezium && matches!(pushed, Err(_) | Ok(Effect::Nothing)) {
            // The record may be one of the own ingest, read with another schema than it was written
            // with.
            self.writers.misnames(id, body);
        }
        pushed
    }

    fn push_rest(&mut self, value: &[u8], newest: &mut Option<SourcePosition>) -> Rest {
        let before = *newest;
        let Ok((id, body)) = unframe(value) else {
            return Rest::Nothing;
        };
        self.lenient = true;
        let effect = self.read(id, body, newest);
        self.lenient = false;
        Rest::of(effect, self.rest.take(), newest, before)
    }

    fn key(&mut self, key: &[u8]) {
        if let Some(keys) = &mut self.keys {
            keys.follow(key, &mut self.writers);
        }
    }

    fn remember(&mut self, schemas: BTreeMap<u32, i64>) {
        self.writers.known.kept.remember(schemas);
    }

    fn noted(&mut self) -> BTreeMap<u32, i64> {
        self.writers.known.kept.noted()
    }

    fn rows(&self) -> usize {
        self.columns.rows()
    }

    fn finish(&mut self) -> Result<RecordBatch> {
        if let Some(fatal) = self.writers.ends.take() {
            return Err(fatal);
        }
        self.columns.finish()
    }
}

/// Applies a Debezium envelope: drops duplicates, appends the row, or reports a deletion.
fn effect(
    mut rows: Rows<'_>,
    program: &Program,
    change: &Change<'_>,
    cells: &Cells<'_>,
    newest: &mut Option<SourcePosition>,
) -> std::result::Result<Effect, Refused> {
    let mut next = *newest;
    if let Some(said) = change.said() {
        next = said.after(next);
        if next.is_none() {
            return Ok(Effect::Duplicate);
        }
    }
    match change.op {
        Some("c" | "u" | "r") if change.row => {
            let lost = change.lost
                || match rows.append(cells) {
                    Err(_) if program.is_outdated() => true,
                    appended => appended.map(|()| false)?,
                };
            if lost {
                *newest = next;
                return Ok(Effect::Withheld);
            }
        }
        Some("m") => return Ok(Effect::Nothing),
        Some("d" | "t") => {}
        Some("c" | "u" | "r") => {
            return Err(Refused(
                "field `after`: found null, expected the row's record".into(),
            ));
        }
        other => {
            return Err(Refused(format!(
                "field `op`: found {:?}, expected \"c\", \"u\", \"r\", \"d\" or \"t\"",
                text::excerpt(other.unwrap_or_default())
            )));
        }
    }
    // Only a record that is not refused moves the partition's position.
    *newest = next;
    Ok(match change.op {
        Some("d") if change.is_withheld() => Effect::Withheld,
        Some("d") => Effect::Gone,
        Some("t") => Effect::Truncated,
        _ => Effect::Row,
    })
}

/// Splits a record into its schema id and its body.
fn unframe(value: &[u8]) -> std::result::Result<(u32, &[u8]), Refused> {
    match value.split_first_chunk() {
        Some(([0, a, b, c, d], body)) => Ok((u32::from_be_bytes([*a, *b, *c, *d]), body)),
        Some(([1, ..], _)) => Err(Refused(
            "found the first byte 1, a schema's GUID in place of its id, expected 0 (the Confluent \
             wire format): let the producer write ids"
                .into(),
        )),
        Some(([magic, ..], _)) => Err(Refused(format!(
            "found the first byte {magic}, expected 0 (the Confluent wire format). A producer that \
             puts the schema's id in a header writes no such byte: let it put the id first"
        ))),
        None => Err(Refused(format!(
            "found {} bytes, expected at least 5 (the Confluent wire format)",
            value.len()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{DataType, Field, Schema as Columns};
    use tidemill_ir::Format;

    const SCHEMA: &str = r#"{"type": "record", "name": "T", "fields": [
        {"name": "a", "type": ["null", "int"], "default": null}]}"#;

    #[test]
    fn a_registry_that_lost_schemas_is_told_from_an_id_that_never_was() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("registry.db").display().to_string();
        let registry = tidemill_log::registry::open(&format!("sqlite://{file}")).unwrap();
        let newer = SCHEMA.replace("\"a\"", "\"b\"");
        let lost = registry.register("t-value", SCHEMA).unwrap().id;
        let kept = registry.register("t-value", &newer).unwrap().id;
        let sql = rusqlite::Connection::open(&file).unwrap();
        let source = Source {
            name: "t".to_owned(),
            topic: "t".to_owned(),
            format: Format::Avro {
                schema: newer.clone(),
                newest: 2,
                key: None,
            },
            envelope: Envelope::Append,
            unavailable: None,
            schema: Arc::new(Columns::new(vec![Field::new("b", DataType::Int32, true)])),
            key: Vec::new(),
        };
        let record = |id: u32| [&[0][..], &id.to_be_bytes(), &[2, 2]].concat();
        let decode = |id: u32| {
            let mut decoder =
                Avro::new(&source, (&newer, 2), None, Some(Arc::clone(&registry))).unwrap();
            let refused = decoder.push(&record(id)).is_err();
            (refused, decoder.finish().map(|rows| rows.num_rows()))
        };
        assert!(matches!(decode(lost), (false, Ok(1))));
        sql.execute("DELETE FROM _tidemill_schemas WHERE id = ?", [lost])
            .unwrap();
        let (refused, finished) = decode(lost);
        let why = finished.unwrap_err().to_string();
        assert!(
            refused && why.contains("`t`") && why.contains(&format!("schema {lost}")),
            "{why}"
        );
        assert!(matches!(decode(kept), (false, Ok(1))));
        for never in [0, kept + 1, u32::MAX] {
            assert!(matches!(decode(never), (true, Ok(0))), "{never}");
        }
        sql.execute("DELETE FROM _tidemill_schemas", []).unwrap();
        assert!(decode(u32::MAX).1.is_err(), "it knows nothing of the topic");
    }
}
