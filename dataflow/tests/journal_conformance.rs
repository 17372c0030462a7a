//! Both journal engines keep the same contract, at every crash point that an observer can tell
//! apart.

#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use tidemill_dataflow::Kind;
use tidemill_dataflow::journal::{Binding, Journal, Offsets, open};

fn binding(epoch: u64, ends: &[(&str, u32, i64)]) -> Binding {
    let mut offsets = Offsets::new();
    for (topic, partition, end) in ends {
        let partitions = offsets.entry((*topic).to_owned()).or_default();
        partitions.insert(*partition, *end);
    }
    Binding {
        epoch,
        ends: offsets,
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

/// Where every partition ends after all bindings.
fn ends(bindings: &[Binding]) -> BTreeMap<(String, u32), i64> {
    let mut all = BTreeMap::new();
    for binding in bindings {
        for (topic, ends) in &binding.ends {
            all.extend(
                ends.iter()
                    .map(|(partition, end)| ((topic.clone(), *partition), *end)),
            );
        }
    }
    all
}

/// Runs a check on a fresh journal of each engine; `reopen` is another process.
fn on_both(check: impl Fn(&dyn Fn(&str) -> Arc<dyn Journal>)) {
    let folder = TempDir::new().unwrap();
    let file = format!("sqlite://{}", folder.path().join("river.db").display());
    let directory = format!("file://{}", folder.path().join("journal").display());
    for url in [directory, file] {
        check(&|job| open(&url, job).unwrap());
    }
}

#[test]
fn what_is_appended_is_read_in_order_by_any_process() {
    on_both(|open| {
        let journal = open("job");
        assert_eq!(journal.read().unwrap(), vec![]);
        for binding in five() {
            journal.append(&binding).unwrap();
        }
        assert_eq!(journal.read().unwrap(), five());
        assert_eq!(open("job").read().unwrap(), five());
        assert_eq!(
            open("other").read().unwrap(),
            vec![],
            "journals of jobs are apart"
        );
        let next = binding(60, &[("c", 0, 1)]);
        open("job").append(&next).unwrap();
        assert_eq!(open("job").read().unwrap().last(), Some(&next));
    });
}

#[test]
fn epochs_must_increase() {
    on_both(|open| {
        let journal = open("job");
        journal.append(&binding(10, &[])).unwrap();
        for epoch in [10, 9] {
            let error = journal.append(&binding(epoch, &[])).unwrap_err();
            assert_eq!(error.kind(), Kind::Bug);
            let error = open("job").append(&binding(epoch, &[])).unwrap_err();
            assert_eq!(error.kind(), Kind::Bug);
        }
        assert_eq!(journal.read().unwrap().len(), 1);
    });
}

#[test]
fn of_two_writers_the_later_one_to_append_is_fenced() {
    on_both(|open| {
        let (first, second) = (open("job"), open("job"));
        first.append(&binding(10, &[("a", 0, 1)])).unwrap();
        let error = second.append(&binding(11, &[("a", 0, 2)])).unwrap_err();
        assert_eq!(error.kind(), Kind::Fence);
        assert!(error.to_string().contains("another process"), "{error}");
        first.append(&binding(12, &[("a", 0, 3)])).unwrap();
        assert_eq!(
            second.append(&binding(13, &[])).unwrap_err().kind(),
            Kind::Fence
        );
        assert_eq!(first.read().unwrap().len(), 2);
    });
}

#[test]
fn an_overtaken_writer_is_fenced_after_a_collapse_too() {
    // The old writer's number is free again once the bindings are merged: it must not be taken in.
    for seen in 0..5 {
        on_both(|open| {
            let new = open("job");
            let mut old = None;
            for (index, binding) in five().iter().enumerate() {
                if index == seen {
                    old = Some(open("job"));
                }
                new.append(binding).unwrap();
            }
            new.collapse(50).unwrap();
            let before = new.read().unwrap();
            let error = old
                .unwrap()
                .append(&binding(55, &[("a", 0, 99)]))
                .unwrap_err();
            assert_eq!(error.kind(), Kind::Fence, "seen {seen}");
            assert_eq!(new.read().unwrap(), before);
            new.append(&binding(60, &[])).unwrap();
            assert_eq!(open("job").read().unwrap().len(), 2);
        });
    }
}

#[test]
fn collapse_keeps_every_end_and_all_later_bindings() {
    for epoch in [0, 10, 15, 20, 30, 45, 50, 1000] {
        on_both(|open| {
            let journal = open("job");
            for binding in five() {
                journal.append(&binding).unwrap();
            }
            for _ in 0..2 {
                journal.collapse(epoch).unwrap();
                let read = open("job").read().unwrap();
                let (merged, later): (Vec<_>, Vec<_>) = five()
                    .into_iter()
                    .partition(|binding| binding.epoch <= epoch);
                assert_eq!(ends(&read), ends(&five()));
                assert_eq!(read.len(), later.len() + usize::from(!merged.is_empty()));
                assert_eq!(read[read.len() - later.len()..], later);
                if let Some(last) = merged.last() {
                    assert_eq!(read[0].epoch, last.epoch);
                    assert_eq!(ends(&read[..1]), ends(&merged));
                }
            }
            journal.append(&binding(60, &[("a", 0, 11)])).unwrap();
            journal.collapse(2000).unwrap();
            assert_eq!(open("job").read().unwrap().len(), 1);
        });
    }
}

#[test]
fn urls_and_names_that_cannot_be_are_refused() {
    for (url, job) in [("s3://x", "job"), ("file://", "job"), ("journal", "job")] {
        assert_eq!(open(url, job).err().unwrap().kind(), Kind::Data, "{url}");
    }
    let folder = TempDir::new().unwrap();
    let url = format!("file://{}", folder.path().display());
    for job in ["", "../up", "a/b", ".hidden"] {
        assert_eq!(open(&url, job).err().unwrap().kind(), Kind::Data, "{job}");
    }
}

fn objects(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn a_crash_anywhere_in_a_collapse_changes_no_answer() {
    let folder = TempDir::new().unwrap();
    let url = format!("file://{}", folder.path().display());
    let journal = open(&url, "job").unwrap();
    let bindings = five();
    let mut old = Vec::new();
    for binding in &bindings {
        journal.append(binding).unwrap();
    }
    let place = folder.path().join("job/journal");
    for path in objects(&place) {
        old.push((path.clone(), std::fs::read(path).unwrap()));
    }
    journal.collapse(40).unwrap();
    let answer = journal.read().unwrap();
    assert_eq!(answer.len(), 2);
    assert_eq!(objects(&place).len(), 2);
    // The merged object is number 4; 1 to 3 are deleted after it is there, one by one.
    for gone in 0..=3 {
        for (path, content) in &old[gone..3] {
            std::fs::write(path, content).unwrap();
        }
        let after_crash = open(&url, "job").unwrap();
        assert_eq!(after_crash.read().unwrap(), answer, "{gone} deleted");
        after_crash.collapse(40).unwrap();
        assert_eq!(objects(&place).len(), 2, "the next collapse tidies up");
    }
    // A crash between staging and the object's appearance leaves only a staged object.
    std::fs::write(
        folder.path().join("job/staging/00000000000000000006-1"),
        "{",
    )
    .unwrap();
    let after_crash = open(&url, "job").unwrap();
    assert_eq!(after_crash.read().unwrap(), answer);
    after_crash.append(&binding(60, &[])).unwrap();
    assert_eq!(after_crash.read().unwrap().len(), 3);
}

#[test]
fn a_damaged_object_is_an_error_that_names_it() {
    let folder = TempDir::new().unwrap();
    let url = format!("file://{}", folder.path().display());
    let journal = open(&url, "job").unwrap();
    for binding in five() {
        journal.append(&binding).unwrap();
    }
    let place = folder.path().join("job/journal");
    let third = objects(&place)[2].clone();
    let content = std::fs::read(&third).unwrap();
    let refused = |what: &str| {
        let error = journal.read().unwrap_err();
        assert_eq!(error.kind(), Kind::Data, "{what}");
        assert!(
            error.to_string().contains("00000000000000000003"),
            "{what}: {error}"
        );
        assert!(open(&url, "job").is_err(), "{what}");
    };
    for length in 0..content.len() {
        std::fs::write(&third, &content[..length]).unwrap();
        refused("cut short");
    }
    std::fs::remove_file(&third).unwrap();
    refused("missing");
    std::fs::write(&third, &content).unwrap();
    assert_eq!(journal.read().unwrap(), five());
    std::fs::write(place.join("notes.txt"), "x").unwrap();
    assert!(
        journal
            .read()
            .unwrap_err()
            .to_string()
            .contains("notes.txt")
    );
}

#[test]
fn a_damaged_row_is_an_error_that_names_it() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("river.db");
    let journal = open(&format!("sqlite://{}", file.display()), "job").unwrap();
    journal.append(&binding(10, &[("a", 0, 1)])).unwrap();
    rusqlite::Connection::open(&file)
        .unwrap()
        .execute("UPDATE _tidemill_journal SET ends = '{'", [])
        .unwrap();
    let error = journal.read().unwrap_err();
    assert_eq!(error.kind(), Kind::Data);
    assert!(error.to_string().contains("epoch 10"), "{error}");
}

#[test]
fn it_works_on_a_thread_of_an_async_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        on_both(|open| {
            let journal = open("job");
            journal.append(&binding(10, &[])).unwrap();
            assert_eq!(journal.read().unwrap().len(), 1);
        });
    });
}
