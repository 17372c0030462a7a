//! The engines under test, each empty: a file, a schema of PostgreSQL, a keyspace of Cassandra.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;
use tidemill_sinks::Sink;

static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// An engine under test, empty when made.
pub(super) struct Engine {
    pub(super) name: &'static str,
    pub(super) url: String,
    pub(super) sink: Arc<dyn Sink>,
    _folder: TempDir,
}

impl Engine {
    pub(super) fn cassandra(&self) -> bool {
        self.name == "cassandra"
    }

    /// Whether the sink takes the epochs of a view in order, from one worker.
    pub(super) fn in_order(&self) -> bool {
        self.sink.is_transactional("counts")
    }
}

/// A schema of its own in PostgreSQL; `None` without a server.
pub(super) fn schema(test: &str) -> Option<String> {
    let Ok(base) = std::env::var("TIDEMILL_TEST_POSTGRES") else {
        left_out(test, "PostgreSQL", "TIDEMILL_TEST_POSTGRES");
        return None;
    };
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let sign = if base.contains('?') { '&' } else { '?' };
    let process = std::process::id();
    Some(format!("{base}{sign}schema=sink_{process}_{number}"))
}

/// Says that a test does not run on an engine, past the harness, which hides what a passing test
/// prints.
fn left_out(test: &str, engine: &str, variable: &str) {
    let line = format!("left out: {test} on {engine} needs {variable} (run ./test)\n");
    let _unseen = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}

pub(super) fn engines(test: &str) -> Vec<Engine> {
    let folder = TempDir::new().unwrap();
    let url = format!("sqlite://{}", folder.path().join("sink.db").display());
    let mut engines = vec![("sqlite", url, folder)];
    engines.extend(schema(test).map(|url| ("postgres", url, TempDir::new().unwrap())));
    match std::env::var("TIDEMILL_TEST_CASSANDRA") {
        Ok(base) => {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let url = format!(
                "{}/sink_{}_{number}",
                base.trim_end_matches('/'),
                std::process::id()
            );
            engines.push(("cassandra", url, TempDir::new().unwrap()));
        }
        Err(_) => left_out(test, "Cassandra", "TIDEMILL_TEST_CASSANDRA"),
    }
    engines
        .into_iter()
        .map(|(name, url, folder)| Engine {
            name,
            sink: tidemill_sinks::open(&url).unwrap(),
            url,
            _folder: folder,
        })
        .collect()
}
