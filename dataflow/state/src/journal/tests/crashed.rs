//! Tests of crashes: a process dies at each of the journal's failpoints, and the next one opens the
//! journal.

use std::io::Write;
use std::process::Command;

use super::*;

/// The store of the process that dies, and the file in which it notes what it was told.
const CHILD: &str = "TIDEMILL_TEST_JOURNAL_CHILD";
const NOTES: &str = "TIDEMILL_TEST_JOURNAL_NOTES";
const THIS: &str = "journal::tests::crashed::each_point_is_crashed_at_and_recovered_from";

/// The process: passes every point several times.
fn child(url: &str) {
    let mut notes = std::fs::OpenOptions::new();
    let mut notes = notes
        .append(true)
        .create(true)
        .open(std::env::var(NOTES).unwrap())
        .unwrap();
    for _ in 0..4 {
        let store = store::open(url).unwrap();
        let (journal, standing) = Journal::open(store, "job").unwrap();
        let mut epoch = standing.last_epoch();
        for _ in 0..4 {
            epoch += 1;
            journal
                .bind(&binding(epoch, &[("t", epoch as u32, 1)]))
                .unwrap();
            writeln!(notes, "{epoch}").unwrap();
        }
        journal.checkpoint(&checkpoint(epoch - 1)).unwrap();
        journal.truncate(epoch - 2).unwrap();
    }
}

#[test]
fn each_point_is_crashed_at_and_recovered_from() {
    if let Ok(url) = std::env::var(CHILD) {
        return child(&url);
    }
    for engine in ["file", "sqlite"] {
        let names = failpoint::ALL.iter().map(|point| point.name());
        for point in names.filter(|name| name.starts_with("journal.")) {
            for count in [1, 3] {
                crash(engine, point, count);
            }
        }
    }
}

fn crash(engine: &str, point: &str, count: u32) {
    let what = format!("{engine} {point}:{count}");
    let place = in_memory();
    let url = format!("{engine}://{}/state", place.path().display());
    let notes = place.path().join("notes");
    let run = |failpoint: Option<String>| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", THIS])
            .env(CHILD, &url)
            .env(NOTES, &notes);
        command.envs(failpoint.map(|it| ("TIDEMILL_FAILPOINT", it)));
        command.output().unwrap().status
    };
    assert_eq!(
        run(Some(format!("{point}:{count}"))).code(),
        None,
        "{what}: no signal"
    );
    let store = store::open(&url).unwrap();
    let check = || {
        let standing = read(&store);
        let bound = ends(&standing.bindings);
        let noted = std::fs::read_to_string(&notes).unwrap_or_default();
        let noted: Vec<u32> = noted.lines().map(|line| line.parse().unwrap()).collect();
        for epoch in &noted {
            assert!(
                bound.contains_key(&("t".to_owned(), *epoch)),
                "{what}: {epoch} is lost"
            );
        }
        // The last one may be bound without its process having been told.
        assert!(bound.len() <= noted.len() + 1, "{what}");
        standing
    };
    check();
    assert!(run(None).success(), "{what}: the next process");
    let standing = check();
    assert_eq!(standing.checkpoints.len(), 1, "{what}: {standing:?}");
    assert_eq!(store.list("job").unwrap().len(), 1, "{what}: leftovers");
}
