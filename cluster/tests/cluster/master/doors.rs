//! Who is let in: the token, TLS, connections that say nothing or garbage, and bodies that are
//! wrong or too large.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use reqwest::blocking::Client;
use serde_json::json;

use crate::harness::{PATIENCE, Process, until};
use crate::master::asking::{Master, Worker, client, command, job};

/// How soon a master answers that is not held up.
const SOON: Duration = Duration::from_secs(4);

#[test]
fn the_token_is_asked_for_what_changes_state_and_of_workers() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start_with(folder.path(), &[], Some("s3cret-token"));
    let http = client();
    for path in [
        "/api/v1/jobs",
        "/api/v1/jobs/a/stop",
        "/cluster/workers/w/report",
    ] {
        let url = format!("{}{path}", master.url);
        for token in [None, Some("wrong"), Some("s3cret-toke")] {
            let request = http.post(&url).json(&job("a", 1));
            let request = match token {
                Some(token) => request.bearer_auth(token),
                None => request,
            };
            let answer = request.send().unwrap();
            assert_eq!(answer.status(), 401, "{path} {token:?}");
            let said: serde_json::Value = answer.json().unwrap();
            assert!(said["error"].as_str().unwrap().contains("token"), "{said}");
        }
    }
    let orders = format!("{}/cluster/workers/w/orders", master.url);
    assert_eq!(http.get(orders).send().unwrap().status(), 401);
    for open in [
        "/api/v1/status",
        "/api/v1/jobs",
        "/v1/targets",
        "/healthz",
        "/readyz",
    ] {
        let answer = http.get(format!("{}{open}", master.url)).send().unwrap();
        assert_eq!(answer.status(), 200, "{open}");
    }
    assert!(
        master
            .done("/api/v1/jobs", &job("a", 1))
            .contains("submitted")
    );
    Worker::new("w", 1).report(&master);
    assert!(
        !master.process.said().contains("s3cret"),
        "{}",
        master.process.said()
    );
}

#[test]
fn without_a_token_it_listens_on_this_machine_alone() {
    let folder = tempfile::tempdir().unwrap();
    let command = command(folder.path(), &["--listen", "0.0.0.0:0"]);
    let mut refused = Process::start(command, folder.path());
    let said = refused.ends(2, PATIENCE);
    assert!(said.contains("TIDEMILL_TOKEN_FILE"), "{said}");
}

#[test]
fn a_page_of_another_site_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path());
    let url = format!("{}/api/v1/jobs", master.url);
    let post = |origin: &str| {
        let request = client().post(&url).header("Origin", origin);
        request.json(&job("a", 1)).send().unwrap().status()
    };
    assert_eq!(post("http://evil.example"), 403);
    assert_eq!(post("null"), 403);
    assert_eq!(post(&master.url), 200);
}

#[test]
fn by_tls_and_by_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (cert, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    let flags = ["--tls-cert", &cert, "--tls-key", &key];
    let master = Master::start_with(folder.path(), &flags, Some("token"));
    assert!(master.url.starts_with("https://"), "{}", master.url);
    // Others shake hands slowly, or not at all.
    let at = master.url.trim_start_matches("https://").to_owned();
    let mut slow: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(&at).unwrap()).collect();
    for stream in &mut slow[..50] {
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    }
    let trusted = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let http = Client::builder()
        .no_proxy()
        .tls_certs_only([trusted])
        .build()
        .unwrap();
    let began = Instant::now();
    let answer = http.get(format!("{}/healthz", master.url)).send().unwrap();
    assert_eq!(answer.status(), 200);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    let plain = client().get(format!("http://{at}/healthz")).send();
    assert!(plain.is_err(), "{plain:?}");
    let untrusted = client().get(format!("{}/healthz", master.url)).send();
    assert!(untrusted.is_err(), "{untrusted:?}");
}

