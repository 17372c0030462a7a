//! Heartbeat of a process of a job: its statistics as a [`Heartbeat`], sent twice a second.
//!
//! In: the counters of the process. Out: one [`Heartbeat`], which the child writes to its stdout as
//! a line. The worker passes it on to the master with its next report. Everything in it is absolute
//! (totals and points in time, no differences), so a lost heartbeat loses nothing.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tidemill_dataflow::job;
use tidemill_ingest::stats as ingest;
use tidemill_log::lock;
use tidemill_protocol::{Heartbeat, OPERATORS_TOLD_MAX, OperatorHeartbeat, redact};
use tidemill_web::Shown;

/// The current heartbeat of a process whose HTTP server is at `http`.
///
/// The texts are without secrets.
pub(crate) fn of(shown: &Shown, http: &str) -> Heartbeat {
    let disk = shown.disk();
    let mut beat = Heartbeat {
        disk_free: disk.map(|disk| disk.free),
        disk_size: disk.map(|disk| disk.size),
        http: http.to_owned(),
        doing: shown.doing().map(|why| redact::text(&why).into_owned()),
        dependencies: shown.dependencies(),
        noticed: shown.noticed(),
        ..Heartbeat::default()
    };
    if let Some(stats) = &shown.ingest {
        ingest(&mut beat, stats);
    }
    if let Some(stats) = &shown.dataflow {
        dataflow(&mut beat, stats);
    }
    beat
}

/// Fills in the statistics of an ingest.
///
/// `records` counts published changes, for the rate that `tidemill status` shows.
fn ingest(beat: &mut Heartbeat, stats: &ingest::Stats) {
    beat.records = stats.published.load(Relaxed);
    let unpublished = stats.unpublished();
    beat.waits_since_ms = unpublished.since_ms;
    beat.lag_known = unpublished.is_known();
    beat.dead_letters = stats.dead_letters.load(Relaxed);
    beat.wal_kept = stats.wal_kept();
    beat.paused_ms = stats.paused_ms();
}

/// Fills in the statistics of a dataflow.
///
/// Only process 0 knows epochs, lag and freshness. In other processes these stay at their defaults.
fn dataflow(beat: &mut Heartbeat, stats: &job::Stats) {
    beat.records = stats.records.load(Relaxed);
    beat.bytes = stats.bytes.load(Relaxed);
    beat.dead_letters = stats.dead_letters.load(Relaxed);
    beat.keys_in_error = stats.keys_in_error();
    beat.bound = stats.bound.load(Relaxed);
    beat.durable = stats.durable.load(Relaxed);
    beat.checkpointed = stats.checkpointed.load(Relaxed);
    beat.behind = stats.behind();
    let lag = stats.lag();
    (beat.waits_since_ms, beat.lag_known) = (lag.since_ms, lag.known);
    beat.freshness_p50_ms = stats.freshness(0.5);
    beat.freshness_p99_ms = stats.freshness(0.99);
    beat.freshness_p999_ms = stats.freshness(0.999);
    beat.sink_rows = stats.sink.rows.load(Relaxed);
    beat.sink_pending = stats.sink.pending.load(Relaxed);
    beat.sink_p50_ms = stats.sink.latency_ms(0.5);
    beat.sink_p99_ms = stats.sink.latency_ms(0.99);
    beat.rows = lock(&stats.row_counts).points();
    beat.operators = operators(stats.operators.by_name());
}

/// The most expensive operators first, at most [`OPERATORS_TOLD_MAX`].
///
/// A job with many views has hundreds of operators, and a heartbeat must stay small.
fn operators(all: BTreeMap<String, job::Operator>) -> Vec<OperatorHeartbeat> {
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_by_key(|(_, operator)| std::cmp::Reverse(operator.busy));
    all.truncate(OPERATORS_TOLD_MAX);
    let told = |(name, operator): (String, job::Operator)| OperatorHeartbeat {
        name,
        busy_us: micros(&operator.busy),
        rows: operator.held.map(|held| whole(held.rows)),
        bytes: operator.held.map(|held| whole(held.bytes)),
        threads_us: operator.by_worker.iter().map(micros).collect(),
    };
    all.into_iter().map(told).collect()
}

/// A time for the protocol, in µs.
fn micros(time: &Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A count for the protocol, which has signed numbers.
fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use tidemill_protocol::{Part, ProcessKey};

    fn shown() -> Shown {
        Shown::of(ProcessKey {
            job: "users".into(),
            part: Part::Dataflow,
            generation: 3,
            index: 0,
        })
    }

    #[test]
    fn a_dataflow_says_what_it_waits_for_and_how_far_it_is() {
        let stats = Arc::new(job::Stats::default());
        stats.durable.store(5, Relaxed);
        stats.bytes.store(70, Relaxed);
        stats.say("waiting: no topic");
        let shown = Shown {
            dataflow: Some(Arc::clone(&stats)),
            ..shown()
        };
        let beat = of(&shown, "a:1");
        assert_eq!((beat.durable, beat.bytes), (5, 70));
        assert_eq!(beat.http, "a:1");
        assert_eq!(beat.doing.as_deref(), Some("waiting: no topic"));
        assert_eq!(beat.freshness_p99_ms, None);
        stats.live.store(true, Relaxed);
        assert_eq!(of(&shown, "a:1").doing, None);
    }

    #[test]
    fn an_ingest_counts_what_it_published() {
        let stats = Arc::new(ingest::Stats::default());
        stats.published.store(9, Relaxed);
        let shown = Shown {
            ingest: Some(stats),
            ..shown()
        };
        let beat = of(&shown, "");
        assert_eq!(beat.records, 9);
        assert!(beat.doing.is_some(), "its capture is not open");
    }

    #[test]
    fn the_busiest_operators_are_told() {
        let operator = |ms| job::Operator {
            busy: Duration::from_millis(ms),
            held: None,
        };
        let all = (0..100).map(|n| (format!("o{n}"), operator(n))).collect();
        let told = operators(all);
        assert_eq!(told.len(), OPERATORS_TOLD_MAX);
        assert_eq!((told[0].name.as_str(), told[0].busy_us), ("o99", 99_000));
    }
}
