//! Addresses of the real services, from flags or the environment.

use anyhow::Context;
use clap::Args;

/// URLs as services/up prints them.
#[derive(Debug, Clone, Args)]
pub(crate) struct Services {
    /// kafka://HOST:PORT
    #[arg(long, env = "TIDEMILL_KAFKA", global = true)]
    kafka: Option<String>,
    /// http://HOST:PORT/PATH
    #[arg(long, env = "TIDEMILL_REGISTRY", global = true)]
    registry: Option<String>,
    /// postgres://USER@HOST:PORT/DATABASE
    #[arg(long, env = "TIDEMILL_POSTGRES", global = true)]
    postgres: Option<String>,
    /// cassandra://HOST:PORT
    #[arg(long, env = "TIDEMILL_CASSANDRA", global = true)]
    cassandra: Option<String>,
}

/// A service's URL, or an error that says how to give it.
fn given<'a>(url: &'a Option<String>, name: &str) -> anyhow::Result<&'a str> {
    url.as_deref()
        .with_context(|| format!("no {name} is given: use bench/run, or --{name} URL"))
}

impl Services {
    /// The URL of Kafka, in Tidemill's form.
    pub(crate) fn kafka(&self) -> anyhow::Result<&str> {
        given(&self.kafka, "kafka")
    }

    /// The brokers in the form of librdkafka.
    pub(crate) fn brokers(&self) -> anyhow::Result<&str> {
        let url = self.kafka()?;
        Ok(url.strip_prefix("kafka://").unwrap_or(url))
    }

    /// The URL of the schema registry.
    pub(crate) fn registry(&self) -> anyhow::Result<&str> {
        given(&self.registry, "registry")
    }

    /// The URL of PostgreSQL, with a database in which others can be created.
    pub(crate) fn postgres(&self) -> anyhow::Result<&str> {
        given(&self.postgres, "postgres")
    }

    /// The URL of Cassandra, without a keyspace.
    pub(crate) fn cassandra(&self) -> anyhow::Result<&str> {
        given(&self.cassandra, "cassandra")
    }

    /// The node in the form of Cassandra's driver.
    pub(crate) fn cassandra_node(&self) -> anyhow::Result<&str> {
        let url = self.cassandra()?;
        Ok(url.strip_prefix("cassandra://").unwrap_or(url))
    }
}
