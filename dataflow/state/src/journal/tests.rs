//! Tests of the journal: its contract holds on every store engine, at every crash point that a
//! reader can distinguish, and after damage, old formats and racing openers.

mod crashed;
mod interleaved;
mod minted;

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;
use crate::store;

pub(super) fn binding(epoch: u64, ends: &[(&str, u32, i64)]) -> Binding {
    let mut offsets = Offsets::new();
    for (topic, partition, end) in ends {
        let partitions = offsets.entry((*topic).to_owned()).or_default();
        partitions.insert(*partition, *end);
    }
    Binding {
        epoch,
        ends: offsets,
        ..Binding::default()
    }
}

fn five() -> Vec<Binding> {
    vec![
        binding(10, &[("a", 0, 5), ("b", 3, 1)]),
        binding(20, &[("a", 1, 7)]),
        binding(30, &[]),
        binding(40, &[("a", 0, 9), ("b", 3, 2)]),
        binding(50, &[("a", 1, 8)]),
    ]
}

fn checkpoint(epoch: Epoch) -> Checkpointed {
    Checkpointed {
        epoch,
        manifest: format!("job/checkpoint/{epoch}/manifest"),
    }
}

/// Where every partition ends after all bindings.
fn ends(bindings: &[Binding]) -> BTreeMap<(String, u32), i64> {
    let mut all = BTreeMap::new();
    for binding in bindings {
        for (topic, ends) in &binding.ends {
            let ends = ends
                .iter()
                .map(|(partition, end)| ((topic.clone(), *partition), *end));
            all.extend(ends);
        }
    }
    all
}

/// A folder in memory where there is one: these tests write a lot.
fn in_memory() -> TempDir {
    let fast = Path::new("/dev/shm");
    let place = if fast.is_dir() {
        TempDir::new_in(fast)
    } else {
        TempDir::new()
    };
    place.unwrap()
}

fn directory(place: &TempDir) -> Arc<dyn Store> {
    store::open(&format!("file://{}", place.path().display())).unwrap()
}

/// Runs a check on a fresh store of each engine; `open` is another process of the job `job`.
fn on_each(check: impl Fn(&Arc<dyn Store>)) {
    let place = TempDir::new().unwrap();
    let mut urls = vec![
        format!("file://{}/journal", place.path().display()),
        format!("sqlite://{}/river.db", place.path().display()),
    ];
    match std::env::var("TIDEMILL_TEST_S3") {
        Ok(url) => {
            let unique = place.path().file_name().unwrap().to_string_lossy();
            urls.push(format!("{url}/journal-{}", unique.trim_start_matches('.')));
        }
        Err(_) => store::tests::left_out("the journal"),
    }
    for url in urls {
        let store = store::open(&url).unwrap();
        check(&store);
        for (name, _) in store.list("job").unwrap() {
            store.delete(&name).unwrap();
        }
    }
}

fn open(store: &Arc<dyn Store>) -> Journal {
    Journal::open(Arc::clone(store), "job").unwrap().0
}

fn read(store: &Arc<dyn Store>) -> Standing {
    Journal::read(&**store, "job").unwrap()
}

fn kind(outcome: Result<()>) -> Option<Kind> {
    outcome.err().map(|error| error.kind())
}

#[test]
fn what_is_appended_is_read_in_order_by_any_process() {
    on_each(|store| {
        assert_eq!(read(store), Standing::default());
        let journal = open(store);
        for binding in five() {
            journal.bind(&binding).unwrap();
            if binding.epoch % 20 == 0 {
                journal.checkpoint(&checkpoint(binding.epoch)).unwrap();
            }
        }
        let expected = Standing {
            generation: 1,
            bindings: five(),
            checkpoints: vec![checkpoint(20), checkpoint(40)],
        };
        assert_eq!(read(store), expected);
        let (next, standing) = Journal::open(Arc::clone(store), "job").unwrap();
        assert_eq!(standing.generation, 2);
        assert_eq!(standing.bindings, expected.bindings);
        assert_eq!(standing.checkpoints, expected.checkpoints);
        next.bind(&binding(60, &[("c", 0, 1)])).unwrap();
        assert_eq!(read(store).bindings.len(), 6);
        let other = Journal::read(&**store, "other").unwrap();
        assert_eq!(other, Standing::default(), "journals of jobs are apart");
    });
}

