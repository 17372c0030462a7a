//! Temporal filters against PostgreSQL: rows come and go as a clock is set forward, with and
//! without new records, through restarts, kills and other numbers of workers.
//!
//! PostgreSQL cannot set `now()`. It answers the same query with the time of the job's last epoch
//! in place of `now()`. The clock of the job stands still until the test sets it, and some rows end
//! exactly at, a microsecond before, or after the times to which it is set.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arrow::temporal_conversions::timestamp_us_to_datetime;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tidemill_log::log::{Producer, Record};

use crate::views::bundle::View;
use crate::views::feed::Envelope;
use crate::views::oracle::Oracle;
use crate::views::river::River;
use crate::views::{Life, seed};

const COLUMNS: &str = "id int, grp text, n int, day date, at timestamp, tz timestamptz, \
                       gone timestamptz";
const PARTITIONS: u32 = 3;
const KEYS: i64 = 40;
/// The time at which a case begins, in ms: 2024-02-28 23:59:00 UTC, a minute before a day ends.
const BEGIN: u64 = 1_709_164_740_000;
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
/// How far the clock goes after each wave, in ms.
const STEPS: [u64; 5] = [MINUTE, 17 * MINUTE + 1, HOUR, 26 * HOUR, 500 * HOUR];

/// The views: name, primary key and query.
const VIEWS: [(&str, &str, &str); 17] = [
    (
        "recent",
        "id",
        "SELECT id, n FROM events WHERE tz > now() - INTERVAL '1 hour'",
    ),
    (
        "coming",
        "id",
        "SELECT id, tz FROM events WHERE tz > CURRENT_TIMESTAMP",
    ),
    ("past", "id", "SELECT id, at FROM events WHERE at <= now()"),
    (
        "of_a_day",
        "id",
        "SELECT id, n FROM events WHERE tz BETWEEN now() - INTERVAL '1 day' AND now() AND n > 2",
    ),
    (
        "local_times",
        "id",
        "SELECT id FROM events WHERE at >= LOCALTIMESTAMP - INTERVAL '2 hours 30 minutes'",
    ),
    (
        "today",
        "id",
        "SELECT id, day FROM events WHERE day = CURRENT_DATE",
    ),
    (
        "week",
        "id",
        "SELECT id FROM events WHERE day > CURRENT_DATE - 7 AND now()::date >= day",
    ),
    (
        "since_midnight",
        "id",
        "SELECT id FROM events WHERE tz >= CURRENT_DATE AND date_trunc('hour', now()) > tz",
    ),
    (
        "valid",
        "id",
        "SELECT id, n + 1 AS n FROM events WHERE now() >= tz AND now() < gone",
    ),
    (
        "open",
        "id",
        "SELECT id FROM events WHERE coalesce(gone, TIMESTAMPTZ '9999-12-31') > now()",
    ),
    (
        "months",
        "id",
        "SELECT id FROM events WHERE tz + INTERVAL '1 month' > now() AND at < now()",
    ),
    (
        "sums",
        "grp",
        "SELECT grp, count(*) AS rows, sum(n) AS n, max(tz) AS last FROM events \
         WHERE tz > now() - INTERVAL '1 hour' GROUP BY grp",
    ),
    (
        "busy",
        "grp",
        "SELECT grp, min(tz) AS first FROM events GROUP BY grp \
         HAVING max(tz) > now() - INTERVAL '30 minutes'",
    ),
    (
        "pairs",
        "id, other",
        "SELECT a.id, b.id AS other FROM events a JOIN events b ON a.grp = b.grp \
         AND a.tz BETWEEN b.tz - INTERVAL '5 minutes' AND b.tz \
         AND a.tz > now() - INTERVAL '1 hour' WHERE b.tz > now() - INTERVAL '1 hour'",
    ),
    (
        "having_live",
        "id",
        "SELECT id FROM events a WHERE EXISTS \
         (SELECT 1 FROM events b WHERE b.grp = a.grp AND b.n = a.n AND b.gone > now())",
    ),
    (
        "without_live",
        "id",
        "SELECT id FROM events a WHERE NOT EXISTS \
         (SELECT 1 FROM events b WHERE b.grp = a.grp AND b.n = a.n AND b.gone > now())",
    ),
    (
        "counted",
        "k",
        "SELECT 'all' AS k, count(*) AS n FROM (SELECT DISTINCT grp FROM events \
         WHERE gone > now()) g",
    ),
];

