//! What a test has for itself on the shared services: a database with its slot, topics with a
//! prefix, a keyspace, and a folder for the pipeline; all but the topics gone at the end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};
use tempfile::TempDir;
use tidemill_log::log::Log;
use tidemill_log::registry::Registry;
use tidemill_randomuser::{Server, Source};

use crate::harness::given;
use crate::river::child::Tidemill;
use crate::river::rows::{Keyspace, View};

/// How long the slot of a process that is gone may stay in use.
const SLOT_PATIENCE: Duration = Duration::from_secs(20);

/// A test's own place.
pub(crate) struct Place {
    /// Fit for everything that is named: database, keyspace, slot, job, topics.
    pub(crate) name: String,
    pub(crate) folder: TempDir,
    /// The URL of its own database.
    pub(crate) database: String,
    pub(crate) kafka: String,
    pub(crate) registry: String,
    pub(crate) cassandra: String,
    pub(crate) views: Keyspace,
    admin: Client,
}

impl Place {
    /// Makes a place; none, said plainly, when a service was not given.
    pub(crate) fn open(test: &str) -> Option<Self> {
        let server = given(test, "TIDEMILL_TEST_POSTGRES")?;
        let kafka = given(test, "TIDEMILL_TEST_KAFKA")?;
        let registry = given(test, "TIDEMILL_TEST_REGISTRY")?;
        let cassandra = given(test, "TIDEMILL_TEST_CASSANDRA")?;
        let name = format!("river_{:08x}", rand::random::<u32>());
        let mut admin = Client::connect(&server, NoTls).unwrap();
        admin
            .batch_execute(&format!("CREATE DATABASE {name}"))
            .unwrap();
        let (base, _) = server.rsplit_once('/').unwrap();
        Some(Self {
            folder: tempfile::tempdir().unwrap(),
            database: format!("{base}/{name}"),
            views: Keyspace::new(&cassandra, &name),
            cassandra: format!("{}/{name}", cassandra.trim_end_matches('/')),
            kafka,
            registry,
            admin,
            name,
        })
    }

    /// A connection to its database.
    pub(crate) fn sql(&self) -> Client {
        let mut client = Client::connect(&self.database, NoTls).unwrap();
        client.batch_execute("SET timezone = 'UTC'").unwrap();
        client
    }

    /// The topic of one of its tables.
    pub(crate) fn topic(&self, table: &str) -> String {
        format!("{}.{table}", self.name)
    }

    pub(crate) fn log(&self) -> Arc<dyn Log> {
        tidemill_log::log::open(&self.kafka).unwrap()
    }

    pub(crate) fn schemas(&self) -> Arc<dyn Registry> {
        tidemill_log::registry::open(&self.registry).unwrap()
    }

    /// Where each partition of a topic ends.
    pub(crate) fn ends(&self, table: &str) -> Vec<i64> {
        let ranges = self.log().ranges(&self.topic(table)).unwrap();
        ranges.iter().map(|range| range.high).collect()
    }

    /// Writes a pipeline into the folder `pipeline` and returns its views. The topics in
    /// `views.sql` are written as `{topic:TABLE}`.
    pub(crate) fn pipeline(&self, pipeline: &str, ingest: &str, views: &str) -> Vec<View> {
        let folder = self.folder.path().join(pipeline);
        std::fs::create_dir_all(&folder).unwrap();
        let views = views.replace("{topic:", &format!("{}.", self.name));
        let views = views.replace("}'", "'");
        std::fs::write(folder.join("ingest.toml"), ingest).unwrap();
        std::fs::write(folder.join("views.sql"), &views).unwrap();
        View::all(&views)
    }

    /// A pipeline that only captures tables.
    pub(crate) fn capturing(&self, pipeline: &str, tables: &[&str], views: &str) -> Vec<View> {
        let ingest = format!(
            "[capture]\ntables = {tables:?}\n[publish]\ntopic_prefix = \"{}.\"\n",
            self.name
        );
        self.pipeline(pipeline, &ingest, views)
    }

