//! Fetching and landing against the built-in API server over loopback: every kind of bad answer,
//! the recorded pages, the ledger under two processes and a crash. Each test runs on SQLite, and
//! on PostgreSQL when `TIDEMILL_TEST_POSTGRES` names one.

// Functions beside the tests are tests too; clippy sees only those that are marked.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use serde_json::value::RawValue;
use tidemill_ingest::config::{Feed, Pipeline, Seed};
use tidemill_ingest::fetch::Client;
use tidemill_ingest::run::Options;
use tidemill_ingest::schedule::{Claim, Ledger, Next};
use tidemill_ingest::stats::Stats;
use tidemill_ingest::{Kind, land, run, schedule};
use tidemill_log::log::dead_letter;
use tidemill_log::log::dead_letter::{DeadLetter, Entry, Stage};
use tidemill_randomuser::{Fault, Request, Server, Source};

#[path = "fetching/answers.rs"]
mod answers;
#[path = "fetching/once.rs"]
mod once;
#[path = "fetching/requests.rs"]
mod requests;

const LEASE: Duration = Duration::from_secs(30);

/// A database of one test.
struct Place {
    url: String,
    /// The log, for dead letters.
    log: String,
}

/// Runs a test on every engine that is there.
fn on_each(name: &str, test: impl Fn(&Place)) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("river.db").display());
    let log = url.clone();
    test(&Place { url, log });
    let Ok(server) = std::env::var("TIDEMILL_TEST_POSTGRES") else {
        let how = "needs TIDEMILL_TEST_POSTGRES (run ./test)";
        // Past the harness, which hides what a passing test prints.
        let line = format!("left out: {name} on PostgreSQL {how}\n");
        let _unseen = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());

        return;
    };
    let database = format!("fetching_{name}_{}", std::process::id());
    let mut client = postgres::Client::connect(&server, postgres::NoTls).unwrap();
    client
        .batch_execute(&format!("CREATE DATABASE {database}"))
        .unwrap();
    let (base, _) = server.rsplit_once('/').unwrap();
    test(&Place {
        url: format!("{base}/{database}"),
        log: format!("sqlite://{}", folder.path().join("log.db").display()),
    });
    // The server may be about to notice that a slot's reader has ended.
    let deadline = Instant::now() + Duration::from_secs(30);
    let drop = format!("DROP DATABASE {database} WITH (FORCE)");
    while let Err(error) = client.batch_execute(&drop) {
        assert!(Instant::now() < deadline, "{error:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

impl Place {
    /// The rows of a query, each column as text.
    fn rows(&self, columns: &[String], from: &str) -> Vec<Vec<Option<String>>> {
        if let Some(file) = self.url.strip_prefix("sqlite://") {
            let connection = rusqlite::Connection::open(file).unwrap();
            let names: Vec<_> = columns
                .iter()
                .map(|c| format!("CAST({c} AS TEXT)"))
                .collect();
            let select = format!("SELECT {} FROM {from}", names.join(", "));
            let mut statement = connection.prepare(&select).unwrap();
            let rows =
                statement.query_map([], |row| (0..columns.len()).map(|i| row.get(i)).collect());
            return rows.unwrap().map(Result::unwrap).collect();
        }
        let mut client = postgres::Client::connect(&self.url, postgres::NoTls).unwrap();
        client.batch_execute("SET TIME ZONE 'UTC'").unwrap();
        let names: Vec<_> = columns.iter().map(|c| format!("({c})::text")).collect();
        let select = format!("SELECT {} FROM {from}", names.join(", "));
        let rows = client.query(&select, &[]).unwrap();
        rows.iter()
            .map(|row| (0..columns.len()).map(|i| row.get(i)).collect())
            .collect()
    }

    fn number(&self, expression: &str, from: &str) -> u64 {
        let rows = self.rows(&[expression.to_owned()], from);
        rows[0][0].as_ref().unwrap().parse().unwrap()
    }

    /// The dead letters of a pipeline.
    fn letters(&self, pipeline: &str) -> Vec<DeadLetter> {
        let log = tidemill_log::log::open(&self.log).unwrap();
        let mut letters = Vec::new();
        let mut each = |entry| {
            if let Entry::Letter(kept) = entry {
                letters.push(kept.letter);
            }
            Ok(())
        };
        let topic = dead_letter::topic_of(pipeline);
        dead_letter::read(log.as_ref(), &topic, &mut each).unwrap();
        letters
    }

    fn execute(&self, sql: &str) {
        match self.url.strip_prefix("sqlite://") {
            Some(file) => rusqlite::Connection::open(file)
                .unwrap()
                .execute_batch(sql)
                .unwrap(),
            None => postgres::Client::connect(&self.url, postgres::NoTls)
                .unwrap()
                .batch_execute(sql)
                .unwrap(),
        }
    }

    fn options(&self, server: &Server, pages: u64, name: &str) -> Options {
        let mut pipeline = Pipeline::load(&example()).unwrap();
        let text = format!("[schedule]\nevery = \"1ms\"\nlast_page = {pages}");
        let text = format!("{text}\n[fetch]\nurl=\"http://x/\"\nrecords=\"results\"\n");
        let text = format!("{text}page_parameter=\"page\"\n[land]\ntable=\"t\"\nkey=\"k\"\n");
        let column = "columns=[{name=\"k\",path=\"k\",type=\"int\"}]";
        let other = Pipeline::parse(&format!("{text}{column}"), "test").unwrap();
        let feed = pipeline.feed.as_mut().unwrap();
        feed.schedule = other.feed.unwrap().schedule;
        feed.fetch.backoff = Duration::from_millis(20);
        feed.fetch.backoff_max = Duration::from_millis(200);
        Options {
            pipeline,
            name: name.to_owned(),
            database: self.url.clone(),
            log: self.log.clone(),
            registry: String::new(),
            api: Some(server.url()),
            until: None,
            resnapshot: false,
        }
    }
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/users")
}

fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/randomuser")
}

fn serve(
    source: Source,
    faults: impl Fn(&Request) -> Option<Fault> + Send + Sync + 'static,
) -> Server {
    let options = tidemill_randomuser::Options {
        source,
        faults: Some(Arc::new(faults)),
        ..tidemill_randomuser::Options::default()
    };
    tidemill_randomuser::serve("127.0.0.1:0".parse().unwrap(), options).unwrap()
}

/// Fetches until the range is done; a run that does not end fails the test.
fn fetched(options: &Options) -> Stats {
    let stats = Stats::default();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let fetching = scope.spawn(|| run::fetch(options, &stats, &stop));
        let deadline = Instant::now() + Duration::from_secs(60);
        while !fetching.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let in_time = fetching.is_finished();
        stop.store(true, Ordering::Relaxed);
        fetching.join().unwrap().unwrap();
        assert!(in_time, "fetching did not end");
    });
    stats
}

