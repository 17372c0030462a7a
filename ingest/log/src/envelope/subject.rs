//! Under which version of its subject a table's schema is written.
//!
//! Invariants:
//! 1. The newest version of a subject is the one that the table has now, so whoever asks the
//!    registry for it plans right. A registry answers a schema that it knows with the old version:
//!    where a table is again what it was, its schema gets the attribute `revision`, and with it a
//!    version of its own.
//! 2. A schema that cannot read what the newest one wrote, or has a column again that the newest
//!    one lacks and an earlier one had, is registered only with a change that begins the table
//!    anew in all partitions: behind it nobody needs the records before it.

use std::collections::HashSet;

use serde_json::Value as Json;

use crate::registry::{Registered, Registry, compatibility};
use crate::schema::columns_of_envelope;
use crate::{Error, Kind, Result};

/// The attribute of a schema that the subject held before: the version that it comes after.
const REVISION: &str = "revision";

/// How a change's schemas may stand to those of its topic so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evolution {
    /// The change is in the topic already, and so are its schemas.
    Written,
    /// It comes next: its schemas must read all that the topic holds.
    Next,
    /// It begins the table anew, where the registry takes the schemas.
    Anew,
    /// It begins the table anew, and the registry has to take the schemas.
    Replacing,
}

/// The id of a schema. The inner error says why records before cannot be read with it.
pub(super) fn register(
    registry: &dyn Registry,
    subject: &str,
    schema: &str,
    evolution: Evolution,
) -> Result<std::result::Result<u32, String>> {
    let latest = registry.latest(subject)?;
    let latest = match latest {
        Some(latest) if is_same(&latest.schema, schema) => return Ok(Ok(latest.id)),
        Some(latest) if evolution != Evolution::Written => latest,
        _ => return Ok(Ok(registry.register(subject, schema)?.id)),
    };
    if evolution == Evolution::Next
        && let Err(why) = compatibility::can_read(&latest.schema, schema)?
    {
        return Ok(Err(why));
    }
    if evolution == Evolution::Next
        && let Some(column) = back(registry, subject, &latest.schema, schema)?
    {
        return Ok(Err(format!(
            "column `{column}` was there before, and rows of then still have their values in it"
        )));
    }
    let put = |schema: &str| match evolution {
        Evolution::Replacing => taken(registry, subject, schema),
        _ => registry.register(subject, schema),
    };
    let registered = put(schema).and_then(|registered| match registered.version {
        version if version > latest.version => Ok(registered),
        _ => put(&revised(schema, latest.version)?),
    });
    match registered {
        Ok(registered) => Ok(Ok(registered.id)),
        // Begun anew, the table has a way on.
        Err(error) if error.kind() == Kind::Data && evolution == Evolution::Next => {
            Ok(Err(error.to_string()))
        }
        Err(error) if error.kind() == Kind::Data => Err(refused(error)),
        Err(error) => Err(error),
    }
}

/// A column that the newest version does not have, and one before it had: rows that were written
/// then and never since would show what they held.
fn back(
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

/// The columns of an envelope; none of a key, whose columns a row cannot lack.
fn columns(schema: &str) -> Vec<String> {
    let fields = columns_of_envelope(schema).unwrap_or_default();
    fields.columns.into_iter().map(|it| it.name).collect()
}

/// Registers a schema, whatever the subject's compatibility says.
fn taken(registry: &dyn Registry, subject: &str, schema: &str) -> Result<Registered> {
    match registry.register(subject, schema) {
        Err(error) if error.kind() == Kind::Data => {
            tracing::warn!(
                subject,
                %error,
                "the schema replaces those before it, which it cannot read"
            );
            registry.replace(subject, schema)
        }
        other => other,
    }
}

/// A registry's refusal, with the way on.
fn refused(error: Error) -> Error {
    let what = format!(
        "{error}. To publish the table under its new schema, read anew, set `compatibility = \
         \"none\"` in [publish], or run `tidemill ingest --resnapshot` once: views and other \
         readers of the topic must follow"
    );
    Error::with_source(Kind::Data, what, error)
}

/// Whether two schemas are the same but for their revisions.
fn is_same(one: &str, other: &str) -> bool {
    let plain = |schema: &str| {
        let mut schema: Json = serde_json::from_str(schema).ok()?;
        schema.as_object_mut()?.remove(REVISION);
        Some(schema)
    };
    one == other || plain(one).is_some_and(|one| Some(one) == plain(other))
}

/// The schema as one that comes after `version`.
fn revised(schema: &str, version: u32) -> Result<String> {
    let mut json: Json = serde_json::from_str(schema)
        .map_err(|error| Error::with_source(Kind::Bug, "a schema is no JSON", error))?;
    if let Some(object) = json.as_object_mut() {
        object.insert(REVISION.to_owned(), version.into());
    }
    Ok(json.to_string())
}
