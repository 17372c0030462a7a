//! PostgreSQL with a hot standby: either is killed and comes back, the standby is promoted, with
//! the replication slot and without it.

use std::time::Duration;

use postgres::{Client, NoTls};

use crate::harness::own::Own;
use crate::harness::{PATIENCE, until};
use crate::services::load::{Load, WHILE};

const OPTIONS: [&str; 3] = ["--postgres", "17.6.0", "--postgres-standby"];
/// A server that was killed reads its WAL again.
const NEEDS: Duration = Duration::from_secs(5);

/// A session with one of the two.
fn session(own: &Own, name: &str) -> Client {
    let port = own.port(name, "public");
    let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
    until("it answers", PATIENCE, || Client::connect(&url, NoTls).ok())
}

fn asks(client: &mut Client, sql: &str) -> String {
    let row = client.query_one(sql, &[]).unwrap();
    row.get::<_, Option<String>>(0).unwrap_or_default()
}

/// Waits until the standby keeps the pipeline's slot, and can go on with it: for that the slot has
/// to move, so there is load.
fn is_kept(load: &mut Load, standby: &mut Client) {
    let kept = "SELECT count(*)::text FROM pg_replication_slots
                WHERE synced AND failover AND NOT temporary AND invalidation_reason IS NULL";
    until("the standby keeps the slot", PATIENCE, || {
        load.goes_on(Duration::from_millis(200));
        (asks(standby, kept) == "1").then_some(())
    });
}

fn promote(standby: &mut Client) {
    assert!(
        standby
            .query_one("SELECT pg_promote()", &[])
            .unwrap()
            .get::<_, bool>(0)
    );
}

#[test]
fn a_promoted_standby_goes_on_exactly() {
    let test = "a_promoted_standby_goes_on_exactly";
    let Some((mut place, own)) = crate::services::cluster(test, "standby", &OPTIONS, "postgres")
    else {
        return;
    };
    place.use_postgres(&own.url("postgres"));
    let mut load = Load::start(test, place);
    own.kill("postgres");
    load.goes_on(Duration::from_secs(1));
    own.again("postgres");
    load.river.reconnect();
    load.stands_still("the primary is killed and back", NEEDS);
    load.goes_on(WHILE);
    // What the standby does not have is not sent to anybody, so that it cannot be lost.
    own.kill("standby");
    load.goes_on(WHILE);
    own.again("standby");
    load.stands_still("the standby is killed and back", NEEDS);
    let mut standby = session(&own, "standby");
    is_kept(&mut load, &mut standby);
    own.kill("postgres");
    promote(&mut standby);
    load.river.reconnect();
    load.goes_on(WHILE);
    load.stands_still("the standby is promoted", NEEDS);
    load.is_killed();
    load.right("the process is killed after it");
    load.end();
}

#[test]
fn a_promoted_standby_without_the_slot_is_told() {
    let test = "a_promoted_standby_without_the_slot_is_told";
    let Some((mut place, own)) = crate::services::cluster(test, "slotless", &OPTIONS, "postgres")
    else {
        return;
    };
    let mut standby = session(&own, "standby");
    set(&mut standby, "sync_replication_slots = off");
    place.use_postgres(&own.url("postgres"));
    let mut load = Load::start(test, place);
    load.goes_on(Duration::from_secs(1));
    own.kill("postgres");
    promote(&mut standby);
    let told = ["is gone", "a standby without it was promoted"];
    is_told(test, &mut load, &told);
}

#[test]
fn a_promoted_standby_without_published_changes_is_told() {
    let test = "a_promoted_standby_without_published_changes_is_told";
    let Some((mut place, own)) = crate::services::cluster(test, "behind", &OPTIONS, "postgres")
    else {
        return;
    };
    // Nobody waits for the standby, as before PostgreSQL 17.
    set(
        &mut session(&own, "postgres"),
        "synchronized_standby_slots = ''",
    );
    place.use_postgres(&own.url("postgres"));
    let mut load = Load::start(test, place);
    is_kept(&mut load, &mut session(&own, "standby"));
    own.kill("standby");
    load.goes_on(Duration::from_secs(1));
    load.right("the standby is behind");
    own.kill("postgres");
    own.again("standby");
    promote(&mut session(&own, "standby"));
    let told = [
        "holds changes up to",
        "the standby that was promoted has those before",
    ];
    is_told(test, &mut load, &told);
}

fn set(client: &mut Client, setting: &str) {
    for sql in [
        format!("ALTER SYSTEM SET {setting}"),
        "SELECT pg_reload_conf()".to_owned(),
    ] {
        client.batch_execute(&sql).unwrap();
    }
}

/// The process ends, and says why and what to do.
fn is_told(test: &str, load: &mut Load, parts: &[&str]) {
    let ended = load.run.end(PATIENCE);
    let said = load.run.said();
    assert_eq!(ended.code(), Some(1), "{said}");
    for part in parts.iter().chain(&["--resnapshot"]) {
        assert!(said.contains(part), "`{part}` is missing in {said}");
    }
    let told = said.lines().find(|line| line.contains(parts[0]));
    eprintln!("{test}: told: {}", told.unwrap_or_default().trim());
}
