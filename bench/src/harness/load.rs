//! Load of benchmark `freshness`: single-row commits at a fixed rate, on a schedule that is fixed
//! in advance and waits for nothing but PostgreSQL itself.
//!
//! Change `k` is due `k` periods after the start and touches row `k mod IDS`. The changes of a row
//! are insert, update, update, delete, and again. The kind with which a row begins depends on its
//! id, so that all kinds are mixed at any time. Every change contains `k`.
//!
//! Because the schedule is fixed, a stall of the system under test does not slow the load down
//! (open loop). Lateness of the writers themselves is recorded and reported.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;
use postgres::{Client, NoTls};
use tokio::sync::mpsc::Sender;

/// Number of rows, which are touched in turn.
pub(crate) const IDS: u64 = 10_000;
/// Connections that commit in turn. One row always has the same connection.
const WRITERS: u64 = 8;
/// Every change with such a number is followed by a reader. The number is odd, so that changes of
/// every kind are followed.
const MARKER_EVERY: u64 = 21;

/// A committed change that a reader waits to see.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Marker {
    /// The row.
    pub(crate) id: i64,
    /// The number of the change, which the row contains from then on.
    pub(crate) seq: i64,
    /// Whether the change deletes the row.
    pub(crate) deletes: bool,
    /// When the change was due, and when its commit returned.
    ///
    /// When the change was planned.
    pub(crate) due: Instant,
    pub(crate) committed: Instant,
}

/// The schedule of the changes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    /// When change 0 is due.
    pub(crate) start: Instant,
    /// Changes per second.
    pub(crate) rate: u32,
    /// The number of changes before anything is followed.
    pub(crate) warm_up: u64,
    /// The number of changes, the warm-up included.
    pub(crate) changes: u64,
}

impl Schedule {
    /// When a change is due.
    pub(crate) fn due(&self, change: u64) -> Instant {
        let micros = change.saturating_mul(1_000_000) / u64::from(self.rate);
        self.start + Duration::from_micros(micros)
    }
}

/// An empty histogram for latencies in µs, up to ten minutes.
pub(crate) fn latencies() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 600_000_000, 3)?)
}

/// The kind of a change.
#[derive(Debug, PartialEq)]
enum Kind {
    Insert,
    Update,
    Delete,
}

/// The kind of change number `change`.
fn kind(change: u64) -> Kind {
    match (change % IDS + change / IDS) % 4 {
        0 => Kind::Insert,
        3 => Kind::Delete,
        _ => Kind::Update,
    }
}

/// Creates the table with the rows that the first round of changes needs, and an empty landed
/// table, which the ingest requires. Returns the number of rows.
pub(crate) fn prepare(client: &mut Client) -> anyhow::Result<i64> {
    client.batch_execute(&format!(
        "CREATE TABLE landed (id text PRIMARY KEY);
         CREATE TABLE users (id bigint PRIMARY KEY, country text NOT NULL, age int NOT NULL,
             email text NOT NULL, seq bigint NOT NULL);
         INSERT INTO users SELECT id, 'Norway', 30, 'user' || id || '@example.com', -1
             FROM generate_series(0, {IDS} - 1) id WHERE id % 4 <> 0"
    ))?;
    Ok((IDS - IDS / 4) as i64)
}

/// Commits every change. Returns the latencies in µs from each change's due time to the return of
/// its commit.
///
/// `markers` gets every 21st change after its commit.
pub(crate) fn run(
    schedule: Schedule,
    database: &postgres::Config,
    markers: &Sender<Marker>,
) -> anyhow::Result<Histogram<u64>> {
    let lateness = Mutex::new(latencies()?);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (lateness, markers) = (&lateness, markers.clone());
                scope.spawn(move || {
                    let own = write(writer, schedule, database, &markers)?;
                    if let Ok(mut all) = lateness.lock() {
                        all.add(own)?;
                    }
                    Ok(())
                })
            })
            .collect();
        writers.into_iter().try_for_each(|writer| {
            let ended: anyhow::Result<()> = writer
                .join()
                .unwrap_or_else(|_| Err(anyhow::anyhow!("a writer panicked")));
            ended
        })
    })?;
    lateness
        .into_inner()
        .map_err(|_| anyhow::anyhow!("a writer panicked"))
}

/// Commits the changes of one connection.
///
/// # Errors
/// A statement fails or touches another number of rows than one.
fn write(
    writer: u64,
    schedule: Schedule,
    database: &postgres::Config,
    markers: &Sender<Marker>,
) -> anyhow::Result<Histogram<u64>> {
    let mut client = database.connect(NoTls)?;
    let insert = client.prepare("INSERT INTO users VALUES ($1, $2, $3, $4, $5)")?;
    let update = client.prepare("UPDATE users SET age = $2, seq = $3 WHERE id = $1")?;
    let delete = client.prepare("DELETE FROM users WHERE id = $1")?;
    let countries = ["Norway", "Spain", "India", "Canada"];
    let mut lateness = latencies()?;
    for change in (writer..schedule.changes).step_by(WRITERS as usize) {
        let due = schedule.due(change);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let (id, seq) = ((change % IDS) as i64, change as i64);
        let age = 18 + (change % 63) as i32;
        let country = countries.get(change as usize % 4).unwrap_or(&"Norway");
        let touched = match kind(change) {
            Kind::Insert => {
                let email = format!("user{id}@example.com");
                client.execute(&insert, &[&id, country, &age, &email, &seq])
            }
            Kind::Update => client.execute(&update, &[&id, &age, &seq]),
            Kind::Delete => client.execute(&delete, &[&id]),
        };
        let committed = Instant::now();
        let touched = touched.with_context(|| format!("change {change} of row {id}"))?;
        anyhow::ensure!(touched == 1, "change {change} touched {touched} rows {id}");
        if change < schedule.warm_up {
            continue;
        }
        lateness.saturating_record((committed - due).as_micros() as u64);
        if change % MARKER_EVERY == 0 {
            let deletes = matches!(kind(change), Kind::Delete);
            // Blocks only when ten thousand changes are being followed. Then the run has failed
            // anyway.
            let marker = Marker {
                id,
                seq,
                deletes,
                due,
                committed,
            };
            markers
                .blocking_send(marker)
                .context("nobody follows the markers")?;
        }
    }
    Ok(lateness)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_inserted_updated_twice_and_deleted() {
        for id in 0..4 {
            let of_round = |round: u64| kind(id + round * IDS);
            let kinds: Vec<Kind> = (0..8).map(of_round).collect();
            let first = kinds.iter().position(|it| *it == Kind::Insert);
            let first = first.expect("within four rounds");
            // The rows that are there before the first round are those not inserted in it.
            assert_eq!(first == 0, id % 4 == 0);
            let four = &kinds[first..first + 4];
            let expected = [Kind::Insert, Kind::Update, Kind::Update, Kind::Delete];
            assert_eq!(four, expected);
        }
    }

    #[test]
    fn seconds_are_recorded_as_seconds() {
        let mut histogram = latencies().unwrap();
        histogram.saturating_record(5_000_000);
        let found = histogram.value_at_quantile(0.5);
        assert!((4_990_000..5_010_000).contains(&found), "{found}");
    }
}