fn views() -> Vec<View> {
    let view = |(name, key, select): &(&str, &str, &str)| View {
        name: (*name).to_owned(),
        create: format!(
            "CREATE MATERIALIZED VIEW {name} WITH (primary_key = '{key}') AS {select};"
        ),
        select: (*select).to_owned(),
    };
    VIEWS.iter().map(view).collect()
}

/// The whole `views.sql`.
fn sql(envelope: Envelope) -> String {
    let key = match envelope {
        Envelope::Append => "",
        _ => ", PRIMARY KEY (id)",
    };
    let name = envelope.name();
    let table = format!(
        "CREATE TABLE events ({COLUMNS}{key}) WITH (format = 'json', envelope = '{name}');\n"
    );
    let views: Vec<String> = views().into_iter().map(|view| view.create).collect();
    table + &views.join("\n")
}

/// A query as PostgreSQL answers it at an epoch.
fn at(select: &str, epoch: u64) -> String {
    let now = format!("TIMESTAMPTZ '{}Z'", moment(epoch as i64 * 1_000));
    select
        .replace("LOCALTIMESTAMP", &format!("({now})::timestamp"))
        .replace("CURRENT_TIMESTAMP", &now)
        .replace("CURRENT_DATE", &format!("({now})::date"))
        .replace("now()", &format!("({now})"))
}

/// A time in microseconds as text.
fn moment(micros: i64) -> String {
    let time = timestamp_us_to_datetime(micros).unwrap();
    time.to_string().replace(' ', "T")
}

/// The table's rows, and the topic that they are published to.
struct Events {
    producer: Box<dyn Producer>,
    envelope: Envelope,
    rows: BTreeMap<i64, Value>,
    appended: i64,
}

impl Events {
    fn new(river: &River, envelope: Envelope) -> Self {
        let log = river.log();
        log.create_topic("events", PARTITIONS).unwrap();
        Self {
            producer: log.producer().unwrap(),
            envelope,
            rows: BTreeMap::new(),
            appended: 0,
        }
    }

    /// Publishes changes around the time `clock`, of which one row ends at `next`.
    fn wave(&mut self, rng: &mut StdRng, clock: u64, next: u64) {
        for _ in 0..rng.random_range(4..9) {
            let mut batch = Vec::new();
            for _ in 0..rng.random_range(1..12) {
                let id = rng.random_range(1..KEYS);
                let row = row(rng, id, clock, next);
                self.change(rng, id, Some(row), &mut batch);
            }
            self.producer.append(&batch).unwrap();
        }
        // This row asks for an epoch at the next time.
        let mut last = row(rng, 0, clock, next);
        last["gone"] = json!(format!("{}Z", moment(next as i64 * 1_000)));
        let mut batch = Vec::new();
        self.change(rng, 0, Some(last), &mut batch);
        self.producer.append(&batch).unwrap();
    }

    fn change(&mut self, rng: &mut StdRng, id: i64, row: Option<Value>, batch: &mut Vec<Record>) {
        let key = json!({ "id": id }).to_string().into_bytes();
        let record = |key, value: Option<Value>, partition| Record {
            topic: "events".to_owned(),
            partition,
            key,
            value: value.map(|value| value.to_string().into_bytes()),
            timestamp_ms: BEGIN as i64,
        };
        if self.envelope == Envelope::Append {
            self.appended += 1;
            self.rows
                .extend(row.clone().map(|row| (self.appended, row)));
            let partition = rng.random_range(0..PARTITIONS);
            batch.push(record(None, row, Some(partition)));
            return;
        }
        let row = row.filter(|_| id == 0 || rng.random_bool(0.8));
        let before = match &row {
            Some(row) => self.rows.insert(id, row.clone()),
            None => self.rows.remove(&id),
        };
        let value = match (self.envelope, &row) {
            (Envelope::Debezium, Some(_)) => {
                let op = if before.is_some() { "u" } else { "c" };
                Some(json!({"before": before, "after": row, "op": op}))
            }
            (Envelope::Debezium, None) => {
                let deleted = json!({"before": before, "after": null, "op": "d"});
                batch.push(record(Some(key.clone()), Some(deleted), None));
                None
            }
            _ => row,
        };
        batch.push(record(Some(key), value, None));
    }
}

