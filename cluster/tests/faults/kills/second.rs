//! A second process of a pipeline that was started by mistake is refused and names the first, which
//! goes on; what a killed one leaves behind keeps nobody out.

use std::time::{Duration, Instant};

use crate::harness::database::Database;
use crate::harness::{PATIENCE, Place, feed, until};
use crate::kills::lands_users;

/// How long the lease of a dead process may last, with what it takes to start another one.
const FREE: Duration = Duration::from_secs(20);
/// How soon a second one is refused: PostgreSQL is watched for two heartbeats.
const REFUSED: Duration = Duration::from_secs(15);
const HELD: i32 = 5;

/// A pipeline that fetches users into a table called as it is.
fn pipeline(place: &Place) -> String {
    lands_users(place, &feed("second"), |table| {
        format!(
            "ages WITH (primary_key = 'age') AS
               SELECT age, count(*) AS users FROM {table} GROUP BY age"
        )
    })
}

fn published_more(place: &Place, table: &str) {
    let before = place.records(table).len();
    until("more users are published", PATIENCE, || {
        (place.records(table).len() > before + 20).then_some(())
    });
}

#[test]
fn a_second_run_is_refused_and_the_first_goes_on() {
    for place in Place::all("second") {
        let table = pipeline(&place);
        let mut first = place.start("run", &[]);
        published_more(&place, &table);
        let who = format!("process {} on ", first.id());
        for command in ["run", "ingest", "dataflow"] {
            let began = Instant::now();
            let said = place.start(command, &[]).ends(HELD, PATIENCE);
            assert!(
                said.contains(&who),
                "{command} does not say `{who}`: {said}"
            );
            assert!(
                began.elapsed() < REFUSED,
                "{command}: {:?}",
                began.elapsed()
            );
        }
        first.runs();
        published_more(&place, &table);
        first.runs();
        // One that dies keeps nobody out.
        first.kill();
        let began = Instant::now();
        let mut second = place.start("run", &[]);
        published_more(&place, &table);
        assert!(began.elapsed() < FREE, "{:?}", began.elapsed());
        // One that is taken over says so and ends.
        let mut third = place.start("run", &["--take-over"]);
        let said = second.ends(1, PATIENCE);
        assert!(said.contains("must stop"), "{said}");
        published_more(&place, &table);
        third.stop("TERM");
        // A clean end leaves no lease.
        let mut last = place.start("run", &[]);
        published_more(&place, &table);
        let said = last.stop("TERM");
        assert!(!said.contains("waiting for at most"), "{said}");
        if !place.database.starts_with("sqlite:") {
            Database::open(&place.database).clean(&place.name, &[&table]);
        }
    }
}