fn feed(options: &Options) -> &Feed {
    options.pipeline.feed.as_ref().unwrap()
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn ledger(options: &Options, lease: Duration) -> Box<dyn Ledger> {
    let schedule = &feed(options).schedule;
    schedule::open(&options.database, &options.name, schedule, lease).unwrap()
}

fn claimed(ledger: &mut dyn Ledger) -> Claim {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        match ledger.next().unwrap() {
            Next::Fetch(claim) => return claim,
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn at_path<'v>(record: &'v Value, path: &str) -> &'v Value {
    path.split('.').fold(record, |value, field| &value[field])
}

#[test]
fn recorded_pages_land_field_by_field_and_change_nothing_again() {
    on_each("recorded", |place| {
        let server = serve(Source::Recorded(recorded()), |_| None);
        let options = place.options(&server, 20, "first");
        let stats = fetched(&options);
        assert_eq!((count(&stats.fetched), count(&stats.landed)), (2000, 2000));
        assert_eq!(count(&stats.dead_letters), 0);
        let columns = &feed(&options).land.columns;
        let mut names: Vec<String> = columns.iter().map(|c| c.name.clone()).collect();
        names.push("document".into());
        let rows = place.rows(&names, "users");
        assert_eq!(rows.len(), 2000);
        let by_id: BTreeMap<_, _> = rows
            .iter()
            .map(|row| (row[0].clone().unwrap(), row))
            .collect();
        for page in 1..=20 {
            let file = recorded().join(format!("page-{page:02}.json"));
            let page: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
            for user in page["results"].as_array().unwrap() {
                let row = by_id[user["login"]["uuid"].as_str().unwrap()];
                for (column, value) in columns.iter().zip(row.iter()) {
                    same(
                        at_path(user, column.path.as_str()),
                        value.as_deref(),
                        &column.name,
                    );
                }
                let document: Value = serde_json::from_str(row[34].as_ref().unwrap()).unwrap();
                assert_eq!(document, *user);
            }
        }
        let sqlite = place.url.starts_with("sqlite");
        if sqlite {
            // SQLite leaves no trace in a row that is written again: a trigger does.
            place.execute(
                "CREATE TRIGGER written AFTER UPDATE ON users BEGIN
                 SELECT RAISE(FAIL, 'a row was written again'); END",
            );
        }
        let stamp = if sqlite { "rowid" } else { "xmin" };
        let columns = ["id".to_owned(), stamp.to_owned()];
        let before = place.rows(&columns, "users ORDER BY id");
        let again = fetched(&place.options(&server, 20, "second"));
        assert_eq!(
            (count(&again.landed), count(&again.dead_letters)),
            (2000, 0)
        );
        assert_eq!(
            place.rows(&columns, "users ORDER BY id"),
            before,
            "a row was written again"
        );
    });
}

/// A column's text equals the field, up to how the engines write numbers and instants.
fn same(field: &Value, column: Option<&str>, name: &str) {
    let text = match field {
        Value::Null => return assert_eq!(column, None, "{name}"),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let column = column.unwrap();
    match name {
        "latitude" | "longitude" => {
            assert_eq!(
                column.parse::<f64>().unwrap(),
                text.parse::<f64>().unwrap(),
                "{name}"
            );
        }
        "dob" | "registered" => {
            let column = column.replace(' ', "T").replace("+00", "Z");
            let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
            assert_eq!(at(&column), at(&text), "{name}");
        }
        _ => assert_eq!(column, text, "{name}"),
    }
}

#[test]
fn every_broken_answer_is_asked_for_again_and_all_pages_land() {
    let faults = [
        ("500", Fault::Status(500)),
        ("503", Fault::Status(503)),
        ("HTTP 429", Fault::TooManyRequests(None)),
        ("text/html came: `<!DOCTYPE", Fault::Html),
        ("not whole JSON", Fault::Truncated),
        ("no `results`", Fault::NoResults),
        ("is not a list", Fault::Body("{\"results\":7}".into())),
        ("no answer", Fault::Hang),
    ];
    on_each("broken", |place| {
        for (number, (expected, fault)) in faults.iter().enumerate() {
            let wrong = fault.clone();
            let server = serve(Source::Made, move |request| {
                (request.number < 2).then(|| wrong.clone())
            });
            let mut options = place.options(&server, 3, &format!("fault{number}"));
            let patience = Duration::from_millis(if *fault == Fault::Hang { 300 } else { 20_000 });
            options.pipeline.feed.as_mut().unwrap().fetch.timeout = patience;
            let client = Client::new(&tidemill_ingest::config::Fetch {
                url: server.url(),
                ..feed(&options).fetch.clone()
            });
            let failure = client.unwrap().page(1).unwrap_err();
            assert_eq!(failure.error.kind(), Kind::Retry);
            let text = failure.error.to_string();
            assert!(
                text.contains(expected) && text.contains(&server.url()),
                "{text}"
            );
            let stats = fetched(&options);
            assert_eq!(
                (count(&stats.retries), count(&stats.pages)),
                (1, 3),
                "{fault:?}"
            );
            assert_eq!(count(&stats.landed), 300, "{fault:?}");
            let runs = ledger(&options, LEASE).history(10).unwrap();
            assert!(
                runs.iter()
                    .all(|run| run.state == "done" && run.records == Some(100))
            );
            assert_eq!(runs.iter().map(|run| run.attempts).sum::<u32>(), 4);
        }
        assert_eq!(place.number("count(*)", "users"), 300);
    });
}

#[test]
fn retry_after_is_obeyed() {
    on_each("retry_after", |place| {
        let times = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&times);
        let server = serve(Source::Made, move |request| {
            seen.lock().unwrap().push(Instant::now());
            (request.number == 0).then(|| Fault::TooManyRequests(Some("1".into())))
        });
        let stats = fetched(&place.options(&server, 2, "limited"));
        assert_eq!((count(&stats.retries), count(&stats.landed)), (1, 200));
        let times = times.lock().unwrap();
        let waited = times[1].duration_since(times[0]);
        assert!(waited >= Duration::from_millis(990), "{waited:?}");
    });
}

#[test]
fn the_server_limits_users_a_window() {
    let options = tidemill_randomuser::Options {
        users_max: 250,
        window: Duration::from_millis(1500),
        ..tidemill_randomuser::Options::default()
    };
    let server = tidemill_randomuser::serve("127.0.0.1:0".parse().unwrap(), options).unwrap();
    on_each("limit", |place| {
        let stats = fetched(&place.options(&server, 4, "limit"));
        assert!(count(&stats.retries) >= 1);
        assert_eq!(count(&stats.landed), 400);
    });
}

#[test]
fn a_record_that_does_not_fit_is_a_dead_letter_once() {
    on_each("misfit", |place| {
        let server = serve(Source::Made, |request| {
            (request.page == 2).then_some(Fault::NoUuid)
        });
        for name in ["misfit", "misfit_again"] {
            let stats = fetched(&place.options(&server, 3, name));
            assert_eq!((count(&stats.landed), count(&stats.dead_letters)), (299, 1));
        }
        assert_eq!(place.number("count(*)", "users"), 299);
        // The same record refused by another pipeline is a letter of that one.
        for name in ["misfit", "misfit_again"] {
            let letters = place.letters(name);
            let [letter] = letters.as_slice() else {
                panic!("{letters:?}");
            };
            assert_eq!(letter.stage, Stage::Land);
            let dead_letter::Source::Page { url, page: 2 } = &letter.source else {
                panic!("{letter:?}");
            };
            assert!(
                url.starts_with(&server.url()) && url.contains("page=2"),
                "{url}"
            );
            assert!(letter.reason.contains("login.uuid"), "{}", letter.reason);
            let raw = String::from_utf8(letter.value.clone().unwrap()).unwrap();
            assert!(raw.starts_with("{\"gender\""), "{raw}");
        }
    });
}

#[test]
fn a_row_that_the_database_refuses_does_not_stop_its_page() {
    on_each("constraint", |place| {
        let server = serve(Source::Recorded(recorded()), |_| None);
        let options = place.options(&server, 1, "constraint");
        drop(tidemill_ingest::land::open(&options.database, &feed(&options).land).unwrap());
        // A rule of the database's owner that ingest knows nothing of.
        place.execute("CREATE UNIQUE INDEX one_a_country ON users (country)");
        let stats = fetched(&options);
        let landed = place.number("count(*)", "users");
        assert_eq!(landed, place.number("count(DISTINCT country)", "users"));
        assert!(landed > 1);
        assert_eq!(
            (count(&stats.landed), count(&stats.dead_letters)),
            (landed, 100 - landed)
        );
        let letters = place.letters("constraint");
        assert_eq!(letters.len() as u64, 100 - landed);
        // Once the rule is gone they land, each once however often it is tried.
        place.execute("DROP INDEX one_a_country");
        let mut landing =
            tidemill_ingest::land::open(&options.database, &feed(&options).land).unwrap();
        for _twice in 0..2 {
            for letter in &letters {
                let raw = String::from_utf8(letter.value.clone().unwrap()).unwrap();
                landing
                    .again(&RawValue::from_string(raw).unwrap())
                    .unwrap()
                    .unwrap();
            }
            assert_eq!(place.number("count(*)", "users"), 100);
        }
        let unfit = RawValue::from_string("{}".to_owned()).unwrap();
        assert!(
            landing
                .again(&unfit)
                .unwrap()
                .unwrap_err()
                .contains("login.uuid")
        );
    });
}

#[test]
fn two_processes_fetch_every_page_exactly_once() {
    on_each("two", |place| {
        let asked = Arc::new(Mutex::new(BTreeMap::<u64, u32>::new()));
        let seen = Arc::clone(&asked);
        let server = serve(Source::Made, move |request| {
            *seen.lock().unwrap().entry(request.page).or_default() += 1;
            None
        });
        let mut options = place.options(&server, 60, "two");
        options.pipeline.feed.as_mut().unwrap().fetch.page_size = Some(10);
        let landed: Vec<u64> = std::thread::scope(|scope| {
            let one = scope.spawn(|| count(&fetched(&options).landed));
            let two = scope.spawn(|| count(&fetched(&options).landed));
            vec![one.join().unwrap(), two.join().unwrap()]
        });
        assert_eq!(landed.iter().sum::<u64>(), 600);
        let asked = asked.lock().unwrap();
        assert_eq!(asked.len(), 60);
        assert!(asked.values().all(|times| *times == 1), "{asked:?}");
        assert_eq!(place.number("count(*)", "users"), 600);
    });
}

#[test]
fn a_crash_between_fetch_and_land_loses_nothing_and_the_lost_claim_does_not_land() {
    on_each("crash", |place| {
        let server = serve(Source::Made, |_| None);
        let options = place.options(&server, 3, "crash");
        let asked = tidemill_ingest::config::Fetch {
            url: server.url(),
            ..feed(&options).fetch.clone()
        };
        let old = claimed(&mut *ledger(&options, Duration::from_millis(1)));
        let page = Client::new(&asked).unwrap().page(old.page).unwrap();
        // Its holder is gone; the lease is over at once, and another one takes the page.
        let mut second = ledger(&options, LEASE);
        let new = claimed(&mut *second);
        assert_eq!((new.page, new.attempts), (old.page, 2));
        let land = &feed(&options).land;
        let mut landing = tidemill_ingest::land::open(&options.database, land).unwrap();
        let error = landing
            .land(&old, &page, None, &mut |_| Ok(()))
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Fence);
        assert_eq!(landing.total().unwrap(), 0);
        second.retry(&old, Duration::ZERO, "not mine").unwrap();
        assert_eq!(
            landing
                .land(&new, &page, None, &mut |_| Ok(()))
                .unwrap()
                .inserted,
            100
        );
        assert_eq!(
            landing
                .land(&new, &page, None, &mut |_| Ok(()))
                .unwrap_err()
                .kind(),
            Kind::Fence
        );
        assert_eq!(count(&fetched(&options).landed), 200);
        assert_eq!(place.number("count(*)", "users"), 300);
    });
}