#[test]
fn silence_and_garbage_hold_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let mut master = Master::start(folder.path());
    let at = master.url.trim_start_matches("http://").to_owned();
    let mut held = Vec::new();
    for number in 0..300u32 {
        let mut stream = TcpStream::connect(&at).unwrap();
        // The master may have closed it already.
        let _ = match number % 3 {
            0 => Ok(()),
            1 => stream.write_all(&number.to_be_bytes().repeat(50)),
            _ => stream.write_all(b"POST /api/v1/jobs HTTP/1.1\r\nHost: a\r\nX: "),
        };
        held.push(stream);
    }
    let began = Instant::now();
    assert_eq!(master.get("/healthz").0, 200);
    assert_eq!(master.post("/api/v1/jobs", &job("a", 1)).0, 200);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    for stream in &mut held {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut said = Vec::new();
        // An end, or a connection that was reset; not a timeout.
        if let Err(error) = stream.read_to_end(&mut said) {
            assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "still open");
        }
    }
    master.process.runs();
}

#[test]
fn what_is_wrong_is_said_with_a_fitting_status() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path());
    let http = client();
    let url = |path: &str| format!("{}{path}", master.url);
    let large = "x".repeat(5 * 1024 * 1024);
    let raw = |body: String| http.post(url("/api/v1/jobs")).body(body).send().unwrap();
    let error = |answer: reqwest::blocking::Response| {
        let status = answer.status().as_u16();
        let said: serde_json::Value = answer.json().unwrap();
        (status, said["error"].as_str().unwrap().to_owned())
    };
    assert_eq!(error(raw("{".into())).0, 400);
    assert_eq!(error(raw(large)).0, 413);
    // The refusal of a body ends its connection, which a client may still try to use again.
    let http = client();
    assert_eq!(
        error(http.get(url("/api/v1/nothing")).send().unwrap()).0,
        404
    );
    assert_eq!(
        error(http.delete(url("/api/v1/jobs")).send().unwrap()).0,
        405
    );
    assert_eq!(
        error(
            http.get(url("/cluster/workers/w/orders?after=x"))
                .send()
                .unwrap()
        )
        .0,
        400
    );
    assert_eq!(
        error(http.get(url("/cluster/workers/w/orders")).send().unwrap()).0,
        404
    );
    let said = |path: &str, body: &serde_json::Value| {
        let (status, said) = master.post(path, body);
        (
            status,
            said["error"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let mut password = job("a", 1);
    password["connections"]["postgres"] = json!("postgres://u:hunter2@h/d");
    let (status, why) = said("/api/v1/jobs", &password);
    assert_eq!(status, 400);
    assert!(
        why.contains("a password") && !why.contains("hunter2"),
        "{why}"
    );
    assert_eq!(said("/api/v1/jobs", &job("a", 0)).0, 400);
    assert_eq!(said("/api/v1/jobs", &job("cluster", 1)).0, 400);
    for verb in ["stop", "restart", "remove", "rescale?workers=2"] {
        let (status, why) = said(&format!("/api/v1/jobs/none/{verb}"), &json!({}));
        assert_eq!(
            (status, why.contains("no job `none`")),
            (404, true),
            "{verb}: {why}"
        );
    }
    master.done("/api/v1/jobs", &job("a", 1));
    assert_eq!(said("/api/v1/jobs/a/rescale", &json!({})).0, 400);
    assert_eq!(
        said("/api/v1/jobs/a/rescale?workers=100000", &json!({})).0,
        400
    );
    let (status, why) = said("/api/v1/jobs/a/remove", &json!({}));
    assert_eq!(
        (status, why.contains("tidemill stop a")),
        (409, true),
        "{why}"
    );
    master.done("/api/v1/jobs/a/stop", &json!({}));
    until("it is removed", PATIENCE, || {
        (master.post("/api/v1/jobs/a/remove", &json!({})).0 == 200).then_some(())
    });
    assert_eq!(master.get("/api/v1/jobs/a").0, 404);
}
