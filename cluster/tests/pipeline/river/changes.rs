//! Random inserts, updates, deletes and truncates in PostgreSQL while the river runs: in the end
//! every view in Cassandra is what PostgreSQL answers to the same SQL.

use postgres::Transaction;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::river::place::Place;
use crate::river::rows::{expect_alike, settle};

/// Committed row changes.
const CHANGES: u64 = 10_000;
/// After so many a truncate is due.
const TRUNCATES: [u64; 3] = [2_000, 5_500, 8_000];
/// Ids are below this, so that most operations meet a row.
const IDS: i64 = 1_500;
/// A fixed seed can be given to see a failure again.
const SEED: &str = "TIDEMILL_TEST_SEED";

const TABLES: &str = "\
CREATE TABLE accounts (
    id bigint PRIMARY KEY, owner text NOT NULL, kind text, amount numeric(12, 2), units int,
    score double precision, active boolean, opened timestamptz, born date, note text);
CREATE TABLE stock (
    region text, code int, units int, checked timestamp, PRIMARY KEY (region, code));
ALTER TABLE stock REPLICA IDENTITY FULL;
INSERT INTO accounts (id, owner, kind, units) SELECT n, 'first', 'old', n
    FROM generate_series(0, 999) n;
INSERT INTO stock SELECT 'north', n, n FROM generate_series(0, 99) n";

const VIEWS: &str = "\
CREATE TABLE accounts WITH (topic = '{topic:accounts}', format = 'avro', envelope = 'debezium');
CREATE TABLE stock WITH (topic = '{topic:stock}', format = 'avro', envelope = 'debezium');

CREATE MATERIALIZED VIEW accounts_now WITH (primary_key = 'id') AS
SELECT id, owner, kind, amount, units, score, active, opened, born, note FROM accounts;

CREATE MATERIALIZED VIEW stock_now WITH (primary_key = 'region, code') AS
SELECT region, code, units, checked FROM stock;

CREATE MATERIALIZED VIEW by_kind WITH (primary_key = 'kind') AS
SELECT coalesce(kind, '-') AS kind, count(*) AS accounts, count(units) AS with_units,
    sum(units) AS units, sum(amount) AS amount, min(amount) AS least, max(opened) AS newest,
    min(born) AS eldest, avg(units) AS mean_units, avg(score) AS mean_score, sum(score) AS score,
    count(DISTINCT owner) AS owners, bool_and(active) AS all_active, bool_or(active) AS any_active
FROM accounts GROUP BY coalesce(kind, '-');

CREATE MATERIALIZED VIEW big_owners WITH (primary_key = 'owner') AS
SELECT owner, count(*) AS accounts, max(note) AS note FROM accounts WHERE owner <> ''
GROUP BY owner HAVING count(*) > 20 AND count(units) > 10;

CREATE MATERIALIZED VIEW kinds WITH (primary_key = 'kind, active') AS
SELECT DISTINCT kind, active FROM accounts WHERE kind IS NOT NULL AND active IS NOT NULL;

CREATE MATERIALIZED VIEW all_units WITH (primary_key = 'place') AS
SELECT place, count(*) AS entries, sum(units) AS units
FROM (SELECT 'account ' || owner AS place, units FROM accounts WHERE units IS NOT NULL
      UNION ALL SELECT 'stock ' || region AS place, units FROM stock) AS everything
GROUP BY place;

CREATE MATERIALIZED VIEW totals WITH (primary_key = 'what') AS
SELECT 'accounts' AS what, count(*) AS accounts, sum(units) AS units, avg(units) AS mean_units
FROM accounts;

CREATE MATERIALIZED VIEW derived WITH (primary_key = 'id') AS
SELECT id, upper(owner) AS shouted, units * 2 + 1 AS odd, length(note) AS note_length,
    CASE WHEN units > 50 THEN 'many' WHEN units IS NULL THEN 'unknown' ELSE 'few' END AS band,
    coalesce(note, owner) AS said, date_trunc('month', opened) AS month, amount * 2 AS twice
FROM accounts WHERE owner LIKE 'a%' OR units BETWEEN -10 AND 40;
";

