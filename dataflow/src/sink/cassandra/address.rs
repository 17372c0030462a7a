//! Where a Cassandra cluster is and how to enter it, from the sink's URL and the environment.

use std::time::Duration;

use crate::{Error, Kind, Result};

const DEFAULT_PORT: u16 = 9042;
const DEFAULT_WAIT: Duration = Duration::from_secs(300);

/// A parsed URL.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// `host:port` of the nodes to ask first.
    pub(super) nodes: Vec<String>,
    pub(super) keyspace: String,
    /// User and password.
    pub(super) credentials: Option<(String, String)>,
    /// How long to wait for a service that is not there yet.
    pub(super) wait: Duration,
}

impl Address {
    /// Reads `[user@]host:port[,host:port]/keyspace` and the environment.
    pub(super) fn parse(rest: &str) -> Result<Self> {
        let wait = match std::env::var("TIDEMILL_SINK_WAIT_SECONDS") {
            Ok(text) => Duration::from_secs(text.parse().map_err(|e| {
                let what = format!("TIDEMILL_SINK_WAIT_SECONDS is `{text}`, expected seconds");
                Error::with_source(Kind::Data, what, e)
            })?),
            Err(_) => DEFAULT_WAIT,
        };
        let user = std::env::var("TIDEMILL_CASSANDRA_USER").ok();
        let password = std::env::var("TIDEMILL_CASSANDRA_PASSWORD").ok();
        Self::with(rest, user, password, wait)
    }

    fn with(
        rest: &str,
        user: Option<String>,
        password: Option<String>,
        wait: Duration,
    ) -> Result<Self> {
        let bad = |why: &str| {
            let what = format!(
                "sink `cassandra://{rest}`: {why}; expected \
                 `cassandra://[user@]host:port[,host:port]/keyspace`"
            );
            Error::new(Kind::Data, what)
        };
        let (hosts, keyspace) = rest.split_once('/').ok_or_else(|| bad("no keyspace"))?;
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if keyspace.is_empty() || keyspace.len() > 48 || !keyspace.chars().all(word) {
            return Err(bad("a keyspace is 1 to 48 letters, digits and underscores"));
        }
        let (url_user, hosts) = match hosts.rsplit_once('@') {
            Some((user, _)) if user.contains(':') => {
                return Err(bad("the password goes into TIDEMILL_CASSANDRA_PASSWORD"));
            }
            Some((user, hosts)) => (Some(user.to_owned()), hosts),
            None => (None, hosts),
        };
        let mut nodes = Vec::new();
        for host in hosts.split(',') {
            let (name, port) = match host.rsplit_once(':') {
                Some((name, port)) => (name, port.parse().map_err(|_| bad("a bad port"))?),
                None => (host, DEFAULT_PORT),
            };
            if name.is_empty() {
                return Err(bad("an empty host name"));
            }
            nodes.push(format!("{name}:{port}"));
        }
        Ok(Self {
            nodes,
            keyspace: keyspace.to_owned(),
            credentials: url_user.or(user).map(|u| (u, password.unwrap_or_default())),
            wait,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rest: &str) -> Result<Address> {
        Address::with(rest, None, Some("secret".into()), DEFAULT_WAIT)
    }

    #[test]
    fn reads_hosts_user_and_keyspace() {
        let address = parse("ada@a:1,b/views").unwrap();
        assert_eq!(address.nodes, ["a:1", "b:9042"]);
        assert_eq!(address.keyspace, "views");
        assert_eq!(address.credentials, Some(("ada".into(), "secret".into())));
        assert_eq!(parse("a/views").unwrap().credentials, None);
    }

    #[test]
    fn refuses_what_is_not_an_address() {
        for rest in ["a:1", "a:1/", "a:x/k", ":1/k", "u:p@a/k", "a/k-s", "a,/k"] {
            let error = parse(rest).unwrap_err();
            assert_eq!(error.kind(), Kind::Data, "{rest}");
            assert!(error.to_string().contains("expected"), "{error}");
        }
    }
}