#[test]
fn epochs_must_increase() {
    on_each(|store| {
        let journal = open(store);
        journal.bind(&binding(10, &[])).unwrap();
        journal.checkpoint(&checkpoint(10)).unwrap();
        let fresh = open(store);
        for epoch in [10, 9] {
            let refused = fresh.bind(&binding(epoch, &[("a", 0, 1)]));
            assert_eq!(kind(refused), Some(Kind::Bug));
        }
        assert_eq!(kind(fresh.checkpoint(&checkpoint(9))), Some(Kind::Bug));
        // What is there already may be given again: the first answer may have been lost.
        fresh.bind(&binding(10, &[])).unwrap();
        fresh.checkpoint(&checkpoint(10)).unwrap();
        let standing = read(store);
        assert_eq!(
            (standing.bindings.len(), standing.checkpoints.len()),
            (1, 1)
        );
    });
}

#[test]
fn a_writer_that_was_taken_over_is_fenced_whatever_it_does() {
    // It knows the journal as it was before each step of the new generation.
    for (name, act) in [
        (
            "bind",
            (|it| it.bind(&binding(55, &[("a", 0, 99)]))) as fn(&Journal) -> Result<()>,
        ),
        ("checkpoint", |it| it.checkpoint(&checkpoint(50))),
        ("truncate", |it| it.truncate(50)),
        ("truncate nothing", |it| it.truncate(0)),
    ] {
        for (bound, truncated) in [(0, false), (1, false), (5, false), (1, true), (5, true)] {
            on_each(|store| {
                let old = open(store);
                for binding in &five()[..3] {
                    old.bind(binding).unwrap();
                }
                let new = open(store);
                let later = (1..=bound).map(|step| binding(50 + step, &[("a", 0, 50)]));
                later.for_each(|binding| new.bind(&binding).unwrap());
                if truncated {
                    new.truncate(50 + bound).unwrap();
                }
                let before = read(store);
                let error = act(&old).unwrap_err();
                assert_eq!(error.kind(), Kind::Fence, "{name}: {error}");
                assert!(error.to_string().contains("must stop"), "{error}");
                assert_eq!(read(store), before, "{name}");
                new.bind(&binding(90, &[])).unwrap();
                new.truncate(90).unwrap();
                assert_eq!(read(store).bindings.len(), 1);
            });
        }
    }
}

#[test]
fn truncating_keeps_every_end_all_later_bindings_and_later_checkpoints() {
    for epoch in [0, 10, 15, 20, 30, 45, 50, 1000] {
        on_each(|store| {
            let journal = open(store);
            for binding in five() {
                journal.bind(&binding).unwrap();
            }
            for epoch in [20, 40, 50] {
                journal.checkpoint(&checkpoint(epoch)).unwrap();
            }
            for _ in 0..2 {
                journal.truncate(epoch).unwrap();
                let read = read(store);
                let (merged, later): (Vec<_>, Vec<_>) = five()
                    .into_iter()
                    .partition(|binding| binding.epoch <= epoch);
                assert_eq!(ends(&read.bindings), ends(&five()));
                let merges = usize::from(!merged.is_empty());
                assert_eq!(read.bindings.len(), later.len() + merges);
                assert_eq!(read.bindings[merges..], later);
                if let Some(last) = merged.last() {
                    assert_eq!(read.bindings[0].epoch, last.epoch);
                    assert_eq!(ends(&read.bindings[..1]), ends(&merged));
                }
                let kept = [20, 40, 50].into_iter().filter(|it| *it >= epoch);
                assert_eq!(read.checkpoints, kept.map(checkpoint).collect::<Vec<_>>());
            }
            journal.bind(&binding(60, &[("a", 0, 11)])).unwrap();
            journal.truncate(2000).unwrap();
            assert_eq!(read(store).bindings.len(), 1);
            assert_eq!(store.list("job").unwrap().len(), 1);
        });
    }
}

#[test]
fn starts_with_nothing_new_do_not_pile_up() {
    let place = TempDir::new().unwrap();
    let store = directory(&place);
    for _ in 0..2 * OBJECTS_MAX {
        open(&store).truncate(0).unwrap();
    }
    assert!(store.list("job").unwrap().len() as u64 <= OBJECTS_MAX);
    assert_eq!(read(&store).generation, 2 * OBJECTS_MAX);
}

