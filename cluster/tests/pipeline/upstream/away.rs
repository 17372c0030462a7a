//! Kafka away under load: memory stays flat and nothing is lost or twice.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidemill_log::envelope::Decoder;
use tidemill_log::envelope::event::{Op, Value};

use crate::harness::own::Own;
use crate::harness::{PATIENCE, Place, until};
use crate::upstream::clean;

/// How long Kafka is away.
const AWAY: Duration = Duration::from_secs(22);
/// What ingest may have at most. At rest it has about 50 MB.
const MEMORY_MAX: u64 = 200 << 20;
const ROWS_A_BATCH: i32 = 50;

#[test]
fn kafka_away_under_load_takes_no_memory_and_loses_nothing() {
    let test = "kafka_away_under_load_takes_no_memory_and_loses_nothing";
    let Some(own) = Own::start(test, &["kafka"]) else {
        return;
    };
    let services = Place::services("away").unwrap();
    let place = Place::on(
        "away",
        services.database.clone(),
        own.url("kafka"),
        services.registry.clone(),
        services.sink.rsplit_once('/').unwrap().0,
    );
    let table = place.name.clone();
    let mut client = postgres::Client::connect(&place.database, postgres::NoTls).unwrap();
    client
        .batch_execute(&format!(
            "CREATE TABLE {table} (id int PRIMARY KEY, filler text)"
        ))
        .unwrap();
    place.write(
        "ingest.toml",
        &format!("[capture]\ntables = [\"{table}\"]\n[publish]\npartitions = 2\n"),
    );
    let mut ingest = place.start("ingest", &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (stop, database, table) = (Arc::clone(&stop), place.database.clone(), table.clone());
        move || write(&database, &table, &stop)
    });
    let log = tidemill_log::log::open(&place.log).unwrap();
    until("rows flow", PATIENCE, || {
        let ranges = log.ranges(&table).ok()?;
        (ranges.iter().map(|it| it.high).sum::<i64>() > 1_000).then_some(())
    });
    own.stop("kafka");
    let (mut most, begin) = (0, Instant::now());
    while begin.elapsed() < AWAY {
        ingest.runs();
        most = most.max(ingest.memory());
        std::thread::sleep(Duration::from_millis(100));
    }
    own.again("kafka");
    stop.store(true, Ordering::Relaxed);
    let written = writer.join().unwrap();
    let mut last = 0;
    let caught_up = until("all rows are published", Duration::from_secs(120), || {
        most = most.max(ingest.memory());
        last = log.ranges(&table).ok()?.iter().map(|it| it.high).sum();
        (last >= i64::from(written)).then_some(last)
    });
    eprintln!(
        "{written} rows, {caught_up} records; memory at most {} MB",
        most >> 20
    );
    assert!(most < MEMORY_MAX, "{most} bytes of memory");
    every_row_once(&place, written);
    ingest.stop("TERM");
    clean(&mut client, &table, &[&table]);
}

/// Inserts rows as fast as they are taken, up to 5,000 a second; how many.
fn write(database: &str, table: &str, stop: &AtomicBool) -> i32 {
    let mut client = postgres::Client::connect(database, postgres::NoTls).unwrap();
    let insert = format!(
        "INSERT INTO {table} SELECT n, repeat('x', 500)
         FROM generate_series($1::int, $1 + {ROWS_A_BATCH} - 1) n"
    );
    let mut next = 0;
    while !stop.load(Ordering::Relaxed) {
        client.execute(&insert, &[&next]).unwrap();
        next += ROWS_A_BATCH;
        std::thread::sleep(Duration::from_millis(10));
    }
    next
}

fn every_row_once(place: &Place, written: i32) {
    let registry = tidemill_log::registry::open(&place.registry).unwrap();
    let mut decoder = Decoder::new(&place.name, registry);
    let mut rows: HashMap<i64, u32> = HashMap::new();
    let mut positions = BTreeMap::new();
    for record in place.records_up_to(&place.name, 1_000_000) {
        let change = decoder.decode(&record).unwrap();
        let earlier = positions.insert((record.partition, change.position), record.offset);
        assert_eq!(earlier, None, "published twice: {:?}", change.position);
        if let (Op::Read | Op::Create, Some(row)) = (change.op, &change.after) {
            let Value::Int(id) = row[0] else {
                panic!("{row:?}");
            };
            *rows.entry(id).or_default() += 1;
        }
    }
    let lost: Vec<_> = (0..i64::from(written))
        .filter(|id| !rows.contains_key(id))
        .collect();
    assert!(
        lost.is_empty(),
        "{} of {written} rows lost: {:?}",
        lost.len(),
        &lost[..1]
    );
    let twice = rows.iter().filter(|(_, times)| **times > 1).count();
    assert_eq!(twice, 0, "rows published twice");
}
