//! The writers' schemas of a topic: fetched at the first record that carries their id, compiled,
//! and compared with the schema that the job was planned with.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::timezone::Tz;
use arrow::datatypes::SchemaRef;
use foldhash::fast::RandomState;
use tidemill_log::backoff::Backoff;
use tidemill_log::registry::Registry;
use tidemill_log::schema::arena::Schema;

use super::super::contract::Refused;
use super::super::text;
use super::altered::{Altered, Types};
use super::known::Known;
use super::program::{Absent, Program};
use crate::plan::ir::{Envelope, Source};
use crate::{Error, Kind, Result};

/// How long an id that the registry does not have is refused without asking again.
const MISS_KEPT: Duration = Duration::from_secs(5);
/// Missing ids remembered; garbage can carry any of 2^32.
const MISSES_MAX: usize = 1024;
/// The first and the longest wait between two questions to a registry that is away.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// The writers' schemas seen so far.
pub(super) struct Writers {
    registry: Arc<dyn Registry>,
    planned: Schema,
    columns: SchemaRef,
    types: Types,
    /// The newest version of the topic's subject when the job was planned.
    newest: u32,
    table: String,
    envelope: Envelope,
    unavailable: Option<Arc<[u8]>>,
    utc: Tz,
    /// Compiled, or why that cannot be. Schemas of an id never change.
    compiled: HashMap<u32, std::result::Result<Program, String>, RandomState>,
    missing: HashMap<u32, (Instant, String)>,
    topic: String,
    /// What the ids stand for.
    pub(super) known: Known,
    /// Why the job cannot go on: the registry lost schemas that records were written with, or a
    /// column, its type or the key is another one.
    pub(super) ends: Option<Error>,
}

impl Writers {
    pub(super) fn new(
        source: &Source,
        (schema, newest): (&str, u32),
        registry: Arc<dyn Registry>,
    ) -> Result<Self> {
        let planned = Schema::parse(schema).map_err(|error| {
            let what = format!("`{}`: its Avro schema: {error}", source.name);
            Error::new(Kind::Data, what)
        })?;
        Ok(Self {
            registry,
            planned,
            columns: Arc::clone(&source.schema),
            types: Types::of(schema, source.envelope),
            newest,
            table: source.name.clone(),
            envelope: source.envelope,
            unavailable: source.unavailable.clone(),
            utc: text::utc().ok_or_else(|| Error::new(Kind::Bug, "UTC is no time zone"))?,
            compiled: HashMap::default(),
            missing: HashMap::new(),
            topic: source.topic.clone(),
            known: Known::new(&source.topic),
            ends: None,
        })
    }

