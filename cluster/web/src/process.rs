//! Metrics of one process of a job, made from the counters of its stages.
//!
//! Input: counters that the stages of the ingest and the dataflow raise while they work. Output:
//! families, which [`Shown`] labels with job, generation, process and part. Reading a counter takes
//! no lock that a stage holds for long.
//!
//! | function | shows | labels |
//! |---|---|---|
//! | [`dependencies`] | services that are up | `dependency`, `engine` |
//! | [`ingest`] | records from the API to the log | |
//! | [`unpublished`] | what is committed and not in the log | |
//! | [`flow`] | records, lag and freshness of the dataflow | `topic`, `partition`, `quantile` |
//! | [`epochs`] | epochs, checkpoints, recovery | |
//! | [`views`] | rows of views | `view` |
//! | [`sink`] | rows and writes to the tables of the views | `quantile` |
//! | [`operators`] | time and state of operators | `operator` |
//!
//! Some values are known to process 0 of a dataflow only, because it binds the epochs and watches
//! the log. Other processes have no values for these.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tidemill_dataflow::job;
use tidemill_ingest::stats;
use tidemill_log::health::now_ms;
use tidemill_log::lock;
use tidemill_protocol::DependencyStatus;

use super::Shown;
use super::metrics::{Family, Histogram, seconds};

/// Bounds of the freshness histogram, in milliseconds.
///
/// From 5 ms to five minutes. Beyond that the exact value does not matter any more.
const FRESHNESS_BOUNDS_MS: [u64; 14] = [
    5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000,
];

/// All metrics of a process.
///
/// The families depend on what runs here: the ingest, the dataflow, or both.
pub(super) fn families(process: &Shown) -> Vec<Family> {
    let mut all = vec![
        Family::gauge("tidemill_ready", "1 when the process does its work, else 0")
            .is(u64::from(process.unready().is_none())),
    ];
    all.extend(dependencies(&process.dependencies()));
    all.extend(disk(process));
    if let Some(stats) = &process.ingest {
        all.extend(ingest(stats));
        all.extend(unpublished(stats));
    }
    if let Some(stats) = &process.dataflow {
        all.extend(flow(stats));
        all.extend(epochs(stats));
        all.extend(views(stats));
        all.extend(sink(stats));
        all.extend(operators(stats));
    }
    all
}

/// Whether each service is up, and since when its state holds.
///
/// A service whose state is unknown counts as not up.
fn dependencies(all: &[DependencyStatus]) -> Vec<Family> {
    let labels = |it: &DependencyStatus| {
        let engine = ("engine", it.engine.clone());
        vec![("dependency", it.dependency.clone()), engine]
    };
    let up = all
        .iter()
        .map(|it| (labels(it), u64::from(it.state == "up")));
    let since = all.iter().map(|it| (labels(it), seconds(it.since_ms)));
    vec![
        Family::gauge(
            "tidemill_dependency_up",
            "1 while a service that the process uses is up, 0 while it is down or unknown",
        )
        .each(up),
        Family::gauge(
            "tidemill_dependency_since_timestamp_seconds",
            "Since when it is so",
        )
        .each_about(since),
    ]
}

/// The fullest disk that holds state or embedded files of the job.
fn disk(process: &Shown) -> Vec<Family> {
    let disk = process.disk();
    let one = |bytes: Option<u64>| bytes.map(|bytes| (Vec::new(), bytes)).into_iter();
    vec![
        Family::gauge(
            "tidemill_disk_free_bytes",
            "Free space of the fullest disk with state or embedded files; absent when unknown",
        )
        .each(one(disk.map(|disk| disk.free))),
        Family::gauge(
            "tidemill_disk_size_bytes",
            "Size of that disk; absent when unknown",
        )
        .each(one(disk.map(|disk| disk.size))),
    ]
}

