//! Kafka client settings from a URL: `host:port,…?name=value&…`, with librdkafka's names.
//!
//! Invariants:
//! 1. Settings on which the guarantees rest (order, acknowledgements, offsets, limits in bytes)
//!    cannot be set: only names that start as in [`ALLOWED_PREFIXES`] are accepted.
//! 2. A setting that would have no effect is refused, as credentials on a connection without SASL.

use rdkafka::ClientConfig;

use crate::{Error, Kind, Result, address};

/// Prefixes of the settings that are passed to librdkafka: authentication, encryption, network.
const ALLOWED_PREFIXES: [&str; 17] = [
    "api.version.",
    "broker.address.",
    "client.",
    "compression.",
    "connections.max.idle.ms",
    "debug",
    "enable.sasl.oauthbearer.",
    "enable.ssl.certificate.verification",
    "https.ca.",
    "metadata.",
    "reconnect.backoff.",
    "request.timeout.ms",
    "retry.backoff.",
    "sasl.",
    "security.protocol",
    "socket.",
    "ssl.",
];

/// Settings that Tidemill sets itself, with the values that may be repeated in the URL.
const FIXED: [(&str, &[&str]); 5] = [
    ("acks", &["all", "-1"]),
    ("request.required.acks", &["all", "-1"]),
    ("enable.idempotence", &["true"]),
    ("enable.auto.commit", &["false"]),
    ("isolation.level", &["read_committed"]),
];

/// Setting of topics that are created: the number of replicas.
const REPLICATION: &str = "replication.factor";
/// Setting of topics that are created: the smallest number of replicas in sync.
const MIN_INSYNC: &str = "min.insync.replicas";

/// The reason why a setting is not accepted; `None` when it is.
pub fn refused(name: &str, value: &str) -> Option<String> {
    if [REPLICATION, MIN_INSYNC].contains(&name) {
        let right = "expected a number of brokers, 1 or more";
        let wrong = || Some(format!("`{name}` is `{value}`, {right}"));
        return count(value).map_or_else(wrong, |_| None);
    }
    if ALLOWED_PREFIXES.iter().any(|start| name.starts_with(start)) {
        return None;
    }
    let mut ours = FIXED.iter().filter(|(ours, _)| *ours == name);
    if ours.any(|(_, values)| values.contains(&value)) {
        return None;
    }
    Some(format!(
        "`{name}` is Tidemill's own to set, or nothing that it uses; passed on are \
         security.protocol, sasl.*, ssl.*, client.*, socket.* and the like (docs/security.md)"
    ))
}

/// A number of brokers, 1 or more.
fn count(value: &str) -> Option<i32> {
    let count = value.parse::<i16>().ok().filter(|count| *count > 0);
    count.map(i32::from)
}

/// The addresses of a cluster and the settings of its clients.
#[derive(Clone)]
pub(super) struct Settings {
    /// `host:port[,host:port]`.
    pub(super) brokers: String,
    /// Replication factor of topics that are created; `None` leaves it to the brokers.
    pub(super) replication: Option<i32>,
    /// How many replicas must have a record before it is acknowledged; `None` leaves it to the
    /// brokers.
    pub(super) min_insync: Option<i32>,
    /// The settings for librdkafka, in the order of the URL.
    given: Vec<(String, String)>,
}

impl Settings {
    /// Parses the URL without its scheme.
    ///
    /// # Errors
    /// `Data` when no broker is named, or a setting is not accepted, contradicts another one or is
    /// missing.
    pub(super) fn parse(rest: &str) -> Result<Self> {
        let (brokers, given) = address::parse(rest);
        let brokers = brokers.trim_end_matches('/').to_owned();
        let data = |what: String| Error::new(Kind::Data, what);
        if brokers.is_empty() {
            let what = "`kafka://` names no broker: give kafka://HOST:PORT[,HOST:PORT]";
            return Err(data(what.to_owned()));
        }
        for (name, value) in &given {
            if let Some(why) = refused(name, value) {
                return Err(data(format!("kafka {brokers}: {why}")));
            }
        }
        let ours = |name: &str| FIXED.iter().any(|(ours, _)| *ours == name);
        let given = given.into_iter().filter(|(name, _)| !ours(name)).collect();
        let mut settings = Self {
            brokers,
            replication: None,
            min_insync: None,
            given,
        };
        settings.replication = settings.take(REPLICATION);
        settings.min_insync = settings.take(MIN_INSYNC);
        match settings.problem(cfg!(feature = "kafka-tls")) {
            Some(why) => Err(data(format!("kafka {}: {why}", settings.brokers))),
            None => Ok(settings),
        }
    }

    /// Removes a setting that is a number of brokers; the last one counts.
    fn take(&mut self, name: &str) -> Option<i32> {
        let taken = self.given.extract_if(.., |(given, _)| given == name);
        taken.last().and_then(|(_, value)| count(&value))
    }

    /// A setting by any of its names; the last one counts, as in librdkafka.
    fn get(&self, names: &[&str]) -> Option<&str> {
        let mut given = self.given.iter().rev();
        let found = given.find(|(name, _)| names.contains(&name.as_str()));
        found.map(|(_, value)| value.as_str())
    }

