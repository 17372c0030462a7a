//! Schema registries: which Avro schema a Confluent wire-format id stands for.
//!
//! Engines: Confluent (`http://`, `https://`: Confluent, Apicurio, Karapace, Redpanda) and
//! SQLite (the embedded file). Both pass `tests/registry_conformance.rs`.

pub(crate) mod compatibility;
mod confluent;
mod level;
mod references;
mod sqlite;

use std::sync::Arc;

use crate::{Error, Kind, Result};

/// A schema as a registry holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The id that the wire format carries (bytes 1 to 4, big-endian).
    pub id: u32,
    /// Version within its subject, from 1.
    pub version: u32,
    /// The Avro schema's JSON text; types of other subjects that it refers to are defined in it.
    pub schema: String,
}

/// A schema registry.
pub trait Registry: Send + Sync {
    /// Registers `schema` under `subject` (or finds it there) and returns it. An incompatible
    /// schema is an error of kind `Data` naming the subject and the registry's reason.
    fn register(&self, subject: &str, schema: &str) -> Result<Registered>;
    /// Deletes a subject with all its versions for good, so that any schema may be registered under
    /// it again; false when it is not there.
    ///
    /// # Errors
    /// `Retry` when the registry is away, `Data` when it refuses.
    fn delete(&self, subject: &str) -> Result<bool>;
    /// Registers `schema` under `subject` (or finds it there) although it may not read what the
    /// versions before it wrote. The subject's own compatibility is NONE meanwhile, in a registry
    /// that has one.
    fn replace(&self, subject: &str, schema: &str) -> Result<Registered> {
        self.register(subject, schema)
    }
    /// Restores the subject's own compatibility where a process ended while it
    /// [replaced](Self::replace) a schema.
    ///
    /// # Errors
    /// `Retry` when the registry is away, `Data` when it refuses.
    fn settle(&self, _subject: &str) -> Result<()> {
        Ok(())
    }
    /// The text of the schema with this id, with all types that it refers to, or none when the
    /// registry has no such id.
    fn by_id(&self, id: u32) -> Result<Option<String>>;
    /// The same as it is now: an engine that asks for an id once asks again.
    ///
    /// # Errors
    /// As [`Registry::by_id`].
    fn by_id_now(&self, id: u32) -> Result<Option<String>> {
        self.by_id(id)
    }
    /// All versions of a subject, oldest first; empty when the subject is not there.
    fn versions(&self, subject: &str) -> Result<Vec<Registered>>;
    /// The newest version of a subject.
    fn latest(&self, subject: &str) -> Result<Option<Registered>> {
        Ok(self.versions(subject)?.pop())
    }
}

/// Asks the registry at `url` (`http(s)://…`) how many subjects it has.
///
/// # Errors
/// `Data` when what answers there is no registry (a 404 says that none is at this path), or refuses
/// us; `Retry` when it is away.
pub fn ask(url: &str) -> Result<usize> {
    confluent::ConfluentRegistry::open(url)?.subjects()
}

/// Opens the registry that `url` names: `http(s)://[user:password@]host:port[/path][?ca=FILE]`, the
/// file with the authorities to trust in place of the system's, or `sqlite://FILE`.
pub fn open(url: &str) -> Result<Arc<dyn Registry>> {
    if url.starts_with("http://") || url.starts_with("https://") {
        Ok(Arc::new(confluent::ConfluentRegistry::open(url)?))
    } else if let Some(file) = url.strip_prefix("sqlite://") {
        Ok(Arc::new(sqlite::SqliteRegistry::open(file)?))
    } else {
        let what = format!(
            "`{url}` is no schema registry: give http(s)://HOST:PORT[/PATH] or sqlite://FILE"
        );
        Err(Error::new(Kind::Data, what))
    }
}
