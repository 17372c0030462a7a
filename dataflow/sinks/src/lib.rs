//! Sinks: the databases that views are served from.
//!
//! Engines: `cassandra` (`cassandra://[user@]host:port[,host…]/keyspace`) and `sqlite`
//! (`sqlite://FILE`). Both keep the contract of [`Sink`] and pass `tests/storage/sink_conformance`.
//! `blackhole://` drops what is written, for benchmarks.

use std::sync::Arc;

use tidemill_log::Result;
use tidemill_log::health::Health;

mod backlog;
mod blackhole;
mod cassandra;
pub mod claims;
mod contract;
mod convert;
mod existing;
mod scan;
mod sqlite;

pub use cassandra::probe::Probe;
pub use contract::{
    Done, Frontier, Odd, ReadBack, Refused, Scanned, Sink, Table, Unclaimed, Unfit, Writes,
};

/// Opens the sink that `url` names. For Cassandra this connects, and waits for a cluster that is
/// not available yet (see `cassandra`).
///
/// # Errors
/// `Data` when the URL names no sink, or the service refuses the connection. `Retry` when the
/// service did not answer in time.
pub fn open(url: &str) -> Result<Arc<dyn Sink>> {
    open_reporting(url, &Health::default())
}

/// As [`open`], for a sink that reports to `health` whether the service answers.
///
/// # Errors
/// As [`open`].
pub fn open_reporting(url: &str, health: &Health) -> Result<Arc<dyn Sink>> {
    if let Some(rest) = url.strip_prefix("cassandra://") {
        return Ok(Arc::new(cassandra::Cassandra::open(rest, health)?));
    }
    if let Some(file) = url.strip_prefix("sqlite://") {
        return Ok(Arc::new(sqlite::Sqlite::open(file)?));
    }
    if url == "blackhole://" {
        return Ok(Arc::new(blackhole::Blackhole::default()));
    }
    Err(tidemill_log::Error::new(
        tidemill_log::Kind::Data,
        format!(
            "sink `{url}`: expected `cassandra://[user@]host:port[,host:port]/keyspace` or \
             `sqlite://FILE`"
        ),
    ))
}

/// Asks a Cassandra cluster for its version, and waits at most `wait`.
///
/// # Errors
/// `Data` when the URL is wrong or the cluster refuses the connection; `Retry` without an answer.
pub fn ask_cassandra(url: &str, wait: std::time::Duration) -> Result<String> {
    cassandra::ask(url.strip_prefix("cassandra://").unwrap_or(url), wait)
}
