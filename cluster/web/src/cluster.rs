//! Metrics of the master and of a worker, made from the status and from the worker's report.
//!
//! Input: what the master already knows of its workers and jobs ([`Status`]), or the last report of
//! a worker ([`Report`]). Output: families, in which each job, worker or service is a label. No
//! process is asked for its numbers here: what a job's processes report to the master arrives with
//! their heartbeats.
//!
//! | function | metrics | labels |
//! |---|---|---|
//! | [`cluster`] | `tidemill_master_*`, `tidemill_workers`, `_slots*`, … | `worker`, `state` |
//! | [`jobs`] | `tidemill_job_running`, `_generation`, `_restarts`, `_workers*`, … | `job` |
//! | [`flow`] | `tidemill_job_lag_*`, `_freshness_seconds`, `_records`, … | `job`, `quantile` |
//! | [`dependencies`] | `tidemill_job_dependency_*` | `job`, `dependency`, `engine` |
//! | [`worker`] | `tidemill_worker_slots`, `tidemill_worker_processes` | `phase` |
//!
//! Times are in seconds, and points in time are in seconds since 1970, as Prometheus wants base
//! units.

use tidemill_protocol::{JobState, JobStatus, Phase, Report, Status};

use super::metrics::{Family, Labels, seconds};

/// All metrics of the master.
///
/// The families are in the order of the table above.
pub(super) fn master(status: &Status) -> Vec<Family> {
    let mut all = cluster(status);
    all.extend(jobs(status));
    all.extend(flow(status));
    all.extend(dependencies(status));
    all
}

/// Whether each service of each job is up, and since when its state holds.
///
/// A job's processes may see a service differently; the master has merged their reports already.
fn dependencies(status: &Status) -> Vec<Family> {
    let all = || {
        status.jobs.iter().flat_map(|job| {
            job.dependencies.iter().map(|it| {
                let engine = ("engine", it.engine.clone());
                let dependency = ("dependency", it.dependency.clone());
                (vec![("job", job.name.clone()), dependency, engine], it)
            })
        })
    };
    let up = all().map(|(labels, it)| (labels, u64::from(it.state == "up")));
    let since = all().map(|(labels, it)| (labels, seconds(it.since_ms)));
    vec![
        Family::gauge(
            "tidemill_job_dependency_up",
            "1 while a service that the job uses is up, 0 while it is down or unknown",
        )
        .each(up),
        Family::gauge(
            "tidemill_job_dependency_since_timestamp_seconds",
            "Since when it is so",
        )
        .each_about(since),
    ]
}

/// Metrics of the cluster: master, workers, slots, and jobs by state.
///
/// `silent_ms` of a worker is the time since its last report, by the master's clock.
fn cluster(status: &Status) -> Vec<Family> {
    let used: usize = status.workers.iter().map(|it| it.slots_used).sum();
    let slots: usize = status.workers.iter().map(|it| it.slots).sum();
    // Each state has a sample also while no job is in it, so that a graph shows 0 and not a gap.
    let states = JobState::ALL.map(|state| {
        let jobs = status.jobs.iter().filter(|job| job.state == state).count();
        (vec![("state", state.name().to_owned())], jobs as u64)
    });
    let silent = status.workers.iter().map(|worker| {
        let labels = vec![("worker", worker.name.clone())];
        (labels, seconds(worker.silent_ms))
    });
    vec![
        Family::gauge(
            "tidemill_master_generation",
            "How many masters this store has had",
        )
        .is(status.master.generation),
        Family::gauge(
            "tidemill_master_start_timestamp_seconds",
            "When the master started",
        )
        .about(seconds(status.master.started_ms)),
        Family::gauge("tidemill_workers", "Workers that are there").is(status.workers.len() as u64),
        Family::gauge("tidemill_slots", "Slots that they offer").is(slots as u64),
        Family::gauge("tidemill_slots_used", "Slots that are taken").is(used as u64),
        Family::gauge(
            "tidemill_worker_silent_seconds",
            "Time since a worker's last report",
        )
        .each_about(silent),
        Family::gauge("tidemill_jobs", "Jobs by state").each(states.into_iter()),
    ]
}

/// One sample per job.
///
/// A job for which `of` returns `None` has no sample, because 0 would be a value.
fn each<T>(status: &Status, of: impl Fn(&JobStatus) -> Option<T>) -> Vec<(Labels, T)> {
    let jobs = status.jobs.iter();
    let sample = jobs.filter_map(|job| Some((vec![("job", job.name.clone())], of(job)?)));
    sample.collect()
}

