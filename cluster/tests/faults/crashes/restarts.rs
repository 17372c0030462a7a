//! A job that goes on from its checkpoint with another number of workers and processes, its state
//! in a directory that all share or on S3.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::harness::river::River;
use crate::harness::{PATIENCE, Place, Process, free_port, given, seed, until};

/// Records that may come while a run stops: less than there are before the first stop.
const SLACK: u64 = 100;

/// How a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Asked to stop: with a last checkpoint.
    Stop,
    /// Killed, all at once.
    Kill,
}

fn start(place: &Place, processes: usize, workers: usize) -> Vec<Process> {
    let workers = workers.to_string();
    let all = ["-w", &workers, "--checkpoint-every", "100ms"];
    let hosts: Vec<String> = (0..processes)
        .map(|_| format!("127.0.0.1:{}", free_port()))
        .collect();
    let (hosts, count) = (hosts.join(","), processes.to_string());
    let one = |process: usize| {
        let process = process.to_string();
        let cluster = ["-n", &count, "-p", &process, "--hosts", &hosts];
        let cluster = if processes > 1 { &cluster[..] } else { &[] };
        place.start("dataflow", &[&all[..], cluster].concat())
    };
    (0..processes).map(one).collect()
}

/// How many records a process says it has read.
fn read(said: &str) -> u64 {
    let stopped = said.lines().find(|line| line.contains("stopped"));
    let words = stopped.unwrap_or_default().split_whitespace();
    let records = words.filter_map(|word| word.strip_prefix("records="));
    let records: Vec<u64> = records.map(|records| records.parse().unwrap()).collect();
    *records.first().unwrap_or_else(|| panic!("{said}"))
}

/// Runs the job in these ways, one after the other; each goes on from where the one before was.
fn runs(test: &str, place: Place, ways: &[(usize, usize, End)]) {
    let random = StdRng::seed_from_u64(seed(test));
    let mut river = River::new(place, random);
    let mut ingest = river.place.start("ingest", &["--every", "1h"]);
    river.fill();
    let mut before: Option<(u64, End)> = None;
    for (processes, workers, end) in ways {
        let mut job = start(&river.place, *processes, *workers);
        for _ in 0..200 {
            river.change();
            std::thread::sleep(Duration::from_millis(5));
        }
        let what = format!("{processes} processes of {workers} workers");
        let mut all: Vec<&mut Process> = job.iter_mut().chain([&mut ingest]).collect();
        river.settle(&what, &mut all);
        if before.is_some() {
            let said = job[0].said();
            assert!(
                said.contains("going on from a checkpoint"),
                "{what}: {said}"
            );
        }
        let records = river.records();
        match end {
            End::Kill => {
                until("a checkpoint is complete", PATIENCE, || {
                    // One is taken of an epoch that is bound when it is due.
                    river.change();
                    committed(&river.place).then_some(())
                });
                job.into_iter().for_each(Process::kill);
            }
            End::Stop => {
                job[0].signal("TERM");
                let said = job.iter_mut().map(|process| process.ends(0, PATIENCE));
                let read: u64 = said.map(|said| read(&said)).sum();
                if let Some((known, ended)) = before {
                    let all = river.records();
                    assert!(read < all, "{what}: all {read} from the beginning");
                    // All of a run that was stopped is in its last checkpoint, but for what came
                    // while it stopped and changes no row.
                    let most = all - known + SLACK;
                    assert!(ended == End::Kill || read < most, "{what}: {read} of {all}");
                }
            }
        }
        before = Some((records, *end));
    }
    ingest.stop("TERM");
    river.end();
}

/// Whether `tidemill plan` finds a checkpoint.
fn committed(place: &Place) -> bool {
    let said = place.start("plan", &[]).ends(0, PATIENCE);
    said.contains("checkpoint  epoch")
}

#[test]
fn processes_come_and_go_between_checkpoints() {
    let test = "processes_come_and_go_between_checkpoints";
    if let Some(place) = Place::services("come_and_go") {
        let ways = [
            (1, 2, End::Stop),
            (2, 1, End::Stop),
            (1, 1, End::Kill),
            (2, 2, End::Kill),
            (1, 2, End::Stop),
        ];
        runs(test, place, &ways);
    }
}

#[test]
fn a_job_whose_state_is_on_s3_is_killed_and_goes_on_with_other_workers() {
    let test = "a_job_whose_state_is_on_s3_is_killed_and_goes_on_with_other_workers";
    let Some(s3) = given(test, "TIDEMILL_TEST_S3") else {
        return;
    };
    if let Some(mut place) = Place::services("on_s3") {
        place.keep_state_at(&format!("{s3}/{}", place.name));
        let ways = [
            (1, 1, End::Kill),
            (1, 2, End::Stop),
            (2, 1, End::Kill),
            (1, 1, End::Stop),
        ];
        runs(test, place, &ways);
    }
}