#[test]
fn a_claim_that_is_renewed_is_kept() {
    on_each("renewed", |place| {
        let server = serve(Source::Made, |_| None);
        let options = place.options(&server, 2, "renewed");
        let claim = claimed(&mut *ledger(&options, Duration::from_millis(1)));
        let mut second = ledger(&options, LEASE);
        second.renew(&claim).unwrap();
        let other = claimed(&mut *second);
        assert_eq!((other.page, other.attempts), (claim.page + 1, 1));
        // One that was lost is not renewed: its new holder's lease ends when it says.
        let mut short = ledger(&options, Duration::from_millis(1));
        short.renew(&claim).unwrap();
        let taken = claimed(&mut *short);
        assert_eq!((taken.page, taken.attempts), (claim.page, 2));
        second.renew(&claim).unwrap();
        let again = claimed(&mut *second);
        assert_eq!((again.page, again.attempts), (claim.page, 3));
    });
}

#[test]
fn until_trims_the_last_page_and_a_later_run_goes_on_there() {
    on_each("until", |place| {
        let server = serve(Source::Made, |_| None);
        let mut options = place.options(&server, 5, "until");
        options.until = Some(250);
        assert_eq!(count(&fetched(&options).landed), 250);
        assert_eq!(place.number("count(*)", "users"), 250);
        assert_eq!(count(&fetched(&options).pages), 0);
        options.until = None;
        fetched(&options);
        assert_eq!(place.number("count(*)", "users"), 500);
    });
}

