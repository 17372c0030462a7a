//! The master's state machine in a simulated cluster, over many seeds: messages are lost, late,
//! doubled and overtaken; workers die, freeze and come back as others; children end with every code
//! or freeze; the store and the journals are slow or away; masters are killed at any point, also
//! between a write and what follows from it, and started anew, also beside one that still runs.
//!
//! In: a seed. Out: nothing, or what does not hold, and the seed. `checks` has what must always
//! hold; at the end, when faults have ceased, each job must be what it should be.
//!
//! `TIDEMILL_TEST_SEEDS=FIRST..END` runs others than the usual ones.

mod checks;
mod children;
mod faults;
mod network;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use self::world::World;

/// How long everything goes wrong, in simulated milliseconds.
const FAULTS: u64 = 60_000;
/// How long the cluster may take to be as it should be again. A drain may take 90 s, then its
/// processes are killed and another generation starts.
const HEALED: u64 = 240_000;

/// Runs one seed to its end.
fn run(seed: u64) -> Result<(), String> {
    let mut world = World::new(seed);
    world.run_until(FAULTS, |_| false)?;
    world.faults_cease();
    world.settle()?;
    let deadline = world.now + HEALED;
    world.run_until(deadline, World::is_as_it_should_be)?;
    match world.is_as_it_should_be() {
        true => Ok(()),
        false => Err(format!(
            "not healed after {HEALED} ms: {}",
            world.described()
        )),
    }
}

#[test]
fn a_cluster_heals_from_everything() {
    let given = std::env::var("TIDEMILL_TEST_SEEDS").ok();
    let range = given.as_deref().map_or((0, 2000), |given| {
        let (first, end) = given.split_once("..").expect("FIRST..END");
        (first.parse().expect("a seed"), end.parse().expect("a seed"))
    });
    let next = AtomicU64::new(range.0);
    let failed: Vec<String> = std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let work = || {
            let mut failed = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= range.1 || failed.len() >= 3 {
                    return failed;
                }
                let ran = std::panic::catch_unwind(|| run(seed));
                let ran = ran.unwrap_or_else(|_| Err("a panic, see above".to_owned()));
                if let Err(why) = ran {
                    failed.push(format!("seed {seed}: {why}"));
                }
            }
        };
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        all.into_iter()
            .flat_map(|it| it.join().expect("no panic"))
            .collect()
    });
    assert!(failed.is_empty(), "\n{}\n", failed.join("\n"));
}
