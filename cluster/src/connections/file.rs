//! `tidemill.toml`: connections and their settings, and who may read it.
//!
//! Flows in: the file in the current folder, else in the pipeline's. Flows out: what it says, with
//! the places for messages. No message quotes a line of it: it may hold passwords.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;
use toml::Spanned;

use crate::{output, redact};

/// The file with connections, looked for in the current folder, then in the pipeline's.
pub(super) const NAME: &str = "tidemill.toml";

/// Everybody's and the group's right to read.
const READABLE_BY_OTHERS: u32 = 0o044;

/// What the file says.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) connections: Connections,
    /// librdkafka's settings; `ssl.ca.location` may be written with and without quotes.
    #[serde(default)]
    pub(super) kafka: toml::Table,
    #[serde(default)]
    pub(super) cassandra: Settings,
    #[serde(default)]
    pub(super) registry: Settings,
}

/// `[connections]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Connections {
    pub(super) postgres: Option<Spanned<String>>,
    pub(super) kafka: Option<Spanned<String>>,
    pub(super) registry: Option<Spanned<String>>,
    pub(super) cassandra: Option<Spanned<String>>,
    pub(super) data: Option<Spanned<String>>,
    #[serde(alias = "journal")]
    pub(super) state: Option<Spanned<String>>,
}

/// `[cassandra]` and `[registry]`: who enters, TLS, and Cassandra's replicas and level.
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

fn text_or_number<'de, D: serde::Deserializer<'de>>(given: D) -> Result<Option<String>, D::Error> {
    match toml::Value::deserialize(given)? {
        toml::Value::String(text) => Ok(Some(text)),
        toml::Value::Integer(number) => Ok(Some(number.to_string())),
        _ => Err(serde::de::Error::custom("expected text or a number")),
    }
}

/// The file, if there is one.
pub(super) struct Found {
    path: PathBuf,
    text: String,
    pub(super) file: File,
}

impl Found {
    /// `file:line:column` of a byte.
    pub(super) fn place(&self, offset: usize) -> String {
        let (line, column) = place_of(&self.text, offset);
        format!("{}:{line}:{column}", self.path.display())
    }

    /// The file's name, for messages.
    pub(super) fn path(&self) -> String {
        self.path.display().to_string()
    }

    /// `[kafka]`'s settings by their whole names.
    pub(super) fn kafka(&self) -> anyhow::Result<Vec<(String, String)>> {
        let mut all = Vec::new();
        flatten("", &self.file.kafka, &mut all)
            .map_err(|name| anyhow::anyhow!("{}: kafka.{name} must be text", self.path()))?;
        Ok(all)
    }

    fn holds_password(&self) -> bool {
        let all = &self.file.connections;
        let urls = [&all.postgres, &all.kafka, &all.registry, &all.cassandra];
        let kafka = self.kafka().unwrap_or_default();
        urls.into_iter()
            .flatten()
            .any(|url| redact::holds_password(url.get_ref()))
            || kafka
                .iter()
                .any(|(name, _)| redact::is_secret_setting(name))
            || self.file.cassandra.password.is_some()
            || self.file.registry.password.is_some()
    }
}

/// Reads the file, and warns when others may do so as well and should not.
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
            // The message alone: the error's own text quotes the line, password and all.
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

/// `ssl.ca.location` without quotes is a table in a table. An error names what is no value.
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

/// Line and column, from 1, of a byte offset.
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
