//! One suite that every engine of the log passes: SQLite always, Kafka where there is one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tidemill_log::Kind;
use tidemill_log::log::{Log, OwnedRecord, RECORD_BYTES_MAX, Reader, Record, open, partition_of};

const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a test on every engine that is there.
fn on_each(test: impl Fn(&dyn Log, &str)) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let topic = format!("log-conformance.{}.{number}", unique());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("river.db");
    test(
        &*open(&format!("sqlite://{}", file.display())).unwrap(),
        &topic,
    );
    match std::env::var("TIDEMILL_TEST_KAFKA") {
        Ok(url) => test(&*open(&url).unwrap(), &topic),
        Err(_) => {
            // Past the harness, which hides what a passing test prints.
            let line = "left out: the log on Kafka needs TIDEMILL_TEST_KAFKA (run ./test)\n";
            let _unseen = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
        }
    }
}

/// Different in each run: topics outlive it.
fn unique() -> String {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_micros();
    format!("{}-{now}", std::process::id())
}

fn record(topic: &str, key: &str, value: &str, timestamp_ms: i64) -> Record {
    Record {
        topic: topic.to_owned(),
        partition: None,
        key: Some(key.into()),
        value: Some(value.into()),
        timestamp_ms,
    }
}

fn at(topic: &str, partition: u32, value: &str) -> Record {
    Record {
        partition: Some(partition),
        ..record(topic, "k", value, 1)
    }
}

/// Reads until `count` records have come.
fn read(reader: &mut dyn Reader, count: usize) -> Vec<OwnedRecord> {
    let mut records = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while records.len() < count && Instant::now() < deadline {
        let wait = Duration::from_millis(100);
        let came = reader
            .poll(1000, wait, &mut |it| records.push(it.to_owned_record()))
            .unwrap();
        assert!(came <= 1000);
    }
    assert_eq!(
        records.len(),
        count,
        "the records that came in {PATIENCE:?}"
    );
    records
}

fn values(records: &[OwnedRecord], partition: u32) -> Vec<String> {
    records
        .iter()
        .filter(|it| it.partition == partition)
        .map(|it| String::from_utf8(it.value.clone().unwrap()).unwrap())
        .collect()
}

#[test]
fn what_was_appended_is_read_in_order_from_its_keys_partition() {
    on_each(|log, topic| {
        log.create_topic(topic, 4).unwrap();
        let records: Vec<Record> = (0..500)
            .map(|i| {
                record(
                    topic,
                    &format!("key {}", i % 17),
                    &format!("{i}"),
                    1_000 + i,
                )
            })
            .collect();
        log.producer().unwrap().append(&records).unwrap();
        let from: Vec<_> = (0..4).map(|it| (it, 0)).collect();
        let came = read(&mut *log.reader(topic, &from).unwrap(), 500);
        for partition in 0..4 {
            let expected: Vec<_> = records
                .iter()
                .filter(|it| partition_of(it.key.as_ref().unwrap(), 4) == partition)
                .enumerate()
                .map(|(offset, it)| OwnedRecord {
                    partition,
                    offset: offset as i64,
                    timestamp_ms: it.timestamp_ms,
                    key: it.key.clone(),
                    value: it.value.clone(),
                })
                .collect();
            let came: Vec<_> = came
                .iter()
                .filter(|it| it.partition == partition)
                .cloned()
                .collect();
            assert_eq!(came, expected);
        }
    });
}

#[test]
fn a_scan_ends_at_the_ends_or_when_enough_was_seen() {
    on_each(|log, topic| {
        log.create_topic(topic, 2).unwrap();
        let at = |partition, at_ms| Record {
            partition: Some(partition),
            ..record(topic, "key", "value", at_ms)
        };
        let records = [at(0, 10), at(0, 20), at(0, 30), at(1, 40)];
        log.producer().unwrap().append(&records).unwrap();
        let mut seen = Vec::new();
        let is_whole = log.scan(
            topic,
            &[(0, 1), (1, 0)],
            PATIENCE,
            &mut |record, headers| {
                assert!(headers.is_empty());
                seen.push((record.partition, record.offset, record.timestamp_ms));
                true
            },
        );
        assert!(is_whole.unwrap());
        seen.sort_unstable();
        assert_eq!(seen, [(0, 1, 20), (0, 2, 30), (1, 0, 40)]);
        let mut count = 0;
        let is_whole = log.scan(topic, &[(0, 0)], PATIENCE, &mut |_, _| {
            count += 1;
            count < 2
        });
        assert_eq!((is_whole.unwrap(), count), (false, 2));
        assert!(log.scan(topic, &[], PATIENCE, &mut |_, _| true).unwrap());
        assert_eq!(log.offsets_at(topic, 15).unwrap(), [(0, 1), (1, 0)]);
        assert_eq!(log.offsets_at(topic, 41).unwrap(), [(0, 3), (1, 1)]);
    });
}

