//! Connection URLs: what users type, converted to the URL that the engines take. Errors say what
//! would be right; the caller adds where the value came from.
//!
//! In: the text of a flag, a variable or a line of `tidemill.toml`. Out: a URL with a scheme, a
//! port and everything that the engine needs. No connection is opened, and no host is looked up.

use tidemill_log::address;

/// Default ports of the services.
const KAFKA_PORT: u16 = 9092;
const CASSANDRA_PORT: u16 = 9042;

/// Default keyspace in Cassandra.
const KEYSPACE: &str = "tidemill";

/// The engines' URL, or what would be right.
type Parsed = Result<String, String>;

/// PostgreSQL: `postgres://…`, `postgresql://…`, `host[:port]/db`, or `host=… dbname=…` as psql
/// takes it.
///
/// ```
/// use tidemill_protocol::urls::postgres;
///
/// assert_eq!(postgres("db.example:5432/shop").unwrap(), "postgres://db.example:5432/shop");
/// assert_eq!(
///     postgres("host=db.example user=me dbname=shop").unwrap(),
///     "postgres://me@db.example:5432/shop"
/// );
/// ```
///
/// # Errors
///
/// The scheme is another one, or the words are not `name=value`. The text says what would be right.
pub fn postgres(given: &str) -> Parsed {
    match given.split_once("://") {
        Some(("postgres" | "postgresql", rest)) => Ok(format!("postgres://{rest}")),
        Some(("sqlite", file)) => sqlite(file),
        Some((scheme, _)) => Err(unknown(scheme, "postgres://user@host:5432/database")),
        None if given.contains('=') && !given.contains('?') => keywords(given),
        None => Ok(format!("postgres://{given}")),
    }
}

/// Kafka: `kafka://host:port,…`, `host:port,…`, or `SASL_SSL://host:port,…` as in Kafka's
/// listeners; each may end with `?setting=value&…`.
///
/// ```
/// use tidemill_protocol::urls::kafka;
///
/// assert_eq!(kafka("a,b:9093").unwrap(), "kafka://a:9092,b:9093");
/// assert!(kafka("http://a").is_err());
/// ```
///
/// # Errors
///
/// The scheme is unknown, a host is missing, or a port is not a number.
pub fn kafka(given: &str) -> Parsed {
    const EXAMPLE: &str = "host:9092[,host:9092]";
    let (place, query) = split_query(given);
    let (scheme, hosts) = place.split_once("://").unwrap_or(("kafka", place));
    let protocol = scheme.to_ascii_uppercase();
    match protocol.as_str() {
        "KAFKA" | "PLAINTEXT" | "SSL" | "SASL_SSL" | "SASL_PLAINTEXT" => {
            // Each host may repeat the scheme.
            let hosts = hosts.replace(&format!("{scheme}://"), "");
            let hosts = host_list(hosts.trim_end_matches('/'), KAFKA_PORT, EXAMPLE)?;
            let url = format!("kafka://{hosts}{query}");
            Ok(match protocol.as_str() {
                "KAFKA" | "PLAINTEXT" => url,
                _ => address::with(&url, "security.protocol", &protocol),
            })
        }
        "SQLITE" => sqlite(hosts),
        _ => Err(unknown(scheme, EXAMPLE)),
    }
}

/// Registry: `http://…`, `https://…`, or `host:port`.
///
/// # Errors
///
/// The scheme is another one than HTTP, HTTPS or SQLite.
pub fn registry(given: &str) -> Parsed {
    match given.split_once("://") {
        Some(("http" | "https", _)) => Ok(given.trim_end_matches('/').to_owned()),
        Some(("sqlite", file)) => sqlite(file),
        Some((scheme, _)) => Err(unknown(scheme, "http://host:8081")),
        None => Ok(format!("http://{}", given.trim_end_matches('/'))),
    }
}

/// Cassandra: `cassandra://[user[:password]@]host[:port][,host][/keyspace][?setting=value&…]`, with
/// or without the scheme.
///
/// ```
/// use tidemill_protocol::urls::cassandra;
///
/// assert_eq!(cassandra("node1").unwrap(), "cassandra://node1:9042/tidemill");
/// ```
///
/// # Errors
///
/// The scheme is unknown, a host is missing, or a port is not a number.
pub fn cassandra(given: &str) -> Parsed {
    const EXAMPLE: &str = "host:9042[,host:9042][/keyspace]";
    let (place, query) = split_query(given);
    let (scheme, rest) = place.split_once("://").unwrap_or(("cassandra", place));
    match scheme {
        "cassandra" => {}
        "sqlite" => return sqlite(rest),
        _ => return Err(unknown(scheme, EXAMPLE)),
    }
    let (authority, keyspace) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = match user.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (user, None),
    };
    let sign = if user.is_empty() { "" } else { "@" };
    let hosts = host_list(hosts, CASSANDRA_PORT, EXAMPLE)?;
    let keyspace = if keyspace.is_empty() {
        KEYSPACE
    } else {
        keyspace
    };
    let url = format!("cassandra://{user}{sign}{hosts}/{keyspace}{query}");
    Ok(match password {
        Some(password) => address::with(&url, "password", &address::decoded(password)),
        None => url,
    })
}

