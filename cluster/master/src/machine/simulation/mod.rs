//! Deterministic simulation of the master's state machine in a faulty cluster, over many seeds.
//!
//! Messages are lost, late, duplicated and reordered. Workers die, freeze and come back with other
//! ids. Children end with every exit code, or freeze. The store and the journals are slow or down.
//! Masters are killed at any point, also between a write and what follows from it, and are started
//! again, also beside one that still runs.
//!
//! In: a seed. Out: nothing, or the violated invariant and the seed. `checks` contains what must
//! always hold, `causes` why a generation may end, and `clients` what answers promise. In the end
//! the faults cease. Then each job must reach its desired state with exactly the slots that it
//! needs, and follow the next commands soon, also when the master dies meanwhile.
//!
//! `TIDEMILL_TEST_SEEDS=FIRST..END` runs other seeds than the usual ones.

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

/// Duration of the faults, in simulated ms.
const FAULTS: u64 = 60_000;
/// Time until the cluster must be in its desired state again, in ms. It is long because killed
/// processes may hang, and jobs may run with fewer workers until they have ended.
const HEALED: u64 = 120_000;
/// Time to follow commands when only the master fails, in ms.
const FOLLOWED: u64 = 50_000;
/// Time until a stopped job is removed, in ms.
const REMOVED: u64 = 5_000;

/// Runs one seed to its end.
///
/// # Errors
///
/// The first violated invariant.
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
