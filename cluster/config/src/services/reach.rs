//! Why a service cannot be used: unknown host, connection refused, timeout, TLS, authentication, or
//! another error.

use std::io::ErrorKind;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::anyhow;

/// Timeout of one connection, and of one driver's attempt.
pub(super) const WAIT: Duration = Duration::from_secs(5);

/// Words in the engines' errors for a refused user or password.
const AUTHENTICATION: [&str; 9] = [
    "authentication",
    "Authentication",
    "401 Unauthorized",
    "403 Forbidden",
    "password",
    "wants a user",
    "no pg_hba.conf entry",
    "role \"",
    "AUTHORIZATION_FAILED",
];
/// Words in the engines' errors for failed TLS.
const TLS: [&str; 6] = [
    "TLS",
    "certificate",
    "SSL",
    "handshake",
    "InvalidContentType",
    "BadDer",
];

/// How a service that accepted a connection failed, in a few words.
pub(super) fn how(error: &anyhow::Error) -> &'static str {
    let said = format!("{error:#}");
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    match () {
        () if said.contains("operation timed out") => "does not answer in time",
        () if said.contains("404 Not Found") => "is not there (404)",
        () if says(&TLS) => "cannot be used (TLS failed)",
        () if says(&AUTHENTICATION) => "cannot be used (authentication failed)",
        () => "answers with an error",
    }
}

/// Tries to connect to the hosts of a URL, until one accepts.
///
/// # Errors
/// No host accepts a connection: the name is unknown, the host refuses, or does not answer in time.
pub(super) fn reach(url: &str, port: u16) -> anyhow::Result<()> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.split(['/', '?']).next().unwrap_or_default();
    let hosts = rest.rsplit('@').next().unwrap_or_default();
    let port = if scheme == "https" { 443 } else { port };
    let mut last = anyhow!("no host is named");
    for host in hosts.split(',').filter(|host| !host.is_empty()) {
        match connect(host, port) {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    // A Unix socket has no host; the driver's error says more.
    if hosts.is_empty() { Ok(()) } else { Err(last) }
}

/// Connects to all addresses of one host in turn.
///
/// # Errors
///
/// The name has no address, or none of its addresses accepts a connection within [`WAIT`].
fn connect(host: &str, port: u16) -> anyhow::Result<()> {
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let place = match has_port && (!host.contains("::") || host.contains(']')) {
        true => host.to_owned(),
        false => format!("{host}:{port}"),
    };
    let addresses = place
        .to_socket_addrs()
        .map_err(|error| anyhow!("no such host: {place}: {error}"))?;
    let mut last = anyhow!("no such host: {place} has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, WAIT) {
            Ok(_) => return Ok(()),
            Err(error) => {
                let seconds = WAIT.as_secs();
                last = match error.kind() {
                    ErrorKind::ConnectionRefused => {
                        anyhow!("connection refused: nothing listens at {address}")
                    }
                    ErrorKind::TimedOut => anyhow!(
                        "timed out: no connection with {address} within {seconds} s; the host is \
                         away, or a firewall is between"
                    ),
                    _ => anyhow!("no connection with {address}: {error}"),
                };
            }
        }
    }
    Err(last)
}
