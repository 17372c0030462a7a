//! What changes: two tables of PostgreSQL, by random transactions, and the API's pages.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::thread::JoinHandle;
use std::time::Duration;

use postgres::{Client, NoTls};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidemill_randomuser::{Fault, Server};

/// About how many users and offers there are; what is beyond is deleted.
const USERS: usize = 1_500;
const OFFERS: usize = 60;
const COUNTRIES: [&str; 8] = [
    "Norway", "Spain", "Germany", "France", "Iran", "Turkey", "Canada", "Nowhere",
];

/// Changes under way, until dropped.
pub(crate) struct Load {
    server: Server,
    closed: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    turn: Arc<Mutex<()>>,
    thread: Option<JoinHandle<()>>,
}

/// As long as it lives, nothing changes.
pub(crate) struct Still<'a> {
    closed: &'a AtomicBool,
    _turn: MutexGuard<'a, ()>,
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        self.closed.store(false, Ordering::Relaxed);
    }
}

impl Load {
    /// Begins to change the tables as soon as they are there.
    pub(crate) fn start(database: &str, seed: u64) -> Self {
        let (closed, ended) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let turn = Arc::new(Mutex::new(()));
        let closing: Arc<AtomicBool> = Arc::clone(&closed);
        let options = tidemill_randomuser::Options {
            // Away while nothing may change, and now and then.
            faults: Some(Arc::new(move |request| {
                let away = closing.load(Ordering::Relaxed) || request.number % 17 == 3;
                away.then_some(Fault::Status(503))
            })),
            ..tidemill_randomuser::Options::default()
        };
        let server = tidemill_randomuser::serve(([127, 0, 0, 1], 0).into(), options).unwrap();
        let mut changing = Changing {
            database: database.to_owned(),
            client: None,
            random: StdRng::seed_from_u64(seed),
        };
        let thread = std::thread::spawn({
            let (ended, turn) = (Arc::clone(&ended), Arc::clone(&turn));
            move || {
                while !ended.load(Ordering::Relaxed) {
                    let taken = turn.lock().unwrap();
                    changing.change();
                    drop(taken);
                    let pause = changing.random.random_range(1..25);
                    std::thread::sleep(Duration::from_millis(pause));
                }
            }
        });
        Self {
            server,
            closed,
            ended,
            turn,
            thread: Some(thread),
        }
    }

    /// The API.
    pub(crate) fn api_url(&self) -> String {
        self.server.url()
    }

    /// Stops the changes. Meanwhile goes on with `tend`: the change under way may wait for a
    /// service that stands still until somebody wakes it.
    pub(crate) fn stop(&self, mut tend: impl FnMut()) -> Still<'_> {
        self.closed.store(true, Ordering::Relaxed);
        let turn = loop {
            match self.turn.try_lock() {
                Ok(turn) => break turn,
                Err(TryLockError::WouldBlock) => tend(),
                Err(TryLockError::Poisoned(poisoned)) => panic!("{poisoned}"),
            }
        };
        Still {
            closed: &self.closed,
            _turn: turn,
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic is the test's only if the test is not failing already.
            assert!(thread.join().is_ok() || std::thread::panicking());
        }
    }
}

struct Changing {
    database: String,
    client: Option<Client>,
    random: StdRng,
}

impl Changing {
    /// One transaction. Fails as long as there are no tables and while PostgreSQL is away.
    fn change(&mut self) {
        let client = match self.client.take() {
            Some(client) => Ok(client),
            None => {
                let mut config: postgres::Config = self.database.parse().unwrap();
                config.connect_timeout(Duration::from_secs(2));
                config.connect(NoTls)
            }
        };
        let Ok(mut client) = client else {
            return std::thread::sleep(Duration::from_millis(100));
        };
        let sql = self.transaction();
        if client.batch_execute(&sql).is_ok() || !client.is_closed() {
            // What failed for a reason of its own is rolled back.
            if client.batch_execute("ROLLBACK").is_ok() {
                self.client = Some(client);
            }
        }
    }