/// Metrics of each job: its state, generation, restarts and workers.
///
/// A degraded job counts as running: its views are readable, and something that feeds them is away.
fn jobs(status: &Status) -> Vec<Family> {
    let whole = |of: fn(&JobStatus) -> u64| each(status, |job| Some(of(job))).into_iter();
    let up = |job: &JobStatus| u64::from(job.state.is_live());
    let degraded = |job: &JobStatus| u64::from(job.state == JobState::Degraded);
    vec![
        Family::gauge("tidemill_job_running", "1 while the job runs, else 0").each(whole(up)),
        Family::gauge(
            "tidemill_job_degraded",
            "1 while the job runs and something that feeds its views does not, else 0",
        )
        .each(whole(degraded)),
        Family::gauge("tidemill_job_generation", "The job's generation")
            .each(whole(|job| job.generation)),
        Family::counter(
            "tidemill_job_restarts",
            "Generations that ended by themselves since the job was submitted or restarted",
        )
        .each(whole(|job| job.restarts)),
        Family::gauge("tidemill_job_workers", "Worker threads that run")
            .each(whole(|job| job.workers as u64)),
        Family::gauge(
            "tidemill_job_workers_wanted",
            "Worker threads that were asked for",
        )
        .each(whole(|job| job.workers_wanted as u64)),
    ]
}

/// Metrics of each job's data: lag, freshness, records and dead letters.
///
/// Records and dead letters are gauges: they belong to the current generation and begin at 0 with
/// the next one.
fn flow(status: &Status) -> Vec<Family> {
    let whole = |of: fn(&JobStatus) -> u64| each(status, |job| Some(of(job))).into_iter();
    let freshness = status.jobs.iter().flat_map(|job| {
        let quantiles = [
            ("0.5", job.freshness_p50_ms),
            ("0.99", job.freshness_p99_ms),
        ];
        quantiles.into_iter().filter_map(|(quantile, ms)| {
            let quantile = ("quantile", quantile.to_owned());
            Some((vec![("job", job.name.clone()), quantile], seconds(ms?)))
        })
    });
    let epoch = |job: &JobStatus| Some(job.epoch).filter(|epoch| *epoch > 0).map(seconds);
    let published = |job: &JobStatus| job.ingest.as_ref().map(|ingest| ingest.published);
    vec![
        Family::gauge(
            "tidemill_job_lag_records",
            "Records in the log that are not in every view yet; absent when nobody knows",
        )
        .each(each(status, |job| job.behind).into_iter()),
        Family::gauge(
            "tidemill_job_lag_seconds",
            "How long the oldest change that is not in every view has waited, or nobody could tell",
        )
        .each_about(each(status, |job| Some(seconds(job.lag_ms?))).into_iter()),
        Family::gauge(
            "tidemill_job_freshness_seconds",
            "From a change's commit to its being readable in every view, over the last seconds",
        )
        .each_about(freshness),
        Family::gauge(
            "tidemill_job_epoch_timestamp_seconds",
            "The last epoch that every view shows",
        )
        .each_about(each(status, epoch).into_iter()),
        Family::gauge(
            "tidemill_job_records",
            "Records that the current generation read from the log",
        )
        .each(whole(|job| job.records)),
        Family::gauge(
            "tidemill_job_dead_letters",
            "Records that the current generation put aside as dead letters",
        )
        .each(whole(|job| job.dead_letters)),
        Family::gauge(
            "tidemill_job_keys_in_error",
            "Keys of the job whose newest change could not be published or decoded",
        )
        .each(whole(|job| job.keys_in_error)),
        Family::gauge(
            "tidemill_job_published",
            "Changes that the running ingest of the job published",
        )
        .each(each(status, published).into_iter()),
    ]
}

/// All metrics of a worker.
///
/// A process is in exactly one phase, so the samples add up to the number of processes.
pub(super) fn worker(report: &Report) -> Vec<Family> {
    let of = |name: &str, is: fn(&Phase) -> bool| {
        let processes = report.processes.iter().filter(|it| is(&it.phase));
        let labels = vec![("phase", name.to_owned())];
        (labels, processes.count() as u64)
    };
    let phases = [
        of("started", |phase| matches!(phase, Phase::Started)),
        of("listening", |phase| {
            matches!(phase, Phase::Listening { .. })
        }),
        of("live", |phase| matches!(phase, Phase::Live)),
        of("exited", |phase| matches!(phase, Phase::Exited(_))),
    ];
    vec![
        Family::gauge("tidemill_worker_slots", "Slots that the worker offers")
            .is(report.slots as u64),
        Family::gauge(
            "tidemill_worker_processes",
            "The worker's processes by phase",
        )
        .each(phases.into_iter()),
    ]
}