/// Lag of the ingest: what was committed and is not in the log yet.
///
/// The lag in seconds is 0 when nothing waits. Bytes are known of PostgreSQL, and changes of
/// SQLite.
fn unpublished(stats: &stats::Stats) -> Vec<Family> {
    let waiting = stats.unpublished();
    let late = waiting
        .since_ms
        .map_or(0, |since| now_ms().saturating_sub(since));
    let bytes = waiting.wal_bytes.map(|bytes| (Vec::new(), bytes));
    let changes = waiting.changes.map(|changes| (Vec::new(), changes));
    let kept = stats.wal_kept().map(|bytes| (Vec::new(), bytes));
    vec![
        Family::gauge(
            "tidemill_ingest_lag_seconds",
            "How long the oldest change that is not in the log has waited, or nobody could tell",
        )
        .about(seconds(late)),
        Family::gauge(
            "tidemill_ingest_lag_bytes",
            "WAL that was not captured and published yet; absent when nobody knows",
        )
        .each(bytes.into_iter()),
        Family::gauge(
            "tidemill_ingest_lag_changes",
            "Changes of a SQLite file that were not published yet; absent when nobody knows",
        )
        .each(changes.into_iter()),
        Family::gauge(
            "tidemill_ingest_wal_kept_bytes",
            "WAL that PostgreSQL keeps for the slot; absent when nobody knows",
        )
        .each(kept.into_iter()),
    ]
}

/// Counters of the ingest's stages.
///
/// The counters begin at 0 with the process. Their differences show where records stay: fetched,
/// landed, captured, published.
fn ingest(stats: &stats::Stats) -> Vec<Family> {
    let counter = |name, help, of: &AtomicU64| Family::counter(name, help).is(of.load(Relaxed));
    vec![
        counter(
            "tidemill_ingest_pages",
            "Pages received from the API",
            &stats.pages,
        ),
        counter(
            "tidemill_ingest_retries",
            "Requests to the API that failed and were retried",
            &stats.retries,
        ),
        counter(
            "tidemill_ingest_failed_pages",
            "Pages of the API that failed for good",
            &stats.failed_pages,
        ),
        counter(
            "tidemill_ingest_fetched",
            "Records received from the API",
            &stats.fetched,
        ),
        counter(
            "tidemill_ingest_landed",
            "Records landed in the table: inserted, updated or found unchanged",
            &stats.landed,
        ),
        counter(
            "tidemill_ingest_captured",
            "Row changes captured from the tables",
            &stats.captured,
        ),
        counter(
            "tidemill_ingest_published",
            "Captured changes that are durable in the log",
            &stats.published,
        ),
        counter(
            "tidemill_ingest_unpublishable",
            "Captured changes that are durable in the log as dead letters",
            &stats.unpublishable,
        ),
        counter(
            "tidemill_ingest_noticed",
            "Changes of captured tables that were noticed in the catalog; no stream tells of them",
            &stats.noticed,
        ),
        counter(
            "tidemill_ingest_dead_letters",
            "Records of all stages of the ingest that were put aside as dead letters",
            &stats.dead_letters,
        ),
    ]
}