#[test]
fn a_changed_record_updates_its_row() {
    on_each("changed", |place| {
        let server = serve(Source::Made, |_| None);
        let options = place.options(&server, 1, "changed");
        fetched(&options);
        place.execute("UPDATE users SET city = 'Elsewhere' WHERE gender = 'female'");
        let changed = place.number("count(*)", "users WHERE city = 'Elsewhere'");
        let options = place.options(&server, 1, "changed_again");
        let claim = claimed(&mut *ledger(&options, LEASE));
        let asked = tidemill_ingest::config::Fetch {
            url: server.url(),
            ..feed(&options).fetch.clone()
        };
        let page = Client::new(&asked).unwrap().page(1).unwrap();
        let land = &feed(&options).land;
        let mut landing = tidemill_ingest::land::open(&options.database, land).unwrap();
        let landed = landing.land(&claim, &page, None, &mut |_| Ok(())).unwrap();
        assert!(changed > 0);
        assert_eq!((landed.updated, landed.unchanged), (changed, 100 - changed));
        assert_eq!(
            place.number("count(*)", "users WHERE city = 'Elsewhere'"),
            0
        );
    });
}

#[test]
fn an_api_that_refuses_ends_the_run_with_its_words() {
    on_each("refused", |place| {
        let server = serve(Source::Made, |_| None);
        let mut options = place.options(&server, 9, "refused");
        options.api = Some(format!("http://{}/api/0.1/", server.addr));
        let error = run::fetch(&options, &Stats::default(), &AtomicBool::new(false)).unwrap_err();
        assert_eq!(error.kind(), Kind::Data);
        let text = error.to_string();
        assert!(
            text.contains("HTTP 404") && text.contains("Unknown API version"),
            "{text}"
        );
        let runs = ledger(&options, LEASE).history(10).unwrap();
        assert_eq!(runs.len(), 3);
        assert!(
            runs.iter()
                .all(|run| run.state == "failed" && run.error.is_some())
        );
        let letters = place.letters("refused");
        assert_eq!(letters.len(), 3);
        assert!(
            letters
                .iter()
                .all(|it| it.stage == Stage::Fetch && it.value.is_some())
        );
        // A page that failed for good can be made due again; no other one can.
        let mut ledger = ledger(&options, LEASE);
        let again = [1, 1, 9].map(|page| ledger.again(page).unwrap());
        assert_eq!(again, [true, false, false]);
        assert_eq!(claimed(ledger.as_mut()).page, 1);
    });
}

