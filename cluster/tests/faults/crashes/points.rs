//! The river crashes at every failpoint there is, while rows change, and each time goes on.
//!
//! Three rivers are walked through side by side: the embedded one, in one process, and two on the
//! services, of which one crashes in its ingest and one in its dataflow. Together they pass every
//! point of [`failpoint::ALL`], whatever the code's list holds, but those of the registry, which
//! its own tests pass.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tidemill_log::failpoint;
use tidemill_log::failpoint::Point;

use crate::harness::river::River;
use crate::harness::{PATIENCE, Place, Process, seed};

/// Points that only one kind of database has.
const OF_SQLITE: [Point; 2] = [
    failpoint::CAPTURE_BEFORE_TRIGGERS,
    failpoint::CAPTURE_AFTER_TRIGGERS,
];
const OF_POSTGRES: [Point; 7] = [
    failpoint::CAPTURE_AFTER_PUBLICATION,
    failpoint::CAPTURE_BEFORE_DROP,
    failpoint::CAPTURE_BEFORE_SLOT,
    failpoint::CAPTURE_AFTER_SLOT,
    failpoint::CAPTURE_IN_SNAPSHOT,
    failpoint::CAPTURE_BEFORE_SNAPSHOT_DONE,
    failpoint::CAPTURE_AFTER_SLOT_TOLD,
];
/// Points that a process passes once, where it begins.
const ONCE: [Point; 14] = [
    failpoint::CAPTURE_AFTER_PUBLICATION,
    failpoint::CAPTURE_BEFORE_DROP,
    failpoint::CAPTURE_BEFORE_SLOT,
    failpoint::CAPTURE_AFTER_SLOT,
    failpoint::CAPTURE_BEFORE_SNAPSHOT_DONE,
    failpoint::CAPTURE_BEFORE_TRIGGERS,
    failpoint::CAPTURE_AFTER_TRIGGERS,
    failpoint::JOURNAL_BEFORE_OPEN,
    failpoint::JOURNAL_AFTER_OPEN,
    failpoint::CHECKPOINT_IN_CLEARING,
    failpoint::SINK_BETWEEN_DROPS,
    failpoint::SINK_BEFORE_FRONTIER_ROW,
    failpoint::PUBLISH_BEFORE_NOTE,
    failpoint::PUBLISH_AFTER_NOTE,
];

/// Points that are passed where a view was altered.
const OF_ALTERED: [Point; 2] = [
    failpoint::SINK_BETWEEN_DROPS,
    failpoint::SINK_BEFORE_FRONTIER_ROW,
];

/// Which part of a river crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    Ingest,
    Dataflow,
}

/// The part that passes a point.
fn part_of(point: Point) -> Part {
    let ingests = ["land.", "capture.", "publish."];
    match ingests.iter().any(|kind| point.name().starts_with(kind)) {
        true => Part::Ingest,
        false => Part::Dataflow,
    }
}

struct Walk {
    river: River,
    part: Part,
    /// The part that never crashes, where there are two.
    other: Option<Process>,
}

impl Walk {
    fn new(place: Place, part: Part, random: StdRng) -> Self {
        let mut walk = Self {
            river: River::new(place, random),
            part,
            other: None,
        };
        walk.other = match part {
            Part::Whole => None,
            Part::Ingest => Some(walk.start(Part::Dataflow, None)),
            Part::Dataflow => Some(walk.start(Part::Ingest, None)),
        };
        let mut first = walk.start(part, None);
        walk.river.fill();
        walk.settle("the start", &mut first);
        first.kill();
        walk
    }

    fn start(&self, part: Part, armed: Option<(Point, u32)>) -> Process {
        let point = armed.map_or("", |(point, _)| point.name());
        let mut flags = Vec::new();
        if part != Part::Ingest {
            flags.extend(["-w", "2", "--checkpoint-every", "100ms"]);
        }
        if part != Part::Dataflow {
            let fetches = point.starts_with("land.");
            flags.extend(["--every", if fetches { "50ms" } else { "1h" }]);
            let anew = ["capture.snapshot.", "capture.triggers."];
            flags.extend(
                anew.iter()
                    .any(|kind| point.starts_with(kind))
                    .then_some("--resnapshot"),
            );
        }
        let command = match part {
            Part::Whole => "run",
            Part::Ingest => "ingest",
            Part::Dataflow => "dataflow",
        };
        match armed {
            Some((point, count)) => {
                let armed = format!("{}:{count}", point.name());
                self.river.place.start_armed(command, &flags, &armed)
            }
            None => self.river.place.start(command, &flags),
        }
    }