    fn transaction(&mut self) -> String {
        let mut sql = "BEGIN;".to_owned();
        for _ in 0..self.random.random_range(1..6) {
            sql += &match self.random.random_range(0..12) {
                0..7 => self.users(),
                7..11 => self.offers(),
                _ => {
                    // Half of a transaction is taken back.
                    let (users, offers) = (self.users(), self.offers());
                    format!("SAVEPOINT s; {users}; {offers}; ROLLBACK TO s")
                }
            };
            sql += ";";
        }
        sql += match self.random.random_range(0..10) {
            0 => "ROLLBACK",
            _ => "COMMIT",
        };
        sql
    }

    fn users(&mut self) -> String {
        let random = &mut self.random;
        let (id, age) = (random.random::<u64>(), random.random_range(18..90));
        let country = COUNTRIES[random.random_range(0..COUNTRIES.len())];
        let one = format!(
            "id = (SELECT id FROM users WHERE id >= '{:04x}' ORDER BY id LIMIT 1)",
            random.random::<u16>()
        );
        let some = format!(
            "id IN (SELECT id FROM users ORDER BY id LIMIT {} OFFSET {})",
            random.random_range(1..20),
            random.random_range(0..USERS)
        );
        let row = format!("('{id:016x}', 'Ada{}', '{country}', {age})", id % 7);
        if random.random_bool(0.0005) {
            let tables = ["users", "users, offers"];
            return format!("TRUNCATE {}", tables[random.random_range(0..2)]);
        }
        match random.random_range(0..300) {
            0..12 => format!("UPDATE users SET age = age + 1 WHERE country = '{country}'"),
            12..40 => format!("DELETE FROM users WHERE {some}"),
            40..55 => format!(
                "DELETE FROM users WHERE id IN (
                     SELECT id FROM users ORDER BY id DESC OFFSET {USERS})"
            ),
            // There and gone at once.
            55..75 => {
                format!("INSERT INTO users VALUES {row}; DELETE FROM users WHERE id = '{id:016x}'")
            }
            // Another key, the same row.
            75..95 => format!("UPDATE users SET id = '{id:016x}' WHERE {one}"),
            // Gone and there again.
            95..105 => format!(
                "WITH gone AS (DELETE FROM users WHERE {one} RETURNING *)
                 INSERT INTO users SELECT '{id:016x}', first_name, country, age FROM gone"
            ),
            105..150 => format!("INSERT INTO users VALUES {row}"),
            150..190 => format!("UPDATE users SET country = '{country}' WHERE {some}"),
            190..230 => format!("UPDATE users SET first_name = 'x{}' WHERE {one}", id % 100),
            _ => format!("UPDATE users SET age = {age} WHERE {some}"),
        }
    }

    fn offers(&mut self) -> String {
        let random = &mut self.random;
        let id = random.random_range(0..2 * OFFERS);
        let country = COUNTRIES[random.random_range(0..COUNTRIES.len())];
        let amount = f64::from(random.random_range(-100_000..100_000)) / 100.0;
        let weight = match random.random_range(0..5) {
            0 => "NULL".to_owned(),
            _ => (f64::from(random.random_range(-4096..4096)) / 64.0).to_string(),
        };
        let note = match random.random_range(0..3) {
            0 => "NULL".to_owned(),
            _ => format!("'note {}'", random.random_range(0..50)),
        };
        let age = random.random_range(10..95);
        let row = format!("({id}, '{country}', {age}, {amount}, {weight}, {note})");
        if random.random_bool(0.001) {
            return "TRUNCATE offers".to_owned();
        }
        match random.random_range(0..100) {
            0..15 => format!("DELETE FROM offers WHERE id = {id}"),
            15..20 => format!(
                "INSERT INTO offers VALUES {row} ON CONFLICT DO NOTHING;
                 DELETE FROM offers WHERE id = {id}"
            ),
            20..30 => format!(
                "UPDATE offers SET id = {id} WHERE id = (SELECT id FROM offers LIMIT 1)
                     AND NOT EXISTS (SELECT FROM offers WHERE id = {id})"
            ),
            30..50 => format!("UPDATE offers SET amount = {amount}, note = {note} WHERE id < {id}"),
            50..60 => format!("UPDATE offers SET weight = {weight} WHERE country = '{country}'"),
            _ => format!(
                "INSERT INTO offers VALUES {row} ON CONFLICT (id) DO UPDATE
                     SET country = excluded.country, age_from = excluded.age_from,
                         weight = excluded.weight"
            ),
        }
    }
}