#[test]
fn of_many_that_open_at_once_the_last_goes_on() {
    on_each(|store| {
        let opened: Vec<_> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| Journal::open(Arc::clone(store), "job")))
                .collect();
            all.into_iter()
                .map(|it| it.join().unwrap().unwrap())
                .collect()
        });
        let mut generations: Vec<_> = opened.iter().map(|(_, it)| it.generation).collect();
        generations.sort_unstable();
        generations.dedup();
        assert_eq!(
            generations.len(),
            opened.len(),
            "each has a generation of its own"
        );
        for (journal, standing) in &opened {
            let bound = kind(journal.bind(&binding(10, &[])));
            let last = generations.last() == Some(&standing.generation);
            assert_eq!(bound, (!last).then_some(Kind::Fence));
        }
    });
}

#[test]
fn job_names_that_cannot_be_are_refused() {
    let place = TempDir::new().unwrap();
    for job in ["", "../up", "a/b", ".hidden"] {
        let refused = Journal::open(directory(&place), job).err().unwrap();
        assert_eq!(refused.kind(), Kind::Data, "{job}");
    }
}

fn objects(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn a_crash_anywhere_in_a_truncation_changes_no_answer() {
    let place = TempDir::new().unwrap();
    let store = directory(&place);
    let journal = open(&store);
    let mut old = Vec::new();
    for binding in five() {
        journal.bind(&binding).unwrap();
    }
    let folder = place.path().join("job/journal");
    for path in objects(&folder) {
        old.push((path.clone(), std::fs::read(path).unwrap()));
    }
    journal.truncate(40).unwrap();
    let answer = read(&store);
    assert_eq!(answer.bindings.len(), 2);
    assert_eq!(objects(&folder).len(), 1);
    // Those that another stands for are deleted after it, one by one.
    for gone in 0..=old.len() {
        for (path, content) in &old[gone..] {
            std::fs::write(path, content).unwrap();
        }
        assert_eq!(read(&store), answer, "{gone} deleted");
    }
    let after_crash = open(&store);
    after_crash.truncate(40).unwrap();
    assert_eq!(objects(&folder).len(), 1, "the next start tidies up");
    // A crash before an object appears leaves only a staged file.
    std::fs::write(folder.join("00000000000000000009#1"), "{").unwrap();
    after_crash.bind(&binding(60, &[])).unwrap();
    assert_eq!(read(&store).bindings.len(), 3);
}

#[test]
fn a_damaged_or_missing_object_is_named() {
    let place = TempDir::new().unwrap();
    let store = directory(&place);
    let journal = open(&store);
    for binding in five() {
        journal.bind(&binding).unwrap();
        journal.checkpoint(&checkpoint(binding.epoch)).unwrap();
    }
    let answer = read(&store);
    let third = objects(&place.path().join("job/journal"))[2].clone();
    let content = std::fs::read(&third).unwrap();
    let refused = |what: &str| {
        let error = Journal::read(&*store, "job").unwrap_err();
        assert_eq!(error.kind(), Kind::Data, "{what}");
        let text = error.to_string();
        assert!(
            text.contains("job/journal/00000000000000000004"),
            "{what}: {error}"
        );
        assert!(Journal::open(Arc::clone(&store), "job").is_err(), "{what}");
    };
    for length in [0, 1, 20, content.len() - 1] {
        std::fs::write(&third, &content[..length]).unwrap();
        refused("cut short");
    }
    std::fs::remove_file(&third).unwrap();
    refused("missing");
    std::fs::write(&third, &content).unwrap();
    assert_eq!(read(&store), answer);
    store.put("job/journal/notes.txt", b"x".to_vec()).unwrap();
    assert_eq!(read(&store), answer, "what is no object does not count");
}

#[test]
fn a_journal_from_before_there_were_versions_goes_on() {
    let place = TempDir::new().unwrap();
    let store = directory(&place);
    let old = [
        (
            2,
            r#"{"collapsed":false,"binding":{"epoch":10,"ends":{"a":{"0":1}}}}"#,
        ),
        (
            3,
            r#"{"collapsed":true,"binding":{"epoch":20,"ends":{"a":{"0":5},"b":{"3":1}}}}"#,
        ),
        (
            4,
            r#"{"collapsed":false,"binding":{"epoch":30,"ends":{"a":{"1":7}}}}"#,
        ),
    ];
    for (number, object) in old {
        let name = format!("job/journal/{number:020}");
        store.put(&name, object.as_bytes().to_vec()).unwrap();
    }
    let expected = vec![
        binding(20, &[("a", 0, 5), ("b", 3, 1)]),
        binding(30, &[("a", 1, 7)]),
    ];
    assert_eq!(read(&store).bindings, expected);
    let (journal, standing) = Journal::open(Arc::clone(&store), "job").unwrap();
    assert_eq!((standing.generation, standing.bindings), (1, expected));
    journal.bind(&binding(40, &[("a", 0, 6)])).unwrap();
    journal.truncate(30).unwrap();
    let bindings = read(&store).bindings;
    assert_eq!(bindings.len(), 2);
    assert_eq!(
        bindings[0],
        binding(30, &[("a", 0, 5), ("a", 1, 7), ("b", 3, 1)])
    );
    assert_eq!(
        store.list("job").unwrap().len(),
        1,
        "nothing of the old format is left"
    );
}

#[test]
fn rows_of_the_embedded_file_from_before_there_were_objects_go_on() {
    let place = TempDir::new().unwrap();
    let file = place.path().join("river.db");
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE _tidemill_journal (
                 job TEXT NOT NULL, epoch INTEGER NOT NULL, number INTEGER NOT NULL,
                 ends TEXT NOT NULL, PRIMARY KEY (job, epoch)) WITHOUT ROWID;
             INSERT INTO _tidemill_journal VALUES
                 ('job', 20, 3, '{\"a\":{\"0\":5}}'), ('job', 30, 4, '{\"a\":{\"1\":7}}'),
                 ('other', 7, 1, '{}')",
        )
        .unwrap();
    let store = store::open(&format!("sqlite://{}", file.display())).unwrap();
    let expected = vec![binding(20, &[("a", 0, 5)]), binding(30, &[("a", 1, 7)])];
    assert_eq!(read(&store).bindings, expected);
    let other = Journal::read(&*store, "other").unwrap();
    assert_eq!(other.bindings, vec![binding(7, &[])]);
    open(&store).bind(&binding(40, &[])).unwrap();
    let again = store::open(&format!("sqlite://{}", file.display())).unwrap();
    assert_eq!(read(&again).bindings.len(), 3);
}