#[test]
fn null_and_empty_are_told_apart() {
    on_each(|log, topic| {
        log.create_topic(topic, 1).unwrap();
        let records = [
            Record {
                key: None,
                value: None,
                ..record(topic, "", "", 5)
            },
            Record {
                key: Some(vec![]),
                value: Some(vec![]),
                ..record(topic, "", "", 6)
            },
            Record {
                value: None,
                ..record(topic, "tombstone", "", 7)
            },
        ];
        log.producer().unwrap().append(&records).unwrap();
        let came = read(&mut *log.reader(topic, &[(0, 0)]).unwrap(), 3);
        let came: Vec<_> = came.into_iter().map(|it| (it.key, it.value)).collect();
        let sent: Vec<_> = records.into_iter().map(|it| (it.key, it.value)).collect();
        assert_eq!(came, sent);
    });
}

#[test]
fn a_topic_created_twice_is_left_as_it_is() {
    on_each(|log, topic| {
        assert_eq!(log.ranges(topic).unwrap_err().kind(), Kind::Retry);
        log.create_topic(topic, 3).unwrap();
        log.producer()
            .unwrap()
            .append(&[at(topic, 1, "stays")])
            .unwrap();
        log.create_topic(topic, 5).unwrap();
        let ranges: Vec<_> = log
            .ranges(topic)
            .unwrap()
            .into_iter()
            .map(|it| (it.partition, it.low, it.high))
            .collect();
        assert_eq!(ranges, [(0, 0, 0), (1, 0, 1), (2, 0, 0)]);
        assert_eq!(log.create_topic(topic, 0).unwrap_err().kind(), Kind::Data);
    });
}

#[test]
fn a_topic_that_is_deleted_is_gone_and_may_be_made_anew() {
    on_each(|log, topic| {
        assert!(!log.delete_topic(topic).unwrap());
        log.create_topic(topic, 3).unwrap();
        let mut producer = log.producer().unwrap();
        producer.append(&[at(topic, 1, "goes")]).unwrap();
        drop(producer);
        let first = log.describe(topic).unwrap().unwrap();
        assert!(log.delete_topic(topic).unwrap());
        assert_eq!(log.describe(topic).unwrap(), None);
        assert!(!log.delete_topic(topic).unwrap());
        log.create_topic(topic, 2).unwrap();
        let second = log.describe(topic).unwrap().unwrap();
        assert_eq!(second.partitions, 2);
        assert!(!first.id.is_known() || first.id != second.id);
        let ranges = log.ranges(topic).unwrap();
        assert!(ranges.iter().all(|range| range.high == 0), "{ranges:?}");
    });
}

#[test]
fn a_reader_begins_at_its_offsets_and_reads_only_its_partitions() {
    on_each(|log, topic| {
        log.create_topic(topic, 3).unwrap();
        let records: Vec<Record> = (0..30).map(|i| at(topic, i % 3, &format!("{i}"))).collect();
        log.producer().unwrap().append(&records).unwrap();
        let mut reader = log.reader(topic, &[(0, 8), (2, 9)]).unwrap();
        let came = read(&mut *reader, 3);
        assert_eq!(values(&came, 0), ["24", "27"]);
        assert_eq!(values(&came, 2), ["29"]);
    });
}

#[test]
fn a_poll_never_hands_over_more_than_asked_for() {
    on_each(|log, topic| {
        log.create_topic(topic, 2).unwrap();
        let records: Vec<Record> = (0..100)
            .map(|i| at(topic, i % 2, &format!("{i}")))
            .collect();
        log.producer().unwrap().append(&records).unwrap();
        let mut reader = log.reader(topic, &[(0, 0), (1, 0)]).unwrap();
        let mut came = 0;
        let deadline = Instant::now() + PATIENCE;
        while came < 100 && Instant::now() < deadline {
            let mut handed = 0;
            let count = reader
                .poll(7, Duration::from_millis(100), &mut |_| handed += 1)
                .unwrap();
            assert_eq!(count, handed);
            assert!(count <= 7);
            came += count;
        }
        assert_eq!(came, 100);
    });
}

#[test]
fn later_records_wake_a_waiting_reader() {
    on_each(|log, topic| {
        log.create_topic(topic, 1).unwrap();
        let mut reader = log.reader(topic, &[(0, 0)]).unwrap();
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        reader.on_arrival(Arc::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
        }));
        assert_eq!(
            reader
                .poll(10, Duration::from_millis(300), &mut |_| {})
                .unwrap(),
            0
        );
        let before = woken.load(Ordering::SeqCst);
        let mut producer = log.producer().unwrap();
        producer.append(&[at(topic, 0, "first")]).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while woken.load(Ordering::SeqCst) == before {
            assert!(Instant::now() < deadline, "no callback came");
            std::thread::yield_now();
        }
        assert_eq!(values(&read(&mut *reader, 1), 0), ["first"]);
        producer.append(&[at(topic, 0, "second")]).unwrap();
        assert_eq!(values(&read(&mut *reader, 1), 0), ["second"]);
    });
}

