//! A captured table's topic that holds more than once what its ingest published: batches of a
//! process that stood still come behind the newer changes of the one that took over. Each change
//! counts once, whatever starts the job again in between, and with any number of workers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidemill_log::envelope::Encoder;
use tidemill_log::envelope::event::{Change, Op, Position, Value};
use tidemill_log::log::{Producer, Record, partition_of};
use tidemill_log::schema::{Column, ColumnType, TableSchema};

use crate::views::river::River;
use crate::views::{Life, held, seed};

const TOPIC: &str = "items";
const PARTITIONS: u32 = 3;
const KEYS: i64 = 40;
const WAVES: usize = 6;
const VIEWS: &str = "
CREATE TABLE items WITH (format = 'avro', envelope = 'debezium');
CREATE MATERIALIZED VIEW served WITH (primary_key = 'id') AS SELECT id, n FROM items;
CREATE MATERIALIZED VIEW sums WITH (primary_key = 'grp') AS
  SELECT id % 4 AS grp, count(*) AS rows, sum(n) AS n FROM items GROUP BY 1;";

/// A table, and its topic as an ingest publishes it.
struct Table {
    encoder: Encoder,
    producer: Box<dyn Producer>,
    rows: BTreeMap<i64, i64>,
    next: Change,
    /// What was published of this database, partition by partition.
    history: Vec<Vec<Record>>,
    /// Whether a key's changes lie in any partition, as after other schemas and rules.
    moves: bool,
}

impl Table {
    fn new(river: &River, moves: bool) -> Self {
        let column = |name: &str| Column {
            name: name.to_owned(),
            kind: ColumnType::Long,
            nullable: name != "id",
        };
        let schema = Arc::new(TableSchema {
            namespace: "public".to_owned(),
            name: TOPIC.to_owned(),
            columns: vec![column("id"), column("n")],
            key: vec![0],
        });
        let log = river.log();
        log.create_topic(TOPIC, PARTITIONS).unwrap();
        Self {
            encoder: Encoder::new(TOPIC, river.registry()),
            producer: log.producer().unwrap(),
            rows: BTreeMap::new(),
            next: Change {
                table: schema,
                op: Op::Create,
                before: None,
                after: None,
                position: Position {
                    commit: 5_000,
                    index: 0,
                },
                transaction: 1,
                committed_us: 1_700_000_000_000_000,
                snapshot: false,
            },
            history: vec![Vec::new(); PARTITIONS as usize],
            moves,
        }
    }

    /// The change as records, each in its partition.
    fn publish(&mut self, op: Op, after: Option<Vec<Value>>, key: i64, batch: &mut Vec<Record>) {
        let before = (op == Op::Delete).then(|| vec![Value::Int(key), Value::Null]);
        self.next.position.index += 1;
        let change = Change {
            op,
            before,
            after,
            ..self.next.clone()
        };
        let record = self.encoder.encode(&change).unwrap();
        let Position { commit, index } = change.position;
        let any = (commit * 7 + index) as u32 % PARTITIONS;
        let chosen = record.key.as_ref().map(|key| match self.moves {
            true => any,
            false => partition_of(key, PARTITIONS),
        });
        for partition in (0..PARTITIONS).filter(|it| chosen.is_none_or(|chosen| chosen == *it)) {
            let record = Record {
                partition: Some(partition),
                ..record.clone()
            };
            self.history[partition as usize].push(record.clone());
            batch.push(record);
        }
    }

    fn set(&mut self, key: i64, n: i64, op: Op, batch: &mut Vec<Record>) {
        self.rows.insert(key, n);
        self.publish(op, Some(vec![Value::Int(key), Value::Int(n)]), key, batch);
    }

    fn change(&mut self, rng: &mut StdRng, batch: &mut Vec<Record>) {
        self.next.position.commit += rng.random_range(0..3);
        self.next.committed_us += 1_000;
        let key = rng.random_range(0..KEYS);
        if rng.random_bool(0.02) {
            self.rows.clear();
            self.publish(Op::Truncate, None, 0, batch);
        } else if rng.random_bool(0.3) {
            if self.rows.remove(&key).is_some() {
                self.publish(Op::Delete, None, key, batch);
            }
        } else {
            let n = rng.random_range(0..1_000_000);
            let op = if self.rows.contains_key(&key) {
                Op::Update
            } else {
                Op::Create
            };
            self.set(key, n, op, batch);
        }
    }

    /// The table is read anew, in the same database or in another one, whose positions are lower.
    fn snapshot(&mut self, rng: &mut StdRng, another: bool, batch: &mut Vec<Record>) {
        if another {
            self.history = vec![Vec::new(); PARTITIONS as usize];
            self.rows.retain(|_, n| *n % 2 == 0);
        }
        let position = &mut self.next.position;
        position.commit = if another {
            position.commit / 2
        } else {
            position.commit + 1
        };
        position.index = 0;
        self.next.committed_us += 1_000_000;
        self.next.snapshot = true;
        self.publish(Op::Truncate, None, 0, batch);
        for (key, n) in self.rows.clone() {
            // Some changed while nobody captured.
            let n = if rng.random_bool(0.2) { n + 1 } else { n };
            self.set(key, n, Op::Read, batch);
        }
        self.next.snapshot = false;
        self.next.position.commit += 1;
    }

