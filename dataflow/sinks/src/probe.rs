//! Probes of the services behind sinks: whether they answer, and their versions.

use std::time::Duration;

use tidemill_log::{Error, Kind, Result};
use tidemill_postgres::{Server, failed};

use super::cassandra;

/// Asks the service of one sink whether it answers, for `tidemill status` and readiness.
pub enum Probe {
    /// A Cassandra cluster.
    Cassandra(cassandra::probe::Probe),
    /// A PostgreSQL server, with the connection that is kept; `None` before the first answer.
    Postgres(Box<Server>, Option<postgres::Client>),
}

impl Probe {
    /// A probe of the service that a sink's URL names; it waits at most `wait` for each answer.
    ///
    /// # Errors
    /// `Data` when `url` is not a service's URL; `Retry` when no thread can be started.
    pub fn new(url: &str, wait: Duration) -> Result<Self> {
        match url.starts_with("postgres") {
            true => Ok(Self::Postgres(Box::new(server(url, wait)?), None)),
            false => cassandra::probe::Probe::new(url, wait).map(Self::Cassandra),
        }
    }

    /// Asks once, and connects first if there is no connection.
    ///
    /// # Errors
    /// `Retry` when there is no answer in time, `Data` when the service refuses the connection.
    pub fn ask(&mut self) -> Result<()> {
        match self {
            Self::Cassandra(probe) => probe.ask(),
            Self::Postgres(server, kept) => {
                let mut client = match kept.take() {
                    Some(client) => client,
                    None => server.connect()?,
                };
                let asked = client.simple_query("SELECT 1");
                asked.map_err(|error| failed("asking the sink", error))?;
                *kept = Some(client);
                Ok(())
            }
        }
    }
}

/// Asks the service of a sink for its version, and waits at most `wait` for a connection.
///
/// # Errors
/// `Data` when the URL is wrong or the service refuses the connection; `Retry` without an answer.
pub fn version(url: &str, wait: Duration) -> Result<String> {
    if !url.starts_with("postgres") {
        return cassandra::ask(url.strip_prefix("cassandra://").unwrap_or(url), wait);
    }
    let mut client = server(url, wait)?.connect()?;
    let asked = client.query_one("SELECT current_setting('server_version')", &[]);
    let row = asked.map_err(|error| failed("asking for its version", error))?;
    row.try_get(0).map_err(|error| {
        Error::with_source(
            Kind::Data,
            "PostgreSQL told a version that is no text",
            error,
        )
    })
}

/// The server of a sink's URL, with timeouts for questions.
fn server(url: &str, wait: Duration) -> Result<Server> {
    let (mut server, _) = super::postgres::server(url)?;
    server.patience(wait);
    let limit = wait.as_millis();
    server.session("tidemill probe", &format!("-c statement_timeout={limit}"));
    Ok(server)
}
