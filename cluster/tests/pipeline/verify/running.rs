//! The job runs and everything changes; then it is killed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::harness::{Place, Process, seed, until};
use crate::verify::damage::Tables;
use crate::verify::people::{PATIENCE, VIEWS, arrived, churn, equal, journal, settle, write};

/// Verifications under load that must find nothing.
const LOOKS: usize = 6;

/// Changes rows until told to stop.
fn load(place: &Place, seed: u64, stop: &AtomicBool) {
    let mut rng = StdRng::seed_from_u64(seed);
    while !stop.load(Ordering::Relaxed) {
        churn(place, &mut rng, 40);
        thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn verify(place: &Place, more: &[&str], code: i32) -> String {
    place.start("verify", more).ends(code, PATIENCE)
}

#[track_caller]
fn all_equal(said: &str) {
    assert!(
        equal(said).values().all(|equal| *equal),
        "a difference that is none:\n{said}"
    );
}

#[test]
fn changes_are_no_differences_and_damage_is() {
    for place in Place::all("running") {
        let seed = seed("changes_are_no_differences_and_damage_is");
        write(&place);
        let flags = ["-w", "2", "--checkpoint-every", "1s"];
        let mut job = place.start("dataflow", &flags);
        settle(&place, "Iceland", 20);
        until("the tables are there", PATIENCE, || {
            job.runs();
            place.are_there(&VIEWS).then_some(())
        });
        let tables = Tables::of(&place);
        arrived(&place, &tables, "mark-1");
        let generation = journal(&place).generation;
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| load(&place, seed, &stop));
            // Whatever fails below ends the load.
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                under_load(&place, &mut job, &tables);
            }));
            stop.store(true, Ordering::Relaxed);
            if let Err(failure) = ended {
                std::panic::resume_unwind(failure);
            }
        });
        assert_eq!(
            journal(&place).generation,
            generation,
            "verifying took the job over"
        );
        // A crash leaves rows of epochs that are not complete: those are no differences either.
        job.kill();
        all_equal(&verify(&place, &[], 0));
        let mut job = place.start("dataflow", &flags);
        arrived(&place, &tables, "mark-2");
        all_equal(&verify(&place, &["--from-log"], 0));
        job.stop("TERM");
        all_equal(&verify(&place, &[], 0));
    }
}

fn under_load(place: &Place, job: &mut Process, tables: &Tables) {
    for look in 0..LOOKS {
        let more: &[&str] = if look % 3 == 2 { &["--from-log"] } else { &[] };
        all_equal(&verify(place, more, 0));
    }
    tables.run("DELETE FROM everyone WHERE id = 'Iceland-003'");
    tables.run("UPDATE by_country SET people = 1 WHERE country = 'Iceland'");
    tables.run("UPDATE oldest SET age = 1 WHERE country = 'Iceland' AND place = 1");
    tables.insert("placed", "id, continent", "'ghost', 'nowhere'");
    let said = verify(place, &[], 4);
    for (view, counted) in [
        ("everyone", "1 missing, 0 extra, 0 different"),
        ("by_country", "0 missing, 0 extra, 1 different"),
        ("oldest", "0 missing, 0 extra, 1 different"),
        ("placed", "0 missing, 1 extra, 0 different"),
    ] {
        let line = said
            .lines()
            .find(|line| line.starts_with(&format!("{view}: 1 difference ")));
        assert!(
            line.is_some_and(|line| line.ends_with(counted)),
            "{view}: {counted}?\n{said}"
        );
    }
    assert!(equal(&said)["visits"], "{said}");
    let said = verify(place, &["--repair"], 0);
    assert_eq!(said.matches(": 1 difference repaired").count(), 4, "{said}");
    all_equal(&verify(place, &[], 0));
    job.runs();
}