    /// Runs the part until it ends at the point.
    fn crash(&mut self, point: Point) {
        if OF_ALTERED.contains(&point) {
            self.river.alter();
        }
        let most = if ONCE.contains(&point) { 1 } else { 3 };
        let count = self.river.random.random_range(1..=most);
        let mut process = self.start(self.part, Some((point, count)));
        let deadline = Instant::now() + PATIENCE;
        let ended = loop {
            if let Some(ended) = process.ended() {
                break ended;
            }
            let name = point.name();
            let late = Instant::now() > deadline;
            assert!(!late, "{name}:{count} was not passed:\n{}", process.said());
            self.river.change();
            self.other.iter_mut().for_each(Process::runs);
            std::thread::sleep(Duration::from_millis(5));
        };
        let said = process.said();
        const SIGABRT: i32 = 6;
        assert_eq!(ended.signal(), Some(SIGABRT), "{}: {said}", point.name());
        let ends = |line: &str| line.contains("ends here") && line.contains(point.name());
        let here = said.lines().any(ends);
        assert!(here, "{}: {said}", point.name());
    }

    fn settle(&mut self, after: &str, process: &mut Process) {
        let mut processes = vec![process];
        processes.extend(&mut self.other);
        self.river.settle(after, &mut processes);
    }

    /// Crashes at the point, now and then at `another` while it recovers, goes on, and compares
    /// every view.
    fn pass(&mut self, point: Point, another: Point) {
        if point == failpoint::CHECKPOINT_IN_CLEARING {
            // So that there is something to clear.
            self.crash(failpoint::CHECKPOINT_BEFORE_MANIFEST);
        }
        let began = Instant::now();
        self.crash(point);
        let crashed = began.elapsed();
        let again = self.part == Part::Whole && self.river.random.random_bool(0.3);
        // The second change of a view takes the first one back: there may be nothing to do.
        let takes_back = [point, another].iter().all(|it| OF_ALTERED.contains(it));
        if again && another != failpoint::CHECKPOINT_IN_CLEARING && !takes_back {
            self.crash(another);
        }
        self.river.mark();
        let mut process = self.start(self.part, None);
        self.settle(point.name(), &mut process);
        process.kill();
        eprintln!(
            "{:?} {}: crashed after {crashed:.1?}, right after {:.1?}",
            self.part,
            point.name(),
            began.elapsed()
        );
    }
}

/// Walks over these points in a random order.
fn walk(test: &str, place: Place, part: Part, points: impl Fn(&Point) -> bool) {
    let mut random = StdRng::seed_from_u64(seed(test));
    let of_registry = |point: &Point| point.name().starts_with("registry.");
    let mut points: Vec<Point> = failpoint::ALL.iter().copied().filter(points).collect();
    points.retain(|point| !of_registry(point));
    points.shuffle(&mut random);
    let mut walk = Walk::new(place, part, random);
    let others = points.iter().cycle().skip(1);
    for (point, another) in points.iter().zip(others) {
        walk.pass(*point, *another);
    }
    if let Some(mut other) = walk.other.take() {
        other.stop("TERM");
    }
    walk.river.end();
}

#[test]
fn each_point_is_crashed_at_and_recovered_from_in_one_file() {
    let test = "each_point_is_crashed_at_and_recovered_from_in_one_file";
    let here = |point: &Point| !OF_POSTGRES.contains(point);
    walk(test, Place::embedded("points"), Part::Whole, here);
}

#[test]
fn each_point_of_ingest_is_crashed_at_and_recovered_from_on_the_services() {
    let test = "each_point_of_ingest_is_crashed_at_and_recovered_from_on_the_services";
    if let Some(place) = Place::services("points") {
        let here = |point: &Point| part_of(*point) == Part::Ingest && !OF_SQLITE.contains(point);
        walk(test, place, Part::Ingest, here);
    }
}

#[test]
fn each_point_of_the_dataflow_is_crashed_at_and_recovered_from_on_the_services() {
    let test = "each_point_of_the_dataflow_is_crashed_at_and_recovered_from_on_the_services";
    if let Some(place) = Place::services("points") {
        let here = |point: &Point| part_of(*point) == Part::Dataflow;
        walk(test, place, Part::Dataflow, here);
    }
}