/// Records, lag and freshness of the dataflow.
///
/// The lag in records is the distance between the end of a partition and what every view shows.
/// While the log does not answer, the lag in records is left out and the lag in seconds grows.
fn flow(stats: &job::Stats) -> Vec<Family> {
    let lag = stats.lag();
    let behind = match lag.known {
        true => stats.behind(),
        false => BTreeMap::new(),
    };
    let behind = behind.iter().flat_map(|(topic, partitions)| {
        partitions.iter().map(move |(partition, behind)| {
            let partition = ("partition", partition.to_string());
            (vec![("topic", topic.clone()), partition], *behind)
        })
    });
    let late = lag
        .since_ms
        .map_or(0, |since| now_ms().saturating_sub(since));
    let of_process_0 = lag.known || lag.since_ms.is_some();
    let late = of_process_0.then(|| (Vec::new(), seconds(late)));
    let recent = [("0.5", 0.5), ("0.99", 0.99)].into_iter();
    let recent = recent.filter_map(|(name, share)| {
        let ms = stats.freshness(share)?;
        Some((vec![("quantile", name.to_owned())], seconds(ms)))
    });
    vec![
        Family::counter("tidemill_records", "Records read from the log")
            .is(stats.records.load(Relaxed)),
        Family::counter(
            "tidemill_records_bytes",
            "Bytes of the keys and values of the records read from the log",
        )
        .is(stats.bytes.load(Relaxed)),
        Family::counter(
            "tidemill_duplicates",
            "Records dropped because their change came before",
        )
        .is(stats.duplicates.load(Relaxed)),
        Family::counter("tidemill_dead_letters", "Records put aside as dead letters")
            .is(stats.dead_letters.load(Relaxed)),
        Family::gauge(
            "tidemill_keys_in_error",
            "Keys whose newest change could not be published or decoded",
        )
        .is(stats.keys_in_error()),
        Family::gauge(
            "tidemill_lag_records",
            "Records in the log that are not in every view yet; process 0 knows",
        )
        .each(behind),
        Family::gauge(
            "tidemill_lag_seconds",
            "How long the oldest change that is not in every view has waited, or nobody could tell",
        )
        .each_about(late.into_iter()),
        Family::gauge(
            "tidemill_lag_known",
            "1 while the log says what it holds, 0 while nobody knows; process 0 knows",
        )
        .is(u64::from(lag.known)),
        Family::histogram(
            "tidemill_freshness_seconds",
            "From a change's commit to its being readable in every view; process 0 knows",
            freshness(stats),
        ),
        Family::gauge(
            "tidemill_recent_freshness_seconds",
            "The same, quantiles of the last 10 to 20 seconds, and at least the age of what waits",
        )
        .each_about(recent),
    ]
}

/// What was written to the sink, and how long a write takes.
fn sink(stats: &job::Stats) -> Vec<Family> {
    let quantiles = [("0.5", 0.5), ("0.99", 0.99)].into_iter();
    let quantiles = quantiles.filter_map(|(name, share)| {
        let ms = stats.sink.latency_ms(share)?;
        Some((vec![("quantile", name.to_owned())], seconds(ms)))
    });
    vec![
        Family::counter(
            "tidemill_sink_rows",
            "Rows inserted, replaced or deleted in the tables of the views",
        )
        .is(stats.sink.rows.load(Relaxed)),
        Family::counter(
            "tidemill_sink_writes",
            "Writes that are durable: the changes of one view in one epoch",
        )
        .is(stats.sink.writes.load(Relaxed)),
        Family::gauge(
            "tidemill_sink_pending_writes",
            "Writes that have begun and are not durable yet",
        )
        .is(stats.sink.pending.load(Relaxed)),
        Family::gauge(
            "tidemill_sink_write_seconds",
            "The time until a write is durable, quantiles of the last 10 to 20 seconds",
        )
        .each_about(quantiles),
    ]
}

/// Freshness since the start of the process, as a histogram in seconds.
///
/// The values come from an HDR histogram, whose buckets are narrow relative to the value; the
/// bounds here are coarser. `count` is computed from the buckets, so that the text is consistent.
fn freshness(stats: &job::Stats) -> Histogram {
    let all = lock(&stats.freshness_ms);
    let mut below = 0;
    let bucket = |bound: u64| {
        let count = all.count_between(below, bound);
        below = bound + 1;
        (seconds(bound), count)
    };
    let mut buckets: Vec<(f64, u64)> = FRESHNESS_BOUNDS_MS.into_iter().map(bucket).collect();
    let bounded: u64 = buckets.iter().map(|(_, count)| count).sum();
    // Bounds are rounded like the values, so that a value may be counted at two bounds.
    buckets.push((f64::INFINITY, all.len().saturating_sub(bounded)));
    let count = buckets.iter().map(|(_, count)| count).sum();
    Histogram {
        sum: all.mean() * all.len() as f64 / 1000.0,
        count,
        buckets,
    }
}

