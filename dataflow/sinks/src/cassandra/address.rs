//! Address of a Cassandra cluster: nodes, keyspace, credentials, TLS, replication, from the URL.

use std::sync::Arc;
use std::time::Duration;

use scylla::client::session::TlsContext;
use scylla::errors::{
    ConnectionError, ConnectionPoolError, ConnectionSetupRequestErrorKind, DbError, MetadataError,
    NewSessionError,
};
use scylla::statement::Consistency;
use tidemill_log::address::tls;
use tidemill_log::address::tls::{Identity, Trust};
use tidemill_log::{Error, Kind, Result, address};

use super::replication;
use super::replication::Replication;

/// Cassandra's port for native clients.
const DEFAULT_PORT: u16 = 9042;
/// How long to wait for a cluster that is not available yet.
const DEFAULT_WAIT: Duration = Duration::from_secs(300);

/// A parsed URL of the sink.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// `host:port` of the nodes that are contacted first.
    pub(super) nodes: Vec<String>,
    /// The keyspace, not quoted.
    pub(super) keyspace: String,
    /// User and password.
    pub(super) credentials: Option<(String, String)>,
    /// Who is trusted and the client's certificate; `None` without TLS.
    pub(super) tls: Option<(Trust, Option<Identity>)>,
    /// The replication that the keyspace must have, or is created with.
    pub(super) replication: Option<Replication>,
    /// The consistency level of writes.
    pub(super) consistency: Consistency,
    /// How long to wait for a cluster that is not available yet.
    pub(super) wait: Duration,
}

/// The settings in the URL's query, as texts.
#[derive(Default)]
struct Settings {
    /// The user's password.
    password: Option<String>,
    /// File of the certificate authority.
    ca: Option<String>,
    /// File of the client's certificate.
    cert: Option<String>,
    /// File of the client's private key.
    key: Option<String>,
    /// Whether the server's certificate is checked.
    verify: Option<String>,
    /// The replication of a keyspace that is created.
    replication: Option<String>,
    /// The consistency level of writes.
    consistency: Option<String>,
}

impl Address {
    /// Parses `[user@]host:port[,host:port]/keyspace[?password=…&ca=FILE&…]`. The time to wait
    /// comes from the environment.
    ///
    /// # Errors
    /// `Data`, without the settings in the message, because they contain the password.
    pub(super) fn parse(rest: &str) -> Result<Self> {
        let wait = match std::env::var("TIDEMILL_SINK_WAIT_SECONDS") {
            Ok(text) => Duration::from_secs(text.parse().map_err(|e| {
                let what = format!("TIDEMILL_SINK_WAIT_SECONDS is `{text}`, expected seconds");
                Error::with_source(Kind::Data, what, e)
            })?),
            Err(_) => DEFAULT_WAIT,
        };
        Self::with(rest, wait)
    }

    /// Parses the URL with a given time to wait.
    fn with(rest: &str, wait: Duration) -> Result<Self> {
        let (place, given) = address::parse(rest);
        let bad = |why: &str| {
            // The message leaves out the settings, which contain the password.
            let place = place.rsplit('@').next().unwrap_or_default();
            let what = format!(
                "sink `cassandra://{place}`: {why}; expected \
                 `cassandra://[user@]host:port[,host:port]/keyspace`"
            );
            Error::new(Kind::Data, what)
        };
        let (hosts, keyspace) = place.split_once('/').ok_or_else(|| bad("no keyspace"))?;
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if keyspace.is_empty() || keyspace.len() > 48 || !keyspace.chars().all(word) {
            return Err(bad("a keyspace is 1 to 48 letters, digits and underscores"));
        }
        let (user, hosts) = match hosts.rsplit_once('@') {
            Some((user, _)) if user.contains(':') => {
                return Err(bad("the password is a setting, `?password=`"));
            }
            Some((user, hosts)) => (Some(address::decoded(user)), hosts),
            None => (None, hosts),
        };
        let (mut nodes, mut names) = (Vec::new(), Vec::new());
        for host in hosts.split(',') {
            let (name, port) = match host.rsplit_once(':') {
                Some((name, port)) => (name, port.parse().map_err(|_| bad("a bad port"))?),
                None => (host, DEFAULT_PORT),
            };
            if name.is_empty() {
                return Err(bad("an empty host name"));
            }
            nodes.push(format!("{name}:{port}"));
            names.push(name.trim_matches(['[', ']']).to_owned());
        }
        let mut settings = Settings::default();
        for (name, value) in given {
            let value = Some(value);
            match name.as_str() {
                "password" => settings.password = value,
                "ca" => settings.ca = value,
                "cert" => settings.cert = value,
                "key" => settings.key = value,
                "verify" => settings.verify = value,
                "replication" => settings.replication = value,
                "consistency" => settings.consistency = value,
                _ => return Err(bad(&format!("unknown setting `{name}`"))),
            }
        }
        Ok(Self {
            nodes,
            keyspace: keyspace.to_owned(),
            tls: settings.tls(names).map_err(|why| bad(&why))?,
            replication: settings.replication().map_err(|why| bad(&why))?,
            consistency: settings.consistency().map_err(|why| bad(&why))?,
            credentials: user.map(|user| (user, settings.password.unwrap_or_default())),
            wait,
        })
    }

    /// The TLS context for the driver. The files are read at each call, so a new session uses new
    /// files.
    ///
    /// # Errors
    /// `Data` when a file cannot be used.
    pub(super) fn tls(&self) -> Result<Option<TlsContext>> {
        let Some((trust, identity)) = &self.tls else {
            return Ok(None);
        };
        let config = tls::client(trust, identity.as_ref())?;
        Ok(Some(TlsContext::from(Arc::new(config))))
    }
}

