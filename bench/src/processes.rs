//! Benchmark `processes`: the JSON job on two processes with one worker each, compared with one
//! process with two workers.
//!
//! What is measured: the same as in `json` ([`crate::aggregate`]), of 1 × 2 and of 2 × 1 worker
//! threads. Two processes exchange rows over loopback sockets, and the comparison shows what that
//! costs. The bar: 0.85 of the speed of one process in wall time.

use std::path::Path;

use crate::aggregate::{AggregateArgs, Race, Shape, progress, row};
use crate::harness::report::Report;
use crate::harness::services::Services;
use crate::harness::topic::Format;

/// The contestants. The second is compared with the first.
const SHAPES: [Shape; 2] = [
    Shape {
        processes: 1,
        workers: 2,
    },
    Shape {
        processes: 2,
        workers: 1,
    },
];

/// Runs the benchmark.
///
/// The two shapes alternate in each round.
///
/// # Errors
/// The same as those of [`Race::ours`].
pub(crate) fn run(
    args: &AggregateArgs,
    services: &Services,
    tidemill: &Path,
    work: &Path,
) -> anyhow::Result<Report> {
    let race = Race::prepare(args, services, tidemill, work, Format::Json)?;
    let mut report = Report::new("processes");
    let mut runs = vec![Vec::new(); SHAPES.len()];
    for _ in 0..args.rounds {
        for (shape, runs) in SHAPES.iter().zip(&mut runs) {
            let used = race.ours(*shape)?;
            progress(&shape.name(), used);
            runs.push(used);
        }
    }
    let rows = SHAPES.iter().zip(&runs);
    let rows: Vec<_> = rows
        .map(|(shape, runs)| row(&shape.name(), args.records, runs))
        .collect();
    let ratio = |column: &str| rows[0].median(column) / rows[1].median(column);
    let what = "2 processes: speed in wall time, × 1 process with 2 workers";
    report.at_least(what, ratio("wall s"), 0.85);
    rows.into_iter().for_each(|row| report.row(row));
    Ok(report)
}
