//! Processes that are killed and frozen, and networks that are cut: each heals without a human,
//! within the time that is promised from the moment it was seen, and the views are right.

use std::time::{Duration, Instant};

use crate::fleet::{Fleet, HEALED, children};
use crate::harness::send;

/// How soon a killed process is to be seen. It was less than a second on a quiet machine.
const KILLED_SEEN: Duration = Duration::from_secs(5);
/// How soon one that is frozen, or out of reach, is to be seen: 10 s, and a busy machine.
const FROZEN_SEEN: Duration = Duration::from_secs(20);

/// So long the master places no two workers together that could not reach each other.
const APART: Duration = Duration::from_secs(31);

/// Three workers with two slots each that run a job on all six.
fn full(test: &str) -> Option<(Fleet, u64)> {
    let mut fleet = Fleet::start(test, 3)?;
    fleet.submit(6, &[]);
    fleet.river.fill();
    let generation = fleet.runs_with(6);
    fleet.settle("the start");
    Some((fleet, generation))
}

/// The generation that runs after a failure, and since when at the latest.
#[track_caller]
fn healed_at(
    fleet: &mut Fleet,
    what: &str,
    before: u64,
    workers: usize,
    seen_max: Duration,
) -> (u64, Instant) {
    let (seen, healing) = fleet.heals(before, workers);
    let live = Instant::now();
    eprintln!("{what}: seen after {seen:.1?}, live {healing:.1?} later");
    assert!(seen <= seen_max, "{what}: seen after {seen:?}");
    assert!(healing <= HEALED, "{what}: took {healing:?}");
    fleet.settle(what);
    (fleet.runs_with(workers), live)
}

#[track_caller]
fn healed(fleet: &mut Fleet, what: &str, before: u64, workers: usize, seen_max: Duration) -> u64 {
    healed_at(fleet, what, before, workers, seen_max).0
}

#[test]
fn killed_workers_and_masters() {
    let Some((mut fleet, mut generation)) = full("killed") else {
        return;
    };
    // A process of the job alone: its worker goes on and runs the next.
    let child = children(fleet.worker(1).id())
        .into_iter()
        .find(|child| runs(*child, b"dataflow"))
        .unwrap();
    assert!(send("KILL", child));
    generation = healed(&mut fleet, "a killed process", generation, 6, KILLED_SEEN);
    // A whole worker, with what it ran: the job runs on the others.
    let orphans = children(fleet.worker(2).id());
    fleet.kill_worker(2);
    generation = healed(&mut fleet, "a killed worker", generation, 4, KILLED_SEEN);
    for orphan in orphans {
        assert!(
            !runs(orphan, b"dataflow"),
            "process {orphan} was left behind"
        );
    }
    // One that joins later is used at the next rescale.
    fleet.start_worker(2, 2);
    fleet.has_workers(3);
    assert_eq!(fleet.runs_with(4), generation);
    let name = fleet.river.place.name.clone();
    fleet.client(&["rescale", &name, "--workers", "6"]);
    generation = fleet.runs_with(6);
    fleet.settle("a rescale");
    // The master alone: the job does not even notice.
    fleet.kill_master();
    for _ in 0..50 {
        fleet.river.change();
    }
    fleet.start_master();
    assert_eq!(fleet.runs_with(6), generation, "the job was disturbed");
    fleet.settle("a killed master");
    // Both at once.
    fleet.kill_master();
    fleet.kill_worker(0);
    fleet.start_master();
    healed(
        &mut fleet,
        "a killed master and worker",
        generation,
        4,
        FROZEN_SEEN,
    );
    fleet.end();
}

/// Whether a process runs this half of a job.
fn runs(process: u32, part: &[u8]) -> bool {
    let line = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).any(|word| word == part)
}

#[test]
fn frozen_for_a_minute() {
    let Some((mut fleet, generation)) = full("frozen") else {
        return;
    };
    // The machine that the ingest runs on: the next one takes its slot over.
    let with_ingest = (0..3).find(|machine| {
        let children = children(fleet.worker(*machine).id());
        children.iter().any(|child| runs(*child, b"ingest"))
    });
    let frozen_machine = with_ingest.unwrap();
    let worker = fleet.worker(frozen_machine).id();
    let mut frozen = children(worker);
    frozen.push(worker);
    let began = Instant::now();
    for process in &frozen {
        assert!(send("STOP", *process));
    }
    let generation = healed(&mut fleet, "a frozen machine", generation, 4, FROZEN_SEEN);
    let flowed = began.elapsed();
    eprintln!("a frozen machine: changes flow again {flowed:.1?} after it froze");
    assert!(flowed <= FROZEN_SEEN + HEALED, "changes waited {flowed:?}");
    while began.elapsed() < Duration::from_secs(60) {
        fleet.river.change();
        std::thread::sleep(Duration::from_millis(100));
    }
    for process in frozen {
        // What ran in it may have been killed meanwhile by whoever could.
        send("CONT", process);
    }
    fleet.has_workers(3);
    fleet.settle("the frozen machine is back");
    assert_eq!(
        fleet.runs_with(4),
        generation,
        "its coming back disturbed the job"
    );
    // A single process of the job that is frozen is killed by its own worker.
    let rest = (0..3).filter(|machine| *machine != frozen_machine);
    let rest: Vec<u32> = rest.map(|machine| fleet.worker(machine).id()).collect();
    let mut rest = rest.into_iter().flat_map(children);
    let child = rest.find(|child| runs(*child, b"dataflow")).unwrap();
    assert!(send("STOP", child));
    let (seen, healing) = fleet.heals(generation, 6);
    eprintln!("a frozen process: seen after {seen:.1?}, live {healing:.1?} later");
    assert!(seen <= FROZEN_SEEN && healing <= HEALED);
    fleet.settle("a frozen process");
    fleet.end();
}

#[test]
fn cut_networks() {
    let Some((mut fleet, mut generation)) = full("cut") else {
        return;
    };
    // The three cannot all run together; two that reach each other can.
    fleet.network.cut(0, 1);
    let what = "a cut network";
    let live;
    (generation, live) = healed_at(&mut fleet, what, generation, 4, FROZEN_SEEN);
    fleet.network.heal(0, 1);
    let name = fleet.river.place.name.clone();
    // The two were found apart before the generation that runs was placed.
    std::thread::sleep(APART.saturating_sub(live.elapsed()));
    fleet.client(&["rescale", &name, "--workers", "6"]);
    generation = fleet.runs_with(6).max(generation);
    fleet.settle("a network that is whole again");
    fleet.network.cut_one_way(2, 1);
    healed(
        &mut fleet,
        "a network cut in one direction",
        generation,
        4,
        FROZEN_SEEN,
    );
    fleet.network.heal(2, 1);
    fleet.end();
}
