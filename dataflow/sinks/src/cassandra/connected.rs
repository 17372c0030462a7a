//! A session with a Cassandra cluster: connecting, timeouts, and what all statements share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use scylla::client::PoolSize;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::policies::speculative_execution::SimpleSpeculativeExecutionPolicy;
use scylla::statement::Consistency;
use tidemill_ir::Epoch;
use tidemill_log::backoff::Backoff;
use tidemill_log::{Error, Kind, Result};
use tokio::sync::Semaphore;

use super::super::reports::Reports;
use super::address::{Address, refusal};
use super::health::{Health, WRITE};
use super::replication::Replication;
use super::unfit::Limits;

/// Longest time of one attempt of a statement.
const ATTEMPT: Duration = Duration::from_secs(12);
/// After this time without an answer, another node is asked as well (speculative execution),
/// because a node that stands still keeps its connections. Every statement may be executed twice.
const ASK_ANOTHER: Duration = Duration::from_secs(2);
/// The number of additional nodes that are asked.
const OTHERS_MAX: usize = 1;

/// What the writing tasks of a sink share.
pub(super) struct Connected {
    /// The driver's session.
    pub(super) session: Session,
    /// The keyspace, not quoted.
    pub(super) keyspace: String,
    /// The replication that the user asks for.
    pub(super) replication: Option<Replication>,
    /// The consistency level of frontier writes and of all reads.
    pub(super) quorum: Consistency,
    /// Reports whether the cluster takes statements.
    pub(super) health: Health,
    /// The sizes that the cluster takes.
    pub(super) limits: Limits,
    /// The permits of statements in flight.
    pub(super) in_flight: Semaphore,
}

/// Connects. Retries with backoff until the waiting time of the address is over.
///
/// # Errors
/// `Data` when the cluster refuses the connection; `Retry` when it does not answer in time.
pub(super) async fn connect(address: &Address, reports: &Reports) -> Result<Session> {
    let profile = ExecutionProfile::builder()
        .request_timeout(Some(ATTEMPT))
        .consistency(address.consistency)
        .speculative_execution_policy(Some(Arc::new(SimpleSpeculativeExecutionPolicy {
            max_retry_count: OTHERS_MAX,
            retry_interval: ASK_ANOTHER,
        })))
        .build();
    let tls = address.tls()?;
    let give_up = Instant::now() + address.wait;
    let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));
    let mut warned = false;
    loop {
        let mut builder = SessionBuilder::new()
            .known_nodes(&address.nodes)
            .default_execution_profile_handle(profile.clone().into_handle())
            .pool_size(PoolSize::PerShard(std::num::NonZeroUsize::MIN))
            .fetch_full_schema_metadata(false)
            .keyspaces_to_fetch([address.keyspace.clone()])
            .tls_context(tls.clone())
            .connection_timeout(Duration::from_secs(5));
        if let Some((user, password)) = &address.credentials {
            builder = builder.user(user, password);
        }
        let error = match builder.build().await {
            Ok(session) => {
                reports.up(WRITE);
                return Ok(session);
            }
            Err(error) => error,
        };
        let nodes = address.nodes.join(",");
        if let Some(why) = refusal(&error) {
            let what = format!("Cassandra at {nodes}: {why}");
            return Err(Error::with_source(Kind::Data, what, error));
        }
        let pause = backoff.pause();
        if Instant::now() + pause >= give_up {
            let waited = address.wait.as_secs();
            let what = format!("Cassandra at {nodes} did not answer within {waited} s: {error}");
            return Err(Error::with_source(Kind::Retry, what, error));
        }
        reports.down(WRITE, &error);
        if !warned {
            tracing::warn!("waiting for Cassandra at {nodes}: {error}");
            warned = true;
        }
        tokio::time::sleep(pause).await;
    }
}

/// The timestamp of an epoch's statements, in µs; `Bug` if the epoch is out of range.
pub(super) fn timestamp(epoch: Epoch) -> Result<i64> {
    epoch
        .checked_mul(1000)
        .and_then(|t| i64::try_from(t).ok())
        .ok_or_else(|| Error::new(Kind::Bug, format!("epoch {epoch} is out of range")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_is_not_there_is_awaited_and_then_named() {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|l| l.local_addr())
            .unwrap()
            .port();
        let address = Address {
            nodes: vec![format!("127.0.0.1:{port}")],
            keyspace: "views".into(),
            credentials: None,
            tls: None,
            replication: None,
            consistency: Consistency::LocalQuorum,
            wait: Duration::from_millis(800),
        };
        let begun = Instant::now();
        let error = tokio::runtime::Runtime::new()
            .unwrap()
            .block_on(connect(&address, &Reports::default()))
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Retry, "{error}");
        assert!(error.to_string().contains(&address.nodes[0]), "{error}");
        // It waited at least once before it gave up.
        assert!(begun.elapsed() >= Duration::from_millis(250));
    }
}
