//! Status of the master, its workers and all jobs ([`Status`]), as a function of the state.
//!
//! The page, `tidemill status` and `GET /api/v1/status` show the same [`Status`]. Decision 25
//! explains how the numbers of several processes become one.
//!
//! | value | how it is made from the processes |
//! |---|---|
//! | records, dead letters, keys in error, operators | the sum |
//! | epochs | the greatest: process 0 knows them, and the others have 0 |
//! | lag, freshness | process 0's, and at least what waits in the ingest |
//! | rows of views | the sum at one epoch that all processes reported |
//! | dependencies | the worst state that a process sees |

pub(crate) mod rates;

use std::collections::BTreeMap;

use tidemill_protocol::{
    DependencyStatus, Failure, Heartbeat, IngestStatus, JobState, JobStatus, MasterStatus,
    OPERATORS_TOLD_MAX, OperatorHeartbeat, Part, Phase, ProcessKey, ProcessStatus, Status,
    WorkerStatus,
};

use super::component::{Component, Stage};
use super::durable::{Job, Record, Run};
use super::roster::Found;
use crate::machine::State;

/// The current status.
pub(crate) fn of(state: &State) -> Status {
    let jobs = state.durable.jobs.iter();
    Status {
        master: MasterStatus {
            generation: state.author().generation,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_ms: state.started,
            now_ms: state.now,
        },
        workers: state.roster.present().map(|it| worker(state, it)).collect(),
        jobs: jobs.map(|(name, it)| job(state, name, it)).collect(),
    }
}

/// The status of one worker.
///
/// Slots in use are those of all jobs' runs, also of processes that have not started yet.
fn worker(state: &State, worker: &super::roster::Worker) -> WorkerStatus {
    let report = &worker.report;
    let runs = state.durable.records();
    let used =
        runs.filter_map(|(_, part, it)| Some(it.run.as_ref()?.slots_of(part, &report.worker)));
    WorkerStatus {
        id: report.worker.clone(),
        name: report.name.clone(),
        http: report.http.clone(),
        slots: report.slots,
        slots_used: used.sum(),
        silent_ms: state.now.saturating_sub(worker.heard),
        version: report.version.clone(),
        drained: state.durable.drained.contains(&report.worker),
    }
}

/// The processes of a component that were reported, each with its last heartbeat.
///
/// A process that its worker has not reported yet is left out.
pub(crate) fn processes<'a>(
    state: &'a State,
    name: &str,
    part: Part,
    run: &'a Run,
) -> Vec<Told<'a>> {
    let all = run.workers.iter().enumerate();
    all.filter_map(|(index, (worker, worker_name))| {
        let key = ProcessKey {
            job: name.to_owned(),
            part,
            generation: run.generation,
            index,
        };
        let Found::Reported(found) = state.roster.find(worker, &key, state.now) else {
            return None;
        };
        let beat = found.beat.as_ref();
        let process = ProcessStatus {
            part,
            index,
            worker: worker_name.clone(),
            phase: found.phase.clone(),
            http: beat.map(|beat| beat.http.clone()).unwrap_or_default(),
            records: beat.map_or(0, |beat| beat.records),
            operators: beat.map(|beat| beat.operators.clone()).unwrap_or_default(),
        };
        Some((process, beat))
    })
    .collect()
}

