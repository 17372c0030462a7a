//! A job's generations as a worker sees them: ordered, live, failed, drained.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{PATIENCE, until};
use crate::master::asking::{Master, Worker, exited, job};

/// After so long without a report a worker is gone in any case.
const SILENT: Duration = Duration::from_secs(8);

#[test]
fn two_processes_learn_of_each_other_and_a_crash_ends_both() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path());
    let (mut a, mut b) = (Worker::new("a", 2), Worker::new("b", 2));
    let _orders = (a.report(&master), b.report(&master));
    master.done("/api/v1/jobs", &job("pair", 4));
    let one = |orders: &[Value]| orders.len() == 1;
    let (for_a, for_b) = (
        a.until(&master, "an order for a", one),
        b.until(&master, "an order for b", one),
    );
    assert_eq!(
        (&for_a[0]["threads"], &for_a[0]["processes"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(for_a[0]["peers"], json!(null));
    assert_eq!(for_a[0]["secret"].as_str().unwrap().len(), 64);
    assert!(
        for_a[0]["spec"]["connections"]["state"]
            .as_str()
            .unwrap()
            .starts_with("file:///")
    );
    let index = |orders: &[Value]| orders[0]["key"]["index"].as_u64().unwrap();
    assert_ne!(index(&for_a), index(&for_b));
    a.all(&for_a, &json!({"listening": {"address": "a:1"}}));
    b.all(&for_b, &json!({"listening": {"address": "b:2"}}));
    let _orders = (a.report(&master), b.report(&master));
    let told = |orders: &[Value]| orders.iter().all(|order| order["peers"].is_array());
    let for_a = a.until(&master, "peers", told);
    let mut peers = [json!("a:1"), json!("b:2")];
    if index(&for_a) == 1 {
        peers.reverse();
    }
    assert_eq!(for_a[0]["peers"], json!(peers));
    a.all(&for_a, &json!("live"));
    b.all(&for_b, &json!("live"));
    let _orders = (a.report(&master), b.report(&master));
    let running = master.is("pair", "running");
    assert_eq!(
        (&running["workers"], &running["generation"]),
        (&json!(4), &json!(1))
    );
    // One crashes; the other says that it lost it.
    b.all(&for_b, &exited(101, "error: a bug"));
    a.all(&for_a, &exited(3, "lost process"));
    let _orders = (a.report(&master), b.report(&master));
    let newer = |orders: &[Value]| orders.len() == 1 && orders[0]["key"]["generation"] == 2;
    let none = |orders: &[Value]| orders.is_empty() || newer(orders);
    a.until(&master, "the end", none);
    (a.processes, b.processes) = (Vec::new(), Vec::new());
    let _orders = (a.report(&master), b.report(&master));
    a.until(&master, "the next generation", newer);
    let job = master.job("pair");
    assert_eq!(job["restarts"], json!(1));
    let failure = &job["failures"][0];
    assert_eq!(failure["what"], "ended with 101", "{job}");
    assert_eq!(failure["tail"], json!(["error: a bug"]));
    assert!(
        failure["process"].as_str().unwrap().ends_with("node-b"),
        "{failure}"
    );
}

#[test]
fn a_worker_whose_connection_ends_is_gone_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path());
    let mut worker = Worker::new("a", 1);
    let at = master.url.trim_start_matches("http://");
    let after = u64::MAX;
    let ask = format!("GET /cluster/workers/a/orders?after={after} HTTP/1.1\r\nHost: {at}\r\n\r\n");
    let mut wait = TcpStream::connect(at).unwrap();
    let heard = Instant::now();
    worker.report(&master);
    wait.write_all(ask.as_bytes()).unwrap();
    // One that ends before the master has read what it asks is no wait that ended.
    until("the question is read", PATIENCE, || {
        is_read(&wait).then_some(())
    });
    drop(wait);
    until("the worker is gone", PATIENCE, || {
        let (_, status) = master.get("/api/v1/status");
        let workers = status["workers"].as_array().unwrap();
        workers.is_empty().then_some(())
    });
    let took = heard.elapsed();
    assert!(took < SILENT, "gone after {took:?}, as one that is silent");
}

