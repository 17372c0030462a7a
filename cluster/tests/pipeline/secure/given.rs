//! How credentials may be given: in the environment, in files, in `tidemill.toml`; not in flags.

use crate::harness::free_port;
use crate::secure::call::Call;

fn nobody() -> String {
    format!("127.0.0.1:{}", free_port())
}

#[test]
fn a_password_in_a_flag_is_refused_and_says_what_is_right() {
    let call = Call::new();
    for (flag, value, right) in [
        (
            "--postgres",
            "postgres://me:hunter22@h/d",
            "TIDEMILL_POSTGRES_PASSWORD_FILE",
        ),
        (
            "--postgres",
            "host=h password='hunter 22' user=me",
            "TIDEMILL_POSTGRES_PASSWORD,",
        ),
        (
            "--kafka",
            "h:1?sasl.username=u&sasl.password=hunter22",
            "TIDEMILL_KAFKA_PASSWORD",
        ),
        (
            "--registry",
            "https://me:hunter22@h",
            "TIDEMILL_REGISTRY_PASSWORD",
        ),
        (
            "--cassandra",
            "me:hunter22@h",
            "TIDEMILL_CASSANDRA_PASSWORD",
        ),
        (
            "--state",
            "s3://key:hunter22@bucket",
            "AWS_SECRET_ACCESS_KEY",
        ),
    ] {
        let parts = [flag, "***", "a password in a flag", right];
        call.check(&[flag, value], &[], 2, &parts);
    }
}

#[test]
fn a_file_with_a_password_that_others_may_read_is_warned_of() {
    let call = Call::new();
    let at = nobody();
    let holds = format!("[connections]\ncassandra = 'me:hunter22@{at}'\n");
    let holds_elsewhere = format!(
        "[connections]\ncassandra = '{at}'\n[cassandra]\nuser = 'me'\npassword = 'hunter22'\n"
    );
    let holds_none = format!("[connections]\ncassandra = 'me@{at}'\n");
    for (text, mode, warned) in [
        (&holds, 0o644, true),
        (&holds_elsewhere, 0o640, true),
        (&holds, 0o600, false),
        (&holds_none, 0o644, false),
    ] {
        call.write("tidemill.toml", text);
        call.open_for("tidemill.toml", mode);
        let said = call.run(&["check", "p"], &[], 1);
        let line = "warning: tidemill.toml holds a password and others may read it";
        assert_eq!(said.contains(line), warned, "{said}");
        assert!(said.contains(&at), "{said}");
    }
}

#[test]
fn kafkas_settings_are_checked_where_they_are_given() {
    let call = Call::new();
    call.write(
        "tidemill.toml",
        "[connections]\nkafka = 'h:1'\n[kafka]\nacks = 1\n",
    );
    call.check(
        &[],
        &[],
        2,
        &["tidemill.toml: [kafka]", "`acks` is Tidemill's own"],
    );
    call.write(
        "tidemill.toml",
        "[connections]\nkafka = 'h:1'\n[kafka]\nsasl.username = ['u']\n",
    );
    call.check(
        &[],
        &[],
        1,
        &["tidemill.toml: kafka.sasl.username must be text"],
    );
    call.write("tidemill.toml", "");
    let file = call.write(
        "client.properties",
        "sasl.mechanism=PLAIN\nisolation.level=x\n",
    );
    let config = ("TIDEMILL_KAFKA_CONFIG", file.as_str());
    call.check(
        &[],
        &[config],
        2,
        &["client.properties:2: `isolation.level`"],
    );
    let gone = [("TIDEMILL_KAFKA_CONFIG", "nowhere")];
    call.check(
        &[],
        &gone,
        2,
        &["TIDEMILL_KAFKA_CONFIG: nowhere: No such file"],
    );
    // The brokers may be in the file as well, and a password is not left unused.
    let text = "bootstrap.servers=h:1\nsasl.mechanism=PLAIN\nsasl.password=hunter22\n";
    call.write("client.properties", text);
    call.check(
        &[],
        &[config],
        1,
        &["kafka h:1", "needs security.protocol=SASL_SSL"],
    );
}

#[cfg(not(feature = "kafka-tls"))]
#[test]
fn what_this_build_cannot_do_names_the_feature() {
    let call = Call::new();
    let scram = "SASL_PLAINTEXT://h:1?sasl.mechanism=SCRAM-SHA-512";
    for given in ["SSL://h:1", "SASL_SSL://h:1", scram] {
        let parts = ["not in this build", "`--features kafka-tls`"];
        call.check(&["--kafka", given], &[], 1, &parts);
    }
}

#[test]
fn sslmodes_files_are_named_when_they_are_wrong() {
    let call = Call::new();
    let at = nobody();
    let ask = |query: &str, parts: &[&str]| {
        let url = format!("postgres://me@{at}/d?{query}");
        call.check(&["--postgres", &url], &[], 1, parts);
    };
    ask(
        "sslmode=verify-full",
        &["sslmode=verify-full needs sslrootcert=FILE"],
    );
    ask(
        "sslmode=allow",
        &["sslmode is `allow`, expected disable, prefer"],
    );
    ask("sslmode=verify-ca&sslrootcert=gone.pem", &["gone.pem"]);
    call.write("empty.pem", "nothing");
    ask(
        "sslmode=verify-ca&sslrootcert=empty.pem",
        &["empty.pem: there is no certificate"],
    );
    call.write("open.key", "hunter22");
    call.open_for("open.key", 0o644);
    let cert = "sslmode=require&sslcert=empty.pem&sslkey=open.key";
    ask(cert, &["sslkey open.key: others may read it, make it 0600"]);
}
