//! Probe of a Cassandra cluster: a session that is kept, and one small query at a time.

use std::num::NonZeroUsize;
use std::time::Duration;

use scylla::client::PoolSize;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use tidemill_log::{Error, Kind, Result, io};
use tokio::runtime::Handle;

use super::address::{Address, refusal};

/// The statement that is sent: the connected node's own row.
const QUESTION: &str = "SELECT key FROM system.local";

/// Asks one cluster whether it answers, for `tidemill status` and readiness.
pub struct Probe {
    /// The cluster.
    address: Address,
    /// Runs the driver.
    runtime: Handle,
    /// The session; `None` before the first answer.
    session: Option<Session>,
    /// Longest wait for an answer.
    wait: Duration,
}

impl Probe {
    /// A probe of the cluster that `url` names; it waits at most `wait` for each answer.
    ///
    /// # Errors
    /// `Data` when `url` is not a cluster's URL; `Retry` when no thread can be started.
    pub fn new(url: &str, wait: Duration) -> Result<Self> {
        let rest = url.strip_prefix("cassandra://").unwrap_or(url);
        Ok(Self {
            address: Address::parse(rest)?,
            runtime: io::runtime()?,
            session: None,
            wait,
        })
    }

    /// Asks once, and connects first if there is no session.
    ///
    /// # Errors
    /// `Retry` when there is no answer in time, `Data` when the cluster refuses the connection.
    pub fn ask(&mut self) -> Result<()> {
        let session = match &self.session {
            Some(session) => session,
            None => {
                let session = self.runtime.block_on(connect(&self.address, self.wait))?;
                self.session.insert(session)
            }
        };
        let asked = self.runtime.block_on(session.query_unpaged(QUESTION, ()));
        asked.map(drop).map_err(|error| {
            let nodes = self.address.nodes.join(",");
            let what = format!("Cassandra at {nodes}: {error}");
            Error::with_source(Kind::Retry, what, error)
        })
    }
}

/// Opens a session with one connection per node.
async fn connect(address: &Address, wait: Duration) -> Result<Session> {
    let profile = ExecutionProfile::builder().request_timeout(Some(wait));
    let mut builder = SessionBuilder::new()
        .known_nodes(&address.nodes)
        .default_execution_profile_handle(profile.build().into_handle())
        .pool_size(PoolSize::PerHost(NonZeroUsize::MIN))
        .fetch_schema_metadata(false)
        .tls_context(address.tls()?)
        .connection_timeout(wait);
    if let Some((user, password)) = &address.credentials {
        builder = builder.user(user, password);
    }
    builder.build().await.map_err(|error| {
        let nodes = address.nodes.join(",");
        match refusal(&error) {
            Some(why) => {
                let what = format!("Cassandra at {nodes}: {why}");
                Error::with_source(Kind::Data, what, error)
            }
            None => {
                let what = format!("Cassandra at {nodes}: {error}");
                Error::with_source(Kind::Retry, what, error)
            }
        }
    })
}
