//! Tests of the state store: all engines keep the same contract.

use std::sync::Barrier;

use tempfile::TempDir;

use super::*;

/// A store to be checked, and its URL.
struct Engine {
    url: String,
    /// A folder that no other test uses.
    folder: String,
}

impl Engine {
    fn open(&self) -> Arc<dyn Store> {
        open(&self.url).unwrap()
    }

    fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }
}

/// Says that a test does without S3.
pub(crate) fn left_out(what: &str) {
    let line = format!("left out: {what} on S3 needs TIDEMILL_TEST_S3 (run ./test)\n");
    let _unseen = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}

/// Runs a check on every engine that is there.
fn on_each(check: impl Fn(&Engine)) {
    let place = TempDir::new().unwrap();
    let mut urls = vec![
        format!("file://{}/some/where", place.path().display()),
        format!("sqlite://{}/river.db", place.path().display()),
    ];
    match std::env::var("TIDEMILL_TEST_S3") {
        Ok(url) => urls.push(format!("{url}/store")),
        Err(_) => left_out("the store"),
    }
    for url in urls {
        // Objects on S3 outlive the test.
        let folder = place.path().file_name().unwrap().to_string_lossy();
        check(&Engine {
            url,
            folder: format!("test-{}", folder.trim_start_matches('.')),
        });
    }
}

#[test]
fn what_is_put_is_got_by_any_process() {
    on_each(|engine| {
        let store = engine.open();
        let bytes: Vec<u8> = (0..200_000_u32).map(|i| (i % 251) as u8).collect();
        let name = engine.name("a/b.part");
        assert_eq!(store.get(&name).unwrap(), None, "{}", engine.url);
        store.put(&name, bytes.clone()).unwrap();
        assert_eq!(engine.open().get(&name).unwrap().as_ref(), Some(&bytes));
        store.put(&name, b"other".to_vec()).unwrap();
        assert_eq!(store.get(&name).unwrap().unwrap(), b"other");
        store.put(&name, Vec::new()).unwrap();
        assert_eq!(store.get(&name).unwrap().unwrap(), b"");
        for _ in 0..2 {
            store.delete(&name).unwrap();
            assert_eq!(store.get(&name).unwrap(), None);
        }
    });
}

#[test]
fn many_are_got_in_order_and_deleted_whether_they_are_there_or_not() {
    on_each(|engine| {
        let store = engine.open();
        // More than are asked for at a time.
        let names: Vec<String> = (0..100)
            .map(|n| engine.name(&format!("many/{n}")))
            .collect();
        for name in names.iter().step_by(2) {
            store.put(name, name.clone().into_bytes()).unwrap();
        }
        let bytes = |name: &String| name.clone().into_bytes();
        let there = names.iter().enumerate();
        let there: Vec<_> = there
            .map(|(n, name)| (n % 2 == 0).then(|| bytes(name)))
            .collect();
        assert_eq!(store.get_all(&names).unwrap(), there, "{}", engine.url);
        let point = failpoint::JOURNAL_BETWEEN_DELETES;
        store.delete_all(&names[..99], point).unwrap();
        store.delete_all(&[], point).unwrap();
        assert_eq!(store.list(&engine.name("many")).unwrap(), []);
    });
}

#[test]
fn a_range_is_exact_or_an_error_that_names_the_object() {
    on_each(|engine| {
        let store = engine.open();
        let name = engine.name("ranges");
        let missing = store.get_range(&name, 0..1).unwrap_err();
        assert_eq!(missing.kind(), Kind::Data, "{missing}");
        assert!(missing.to_string().contains(&name), "{missing}");
        store.put(&name, (0..100).collect()).unwrap();
        assert_eq!(store.get_range(&name, 10..13).unwrap(), [10, 11, 12]);
        assert_eq!(store.get_range(&name, 0..100).unwrap().len(), 100);
        assert!(store.get_range(&name, 5..5).unwrap().is_empty());
        for beyond in [99..101, 100..101, 200..300] {
            let error = store.get_range(&name, beyond).unwrap_err();
            assert_eq!(error.kind(), Kind::Data, "{error}");
            assert!(error.to_string().contains(&name), "{error}");
        }
        store.delete(&name).unwrap();
    });
}

#[test]
fn put_new_never_replaces() {
    on_each(|engine| {
        let store = engine.open();
        let name = engine.name("once");
        assert!(store.put_new(&name, b"first".to_vec()).unwrap());
        assert!(!store.put_new(&name, b"second".to_vec()).unwrap());
        assert!(!engine.open().put_new(&name, b"first".to_vec()).unwrap());
        assert_eq!(store.get(&name).unwrap().unwrap(), b"first");
        store.delete(&name).unwrap();
        assert!(store.put_new(&name, b"third".to_vec()).unwrap());
        store.delete(&name).unwrap();
    });
}

