//! Every operator against PostgreSQL: random inserts, updates and deletes are fed in waves, and
//! after each wave every view of `sql/slt` must hold what PostgreSQL answers to the same SQL over
//! the same rows.
//!
//! Each envelope runs on one and on four workers: straight through, stopped and started again
//! between waves (also with other numbers of workers), and killed at random moments in the middle
//! of waves. Checkpoints are taken all the time, so that whatever starts again does so from one.
//! All views take part in a case of each life; the other cases draw a fifth of them, as an operator
//! is the same below each envelope. The seed is printed; `TIDEMILL_TEST_SEED` repeats a run.

mod aggregates;
mod bundle;
mod constant;
mod copies;
mod edges;
mod example;
mod feed;
mod held;
mod keys;
mod nexmark;
mod oracle;
mod partial;
mod queries;
mod recursion;
mod refused;
mod river;
mod shapes;
mod tpch;
mod tpch_scale;

use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use feed::{Envelope, Feed};
use oracle::Oracle;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use river::River;

/// What happens to the job between and during waves.
#[derive(Debug, Clone, Copy)]
enum Life {
    /// Runs through.
    Straight,
    /// Stopped and started again after each wave.
    Restarted,
    /// The same, each time with another number of workers.
    Rescaled,
    /// Killed in the middle of each wave, in a process of its own.
    Killed,
}

const WAVES: usize = 5;

fn seed() -> u64 {
    let given = std::env::var("TIDEMILL_TEST_SEED").ok();
    given.map_or_else(
        || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            u64::from(now.unwrap().subsec_nanos()) ^ u64::from(std::process::id()) << 32
        },
        |seed| seed.parse().unwrap(),
    )
}

/// Which views take part in a case.
#[derive(Debug, Clone, Copy)]
enum Views {
    /// All.
    All,
    /// A fifth of them, others with each seed.
    Fifth,
}

/// Feeds waves to views of the bundle and compares them after each.
fn waves(name: &str, envelope: Envelope, workers: usize, life: Life, which: Views) {
    let Some(mut oracle) = Oracle::connect(name) else {
        return;
    };
    let seed = seed();
    eprintln!("{name}: TIDEMILL_TEST_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut views = bundle::views();
    if matches!(which, Views::Fifth) {
        views = bundle::drawn(views, &mut rng, 5);
    }
    oracle.create(&views);
    let mut river = River::new(&bundle::sql(envelope, &views), workers);
    let mut feed = Feed::new(river.log(), envelope);
    for wave in 0..WAVES {
        if matches!(life, Life::Rescaled) {
            river.rescale([1, 4, 2, 1, 3][wave % 5]);
        }
        if matches!(life, Life::Killed) {
            let mut child = river.start_child(name);
            feed.wave(&mut rng, wave);
            let kills_after = rng.random_range(0..6);
            child.kill_after(kills_after);
        } else {
            river.start();
            feed.wave(&mut rng, wave);
        }
        river.start();
        river.settle();
        river.rest();
        oracle.fill(&feed);
        let wrong: Vec<String> = views
            .iter()
            .flat_map(|view| {
                let answer = oracle.answer(view, &river.table(&view.name));
                river.differences(&view.name, &answer)
            })
            .collect();
        let context = format!("{name}, seed {seed}, wave {wave}");
        assert!(wrong.is_empty(), "{context}:\n{}", wrong.join("\n"));
        let restored = river.stats().restored.load(Ordering::Relaxed);
        // The wave before ended with a checkpoint.
        let restarts = !matches!(life, Life::Straight) && wave > 0;
        assert!(
            restored > 0 || !restarts,
            "{context}: not from a checkpoint"
        );
        let letters = river.dead_letters();
        assert_eq!(letters, 0, "{context}: {:?}", river.reasons());
        if !matches!(life, Life::Straight) {
            river.stop();
        }
    }
    river.stop();
}

/// The process that is killed: does nothing unless it was started by a test.
#[test]
fn child() {
    River::run_child();
}

macro_rules! cases {
    ($($name:ident: $envelope:ident, $workers:literal, $life:ident, $views:ident;)*) => {$(
        #[test]
        fn $name() {
            let name = stringify!($name);
            waves(name, Envelope::$envelope, $workers, Life::$life, Views::$views);
        }
    )*};
}

cases! {
    upsert_on_1_worker: Upsert, 1, Straight, All;
    upsert_on_4_workers: Upsert, 4, Straight, Fifth;
    upsert_on_1_worker_restarted: Upsert, 1, Restarted, Fifth;
    upsert_on_4_workers_restarted: Upsert, 4, Restarted, Fifth;
    upsert_rescaled: Upsert, 1, Rescaled, Fifth;
    append_rescaled: Append, 1, Rescaled, Fifth;
    debezium_rescaled: Debezium, 1, Rescaled, Fifth;
    upsert_on_1_worker_killed: Upsert, 1, Killed, Fifth;
    upsert_on_4_workers_killed: Upsert, 4, Killed, Fifth;
    append_on_1_worker: Append, 1, Straight, Fifth;
    append_on_4_workers: Append, 4, Straight, Fifth;
    append_on_1_worker_restarted: Append, 1, Restarted, Fifth;
    append_on_4_workers_restarted: Append, 4, Restarted, Fifth;
    append_on_1_worker_killed: Append, 1, Killed, All;
    append_on_4_workers_killed: Append, 4, Killed, Fifth;
    debezium_on_1_worker: Debezium, 1, Straight, Fifth;
    debezium_on_4_workers: Debezium, 4, Straight, Fifth;
    debezium_on_1_worker_restarted: Debezium, 1, Restarted, Fifth;
    debezium_on_4_workers_restarted: Debezium, 4, Restarted, All;
    debezium_on_1_worker_killed: Debezium, 1, Killed, Fifth;
    debezium_on_4_workers_killed: Debezium, 4, Killed, Fifth;
}
