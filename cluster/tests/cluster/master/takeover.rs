//! A master that is killed, replaced, or started twice.

use serde_json::{Value, json};

use crate::harness::PATIENCE;
use crate::master::asking::{Master, Worker, job};

#[test]
fn a_killed_master_is_replaced_without_disturbing_what_runs() {
    let folder = tempfile::tempdir().unwrap();
    let first = Master::start(folder.path());
    let mut a = Worker::new("a", 2);
    a.report(&first);
    first.done("/api/v1/jobs", &job("one", 2));
    let one = |orders: &[Value]| orders.len() == 1;
    let orders = a.until(&first, "an order", one);
    a.all(&orders, &json!("live"));
    let before = a.report(&first);
    first.is("one", "running");
    first.process.kill();
    let second = Master::start(folder.path());
    // Before it hears of the worker it knows of the job, and has no orders for anybody.
    assert_eq!(second.job("one")["generation"], 1);
    assert_eq!(second.get("/cluster/workers/a/orders").0, 404);
    let after = a.report(&second);
    assert_eq!(after["processes"], before["processes"]);
    let number = |orders: &Value, of: &str| orders[of].as_u64().unwrap();
    assert!(number(&after, "master") > number(&before, "master"));
    assert!(number(&after, "version") > number(&before, "version"));
    let job = second.is("one", "running");
    assert_eq!(
        (&job["generation"], &job["restarts"]),
        (&json!(1), &json!(0))
    );
}

#[test]
fn of_two_masters_on_one_store_the_last_to_start_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = Master::start(folder.path());
    first.done("/api/v1/jobs", &job("one", 2));
    let second = Master::start(folder.path());
    let said = first.process.ends(1, PATIENCE);
    assert!(said.contains("another master took over"), "{said}");
    let at = second.url.trim_start_matches("http://");
    assert!(said.contains(&format!("listening on {at}")), "{said}");
    assert_eq!(second.job("one")["workers_wanted"], 2);
    second.done("/api/v1/jobs", &job("two", 1));
    // So does the next one, and so on.
    let third = Master::start(folder.path());
    let jobs = third.get("/api/v1/jobs").1;
    let names = jobs
        .as_array()
        .unwrap()
        .iter()
        .map(|job| job["name"].clone());
    assert_eq!(names.collect::<Vec<_>>(), ["one", "two"]);
}

#[test]
fn jobs_are_kept_when_it_is_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = Master::start(folder.path());
    first.done("/api/v1/jobs", &job("one", 2));
    first.done("/api/v1/jobs/one/stop", &json!({}));
    first.process.stop("TERM");
    let second = Master::start(folder.path());
    assert_eq!(second.job("one")["state"], "stopped");
    let said = second.done("/api/v1/jobs", &job("one", 2));
    assert!(said.contains("starts again"), "{said}");
}
