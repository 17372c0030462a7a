//! Service check: asks each named service, and the API to fetch from, whether it answers, with its
//! own protocol and within seconds.
//!
//! A service is first asked by its own protocol. Only if that fails, a plain TCP connection tells
//! whether anything listens there, so the error can name the cause: host, port, TLS,
//! authentication.

use std::sync::mpsc::sync_channel;
use std::time::Duration;

use anyhow::bail;
use tidemill_ingest::config::Fetch;
use tidemill_ingest::fetch::Client;
use tidemill_postgres::Server;
use tidemill_protocol::redact;

use crate::connections::Connections;

mod reach;

use reach::WAIT;

/// Limit of the time that one service may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// A function that asks a service at a URL; the text describes the service.
type Ask = fn(&str) -> anyhow::Result<String>;

/// Asks all named services. Embedded engines are not asked. Returns each service's name and answer.
pub fn ask(connections: &Connections) -> Vec<(&'static str, anyhow::Result<String>)> {
    let all: [(&'static str, &str, u16, Ask); 5] = [
        ("PostgreSQL", &connections.database, 5432, postgres),
        ("Kafka", &connections.log, 9092, kafka),
        ("the registry", &connections.registry, 80, registry),
        ("Cassandra", &connections.sink, 9042, sink),
        ("S3", &connections.state, 0, s3),
    ];
    let sinks = connections.sinks.values().map(|url| -> (_, &str, _, Ask) {
        match url.starts_with("postgres") {
            true => ("PostgreSQL (sink)", url, 5432, sink),
            false => ("Cassandra (sink)", url, 9042, sink),
        }
    });
    let asked = all
        .into_iter()
        .chain(sinks)
        .filter(|(_, url, ..)| !url.starts_with("sqlite://") && !url.starts_with("file://"));
    asked
        .map(|(name, url, port, ask)| {
            let asked = url.to_owned();
            (name, answer(name, url, port, move || ask(&asked)))
        })
        .collect()
}

/// Asks the API for its first page, as the ingest does.
///
/// One request is sent, which counts against the API's rate limit.
pub fn ask_api(fetch: &Fetch) -> (&'static str, anyhow::Result<String>) {
    let (name, asked) = ("the API", fetch.clone());
    let ask = move || {
        let page = Client::new(&asked)?
            .page(1)
            .map_err(|failure| failure.error)?;
        let records = page.records.len();
        let noun = if records == 1 { "record" } else { "records" };
        Ok(format!("{records} {noun} on its first page"))
    };
    (name, answer(name, &fetch.url, 80, ask))
}

/// The answer of a service, or an error that names the service, its address and the reason.
fn answer(
    name: &'static str,
    url: &str,
    port: u16,
    ask: impl FnOnce() -> anyhow::Result<String> + Send + 'static,
) -> anyhow::Result<String> {
    let place = redact::place(url);
    within(name, url, port, ask)
        .map_err(|(how, error)| error.context(format!("{name} {how} at {place}")))
}

/// Whether an error says that a service does not answer, rather than that something is wrong.
fn is_away(error: &anyhow::Error) -> bool {
    let found = error.downcast_ref::<tidemill_log::Error>();
    found.is_some_and(|error| error.kind() == tidemill_log::Kind::Retry)
}

/// Why no TCP connection is possible. S3 is left out, because the environment names its address.
fn unreached(url: &str, port: u16) -> Option<anyhow::Error> {
    (port != 0).then(|| reach::reach(url, port).err()).flatten()
}

/// The answer within [`ANSWER_MAX`], or in a few words how the service failed, and why.
fn within(
    name: &'static str,
    url: &str,
    port: u16,
    ask: impl FnOnce() -> anyhow::Result<String> + Send + 'static,
) -> Result<String, (&'static str, anyhow::Error)> {
    let (tell, told) = sync_channel(1);
    let asking = std::thread::Builder::new().spawn(move || {
        // The asking thread may have been given up.
        let _ = tell.send(ask());
    });
    asking.map_err(|error| ("was not asked", error.into()))?;
    match told.recv_timeout(ANSWER_MAX) {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(match unreached(url, port) {
            // A connection that could not be tried, for example without its certificate, has the
            // better error.
            Some(away) if is_away(&error) => ("does not answer", away),
            _ => (reach::how(&error), error),
        }),
        Err(_) => {
            if let Some(away) = unreached(url, port) {
                return Err(("does not answer", away));
            }
            let seconds = ANSWER_MAX.as_secs();
            let why = format!(
                "timed out: it is connected, and nothing came within {seconds} s; it is frozen, \
                 or it is not {name}"
            );
            Err(("does not answer", anyhow::Error::msg(why)))
        }
    }
}

/// Whether the sink and the state can be read from this machine, without creating a file.
pub fn are_sink_and_state_there(connections: &Connections) -> bool {
    let there = |url: &str, ask: fn(&str) -> anyhow::Result<String>| {
        let file = url.strip_prefix("sqlite://");
        match file {
            Some(file) => std::path::Path::new(file).exists(),
            None if url.starts_with("file://") => true,
            None => ask(url).is_ok(),
        }
    };
    let mut sinks = connections.sinks.values().chain([&connections.sink]);
    sinks.all(|url| there(url, sink)) && there(&connections.state, s3)
}

/// Asks PostgreSQL for its version, and refuses a `wal_level` with which nothing can be captured.
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

/// Asks Kafka for its brokers and topics.
fn kafka(url: &str) -> anyhow::Result<String> {
    let (brokers, topics) = tidemill_log::log::ask_kafka(url, WAIT)?;
    Ok(format!("{brokers} brokers, {topics} topics"))
}

/// Asks the registry for its subjects.
fn registry(url: &str) -> anyhow::Result<String> {
    let subjects = tidemill_log::registry::ask(url)?;
    Ok(format!("Confluent API, {subjects} subjects"))
}

/// Asks S3 for a listing.
fn s3(url: &str) -> anyhow::Result<String> {
    // Any folder will do: an existing bucket answers with an empty list.
    tidemill_state::store::open(url)?.list("tidemill-check")?;
    Ok("S3 API".to_owned())
}

/// Asks the service of a sink for its version.
fn sink(url: &str) -> anyhow::Result<String> {
    Ok(tidemill_sinks::version(url, WAIT)?)
}
