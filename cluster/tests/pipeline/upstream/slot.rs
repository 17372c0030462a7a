//! The replication slot: moved on while its table is idle, and its loss told at once.

use std::time::{Duration, Instant};

use postgres::{Client, NoTls};

use crate::harness::own::Own;
use crate::harness::{PATIENCE, Place, until};

/// How soon a slot that is lost must be told.
const SOON: Duration = Duration::from_secs(15);

/// An embedded place whose database is a PostgreSQL of its own.
fn place(own: &Own) -> (Place, Client, String) {
    let mut place = Place::embedded("slot");
    place.use_postgres(&own.url("postgres"));
    let mut client = Client::connect(&place.database, NoTls).unwrap();
    let table = place.name.clone();
    client
        .batch_execute(&format!(
            "CREATE TABLE {table} (id int PRIMARY KEY, n int);
             CREATE TABLE busy (id int, filler text);
             INSERT INTO {table} SELECT n, n FROM generate_series(1, 10) n"
        ))
        .unwrap();
    place.write(
        "ingest.toml",
        &format!("[capture]\ntables = [\"{table}\"]\n"),
    );
    (place, client, table)
}

fn lsns(client: &mut Client, slot: &str) -> Option<(i64, i64)> {
    let sql = "SELECT (confirmed_flush_lsn - '0/0')::bigint, (restart_lsn - '0/0')::bigint
               FROM pg_replication_slots WHERE slot_name = $1";
    let row = client.query_opt(sql, &[&slot]).unwrap()?;
    Some((row.get(0), row.get(1)))
}

fn published(place: &Place, count: usize) {
    until("the rows are published", PATIENCE, || {
        (place.records(&place.name).len() >= count).then_some(())
    });
}

#[test]
fn idle_tables_hold_no_wal_and_a_lost_slot_is_told_at_once() {
    let test = "idle_tables_hold_no_wal_and_a_lost_slot_is_told_at_once";
    let Some(own) = Own::start(test, &["postgres"]) else {
        return;
    };
    let (place, mut client, table) = place(&own);
    let slot = format!("tidemill_{}", place.name);
    let mut ingest = place.start("ingest", &[]);
    published(&place, 10);
    let (confirmed, restart) = until("the slot is there", PATIENCE, || lsns(&mut client, &slot));
    until("the slot moves while its table is idle", PATIENCE, || {
        let busy = "INSERT INTO busy SELECT n, repeat('x', 100) FROM generate_series(1, 2000) n;
                    CHECKPOINT";
        client.batch_execute(busy).unwrap();
        ingest.runs();
        let (to, from) = lsns(&mut client, &slot).unwrap();
        (to > confirmed + 1_000_000 && from > restart + 1_000_000).then_some(())
    });
    ingest.stop("TERM");
    // Nobody reads the slot, and the server may keep no more than a little for it.
    for setting in ["max_slot_wal_keep_size = '1MB'", "max_wal_size = '32MB'"] {
        client
            .batch_execute(&format!("ALTER SYSTEM SET {setting}"))
            .unwrap();
    }
    client.batch_execute("SELECT pg_reload_conf()").unwrap();
    client
        .batch_execute(&format!("INSERT INTO {table} VALUES (11, 11)"))
        .unwrap();
    until("the slot is lost", PATIENCE, || {
        let switch = "INSERT INTO busy VALUES (1, 'x'); SELECT pg_switch_wal(); CHECKPOINT";
        client.batch_execute(switch).unwrap();
        let status: String = client
            .query_one("SELECT wal_status FROM pg_replication_slots", &[])
            .unwrap()
            .get(0);
        (status == "lost").then_some(())
    });
    let begin = Instant::now();
    let said = place.start("ingest", &[]).ends(1, PATIENCE);
    assert!(begin.elapsed() < SOON, "told after {:?}", begin.elapsed());
    assert!(
        said.contains("is lost") && said.contains("--resnapshot"),
        "{said}"
    );
    let reset = "ALTER SYSTEM RESET max_slot_wal_keep_size";
    client.batch_execute(reset).unwrap();
    client.batch_execute("SELECT pg_reload_conf()").unwrap();
    // All rows again, behind a truncate of the topic.
    let before = place.records(&place.name).len();
    let mut ingest = place.start("ingest", &["--resnapshot"]);
    published(&place, before + 12);
    dropped_while_it_runs(&place, &mut client, &slot);
    ingest.ends(1, SOON);
    let said = ingest.said();
    assert!(said.contains("--resnapshot"), "{said}");
    for statement in [
        format!("INSERT INTO {table} VALUES (12, 12)"),
        format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"),
    ] {
        client.batch_execute(&statement).unwrap();
    }
    let said = place.start("ingest", &[]).ends(1, PATIENCE);
    assert!(
        said.contains("made anew") && said.contains("--resnapshot"),
        "{said}"
    );
}

/// Drops the slot under the process that reads it.
fn dropped_while_it_runs(place: &Place, client: &mut Client, slot: &str) {
    until(
        "the snapshot is done and its slot is read",
        PATIENCE,
        || {
            let sql = "SELECT 1 FROM _tidemill_capture c JOIN pg_replication_slots s
                   ON s.slot_name = c.slot WHERE c.snapshot_done AND s.active";
            client.query_opt(sql, &[]).unwrap()
        },
    );
    until("the slot is dropped", PATIENCE, || {
        client
            .batch_execute(&format!(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
                 WHERE slot_name = '{slot}' AND active;"
            ))
            .unwrap();
        let drop = format!("SELECT pg_drop_replication_slot('{slot}')");
        client.batch_execute(&drop).ok()
    });
    assert!(lsns(client, slot).is_none(), "{}", place.name);
}
