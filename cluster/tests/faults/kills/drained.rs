//! A stop drains: whatever the topics held when it was asked for is in the views when the processes
//! have ended, however fast more comes.

use std::time::Duration;

use arrow::datatypes::DataType;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::harness::database::Database;
use crate::harness::{PATIENCE, Place, Process, View, feed, seed, until};
use crate::kills::lands_users;

const STOPS: usize = 4;

/// A pipeline that fetches users as fast as it can into a table called as it is.
fn pipeline(place: &Place) -> (String, View) {
    let feed = feed("drained").replace("50ms", "1ms").replace("20", "100");
    let table = lands_users(place, &feed, |table| {
        format!("all_{table} WITH (primary_key = 'id') AS SELECT id, age FROM {table}")
    });
    let view = View::new(&format!("all_{table}"), &[("id", DataType::Utf8)]);
    (table, view)
}

/// Stops in the midst of load, again and again: each user of the topic is in the view.
fn all_is_there(
    place: &Place,
    random: &mut StdRng,
    start: &dyn Fn() -> Vec<Process>,
    stop: &dyn Fn(Vec<Process>),
) {
    let (table, view) = pipeline(place);
    for _ in 0..STOPS {
        let before = place.records(&table).len();
        let mut processes = start();
        // The views are live: a stop of a job that has read nothing yet has nothing to drain.
        until("users are published and served", PATIENCE, || {
            processes.iter_mut().for_each(Process::runs);
            let published = place.records(&table).len() > before + 500;
            (published && place.view(&view).len() > before).then_some(())
        });
        // Anywhere between two pages.
        std::thread::sleep(random.random_range(Duration::ZERO..Duration::from_millis(300)));
        stop(processes);
        let (published, served) = (place.records(&table).len(), place.view(&view).len());
        assert_eq!(served, published, "users in the view, users in the topic");
    }
    if !place.database.starts_with("sqlite:") {
        Database::open(&place.database).clean(&place.name, &[&table]);
    }
}

#[test]
fn all_that_a_run_published_is_in_its_views_when_it_has_stopped() {
    let mut random = StdRng::seed_from_u64(seed("all_that_a_run_published_is_in_its_views"));
    for place in Place::all("drained") {
        let start = || vec![place.start("run", &[])];
        let stop = |mut run: Vec<Process>| drop(run[0].stop("TERM"));
        all_is_there(&place, &mut random, &start, &stop);
    }
}

#[test]
fn a_dataflow_stops_with_all_that_was_published_before() {
    let test = "a_dataflow_stops_with_all_that_was_published_before";
    let mut random = StdRng::seed_from_u64(seed(test));
    for place in Place::all("drained") {
        let start = || {
            vec![
                place.start("ingest", &[]),
                place.start("dataflow", &["-w", "2"]),
            ]
        };
        // Nothing more is published, and the dataflow is told at once, wherever it is.
        let stop = |mut processes: Vec<Process>| {
            processes[0].stop("TERM");
            processes[1].stop("TERM");
        };
        all_is_there(&place, &mut random, &start, &stop);
    }
}
