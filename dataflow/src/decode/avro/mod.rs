//! Avro in the Confluent wire format: a zero byte, the schema's id (4 bytes, big-endian), the body.
//!
//! In: records of any writer schemas that the registry holds. Out: rows of the source's columns;
//! fields that no column uses are passed over. A writer's schema is fetched at the first record
//! that carries its id and compiled into a [`program`].
//!
//! This is own code where `arrow-avro` exists because a corrupt record must be refused alone (that
//! decoder fails in the middle of a batch, whose rows are lost then) and because writers' schemas
//! are looked up when a record first carries their id (that decoder must know all at the start).
//!
//! 1. A record is decoded whole before its row is appended: a corrupt one is refused alone.
//! 2. A registry that is away refuses nothing: `push` waits and asks again, with back-off up to
//!    [`RETRY_MAX`], until it answers. An id that the registry does not have is refused, and asked
//!    for again only after [`MISS_KEPT`].
//! 3. A column that a writer has no field for holds the default of the field that it was planned
//!    from, and without one the record is refused, as Avro says. Where the writer's schema
//!    is newer than the plan the column is gone, and the job ends: its values would be made up.
//!    It ends too where a newer schema gives a column another type, see [`altered`].
//! 4. A registry that lost its schemas is an error of the job, told from a record that names an id
//!    which never was: otherwise all that was written with them would leave the views unnoticed.

mod altered;
mod input;
mod program;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::timezone::Tz;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use foldhash::fast::RandomState;
use tidemill_log::registry::Registry;
use tidemill_log::schema::arena::Schema;

use self::altered::{Altered, Types};
use self::program::{Absent, Program};
use super::columns::{Cells, Columns};
use super::{Decoder, Effect, Place, Refused, text};
use crate::plan::ir::{Envelope, Source};
use crate::{Error, Kind, Result};

/// How long an id that the registry does not have is refused without asking again.
const MISS_KEPT: Duration = Duration::from_secs(5);
/// Missing ids remembered; garbage can carry any of 2^32.
const MISSES_MAX: usize = 1024;
/// The first and the longest wait between two questions to a registry that is away.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// The decoder of one source's Avro records.
pub(super) struct Avro {
    columns: Columns,
    debezium: bool,
    writers: Writers,
}

/// The writers' schemas seen so far.
struct Writers {
    registry: Arc<dyn Registry>,
    planned: Schema,
    columns: SchemaRef,
    types: Types,
    /// The newest version of the topic's subject when the job was planned.
    newest: u32,
    table: String,
    envelope: Envelope,
    utc: Tz,
    /// Compiled, or why that cannot be. Schemas of an id never change.
    known: HashMap<u32, std::result::Result<Program, String>, RandomState>,
    missing: HashMap<u32, (Instant, String)>,
    topic: String,
    /// Why the job cannot go on: the registry lost schemas that records were written with, or a
    /// column is gone.
    fatal: Option<Error>,
}

impl Avro {
    /// `schema` is the one that the source was planned with, `newest` the newest version then.
    pub(super) fn new(
        source: &Source,
        (schema, newest): (&str, u32),
        registry: Option<Arc<dyn Registry>>,
    ) -> Result<Self> {
        let name = &source.name;
        let registry = registry.ok_or_else(|| {
            Error::new(
                Kind::Data,
                format!("`{name}` is Avro, which needs a schema registry: give its URL"),
            )
        })?;
        let planned = Schema::parse(schema).map_err(|error| {
            Error::new(Kind::Data, format!("`{name}`: its Avro schema: {error}"))
        })?;
        let debezium = source.envelope == Envelope::Debezium;
        Ok(Self {
            columns: Columns::new(name, &source.schema)?,
            debezium,
            writers: Writers {
                registry,
                planned,
                columns: Arc::clone(&source.schema),
                types: Types::of(schema, source.envelope),
                newest,
                table: source.name.clone(),
                envelope: source.envelope,
                utc: text::utc().ok_or_else(|| Error::new(Kind::Bug, "UTC is no time zone"))?,
                known: HashMap::default(),
                missing: HashMap::new(),
                topic: source.topic.clone(),
                fatal: None,
            },
        })
    }
}