#[test]
fn a_table_with_other_columns_is_refused_by_name() {
    on_each("columns", |place| {
        let server = serve(Source::Made, |_| None);
        let options = place.options(&server, 1, "columns");
        let land = &feed(&options).land;
        let refused = |sql: &str| {
            place.execute(sql);
            let error = tidemill_ingest::land::open(&options.database, land)
                .err()
                .unwrap();
            assert_eq!(error.kind(), Kind::Data);
            error.to_string()
        };
        let text = refused("CREATE TABLE users (id integer PRIMARY KEY)");
        assert!(text.contains("`users`: column `id` is `"), "{text}");
        let text = refused("DROP TABLE users; CREATE TABLE users (id uuid PRIMARY KEY)");
        assert!(text.contains("ADD COLUMN \"gender\" "), "{text}");
        place.execute("DROP TABLE users");
        drop(tidemill_ingest::land::open(&options.database, land).unwrap());
        drop(tidemill_ingest::land::open(&options.database, land).unwrap());
        place.execute("ALTER TABLE users ADD COLUMN note text");
        fetched(&options);
        assert_eq!(place.number("count(*)", "users"), 100);
    });
}

#[test]
fn a_port_that_is_taken_is_a_clear_error() {
    let server = serve(Source::Made, |_| None);
    let error = tidemill_randomuser::serve(server.addr, tidemill_randomuser::Options::default())
        .unwrap_err();
    assert!(error.to_string().contains("choose another port"), "{error}");
}

