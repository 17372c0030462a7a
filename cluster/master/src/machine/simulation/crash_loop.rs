//! Crash loops in the simulation: the lengths of the back-off pauses, and when a job is given up.

use tidemill_protocol::Part;

use super::children::Doom;
use super::world::World;
use crate::machine::component::Stage;
use crate::machine::event::Command;

/// Submits a job whose processes all meet that end, and waits until it is given up: when its
/// generations were started, and why it was given up.
fn run(doom: Doom, most: u64) -> (Vec<u64>, Option<String>) {
    let mut world = World::quiet(2, doom);
    let spec = world.spec("one", 2);
    world.command(Command::Submit(spec)).expect("a command");
    let deadline = world.now + most;
    let given_up = |world: &World| world.failed("one").is_some();
    world.run_until(deadline, given_up).expect("all that holds");
    let started = world.seen.started.iter();
    let dataflow = started.filter(|(key, _)| key.part == Part::Dataflow);
    let times = dataflow.map(|(_, at)| *at).collect();
    (times, world.failed("one"))
}

impl World {
    fn failed(&self, job: &str) -> Option<String> {
        let state = &self.masters[0].state;
        let component = state.components.get(&(job.to_owned(), Part::Dataflow))?;
        let failed = &state.durable.jobs[job].dataflow.failed;
        failed.clone().filter(|_| component.stage == Stage::Failed)
    }
}

#[test]
fn a_job_that_always_fails_is_given_up_after_longer_and_longer_pauses() {
    let doom = Doom {
        lives: 5,
        code: 101,
        varies: true,
    };
    let (starts, why) = run(doom, 600_000);
    let why = why.expect("given up");
    assert!(why.starts_with("it failed 21 times"), "{why}");
    assert_eq!(starts.len(), 21, "{starts:?}");
    for (failures, pair) in starts.windows(2).enumerate() {
        let pause = (100 << failures.min(10)).min(10_000);
        let gap = pair[1] - pair[0];
        // A process is live after 2 s at most, and its end is seen soon.
        assert!((pause..pause + 3000).contains(&gap), "{failures}: {gap}");
    }
}

#[test]
fn the_same_error_three_times_and_a_wrong_call_once_are_enough() {
    let doom = |code, varies| Doom {
        lives: 5,
        code,
        varies,
    };
    let (starts, why) = run(doom(1, false), 60_000);
    assert_eq!(starts.len(), 3, "{why:?}");
    assert!(why.unwrap().contains("3 times with the same error"));
    let (starts, why) = run(doom(2, true), 60_000);
    assert_eq!(starts.len(), 1, "{why:?}");
    assert!(why.unwrap().contains("which no restart mends"));
    let (starts, why) = run(doom(1, true), 60_000);
    assert!(starts.len() > 3 && why.is_none(), "{why:?}");
}

#[test]
fn a_job_that_lives_for_a_minute_each_time_is_never_given_up() {
    let doom = Doom {
        lives: 61_000,
        code: 101,
        varies: true,
    };
    let (starts, why) = run(doom, 30 * 65_000);
    assert_eq!(why, None);
    assert!(starts.len() > 25, "{starts:?}");
    assert!(starts.windows(2).all(|it| it[1] - it[0] < 65_000));
}
