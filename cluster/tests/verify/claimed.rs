//! Two jobs of different names over one table: the second is refused before it writes, and takes
//! the tables over where it is told to.

use tidemill_dataflow::sink;

use crate::damage::Tables;
use crate::harness::{Place, Process, until};
use crate::people::{PATIENCE, VIEWS, arrived, settle, write};

/// Waits until a job has filled all views.
fn filled(place: &Place, mut job: Process, name: &str, mark: &str) {
    let tables = until("the tables are there", PATIENCE, || {
        job.runs();
        let filled = sink::open(&place.sink).unwrap().frontiers(name).ok()?;
        let there = VIEWS.iter().all(|view| filled.contains_key(*view));
        there.then(|| Tables::of(place))
    });
    arrived(place, &tables, mark);
    job.stop("TERM");
}

#[test]
fn a_table_that_another_job_fills_is_refused_or_taken_over() {
    for place in Place::all("claimed") {
        write(&place);
        settle(&place, "Iceland", 3);
        filled(&place, place.start("dataflow", &[]), &place.name, "mark-1");
        let first = place.name.as_str();
        let second = ["--name", "second"];
        let said = place.start("dataflow", &second).ends(1, PATIENCE);
        assert!(
            said.contains("table `by_country` (and 4 more tables) is filled by job")
                && said.contains(&format!("`tidemill drop --name {first}`"))
                && said.contains("--take-over"),
            "{said}"
        );
        let said = place.start("plan", &second).ends(1, PATIENCE);
        assert!(said.contains("is filled by job"), "{said}");
        // What is not this pipeline's own is not touched: the first goes on.
        filled(&place, place.start("dataflow", &[]), first, "mark-2");
        let taken = ["--name", "second", "--take-over"];
        let job = place.start("dataflow", &taken);
        filled(&place, job, "second", "mark-3");
        place.start("verify", &second).ends(0, PATIENCE);
        // Now the tables are the second's.
        let said = place.start("dataflow", &[]).ends(1, PATIENCE);
        assert!(said.contains("is filled by job `second`"), "{said}");
    }
}