const OWNERS: [&str; 6] = ["ada", "alan", "grace", "Žofie", "", "o''brien"];
const KINDS: [&str; 5] = ["'a'", "'b'", "'c'", "'long kind, with \"marks\"'", "NULL"];
const REGIONS: [&str; 3] = ["north", "south", "öst"];

/// The statements of a random history.
struct Dice {
    rng: StdRng,
}

impl Dice {
    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of.choose(&mut self.rng).unwrap()
    }

    /// A value one time in five null.
    fn nullable(&mut self, value: String) -> String {
        if self.rng.random_ratio(1, 5) {
            "NULL".to_owned()
        } else {
            value
        }
    }

    fn id(&mut self) -> i64 {
        self.rng.random_range(0..IDS)
    }

    /// Eighths, so that sums of doubles are exact whatever their order.
    fn score(&mut self) -> String {
        let score = f64::from(self.rng.random_range(-8_000..8_000)) / 8.0;
        self.nullable(format!("{score}"))
    }

    fn units(&mut self) -> String {
        let units = self.rng.random_range(-100..100);
        self.nullable(units.to_string())
    }

    fn amount(&mut self) -> String {
        let cents = self.rng.random_range(-1_000_000..1_000_000_i64);
        let sign = if cents < 0 { "-" } else { "" };
        let cents = cents.unsigned_abs();
        self.nullable(format!("{sign}{}.{:02}", cents / 100, cents % 100))
    }

    fn opened(&mut self) -> String {
        let ms = self
            .rng
            .random_range(-1_000_000_000_000..2_000_000_000_000_i64);
        let at = jiff::Timestamp::from_millisecond(ms).unwrap();
        self.nullable(format!("'{at}'"))
    }

    fn note(&mut self) -> String {
        let length = self.rng.random_range(0..40);
        let note: String = (0..length)
            .map(|_| {
                *['x', 'ý', ' ', '9', '\u{1f30a}']
                    .choose(&mut self.rng)
                    .unwrap()
            })
            .collect();
        self.nullable(format!("'{note}'"))
    }

    fn active(&mut self) -> &'static str {
        self.pick(&["true", "true", "false", "NULL"])
    }

    fn account(&mut self, id: i64) -> String {
        let born = self.rng.random_range(-20_000..20_000);
        let born = self.nullable(format!("date '1970-01-01' + {born}"));
        format!(
            "({id}, '{}', {}, {}, {}, {}, {}, {}, {born}, {})",
            self.pick(&OWNERS),
            self.pick(&KINDS),
            self.amount(),
            self.units(),
            self.score(),
            self.active(),
            self.opened(),
            self.note()
        )
    }

    fn insert(&mut self) -> String {
        let count = self.rng.random_range(1..=6);
        let rows: Vec<String> = (0..count)
            .map(|_| {
                let id = self.id();
                self.account(id)
            })
            .collect();
        let rows = rows.join(", ");
        format!("INSERT INTO accounts VALUES {rows} ON CONFLICT DO NOTHING")
    }

    fn update(&mut self) -> String {
        let set = match self.rng.random_range(0..6) {
            0 => format!("kind = {}", self.pick(&KINDS)),
            1 => format!("amount = {}, score = {}", self.amount(), self.score()),
            2 => format!("units = {}, active = {}", self.units(), self.active()),
            3 => format!(
                "owner = '{}', opened = {}",
                self.pick(&OWNERS),
                self.opened()
            ),
            4 => format!("note = {}", self.note()),
            _ => "kind = NULL, amount = NULL, units = NULL, score = NULL, active = NULL, \
                  opened = NULL, born = NULL, note = NULL"
                .to_owned(),
        };
        let id = self.id();
        let count = self.rng.random_range(1..=4);
        format!(
            "UPDATE accounts SET {set} WHERE id BETWEEN {id} AND {}",
            id + count
        )
    }

    /// A row to another key that is free.
    fn move_key(&mut self) -> String {
        let (old, new) = (self.id(), self.id());
        format!(
            "UPDATE accounts SET id = {new} WHERE id = {old} \
             AND NOT EXISTS (SELECT FROM accounts WHERE id = {new})"
        )
    }

    fn stock(&mut self) -> String {
        let (region, to) = (self.pick(&REGIONS), self.pick(&REGIONS));
        let (code, units) = (self.rng.random_range(0..60), self.units());
        match self.rng.random_range(0..4) {
            0 | 1 => format!(
                "INSERT INTO stock VALUES ('{region}', {code}, {units}, \
                 timestamp '2020-02-29 12:00:00.125' + interval '{code} hours') \
                 ON CONFLICT (region, code) DO UPDATE SET units = excluded.units, checked = NULL"
            ),
            2 => format!("DELETE FROM stock WHERE region = '{region}' AND code = {code}"),
            _ => format!(
                "UPDATE stock SET region = '{to}' WHERE region = '{region}' AND code = {code} AND \
                 NOT EXISTS (SELECT FROM stock WHERE region = '{to}' AND code = {code})"
            ),
        }
    }

    fn statement(&mut self) -> String {
        match self.rng.random_range(0..100) {
            0..40 => self.insert(),
            40..65 => self.update(),
            65..78 => {
                let id = self.id();
                let count = self.rng.random_range(0..=4);
                format!(
                    "DELETE FROM accounts WHERE id BETWEEN {id} AND {}",
                    id + count
                )
            }
            78..86 => self.move_key(),
            _ => self.stock(),
        }
    }

    /// The statements of one transaction; returns how many rows they changed.
    fn fill(&mut self, transaction: &mut Transaction<'_>) -> u64 {
        let mut changed = 0;
        for _ in 0..self.rng.random_range(1..=12) {
            changed += transaction.execute(&self.statement(), &[]).unwrap();
            if self.rng.random_ratio(1, 15) {
                // Taken back to a savepoint: as if it had never been.
                let mut inner = transaction.transaction().unwrap();
                inner.execute(&self.statement(), &[]).unwrap();
                inner.rollback().unwrap();
            }
        }
        changed
    }
}

