//! A process that stands still with a page in its hands, in the midst of the page's transaction:
//! another one lands the page.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::harness::database::Database;
use crate::harness::{PATIENCE, Place, Process, feed, unique, until};

/// How soon another one must have landed it: 8 s for its claim, and 8 s for its locks.
const SOON: Duration = Duration::from_secs(30);
const PAGES: usize = 40;
const USERS: usize = PAGES * 20;

/// Users come until there are 40 pages of them.
fn fetches(place: &Place) -> String {
    let table = unique("users");
    let schedule = format!("[schedule]\nlast_page = {PAGES}");
    let feed = feed("frozen").replace("[schedule]", &schedule);
    let land = format!(
        r#"[land]
table = "{table}"
key = "id"
columns = [{{ name = "id", path = "login.uuid", type = "text" }}]
[publish]
partitions = 2
"#
    );
    place.write("ingest.toml", &format!("{feed}{land}"));
    table
}

/// Stops a process in a page's transaction, when the page's rows are written. They are locked.
fn freeze_in_the_midst(place: &Place, table: &str, process: &Process) {
    let connect = || postgres::Client::connect(&place.database, postgres::NoTls).unwrap();
    let (mut holding, mut watching) = (connect(), connect());
    let key = format!("hashtext('{table}')");
    let waits = format!(
        "CREATE FUNCTION {table}_waits() RETURNS trigger LANGUAGE plpgsql AS
           $$BEGIN PERFORM pg_advisory_xact_lock_shared({key}); RETURN NULL; END$$;
         CREATE TRIGGER waits AFTER INSERT ON {table} EXECUTE FUNCTION {table}_waits();
         SELECT pg_advisory_lock({key})"
    );
    holding.batch_execute(&waits).unwrap();
    let mut landing = |like: &str| {
        let sql = format!(
            "SELECT 1 FROM pg_stat_activity JOIN pg_locks USING (pid)
             WHERE application_name = 'tidemill ingest' AND locktype = 'advisory'
             AND objid = {key}::oid AND objsubid = 1 AND {like}"
        );
        until(like, PATIENCE, || watching.query_opt(&sql, &[]).unwrap());
    };
    landing("NOT granted");
    process.signal("STOP");
    let go_on = format!("SELECT pg_advisory_unlock({key})");
    holding.batch_execute(&go_on).unwrap();
    landing("granted AND state = 'idle in transaction'");
}

#[test]
fn a_page_of_one_that_stands_still_is_landed_by_another() {
    let Some(place) = Place::services("page") else {
        return;
    };
    let options = tidemill_randomuser::Options::default();
    let api = tidemill_randomuser::serve("127.0.0.1:0".parse().unwrap(), options).unwrap();
    let url = api.url();
    let table = fetches(&place);
    let mut database = Database::open(&place.database);
    let mut old = place.start("ingest", &["--api", &url]);
    let some = format!("SELECT 1 FROM {table} OFFSET 60");
    until("pages land", PATIENCE, || {
        let there = database.execute(&some);
        there.then(|| database.rows(&some))?.pop_first()
    });
    freeze_in_the_midst(&place, &table, &old);
    let mut new = place.start("ingest", &["--api", &url, "--standby"]);
    let runs = format!("FROM _tidemill_runs WHERE pipeline = '{}'", place.name);
    let done = format!("SELECT count(*) {runs} AND state = 'done' HAVING count(*) = {PAGES}");
    until("all pages landed", SOON, || {
        new.runs();
        database.rows(&done).pop_first()
    });
    old.signal("CONT");
    old.says("idle-in-transaction timeout");
    let attempts = format!("SELECT attempts, count(*) {runs} GROUP BY 1");
    let each = [(1, PAGES - 1), (2, 1)].map(|(n, pages)| vec![n.to_string(), pages.to_string()]);
    assert_eq!(database.rows(&attempts), BTreeSet::from(each));
    let rows = database.rows(&format!("SELECT count(*) FROM {table}"));
    assert_eq!(rows, BTreeSet::from([vec![USERS.to_string()]]));
    until("all users are published", PATIENCE, || {
        old.runs();
        (place.records(&table).len() >= USERS).then_some(())
    });
    old.stop("TERM");
    new.stop("TERM");
    place.is_published_once(&table);
    assert_eq!(place.records(&table).len(), USERS);
    database.clean(&place.name, &[&table]);
    assert!(database.execute(&format!("DROP FUNCTION {table}_waits")));
}