    /// What is missing, contradictory or not supported by this build.
    fn problem(&self, with_tls: bool) -> Option<String> {
        let needs = |what: &str| {
            format!(
                "{what} is not in this build: build with `--features kafka-tls`, which needs \
                 OpenSSL's headers (docs/security.md)"
            )
        };
        if let (Some(all), Some(least)) = (self.replication, self.min_insync)
            && least > all
        {
            return Some(format!(
                "{MIN_INSYNC} is {least} and {REPLICATION} is {all}: no record could be written; \
                 give a smaller {MIN_INSYNC}"
            ));
        }
        let protocol = self.get(&["security.protocol"]).unwrap_or("plaintext");
        let protocol = protocol.to_ascii_lowercase();
        let (sasl, tls) = match protocol.as_str() {
            "plaintext" => (false, false),
            "ssl" => (false, true),
            "sasl_plaintext" => (true, false),
            "sasl_ssl" => (true, true),
            _ => {
                let right = "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL";
                return Some(format!(
                    "security.protocol is `{protocol}`, expected {right}"
                ));
            }
        };
        if tls && !with_tls {
            return Some(needs(&format!(
                "security.protocol={}",
                protocol.to_uppercase()
            )));
        }
        let mechanism = self.get(&["sasl.mechanism", "sasl.mechanisms"]);
        let user = self.get(&["sasl.username"]);
        if !sasl {
            let unused = user.is_some() || mechanism.is_some();
            let right = "a SASL user or mechanism is given, which needs \
                         security.protocol=SASL_SSL or SASL_PLAINTEXT";
            return unused.then(|| right.to_owned());
        }
        let Some(mechanism) = mechanism.map(str::to_ascii_uppercase) else {
            return Some("sasl.mechanism is missing: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512".into());
        };
        let named = mechanism == "PLAIN" || mechanism.starts_with("SCRAM-");
        if !named && mechanism != "OAUTHBEARER" {
            let right = "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER";
            return Some(format!("sasl.mechanism is `{mechanism}`, expected {right}"));
        }
        if mechanism != "PLAIN" && !with_tls {
            return Some(needs(&format!("sasl.mechanism={mechanism}")));
        }
        if named && (user.is_none() || self.get(&["sasl.password"]).is_none()) {
            let right = "TIDEMILL_KAFKA_USERNAME and TIDEMILL_KAFKA_PASSWORD, or sasl.username and \
                         sasl.password";
            return Some(format!("sasl.mechanism={mechanism} needs {right}"));
        }
        None
    }

    /// The configuration that all clients share.
    pub(super) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("client.id", "tidemill")
            .set("reconnect.backoff.max.ms", "1000");
        for (name, value) in &self.given {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.brokers);
        config
    }
}

/// The brokers, without the settings, which hold secrets.
impl std::fmt::Display for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.brokers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(query: &str, with_tls: bool) -> Option<String> {
        let (_, given) = address::parse(query);
        let settings = Settings {
            brokers: "a:1".to_owned(),
            replication: None,
            min_insync: None,
            given,
        };
        settings.problem(with_tls)
    }

    #[test]
    fn missing_settings_are_named() {
        const PLAIN: &str = "?security.protocol=SASL_PLAINTEXT&sasl.mechanism=PLAIN";
        let user = format!("{PLAIN}&sasl.username=u&sasl.password=p");
        assert_eq!(why("?", false), None);
        assert_eq!(why(&user, false), None);
        assert_eq!(why("?security.protocol=ssl", true), None);
        for (query, part) in [
            ("?security.protocol=tls", "expected PLAINTEXT, SSL"),
            (
                "?security.protocol=SSL",
                "security.protocol=SSL is not in this build",
            ),
            ("?sasl.username=u", "needs security.protocol=SASL_SSL"),
            (
                "?security.protocol=SASL_PLAINTEXT",
                "sasl.mechanism is missing",
            ),
            (PLAIN, "TIDEMILL_KAFKA_PASSWORD"),
            (
                "?security.protocol=SASL_PLAINTEXT&sasl.mechanism=SCRAM-SHA-512",
                "`--features kafka-tls`",
            ),
            (
                "?security.protocol=SASL_PLAINTEXT&sasl.mechanism=GSSAPI",
                "sasl.mechanism is `GSSAPI`",
            ),
        ] {
            let said = why(query, false).unwrap_or_default();
            assert!(said.contains(part), "{query}: {said}");
        }
    }

    #[test]
    fn replication_settings_apply_to_topics_only() {
        let settings = Settings::parse("a:1?replication.factor=3&min.insync.replicas=2").unwrap();
        assert_eq!(
            (settings.replication, settings.min_insync),
            (Some(3), Some(2))
        );
        assert_eq!(settings.client().get("replication.factor"), None);
        for (query, part) in [
            ("replication.factor=0", "`replication.factor` is `0`"),
            ("min.insync.replicas=x", "`min.insync.replicas` is `x`"),
            (
                "replication.factor=1&min.insync.replicas=2",
                "no record could be written",
            ),
        ] {
            let error = Settings::parse(&format!("a:1?{query}")).err().unwrap();
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[test]
    fn settings_behind_the_guarantees_are_refused() {
        for name in [
            "acks",
            "auto.offset.reset",
            "bootstrap.servers",
            "enable.auto.commit",
            "enable.idempotence",
            "fetch.wait.max.ms",
            "group.id",
            "isolation.level",
            "message.timeout.ms",
            "partitioner",
            "queue.buffering.max.kbytes",
            "queued.max.messages.kbytes",
            "transactional.id",
        ] {
            let said = refused(name, "1").unwrap_or_default();
            assert!(said.contains(name), "{name}: {said}");
        }
        // A file of settings for other clients may repeat ours.
        assert_eq!(refused("acks", "all"), None);
        assert_eq!(refused("ssl.ca.location", "ca.pem"), None);
        let settings = Settings::parse("a:1?acks=all&client.id=me").unwrap();
        assert_eq!(settings.client().get("acks"), None);
        assert_eq!(settings.client().get("client.id"), Some("me"));
        assert_eq!(settings.client().get("bootstrap.servers"), Some("a:1"));
    }
}