/// What the history held, so that a run that left something out is noticed.
#[derive(Debug, Default)]
struct Told {
    changes: u64,
    transactions: u64,
    rolled_back: u64,
    truncates: usize,
}

fn tell(client: &mut postgres::Client, dice: &mut Dice) -> Told {
    let mut told = Told::default();
    while told.changes < CHANGES {
        let mut transaction = client.transaction().unwrap();
        let due = TRUNCATES.get(told.truncates);
        let truncates = due.is_some_and(|&due| told.changes >= due);
        let mut changed = dice.fill(&mut transaction);
        if truncates {
            let tables = ["accounts", "stock", "accounts, stock"][told.truncates];
            let truncate = format!("TRUNCATE {tables}");
            transaction.execute(&truncate, &[]).unwrap();
            changed += dice.fill(&mut transaction);
        }
        if dice.rng.random_ratio(1, 8) {
            transaction.rollback().unwrap();
            told.rolled_back += 1;
        } else {
            transaction.commit().unwrap();
            told.changes += changed;
            told.transactions += 1;
            told.truncates += usize::from(truncates);
        }
    }
    told
}

#[test]
fn ten_thousand_random_changes_leave_every_view_as_postgres_answers() {
    let test = "ten_thousand_random_changes_leave_every_view_as_postgres_answers";
    let Some(place) = Place::open(test) else {
        return;
    };
    let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random::<u64>);
    eprintln!("{test}: {SEED}={seed}");
    let mut sql = place.sql();
    sql.batch_execute(TABLES).unwrap();
    let views = place.capturing("changes", &["accounts", "stock"], VIEWS);
    assert_eq!(views.len(), 8);
    let mut running = place.start("run", "changes", &["--no-live"]);
    settle(&mut running, &place.views, &mut sql, &views);

    let rng = StdRng::seed_from_u64(seed);
    let told = tell(&mut sql, &mut Dice { rng });
    eprintln!("{told:?}");
    assert_eq!(told.truncates, TRUNCATES.len());
    assert!(told.rolled_back > 20, "{told:?}");
    settle(&mut running, &place.views, &mut sql, &views);
    for view in &views {
        assert!(
            !place.views.rows(&view.name).is_empty(),
            "{} is empty",
            view.name
        );
    }
    // Nothing is under way any more that could change a view.
    running.stop();
    expect_alike(&place.views, &mut sql, &views);
}
