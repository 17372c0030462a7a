//! Benchmark `bind`: binding an epoch in a journal in a directory, compared with writing and
//! syncing a file of the same size in the same folder. The two alternate, and the journal is
//! truncated meanwhile, as a job does.
//!
//! What is measured: the time in µs of `Journal::bind`, that is, until the offsets of an epoch are
//! durable. An epoch's rows leave the source only after that, so this time is part of every
//! change's freshness. The baseline shows what the disk itself takes for a new file of as many
//! bytes with `fsync`.
//!
//! ```text
//! bind ── 5 ms ── bare write ── 5 ms ── bind ── 5 ms ── …      2000 of each, on a fixed schedule
//! ```
//!
//! The bar: the 99th percentile of binding is at most 10 ms.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tidemill_state::journal::{Binding, Journal, Offsets};
use tidemill_state::store;

use crate::freshness::latency_row;
use crate::harness::load;
use crate::harness::report::Report;

/// Number of bindings.
const BINDINGS: u64 = 2000;
/// Time between two bindings. The bare write is half way between.
const SPACING: Duration = Duration::from_millis(10);
/// Number of bindings between two truncations of the journal.
const TRUNCATE_EVERY: u64 = 500;
/// Partitions whose offsets move in each epoch.
const PARTITIONS: u32 = 8;

/// Runs the benchmark.
///
/// `work` is on the disk that is measured.
///
/// # Errors
/// The journal or the file cannot be written.
pub(crate) fn run(work: &Path) -> anyhow::Result<Report> {
    let mut report = Report::new("bind");
    let folder = tempfile::tempdir_in(work)?;
    let state = store::open(&format!("file://{}", folder.path().display()))?;
    let (journal, _) = Journal::open(state, "bench")?;
    let bytes = serde_json::to_vec(&binding(BINDINGS))?;
    let (mut ours, mut bare) = (load::latencies()?, load::latencies()?);
    std::thread::scope(|scope| {
        let (truncate, epochs) = channel();
        let journal = &journal;
        let truncating = scope.spawn(move || {
            epochs
                .into_iter()
                .try_for_each(|epoch| journal.truncate(epoch))
        });
        let start = Instant::now() + SPACING;
        for epoch in 1..=BINDINGS {
            let due = start + SPACING * u32::try_from(epoch)?;
            let binding = binding(epoch);
            wait_until(due);
            let began = Instant::now();
            journal.bind(&binding)?;
            ours.record(u64::try_from(began.elapsed().as_micros())?)?;
            wait_until(due + SPACING / 2);
            let began = Instant::now();
            let mut file = File::create(folder.path().join(format!("bare-{epoch}")))?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            bare.record(u64::try_from(began.elapsed().as_micros())?)?;
            if epoch % TRUNCATE_EVERY == 0 {
                truncate
                    .send(binding.epoch)
                    .context("the truncating thread ended")?;
            }
        }
        drop(truncate);
        match truncating.join() {
            Ok(truncated) => Ok(truncated?),
            Err(_) => bail!("the truncating thread panicked"),
        }
    })?;
    report.row(latency_row("bind", &ours));
    report.row(latency_row("bare write and sync", &bare));
    report.at_most(
        "p99 in ms",
        ours.value_at_quantile(0.99) as f64 / 1000.0,
        10.0,
    );
    Ok(report)
}

/// Sleeps until `due`; returns at once if it is past.
fn wait_until(due: Instant) {
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
}

/// The binding of one epoch.
///
/// It has the size of a real one: offsets of 8 partitions of one topic.
fn binding(epoch: u64) -> Binding {
    let ends = (0..PARTITIONS).map(|partition| (partition, 1_000_000 + epoch.cast_signed()));
    Binding {
        epoch: 1_700_000_000_000 + epoch,
        ends: Offsets::from([("users".to_owned(), ends.collect())]),
        ..Binding::default()
    }
}
