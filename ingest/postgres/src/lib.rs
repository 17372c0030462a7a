//! PostgreSQL connections from libpq URLs: hosts, TLS (`sslmode`), sessions and errors.
//!
//! In: a libpq URL; `sslmode`, `sslrootcert`, `sslcert` and `sslkey` have libpq's meaning
//! (PostgreSQL's manual, "SSL Support" in the chapter on libpq). Out: connections, and the same
//! settings for the replication stream. Two things differ from libpq: `prefer` never verifies the
//! certificate, since it would continue without encryption anyway; and a certificate's name must be
//! among its subject alternative names.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgwire_replication::config as replication;
use postgres::config::{Host, SslMode, TargetSessionAttrs};
use postgres::error::SqlState;
use postgres::{Client, Config, NoTls};
use tidemill_log::address;
use tidemill_log::address::tls;
use tidemill_log::address::tls::{Identity, Trust};
use tidemill_log::{Error, Kind, Result};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Timeout of a connection attempt.
pub const CONNECT_WAIT: Duration = Duration::from_secs(10);

/// How a PostgreSQL server, or one of several, is reached.
#[derive(Debug, Clone)]
pub struct Server {
    /// The driver's configuration: hosts, ports, user, database.
    config: Config,
    /// `None` with `sslmode=disable` and for Unix sockets.
    tls: Option<Tls>,
}

/// TLS settings of a server.
#[derive(Debug, Clone)]
struct Tls {
    /// What is verified of the server's certificate.
    trust: Trust,
    /// The client's own certificate, if any.
    identity: Option<Identity>,
}

/// The settings of the URL that the driver does not know.
#[derive(Debug, Default)]
struct Ssl {
    /// `sslmode`.
    mode: Option<String>,
    /// `sslrootcert`: a file, or `system`.
    root: Option<String>,
    /// `sslcert`.
    certificate: Option<String>,
    /// `sslkey`.
    key: Option<String>,
}

