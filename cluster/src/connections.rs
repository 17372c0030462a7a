//! Connections: where the stages' engines are. A pipeline names topics and tables, never engines.
//!
//! Flows in: flags, the environment, `tidemill.toml`. Flows out: one URL a stage, in the form the
//! engines take. For each connection on its own the flag wins over the environment, that over the
//! file, and whatever nobody names is the embedded SQLite file.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde::Deserialize;
use toml::Spanned;

use crate::exit::Usage;
use crate::{redact, urls};

/// The file with connections, looked for in the current folder, then in the pipeline's.
const FILE: &str = "tidemill.toml";

/// Cassandra's password; the sink reads it itself.
const CASSANDRA_PASSWORD: &str = "TIDEMILL_CASSANDRA_PASSWORD";

/// The embedded file when nobody names one.
const DATA: &str = "tidemill.sqlite";

/// Where epochs and checkpoints are kept when the views are not in the embedded file, and what it
/// was called before there were checkpoints: who has that folder goes on with it.
const STATE: &str = "./tidemill-state";
const STATE_BEFORE: &str = "./tidemill-journal";

/// The connections as flags and environment give them.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connections (flag, else environment, else tidemill.toml)")]
pub(crate) struct ConnectionArgs {
    /// The database that users land in: postgres://user@host/db, or as psql takes it
    #[arg(
        long,
        value_name = "URL",
        env = "TIDEMILL_POSTGRES",
        hide_env_values = true
    )]
    pub(crate) postgres: Option<String>,
    /// Kafka's brokers: host:port[,host:port]
    #[arg(
        long,
        value_name = "BROKERS",
        env = "TIDEMILL_KAFKA",
        hide_env_values = true
    )]
    pub(crate) kafka: Option<String>,
    /// The schema registry: http://host:port[/path]
    #[arg(
        long,
        value_name = "URL",
        env = "TIDEMILL_REGISTRY",
        hide_env_values = true
    )]
    pub(crate) registry: Option<String>,
    /// Cassandra: host[:port][,host][/keyspace]; the keyspace is `tidemill` unless given
    #[arg(
        long,
        value_name = "HOSTS",
        env = "TIDEMILL_CASSANDRA",
        hide_env_values = true
    )]
    pub(crate) cassandra: Option<String>,
    /// The SQLite file for everything that is not given above [default: tidemill.sqlite]
    #[arg(
        long,
        value_name = "FILE",
        env = "TIDEMILL_DATA",
        hide_env_values = true
    )]
    pub(crate) data: Option<String>,
    /// Where the journal and the checkpoints are kept: file://DIRECTORY or s3://BUCKET/PREFIX
    /// [default: the SQLite file, with Cassandra ./tidemill-state]
    #[arg(
        long,
        alias = "journal",
        value_name = "URL",
        env = "TIDEMILL_STATE",
        hide_env_values = true
    )]
    pub(crate) state: Option<String>,
}

/// One URL a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connections {
    pub(crate) database: String,
    pub(crate) log: String,
    pub(crate) registry: String,
    pub(crate) sink: String,
    /// Journal and checkpoints.
    pub(crate) state: String,
    /// The embedded file, whether or not a stage uses it.
    pub(crate) data: PathBuf,
    /// Those that somebody named, as they were given, by the names of their flags.
    pub(crate) named: Vec<(&'static str, String)>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    connections: FileConnections,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileConnections {
    postgres: Option<Spanned<String>>,
    kafka: Option<Spanned<String>>,
    registry: Option<Spanned<String>>,
    cassandra: Option<Spanned<String>>,
    data: Option<Spanned<String>>,
    #[serde(alias = "journal")]
    state: Option<Spanned<String>>,
}

/// A value and where it was said, for messages.
struct Said {
    value: String,
    place: String,
}

/// What the connections' file said, if there is one.
struct Found {
    path: PathBuf,
    text: String,
    connections: FileConnections,
}

impl Connections {
    /// Resolves the connections for a pipeline's folder and remembers their passwords, so that no
    /// line printed later shows one.
    pub(crate) fn resolve(args: &ConnectionArgs, folder: &Path) -> anyhow::Result<Self> {
        let found = read(folder)?;
        let file = found.as_ref().map(|found| &found.connections);
        let say = |name: &str, arg: &Option<String>, in_file: Option<&Spanned<String>>| {
            said(name, arg, in_file, found.as_ref())
        };
        let all = [
            say(
                "postgres",
                &args.postgres,
                file.and_then(|file| file.postgres.as_ref()),
            ),
            say(
                "kafka",
                &args.kafka,
                file.and_then(|file| file.kafka.as_ref()),
            ),
            say(
                "registry",
                &args.registry,
                file.and_then(|file| file.registry.as_ref()),
            ),
            say(
                "cassandra",
                &args.cassandra,
                file.and_then(|file| file.cassandra.as_ref()),
            ),
            say("data", &args.data, file.and_then(|file| file.data.as_ref())),
            say("state", &args.state, None)
                .or_else(|| say("journal", &std::env::var("TIDEMILL_JOURNAL").ok(), None))
                .or_else(|| say("state", &None, file.and_then(|file| file.state.as_ref()))),
        ];
        redact::remember(
            all.iter().flatten().map(|said| said.value.as_str()),
            std::env::var(CASSANDRA_PASSWORD).ok(),
        );
        let names = [
            "postgres",
            "kafka",
            "registry",
            "cassandra",
            "data",
            "state",
        ];
        let named = names.into_iter().zip(&all);
        let named = named.filter_map(|(name, said)| Some((name, said.as_ref()?.value.clone())));
        let named = named.collect();
        let [postgres, kafka, registry, cassandra, data, state] = all;
        let data = data.map_or_else(|| DATA.to_owned(), |said| said.value);
        let data = data.strip_prefix("sqlite://").unwrap_or(&data).to_owned();
        let embedded = format!("sqlite://{data}");
        let sink = engine(cassandra, urls::cassandra, &embedded)?;
        // Bindings must be as durable as what was written under them, so they are in the embedded
        // file only when the views are there as well.
        let state_default = if sink.starts_with("sqlite://") {
            sink.clone()
        } else if Path::new(STATE_BEFORE).is_dir() {
            format!("file://{STATE_BEFORE}")
        } else {
            format!("file://{STATE}")
        };
        Ok(Self {
            database: engine(postgres, urls::postgres, &embedded)?,
            log: engine(kafka, urls::kafka, &embedded)?,
            registry: engine(registry, urls::registry, &embedded)?,
            state: engine(state, urls::state, &state_default)?,
            sink,
            data: data.into(),
            named,
        })
    }

