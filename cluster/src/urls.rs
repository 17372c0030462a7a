//! What users type for a connection, made into the URL that the engines take. The error texts say
//! what would be right; the caller says where the value came from.

/// Default ports, as the services have them.
const KAFKA_PORT: u16 = 9092;
const CASSANDRA_PORT: u16 = 9042;

/// Cassandra's keyspace when none is given.
const KEYSPACE: &str = "tidemill";

type Parsed = Result<String, String>;

/// `postgres://…`, `postgresql://…`, `host[:port]/db`, or `host=… dbname=…` as psql takes them.
pub(crate) fn postgres(given: &str) -> Parsed {
    match given.split_once("://") {
        Some(("postgres" | "postgresql", rest)) => Ok(format!("postgres://{rest}")),
        Some(("sqlite", file)) => sqlite(file),
        Some((scheme, _)) => Err(unknown(scheme, "postgres://user@host:5432/database")),
        None if given.contains('=') && !given.contains('?') => keywords(given),
        None => Ok(format!("postgres://{given}")),
    }
}

/// `kafka://host:port,…`, `host:port,…`, `PLAINTEXT://host:port`.
pub(crate) fn kafka(given: &str) -> Parsed {
    const EXAMPLE: &str = "host:9092[,host:9092]";
    let (scheme, hosts) = given.split_once("://").unwrap_or(("kafka", given));
    match scheme.to_ascii_lowercase().as_str() {
        "kafka" | "plaintext" => {
            let hosts = hosts.replace("PLAINTEXT://", "");
            Ok(format!(
                "kafka://{}",
                host_list(hosts.trim_end_matches('/'), KAFKA_PORT, EXAMPLE)?
            ))
        }
        "ssl" | "sasl_ssl" | "sasl_plaintext" => {
            Err("TLS and SASL to Kafka are not built in yet; use a PLAINTEXT listener".into())
        }
        "sqlite" => sqlite(hosts),
        _ => Err(unknown(scheme, EXAMPLE)),
    }
}

/// `http://…`, `https://…`, `host:port`.
pub(crate) fn registry(given: &str) -> Parsed {
    match given.split_once("://") {
        Some(("http" | "https", _)) => Ok(given.trim_end_matches('/').to_owned()),
        Some(("sqlite", file)) => sqlite(file),
        Some((scheme, _)) => Err(unknown(scheme, "http://host:8081")),
        None => Ok(format!("http://{}", given.trim_end_matches('/'))),
    }
}

/// `cassandra://[user@]host[:port][,host][/keyspace]`, with or without the scheme.
pub(crate) fn cassandra(given: &str) -> Parsed {
    const EXAMPLE: &str = "host:9042[,host:9042][/keyspace]";
    let (scheme, rest) = given.split_once("://").unwrap_or(("cassandra", given));
    match scheme {
        "cassandra" => {}
        "sqlite" => return sqlite(rest),
        _ => return Err(unknown(scheme, EXAMPLE)),
    }
    let (authority, keyspace) = rest.split_once('/').unwrap_or((rest, ""));
    if authority
        .rsplit_once('@')
        .is_some_and(|(user, _)| user.contains(':'))
    {
        return Err("give the password as TIDEMILL_CASSANDRA_PASSWORD, not in the URL".into());
    }
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), authority),
    };
    let hosts = host_list(hosts, CASSANDRA_PORT, EXAMPLE)?;
    let keyspace = if keyspace.is_empty() {
        KEYSPACE
    } else {
        keyspace
    };
    Ok(format!("cassandra://{user}{hosts}/{keyspace}"))
}

/// `file://DIRECTORY`, a directory, `s3://BUCKET[/PREFIX]`, or `sqlite://FILE`.
pub(crate) fn state(given: &str) -> Parsed {
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

fn sqlite(file: &str) -> Parsed {
    if file.is_empty() {
        return Err("a file's name is missing, as in sqlite://tidemill.sqlite".into());
    }
    Ok(format!("sqlite://{file}"))
}

fn unknown(scheme: &str, example: &str) -> String {
    format!("unknown scheme `{scheme}://`, expected {example} or sqlite://FILE")
}

/// Each host with a port.
fn host_list(hosts: &str, port: u16, example: &str) -> Parsed {
    let mut all = Vec::new();
    for host in hosts.split(',').map(str::trim) {
        // What follows the last `:` is a port unless it belongs to a bracketed IPv6 address.
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

/// libpq's `host=… port=… user=… password=… dbname=…`.
fn keywords(given: &str) -> Parsed {
    let (mut host, mut port, mut user) = ("localhost", "5432", String::new());
    let (mut password, mut database, mut rest) = (String::new(), String::new(), Vec::new());
    for pair in given.split_whitespace() {
        let Some((name, value)) = pair.split_once('=') else {
            return Err("expected `host=… port=… user=… dbname=…` or a postgres:// URL".to_owned());
        };
        let value = value.trim_matches('\'');
        match name {
            "host" | "hostaddr" => host = value,
            "port" => port = value,
            "user" => user = percent_encoded(value),
            "password" => password = format!(":{}", percent_encoded(value)),
            "dbname" => database = percent_encoded(value),
            _ => rest.push(format!("{name}={}", percent_encoded(value))),
        }
    }
    let user = if user.is_empty() {
        user
    } else {
        format!("{user}{password}@")
    };
    let options = if rest.is_empty() {
        String::new()
    } else {
        format!("?{}", rest.join("&"))
    };
    Ok(format!(
        "postgres://{user}{host}:{port}/{database}{options}"
    ))
}

fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
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
            "postgres://u:p%401@h:5432/d?sslmode=disable"
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
        assert_eq!(state("here").unwrap(), "file://here");
        assert_eq!(state("s3://b/p/").unwrap(), "s3://b/p");
        assert_eq!(kafka("sqlite://x").unwrap(), "sqlite://x");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_an_example() {
        for (refused, part) in [
            (postgres("mysql://h/d"), "unknown scheme `mysql://`"),
            (kafka("http://h"), "unknown scheme `http://`"),
            (kafka("SASL_SSL://h:1"), "not built in"),
            (kafka("h:port"), "`port` is not a port"),
            (kafka("a:1,,b:2"), "a host is missing"),
            (registry("kafka://h"), "http://host:8081"),
            (cassandra("u:p@h"), "TIDEMILL_CASSANDRA_PASSWORD"),
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
