//! Alerting rules of a running pipeline: what fires reaches a webhook, also one that fails at
//! first, and is resolved; the same rules as files that Prometheus takes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{PATIENCE, Place, free_port, given};

const VIEWS: &str = "
CREATE TABLE users WITH (topic = 'users', format = 'avro', envelope = 'debezium');
CREATE MATERIALIZED VIEW people WITH (primary_key = 'id') AS SELECT id FROM users;
";

/// The path and the JSON of a request to a receiver.
type Posted = (String, Value);

/// Reads one request and answers it.
fn answered(stream: TcpStream, status: &str) -> Option<Posted> {
    let mut stream = BufReader::new(stream);
    let mut first = String::new();
    stream.read_line(&mut first).ok()?;
    let path = first.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(given) = line.strip_prefix("content-length: ") {
            length = given.parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}");
    stream.get_mut().write_all(answer.as_bytes()).ok()?;
    Some((path, serde_json::from_slice(&body).unwrap_or(Value::Null)))
}

/// A receiver of webhooks whose first answer is a failure. Ends with the test's process.
fn receiver() -> (String, Receiver<Posted>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (posted, received) = channel();
    std::thread::spawn(move || {
        let mut status = "503 Service Unavailable";
        for stream in listener.incoming().flatten() {
            let found = answered(stream, status);
            if status == "200 OK"
                && let Some(found) = found
            {
                let _nobody_waits = posted.send(found);
            }
            status = "200 OK";
        }
    });
    (url, received)
}

/// An API on this port with no records. Ends with the test's process.
fn api(port: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _silent = stream.set_read_timeout(Some(Duration::from_secs(1)));
            let _request = stream.read(&mut [0; 4096]);
            let body = r#"{"results": []}"#;
            let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length";
            let answer = format!("{head}: {}\r\n\r\n{body}", body.len());
            let _gone = stream.write_all(answer.as_bytes());
        }
    });
}

#[test]
fn what_fires_and_is_resolved_reaches_the_webhooks() {
    let place = Place::embedded("alerts");
    let port = free_port();
    place.write(
        "ingest.toml",
        &format!(
            "[schedule]\nevery = \"100ms\"\n[fetch]\nurl = \"http://127.0.0.1:{port}/\"\n\
             records = \"results\"\npage_parameter = \"page\"\n\
             backoff = \"100ms\"\nbackoff_max = \"200ms\"\n\
             [land]\ntable = \"users\"\nkey = \"id\"\ncolumns = [\n\
             {{ name = \"id\", path = \"id\", type = \"text\" }},\n]\n"
        ),
    );
    place.write("views.sql", VIEWS);
    let (url, received) = receiver();
    place.write(
        "alerts.toml",
        &format!(
            "[[rule]]\nname = \"away\"\nwhen = \"services_down > 0\"\nseverity = \"critical\"\n\
             advice = \"Start it.\"\n[[webhook]]\nurl = \"{url}/json\"\n\
             [[webhook]]\nurl = \"{url}/slack\"\nform = \"slack\"\n"
        ),
    );
    let run = place.start("run", &["--no-live"]);
    let next = || {
        let next = received.recv_timeout(PATIENCE);
        next.unwrap_or_else(|_| panic!("no message came: {}", run.said()))
    };
    let (path, fired) = next();
    assert_eq!(path, "/json");
    assert_eq!(fired["job"], place.name.as_str());
    assert_eq!(fired["rule"], "away");
    assert_eq!(fired["state"], "firing");
    assert_eq!(fired["severity"], "critical");
    assert_eq!(fired["value"], 1.0);
    assert_eq!(fired["when"], "services_down > 0");
    let (path, said) = next();
    assert_eq!(path, "/slack");
    let text = said["text"].as_str().unwrap();
    assert!(text.contains("away fires (critical)"), "{text}");
    assert!(text.ends_with("Start it."), "{text}");
    api(port);
    let (path, resolved) = next();
    assert_eq!(path, "/json");
    assert_eq!(resolved["state"], "resolved");
    assert_eq!(resolved["value"], 0.0);
}

/// What `tidemill alerts` prints for a pipeline.
fn printed(place: &Place, format: &str) -> String {
    let folder = place.folder().join(&place.name);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    let command = command.arg("alerts").arg(folder);
    let done = command.args(["--format", format]).output().unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success(), "{said}");
    said
}

/// The metrics that a text names.
fn metrics(text: &str) -> Vec<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|it| it.starts_with("tidemill_")).collect()
}

#[test]
fn prometheus_takes_the_rules_and_their_metrics_exist() {
    let place = Place::embedded("rules");
    place.write("views.sql", VIEWS);
    let rules = printed(&place, "prometheus");
    let dashboard = printed(&place, "grafana");
    let parsed: Value = serde_json::from_str(&dashboard).unwrap();
    assert_eq!(parsed["panels"].as_array().unwrap().len(), 12);
    let documented = include_str!("../../../../docs/metrics.md");
    for text in [&rules, &dashboard] {
        assert!(metrics(text).len() > 10);
        for metric in metrics(text) {
            assert!(documented.contains(&format!("| `{metric}` |")), "{metric}");
        }
    }
    let Some(promtool) = given("the rules file", "TIDEMILL_TEST_PROMTOOL") else {
        return;
    };
    place.write("rules.yml", &rules);
    let file = place.folder().join(&place.name).join("rules.yml");
    let mut check = Command::new(promtool);
    let checked = check.args(["check", "rules"]).arg(file).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "{said}");
    assert!(said.contains("12 rules found"), "{said}");
}