/// A row whose times are around `clock`, or at the next time to the microsecond.
fn row(rng: &mut StdRng, id: i64, clock: u64, next: u64) -> Value {
    let times = [
        clock,
        clock - HOUR,
        clock + 1,
        next,
        next - HOUR,
        next + 24 * HOUR,
    ];
    let time = |rng: &mut StdRng| {
        let exact = times.choose(rng).copied().unwrap() as i64 * 1_000;
        let off = match rng.random_range(0..6) {
            0 => 0,
            1 => 1,
            2 => -1,
            3 => rng.random_range(-2_000..2_000),
            _ => rng.random_range(-7_200_000_000..7_200_000_000),
        };
        let text = moment(exact + off);
        rng.random_bool(0.9).then_some(text)
    };
    let day = time(rng).map(|text| text[..10].to_owned());
    let at = time(rng);
    let tz = time(rng).map(|text| format!("{text}Z"));
    let gone = time(rng).map(|text| format!("{text}Z"));
    let (grp, n) = (
        *["a", "b", "c", "d"].choose(rng).unwrap(),
        rng.random_range(0..6),
    );
    json!({
        "id": id,
        "grp": grp,
        "n": n,
        "day": day,
        "at": at,
        "tz": tz,
        "gone": gone,
    })
}

/// Compares every view with PostgreSQL's answer at the job's last epoch.
fn compare(context: &str, river: &River, oracle: &mut Oracle, events: &Events) {
    let epoch = river.stats().durable.load(Ordering::Relaxed);
    let rows: Value = events.rows.values().cloned().collect();
    oracle.refill("events", &rows);
    let mut wrong = Vec::new();
    for view in views() {
        oracle.replace_view(&view.name, &at(&view.select, epoch));
        let answer = oracle.answer(&view, &river.table(&view.name));
        wrong.extend(river.differences(&view.name, &answer));
    }
    assert!(
        wrong.is_empty(),
        "{context} at {epoch}:\n{}",
        wrong.join("\n")
    );
    assert_eq!(river.dead_letters(), 0, "{context}: {:?}", river.reasons());
}

