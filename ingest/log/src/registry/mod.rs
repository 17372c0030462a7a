//! Schema registry clients: subjects, versions, and the schema ids of Confluent's wire format.
//!
//! Engines: Confluent's REST API (`http://`, `https://`: Confluent, Apicurio, Karapace, Redpanda)
//! and SQLite (the embedded file). Both pass `tests/registry_conformance.rs`.

pub(crate) mod compatibility;
mod confluent;
mod level;
mod references;
mod sqlite;

use std::sync::Arc;

use crate::{Error, Kind, Result};

/// A registered schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The schema id of the wire format (bytes 1 to 4 of a key or value, big-endian).
    pub id: u32,
    /// The version within the subject, from 1.
    pub version: u32,
    /// The JSON text of the Avro schema. Referenced types of other subjects are inlined.
    pub schema: String,
}

/// A schema registry.
pub trait Registry: Send + Sync {
    /// Registers `schema` under `subject`, or finds it there, and returns it.
    ///
    /// # Errors
    /// `Data` when the registry refuses the schema, with the subject and the registry's reason;
    /// `Retry` when the registry does not answer.
    fn register(&self, subject: &str, schema: &str) -> Result<Registered>;
    /// Deletes a subject with all its versions permanently, so that any schema can be registered
    /// under it again. False when it does not exist.
    ///
    /// # Errors
    /// `Retry` when the registry does not answer, `Data` when it refuses.
    fn delete(&self, subject: &str) -> Result<bool>;
    /// Registers `schema` under `subject`, or finds it there, even if it cannot read the records of
    /// earlier versions. In a registry with compatibility levels the subject's level is NONE
    /// meanwhile.
    ///
    /// # Errors
    /// Those of [`Registry::register`].
    fn replace(&self, subject: &str, schema: &str) -> Result<Registered> {
        self.register(subject, schema)
    }
    /// Restores the compatibility level of the subject, if a process ended while it
    /// [replaced](Self::replace) a schema.
    ///
    /// # Errors
    /// `Retry` when the registry does not answer, `Data` when it refuses.
    fn settle(&self, _subject: &str) -> Result<()> {
        Ok(())
    }
    /// The schema with this id, with referenced types inlined; `None` when the registry has no such
    /// id. An engine may answer from its cache.
    ///
    /// # Errors
    /// `Retry` when the registry does not answer, `Data` when it refuses or the schema is not Avro.
    fn by_id(&self, id: u32) -> Result<Option<String>>;
    /// Like [`Registry::by_id`], but never from a cache.
    ///
    /// # Errors
    /// Those of [`Registry::by_id`].
    fn by_id_now(&self, id: u32) -> Result<Option<String>> {
        self.by_id(id)
    }
    /// All versions of a subject, the oldest first; empty when the subject does not exist.
    ///
    /// # Errors
    /// Those of [`Registry::by_id`].
    fn versions(&self, subject: &str) -> Result<Vec<Registered>>;
    /// The newest version of a subject; `None` when the subject does not exist.
    ///
    /// # Errors
    /// Those of [`Registry::by_id`].
    fn latest(&self, subject: &str) -> Result<Option<Registered>> {
        Ok(self.versions(subject)?.pop())
    }
    /// The compatibility level that a new version of the subject must keep, as the registry names
    /// it: the subject's own, else the registry's. `None` when the registry has no levels.
    ///
    /// # Errors
    /// Those of [`Registry::by_id`].
    fn compatibility(&self, _subject: &str) -> Result<Option<String>> {
        Ok(None)
    }
}

/// The number of subjects of the registry at `url` (`http(s)://…`): a check of the connection.
///
/// # Errors
/// `Data` when no registry answers at this URL (as with 404), or it refuses the credentials;
/// `Retry` when nothing answers.
pub fn ask(url: &str) -> Result<usize> {
    confluent::ConfluentRegistry::open(url)?.subjects()
}

/// Opens the registry that `url` names: `http(s)://[user:password@]host:port[/path][?ca=FILE]` or
/// `sqlite://FILE`. `ca` is a PEM file of the authorities to trust instead of the system's. An HTTP
/// registry is not contacted before the first call.
///
/// ```
/// # fn main() -> tidemill_log::Result<()> {
/// let folder = tempfile::tempdir().expect("a folder");
/// let url = format!("sqlite://{}", folder.path().join("log.db").display());
/// let registry = tidemill_log::registry::open(&url)?;
/// let registered = registry.register("users-value", r#""string""#)?;
/// assert_eq!(registered.version, 1);
/// assert_eq!(registry.by_id(registered.id)?.as_deref(), Some(r#""string""#));
/// assert_eq!(registry.latest("users-value")?, Some(registered));
/// // BACKWARD: a reader of the new schema could not read what was written before.
/// let refused = registry.register("users-value", r#""int""#).unwrap_err();
/// assert_eq!(refused.kind(), tidemill_log::Kind::Data);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// `Data` for another scheme, an unknown setting or an unusable `ca` file; SQLite: those of
/// [`crate::sqlite::connect`].
pub fn open(url: &str) -> Result<Arc<dyn Registry>> {
    if url.starts_with("http://") || url.starts_with("https://") {
        Ok(Arc::new(confluent::ConfluentRegistry::open(url)?))
    } else if let Some(file) = url.strip_prefix("sqlite://") {
        Ok(Arc::new(sqlite::SqliteRegistry::open(file)?))
    } else {
        let what = format!(
            "`{url}` is not the URL of a schema registry: give http(s)://HOST:PORT[/PATH] or \
             sqlite://FILE"
        );
        Err(Error::new(Kind::Data, what))
    }
}
