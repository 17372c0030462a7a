//! Asks each service that was named whether it is there, with its own protocol and within seconds.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

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
            let answer =
                ask(url).with_context(|| format!("{name} does not answer at {}", redact::url(url)));
            (name, answer)
        })
        .collect()
}

fn postgres(url: &str) -> anyhow::Result<String> {
    let mut config: postgres::Config = url.parse()?;
    let mut client = config.connect_timeout(WAIT).connect(postgres::NoTls)?;
    let sql = "SELECT current_setting('server_version'), current_setting('wal_level')";
    let row = client.query_one(sql, &[])?;
    let (version, wal_level): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    if wal_level != "logical" {
        bail!("wal_level is `{wal_level}`; capture needs `logical` (postgresql.conf, restart)");
    }
    Ok(version)
}

fn kafka(url: &str) -> anyhow::Result<String> {
    let brokers = url.trim_start_matches("kafka://");
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()?;
    let metadata = consumer.fetch_metadata(None, WAIT)?;
    Ok(format!(
        "{} brokers, {} topics",
        metadata.brokers().len(),
        metadata.topics().len()
    ))
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

/// Sends CQL's OPTIONS, which needs no login, and expects SUPPORTED.
fn cassandra(url: &str) -> anyhow::Result<String> {
    const OPTIONS: [u8; 9] = [4, 0, 0, 0, 5, 0, 0, 0, 0];
    const SUPPORTED: u8 = 6;
    let hosts = url
        .trim_start_matches("cassandra://")
        .split('/')
        .next()
        .unwrap_or_default();
    let hosts = hosts.rsplit('@').next().unwrap_or_default();
    let mut last = anyhow!("no host is given");
    for host in hosts.split(',') {
        let answer = connect(host).and_then(|mut stream| {
            stream.write_all(&OPTIONS)?;
            let mut header = [0; 9];
            stream.read_exact(&mut header)?;
            Ok(header)
        });
        match answer {
            Ok(header) if header[4] == SUPPORTED => return Ok("CQL".to_owned()),
            Ok(_) => last = anyhow!("{host} does not speak CQL version 4"),
            Err(error) => last = error.context(host.to_owned()),
        }
    }
    Err(last)
}

fn connect(host: &str) -> anyhow::Result<TcpStream> {
    let address = host
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| anyhow!("no such host"))?;
    let stream = TcpStream::connect_timeout(&address, WAIT)?;
    stream.set_read_timeout(Some(WAIT))?;
    stream.set_write_timeout(Some(WAIT))?;
    Ok(stream)
}
