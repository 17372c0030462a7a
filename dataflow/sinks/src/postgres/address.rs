//! The address of a PostgreSQL sink: the server by libpq's URL, and the schema of the tables.

use tidemill_log::address;
use tidemill_log::{Error, Kind, Result};
use tidemill_postgres::{Server, failed};

use super::super::existing::quoted;
use super::statement::Session;

/// The setting of the URL that names the schema.
const SCHEMA: &str = "schema";
/// How long the server keeps the locks of a process that stands still in a transaction, in ms.
const IDLE_MAX_MS: u32 = 10_000;

/// The server and the schema that a sink's URL names.
///
/// # Errors
/// Those of [`Server::parse`].
pub(in super::super) fn server(url: &str) -> Result<(Server, Option<String>)> {
    let (place, settings) = address::parse(url);
    let (mut rest, mut schema) = (place.to_owned(), None);
    for (name, value) in settings {
        match name.as_str() {
            SCHEMA => schema = Some(value),
            _ => rest = address::with(&rest, &name, &value),
        }
    }
    Ok((Server::parse(&rest)?, schema))
}

/// A server and a schema.
pub(super) struct Address {
    /// The server, with the settings of the sessions.
    server: Server,
    /// The schema; `None` for the first of the user's `search_path`.
    schema: Option<String>,
}

impl Address {
    /// Parses a sink's URL.
    ///
    /// # Errors
    /// `Data` when the URL or the schema's name is not valid.
    pub(super) fn parse(url: &str) -> Result<Self> {
        let (mut server, schema) = server(url)?;
        let plain = |c: char| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit();
        if let Some(name) = schema
            .as_ref()
            .filter(|it| it.is_empty() || !it.chars().all(plain))
        {
            let what =
                format!("schema `{name}` of a PostgreSQL sink: expected a to z, 0 to 9 and _");
            return Err(Error::new(Kind::Data, what));
        }
        let mut options = format!(
            "-c idle_in_transaction_session_timeout={IDLE_MAX_MS} -c client_min_messages=warning \
             -c standard_conforming_strings=on -c default_transaction_isolation=read\\ committed \
             -c synchronous_commit=on -c default_transaction_read_only=off"
        );
        if let Some(schema) = &schema {
            options += &format!(" -c search_path={schema}");
        }
        server.session("tidemill sink", &options);
        Ok(Self { server, schema })
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// Those of [`Server::connect`].
    pub(super) fn connect(&self) -> Result<Session> {
        let mut client = self.server.connect()?;
        if let Some(schema) = &self.schema {
            // Asked first: creating needs a right that a user of an existing schema may lack.
            let sql = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)";
            let doing = |error| failed("looking for the schema", error);
            let there: bool = client
                .query_one(sql, &[schema])
                .and_then(|row| row.try_get(0))
                .map_err(doing)?;
            if !there {
                let sql = format!("CREATE SCHEMA IF NOT EXISTS {}", quoted(schema));
                let made = client.batch_execute(&sql);
                // Another process may create the schema at the same moment.
                if let Err(error) = made
                    && error.code() != Some(&postgres::error::SqlState::UNIQUE_VIOLATION)
                {
                    return Err(failed("creating the schema", error));
                }
            }
        }
        Ok(Session::new(client))
    }
}