/// Epochs, checkpoints and recovery of the dataflow.
///
/// An epoch is a timestamp in ms. Epochs and durations that are 0 have not happened yet and are
/// left out.
fn epochs(stats: &job::Stats) -> Vec<Family> {
    let gauge = |name, help, of: &AtomicU64| Family::gauge(name, help).is(of.load(Relaxed));
    let at = |name, help, of: &AtomicU64| {
        let epoch = Some(of.load(Relaxed)).filter(|epoch| *epoch > 0);
        let sample = epoch.map(|epoch| (Vec::new(), seconds(epoch)));
        Family::gauge(name, help).each_about(sample.into_iter())
    };
    let took = |name, help, of: &AtomicU64| {
        let ms = Some(of.load(Relaxed)).filter(|ms| *ms > 0);
        let sample = ms.map(|ms| (Vec::new(), seconds(ms)));
        Family::gauge(name, help).each_about(sample.into_iter())
    };
    vec![
        at(
            "tidemill_epoch_bound_timestamp_seconds",
            "The last epoch that is bound, which is the time it was closed at; process 0 knows",
            &stats.bound,
        ),
        at(
            "tidemill_epoch_durable_timestamp_seconds",
            "The last epoch that every view shows; process 0 knows",
            &stats.durable,
        ),
        at(
            "tidemill_epoch_checkpointed_timestamp_seconds",
            "The epoch of the last checkpoint; process 0 knows",
            &stats.checkpointed,
        ),
        Family::counter("tidemill_checkpoints", "Checkpoints that this run took")
            .is(stats.checkpoints.load(Relaxed)),
        took(
            "tidemill_checkpoint_duration_seconds",
            "How long the last checkpoint took",
            &stats.checkpoint_ms,
        ),
        gauge(
            "tidemill_checkpoint_written_bytes",
            "Bytes that the last checkpoint wrote",
            &stats.checkpoint_bytes,
        ),
        gauge(
            "tidemill_checkpoint_state_bytes",
            "Bytes of all that the last checkpoint needs",
            &stats.state_bytes,
        ),
        took(
            "tidemill_recovery_duration_seconds",
            "From the start of the process until the job was live",
            &stats.recovery_ms,
        ),
        took(
            "tidemill_restore_duration_seconds",
            "From when the workers were told where to begin until the job was live",
            &stats.restore_ms,
        ),
    ]
}

/// Rows of each view, and rows that were withheld.
///
/// Rows are withheld from the table while several of them have one primary key.
fn views(stats: &job::Stats) -> Vec<Family> {
    let views = lock(&stats.views).clone();
    let label = |name: &String| vec![("view", name.clone())];
    let rows = views.iter().map(|(name, view)| {
        // A process may have removed rows that another process counted. Only the sum over all
        // processes is meaningful.
        (label(name), view.rows as f64)
    });
    let withheld = views
        .iter()
        .map(|(name, view)| (label(name), view.conflicts));
    vec![
        Family::gauge("tidemill_view_rows", "Rows of a view in this process").each_about(rows),
        Family::counter(
            "tidemill_view_withheld",
            "How often rows of a view were withheld from its table",
        )
        .each(withheld),
    ]
}

/// Time and state of each operator.
///
/// The names are those that `tidemill explain` shows, with the view before them. Operators without
/// state have no rows and bytes.
fn operators(stats: &job::Stats) -> Vec<Family> {
    let operators = stats.operators.by_name();
    let label = |name: &String| vec![("operator", name.clone())];
    let busy = operators.iter();
    let busy = busy.map(|(name, operator)| (label(name), operator.busy.as_secs_f64()));
    let held = || {
        let held = operators.iter();
        held.filter_map(|(name, operator)| Some((label(name), operator.held?)))
    };
    vec![
        Family::counter(
            "tidemill_operator_busy_seconds",
            "Time spent in an operator, over the workers of this process",
        )
        .each_about(busy),
        Family::gauge(
            "tidemill_operator_state_rows",
            "Rows that an operator holds in this process",
        )
        .each(held().map(|(label, held)| (label, held.rows))),
        Family::gauge(
            "tidemill_operator_state_bytes",
            "Bytes that those rows take, about",
        )
        .each(held().map(|(label, held)| (label, held.bytes))),
    ]
}