    /// `examples/users` as it stands, but for the prefix of its topics, a fast schedule, and an end
    /// after `pages` pages.
    pub(crate) fn users(&self, pages: u32) -> Vec<View> {
        let read = |file: &str| std::fs::read_to_string(root().join("examples/users").join(file));
        let replaced = |text: String, from: &str, to: &str| {
            assert!(text.contains(from), "the example has no `{from}`");
            text.replacen(from, to, 1)
        };
        let schedule = format!("every = \"20ms\"\nlast_page = {pages}");
        let ingest = replaced(read("ingest.toml").unwrap(), "every = \"1s\"", &schedule);
        let prefix = format!("[publish]\ntopic_prefix = \"{}.\"", self.name);
        let ingest = replaced(ingest, "[publish]", &prefix);
        let mut views = read("views.sql").unwrap();
        for table in ["users", "countries"] {
            let topic = format!("topic = '{{topic:{table}}}'");
            views = replaced(views, &format!("topic = '{table}'"), &topic);
        }
        let views = self.pipeline("users", &ingest, &views);
        let countries = self.folder.path().join("users/countries.csv");
        std::fs::write(countries, read("countries.csv").unwrap()).unwrap();
        views
    }

    /// Starts `tidemill COMMAND PIPELINE` on the real services under this place's name.
    pub(crate) fn start(&self, command: &str, pipeline: &str, more: &[&str]) -> Tidemill {
        self.start_as(&self.name, command, pipeline, more)
    }

    /// The same under another name.
    pub(crate) fn start_as(
        &self,
        name: &str,
        command: &str,
        pipeline: &str,
        more: &[&str],
    ) -> Tidemill {
        self.start_armed(name, command, pipeline, more, None)
    }

    /// The same, to end at a failpoint.
    pub(crate) fn start_armed(
        &self,
        name: &str,
        command: &str,
        pipeline: &str,
        more: &[&str],
        failpoint: Option<&str>,
    ) -> Tidemill {
        let journal = self.folder.path().join("journal");
        let journal = format!("file://{}", journal.display());
        let connections = [
            ("--name", name),
            ("--postgres", &self.database),
            ("--kafka", &self.kafka),
            ("--registry", &self.registry),
            ("--cassandra", &self.cassandra),
            ("--journal", &journal),
        ];
        let mut args = vec![command.to_owned(), pipeline.to_owned()];
        for (flag, value) in connections {
            args.extend([flag.to_owned(), value.to_owned()]);
        }
        args.extend(more.iter().map(|&arg| arg.to_owned()));
        let said = format!("{name}-{}", rand::random::<u32>());
        Tidemill::start_armed(self.folder.path(), &said, &args, failpoint)
    }

    /// Drops the slots of its database, which processes that are gone may hold a moment longer.
    fn drop_slots(&mut self) -> Result<(), postgres::Error> {
        let deadline = Instant::now() + SLOT_PATIENCE;
        let ask =
            "SELECT slot_name::text, active_pid FROM pg_replication_slots WHERE database = $1";
        loop {
            let slots = self.admin.query(ask, &[&self.name])?;
            if slots.is_empty() || Instant::now() > deadline {
                return Ok(());
            }
            for slot in slots {
                let (slot, pid): (String, Option<i32>) = (slot.get(0), slot.get(1));
                match pid {
                    Some(pid) => self
                        .admin
                        .execute("SELECT pg_terminate_backend($1)", &[&pid])?,
                    None => self
                        .admin
                        .execute("SELECT pg_drop_replication_slot($1)", &[&slot])?,
                };
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let name = self.name.clone();
        let dropped = self.drop_slots().and_then(|()| {
            let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
            self.admin.batch_execute(&drop)
        });
        if let Err(error) = dropped {
            eprintln!("{name}: not dropped: {error}");
        }
        self.views.drop_keyspace();
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Where the real API's pages are, as they were recorded.
pub(crate) fn recorded() -> PathBuf {
    root().join("ingest/tests/randomuser")
}

/// Serves them over HTTP.
pub(crate) fn serve_recorded() -> Server {
    let options = tidemill_randomuser::Options {
        source: Source::Recorded(recorded()),
        ..tidemill_randomuser::Options::default()
    };
    tidemill_randomuser::serve(([127, 0, 0, 1], 0).into(), options).unwrap()
}

/// The Python of Confluent's client.
pub(crate) fn python(test: &str) -> Option<String> {
    given(test, "TIDEMILL_TEST_PYTHON")
}

/// The script that reads a topic with Confluent's client.
pub(crate) fn read_topic() -> PathBuf {
    root().join("services/python/read_topic.py")
}