    pub(super) fn program(&mut self, id: u32) -> std::result::Result<&Program, Refused> {
        if !self.compiled.contains_key(&id) {
            self.resolve(id)?;
        }
        match self.compiled.get(&id) {
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
        let why = match self.schema(id) {
            Ok(Some(text)) => {
                let program = self.compile(id, &text);
                self.compiled.insert(id, program);
                self.missing.remove(&id);
                return Ok(());
            }
            Ok(None) => {
                if self.ends.is_none() && self.was_lost(id) {
                    let what = format!(
                        "topic `{}` holds records of schema {id}, which the registry does not have \
                         any more: it lost its schemas, or this one was deleted. Restore it and \
                         start again; nothing behind these records is in the views",
                        self.topic
                    );
                    self.ends = Some(Error::new(Kind::Data, what));
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

    /// What the registry says that an id stands for; the job ends when that is another schema than
    /// before.
    pub(super) fn schema(&mut self, id: u32) -> tidemill_log::Result<Option<String>> {
        let schema = self.ask(id, |registry| registry.by_id(id))?;
        if let Some(schema) = &schema
            && let Some(another) = self.known.notice(id, schema)
        {
            self.ends.get_or_insert(another);
        }
        Ok(schema)
    }

    /// Ends the job when the own ingest wrote a record with another schema than the one that its id
    /// stands for.
    pub(super) fn misnames(&mut self, id: u32, body: &[u8]) {
        if let Some(another) = self.known.misnames(id, body) {
            self.ends = Some(another);
        }
    }

    fn compile(&mut self, id: u32, schema: &str) -> std::result::Result<Program, String> {
        if self.is_of_another(schema) {
            let another = self.known.another(id);
            let what = another.to_string();
            self.ends = Some(another);
            return Err(what);
        }
        if let Some(altered) = self.types.altered(schema, &self.columns)
            && self.is_newer(id)
        {
            let what = self.altered(id, &altered);
            self.ends = Some(Error::new(Kind::Data, what.clone()));
            return Err(what);
        }
        let mut program = Program::compile(
            schema,
            &self.planned,
            &self.columns,
            self.envelope,
            self.utc,
        )?;
        program.unavailable(self.unavailable.clone());
        if program.absent().is_empty() && program.altered().is_empty() {
            return Ok(program);
        }
        let newer = self.is_newer(id);
        if newer && let Some(what) = self.changed(id, &program) {
            self.ends = Some(Error::new(Kind::Data, what.clone()));
            return Err(what);
        }
        let another = !program.altered().is_empty()
            || program.absent().iter().any(|absent| !absent.has_default);
        if another && !newer && program.is_own() && self.is_own() {
            let (table, schema) = (&self.table, id);
            tracing::info!(
                table,
                schema,
                "columns had other types in this schema: rows that do not fit those of now are \
                 withheld until the table begins anew behind them"
            );
            program.outdate();
            return Ok(program);
        }
        match program.absent().iter().find(|absent| !absent.has_default) {
            None => Ok(program),
            Some(Absent { column, .. }) => Err(format!(
                "it has no field `{column}`, and the schema that the table was planned with gives \
                 the field no default"
            )),
        }
    }

    /// Whether a schema is one of the own ingest's, of another topic than this one.
    fn is_of_another(&self, schema: &str) -> bool {
        let Ok(writer) = Schema::parse(schema) else {
            return false;
        };
        let own = self.is_own() && writer.after().is_some_and(|row| row.table.is_some());
        let name = |schema: &Schema| Some(schema.record(schema.root)?.name.clone());
        own && name(&writer) != name(&self.planned)
    }

    /// Why the job cannot go on with what a newer schema writes, if it cannot.
    fn changed(&self, id: u32, program: &Program) -> Option<String> {
        let (table, topic) = (&self.table, &self.topic);
        if let Some(Absent { column, .. }) = program.absent().first() {
            return Some(format!(
                "table `{table}`: column `{column}` is gone: schema {id}, the newest of subject \
                 `{topic}-value`, has no such field, and a view reads it. It was dropped or \
                 renamed while this job ran. Change views.sql and start again, or bring the \
                 column back; nothing behind the change is in the views"
            ));
        }
        None
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

    /// Whether the own ingest writes the topic.
    pub(super) fn is_own(&self) -> bool {
        self.planned.after().is_some_and(|row| row.table.is_some())
    }

    /// Whether a schema came after those that the job was planned with. One that the topic's
    /// subject does not list tells it by its id: ids only grow.
    fn is_newer(&self, id: u32) -> bool {
        self.is_behind("value", id, self.newest)
    }

    /// Whether a schema came after a version of the topic's keys or values.
    pub(super) fn is_behind(&self, part: &str, id: u32, version: u32) -> bool {
        let subject = format!("{}-{part}", self.topic);
        let Ok(versions) = self.ask(id, |registry| registry.versions(&subject)) else {
            return false;
        };
        match versions.iter().find(|version| version.id == id) {
            Some(found) => found.version > version,
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
    pub(super) fn ask<T>(
        &self,
        id: u32,
        question: impl Fn(&dyn Registry) -> tidemill_log::Result<T>,
    ) -> tidemill_log::Result<T> {
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        loop {
            match question(self.registry.as_ref()) {
                Err(error) if error.may_pass() => {
                    let wait = backoff.pause();
                    tracing::warn!(
                        schema = id,
                        error = &error as &dyn std::error::Error,
                        wait_ms = wait.as_millis() as u64,
                        "the registry is away: decoding waits for it"
                    );
                    std::thread::sleep(wait);
                }
                answer => return answer,
            }
        }
    }
}
