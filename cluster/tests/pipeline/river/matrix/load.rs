//! Random changes of rows, in a thread of its own, while tables are altered: what an altered table
//! refuses is passed over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::Rng;

use crate::river::child::PATIENCE;
use crate::river::place::Place;

/// Changes under way.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Begins to change rows of these tables.
    pub(crate) fn start(place: &Place, tables: &[&str]) -> Self {
        let mut sql = place.sql();
        let tables: Vec<String> = tables.iter().map(|&table| table.to_owned()).collect();
        let (stop, done) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&done));
        let thread = std::thread::spawn(move || {
            // Nobody waits for long for a lock that an ALTER TABLE holds or wants.
            sql.batch_execute("SET lock_timeout = '1s'").unwrap();
            while !stopped.load(Ordering::Relaxed) {
                for table in &tables {
                    if sql.batch_execute(&statement(table)).is_ok() {
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self {
            stop,
            done,
            thread: Some(thread),
        }
    }

    /// Waits until so many more statements went through.
    pub(crate) fn goes_on(&self, more: u64) {
        let wanted = self.done.load(Ordering::Relaxed) + more;
        let deadline = Instant::now() + PATIENCE;
        while self.done.load(Ordering::Relaxed) < wanted {
            assert!(Instant::now() < deadline, "no more statements go through");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it, and waits for its end.
    pub(crate) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

fn statement(table: &str) -> String {
    let mut random = rand::rng();
    let (id, n) = (
        random.random_range(1..1_000),
        random.random_range(0..100_000),
    );
    match random.random_range(0..10) {
        0..5 => format!(
            "INSERT INTO {table} (id, n, s) VALUES ({id}, {n}, 'l{n}')
             ON CONFLICT (id) DO UPDATE SET n = excluded.n"
        ),
        5..7 => format!("UPDATE {table} SET n = n + 1 WHERE id BETWEEN {id} AND {id} + 30"),
        7 => format!("UPDATE {table} SET id = {n} % 900 WHERE id = {id}"),
        // One key several times in one transaction.
        8 => format!(
            "INSERT INTO {table} (id, n) VALUES ({id}, 1);
             UPDATE {table} SET n = 2 WHERE id = {id}; DELETE FROM {table} WHERE id = {id};
             INSERT INTO {table} (id, n) VALUES ({id}, 3)"
        ),
        _ => format!("DELETE FROM {table} WHERE id BETWEEN {id} AND {id} + 10"),
    }
}