/// A sink that views name: a URL of PostgreSQL or Cassandra, or `sqlite://FILE`. The scheme must be
/// given, since it chooses the engine.
///
/// ```
/// use tidemill_protocol::urls::sink;
///
/// assert_eq!(sink("postgresql://db/shop").unwrap(), "postgres://db/shop");
/// assert!(sink("db/shop").is_err());
/// ```
///
/// # Errors
///
/// The scheme is missing or unknown, or the rest is not valid. The text says what would be right.
pub fn sink(given: &str) -> Parsed {
    match given.split_once("://") {
        Some(("postgres" | "postgresql", _)) => postgres(given),
        Some(("cassandra", _)) => cassandra(given),
        Some(("sqlite", file)) => sqlite(file),
        Some((scheme, _)) => Err(format!(
            "unknown scheme `{scheme}://` of a sink, expected postgres://, cassandra:// or \
             sqlite://"
        )),
        None => Err("expected postgres://…, cassandra://… or sqlite://FILE".to_owned()),
    }
}

/// State: `file://DIRECTORY`, a directory, `s3://BUCKET[/PREFIX]`, or `sqlite://FILE`.
///
/// ```
/// use tidemill_protocol::urls::state;
///
/// assert_eq!(state("/var/tidemill").unwrap(), "file:///var/tidemill");
/// assert!(state("s3://key:secret@bucket").is_err(), "credentials are not part of the URL");
/// ```
///
/// # Errors
///
/// The scheme is unknown, the place is missing, or the URL contains credentials.
pub fn state(given: &str) -> Parsed {
    const EXAMPLE: &str = "file://DIRECTORY, s3://BUCKET/PREFIX";
    match given.split_once("://") {
        Some(("s3", place)) if place.contains('@') => Err(
            "give the credentials as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, not in the URL"
                .into(),
        ),
        Some(("file" | "s3", "")) => Err(format!("a place is missing, expected {EXAMPLE}")),
        Some(("file" | "s3", _)) => Ok(given.trim_end_matches('/').to_owned()),
        Some(("sqlite", file)) => sqlite(file),
        Some((scheme, _)) => Err(unknown(scheme, EXAMPLE)),
        None => Ok(format!("file://{given}")),
    }
}

/// Splits before the `?`.
fn split_query(given: &str) -> (&str, &str) {
    given.split_at(given.find('?').unwrap_or(given.len()))
}

/// An SQLite file.
fn sqlite(file: &str) -> Parsed {
    if file.is_empty() {
        return Err("a file's name is missing, as in sqlite://tidemill.sqlite".into());
    }
    Ok(format!("sqlite://{file}"))
}

/// The error for an unknown scheme.
fn unknown(scheme: &str, example: &str) -> String {
    format!("unknown scheme `{scheme}://`, expected {example} or sqlite://FILE")
}

/// Adds the default port to each host without one.
fn host_list(hosts: &str, port: u16, example: &str) -> Parsed {
    let mut all = Vec::new();
    for host in hosts.split(',').map(str::trim) {
        // The text after the last `:` is a port, unless it is part of an IPv6 address in brackets.
        let given = host
            .rsplit_once(':')
            .filter(|(_, port)| !port.ends_with(']'));
        match given {
            _ if host.is_empty() => return Err(format!("a host is missing, expected {example}")),
            Some((_, given)) if given.parse::<u16>().is_err() => {
                return Err(format!("`{given}` is not a port, expected {example}"));
            }
            Some(_) => all.push(host.to_owned()),
            None => all.push(format!("{host}:{port}")),
        }
    }
    Ok(all.join(","))
}

/// Converts libpq's `host=… port=… user=… password=… dbname=…`.
fn keywords(given: &str) -> Parsed {
    let (mut host, mut port, mut user) = ("localhost".to_owned(), "5432".to_owned(), None);
    let (mut database, mut rest) = (String::new(), Vec::new());
    for (name, value) in words(given)? {
        match name.as_str() {
            "host" | "hostaddr" => host = hosts_of(&value),
            "port" => port = value,
            "user" => user = Some(value),
            "dbname" => database = address::encoded(&value),
            _ => rest.push((name, value)),
        }
    }
    let user = user.map_or_else(String::new, |user| format!("{}@", address::encoded(&user)));
    let url = format!("postgres://{user}{host}:{port}/{database}");
    let with = |url: String, (name, value): (String, String)| address::with(&url, &name, &value);
    Ok(rest.into_iter().fold(url, with))
}

