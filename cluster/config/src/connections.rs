//! Connections: the URL of each stage's engine, from flags, the environment and `tidemill.toml`. A
//! pipeline names topics and tables, never engines.
//!
//! In: flags, the environment, `tidemill.toml`, and the files that those name. Out: one URL per
//! stage in the form that the engines take, including credentials and TLS settings.
//!
//! For each connection, the flag wins over the environment, and the environment over the file. A
//! connection that is not named is the embedded SQLite file. A password in a flag is refused,
//! because every user of the machine can see the flags of a process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use tidemill_protocol::exit::Usage;
use tidemill_protocol::{redact, urls};
use toml::Spanned;

mod credentials;
mod file;
mod given;
mod kafka;
mod sinks;

use credentials::Service;
use file::Found;
use given::Given;

/// Default of the embedded file.
const DATA: &str = "tidemill.sqlite";

/// Default locations of the state when the views are not in the embedded file: the current one, and
/// that of versions without checkpoints. A folder of the old name is still used.
const STATE: &str = "./tidemill-state";
const STATE_BEFORE: &str = "./tidemill-journal";

/// Secrets that other libraries read from the environment. They are masked too.
const OTHERS: [&str; 2] = ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];

/// The connections as flags and environment give them.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connections (flag, else environment, else tidemill.toml)")]
#[allow(
    rustdoc::broken_intra_doc_links,
    reason = "the text of --help, and no Markdown"
)]
pub struct ConnectionArgs {
    /// The database that users land in: postgres://user@host/db?sslmode=…, or as psql takes it
    #[arg(
        long,
        value_name = "URL",
        env = "TIDEMILL_POSTGRES",
        hide_env_values = true
    )]
    pub postgres: Option<String>,
    /// Kafka's brokers: host:port[,host:port], or SASL_SSL://host:port
    #[arg(
        long,
        value_name = "BROKERS",
        env = "TIDEMILL_KAFKA",
        hide_env_values = true
    )]
    pub kafka: Option<String>,
    /// The schema registry: http(s)://host:port[/path]
    #[arg(
        long,
        value_name = "URL",
        env = "TIDEMILL_REGISTRY",
        hide_env_values = true
    )]
    pub registry: Option<String>,
    /// Cassandra: host[:port][,host][/keyspace]; the keyspace is `tidemill` unless given
    #[arg(
        long,
        value_name = "HOSTS",
        env = "TIDEMILL_CASSANDRA",
        hide_env_values = true
    )]
    pub cassandra: Option<String>,
    /// The SQLite file for everything that is not given above [default: tidemill.sqlite]
    #[arg(
        long,
        value_name = "FILE",
        env = "TIDEMILL_DATA",
        hide_env_values = true
    )]
    pub data: Option<String>,
    /// A sink that views name by WITH (sink = 'NAME'): postgres://user@host/db?schema=…,
    /// cassandra://… or sqlite://FILE; may be given several times, and as TIDEMILL_SINK_NAME_URL
    #[arg(long, value_name = "NAME=URL")]
    pub sink: Vec<String>,
    /// Where the journal and the checkpoints are kept: file://DIRECTORY or s3://BUCKET/PREFIX
    /// [default: the SQLite file, with Cassandra ./tidemill-state]
    #[arg(
        long,
        alias = "journal",
        value_name = "URL",
        env = "TIDEMILL_STATE",
        hide_env_values = true
    )]
    pub state: Option<String>,
}

/// The resolved connections: one URL per stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connections {
    /// Where pages land and changes are captured: PostgreSQL or a SQLite file.
    pub database: String,
    /// The log of changes: Kafka or a SQLite file.
    pub log: String,
    /// The schema registry.
    pub registry: String,
    /// Where the views are served that name no sink.
    pub sink: String,
    /// The sinks that views name, by name.
    pub sinks: BTreeMap<String, String>,
    /// Where journal and checkpoints are.
    pub state: String,
    /// The embedded file, whether or not a stage uses it.
    pub data: PathBuf,
    /// The connections that were named, as they were given, by the names of their flags.
    pub named: Vec<(String, String)>,
}

impl Connections {
    /// Resolves the connections for a pipeline's folder, and remembers all passwords for masking.
    ///
    /// # Errors
    ///
    /// A value is invalid, or a flag contains a password ([`Usage`], exit code 2), or a file cannot
    /// be read.
    pub fn resolve(args: &ConnectionArgs, folder: &Path) -> anyhow::Result<Self> {
        let found = file::read(folder)?;
        let all = all(args, found.as_ref());
        let mut named = named(&all);
        let (sinks, given) = sinks::resolve(&args.sink, found.as_ref())?;
        named.extend(given);
        let [postgres, kafka, registry, cassandra, data, state] = all;
        let data = data.map_or_else(|| DATA.to_owned(), |said| said.value);
        let data = data.strip_prefix("sqlite://").unwrap_or(&data).to_owned();
        let embedded = format!("sqlite://{data}");
        for name in OTHERS {
            if let Ok(secret) = std::env::var(name) {
                redact::remember_alone(&secret);
            }
        }
        for said in [&postgres, &kafka, &registry, &cassandra, &state] {
            said.iter().try_for_each(refuse_in_flag)?;
        }
        let of = |service| Service::new(service, found.as_ref());
        let settings = kafka::settings(found.as_ref())?;
        let kafka = kafka.or_else(|| kafka::brokers(&settings));
        let connections = Self {
            database: of("postgres").postgres(engine(postgres, urls::postgres, &embedded)?)?,
            log: kafka::with(engine(kafka, urls::kafka, &embedded)?, settings),
            registry: of("registry").registry(engine(registry, urls::registry, &embedded)?)?,
            sink: of("cassandra").cassandra(engine(cassandra, urls::cassandra, &embedded)?)?,
            sinks,
            state: String::new(),
            data: data.into(),
            named,
        };
        for url in [&connections.database, &connections.log] {
            redact::remember(url);
        }
        let sinks = connections.sinks.values();
        for url in [&connections.registry, &connections.sink]
            .into_iter()
            .chain(sinks)
        {
            redact::remember(url);
        }
        // Bindings must be as durable as the rows that depend on them. Therefore the journal is in
        // the embedded file only if the views are there too.
        let state_default = if connections.sink.starts_with("sqlite://") {
            connections.sink.clone()
        } else if Path::new(STATE_BEFORE).is_dir() {
            format!("file://{STATE_BEFORE}")
        } else {
            format!("file://{STATE}")
        };
        let state = engine(state, urls::state, &state_default)?;
        Ok(Self {
            state,
            ..connections
        })
    }