#[test]
fn a_database_that_is_not_there_yet_is_waited_for() {
    let server = serve(Source::Made, |_| None);
    let place = Place {
        url: "postgres://nobody@127.0.0.1:1/none".into(),
        log: String::new(),
    };
    let options = place.options(&server, 1, "away");
    let stop = Arc::new(AtomicBool::new(false));
    let (stats, running) = (Arc::new(Stats::default()), Arc::clone(&stop));
    let run = std::thread::spawn(move || run::fetch(&options, &stats, &running));
    let deadline = Instant::now() + Duration::from_secs(1);
    while Instant::now() < deadline {
        assert!(!run.is_finished(), "it did not wait");
        std::thread::sleep(Duration::from_millis(10));
    }
    stop.store(true, Ordering::Relaxed);
    run.join().unwrap().unwrap();
}

#[test]
fn a_seed_fills_its_table_once() {
    on_each("a_seed_fills_its_table_once", |place| {
        let seed = Pipeline::load(&example()).unwrap().seeds.remove(0);
        let seeded = |seed: &Seed| land::seed(&place.url, seed);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| seeded(&seed).unwrap());
            }
        });
        assert_eq!(place.number("count(*)", "countries"), 21);
        let columns = ["name", "capital", "population"].map(str::to_owned);
        let brazil = place.rows(&columns, "countries WHERE name = 'Brazil'");
        let expected = ["Brazil", "Brasília", "212000000"];
        assert_eq!(brazil, [expected.map(|text| Some(text.to_owned()))]);

        // From then on the table is its owner's.
        place.execute("DELETE FROM countries WHERE name = 'Brazil'");
        place.execute("UPDATE countries SET capital = 'Bonn' WHERE name = 'Germany'");
        seeded(&seed).unwrap();
        assert_eq!(place.number("count(*)", "countries"), 20);
        assert_eq!(
            place.number("count(*)", "countries WHERE capital = 'Bonn'"),
            1
        );

        // A row that does not fit leaves no table behind.
        let mut other = seed.clone();
        other.land.table = "others".to_owned();
        let many = r#"{"name":"x","continent":"y","capital":"z","population":"many"}"#;
        other
            .rows
            .push(RawValue::from_string(many.to_owned()).unwrap());
        let error = seeded(&other).unwrap_err();
        assert_eq!(error.kind(), Kind::Data);
        let said = error.to_string();
        assert!(
            said.starts_with("countries.csv: row 22: `population` is `many`"),
            "{said}"
        );
        other.rows.pop();
        seeded(&other).unwrap();
        assert_eq!(place.number("count(*)", "others"), 21);
    });
}