/// The status of one job, made from the last heartbeats of all its processes.
///
/// `epoch` and the like are 0 while no process runs.
fn job(state: &State, name: &str, job: &Job) -> JobStatus {
    let record = &job.dataflow;
    let component = state.components.get(&(name.to_owned(), Part::Dataflow));
    let run = record.run.as_ref();
    let of_dataflow = run.map(|run| processes(state, name, Part::Dataflow, run));
    let of_dataflow = of_dataflow.unwrap_or_default();
    let of_ingest = job.ingest.run.as_ref();
    let of_ingest = of_ingest.map(|run| processes(state, name, Part::Ingest, run));
    let of_ingest = of_ingest.unwrap_or_default();
    let beats: Vec<&Heartbeat> = of_dataflow.iter().filter_map(|(_, beat)| *beat).collect();
    let whole = run.is_some_and(|run| beats.len() == run.workers.len());
    let sum = |of: fn(&Heartbeat) -> u64| beats.iter().map(|beat| of(beat)).sum::<u64>();
    let most = |of: fn(&Heartbeat) -> u64| beats.iter().map(|beat| of(beat)).max().unwrap_or(0);
    let behind = by_topic(&beats);
    let (late, known) = lag(state.now, &of_dataflow, &of_ingest);
    let fresh = |of: fn(&Heartbeat) -> Option<u64>| {
        let told = beats.iter().find_map(|beat| of(beat));
        told.max(late.filter(|late| *late > 0))
    };
    let (state_of, why) = described(state, name, Part::Dataflow, job, &of_dataflow);
    let published = of_ingest
        .iter()
        .filter_map(|(_, beat)| beat.map(|beat| beat.records))
        .sum();
    let disk = fullest(of_dataflow.iter().chain(&of_ingest));
    let ingest = job
        .spec
        .ingest
        .then(|| ingest(state, name, job, &of_ingest, published));
    let (state_of, why) = together((state_of, why), ingest.as_ref());
    JobStatus {
        name: name.to_owned(),
        state: state_of,
        why,
        generation: record.generation,
        restarts: record.restarts,
        workers_wanted: job.spec.workers,
        workers: run.map_or(0, |run| run.threads * run.workers.len()),
        epoch: most(|beat| beat.durable),
        lag_ms: late,
        behind: known.then(|| behind.values().sum()),
        behind_by_topic: if known { behind } else { BTreeMap::new() },
        dependencies: dependencies(of_dataflow.iter().chain(&of_ingest)),
        freshness_p50_ms: fresh(|beat| beat.freshness_p50_ms),
        freshness_p99_ms: fresh(|beat| beat.freshness_p99_ms),
        freshness_p999_ms: fresh(|beat| beat.freshness_p999_ms),
        records: sum(|beat| beat.records),
        records_per_second: component.map_or(0.0, Component::rate),
        dead_letters: sum(|beat| beat.dead_letters),
        keys_in_error: sum(|beat| beat.keys_in_error),
        checkpointed: most(|beat| beat.checkpointed),
        sink_rows: sum(|beat| beat.sink_rows),
        sink_pending: sum(|beat| beat.sink_pending),
        sink_p50_ms: beats.iter().filter_map(|beat| beat.sink_p50_ms).max(),
        sink_p99_ms: beats.iter().filter_map(|beat| beat.sink_p99_ms).max(),
        disk_free: disk.0,
        disk_size: disk.1,
        ingest,
        views: match whole {
            true => views(&beats),
            false => BTreeMap::new(),
        },
        operators: operators(&beats),
        processes: of_dataflow
            .into_iter()
            .chain(of_ingest)
            .map(|(it, _)| it)
            .collect(),
        // The server that evaluates the rules adds this.
        alerts_firing: 0,
        failures: failures(job),
        alerts_file: job.spec.files.get(tidemill_alerts::FILE).cloned(),
    }
}

/// The last failures of both components, the newest first.
fn failures(job: &Job) -> Vec<Failure> {
    let mut failures = job.dataflow.failures.clone();
    failures.extend(job.ingest.failures.iter().map(|it| {
        let mut failure = it.clone();
        failure.process = format!("ingest{}", it.process.trim_start_matches("process 0"));
        failure
    }));
    failures.sort_by_key(|failure| std::cmp::Reverse(failure.at_ms));
    failures.truncate(super::component::FAILURES_KEPT_MAX);
    failures
}

/// The records of each topic that are not in every view yet. Process 0 knows them.
fn by_topic(beats: &[&Heartbeat]) -> BTreeMap<String, u64> {
    let mut behind: BTreeMap<String, u64> = BTreeMap::new();
    for (topic, partitions) in beats.iter().flat_map(|beat| &beat.behind) {
        *behind.entry(topic.clone()).or_default() += partitions.values().sum::<u64>();
    }
    behind
}