fn waves(name: &str, envelope: Envelope, workers: usize, life: Life) {
    let Some(mut oracle) = Oracle::connect(name) else {
        return;
    };
    let seed = seed();
    eprintln!("{name}: TIDEMILL_TEST_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    oracle.tables(&[("events", COLUMNS)]);
    let mut river = River::new(&sql(envelope), workers);
    let mut events = Events::new(&river, envelope);
    let mut clock = BEGIN;
    for (wave, step) in STEPS.into_iter().enumerate() {
        let context = format!("{name}, seed {seed}, wave {wave}");
        let next = clock + step;
        river.set_clock(clock);
        if matches!(life, Life::Rescaled) {
            river.rescale([1, 4, 2, 1, 3][wave % 5]);
        }
        if matches!(life, Life::Killed) {
            let mut child = river.start_child(name);
            events.wave(&mut rng, clock, next);
            child.kill_after(rng.random_range(0..4));
        } else {
            river.start();
            events.wave(&mut rng, clock, next);
        }
        river.start();
        river.settle();
        river.rest();
        compare(&context, &river, &mut oracle, &events);
        if matches!(life, Life::Straight) {
            // Time passes alone.
            river.set_clock(next);
        } else {
            // Time passes while the job is down.
            river.stop();
            river.set_clock(next);
            river.start();
        }
        let epoch = river.durable_at(next);
        assert!(
            epoch < next + 1_000,
            "{context}: {epoch} is not near {next}"
        );
        compare(&format!("{context}, later"), &river, &mut oracle, &events);
        if !matches!(life, Life::Straight) {
            river.stop();
        }
        clock = next;
    }
    river.stop();
    for found in river.verify() {
        assert_eq!(
            found.remaining().count(),
            0,
            "{name}, seed {seed}: {found:?}"
        );
    }
}

macro_rules! cases {
    ($($name:ident: $envelope:ident, $workers:literal, $life:ident;)*) => {$(
        #[test]
        fn $name() {
            waves(stringify!($name), Envelope::$envelope, $workers, Life::$life);
        }
    )*};
}

cases! {
    temporal_upsert_on_1_worker: Upsert, 1, Straight;
    temporal_debezium_on_4_workers: Debezium, 4, Straight;
    temporal_append_on_4_workers: Append, 4, Straight;
    temporal_append_on_1_worker_restarted: Append, 1, Restarted;
    temporal_upsert_on_4_workers_restarted: Upsert, 4, Restarted;
    temporal_append_rescaled: Append, 1, Rescaled;
    temporal_append_on_4_workers_killed: Append, 4, Killed;
    temporal_debezium_on_1_worker_killed: Debezium, 1, Killed;
}

/// What the operators of a name hold, as the metrics say.
fn held(river: &River, name: &str) -> u64 {
    let operators = river.stats().operators.by_name();
    let held = operators.get(name).and_then(|operator| operator.held);
    held.unwrap_or_default().rows
}

fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !is_true() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

const MEMORY: &str = "
    CREATE TABLE events (id int, tz timestamptz) WITH (format = 'json');
    CREATE TABLE others (id int, tz timestamptz) WITH (format = 'json');
    CREATE MATERIALIZED VIEW recent WITH (primary_key = 'id') AS
        SELECT id, tz FROM events WHERE tz > now() - INTERVAL '1 hour';
    CREATE MATERIALIZED VIEW past WITH (primary_key = 'id') AS
        SELECT id, tz FROM events WHERE tz <= now();
    CREATE MATERIALIZED VIEW pairs WITH (primary_key = 'a, b') AS
        SELECT a.id AS a, b.id AS b FROM events a JOIN others b
        ON a.id % 100 = b.id % 100 AND a.tz BETWEEN b.tz - INTERVAL '5 minutes' AND b.tz
        WHERE a.tz > now() - INTERVAL '1 hour' AND b.tz > now() - INTERVAL '1 hour';";

/// Rows whose interval has passed are held by no filter, also after a restart, and what is above
/// the filters does not grow. A filter without an end holds nothing.
#[test]
fn what_can_no_longer_change_is_dropped() {
    const ROUNDS: u64 = 8;
    const ROWS: u64 = 400;
    let mut river = River::new(MEMORY, 2);
    let log = river.log();
    for table in ["events", "others"] {
        log.create_topic(table, 2).unwrap();
    }
    let mut producer = log.producer().unwrap();
    river.set_clock(BEGIN);
    river.start();
    for round in 1..=ROUNDS {
        let now = BEGIN + (round - 1) * 2 * HOUR;
        producer.append(&times(round * 10_000, ROWS, now)).unwrap();
        river.settle();
        let filter = "recent: Temporal filter";
        until("all are held", || held(&river, filter) == ROWS);
        assert_eq!(river.rows("recent").len() as u64, ROWS);
        assert_eq!(river.rows("past").len() as u64, ROWS * round);
        let next = now + 2 * HOUR;
        river.set_clock(next);
        river.durable_at(next);
        until("nothing is held", || held(&river, filter) == 0);
        assert_eq!(held(&river, "past: Temporal filter"), 0);
        assert_eq!(river.rows("recent").len(), 0);
        if round == 2 {
            river.stop();
            river.rescale(3);
            river.start();
            let is_there = || river.stats().durable.load(Ordering::Relaxed) >= next;
            until("restored", is_there);
            assert_eq!(held(&river, filter), 0);
        }
    }
    // Updates that cancel out count until they are merged, which new ones cause.
    let operators = river.stats().operators.by_name();
    let join = operators
        .iter()
        .find(|(name, _)| name.starts_with("pairs: Join"));
    let join = join.unwrap().1.held.unwrap().rows;
    assert!(join < 2 * ROWS * ROUNDS / 2, "the join holds {join}");
    river.stop();
}

/// So many rows of both tables, whose times are in the second before `now`.
fn times(id: u64, rows: u64, now: u64) -> Vec<Record> {
    let ids = (id..id + rows).flat_map(|id| [("events", id), ("others", id)]);
    let record = |(table, id): (&str, u64)| {
        let time = format!("{}Z", moment(now as i64 * 1_000 - id as i64 % 1_000));
        let value = json!({"id": id, "tz": time}).to_string().into_bytes();
        Record {
            topic: table.to_owned(),
            partition: Some((id % 2) as u32),
            key: None,
            value: Some(value),
            timestamp_ms: now as i64,
        }
    };
    ids.map(record).collect()
}

/// A clock that goes back does not take `now()` back, and an idle job binds no epochs.
#[test]
fn time_never_goes_back_and_an_idle_job_rests() {
    let mut river = River::new(MEMORY, 1);
    let log = river.log();
    for table in ["events", "others"] {
        log.create_topic(table, 1).unwrap();
    }
    let mut producer = log.producer().unwrap();
    let mut publish = |id: i64, at: u64| {
        let time = format!("{}Z", moment(at as i64 * 1_000));
        let value = json!({"id": id, "tz": time}).to_string().into_bytes();
        let record = Record {
            topic: "events".to_owned(),
            partition: Some(0),
            key: None,
            value: Some(value),
            timestamp_ms: at as i64,
        };
        producer.append(&[record]).unwrap();
    };
    river.set_clock(BEGIN + HOUR);
    river.start();
    publish(1, BEGIN);
    publish(2, BEGIN + HOUR);
    river.settle();
    river.rest();
    assert_eq!(river.rows("recent").len(), 1);
    river.set_clock(BEGIN - HOUR);
    publish(3, BEGIN);
    river.settle();
    river.rest();
    assert_eq!(river.rows("recent").len(), 1, "the hour of 1 and 3 is over");
    let epoch = river.stats().durable.load(Ordering::Relaxed);
    assert!(
        epoch > BEGIN + HOUR && epoch < BEGIN + HOUR + 100,
        "{epoch}"
    );
    // Row 2 ends in an hour. Without records there is no epoch before.
    river.set_clock(BEGIN + 2 * HOUR - 1);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(river.stats().bound.load(Ordering::Relaxed), epoch);
    river.set_clock(BEGIN + 2 * HOUR);
    assert!(river.durable_at(BEGIN + 2 * HOUR) >= BEGIN + 2 * HOUR);
    assert_eq!(river.rows("recent").len(), 0);
    river.stop();
}

/// Constant rows come and go too, although no table gives epochs.
#[test]
fn constant_rows_have_times() {
    let sql = "CREATE MATERIALIZED VIEW v WITH (primary_key = 'k') AS
        SELECT k FROM (VALUES (1, TIMESTAMPTZ '2024-02-28 23:00:00Z'),
            (2, TIMESTAMPTZ '2024-02-29 01:00:00Z'), (3, NULL)) AS c(k, tz) WHERE tz <= now();";
    let mut river = River::new(sql, 2);
    river.set_clock(BEGIN);
    river.start();
    river.durable_at(BEGIN);
    assert_eq!(river.rows("v").len(), 1);
    for workers in [1, 3] {
        let later = BEGIN + 2 * HOUR;
        river.set_clock(later);
        river.durable_at(later);
        assert_eq!(river.rows("v").len(), 2, "{workers}");
        river.stop();
        river.rescale(workers);
        river.start();
    }
    river.stop();
    assert_eq!(river.rows("v").len(), 2);
}