#[test]
fn an_append_ends_the_wait_of_a_poll() {
    on_each(|log, topic| {
        log.create_topic(topic, 1).unwrap();
        let mut reader = log.reader(topic, &[(0, 0)]).unwrap();
        let mut producer = log.producer().unwrap();
        let began = Instant::now();
        std::thread::scope(|scope| {
            let polling = scope.spawn(|| reader.poll(1, PATIENCE, &mut |_| {}).unwrap());
            producer.append(&[at(topic, 0, "news")]).unwrap();
            assert_eq!(polling.join().unwrap(), 1);
        });
        assert!(began.elapsed() < PATIENCE);
    });
}

#[test]
fn the_tail_is_the_last_records_of_each_partition() {
    on_each(|log, topic| {
        log.create_topic(topic, 3).unwrap();
        assert_eq!(log.tail(topic, 2).unwrap(), []);
        let records: Vec<Record> = (0..10).map(|i| at(topic, 0, &format!("{i}"))).collect();
        let mut producer = log.producer().unwrap();
        producer.append(&records).unwrap();
        producer.append(&[at(topic, 2, "only")]).unwrap();
        let tail = log.tail(topic, 2).unwrap();
        assert_eq!(values(&tail, 0), ["8", "9"]);
        assert_eq!(values(&tail, 1), [""; 0]);
        assert_eq!(values(&tail, 2), ["only"]);
        assert_eq!(log.tail(topic, 0).unwrap(), []);
    });
}

#[test]
fn an_offset_that_is_not_there_is_final() {
    on_each(|log, topic| {
        log.create_topic(topic, 1).unwrap();
        log.producer()
            .unwrap()
            .append(&[at(topic, 0, "one")])
            .unwrap();
        let deadline = Instant::now() + PATIENCE;
        let mut reader = log.reader(topic, &[(0, 1_000)]).unwrap();
        let error = loop {
            assert!(Instant::now() < deadline, "no error came");
            match reader.poll(10, Duration::from_millis(100), &mut |_| {}) {
                Ok(count) => assert_eq!(count, 0),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), Kind::Data);
        assert!(error.to_string().contains(topic), "{error}");
    });
}

#[test]
fn a_record_that_is_too_large_is_named_and_nothing_of_its_batch_is_written() {
    on_each(|log, topic| {
        log.create_topic(topic, 1).unwrap();
        let large = Record {
            value: Some(vec![7; RECORD_BYTES_MAX]),
            ..at(topic, 0, "")
        };
        let mut producer = log.producer().unwrap();
        let error = producer
            .append(&[at(topic, 0, "before"), large.clone()])
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Data);
        let text = error.to_string();
        assert!(
            text.contains(topic) && text.contains("`k`") && text.contains("1000001"),
            "{text}"
        );
        let fits = Record { key: None, ..large };
        producer.append(&[fits]).unwrap();
        let came = read(&mut *log.reader(topic, &[(0, 0)]).unwrap(), 1);
        assert_eq!(came[0].value.as_ref().unwrap().len(), RECORD_BYTES_MAX);
    });
}

#[test]
fn appends_of_several_producers_are_all_there() {
    on_each(|log, topic| {
        log.create_topic(topic, 2).unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                scope.spawn(move || {
                    let mut producer = log.producer().unwrap();
                    for batch in 0..20 {
                        let value = format!("{writer} {batch:02}");
                        producer
                            .append(&[at(topic, 0, &value), at(topic, 1, &value)])
                            .unwrap();
                    }
                });
            }
        });
        let came = read(&mut *log.reader(topic, &[(0, 0), (1, 0)]).unwrap(), 160);
        for partition in 0..2 {
            let mut values = values(&came, partition);
            for writer in ["0", "1", "2", "3"] {
                let own: Vec<_> = values.iter().filter(|it| it.starts_with(writer)).collect();
                assert!(own.is_sorted() && own.len() == 20, "{own:?}");
            }
            values.sort();
            values.dedup();
            assert_eq!(values.len(), 80);
        }
    });
}

#[test]
fn a_url_of_no_engine_is_refused_by_name() {
    for url in ["http://127.0.0.1:1", "kafka://", "river.db"] {
        let error = open(url).err().unwrap();
        assert_eq!(error.kind(), Kind::Data);
        assert!(error.to_string().contains("kafka://HOST:PORT"), "{error}");
    }
}

#[test]
fn a_broker_that_is_not_there_is_tried_again() {
    // Port 1 of the loopback: nobody listens there.
    let log = open("kafka://127.0.0.1:1").unwrap();
    let mut reader = log.reader("topic", &[(0, 0)]).unwrap();
    assert_eq!(
        reader
            .poll(10, Duration::from_millis(500), &mut |_| {})
            .unwrap(),
        0
    );
    assert_eq!(log.ranges("topic").unwrap_err().kind(), Kind::Retry);
}