/// The status of a job that one process runs alone, as `tidemill run` does: `dataflow` and `ingest`
/// are what its two components tell. Rates are 0, because one moment has none.
pub fn alone(name: &str, now: u64, dataflow: &Heartbeat, ingest: &Heartbeat) -> JobStatus {
    let process = |part, beat: &Heartbeat| ProcessStatus {
        part,
        index: 0,
        worker: "this process".to_owned(),
        phase: Phase::Live,
        http: beat.http.clone(),
        records: beat.records,
        operators: beat.operators.clone(),
    };
    let of_dataflow = [(process(Part::Dataflow, dataflow), Some(dataflow))];
    let of_ingest = [(process(Part::Ingest, ingest), Some(ingest))];
    let (late, known) = lag(now, &of_dataflow, &of_ingest);
    let behind = by_topic(&[dataflow]);
    let fresh = |told: Option<u64>| told.max(late.filter(|late| *late > 0));
    let condition = |told: &[Told<'_>], away: JobState| {
        let (doing, downs) = (doing(told), downs(now, told));
        let word = match (&doing, downs.is_empty()) {
            (Some(_), _) => away,
            (None, true) => JobState::Running,
            (None, false) => JobState::Degraded,
        };
        let doing = doing.filter(|doing| doing != word.name());
        let why: Vec<String> = doing.into_iter().chain(downs).collect();
        (word, (!why.is_empty()).then(|| why.join("; ")))
    };
    let fed = condition(&of_ingest, JobState::Waiting);
    let fed = IngestStatus {
        state: fed.0,
        why: fed.1,
        published: ingest.records,
        noticed: ingest.noticed.clone(),
        wal_kept: ingest.wal_kept,
        paused_ms: ingest.paused_ms,
        ..IngestStatus::default()
    };
    let (state, why) = together(condition(&of_dataflow, JobState::Starting), Some(&fed));
    let disk = fullest(of_dataflow.iter().chain(&of_ingest));
    JobStatus {
        name: name.to_owned(),
        state,
        why,
        epoch: dataflow.durable,
        lag_ms: late,
        behind: known.then(|| behind.values().sum()),
        behind_by_topic: if known { behind } else { BTreeMap::new() },
        dependencies: dependencies(of_dataflow.iter().chain(&of_ingest)),
        freshness_p50_ms: fresh(dataflow.freshness_p50_ms),
        freshness_p99_ms: fresh(dataflow.freshness_p99_ms),
        freshness_p999_ms: fresh(dataflow.freshness_p999_ms),
        records: dataflow.records,
        dead_letters: dataflow.dead_letters + ingest.dead_letters,
        keys_in_error: dataflow.keys_in_error,
        checkpointed: dataflow.checkpointed,
        sink_rows: dataflow.sink_rows,
        sink_pending: dataflow.sink_pending,
        sink_p50_ms: dataflow.sink_p50_ms,
        sink_p99_ms: dataflow.sink_p99_ms,
        disk_free: disk.0,
        disk_size: disk.1,
        ingest: Some(fed),
        views: views(&[dataflow]),
        operators: operators(&[dataflow]),
        processes: [of_dataflow, of_ingest]
            .map(|[(process, _)]| process)
            .into(),
        ..JobStatus::default()
    }
}

/// A process, and its last heartbeat if it sent one.
type Told<'a> = (ProcessStatus, Option<&'a Heartbeat>);

/// The lag of a job in ms: how long the oldest change waits that is not in every view, or for how
/// long nobody could tell. `None` when no process runs that would know. The flag says whether the
/// ends of the log are known.
fn lag(now: u64, dataflow: &[Told<'_>], ingest: &[Told<'_>]) -> (Option<u64>, bool) {
    let first = dataflow.iter().find(|(it, _)| it.index == 0);
    let Some(first) = first.and_then(|(_, beat)| *beat) else {
        return (None, false);
    };
    let ingests = ingest.iter().filter_map(|(_, beat)| *beat);
    let since = ingests
        .chain([first])
        .filter_map(|beat| beat.waits_since_ms);
    let late = since.map(|since| now.saturating_sub(since)).max();
    // A process that has just started has not measured its lag yet.
    let late = late.or_else(|| first.lag_known.then_some(0));
    (late, first.lag_known)
}

/// Free bytes and size of the fullest disk that a process told.
fn fullest<'a>(told: impl Iterator<Item = &'a Told<'a>>) -> (Option<u64>, Option<u64>) {
    let disks = told.filter_map(|(_, beat)| beat.as_ref()?.disk_free.zip(beat.as_ref()?.disk_size));
    // a/b < c/d as integers, because the free share is what is compared.
    let free = |a: &(u64, u64), b: &(u64, u64)| {
        (u128::from(a.0) * u128::from(b.1)).cmp(&(u128::from(b.0) * u128::from(a.1)))
    };
    disks.min_by(free).unzip()
}

/// Merges the dependencies of all processes. The worst state wins. A service that several processes
/// see down is down since the first of them saw it; a service that is up is up since the last.
fn dependencies<'a>(told: impl Iterator<Item = &'a Told<'a>>) -> Vec<DependencyStatus> {
    let mut all: Vec<DependencyStatus> = Vec::new();
    let worst = |it: &DependencyStatus| {
        ["up", "unknown", "down"]
            .iter()
            .position(|s| *s == it.state)
    };
    for found in told
        .filter_map(|(_, beat)| *beat)
        .flat_map(|beat| &beat.dependencies)
    {
        let same = |it: &&mut DependencyStatus| it.dependency == found.dependency;
        match all.iter_mut().find(same) {
            None => all.push(found.clone()),
            Some(known) if worst(found) > worst(known) => known.clone_from(found),
            Some(known) if worst(found) < worst(known) => {}
            Some(known) if known.is_down() => known.since_ms = known.since_ms.min(found.since_ms),
            Some(known) => known.since_ms = known.since_ms.max(found.since_ms),
        }
    }
    // Sinks that views name are behind all others, by their names.
    all.sort_by_key(|it| {
        let place = ORDER.iter().position(|name| *name == it.dependency);
        (place.unwrap_or(ORDER.len()), it.dependency.clone())
    });
    all
}

