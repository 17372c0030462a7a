//! Writers' schemas of a topic: fetched at the first record with their id, compiled, and compared
//! with the schema that the job was planned with.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::timezone::Tz;
use arrow::datatypes::SchemaRef;
use foldhash::fast::RandomState;
use tidemill_ir::{Envelope, Source};
use tidemill_log::backoff::Backoff;
use tidemill_log::registry::Registry;
use tidemill_log::schema::arena::Schema;
use tidemill_log::{Error, Kind, Result};

use super::super::contract::Refused;
use super::super::text;
use super::altered::{Altered, Types};
use super::known::Known;
use super::program::{Absent, Program};

/// How long a missing id is refused before the registry is asked again.
const MISS_KEPT: Duration = Duration::from_secs(5);
/// Most missing ids that are remembered, because garbage can contain any of 2^32 ids.
const MISSES_MAX: usize = 1024;
/// The first pause between two requests to a registry that is not available.
const RETRY_MIN: Duration = Duration::from_millis(50);
/// The longest pause between two such requests.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// The writers' schemas that were met so far.
pub(super) struct Writers {
    /// The schema registry.
    registry: Arc<dyn Registry>,
    /// The schema that the job was planned with.
    planned: Schema,
    /// The source's columns.
    columns: SchemaRef,
    /// The planned types of the columns.
    types: Types,
    /// The newest version of the topic's value subject when the job was planned.
    newest: u32,
    /// The table's name, for messages.
    table: String,
    /// The envelope, which says where the row is in a record.
    envelope: Envelope,
    /// See [`tidemill_ir::Source::unavailable`].
    unavailable: Option<Arc<[u8]>>,
    /// The time zone of timestamps.
    utc: Tz,
    /// The compiled program of each id, or why it cannot be compiled. The schema of an id never
    /// changes.
    compiled: HashMap<u32, std::result::Result<Program, String>, RandomState>,
    /// Missing ids: since when, and the refusal.
    missing: HashMap<u32, (Instant, String)>,
    /// The topic.
    topic: String,
    /// The schemas that ids stand for.
    pub(super) known: Known,
    /// Why the job cannot continue: the registry lost schemas that records were written with, or a
    /// column, its type or the key has changed. The decoder reports it at the next batch.
    pub(super) ends: Option<Error>,
}

impl Writers {
    /// No schema is known yet.
    ///
    /// # Errors
    /// `Data` when the planned schema does not parse.
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

    /// The program of a schema id. Blocks while the registry is away.
    ///
    /// # Errors
    /// A refusal of the record, when the schema is missing or cannot be compiled.
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

    /// Fetches and compiles the schema of an id.
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

    /// The schema of an id, as the registry says. The job ends when it is another one than before.
    ///
    /// # Errors
    /// The registry is not available, or it refuses.
    pub(super) fn schema(&mut self, id: u32) -> tidemill_log::Result<Option<String>> {
        let schema = self.ask(id, |registry| registry.by_id(id))?;
        if let Some(schema) = &schema
            && let Some(another) = self.known.notice(id, schema)
        {
            self.ends.get_or_insert(another);
        }
        Ok(schema)
    }

    /// Ends the job if Tidemill's own ingest wrote a record with another schema than its id stands
    /// for.
    pub(super) fn misnames(&mut self, id: u32, body: &[u8]) {
        if let Some(another) = self.known.misnames(id, body) {
            self.ends = Some(another);
        }
    }

    /// Compiles a schema, or ends the job if the schema shows that the plan is outdated.
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

    /// Whether a schema is one that the own ingest registered for another topic.
    fn is_of_another(&self, schema: &str) -> bool {
        let Ok(writer) = Schema::parse(schema) else {
            return false;
        };
        let own = self.is_own() && writer.after().is_some_and(|row| row.table.is_some());
        let name = |schema: &Schema| Some(schema.record(schema.root)?.name.clone());
        own && name(&writer) != name(&self.planned)
    }

    /// Why the job cannot continue with records of a newer schema; `None` if it can.
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

    /// The message of a job that was planned for a column's old type.
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

    /// Whether Tidemill's own ingest writes the topic.
    pub(super) fn is_own(&self) -> bool {
        self.planned.after().is_some_and(|row| row.table.is_some())
    }

    /// Whether a schema is newer than those that the job was planned with. If the topic's subject
    /// does not list it, the id decides, because ids only grow.
    fn is_newer(&self, id: u32) -> bool {
        self.is_behind("value", id, self.newest)
    }

    /// Whether a schema is newer than a version of the subject of keys or values.
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

    /// Whether the registry once had this schema, as far as can be known: the registry no longer
    /// knows the topic, or it has given the topic a higher id since. (Ids begin at 1 and only
    /// grow.)
    fn was_lost(&self, id: u32) -> bool {
        let subject = format!("{}-value", self.topic);
        let versions = self.ask(id, |registry| registry.versions(&subject));
        versions.is_ok_and(|versions| {
            versions.is_empty() || (id > 0 && versions.iter().any(|version| version.id > id))
        })
    }

    /// Asks until the registry answers, because its absence says nothing about the record.
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
