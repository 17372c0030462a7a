//! Two jobs of different names over one table: the second is refused before it writes, and takes
//! the tables over where it is told to.

use crate::harness::{Place, Process, until};
use crate::verify::damage::Tables;
use crate::verify::people::{PATIENCE, VIEWS, arrived, settle, write};

/// Waits until a job has filled all views.
fn filled(place: &Place, mut job: Process, name: &str, mark: &str) {
    let tables = until("the tables are there", PATIENCE, || {
        job.runs();
        let filled = tidemill_sinks::open(&place.sink)
            .unwrap()
            .frontiers(name)
            .ok()?;
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

/// A table was restored, or made by hand, and has rows that are not the view's.
#[test]
fn a_table_with_rows_of_somebody_else_is_refused_until_it_is_empty() {
    for place in Place::all("foreign") {
        write(&place);
        settle(&place, "Iceland", 3);
        filled(&place, place.start("dataflow", &[]), &place.name, "mark-1");
        let tables = Tables::of(&place);
        tables.run("DROP TABLE visits");
        tables.run(&format!(
            "DELETE FROM tidemill_frontiers WHERE job = '{}' AND \"view\" = 'visits'",
            place.name
        ));
        tables.run("CREATE TABLE visits (id text PRIMARY KEY, page text)");
        tables.run("INSERT INTO visits (id, page) VALUES ('of a backup', '/')");
        for (command, more) in [
            ("plan", &[][..]),
            ("dataflow", &[]),
            ("dataflow", &["--take-over"]),
        ] {
            let said = place.start(command, more).ends(1, PATIENCE);
            assert!(
                said.contains("table `visits` has rows that no job of Tidemill wrote"),
                "{said}"
            );
        }
        tables.run(match tables.is_cassandra() {
            true => "TRUNCATE visits",
            false => "DROP TABLE visits",
        });
        filled(&place, place.start("dataflow", &[]), &place.name, "mark-2");
        place.start("verify", &[]).ends(0, PATIENCE);
    }
}

/// Somebody dropped the frontiers, and rows that are in the tables went meanwhile.
#[test]
fn tables_whose_frontiers_are_lost_are_filled_anew() {
    for place in Place::all("unclaimed") {
        write(&place);
        settle(&place, "Iceland", 3);
        filled(&place, place.start("dataflow", &[]), &place.name, "mark-1");
        let tables = Tables::of(&place);
        tables.run("DROP TABLE tidemill_frontiers");
        tables.insert("everyone", "id, country", "'a ghost', 'Iceland'");
        let mut job = place.start("dataflow", &[]);
        job.says("nothing says how far the view's table was filled");
        filled(&place, job, &place.name, "mark-2");
        place.start("verify", &[]).ends(0, PATIENCE);
    }
}