impl Settings {
    /// The setting `replication`.
    fn replication(&self) -> std::result::Result<Option<Replication>, String> {
        self.replication
            .as_deref()
            .map(Replication::parse)
            .transpose()
    }

    /// The setting `consistency`; `LOCAL_QUORUM` if it is not given.
    fn consistency(&self) -> std::result::Result<Consistency, String> {
        let given = self.consistency.as_deref().map(replication::consistency);
        given.unwrap_or(Ok(Consistency::LocalQuorum))
    }

    /// The TLS settings. The driver checks a node's certificate against the node's address, which
    /// few certificates contain. Therefore a certificate for a host name that the user gave is
    /// accepted too.
    fn tls(
        &self,
        names: Vec<String>,
    ) -> std::result::Result<Option<(Trust, Option<Identity>)>, String> {
        let identity = match (&self.cert, &self.key) {
            (Some(certificate), Some(key)) => Some(Identity {
                certificate: certificate.into(),
                key: key.into(),
            }),
            (None, None) => None,
            _ => return Err("TLS settings `cert` and `key` go together".to_owned()),
        };
        let Some(ca) = &self.ca else {
            let alone = identity.is_some() || self.verify.is_some();
            let right = "TLS needs the setting `ca`: the file of the authority that issued the \
                         nodes' certificates, or `system`";
            return if alone {
                Err(right.to_owned())
            } else {
                Ok(None)
            };
        };
        let file = match ca.as_str() {
            "system" => tls::system_authorities()
                .ok_or("no file of the system's authorities is found; set SSL_CERT_FILE")?,
            file => file.into(),
        };
        let trust = match self.verify.as_deref() {
            None | Some("full") => Trust::Host(file, names),
            Some("ca") => Trust::Authority(file),
            Some(other) => return Err(format!("`verify` is `{other}`, expected `full` or `ca`")),
        };
        Ok(Some((trust, identity)))
    }
}

/// The reason why Cassandra refused the connection, or why its certificate is not trusted; `None`
/// for errors that may pass by waiting.
pub(super) fn refusal(error: &NewSessionError) -> Option<String> {
    let NewSessionError::MetadataError(MetadataError::ConnectionPoolError(
        ConnectionPoolError::Broken {
            last_connection_error,
        },
    )) = error
    else {
        return None;
    };
    match last_connection_error {
        ConnectionError::IoError(error) => tls::refusal(error.as_ref()),
        ConnectionError::ConnectionSetupRequestError(error) => match error.get_error() {
            ConnectionSetupRequestErrorKind::DbError(DbError::AuthenticationError, why) => {
                Some(format!("user and password are refused: {why}"))
            }
            ConnectionSetupRequestErrorKind::MissingAuthentication => Some(
                "it wants a user: give TIDEMILL_CASSANDRA_USER and TIDEMILL_CASSANDRA_PASSWORD"
                    .to_owned(),
            ),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rest: &str) -> Result<Address> {
        Address::with(rest, DEFAULT_WAIT)
    }

    #[test]
    fn reads_hosts_user_and_keyspace() {
        let address = parse("ada@a:1,b/views?password=se%26cret").unwrap();
        assert_eq!(address.nodes, ["a:1", "b:9042"]);
        assert_eq!(address.keyspace, "views");
        assert_eq!(address.credentials, Some(("ada".into(), "se&cret".into())));
        assert_eq!(address.tls, None);
        assert_eq!(parse("a/views").unwrap().credentials, None);
    }

    #[test]
    fn tls_trusts_the_names_that_were_given() {
        let names = vec!["a".to_owned(), "b".to_owned()];
        let tls = parse("a:1,b/k?ca=ca.pem&cert=c.pem&key=k.pem").unwrap().tls;
        let identity = Identity {
            certificate: "c.pem".into(),
            key: "k.pem".into(),
        };
        assert_eq!(
            tls,
            Some((Trust::Host("ca.pem".into(), names), Some(identity)))
        );
        let tls = parse("a/k?ca=ca.pem&verify=ca").unwrap().tls;
        assert_eq!(tls, Some((Trust::Authority("ca.pem".into()), None)));
    }

    #[test]
    fn replicas_and_level_are_settings() {
        let address = parse("a/k").unwrap();
        assert_eq!(address.replication, None);
        assert_eq!(address.consistency, Consistency::LocalQuorum);
        let address = parse("a/k?replication=dc1%3A3&consistency=QUORUM").unwrap();
        let wanted = Replication::parse("dc1:3").unwrap();
        assert_eq!(address.replication, Some(wanted));
        assert_eq!(address.consistency, Consistency::Quorum);
    }

    #[test]
    fn refuses_what_is_not_an_address() {
        for rest in ["a:1", "a:1/", "a:x/k", ":1/k", "u:p@a/k", "a/k-s", "a,/k"] {
            let error = parse(rest).unwrap_err();
            assert_eq!(error.kind(), Kind::Data, "{rest}");
            assert!(error.to_string().contains("expected"), "{error}");
        }
        for (query, part) in [
            ("cert=c", "go together"),
            ("verify=ca", "needs the setting `ca`"),
            ("ca=c&verify=none", "expected `full` or `ca`"),
            ("tls=1", "unknown setting `tls`"),
            ("replication=many", "`replication` is `many`"),
            ("consistency=ANY", "expected LOCAL_QUORUM"),
        ] {
            let rest = format!("ada@a/k?password=hunter22&{query}");
            let said = parse(&rest).unwrap_err().to_string();
            assert!(said.contains(part) && !said.contains("hunter22"), "{said}");
        }
    }
}
