//! Sinks: the databases that views are served from.
//!
//! Engines: `cassandra` (`cassandra://[user@]host:port[,host…]/keyspace`), `postgres`
//! (`postgres://[user@]host:port/database`) and `sqlite` (`sqlite://FILE`). All keep the contract of
//! [`Sink`] and pass `tests/storage/sink_conformance`. `blackhole://` drops what is written, for
//! benchmarks.
//!
//! The views of a job go to one sink, or some of them to sinks that they name ([`open_all`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use tidemill_ir::Job;
use tidemill_log::Result;
use tidemill_log::health::{Health, Role};

mod backlog;
mod blackhole;
mod cassandra;
pub mod claims;
mod contract;
mod convert;
mod existing;
mod postgres;
mod probe;
mod reports;
mod routed;
mod scan;
mod sqlite;

pub use contract::{
    Done, Frontier, Odd, ReadBack, Refused, Scanned, Sink, Table, Unclaimed, Unfit, Writes,
};
pub use probe::{Probe, version};
pub use routed::unknown;

use reports::Reports;

/// Opens the sink that `url` names. For Cassandra this connects, and waits for a cluster that is
/// not available yet (see `cassandra`).
///
/// # Errors
/// `Data` when the URL names no sink, or the service refuses the connection. `Retry` when the
/// service did not answer in time.
pub fn open(url: &str) -> Result<Arc<dyn Sink>> {
    open_reporting(url, Reports::default())
}

/// Opens the sinks that the views of a job are written to, as one: the sink `url`, unless all views
/// name others, and those of `named` that views name (`WITH (sink = 'NAME')`). They report to
/// `health` whether their services answer.
///
/// # Errors
/// As [`open`]; `Data` when a view names a sink that is not in `named`.
pub fn open_all(
    url: &str,
    named: &BTreeMap<String, String>,
    plan: &Job,
    health: &Health,
) -> Result<Arc<dyn Sink>> {
    if let Some(error) = unknown(plan, named) {
        return Err(error);
    }
    let outputs = plan.views.iter().filter_map(|view| view.output.as_ref());
    if outputs.clone().all(|output| output.sink.is_none()) {
        return open_reporting(url, Reports::new(health, Role::Views));
    }
    let open = |name: Option<&str>| match name.and_then(|name| Some((name, named.get(name)?))) {
        Some((name, url)) => open_reporting(url, Reports::new(health, Role::of_sink(name))),
        None => open_reporting(url, Reports::new(health, Role::Views)),
    };
    Ok(Arc::new(routed::Routed::open(plan, open)?))
}

/// As [`open`], for a sink that reports whether the service answers.
fn open_reporting(url: &str, reports: Reports) -> Result<Arc<dyn Sink>> {
    if let Some(rest) = url.strip_prefix("cassandra://") {
        return Ok(Arc::new(cassandra::Cassandra::open(rest, &reports)?));
    }
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return Ok(Arc::new(postgres::Postgres::open(url, reports)?));
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
            "sink `{}`: expected `cassandra://[user@]host:port[,host:port]/keyspace`, \
             `postgres://[user@]host:port/database` or `sqlite://FILE`",
            // The rest of a URL may hold a password.
            url.split('@').next_back().unwrap_or_default()
        ),
    ))
}
