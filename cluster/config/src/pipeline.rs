//! Pipeline folder: `ingest.toml` and `views.sql`, read and validated.
//!
//! In: the folder and a registry. Out: the configuration of the ingest and the plan of the job.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, bail};
use tidemill_ingest::config::{Land, Pipeline as Ingest, TopicNaming};
use tidemill_ingest::{capture, land};
use tidemill_ir::Job;
use tidemill_log::registry::{Registered, Registry};
use tidemill_log::schema::{Column, ColumnType, TableSchema, key_schema, value_schema};
use tidemill_log::{Kind, registry};
use tidemill_protocol::redact;

use crate::args::NameArgs;
use crate::connections::Connections;

pub use tidemill_ingest::config::FILE as INGEST;

/// The file with the SQL of the views.
pub const VIEWS: &str = "views.sql";

/// The folder of a pipeline.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    /// The pipeline's name: that of the folder, in characters that a replication slot's name may
    /// have.
    pub name: String,
}

impl Folder {
    /// Checks that the folder exists and contains at least one of the two files.
    ///
    /// # Errors
    ///
    /// The folder is missing or contains neither file.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let full = path.canonicalize().with_context(|| {
            format!(
                "there is no pipeline at {}; expected a folder",
                path.display()
            )
        })?;
        let folder = Self {
            path: path.to_owned(),
            name: name_of(&full),
        };
        if !folder.has(INGEST) && !folder.has(VIEWS) {
            bail!(
                "{} holds neither {INGEST} nor {VIEWS}; a pipeline has both",
                path.display()
            );
        }
        Ok(folder)
    }

    /// The same folder under the name of `--name`, if one was given.
    pub fn named(mut self, name: &NameArgs) -> Self {
        if let Some(name) = &name.name {
            self.name.clone_from(name);
        }
        self
    }

    /// The folder's path, as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the folder contains a file.
    fn has(&self, file: &str) -> bool {
        self.path.join(file).is_file()
    }

    /// Reads `ingest.toml`, if the folder has one.
    ///
    /// # Errors
    ///
    /// The file is invalid.
    pub fn ingest_if_any(&self) -> anyhow::Result<Option<Ingest>> {
        self.has(INGEST).then(|| self.ingest()).transpose()
    }

    /// Reads `ingest.toml`, and remembers the secrets in its URL for masking.
    ///
    /// # Errors
    ///
    /// The file is missing or invalid.
    pub fn ingest(&self) -> anyhow::Result<Ingest> {
        let ingest = Ingest::load(&self.path)?;
        ingest.seeds.iter().try_for_each(land::fits)?;
        if let Some(feed) = &ingest.feed {
            redact::remember(&feed.fetch.url);
            for (name, value) in &feed.fetch.parameters {
                if redact::is_secret_setting(name) {
                    redact::remember_alone(&value.to_string());
                }
            }
        }
        Ok(ingest)
    }

    /// Reads `views.sql`, if the folder has one.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn views_if_any(&self) -> anyhow::Result<Option<Views>> {
        self.has(VIEWS).then(|| self.views()).transpose()
    }

    /// Reads `views.sql`. It is not compiled yet.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn views(&self) -> anyhow::Result<Views> {
        let file = self.path.join(VIEWS);
        let sql = std::fs::read_to_string(&file)
            .with_context(|| format!("{}: cannot be read", file.display()))?;
        // Errors of `ingest.toml` are reported by whoever needs that file.
        let ingest = self.ingest_if_any().ok().flatten();
        Ok(Views {
            file: file.display().to_string(),
            sql,
            ingest,
        })
    }
}

/// A name of lower-case letters, digits and `_`, made from the folder's name.
fn name_of(path: &Path) -> String {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().to_lowercase());
    let name: String = name
        .unwrap_or_default()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    if name.is_empty() {
        "pipeline".to_owned()
    } else {
        name
    }
}

/// The text of `views.sql`, and what is needed to compile it.
#[derive(Debug, Clone)]
pub struct Views {
    file: String,
    sql: String,
    /// The ingest that fills the pipeline's tables; `None` without `ingest.toml`.
    ingest: Option<Ingest>,
}

impl Views {
    /// The SQL text.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// Compiles the SQL to the plan of the job.
    ///
    /// # Errors
    ///
    /// Kind `Retry` while the registry lacks the schema of a table; kind `Data` for wrong SQL.
    pub fn compile(&self, registry: Option<&dyn Registry>) -> tidemill_log::Result<Job> {
        tidemill_plan::compile(&self.sql, &self.file, registry)
    }

    /// Whether the SQL may compile once the ingest has published the columns that the captured
    /// tables have in the database now. Also true if the database or the registry does not answer,
    /// or its file is locked; the ingest reports that.
    pub fn fit_the_database(&self, connections: &Connections) -> bool {
        let may_fit = |error: tidemill_log::Error| error.kind() == Kind::Retry;
        let registry = match registry::open(&connections.registry) {
            Ok(registry) => registry,
            Err(error) => return may_fit(error),
        };
        let ingest = self.ingest.as_ref();
        let next =
            Expected::new(Some(registry), ingest, &connections.database).with_catalog_first();
        next.captured.schemas().is_err() || self.compile(Some(&next)).map_or_else(may_fit, |_| true)
    }