#[test]
fn of_many_that_put_one_name_exactly_one_wins() {
    const RIVALS: usize = 8;
    on_each(|engine| {
        let stores: Vec<_> = (0..RIVALS).map(|_| engine.open()).collect();
        let start = Barrier::new(RIVALS);
        for round in 0..20 {
            let name = engine.name(&format!("race/{round}"));
            let winners: Vec<usize> = std::thread::scope(|scope| {
                let rivals: Vec<_> = stores
                    .iter()
                    .enumerate()
                    .map(|(rival, store)| {
                        let (name, start) = (&name, &start);
                        scope.spawn(move || {
                            start.wait();
                            store.put_new(name, rival.to_string().into_bytes()).unwrap()
                        })
                    })
                    .collect();
                let won = rivals.into_iter().map(|rival| rival.join().unwrap());
                won.enumerate()
                    .filter_map(|(rival, won)| won.then_some(rival))
                    .collect()
            });
            assert_eq!(winners.len(), 1, "{} {round}: {winners:?}", engine.url);
            let kept = stores[0].get(&name).unwrap().unwrap();
            assert_eq!(kept, winners[0].to_string().into_bytes());
            stores[0].delete(&name).unwrap();
        }
    });
}

#[test]
fn a_listing_is_sorted_and_keeps_to_its_folder() {
    on_each(|engine| {
        let store = engine.open();
        assert_eq!(store.list(&engine.folder).unwrap(), [], "{}", engine.url);
        let names = ["f/10", "f/2", "f/2.part", "f/sub/1", "f0/1"];
        let names = names.map(|name| engine.name(&format!("list/{name}")));
        for (size, name) in names.iter().enumerate() {
            store.put(name, vec![0; size]).unwrap();
        }
        let listed = store.list(&engine.name("list/f")).unwrap();
        let expected = [(0, 0), (1, 1), (2, 2), (3, 3)];
        let expected = expected.map(|(index, size): (usize, u64)| (names[index].clone(), size));
        assert_eq!(listed, expected, "{}", engine.url);
        assert_eq!(store.list(&engine.name("list")).unwrap().len(), 5);
        assert_eq!(store.list(&engine.name("lis")).unwrap(), []);
        for name in &names {
            store.delete(name).unwrap();
        }
        assert_eq!(store.list(&engine.folder).unwrap(), []);
    });
}

#[test]
fn it_works_on_a_thread_of_an_async_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        on_each(|engine| {
            let (store, name) = (engine.open(), engine.name("async"));
            assert!(store.put_new(&name, b"x".to_vec()).unwrap());
            assert_eq!(store.list(&engine.folder).unwrap().len(), 1);
            store.delete(&name).unwrap();
        });
    });
}

#[test]
fn urls_that_name_no_store_are_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let file = format!("file://{}", file.path().display());
    let refused = [
        "gs://bucket",
        "file://",
        "s3://",
        "s3:///prefix",
        "s3://key:secret@bucket",
        "journal",
        &file,
    ];
    for url in refused {
        let error = open(url)
            .err()
            .unwrap_or_else(|| panic!("{url} was opened"));
        assert_eq!(error.kind(), Kind::Data, "{url}");
    }
}

#[test]
fn reading_makes_no_directory() {
    let place = TempDir::new().unwrap();
    let directory = place.path().join("x/../state");
    let store = open(&format!("file://{}", directory.display())).err();
    assert!(
        store.is_some(),
        "`..` below what is not there leads nowhere"
    );
    std::fs::create_dir(place.path().join("x")).unwrap();
    let store = open(&format!("file://{}", directory.display())).unwrap();
    assert_eq!(store.get("job/a").unwrap(), None);
    assert_eq!(store.list("job").unwrap(), []);
    store.sweep("job").unwrap();
    assert!(!place.path().join("state").exists());
    store.put("job/a", b"1".to_vec()).unwrap();
    assert!(place.path().join("state/job/a").is_file());
}

#[test]
fn what_a_dead_writer_left_is_swept_once_it_is_old() {
    let place = TempDir::new().unwrap();
    let store = open(&format!("file://{}", place.path().display())).unwrap();
    store.put("job/deep/a", b"1".to_vec()).unwrap();
    let day = std::time::Duration::from_secs(24 * 3600);
    let file = |name: &str, age| {
        let path = place.path().join(name);
        let file = std::fs::File::create(&path).unwrap();
        file.set_modified(std::time::SystemTime::now() - age)
            .unwrap();
        path
    };
    let old = file("job/deep/a#1", day);
    let fresh = file("job/deep/a#2", std::time::Duration::ZERO);
    let object = file("job/deep/b", day);
    std::fs::create_dir(place.path().join("other")).unwrap();
    let other = file("other/a#1", day);
    assert_eq!(store.list("job").unwrap().len(), 2);
    store.sweep("job").unwrap();
    assert!(!old.exists() && fresh.exists() && object.exists() && other.exists());
}

#[test]
fn a_directory_that_may_not_be_written_is_the_users_to_mend() {
    let place = TempDir::new().unwrap();
    std::fs::write(place.path().join("job"), "a file").unwrap();
    let store = open(&format!("file://{}", place.path().display())).unwrap();
    let error = store.put("job/a", b"1".to_vec()).unwrap_err();
    assert_eq!(error.kind(), Kind::Data, "{error}");
    assert!(error.to_string().contains("job/a"), "{error}");
}

#[test]
fn a_bucket_that_is_not_there_is_the_users_to_make() {
    if std::env::var("TIDEMILL_TEST_S3").is_err() {
        left_out("the store");
        return;
    }
    let store = open("s3://no-such-bucket-here/x").unwrap();
    for error in [
        store.get("job/a").unwrap_err(),
        store.list("job").unwrap_err(),
        store.put_new("job/a", b"1".to_vec()).unwrap_err(),
    ] {
        assert_eq!(error.kind(), Kind::Data, "{error}");
        assert!(error.to_string().contains("no-such-bucket-here"), "{error}");
    }
}
