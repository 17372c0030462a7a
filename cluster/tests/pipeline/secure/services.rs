//! The real PostgreSQL, Kafka and Cassandra, which want passwords and speak TLS: who is let in,
//! what is said to who is not, and the whole river over such connections.

use std::path::Path;
use std::time::Duration;

use postgres::NoTls;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;

use crate::harness::certificates::Certificates;
use crate::harness::own::Own;
use crate::harness::{PATIENCE, Process, unique, until};
use crate::secure::call::{Call, SECRET};

/// The passwords of the user `secure`.
const POSTGRES: &str = "hunter-pg'22";
const KAFKA: &str = "hunter-kafka-22";
const CASSANDRA: &str = "hunter-cassandra-22";

/// How long a river may take on a busy machine.
const RIVER: Duration = Duration::from_secs(240);

#[test]
fn who_is_let_in_and_the_river_over_tls() {
    let certificates = Certificates::new(KAFKA);
    let names = ["postgres", "kafka", "cassandra"];
    let test = "services with TLS and passwords";
    let Some(own) = Own::start_with(test, &names, Some(certificates.folder())) else {
        return;
    };
    make_postgres_users(&own);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cassandra = runtime.block_on(make_cassandra_user(&own));
    postgres_lets_in(&own, &certificates);
    cassandra_lets_in(&own, &certificates);
    kafka_lets_in(&own);
    let seen = |name: &str| runtime.block_on(encrypted(&cassandra, name));
    river(&own, &certificates, &seen);
}

/// `host:port` of a service, by the name that its certificate has.
fn named(own: &Own, name: &str) -> String {
    format!("localhost:{}", own.port(name, "public"))
}

fn make_postgres_users(own: &Own) {
    let mut client = postgres::Client::connect(&own.url("postgres"), NoTls).unwrap();
    let password = POSTGRES.replace('\'', "''");
    let users = format!(
        "CREATE ROLE secure LOGIN SUPERUSER PASSWORD '{password}';
         CREATE ROLE certified LOGIN SUPERUSER;"
    );
    client.batch_execute(&users).unwrap();
}