/// The names of the dependencies in the order in which data flows.
const ORDER: [&str; 7] = [
    "api", "database", "slot", "log", "registry", "state", "views",
];

/// Combines the states of the two components: a job whose views are live while its ingest does not
/// run is `degraded`.
///
/// A job that does not run keeps its state, whatever the ingest does.
fn together(
    (state, why): (JobState, Option<String>),
    ingest: Option<&IngestStatus>,
) -> (JobState, Option<String>) {
    let feeds = ingest.is_none_or(|ingest| ingest.state == JobState::Running);
    if feeds || !state.is_live() {
        return (state, why);
    }
    let ingest = ingest.map(|ingest| {
        let why = ingest.why.as_ref().map(|why| format!(": {why}"));
        format!("ingest {}{}", ingest.state, why.unwrap_or_default())
    });
    let why: Vec<String> = why.into_iter().chain(ingest).collect();
    (JobState::Degraded, Some(why.join("; ")))
}

/// The status of a job's ingest.
///
/// `noticed` has what the ingest's processes reported, oldest first.
fn ingest(
    state: &State,
    name: &str,
    job: &Job,
    processes: &[Told<'_>],
    published: u64,
) -> IngestStatus {
    let component = state.components.get(&(name.to_owned(), Part::Ingest));
    let (described, why) = described(state, name, Part::Ingest, job, processes);
    IngestStatus {
        state: described,
        why,
        restarts: job.ingest.restarts,
        published,
        published_per_second: component.map_or(0.0, Component::rate),
        noticed: processes
            .iter()
            .filter_map(|(_, beat)| beat.as_ref())
            .flat_map(|beat| beat.noticed.iter().cloned())
            .collect(),
        wal_kept: processes
            .iter()
            .find_map(|(_, beat)| beat.as_ref()?.wal_kept),
        paused_ms: processes
            .iter()
            .find_map(|(_, beat)| beat.as_ref()?.paused_ms),
    }
}

/// Rows of each view at the newest epoch of which all processes reported their counts. Empty if
/// there is none.
///
/// Counts of different moments cannot be added up: a row that moved between two processes would be
/// counted twice or not at all.
fn views(beats: &[&Heartbeat]) -> BTreeMap<String, i64> {
    let mut views = BTreeMap::new();
    let moments = beats.iter().flat_map(|beat| beat.rows.keys());
    let everybody = |at: &&u64| beats.iter().all(|beat| beat.rows.contains_key(*at));
    let Some(at) = moments.filter(everybody).max() else {
        return views;
    };
    for (view, rows) in beats.iter().filter_map(|beat| beat.rows.get(at)).flatten() {
        *views.entry(view.clone()).or_default() += rows;
    }
    views
}

/// Sums each operator over all processes; the most expensive first, at most [`OPERATORS_TOLD_MAX`].
///
/// Operators are the same in all processes, by name.
fn operators(beats: &[&Heartbeat]) -> Vec<OperatorHeartbeat> {
    let mut all: BTreeMap<&str, OperatorHeartbeat> = BTreeMap::new();
    let add = |sum: &mut Option<i64>, more: Option<i64>| {
        *sum = sum.map_or(more, |sum| Some(sum + more.unwrap_or(0)));
    };
    for told in beats.iter().flat_map(|beat| &beat.operators) {
        let sum = all.entry(&told.name).or_default();
        sum.name.clone_from(&told.name);
        sum.busy_us += told.busy_us;
        add(&mut sum.rows, told.rows);
        add(&mut sum.bytes, told.bytes);
    }
    let mut all: Vec<OperatorHeartbeat> = all.into_values().collect();
    all.sort_by_key(|operator| std::cmp::Reverse(operator.busy_us));
    all.truncate(OPERATORS_TOLD_MAX);
    all
}

/// The state of a component in one word (see `docs/operate.md`), and the reason.
///
/// A reason is text for users, and may be missing.
fn described(
    state: &State,
    name: &str,
    part: Part,
    job: &Job,
    processes: &[Told<'_>],
) -> (JobState, Option<String>) {
    let record = job.record(part);
    let Some(component) = state.components.get(&(name.to_owned(), part)) else {
        return (JobState::Stopped, None);
    };
    let begins = if record.in_a_row == 0 {
        JobState::Starting
    } else {
        JobState::Restarting
    };
    let last = record.failures.first().filter(|_| record.in_a_row > 0);
    let after = last.map(|last| format!("{} {}", last.process, last.what));
    let (word, why) = match &component.stage {
        Stage::Stopped => (JobState::Stopped, None),
        Stage::Failed => (JobState::Failed, record.failed.clone()),
        Stage::Waiting(it) => (JobState::Waiting, it.why.clone()),
        Stage::Minting(_) if !job.wants(part) => (JobState::Draining, None),
        Stage::Minting(_) => (begins, Some("its journal begins a generation".to_owned())),
        Stage::Starting(_) => (begins, doing(processes).or(after)),
        Stage::Connecting(_) => (begins, Some("its processes connect".to_owned())),
        Stage::Running(_) if !job.runs => (
            JobState::Draining,
            Some("until its ingest has ended".to_owned()),
        ),
        Stage::Running(_) => {
            let doing = doing(processes);
            let downs = downs(state.now, processes);
            let word = match (&doing, part) {
                // The processes are connected, but state is being restored: views are not live yet.
                (Some(_), Part::Dataflow) => begins,
                (Some(_), Part::Ingest) => JobState::Waiting,
                (None, _) if downs.is_empty() => JobState::Running,
                (None, _) => JobState::Degraded,
            };
            let why = doing.into_iter().chain(downs);
            let why: Vec<String> = why.chain(smaller(state, job, part)).collect();
            (word, (!why.is_empty()).then(|| why.join("; ")))
        }
        Stage::Draining(_) => (JobState::Draining, doing(processes)),
        Stage::Ending(_) if !job.wants(part) => (JobState::Draining, None),
        Stage::Ending(_) => (JobState::Restarting, left(state, name, part, record)),
        Stage::BackingOff(it) => (JobState::Restarting, it.why.clone().or(after)),
    };
    (word, why)
}

/// What the processes say that they wait for; the first one wins.
fn doing(processes: &[Told<'_>]) -> Option<String> {
    let mut beats = processes.iter().filter_map(|(_, beat)| *beat);
    beats.find_map(|beat| beat.doing.clone())
}

/// The services that are down for the component's processes, in words.
fn downs(now: u64, processes: &[Told<'_>]) -> Vec<String> {
    let all = dependencies(processes.iter());
    let downs = all.iter().filter(|it| it.is_down());
    downs.map(|it| it.told(now)).collect()
}

/// The hint that a job runs with fewer workers than were asked for; `None` when it does not.
fn smaller(state: &State, job: &Job, part: Part) -> Option<String> {
    let run = job.record(part).run.as_ref()?;
    let (has, wants) = (run.threads * run.workers.len(), job.spec.workers);
    if part == Part::Ingest || has >= wants {
        return None;
    }
    let slots = |it: &super::roster::Worker| {
        let runs = state.durable.records();
        let worker = &it.report.worker;
        let used = runs.filter_map(|(_, part, it)| Some(it.run.as_ref()?.slots_of(part, worker)));
        it.report.slots.saturating_sub(used.sum())
    };
    let free: usize = state.roster.present().map(slots).sum();
    let name = &job.spec.name;
    let more = match free {
        0 => "no slot is free".to_owned(),
        _ => format!("`tidemill rescale {name} --workers {wants}` would use {free} free slots"),
    };
    Some(format!("{has} of {wants} workers: {more}"))
}

/// Which process the end of a generation waits for.
fn left(state: &State, name: &str, part: Part, record: &Record) -> Option<String> {
    let run = record.run.as_ref()?;
    let left = processes(state, name, part, run);
    let left = left
        .iter()
        .find(|(it, _)| !matches!(it.phase, Phase::Exited(_)));
    left.map(|(it, _)| format!("{} is to end", run.process(it.index)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_counts_are_of_one_epoch() {
        let beat = |points: &[(u64, i64)]| Heartbeat {
            rows: points
                .iter()
                .map(|(at, rows)| (*at, [("v".to_owned(), *rows)].into()))
                .collect(),
            ..Heartbeat::default()
        };
        let (first, second) = (
            beat(&[(2_000, 5), (3_000, 6), (3_400, 9)]),
            beat(&[(1_000, 1), (2_000, 2), (2_700, 3)]),
        );
        assert_eq!(views(&[&first, &second]), [("v".to_owned(), 7)].into());
        assert_eq!(views(&[&first]), [("v".to_owned(), 9)].into());
        assert_eq!(views(&[&first, &beat(&[(1_000, 1)])]), BTreeMap::new());
    }
}