/// Answers as a server that knows nothing of `If-None-Match`.
struct Overwrites(Arc<dyn Store>);

impl Store for Overwrites {
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.0.get(name)
    }
    fn get_range(&self, name: &str, range: std::ops::Range<u64>) -> Result<Vec<u8>> {
        self.0.get_range(name, range)
    }
    fn put(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        self.0.put(name, bytes)
    }
    fn put_new(&self, name: &str, bytes: Vec<u8>) -> Result<bool> {
        self.0.put(name, bytes).map(|()| true)
    }
    fn list(&self, folder: &str) -> Result<Vec<(String, u64)>> {
        self.0.list(folder)
    }
    fn delete(&self, name: &str) -> Result<()> {
        self.0.delete(name)
    }
}

#[test]
fn a_store_that_overwrites_is_refused() {
    let place = TempDir::new().unwrap();
    let refused = Journal::open(Arc::new(Overwrites(directory(&place))), "job");
    let error = refused.err().unwrap();
    assert_eq!(error.kind(), Kind::Data);
    assert!(error.to_string().contains("put-if-absent"), "{error}");
}

#[test]
fn what_a_fenced_writer_left_in_its_tail_is_never_bound() {
    let place = TempDir::new().unwrap();
    let store = directory(&place);
    let old = open(&store);
    old.bind(&binding(10, &[("a", 0, 1)])).unwrap();
    let new = open(&store);
    old.bind(&binding(20, &[("a", 0, 2)])).unwrap_err();
    new.bind(&binding(30, &[("a", 0, 3)])).unwrap();
    let expected = vec![binding(10, &[("a", 0, 1)]), binding(30, &[("a", 0, 3)])];
    assert_eq!(read(&store).bindings, expected);
    let (_third, standing) = Journal::open(Arc::clone(&store), "job").unwrap();
    assert_eq!(standing.bindings, expected);
}