impl Decoder for Avro {
    fn push(&mut self, value: &[u8]) -> std::result::Result<Effect, Refused> {
        self.push_behind(value, &mut None)
    }

    fn push_behind(
        &mut self,
        value: &[u8],
        newest: &mut Option<Place>,
    ) -> std::result::Result<Effect, Refused> {
        let (id, body) = unframe(value)?;
        let program = self.writers.program(id)?;
        if program.is_silent() {
            return Ok(Effect::Nothing);
        }
        let mut cells = Cells::new();
        let change = program
            .run(body, &mut cells)
            .map_err(|why| Refused(format!("not a record of schema {id}: {}", why.0)))?;
        if self.debezium {
            let mut next = *newest;
            if let Some(said) = change.said() {
                next = said.after(next);
                if next.is_none() {
                    return Ok(Effect::Copy);
                }
            }
            match change.op {
                Some("c" | "u" | "r") if change.row => self.columns.append(&cells)?,
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
            // Only a record that is not refused moves it.
            *newest = next;
            return Ok(match change.op {
                Some("d") if change.is_withheld() => Effect::Withheld,
                Some("d") => Effect::Gone,
                Some("t") => Effect::Truncated,
                _ => Effect::Row,
            });
        }
        if change.deleted {
            return Ok(Effect::Gone);
        }
        self.columns.append(&cells)?;
        Ok(Effect::Row)
    }

    fn rows(&self) -> usize {
        self.columns.rows()
    }

    fn finish(&mut self) -> Result<RecordBatch> {
        if let Some(fatal) = self.writers.fatal.take() {
            return Err(fatal);
        }
        self.columns.finish()
    }
}

/// The schema's id and the body.
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

impl Writers {
    fn program(&mut self, id: u32) -> std::result::Result<&Program, Refused> {
        if !self.known.contains_key(&id) {
            self.resolve(id)?;
        }
        match self.known.get(&id) {
            Some(Ok(program)) => Ok(program),
            Some(Err(why)) => Err(Refused(format!("schema {id} cannot be read: {why}"))),
            None => Err(Refused(format!("schema {id} is not there"))),
        }
    }

    fn resolve(&mut self, id: u32) -> std::result::Result<(), Refused> {
        if let Some((since, why)) = self.missing.get(&id)
            && since.elapsed() < MISS_KEPT
        {
            return Err(Refused(why.clone()));
        }
        let why = match self.ask(id, |registry| registry.by_id(id)) {
            Ok(Some(text)) => {
                let program = self.compile(id, &text);
                self.known.insert(id, program);
                self.missing.remove(&id);
                return Ok(());
            }
            Ok(None) => {
                if self.fatal.is_none() && self.was_lost(id) {
                    let what = format!(
                        "topic `{}` holds records of schema {id}, which the registry does not have \
                         any more: it lost its schemas, or this one was deleted. Restore it and \
                         start again; nothing behind these records is in the views",
                        self.topic
                    );
                    self.fatal = Some(Error::new(Kind::Data, what));
                }
                format!("the registry has no schema {id}")
            }
            Err(error) => format!("the registry does not give schema {id}: {error}"),
        };
        if self.missing.len() >= MISSES_MAX {
            self.missing.clear();
        }
        self.missing.insert(id, (Instant::now(), why.clone()));
        Err(Refused(why))
    }