    /// The stages by name, for summaries; passwords masked.
    pub(crate) fn described(&self) -> [(&'static str, String); 4] {
        [
            ("database", redact::url(&self.database)),
            ("log", redact::url(&self.log)),
            ("registry", redact::url(&self.registry)),
            ("views", redact::url(&self.sink)),
        ]
    }
}

fn engine(
    said: Option<Said>,
    parse: fn(&str) -> Result<String, String>,
    default: &str,
) -> anyhow::Result<String> {
    match said {
        None => Ok(default.to_owned()),
        Some(said) => parse(&said.value).map_err(|why| {
            Usage(format!(
                "{}: `{}`: {why}",
                said.place,
                redact::url(&said.value)
            ))
            .into()
        }),
    }
}

fn said(
    name: &str,
    arg: &Option<String>,
    in_file: Option<&Spanned<String>>,
    found: Option<&Found>,
) -> Option<Said> {
    // An empty value (`TIDEMILL_KAFKA= tidemill …`) takes a connection back.
    if let Some(arg) = arg.as_ref().filter(|arg| !arg.trim().is_empty()) {
        // The argument parser has merged the environment into the flag; tell them apart again.
        let variable = format!("TIDEMILL_{}", name.to_ascii_uppercase());
        let from_variable = std::env::var(&variable).is_ok_and(|value| &value == arg);
        let place = if from_variable {
            variable
        } else {
            format!("--{name}")
        };
        return Some(Said {
            value: arg.trim().to_owned(),
            place,
        });
    }
    let (value, found) = in_file.zip(found)?;
    let (line, column) = place_of(&found.text, value.span().start);
    let place = format!(
        "{}:{line}:{column}: connections.{name}",
        found.path.display()
    );
    Some(Said {
        value: value.get_ref().trim().to_owned(),
        place,
    })
}

fn read(folder: &Path) -> anyhow::Result<Option<Found>> {
    for path in [PathBuf::from(FILE), folder.join(FILE)] {
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
        return Ok(Some(Found {
            path,
            text,
            connections: file.connections,
        }));
    }
    Ok(None)
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

    fn args(postgres: Option<&str>, cassandra: Option<&str>) -> ConnectionArgs {
        ConnectionArgs {
            postgres: postgres.map(str::to_owned),
            cassandra: cassandra.map(str::to_owned),
            ..ConnectionArgs::default()
        }
    }

    #[test]
    fn nothing_given_is_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let all = Connections::resolve(&args(None, None), folder.path()).unwrap();
        for url in [
            &all.database,
            &all.log,
            &all.registry,
            &all.sink,
            &all.state,
        ] {
            assert_eq!(url, "sqlite://tidemill.sqlite");
        }
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_state_follows_the_sink() {
        let folder = tempfile::tempdir().unwrap();
        let toml = "[connections]\npostgres = 'a/db'\nkafka = 'b'\n";
        std::fs::write(folder.path().join(FILE), toml).unwrap();
        let given = args(Some("postgres://c/db"), Some("d"));
        let all = Connections::resolve(&given, folder.path()).unwrap();
        assert_eq!(all.database, "postgres://c/db");
        assert_eq!(all.log, "kafka://b:9092");
        assert_eq!(all.sink, "cassandra://d:9042/tidemill");
        assert_eq!(all.state, "file://./tidemill-state");
        assert_eq!(all.registry, "sqlite://tidemill.sqlite");
    }

    #[test]
    fn errors_name_file_line_and_column() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(FILE);
        std::fs::write(&file, "[connections]\nkafak = 'b'\n").unwrap();
        let error = Connections::resolve(&args(None, None), folder.path()).unwrap_err();
        let said = error.to_string();
        assert!(
            said.contains("tidemill.toml:2:1: unknown field `kafak`"),
            "{said}"
        );
        std::fs::write(&file, "[connections]\n\nkafka = 'http://b'\n").unwrap();
        let error = Connections::resolve(&args(None, None), folder.path()).unwrap_err();
        let said = error.to_string();
        assert!(
            said.contains("tidemill.toml:3:9: connections.kafka: `http://b`"),
            "{said}"
        );
    }
}
