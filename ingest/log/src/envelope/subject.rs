//! Schema evolution: registers the schema of a table as a version of its subject.
//!
//! Invariants:
//! 1. The newest version of a subject is the schema that the table has now, so whoever plans by the
//!    newest version is right. A registry answers a schema that it already holds with its old
//!    version. When a table returns to an earlier schema, the schema therefore gets the attribute
//!    `revision`, which makes it a new version.
//! 2. A schema needs a snapshot in two cases: it cannot read the records of the newest version, or
//!    a column returns that an earlier version had and the newest one lacks. Such a schema is
//!    registered only with the truncate that begins the snapshot in all partitions; no reader needs
//!    the records before that truncate.

use std::collections::HashSet;

use serde_json::Value as Json;

use crate::registry::{Registered, Registry, compatibility};
use crate::schema::columns_of_envelope;
use crate::{Error, Kind, Result};

/// The attribute of a schema that an earlier version equals: the number of the version that it
/// follows.
const REVISION: &str = "revision";

/// Which schemas may be registered for a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evolution {
    /// The change is in the topic already, and so are its schemas: any version of the subject will
    /// do.
    Written,
    /// The change is appended behind the others: its schemas must be able to read all that the
    /// topic holds.
    Next,
    /// The change begins a snapshot. The registry decides whether it accepts the schemas.
    Anew,
    /// The change begins a snapshot, and the schemas are registered whatever the compatibility
    /// level of the subject is.
    Replacing,
}

/// Registers a schema and returns its id. The inner error says why the schema cannot read earlier
/// records, so that a snapshot is needed.
///
/// # Errors
/// `Data` when the registry refuses the schema and a snapshot would not help; `Retry` when the
/// registry does not answer.
pub(super) fn register(
    registry: &dyn Registry,
    subject: &str,
    schema: &str,
    evolution: Evolution,
) -> Result<std::result::Result<u32, String>> {
    let latest = registry.latest(subject)?;
    let latest = match latest {
        Some(latest) if is_same_but_revision(&latest.schema, schema) => return Ok(Ok(latest.id)),
        Some(latest) if evolution != Evolution::Written => latest,
        _ => return Ok(Ok(registry.register(subject, schema)?.id)),
    };
    if evolution == Evolution::Next
        && let Err(why) = compatibility::can_read(&latest.schema, schema)?
    {
        return Ok(Err(why));
    }
    if evolution == Evolution::Next
        && let Some(column) = returning_column(registry, subject, &latest.schema, schema)?
    {
        return Ok(Err(format!(
            "column `{column}` was there before, and rows of then still have their values in it"
        )));
    }
    let put = |schema: &str| match evolution {
        Evolution::Replacing => register_or_replace(registry, subject, schema),
        _ => registry.register(subject, schema),
    };
    let registered = put(schema).and_then(|registered| match registered.version {
        version if version > latest.version => Ok(registered),
        _ => put(&with_revision(schema, latest.version)?),
    });
    match registered {
        Ok(registered) => Ok(Ok(registered.id)),
        // A snapshot may still be accepted.
        Err(error) if error.kind() == Kind::Data && evolution == Evolution::Next => {
            Ok(Err(error.to_string()))
        }
        Err(error) if error.kind() == Kind::Data => Err(with_remedy(error)),
        Err(error) => Err(error),
    }
}

/// A column of the new schema that the newest version lacks and an earlier version had. Rows that
/// were written under the earlier version and not since would show their old value in the column.
fn returning_column(
    registry: &dyn Registry,
    subject: &str,
    latest: &str,
    schema: &str,
) -> Result<Option<String>> {
    let (new, known) = (columns(schema), columns(latest));
    let mut added: Vec<String> = new.into_iter().filter(|it| !known.contains(it)).collect();
    if added.is_empty() {
        return Ok(None);
    }
    let versions = registry.versions(subject)?;
    let had: HashSet<String> = versions.iter().flat_map(|it| columns(&it.schema)).collect();
    added.retain(|column| had.contains(column));
    Ok(added.pop())
}

/// The column names of an envelope's schema; empty for a key's schema, whose columns every row has.
fn columns(schema: &str) -> Vec<String> {
    let fields = columns_of_envelope(schema).unwrap_or_default();
    fields.columns.into_iter().map(|it| it.name).collect()
}

/// Registers a schema. When the registry refuses it, registers it at compatibility level NONE.
fn register_or_replace(registry: &dyn Registry, subject: &str, schema: &str) -> Result<Registered> {
    match registry.register(subject, schema) {
        Err(error) if error.kind() == Kind::Data => {
            tracing::warn!(
                subject,
                %error,
                "registering a schema that cannot read the records of earlier versions"
            );
            registry.replace(subject, schema)
        }
        other => other,
    }
}

/// The registry's refusal, with what the user can do.
fn with_remedy(error: Error) -> Error {
    let what = format!(
        "{error}. To publish the table under its new schema, read anew, set `compatibility = \
         \"none\"` in [publish], or run `tidemill ingest --resnapshot` once: views and other \
         readers of the topic must follow"
    );
    Error::with_source(Kind::Data, what, error)
}

/// Whether two schemas are equal apart from the attribute `revision`.
fn is_same_but_revision(one: &str, other: &str) -> bool {
    let plain = |schema: &str| {
        let mut schema: Json = serde_json::from_str(schema).ok()?;
        schema.as_object_mut()?.remove(REVISION);
        Some(schema)
    };
    one == other || plain(one).is_some_and(|one| Some(one) == plain(other))
}

/// The schema with the attribute `revision`, as the successor of `version`.
fn with_revision(schema: &str, version: u32) -> Result<String> {
    let mut json: Json = serde_json::from_str(schema)
        .map_err(|error| Error::with_source(Kind::Bug, "a schema is no JSON", error))?;
    if let Some(object) = json.as_object_mut() {
        object.insert(REVISION.to_owned(), version.into());
    }
    Ok(json.to_string())
}
