//! The file `tidemill.toml`: connections and their settings, and a warning if others can read its
//! passwords.
//!
//! In: the file in the current folder, else in the pipeline's. Out: its content, with positions for
//! messages. No message quotes a line of the file, because it may contain passwords.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;
use tidemill_protocol::{output, redact};
use toml::Spanned;

/// The name of the file.
pub(super) const NAME: &str = "tidemill.toml";

/// The permissions of the group and of others to read.
const READABLE_BY_OTHERS: u32 = 0o044;

/// The content of the file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) connections: Connections,
    /// Settings of librdkafka; `ssl.ca.location` may be written with or without quotes.
    #[serde(default)]
    pub(super) kafka: toml::Table,
    #[serde(default)]
    pub(super) cassandra: Settings,
    #[serde(default)]
    pub(super) registry: Settings,
    /// The URLs of the sinks that views name, by name.
    #[serde(default)]
    pub(super) sinks: BTreeMap<String, Spanned<String>>,
}

/// The table `[connections]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Connections {
    pub(super) postgres: Option<Spanned<String>>,
    pub(super) kafka: Option<Spanned<String>>,
    pub registry: Option<Spanned<String>>,
    pub(super) cassandra: Option<Spanned<String>>,
    pub data: Option<Spanned<String>>,
    #[serde(alias = "journal")]
    pub state: Option<Spanned<String>>,
}

/// The tables `[cassandra]` and `[registry]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) password_file: Option<String>,
    pub(super) ca: Option<String>,
    pub(super) cert: Option<String>,
    pub(super) key: Option<String>,
    pub(super) verify: Option<String>,
    /// `3`, also without quotes, or `dc1:3,dc2:2`.
    #[serde(default, deserialize_with = "text_or_number")]
    pub(super) replication: Option<String>,
    pub(super) consistency: Option<String>,
}

/// Reads a text or a number as text.
fn text_or_number<'de, D: serde::Deserializer<'de>>(given: D) -> Result<Option<String>, D::Error> {
    match toml::Value::deserialize(given)? {
        toml::Value::String(text) => Ok(Some(text)),
        toml::Value::Integer(number) => Ok(Some(number.to_string())),
        _ => Err(serde::de::Error::custom("expected text or a number")),
    }
}

/// The file that was found.
pub(super) struct Found {
    path: PathBuf,
    text: String,
    pub(super) file: File,
}

impl Found {
    /// `file:line:column` of a byte offset, for messages.
    pub(super) fn place(&self, offset: usize) -> String {
        let (line, column) = place_of(&self.text, offset);
        format!("{}:{line}:{column}", self.path.display())
    }

    /// The file's path, for messages.
    pub(super) fn path(&self) -> String {
        self.path.display().to_string()
    }

    /// The settings of `[kafka]` by their full names.
    pub(super) fn kafka(&self) -> anyhow::Result<Vec<(String, String)>> {
        let mut all = Vec::new();
        flatten("", &self.file.kafka, &mut all)
            .map_err(|name| anyhow::anyhow!("{}: kafka.{name} must be text", self.path()))?;
        Ok(all)
    }

    /// Whether the file contains a password.
    fn holds_password(&self) -> bool {
        let all = &self.file.connections;
        let urls = [&all.postgres, &all.kafka, &all.registry, &all.cassandra];
        let kafka = self.kafka().unwrap_or_default();
        urls.into_iter()
            .flatten()
            .chain(self.file.sinks.values())
            .any(|url| redact::holds_password(url.get_ref()))
            || kafka
                .iter()
                .any(|(name, _)| redact::is_secret_setting(name))
            || self.file.cassandra.password.is_some()
            || self.file.registry.password.is_some()
    }
}

/// Reads the file, if there is one, and warns if it contains a password and others can read it.
///
/// # Errors
///
/// The file cannot be read or parsed. The message contains the position, but no text of the file.
pub(super) fn read(folder: &Path) -> anyhow::Result<Option<Found>> {
    for path in [PathBuf::from(NAME), folder.join(NAME)] {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let file: File = toml::from_str(&text).map_err(|error| {
            let (line, column) = place_of(&text, error.span().map_or(0, |span| span.start));
            // Only the message: the error's own text quotes the line, which may contain a password.
            anyhow::anyhow!("{}:{line}:{column}: {}", path.display(), error.message())
        })?;
        let found = Found { path, text, file };
        let mode = std::fs::metadata(&found.path)?.permissions().mode();
        if mode & READABLE_BY_OTHERS != 0 && found.holds_password() {
            let path = found.path();
            output::log(&format!(
                "warning: {path} holds a password and others may read it; chmod 600 {path}\n"
            ));
        }
        return Ok(Some(found));
    }
    Ok(None)
}

/// Flattens tables: `ssl.ca.location` without quotes is a table in a table. The error is the name
/// of a setting that is no text, number or boolean.
fn flatten(
    before: &str,
    table: &toml::Table,
    all: &mut Vec<(String, String)>,
) -> Result<(), String> {
    for (name, value) in table {
        let name = format!("{before}{name}");
        let text = match value {
            toml::Value::Table(table) => {
                flatten(&format!("{name}."), table, all)?;
                continue;
            }
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(yes) => yes.to_string(),
            _ => return Err(name),
        };
        all.push((name, text));
    }
    Ok(())
}

/// Line and column of a byte offset, both from 1.
fn place_of(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .map_or(0, |tail| tail.chars().count())
        + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_kafkas_settings_need_no_quotes() {
        let folder = tempfile::tempdir().unwrap();
        let text = "[kafka]\nsecurity.protocol = 'SSL'\n'ssl.ca.location' = 'ca'\n\
                    socket.nagle.disable = true\n";
        std::fs::write(folder.path().join(NAME), text).unwrap();
        let found = read(folder.path()).unwrap().unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut all = found.kafka().unwrap();
        all.sort();
        let wanted = [
            pair("security.protocol", "SSL"),
            pair("socket.nagle.disable", "true"),
            pair("ssl.ca.location", "ca"),
        ];
        assert_eq!(all, wanted);
    }
}