/// Without TLS, as its first user, which it makes a moment after its start.
async fn make_cassandra_user(own: &Own) -> Session {
    let node = format!("127.0.0.1:{}", own.port("cassandra", "public"));
    let deadline = std::time::Instant::now() + PATIENCE;
    let session = loop {
        let builder = SessionBuilder::new().known_node(&node);
        match builder.user("cassandra", "cassandra").build().await {
            Ok(session) => break session,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let user = format!(
        "CREATE ROLE IF NOT EXISTS secure WITH LOGIN = true AND SUPERUSER = true AND PASSWORD = \
         '{CASSANDRA}'"
    );
    session.query_unpaged(user, ()).await.unwrap();
    session
}

/// Whether all of a user's connections are encrypted; none without any.
async fn encrypted(session: &Session, name: &str) -> Option<bool> {
    let clients = "SELECT username, ssl_enabled FROM system_views.clients";
    let rows = session.query_unpaged(clients, ()).await.unwrap();
    let rows = rows.into_rows_result().unwrap();
    let rows = rows.rows::<(Option<String>, bool)>().unwrap();
    let rows = rows.map(Result::unwrap);
    let of: Vec<bool> = rows
        .filter(|(user, _)| user.as_deref() == Some(name))
        .map(|(_, encrypted)| encrypted)
        .collect();
    (!of.is_empty()).then(|| of.into_iter().all(|encrypted| encrypted))
}

/// What `check` says when PostgreSQL let it in.
const POSTGRES_IN: &str = "answering: PostgreSQL (";

fn postgres_lets_in(own: &Own, certificates: &Certificates) {
    const UNKNOWN: &str = "was not issued by an authority that is trusted here";
    let call = Call::new();
    let port = own.port("postgres", "public");
    let (ca, other) = (certificates.file("ca.pem"), certificates.file("other.pem"));
    let password = [("TIDEMILL_POSTGRES_PASSWORD", POSTGRES)];
    let name = "certificate not valid for name \"127.0.0.1\"";
    for (host, mode, authority, code, part) in [
        ("localhost", "", "", 0, POSTGRES_IN),
        ("127.0.0.1", "require", "", 0, POSTGRES_IN),
        ("localhost", "verify-full", &ca, 0, POSTGRES_IN),
        ("127.0.0.1", "verify-ca", &ca, 0, POSTGRES_IN),
        ("127.0.0.1", "verify-full", &ca, 1, name),
        ("localhost", "verify-ca", &other, 1, UNKNOWN),
        ("localhost", "require", &other, 1, UNKNOWN),
        ("localhost", "disable", "", 1, "no encryption"),
    ] {
        let settings = [("sslmode", mode), ("sslrootcert", authority)];
        let settings = settings.iter().filter(|(_, value)| !value.is_empty());
        let settings: Vec<String> = settings
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let query = settings.join("&");
        let url = format!("postgres://secure@{host}:{port}/postgres?{query}");
        call.check(&["--postgres", &url], &password, code, &[part]);
    }
    let words = format!("host=localhost port={port} user=certified dbname=postgres");
    let (cert, key) = ("certified.pem", "certified.key");
    let (cert, key) = (certificates.file(cert), certificates.file(key));
    let certified =
        format!("{words} sslmode=verify-full sslrootcert={ca} sslcert={cert} sslkey={key}");
    call.check(&["--postgres", &certified], &[], 0, &[POSTGRES_IN]);
    call.check(&["--postgres", &words], &[], 1, &["client certificate"]);
    postgres_takes_passwords(
        &call,
        &format!("postgres://secure@localhost:{port}/postgres"),
        port,
    );
}

fn postgres_takes_passwords(call: &Call, url: &str, port: u16) {
    let wrong = [("TIDEMILL_POSTGRES_PASSWORD", "hunter-wrong")];
    let parts = ["password authentication failed for user \"secure\""];
    call.check(&["--postgres", url], &wrong, 1, &parts);
    let file = call.write("password", &format!("{POSTGRES}\n"));
    for variable in [
        ("TIDEMILL_POSTGRES_PASSWORD_FILE", file.as_str()),
        ("PGPASSWORD", POSTGRES),
    ] {
        call.check(&["--postgres", url], &[variable], 0, &[POSTGRES_IN]);
    }
    let lines = format!("*:1:*:*:no\nlocalhost:{port}:*:secure:{POSTGRES}\n");
    call.write(".pgpass", &lines);
    call.check(&["--postgres", url], &[], 0, &[POSTGRES_IN]);
    call.open_for(".pgpass", 0o644);
    let parts = [".pgpass is left out", "password missing"];
    call.check(&["--postgres", url], &[], 1, &parts);
}

fn cassandra_lets_in(own: &Own, certificates: &Certificates) {
    const IN: &str = "answering: Cassandra (5";
    let call = Call::new();
    let (ca, other) = (certificates.file("ca.pem"), certificates.file("other.pem"));
    let (by_name, by_number) = (named(own, "cassandra"), named(own, "cassandra"));
    let by_number = by_number.replace("localhost", "127.0.0.1");
    let ask = |hosts: &str, more: &[(&str, &str)], code: i32, part: &str| {
        let user = [
            ("TIDEMILL_CASSANDRA_USER", "secure"),
            ("TIDEMILL_CASSANDRA_PASSWORD", CASSANDRA),
        ];
        let env = [&user, more].concat();
        call.check(&["--cassandra", hosts], &env, code, &[part]);
    };
    let ca = ("TIDEMILL_CASSANDRA_CA", ca.as_str());
    let chain = ("TIDEMILL_CASSANDRA_VERIFY", "ca");
    ask(&by_name, &[ca], 0, IN);
    ask(&by_number, &[ca, chain], 0, IN);
    ask(
        &by_number,
        &[ca],
        1,
        "certificate not valid for name \"127.0.0.1\"",
    );
    let unknown = "was not issued by an authority that is trusted here";
    ask(&by_name, &[("TIDEMILL_CASSANDRA_CA", &other)], 1, unknown);
    let wrong = ("TIDEMILL_CASSANDRA_PASSWORD", "hunter-wrong");
    ask(&by_name, &[ca, wrong], 1, "user and password are refused");
    call.check(&["--cassandra", &by_name], &[ca], 1, &["it wants a user"]);
    // The same in the file.
    call.write("password", CASSANDRA);
    call.write(
        "tidemill.toml",
        &format!(
            "[connections]\ncassandra = '{by_name}'\n[cassandra]\nuser = 'secure'\n\
             password_file = 'password'\nca = '{}'\n",
            ca.1
        ),
    );
    call.check(&[], &[], 0, &[IN]);
}

fn kafka_lets_in(own: &Own) {
    const IN: &str = "answering: Kafka (1 brokers";
    let call = Call::new();
    let port = own.port("kafka", "sasl");
    let at = format!("SASL_PLAINTEXT://127.0.0.1:{port}?sasl.mechanism=PLAIN");
    let ask = |password: &str, code: i32, part: &str| {
        let env = [
            ("TIDEMILL_KAFKA_USERNAME", "secure"),
            ("TIDEMILL_KAFKA_PASSWORD", password),
        ];
        call.check(&["--kafka", &at], &env, code, &[part]);
    };
    ask(KAFKA, 0, IN);
    ask("hunter-wrong", 1, "SASL authentication error");
    // As the file for Kafka's own tools says it.
    let file = format!(
        "bootstrap.servers=127.0.0.1:{port}\nsecurity.protocol=SASL_PLAINTEXT\n\
         sasl.mechanism=PLAIN\nsasl.jaas.config=org.apache.kafka.common.security.plain.\
         PlainLoginModule required username=\"secure\" password=\"{KAFKA}\";\n"
    );
    let file = call.write("client.properties", &file);
    call.check(&[], &[("TIDEMILL_KAFKA_CONFIG", &file)], 0, &[IN]);
}

/// Users flow from the built-in API to Cassandra, in two runs, and the most talkative log holds no
/// secret. PostgreSQL lets this user in with TLS alone, and Kafka this listener's users with a
/// password; Cassandra says which connections are encrypted.
fn river(own: &Own, certificates: &Certificates, encrypted: &dyn Fn(&str) -> Option<bool>) {
    let call = Call::new();
    let ca = certificates.file("ca.pem");
    let url = POSTGRES.replace('\'', "%27");
    let kafka = own.port("kafka", "sasl");
    let registry = std::env::var("TIDEMILL_TEST_REGISTRY").unwrap();
    let name = unique("secure");
    // Where the passwords may stand, they do.
    call.write(
        "tidemill.toml",
        &format!(
            "[connections]
             postgres = 'postgres://secure:{url}@{}/postgres?sslmode=verify-full&sslrootcert={ca}'
             kafka = '127.0.0.1:{kafka}'
             registry = '{registry}'
             cassandra = '{}/{name}'
             state = 'file://state'
             [kafka]
             security.protocol = 'SASL_PLAINTEXT'
             sasl.mechanism = 'PLAIN'
             sasl.username = 'secure'
             sasl.password = '{KAFKA}'
             debug = 'security,conf,broker'
             [cassandra]
             user = 'secure'
             password = '{CASSANDRA}'
             ca = '{ca}'\n",
            named(own, "postgres"),
            named(own, "cassandra"),
        ),
    );
    let users = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/users");
    let users = users.to_str().unwrap();
    for count in ["300", "600"] {
        let args = [
            "run", users, "--name", &name, "--until", count, "--log", "trace",
        ];
        let mut run = Process::start_in(call.command(&args, &[]), call.folder());
        let all = until("a connection to Cassandra", RIVER, || {
            run.runs();
            encrypted("secure")
        });
        assert!(all, "a connection to Cassandra is not encrypted");
        let said = run.ends(0, RIVER);
        assert!(said.contains("users_by_country"), "the views are not shown");
        assert!(said.contains("TRACE"), "the log does not say all");
        let told = said.lines().find(|line| line.contains(SECRET));
        assert_eq!(told, None, "a secret is said");
    }
}

/// With OpenSSL in librdkafka: TLS, TLS with a password, and what is said when either is wrong.
#[cfg(feature = "kafka-tls")]
#[test]
fn kafka_over_tls() {
    const IN: &str = "answering: Kafka (1 brokers";
    let certificates = Certificates::new(KAFKA);
    let folder = certificates.folder();
    let Some(own) = Own::start_with("Kafka over TLS", &["kafka"], Some(folder)) else {
        return;
    };
    let call = Call::new();
    let (ca, other) = (certificates.file("ca.pem"), certificates.file("other.pem"));
    let user = [
        ("TIDEMILL_KAFKA_USERNAME", "secure"),
        ("TIDEMILL_KAFKA_PASSWORD", KAFKA),
    ];
    let ask = |host: &str, ca: &str, code: i32, part: &str| {
        let port = own.port("kafka", "tls");
        let at = format!("SSL://{host}:{port}?ssl.ca.location={ca}");
        call.check(&["--kafka", &at], &[], code, &[part]);
        let port = own.port("kafka", "sasltls");
        let at = format!("SASL_SSL://{host}:{port}?sasl.mechanism=PLAIN&ssl.ca.location={ca}");
        call.check(&["--kafka", &at], &user, code, &[part]);
    };
    ask("localhost", &ca, 0, IN);
    ask("localhost", &other, 1, "SSL handshake failed");
    ask("127.0.0.1", &ca, 1, "SSL handshake failed");
    let port = own.port("kafka", "sasltls");
    let at = format!("SASL_SSL://localhost:{port}?sasl.mechanism=PLAIN&ssl.ca.location={ca}");
    let wrong = [user[0], ("TIDEMILL_KAFKA_PASSWORD", "hunter-wrong")];
    call.check(&["--kafka", &at], &wrong, 1, &["SASL authentication error"]);

    let users = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/users");
    let args = [
        "run",
        users.to_str().unwrap(),
        "--until",
        "300",
        "--kafka",
        &at,
    ];
    let more = ["--log", "trace"];
    let command = call.command(&[&args[..], &more[..]].concat(), &user);
    let said = Process::start_in(command, call.folder()).ends(0, RIVER);
    assert!(said.contains("users_by_country"), "the views are not shown");
    assert!(!said.contains(SECRET), "a secret is said");
}
