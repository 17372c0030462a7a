//! Probe of a PostgreSQL server: a connection that is kept, and one small query at a time.

use std::time::Duration;

use tidemill_log::{Error, Kind, Result};
use tidemill_postgres::{Server, failed};

use super::address;

/// Asks one server whether it answers, for `tidemill status` and readiness.
pub struct Probe {
    /// The server.
    server: Server,
    /// The connection; `None` before the first answer.
    client: Option<postgres::Client>,
}

impl Probe {
    /// A probe of the server that a sink's URL names; it waits at most `wait` for each answer.
    ///
    /// # Errors
    /// `Data` when `url` is not a server's URL.
    pub fn new(url: &str, wait: Duration) -> Result<Self> {
        let (mut server, _) = address::server(url)?;
        server.patience(wait);
        let limit = wait.as_millis();
        server.session("tidemill probe", &format!("-c statement_timeout={limit}"));
        Ok(Self {
            server,
            client: None,
        })
    }

    /// Asks once, and connects first if there is no connection.
    ///
    /// # Errors
    /// `Retry` when there is no answer in time, `Data` when the server refuses the connection.
    pub fn ask(&mut self) -> Result<()> {
        self.version().map(drop)
    }

    /// As [`Probe::ask`], with the server's version as the answer.
    pub(in super::super) fn version(&mut self) -> Result<String> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => self.server.connect()?,
        };
        let asked = client.query_one("SELECT current_setting('server_version')", &[]);
        let row = asked.map_err(|error| failed("asking for its version", error))?;
        self.client = Some(client);
        row.try_get(0).map_err(|error| {
            Error::with_source(
                Kind::Data,
                "PostgreSQL told a version that is no text",
                error,
            )
        })
    }
}