    /// Improves the error about an unknown column that is a generated column of a captured table.
    pub fn explained(&self, error: tidemill_log::Error, database: &str) -> tidemill_log::Error {
        let said = error.to_string();
        let Some((place, rest)) = said.split_once("unknown column `") else {
            return error;
        };
        let named = rest.split('`').next().unwrap_or_default();
        let named = named.rsplit('.').next().unwrap_or_default();
        let captured = self.ingest.as_ref().map(|it| it.capture.tables.as_slice());
        let Ok(generated) = capture::generated(database, captured.unwrap_or_default()) else {
            return error;
        };
        let Some(it) = generated.into_iter().find(|it| it.column == named) else {
            return error;
        };
        let what = format!(
            "{place}column `{}` of table `{}` is generated, and generated columns are not \
             captured; write its expression into the view in its place{}",
            it.column,
            it.table,
            it.expression
                .map_or_else(String::new, |expression| format!(": {expression}"))
        );
        tidemill_log::Error::new(error.kind(), what)
    }
}

/// A registry that also knows the schemas that the pipeline's own ingest will register. With it a
/// pipeline can be checked before it ever ran.
pub struct Expected {
    /// The real registry; `None` if it does not exist yet.
    inner: Option<Arc<dyn Registry>>,
    /// Schemas by subject of the tables that the ingest creates.
    expected: BTreeMap<String, String>,
    captured: Captured,
    /// Whether the catalog of the database wins over the registry for captured tables.
    catalog_first: bool,
}

/// The captured tables. The database's catalog is read when the registry has no schema.
struct Captured {
    database: String,
    tables: Vec<String>,
    naming: TopicNaming,
    /// The schemas by subject, once they were read.
    schemas: OnceLock<BTreeMap<String, String>>,
}

impl Captured {
    /// The schemas that the capture will register; empty if the embedded file does not exist.
    fn schemas(&self) -> tidemill_log::Result<&BTreeMap<String, String>> {
        if let Some(known) = self.schemas.get() {
            return Ok(known);
        }
        let file = self.database.strip_prefix("sqlite://");
        let absent = file.is_some_and(|file| !Path::new(file).exists());
        let mut schemas = BTreeMap::new();
        if !absent && !self.tables.is_empty() {
            for table in capture::tables(&self.database, &self.tables)? {
                add(&mut schemas, &table, &self.naming);
            }
        }
        Ok(self.schemas.get_or_init(|| schemas))
    }
}

/// Adds the schemas of a table's two subjects.
fn add(schemas: &mut BTreeMap<String, String>, table: &TableSchema, naming: &TopicNaming) {
    let topic = naming.topic(table);
    schemas.insert(format!("{topic}-value"), value_schema(table, &topic));
    schemas.insert(format!("{topic}-key"), key_schema(table, &topic));
}

impl Expected {
    /// Knows what `ingest` will register: for the tables that it creates, and for those that it
    /// captures from `database`.
    pub fn new(inner: Option<Arc<dyn Registry>>, ingest: Option<&Ingest>, database: &str) -> Self {
        let naming = ingest
            .map(|ingest| ingest.publish.naming())
            .unwrap_or_default();
        let mut expected = BTreeMap::new();
        for land in ingest.into_iter().flat_map(Ingest::lands) {
            add(&mut expected, &landed_schema(land), &naming);
        }
        let tables = ingest.map(|ingest| ingest.capture.tables.clone());
        Self {
            inner,
            expected,
            captured: Captured {
                database: database.to_owned(),
                tables: tables.unwrap_or_default(),
                naming,
                schemas: OnceLock::new(),
            },
            catalog_first: false,
        }
    }

    /// The same, but captured tables have the columns of the database now, including ones that were
    /// not published yet.
    pub(crate) fn with_catalog_first(self) -> Self {
        Self {
            catalog_first: true,
            ..self
        }
    }
}

impl Registry for Expected {
    fn register(&self, subject: &str, _schema: &str) -> tidemill_log::Result<Registered> {
        let what = format!("subject `{subject}`: nothing is registered while checking");
        Err(tidemill_log::Error::new(Kind::Bug, what))
    }

    fn by_id(&self, id: u32) -> tidemill_log::Result<Option<String>> {
        self.inner
            .as_ref()
            .map_or(Ok(None), |inner| inner.by_id(id))
    }

    fn versions(&self, subject: &str) -> tidemill_log::Result<Vec<Registered>> {
        let first = |schema: &String| Registered {
            id: 0,
            version: 1,
            schema: schema.clone(),
        };
        if self.catalog_first
            && let Some(next) = self.captured.schemas()?.get(subject)
        {
            return Ok(vec![first(next)]);
        }
        let held = self
            .inner
            .as_ref()
            .map_or(Ok(Vec::new()), |inner| inner.versions(subject));
        let held = held?;
        if !held.is_empty() {
            return Ok(held);
        }
        let expected = match self.expected.get(subject) {
            None => self.captured.schemas()?.get(subject),
            known => known,
        };
        Ok(expected.map(first).into_iter().collect())
    }

    fn delete(&self, subject: &str) -> tidemill_log::Result<bool> {
        let what = format!("subject `{subject}`: nothing is deleted while checking");
        Err(tidemill_log::Error::new(Kind::Bug, what))
    }
}

/// The schema of a landed table, as the capture will see it.
fn landed_schema(land: &Land) -> TableSchema {
    let mut columns: Vec<Column> = land
        .columns
        .iter()
        .map(|column| Column {
            name: column.name.clone(),
            kind: column.kind,
            nullable: column.nullable,
        })
        .collect();
    if let Some(document) = &land.document {
        let (name, kind) = (document.clone(), ColumnType::Json);
        columns.push(Column {
            name,
            kind,
            nullable: false,
        });
    }
    let key = columns.iter().position(|column| column.name == land.key);
    TableSchema {
        namespace: "public".to_owned(),
        name: land.table.clone(),
        columns,
        key: key.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_fit_for_a_slot() {
        assert_eq!(name_of(Path::new("/a/My-Users.v2")), "my_users_v2");
        assert_eq!(name_of(Path::new("/")), "pipeline");
    }
}
