//! The master's state machine in a simulated cluster, over many seeds: messages are lost, late,
//! doubled and overtaken; workers die, freeze and come back as others; children end with every code
//! or freeze; the store and the journals are slow or away; masters are killed at any point, also
//! between a write and what follows from it, and started anew, also beside one that still runs.
//!
//! In: a seed. Out: nothing, or what does not hold, and the seed. `checks` has what must always
//! hold, `causes` why a generation may end, `clients` what answers promise. At the end, when faults
//! have ceased, each job must become what it should be, with just the slots that it needs; and then
//! follow the next commands soon, also when the master dies meanwhile.
//!
//! `TIDEMILL_TEST_SEEDS=FIRST..END` runs others than the usual ones.

mod causes;
mod checks;
mod children;
mod clients;
mod crash_loop;
mod faults;
mod network;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use self::world::World;

/// How long everything goes wrong, in simulated milliseconds.
const FAULTS: u64 = 60_000;
/// How long the cluster may take to be as it should be again. Processes that were killed may hang
/// for long, and jobs may be placed with fewer workers until they ended.
const HEALED: u64 = 120_000;
/// How long it may take to follow commands when nothing goes wrong but a master.
const FOLLOWED: u64 = 50_000;
/// How long a job that is stopped takes to be removed.
const REMOVED: u64 = 5_000;

/// Runs one seed to its end.
fn run(seed: u64) -> Result<(), String> {
    let mut world = World::new(seed);
    world.run_until(FAULTS, |_| false)?;
    world.faults_cease();
    world.settle()?;
    await_order(&mut world, HEALED)?;
    world.change_their_minds()?;
    if world.chance(0.5) {
        world.one_more_master()?;
    }
    await_order(&mut world, FOLLOWED)?;
    let stopped = world.tidy_up()?;
    let deadline = world.now + REMOVED;
    world.run_until(deadline, |world| world.clients.removed == stopped)?;
    match world.clients.removed == stopped {
        true => Ok(()),
        false => Err("a job that is stopped is not removed".to_owned()),
    }
}

fn await_order(world: &mut World, most: u64) -> Result<(), String> {
    let deadline = world.now + most;
    world.run_until(deadline, World::is_as_it_should_be)?;
    match world.is_as_it_should_be() {
        true => world.check_answers(),
        false => Err(format!(
            "not as it should be after {most} ms: {}",
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