/// Hosts as in a URL: the folder of a socket is encoded, an IPv6 address is put in brackets.
fn hosts_of(value: &str) -> String {
    let hosts = value.split(',').map(|host| match host.contains(':') {
        true => format!("[{host}]"),
        false => address::encoded(host),
    });
    hosts.collect::<Vec<_>>().join(",")
}

/// Splits libpq's words: `name = value` or `name='a value'`, where `\` quotes the next character.
pub(crate) fn words(given: &str) -> Result<Vec<(String, String)>, String> {
    let expected = || "expected `host=… port=… user=… dbname=…` or a postgres:// URL".to_owned();
    let mut words = Vec::new();
    let mut rest = given.trim_start();
    while !rest.is_empty() {
        let (name, value) = rest.split_once('=').ok_or_else(expected)?;
        let name = name.trim_end();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(expected());
        }
        let value = value.trim_start();
        let quoted = value.starts_with('\'');
        let (mut text, mut end) = (String::new(), None);
        let mut signs = value.char_indices().skip(usize::from(quoted));
        while let Some((at, sign)) = signs.next() {
            match sign {
                '\\' => text.extend(signs.next().map(|(_, sign)| sign)),
                '\'' if quoted => end = Some(at + 1),
                _ if !quoted && sign.is_whitespace() => end = Some(at),
                _ => text.push(sign),
            }
            if end.is_some() {
                break;
            }
        }
        if quoted && end.is_none() {
            return Err("a value's closing quote is missing".to_owned());
        }
        words.push((name.to_owned(), text));
        rest = value.get(end.unwrap_or(value.len())..).unwrap_or_default();
        rest = rest.trim_start();
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_psql_and_kafka_users_type() {
        assert_eq!(postgres("postgresql://u@h/d").unwrap(), "postgres://u@h/d");
        assert_eq!(postgres("h:5433/d").unwrap(), "postgres://h:5433/d");
        assert_eq!(
            postgres("host=h user=u password='p@1' dbname=d sslmode=disable").unwrap(),
            "postgres://u@h:5432/d?password=p%401&sslmode=disable"
        );
        assert_eq!(
            postgres("host = /tmp,::1 dbname='a b' password='it\\'s \\\\ ' user=u").unwrap(),
            "postgres://u@%2Ftmp,[::1]:5432/a%20b?password=it%27s%20%5C%20"
        );
        assert_eq!(
            kafka("SASL_SSL://a:1,SASL_SSL://b?sasl.mechanism=PLAIN").unwrap(),
            "kafka://a:1,b:9092?sasl.mechanism=PLAIN&security.protocol=SASL_SSL"
        );
        assert_eq!(kafka("a,b:1").unwrap(), "kafka://a:9092,b:1");
        assert_eq!(
            kafka("PLAINTEXT://a:9092,PLAINTEXT://b:1").unwrap(),
            "kafka://a:9092,b:1"
        );
        assert_eq!(kafka("[::1]").unwrap(), "kafka://[::1]:9092");
        assert_eq!(registry("h:8081/").unwrap(), "http://h:8081");
        assert_eq!(cassandra("h").unwrap(), "cassandra://h:9042/tidemill");
        assert_eq!(
            cassandra("cassandra://u@h,i:1/k").unwrap(),
            "cassandra://u@h:9042,i:1/k"
        );
        assert_eq!(
            cassandra("u:p%40@h?ca=x").unwrap(),
            "cassandra://u@h:9042/tidemill?ca=x&password=p%40"
        );
        assert_eq!(state("here").unwrap(), "file://here");
        assert_eq!(state("s3://b/p/").unwrap(), "s3://b/p");
        assert_eq!(kafka("sqlite://x").unwrap(), "sqlite://x");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_an_example() {
        for (refused, part) in [
            (postgres("mysql://h/d"), "unknown scheme `mysql://`"),
            (kafka("http://h"), "unknown scheme `http://`"),
            (kafka("h:port"), "`port` is not a port"),
            (kafka("a:1,,b:2"), "a host is missing"),
            (registry("kafka://h"), "http://host:8081"),
            (postgres("host=h password='p"), "closing quote is missing"),
            (state("gs://b"), "unknown scheme `gs://`"),
            (state("s3://"), "a place is missing"),
            (state("s3://key:secret@b"), "AWS_SECRET_ACCESS_KEY"),
            (state("sqlite://"), "a file's name is missing"),
        ] {
            let said = refused.unwrap_err();
            assert!(said.contains(part), "{said}");
        }
    }
}