impl Server {
    /// Parses a `postgres://` URL. Certificate files are read when a connection is made.
    ///
    /// # Errors
    /// `Data` when the URL or its TLS settings are not valid, or a certificate file is missing.
    pub fn parse(url: &str) -> Result<Self> {
        let (place, settings) = address::parse(url);
        let (mut ssl, mut rest) = (Ssl::default(), place.to_owned());
        for (name, value) in settings {
            match name.as_str() {
                "sslmode" => ssl.mode = Some(value),
                "sslrootcert" => ssl.root = Some(value),
                "sslcert" => ssl.certificate = Some(value),
                "sslkey" => ssl.key = Some(value),
                _ => rest = address::with(&rest, &name, &value),
            }
        }
        let mut config: Config = rest.parse().map_err(|error: postgres::Error| {
            let why = std::error::Error::source(&error)
                .map_or_else(String::new, |why| format!(": {why}"));
            let right = "`postgres://user@host:port/database`";
            let what = format!("PostgreSQL's URL must be {right}{why}");
            Error::with_source(Kind::Data, what, error)
        })?;
        config.connect_timeout(CONNECT_WAIT);
        // With several hosts the primary is meant; the others are its standbys.
        if config.get_hosts().len() > 1
            && config.get_target_session_attrs() == TargetSessionAttrs::Any
        {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        let local = config
            .get_hosts()
            .iter()
            .all(|it| matches!(it, Host::Unix(_)));
        let home = std::env::home_dir().map(|home| home.join(".postgresql"));
        let (mode, tls) = ssl.resolve(home.as_deref())?;
        let tls = tls.filter(|_| !local || config.get_hosts().is_empty());
        config.ssl_mode(if tls.is_some() {
            mode
        } else {
            SslMode::Disable
        });
        Ok(Self { config, tls })
    }

    /// The driver's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Sets the application name of the sessions, and adds server settings (`-c name=value`) to
    /// those of the URL.
    pub fn session(&mut self, name: &str, options: &str) {
        self.config.application_name(name);
        let given = self.config.get_options().unwrap_or_default();
        let all = format!("{given} {options}");
        self.config.options(all.trim_start());
    }

    /// Sets the timeout of a connection attempt.
    pub fn patience(&mut self, wait: Duration) {
        self.config.connect_timeout(wait);
    }

    /// `host:port` of each server, for messages.
    pub fn place(&self) -> String {
        let hosts = self.config.get_hosts().iter().enumerate();
        let all: Vec<String> = hosts
            .map(|(index, host)| format!("{}:{}", host_text(host), self.port_of(index)))
            .collect();
        match all.is_empty() {
            true => format!("no host:{}", self.port()),
            false => all.join(","),
        }
    }

    /// The first host: a name, an address, or the folder of a Unix socket.
    pub fn host(&self) -> Option<String> {
        self.config.get_hosts().first().map(host_text)
    }

    /// The port of a host; a single port is that of all hosts, as in libpq.
    fn port_of(&self, index: usize) -> u16 {
        let ports = self.config.get_ports();
        let port = ports.get(index).or(ports.first());
        port.copied().unwrap_or(5432)
    }

    /// The one server among several that the target session attributes ask for. So the sessions and
    /// the replication stream of one capture use the same server.
    ///
    /// # Errors
    /// That of a server which refuses the connection, or else that of the first one.
    pub fn primary(&self) -> Result<Self> {
        let hosts = self.config.get_hosts();
        if hosts.len() < 2 {
            return Ok(self.clone());
        }
        let mut refused: Option<Error> = None;
        for (index, host) in hosts.iter().enumerate() {
            let alone = Self {
                config: self.config_of(host, self.port_of(index)),
                tls: self.tls.clone(),
            };
            match alone.connect() {
                Ok(_) => return Ok(alone),
                // An error that a person must correct is reported before one that passes.
                Err(error) if error.kind() == Kind::Data => refused = Some(error),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        Err(refused.unwrap_or_else(|| Error::new(Kind::Bug, "PostgreSQL's URL names no host")))
    }

    /// The same configuration for one host.
    fn config_of(&self, host: &Host, port: u16) -> Config {
        let all = &self.config;
        let mut config = Config::new();
        match host {
            Host::Tcp(host) => config.host(host),
            Host::Unix(folder) => config.host_path(folder),
        };
        config
            .port(port)
            .ssl_mode(all.get_ssl_mode())
            .ssl_negotiation(all.get_ssl_negotiation())
            .channel_binding(all.get_channel_binding())
            .target_session_attrs(all.get_target_session_attrs())
            .keepalives(all.get_keepalives())
            .keepalives_idle(all.get_keepalives_idle());
        all.get_user().map(|user| config.user(user));
        all.get_password().map(|password| config.password(password));
        all.get_dbname().map(|name| config.dbname(name));
        all.get_options().map(|options| config.options(options));
        all.get_application_name()
            .map(|name| config.application_name(name));
        all.get_connect_timeout()
            .map(|wait| config.connect_timeout(*wait));
        all.get_tcp_user_timeout()
            .map(|wait| config.tcp_user_timeout(*wait));
        all.get_keepalives_interval()
            .map(|wait| config.keepalives_interval(wait));
        all.get_keepalives_retries()
            .map(|count| config.keepalives_retries(count));
        config
    }

    /// The first port.
    pub fn port(&self) -> u16 {
        self.config.get_ports().first().copied().unwrap_or(5432)
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// `Retry` when the server cannot be reached or is starting; `Data` when it refuses the
    /// connection or its certificate is refused.
    pub fn connect(&self) -> Result<Client> {
        let connected = match &self.tls {
            None => self.config.connect(NoTls),
            Some(Tls { trust, identity }) => {
                let config = tls::client(trust, identity.as_ref())?;
                self.config.connect(MakeRustlsConnect::new(config))
            }
        };
        connected.map_err(|error| self.failed(error))
    }

    /// The error of a connection attempt.
    fn failed(&self, error: postgres::Error) -> Error {
        let (mut kind, mut why) = (Kind::Retry, error.to_string());
        let source = std::error::Error::source(&error).map(ToString::to_string);
        if let Some(answer) = error.as_db_error() {
            why = answer.message().to_owned();
            if !passes(answer.code()) {
                kind = Kind::Data;
            }
        } else if let Some(refusal) = tls::refusal(&error) {
            (kind, why) = (Kind::Data, refusal);
        } else if let Some(source) = source {
            if source.contains("does not support TLS") {
                kind = Kind::Data;
                why = "the server speaks no TLS, which the sslmode asks for".to_owned();
            } else if !why.contains(&source) {
                why = format!("{why}: {source}");
            }
        }
        let what = format!("cannot connect to PostgreSQL at {}: {why}", self.place());
        let refused = error.code().is_some_and(refuses);
        Error::with_source(kind, what, error).refused_if(refused)
    }

    /// TLS settings of the replication stream to `host`.
    pub fn replication(&self, host: &str) -> replication::TlsConfig {
        let Some(Tls { trust, identity }) = &self.tls else {
            return replication::TlsConfig::disabled();
        };
        let mut config = match trust {
            Trust::Anyone => replication::TlsConfig::require(),
            Trust::Authority(file) => replication::TlsConfig::verify_ca(Some(file.clone())),
            // The name is given also for an IP address, which is refused otherwise.
            Trust::Host(file, _) => {
                replication::TlsConfig::verify_full(Some(file.clone())).with_sni_hostname(host)
            }
        };
        if self.config.get_ssl_mode() == SslMode::Prefer {
            config.mode = replication::SslMode::Prefer;
        }
        match identity {
            Some(Identity { certificate, key }) => config.with_client_cert(certificate, key),
            None => config,
        }
    }
}

/// A host as text.
fn host_text(host: &Host) -> String {
    match host {
        Host::Tcp(host) => host.clone(),
        Host::Unix(folder) => folder.display().to_string(),
    }
}

impl Ssl {
    /// The mode and TLS settings by libpq's rules. `home` is the folder (`~/.postgresql`) in which
    /// libpq looks for files that are not named.
    fn resolve(self, home: Option<&Path>) -> Result<(SslMode, Option<Tls>)> {
        let data = |what: String| Error::new(Kind::Data, what);
        let usual = |name: &str| {
            home.map(|home| home.join(name))
                .filter(|file| file.exists())
        };
        let system = self.root.as_deref() == Some("system");
        let default = if system { "verify-full" } else { "prefer" };
        let given = self.mode.as_deref().unwrap_or(default);
        if system && given != "verify-full" {
            let right = "sslrootcert=system needs sslmode=verify-full";
            return Err(data(format!("{right}, not `{given}`")));
        }
        let root = match &self.root {
            Some(_) if system => Some(tls::system_authorities().ok_or_else(|| {
                data(
                    "sslrootcert=system: no file of authorities is found; set SSL_CERT_FILE".into(),
                )
            })?),
            Some(file) => Some(PathBuf::from(file)),
            None => usual("root.crt"),
        };
        let needed = || {
            let right = "sslrootcert=FILE, the authority that issued the server's certificate, or \
                         sslrootcert=system";
            data(format!("sslmode={given} needs {right}"))
        };
        let (mode, trust) = match given {
            "disable" => return Ok((SslMode::Disable, None)),
            "prefer" => (SslMode::Prefer, Trust::Anyone),
            // As in libpq: with a root certificate, `require` means `verify-ca`.
            "require" => (
                SslMode::Require,
                root.map_or(Trust::Anyone, Trust::Authority),
            ),
            "verify-ca" => (SslMode::Require, Trust::Authority(root.ok_or_else(needed)?)),
            "verify-full" => {
                let trust = Trust::Host(root.ok_or_else(needed)?, Vec::new());
                (SslMode::Require, trust)
            }
            _ => {
                let right = "disable, prefer, require, verify-ca or verify-full";
                return Err(data(format!("sslmode is `{given}`, expected {right}")));
            }
        };
        let certificate = self.certificate.map(PathBuf::from);
        let identity = match certificate.or_else(|| usual("postgresql.crt")) {
            None => None,
            Some(certificate) => {
                let key = self.key.map(PathBuf::from);
                let key = key.or_else(|| usual("postgresql.key")).ok_or_else(|| {
                    data(format!(
                        "{}: its key is missing, give sslkey=FILE",
                        certificate.display()
                    ))
                })?;
                check_private(&key)?;
                Some(Identity { certificate, key })
            }
        };
        Ok((mode, Some(Tls { trust, identity })))
    }
}

/// Refuses a private key that others may read, by libpq's rule: mode 0600 or stricter, or 0640 if
/// root owns the file.
fn check_private(key: &Path) -> Result<()> {
    let found = std::fs::metadata(key).map_err(|error| {
        Error::with_source(
            Kind::Data,
            format!("sslkey {}: {error}", key.display()),
            error,
        )
    })?;
    let open = if found.uid() == 0 { 0o027 } else { 0o077 };
    if found.mode() & open != 0 {
        let what = format!("sslkey {}: others may read it, make it 0600", key.display());
        return Err(Error::new(Kind::Data, what));
    }
    Ok(())
}

/// An error of PostgreSQL: `Retry` for an unreachable or busy server, `Data` for all others.
/// `doing` names the operation, for the message.
pub fn failed(doing: &str, error: postgres::Error) -> Error {
    let kind = match error.code() {
        None => Kind::Retry,
        Some(code) if passes(code) => Kind::Retry,
        Some(_) => Kind::Data,
    };
    let why = match error.as_db_error() {
        Some(database) => database.message().to_owned(),
        None => error.to_string(),
    };
    let refused = error.code().is_some_and(refuses);
    Error::with_source(kind, format!("PostgreSQL: {doing}: {why}"), error).refused_if(refused)
}

/// Whether an SQLSTATE passes: connection exceptions (class 08), transaction rollbacks (40),
/// insufficient resources (53), operator intervention (57), a lock that is not available, a
/// transaction that was idle too long.
pub fn passes(code: &SqlState) -> bool {
    let class = code.code().get(..2).unwrap_or_default();
    matches!(class, "08" | "40" | "53" | "57")
        || *code == SqlState::LOCK_NOT_AVAILABLE
        || *code == SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT
}

/// Whether the server refused the credentials (class 28), or a privilege is missing.
pub fn refuses(code: &SqlState) -> bool {
    code.code().starts_with("28") || *code == SqlState::INSUFFICIENT_PRIVILEGE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(query: &str) -> Result<(SslMode, Option<Trust>)> {
        let (_, settings) = address::parse(query);
        let mut ssl = Ssl::default();
        for (name, value) in settings {
            match name.as_str() {
                "sslmode" => ssl.mode = Some(value),
                _ => ssl.root = Some(value),
            }
        }
        let (mode, tls) = ssl.resolve(None)?;
        Ok((mode, tls.map(|tls| tls.trust)))
    }

    #[test]
    fn sslmode_has_the_meaning_of_libpq() {
        let ca = || PathBuf::from("ca.pem");
        let require = SslMode::Require;
        for (query, mode, wanted) in [
            ("?", SslMode::Prefer, Some(Trust::Anyone)),
            ("?sslmode=disable&r=ca.pem", SslMode::Disable, None),
            (
                "?sslmode=prefer&r=ca.pem",
                SslMode::Prefer,
                Some(Trust::Anyone),
            ),
            ("?sslmode=require", require, Some(Trust::Anyone)),
            (
                "?sslmode=require&r=ca.pem",
                require,
                Some(Trust::Authority(ca())),
            ),
            (
                "?sslmode=verify-ca&r=ca.pem",
                require,
                Some(Trust::Authority(ca())),
            ),
            (
                "?sslmode=verify-full&r=ca.pem",
                require,
                Some(Trust::Host(ca(), vec![])),
            ),
        ] {
            assert_eq!(trust(query).unwrap(), (mode, wanted), "{query}");
        }
        for (query, part) in [
            ("?sslmode=allow", "expected disable, prefer"),
            (
                "?sslmode=verify-full",
                "sslmode=verify-full needs sslrootcert=FILE",
            ),
            (
                "?sslmode=require&r=system",
                "sslrootcert=system needs sslmode=verify-full",
            ),
        ] {
            let said = trust(query).unwrap_err().to_string();
            assert!(said.contains(part), "{said}");
        }
    }

    #[test]
    fn other_settings_are_passed_to_the_driver() {
        let mut server =
            Server::parse("postgres://u@h:1/d?sslmode=disable&options=-cx%3D1").unwrap();
        assert_eq!(server.place(), "h:1");
        assert_eq!(server.config().get_options(), Some("-cx=1"));
        server.session("name", "-cy=2");
        assert_eq!(server.config().get_options(), Some("-cx=1 -cy=2"));
        assert_eq!(server.replication("h"), replication::TlsConfig::disabled());
        let said = Server::parse("postgres://u:hunter22@h/d?sslcrl=x")
            .unwrap_err()
            .to_string();
        assert!(
            said.contains("sslcrl") && !said.contains("hunter22"),
            "{said}"
        );
        // As with libpq, there is no TLS on a Unix socket, whatever is asked for.
        let url = "postgres://u@%2Ftmp/d?sslmode=verify-full&sslrootcert=ca.pem";
        assert!(Server::parse(url).unwrap().tls.is_none());
    }

    #[test]
    fn several_hosts_mean_the_primary() {
        let server = Server::parse("postgres://u@a:1,b:2/d?sslmode=disable").unwrap();
        assert_eq!(server.place(), "a:1,b:2");
        assert_eq!(server.host().as_deref(), Some("a"));
        let attrs = server.config().get_target_session_attrs();
        assert_eq!(attrs, TargetSessionAttrs::ReadWrite);
        let one = server.config_of(&Host::Tcp("b".to_owned()), server.port_of(1));
        assert_eq!(one.get_ports(), [2]);
        assert_eq!((one.get_user(), one.get_dbname()), (Some("u"), Some("d")));
        let server = Server::parse("postgres://u@a/d").unwrap();
        let attrs = server.config().get_target_session_attrs();
        assert_eq!(attrs, TargetSessionAttrs::Any);
    }

    #[test]
    fn the_replication_stream_has_the_same_tls() {
        let tls = |mode: &str| {
            let url = format!("postgres://u@10.0.0.1/d?sslmode={mode}&sslrootcert=ca.pem");
            Server::parse(&url).unwrap().replication("10.0.0.1")
        };
        for (mode, wanted) in [
            ("prefer", replication::SslMode::Prefer),
            ("require", replication::SslMode::VerifyCa),
            ("verify-ca", replication::SslMode::VerifyCa),
            ("verify-full", replication::SslMode::VerifyFull),
        ] {
            assert_eq!(tls(mode).mode, wanted);
        }
        assert_eq!(tls("verify-full").sni_hostname.as_deref(), Some("10.0.0.1"));
    }
}