    /// What a process publishes that stood still: some of what there is of some partition, in
    /// order, and often from its beginning.
    fn copies(&self, rng: &mut StdRng, batch: &mut Vec<Record>) -> u64 {
        let history = &self.history[rng.random_range(0..PARTITIONS) as usize];
        let first = match rng.random_bool(0.3) {
            true => 0,
            false => rng.random_range(0..=history.len()),
        };
        let count = rng.random_range(0..60).min(history.len() - first);
        batch.extend_from_slice(&history[first..first + count]);
        count as u64
    }

    /// Changes with copies of earlier ones among them; how many of these.
    fn wave(&mut self, rng: &mut StdRng, wave: usize) -> u64 {
        let mut all = 0;
        for step in 0..rng.random_range(5..12) {
            let mut batch = Vec::new();
            // The first that a run reads may be copies, and the last.
            all += self.copies(rng, &mut batch);
            if wave > 0 && step == 2 {
                self.snapshot(rng, wave.is_multiple_of(2), &mut batch);
            }
            for _ in 0..*[0, 1, 5, 30].get(rng.random_range(0..4)).unwrap() {
                self.change(rng, &mut batch);
            }
            all += self.copies(rng, &mut batch);
            self.producer.append(&batch).unwrap();
        }
        all
    }

    #[track_caller]
    fn compare(&self, river: &River, context: &str) {
        let numbers = |view: &str| -> Vec<Vec<String>> {
            let rows = river.rows(view).into_values();
            let number = |value: &held::Value| match value {
                held::Value::Exact(number) => number.clone(),
                other => panic!("{other:?}"),
            };
            let mut rows: Vec<Vec<String>> =
                rows.map(|row| row.iter().map(number).collect()).collect();
            rows.sort();
            rows
        };
        let text = |row: &[i64]| row.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut served: Vec<_> = self.rows.iter().map(|(id, n)| text(&[*id, *n])).collect();
        served.sort();
        assert_eq!(numbers("served"), served, "{context}");
        let mut sums: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
        for (id, n) in &self.rows {
            let sum = sums.entry(id % 4).or_default();
            *sum = (sum.0 + 1, sum.1 + n);
        }
        let sums: Vec<_> = sums
            .iter()
            .map(|(grp, sum)| text(&[*grp, sum.0, sum.1]))
            .collect();
        assert_eq!(numbers("sums"), sums, "{context}");
    }
}

fn waves(name: &str, life: Life, moves: bool) {
    let seed = seed();
    eprintln!("{name}: TIDEMILL_TEST_SEED={seed}");
    let rng = &mut StdRng::seed_from_u64(seed);
    let mut table = None;
    let mut river = River::prepared(VIEWS, 2, |river| {
        let mut first = Table::new(river, moves);
        // Its schema is registered with the first change.
        let mut batch = Vec::new();
        first.set(1, 1, Op::Create, &mut batch);
        first.producer.append(&batch).unwrap();
        table = Some(first);
    });
    let mut table = table.unwrap();
    for wave in 0..WAVES {
        let context = format!("{name}, seed {seed}, wave {wave}");
        if matches!(life, Life::Rescaled) {
            river.rescale([1, 4, 2, 1, 3][wave % 5]);
        }
        let mut copies = 0;
        if matches!(life, Life::Killed) {
            let mut child = river.start_child(name);
            table.wave(rng, wave);
            child.kill_after(rng.random_range(0..6));
        } else {
            river.start();
            copies = table.wave(rng, wave);
        }
        river.start();
        river.settle();
        river.rest();
        table.compare(&river, &context);
        assert_eq!(river.dead_letters(), 0, "{context}: {:?}", river.reasons());
        let restored = river.stats().restored.load(Ordering::Relaxed);
        assert!(
            restored > 0 || wave == 0,
            "{context}: not from a checkpoint"
        );
        if !matches!(life, Life::Killed) {
            let dropped = river.stats().duplicates.load(Ordering::Relaxed);
            assert_eq!(dropped, copies, "{context}: dropped");
        }
        river.stop();
    }
}

#[test]
fn copies_behind_newer_changes_count_once_and_the_job_is_restarted() {
    waves("copies_restarted", Life::Restarted, false);
}

#[test]
fn copies_behind_newer_changes_count_once_with_other_workers() {
    waves("copies_rescaled", Life::Rescaled, false);
}

#[test]
fn copies_behind_newer_changes_count_once_and_the_job_is_killed() {
    waves("copies_killed", Life::Killed, false);
}

#[test]
fn keys_in_every_partition_are_as_their_newest_change_says_and_the_job_is_restarted() {
    waves("moved_restarted", Life::Rescaled, true);
}

#[test]
fn keys_in_every_partition_are_as_their_newest_change_says_and_the_job_is_killed() {
    waves("moved_killed", Life::Killed, true);
}