    fn compile(&mut self, id: u32, schema: &str) -> std::result::Result<Program, String> {
        if let Some(altered) = self.types.altered(schema, &self.columns)
            && self.is_newer(id)
        {
            let what = self.altered(id, &altered);
            self.fatal = Some(Error::new(Kind::Data, what.clone()));
            return Err(what);
        }
        let program = Program::compile(
            schema,
            &self.planned,
            &self.columns,
            self.envelope,
            self.utc,
        )?;
        let Some(gone) = program.absent().first() else {
            return Ok(program);
        };
        let column = &gone.column;
        if self.is_newer(id) {
            let (table, topic) = (&self.table, &self.topic);
            let what = format!(
                "table `{table}`: column `{column}` is gone: schema {id}, the newest of subject \
                 `{topic}-value`, has no such field, and a view reads it. It was dropped or \
                 renamed while this job ran. Change views.sql and start again, or bring the \
                 column back; nothing behind the change is in the views"
            );
            self.fatal = Some(Error::new(Kind::Data, what.clone()));
            return Err(what);
        }
        match program.absent().iter().find(|absent| !absent.has_default) {
            None => Ok(program),
            Some(Absent { column, .. }) => Err(format!(
                "it has no field `{column}`, and the schema that the table was planned with gives \
                 the field no default"
            )),
        }
    }

    /// Why a job that was planned for a column's old type ends.
    fn altered(&self, id: u32, altered: &Altered) -> String {
        let Altered { column, was, is } = altered;
        let (table, topic) = (&self.table, &self.topic);
        let is = is.map_or_else(
            || "a type that no column can have".to_owned(),
            |is| is.to_string(),
        );
        format!(
            "table `{table}`: column `{column}` was {was} and is {is} now, by schema {id} of \
             subject `{topic}-value`: its type was changed while this job ran. Start again, and \
             the views are planned for the new type; nothing behind the change is in them"
        )
    }

    /// Whether a schema came after those that the job was planned with. One that the topic's
    /// subject does not list tells it by its id: ids only grow.
    fn is_newer(&self, id: u32) -> bool {
        let subject = format!("{}-value", self.topic);
        let Ok(versions) = self.ask(id, |registry| registry.versions(&subject)) else {
            return false;
        };
        match versions.iter().find(|version| version.id == id) {
            Some(found) => found.version > self.newest,
            None => versions.iter().all(|version| version.id < id),
        }
    }

    /// Whether the registry once had this schema, as far as can be told: it knows nothing of the
    /// topic any more, or it gave the topic a higher id since (ids begin at 1 and only grow).
    fn was_lost(&self, id: u32) -> bool {
        let subject = format!("{}-value", self.topic);
        let versions = self.ask(id, |registry| registry.versions(&subject));
        versions.is_ok_and(|versions| {
            versions.is_empty() || (id > 0 && versions.iter().any(|version| version.id > id))
        })
    }

    /// Asks until the registry answers: its absence says nothing about the record.
    fn ask<T>(
        &self,
        id: u32,
        question: impl Fn(&dyn Registry) -> tidemill_log::Result<T>,
    ) -> tidemill_log::Result<T> {
        let mut wait = RETRY_MIN;
        loop {
            match question(self.registry.as_ref()) {
                Err(error) if error.may_pass() => {
                    tracing::warn!(
                        schema = id,
                        error = &error as &dyn std::error::Error,
                        wait_ms = wait.as_millis() as u64,
                        "the registry is away: decoding waits for it"
                    );
                    std::thread::sleep(wait);
                    wait = (wait * 2).min(RETRY_MAX);
                }
                answer => return answer,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::ir::Format;
    use arrow::datatypes::{DataType, Field, Schema as Columns};

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
            },
            envelope: Envelope::Append,
            schema: Arc::new(Columns::new(vec![Field::new("b", DataType::Int32, true)])),
            key: Vec::new(),
        };
        let record = |id: u32| [&[0][..], &id.to_be_bytes(), &[2, 2]].concat();
        let decode = |id: u32| {
            let mut decoder = Avro::new(&source, (&newer, 2), Some(Arc::clone(&registry))).unwrap();
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
