//! The output of a view: its primary key, and whether the plan proves that the key is unique.
//!
//! | `primary_key` | partition key | clustering columns |
//! |---|---|---|
//! | `'a'` | a | none |
//! | `'a, b'` | a | b |
//! | `'(a, b), c'` | a, b | c |
//! | `'(a, b)'` | a, b | none |
//!
//! The notation is that of Cassandra's `PRIMARY KEY`.

use datafusion_sql::sqlparser::tokenizer::Location;
use tidemill_ir::{Output, Rel, Source, View, is_unique};
use tidemill_log::Result;

use super::script::{Script, did_you_mean};

/// Parses `primary_key = 'a, b'` (partition key `a`) or `'(a, b), c'` (partition key `a, b`).
///
/// # Errors
/// `Data` with the place, when the text does not parse or names a column that the view lacks.
///
/// If the plan does not prove the key unique, the view is still planned: `unique` is false, and the
/// sink operator keeps the rows of each key, to withhold those that share one.
pub(super) fn output(
    text: &str,
    rel: &Rel,
    sources: &[Source],
    views: &[View],
    script: Script<'_>,
    at: Location,
) -> Result<Output> {
    let malformed = || {
        let what = format!(
            "primary_key = '{text}' does not parse: write 'a, b' (partition key a, clustering \
             column b) or '(a, b), c' (partition key a and b, clustering column c)"
        );
        script.error(at, what)
    };
    let trimmed = text.trim();
    let (partition, clustering) = match trimmed.strip_prefix('(') {
        Some(rest) => {
            let (partition, rest) = rest.split_once(')').ok_or_else(malformed)?;
            let clustering = match rest.trim() {
                "" => None,
                rest => Some(rest.strip_prefix(',').ok_or_else(malformed)?),
            };
            (partition, clustering)
        }
        None => match trimmed.split_once(',') {
            Some((partition, clustering)) => (partition, Some(clustering)),
            None => (trimmed, None),
        },
    };
    let mut primary_key = Vec::new();
    let partition: Vec<&str> = partition.split(',').collect();
    for part in partition
        .iter()
        .copied()
        .chain(clustering.into_iter().flat_map(|c| c.split(',')))
    {
        let name = unquoted(part.trim()).ok_or_else(malformed)?;
        let Some((index, _)) = rel.schema.column_with_name(&name) else {
            let known = rel.schema.fields().iter().map(|field| field.name());
            let hint = did_you_mean(&name, known);
            let what = format!("primary_key names `{name}`, which is no column of the view{hint}");
            return Err(script.error(at, what));
        };
        if primary_key.contains(&index) {
            return Err(script.error(at, format!("primary_key names `{name}` twice")));
        }
        primary_key.push(index);
    }
    let unique = is_unique(rel, &primary_key, sources, views);
    Ok(Output {
        primary_key,
        partition_columns: partition.len(),
        unique,
        sink: None,
    })
}

/// The name of a sink in `sink = 'NAME'`. Whether there is a sink of this name is not known here.
///
/// # Errors
/// `Data` with the place, when the text is no name.
pub(super) fn sink(text: &str, script: Script<'_>, at: Location) -> Result<String> {
    if tidemill_ir::is_sink_name(text) {
        return Ok(text.to_owned());
    }
    let what = format!(
        "sink = '{text}' is no name of a sink: use a to z, 0 to 9 and _, as in --sink NAME=URL"
    );
    Err(script.error(at, what))
}

/// A name in lower case, or as quoted; `None` if it is not a name.
///
/// Letters, digits and underscores only, because every sink must be able to hold the name.
fn unquoted(part: &str) -> Option<String> {
    let quoted = part
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let name = quoted.map_or_else(|| part.to_lowercase(), str::to_owned);
    let plain = |c: char| c == '_' || c.is_ascii_alphanumeric();
    (!name.is_empty() && name.chars().all(plain)).then_some(name)
}