    /// The stages' names and URLs for messages, without secrets.
    pub fn described(&self) -> Vec<(String, String)> {
        let stages = [
            ("database", &self.database),
            ("log", &self.log),
            ("registry", &self.registry),
            ("views", &self.sink),
        ];
        let stages = stages
            .into_iter()
            .map(|(stage, url)| (stage.to_owned(), url));
        let sinks = self
            .sinks
            .iter()
            .map(|(name, url)| (format!("sink {name}"), url));
        let all = stages.chain(sinks);
        all.map(|(stage, url)| (stage, redact::place(url)))
            .collect()
    }
}

/// The engine's URL of a connection, or the default.
fn engine(
    said: Option<Given>,
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

/// The six connections as they were given. Their passwords are remembered from here on.
fn all(args: &ConnectionArgs, found: Option<&Found>) -> [Option<Given>; 6] {
    let file = found.map(|found| &found.file.connections);
    let say = |name: &str, arg: &Option<String>, in_file: Option<&Spanned<String>>| {
        let said = said(name, arg, in_file, found);
        if let Some(said) = &said {
            redact::remember(&said.value);
        }
        said
    };
    let in_file = |of: fn(&file::Connections) -> &Option<Spanned<String>>| {
        file.and_then(|file| of(file).as_ref())
    };
    [
        say("postgres", &args.postgres, in_file(|file| &file.postgres)),
        say("kafka", &args.kafka, in_file(|file| &file.kafka)),
        say("registry", &args.registry, in_file(|file| &file.registry)),
        say(
            "cassandra",
            &args.cassandra,
            in_file(|file| &file.cassandra),
        ),
        say("data", &args.data, in_file(|file| &file.data)),
        say("state", &args.state, None)
            .or_else(|| say("journal", &std::env::var("TIDEMILL_JOURNAL").ok(), None))
            .or_else(|| say("state", &None, in_file(|file| &file.state))),
    ]
}

/// The connections that were named.
fn named(all: &[Option<Given>; 6]) -> Vec<(String, String)> {
    let names = [
        "postgres",
        "kafka",
        "registry",
        "cassandra",
        "data",
        "state",
    ];
    let named = names.into_iter().zip(all);
    named
        .filter_map(|(name, said)| Some((name.to_owned(), said.as_ref()?.value.clone())))
        .collect()
}

/// One connection as it was given: by flag, environment or file.
fn said(
    name: &str,
    arg: &Option<String>,
    in_file: Option<&Spanned<String>>,
    found: Option<&Found>,
) -> Option<Given> {
    // An empty value (`TIDEMILL_KAFKA= tidemill …`) unsets a connection.
    if let Some(arg) = arg.as_ref().filter(|arg| !arg.trim().is_empty()) {
        // clap has merged the environment into the flag; this tells them apart again.
        let variable = format!("TIDEMILL_{}", name.to_ascii_uppercase());
        let flag = std::env::var(&variable).map_or(true, |value| &value != arg);
        return Some(Given {
            value: arg.trim().to_owned(),
            place: if flag { format!("--{name}") } else { variable },
            flag: flag.then(|| name.to_owned()),
        });
    }
    let (value, found) = in_file.zip(found)?;
    Some(Given {
        value: value.get_ref().trim().to_owned(),
        place: format!("{}: connections.{name}", found.place(value.span().start)),
        flag: None,
    })
}

/// Refuses a password in a flag: it would be visible in `ps`, the shell's history and the logs of
/// service managers.
fn refuse_in_flag(said: &Given) -> anyhow::Result<()> {
    let Some(name) = said
        .flag
        .as_ref()
        .filter(|_| redact::holds_password(&said.value))
    else {
        return Ok(());
    };
    let variable = format!("TIDEMILL_{}", name.to_ascii_uppercase());
    let right = match name.as_str() {
        "state" => "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".to_owned(),
        _ => format!(
            "{variable}_PASSWORD, or in a file that {variable}_PASSWORD_FILE names, or the whole \
             connection as {variable}"
        ),
    };
    let why = "everybody on this machine sees a password in a flag; give it as";
    Err(Usage(format!(
        "--{name}: `{}`: {why} {right}",
        redact::url(&said.value)
    ))
    .into())
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
        std::fs::write(folder.path().join(file::NAME), toml).unwrap();
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
        let file = folder.path().join(file::NAME);
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
