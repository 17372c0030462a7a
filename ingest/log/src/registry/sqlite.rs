//! The embedded schema registry: schemas as rows of the embedded SQLite file.
//!
//! Schema ids are assigned in the order of registration, over all subjects. The same text is
//! registered once under a subject. The compatibility level is BACKWARD, Confluent's default: a
//! reader with the new schema must be able to read the records of the newest version before it.

use std::sync::{Mutex, PoisonError};

use apache_avro::Schema;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

use super::{Registered, Registry, compatibility};
use crate::sqlite::{connect, failed};
use crate::{Error, Kind, Result};

/// The table of the registry.
const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS _tidemill_schemas (
        id INTEGER PRIMARY KEY, subject TEXT NOT NULL, version INTEGER NOT NULL,
        schema TEXT NOT NULL, UNIQUE (subject, version)
    );";
/// The versions of a subject, the oldest first.
const VERSIONS: &str =
    "SELECT id, version, schema FROM _tidemill_schemas WHERE subject = ?1 ORDER BY version";

/// The registry in one embedded file.
pub(super) struct SqliteRegistry {
    file: String,
    connection: Mutex<Connection>,
}

impl SqliteRegistry {
    /// Opens the file and creates the table.
    pub(super) fn open(file: &str) -> Result<Self> {
        let connection = connect(file)?;
        connection
            .execute_batch(TABLE)
            .map_err(|error| failed(file, "cannot make the registry's table", error))?;
        Ok(Self {
            file: file.to_owned(),
            connection: Mutex::new(connection),
        })
    }

    /// Runs `work` on the connection; `doing` names the operation in errors.
    fn with<T>(
        &self,
        doing: &str,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let mut connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        work(&mut connection).map_err(|error| failed(&self.file, doing, error))
    }
}

impl SqliteRegistry {
    /// Registers a schema that the subject does not hold yet, unless `admits` refuses it.
    fn add(
        &self,
        subject: &str,
        schema: &str,
        admits: impl Fn(&Registered) -> Result<()>,
    ) -> Result<Registered> {
        Schema::parse_str(schema).map_err(|error| {
            let what = format!("subject `{subject}`: not an Avro schema");
            Error::with_source(Kind::Data, what, error)
        })?;
        self.with("cannot register a schema", |connection| {
            // Immediate: no other process registers between the check and the insert.
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let known = all_versions(&transaction, subject)?;
            if let Some(same) = known.iter().find(|it| it.schema == schema) {
                return Ok(Ok(same.clone()));
            }
            let newest = known.last();
            if let Some(Err(refused)) = newest.map(admits) {
                return Ok(Err(refused));
            }
            let version = newest.map_or(1, |newest| newest.version + 1);
            let id = transaction.query_row(
                "INSERT INTO _tidemill_schemas (subject, version, schema) VALUES (?1, ?2, ?3)
                 RETURNING id",
                params![subject, version, schema],
                |row| row.get(0),
            )?;
            transaction.commit()?;
            Ok(Ok(Registered {
                id,
                version,
                schema: schema.to_owned(),
            }))
        })?
    }
}

impl Registry for SqliteRegistry {
    fn register(&self, subject: &str, schema: &str) -> Result<Registered> {
        self.add(subject, schema, |newest| check(subject, newest, schema))
    }

    fn replace(&self, subject: &str, schema: &str) -> Result<Registered> {
        self.add(subject, schema, |_| Ok(()))
    }

    fn delete(&self, subject: &str) -> Result<bool> {
        self.with("cannot delete a subject", |connection| {
            let delete = "DELETE FROM _tidemill_schemas WHERE subject = ?1";
            Ok(connection.execute(delete, [subject])? > 0)
        })
    }

    fn by_id(&self, id: u32) -> Result<Option<String>> {
        self.with("cannot read a schema", |connection| {
            connection
                .prepare_cached("SELECT schema FROM _tidemill_schemas WHERE id = ?1")?
                .query_row([id], |row| row.get(0))
                .optional()
        })
    }

    fn compatibility(&self, _subject: &str) -> Result<Option<String>> {
        Ok(Some("BACKWARD".to_owned()))
    }

    fn versions(&self, subject: &str) -> Result<Vec<Registered>> {
        self.with("cannot read a subject", |connection| {
            all_versions(connection, subject)
        })
    }
}

/// The versions of a subject, the oldest first.
fn all_versions(connection: &Connection, subject: &str) -> rusqlite::Result<Vec<Registered>> {
    let registered = |row: &Row<'_>| {
        Ok(Registered {
            id: row.get(0)?,
            version: row.get(1)?,
            schema: row.get(2)?,
        })
    };
    connection
        .prepare_cached(VERSIONS)?
        .query_map([subject], registered)?
        .collect()
}

/// Whether a reader with the new schema can read all records of the newest version.
fn check(subject: &str, newest: &Registered, schema: &str) -> Result<()> {
    compatibility::can_read(&newest.schema, schema)?.map_err(|reason| {
        let what = format!(
            "subject `{subject}`: the new schema cannot read what version {} wrote: {reason}",
            newest.version
        );
        Error::new(Kind::Data, what)
    })
}
