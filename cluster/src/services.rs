//! Asks each service that was named whether it is there, with its own protocol and within seconds.

use std::time::Duration;

use anyhow::{Context, bail};
use tidemill_ingest::server::Server;

use crate::connections::Connections;
use crate::redact;

const WAIT: Duration = Duration::from_secs(5);

/// Name of each named service and what it answered; embedded engines are not asked.
pub(crate) fn ask(connections: &Connections) -> Vec<(&'static str, anyhow::Result<String>)> {
    type Ask = fn(&str) -> anyhow::Result<String>;
    let all: [(&'static str, &str, Ask); 5] = [
        ("PostgreSQL", &connections.database, postgres),
        ("Kafka", &connections.log, kafka),
        ("the registry", &connections.registry, registry),
        ("Cassandra", &connections.sink, cassandra),
        ("S3", &connections.state, s3),
    ];
    all.into_iter()
        .filter(|(_, url, _)| !url.starts_with("sqlite://") && !url.starts_with("file://"))
        .map(|(name, url, ask)| {
            let answer = ask(url)
                .with_context(|| format!("{name} does not answer at {}", redact::place(url)));
            (name, answer)
        })
        .collect()
}

/// Whether the views' tables and the state can be looked into from here, without making a file.
pub(crate) fn are_sink_and_state_there(connections: &Connections) -> bool {
    let there = |url: &str, ask: fn(&str) -> anyhow::Result<String>| {
        let file = url.strip_prefix("sqlite://");
        match file {
            Some(file) => std::path::Path::new(file).exists(),
            None if url.starts_with("file://") => true,
            None => ask(url).is_ok(),
        }
    };
    there(&connections.sink, cassandra) && there(&connections.state, s3)
}

fn postgres(url: &str) -> anyhow::Result<String> {
    let mut server = Server::parse(url)?;
    server.patience(WAIT);
    let mut client = server.connect()?;
    let sql = "SELECT current_setting('server_version'), current_setting('wal_level')";
    let row = client.query_one(sql, &[])?;
    let (version, wal_level): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    if wal_level != "logical" {
        bail!("wal_level is `{wal_level}`; capture needs `logical` (postgresql.conf, restart)");
    }
    Ok(version)
}

fn kafka(url: &str) -> anyhow::Result<String> {
    let (brokers, topics) = tidemill_log::log::ask_kafka(url, WAIT)?;
    Ok(format!("{brokers} brokers, {topics} topics"))
}

fn registry(url: &str) -> anyhow::Result<String> {
    // Any subject does: a registry that is there says that it has none.
    tidemill_log::registry::open(url)?.versions("tidemill-check-value")?;
    Ok("Confluent API".to_owned())
}

fn s3(url: &str) -> anyhow::Result<String> {
    // Any folder does: a bucket that is there says that it is empty.
    tidemill_dataflow::store::open(url)?.list("tidemill-check")?;
    Ok("S3 API".to_owned())
}

fn cassandra(url: &str) -> anyhow::Result<String> {
    Ok(tidemill_dataflow::sink::ask_cassandra(url, WAIT)?)
}