/// Whether the process at the other end, on this machine, has read all that was sent to it.
fn is_read(connection: &TcpStream) -> bool {
    let hex = |at: SocketAddr| match at.ip() {
        IpAddr::V4(ip) => format!("{:08X}:{:04X}", u32::from_le_bytes(ip.octets()), at.port()),
        IpAddr::V6(ip) => panic!("{ip} is not in /proc/net/tcp"),
    };
    let here = hex(connection.peer_addr().unwrap());
    let there = hex(connection.local_addr().unwrap());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    // Number, local address, remote address, state (01 is connected), bytes to send:to be read.
    let mut lines = table.lines().map(|line| line.split_whitespace());
    lines.any(|words| {
        let words: Vec<&str> = words.take(5).collect();
        words[1..4] == [here.as_str(), &there, "01"] && words[4].ends_with(":00000000")
    })
}

#[test]
fn stop_drains_and_rescale_starts_with_another_number() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path());
    let mut a = Worker::new("a", 4);
    a.report(&master);
    master.done("/api/v1/jobs", &job("one", 2));
    let again = master.done("/api/v1/jobs", &job("one", 2));
    assert!(again.contains("runs already"), "{again}");
    let one = |orders: &[Value]| orders.len() == 1;
    let orders = a.until(&master, "an order", one);
    a.all(&orders, &json!("live"));
    a.report(&master);
    assert_eq!(master.is("one", "running")["workers"], 2);
    master.done("/api/v1/jobs/one/rescale?workers=3", &json!({}));
    let drains = |orders: &[Value]| orders.len() == 1 && orders[0]["drain"] == true;
    let orders = a.until(&master, "to drain", drains);
    assert_eq!(orders[0]["threads"], 2);
    a.all(&orders, &exited(0, "stopped"));
    let larger = |orders: &[Value]| orders.len() == 1 && orders[0]["threads"] == 3;
    let orders = a.until(&master, "an order for 3", larger);
    a.all(&orders, &json!("live"));
    a.report(&master);
    let job = master.is("one", "running");
    assert_eq!((&job["workers"], &job["restarts"]), (&json!(3), &json!(0)));
    assert_eq!(job["failures"], json!([]));
    master.done("/api/v1/jobs/one/stop", &json!({}));
    let orders = a.until(&master, "to drain", drains);
    assert_eq!(master.job("one")["state"], "draining");
    a.all(&orders, &exited(0, "stopped"));
    a.until(&master, "nothing", <[Value]>::is_empty);
    master.is("one", "stopped");
}

#[test]
fn too_few_slots_are_said_or_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path());
    let mut a = Worker::new("a", 2);
    a.report(&master);
    let mut waits = job("waits", 4);
    waits["wait_for_slots"] = json!(true);
    master.done("/api/v1/jobs", &waits);
    let said = until("it waits for slots", PATIENCE, || {
        a.report(&master);
        let job = master.job("waits");
        let why = job["why"].as_str().unwrap_or_default().to_owned();
        why.contains("2 slots free of 4 wanted").then_some(job)
    });
    assert_eq!(said["state"], "waiting");
    master.done("/api/v1/jobs", &job("runs", 4));
    let one = |orders: &[Value]| orders.len() == 1;
    let orders = a.until(&master, "an order", one);
    assert_eq!(
        (&orders[0]["key"]["job"], &orders[0]["threads"]),
        (&json!("runs"), &json!(2))
    );
    a.all(&orders, &json!("live"));
    a.report(&master);
    let job = master.is("runs", "running");
    assert!(
        job["why"].as_str().unwrap().starts_with("2 of 4 workers"),
        "{job}"
    );
    let mut b = Worker::new("b", 2);
    b.report(&master);
    let why = master.job("runs")["why"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(why.contains("tidemill rescale runs --workers 4"), "{why}");
}
