//! Benchmark `nexmark`: the queries of `examples/nexmark` over generated auctions in Kafka, each a
//! job of its own, compared with a hand-written program of the same query.
//!
//! | module | owns |
//! |---|---|
//! | [`events`] | the generator |
//! | [`topics`] | the topics, which are filled once |
//! | [`by_hand`] | the hand-written programs |
//! | [`contestants`] | the processes that run a program or a job |
//!
//! Tidemill drops the rows that it would write to a table (`blackhole://`), as the benchmark does
//! elsewhere: what is measured is reading, decoding, the dataflow, the journal and the checkpoints.
//! The clock of a run starts with its process, and stops when all events are in the answer. The
//! numbers of rows of both answers must be equal.

mod by_hand;
mod contestants;
mod events;
mod topics;

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use clap::Args;

use crate::aggregate::{progress, row};
use crate::harness::child::{Running, Used};
use crate::harness::report::{Report, Row};
use crate::harness::services::Services;
use contestants::Answer;
pub(crate) use contestants::{PeerArgs, peer};

/// The queries that keep nothing.
const STATELESS: [&str; 3] = ["q0", "q1", "q2"];

/// Flags of this benchmark.
#[derive(Debug, Args)]
pub(crate) struct NexmarkArgs {
    /// Events in the topics
    #[arg(long, default_value_t = 2_000_000)]
    events: u64,
    /// Queries, such as q0,q9; those without a hand-written program are measured alone
    #[arg(long, value_delimiter = ',', default_values = by_hand::QUERIES)]
    queries: Vec<String>,
    /// Times that each contestant runs
    #[arg(long, default_value_t = 3)]
    nexmark_rounds: usize,
}

/// Runs the benchmark.
///
/// # Errors
/// Kafka does not answer, a contestant ended early, or the answers differ.
pub(crate) fn run(args: &NexmarkArgs, services: &Services, work: &Path) -> anyhow::Result<Report> {
    topics::fill(services, args.events)?;
    let mut report = Report::new("nexmark");
    for query in &args.queries {
        let race = Race {
            query,
            events: args.events,
            services,
            work,
        };
        race.run(args.nexmark_rounds, &mut report)
            .with_context(|| query.clone())?;
    }
    Ok(report)
}

/// One query, ready to run.
struct Race<'a> {
    query: &'a str,
    events: u64,
    services: &'a Services,
    work: &'a Path,
}

impl Race<'_> {
    /// Runs both contestants in turn.
    fn run(&self, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
        let by_hand = by_hand::program(self.query).is_some();
        let (mut base, mut ours, mut read) = (Vec::new(), Vec::new(), 0);
        for _ in 0..rounds {
            let (answer, used) = self.contestant(Some(1))?;
            progress(&format!("{} tidemill -w 1", self.query), used);
            ours.push(used);
            read = answer.events;
            if !by_hand {
                continue;
            }
            let (expected, used) = self.contestant(None)?;
            progress(&format!("{} by hand", self.query), used);
            base.push(used);
            if answer != expected {
                bail!("tidemill has {answer:?}, the program {expected:?}");
            }
        }
        let ours = row(&format!("{} tidemill -w 1", self.query), read, &ours);
        if by_hand {
            let base = row(&format!("{} by hand", self.query), read, &base);
            self.compare(&ours, &base, report);
            report.row(base);
        }
        report.row(ours);
        Ok(())
    }

    /// Adds the bar of the query.
    fn compare(&self, ours: &Row, base: &Row, report: &mut Report) {
        let bar = if STATELESS.contains(&self.query) {
            0.6
        } else {
            0.4
        };
        let rate = ours.median("records/CPU-s") / base.median("records/CPU-s");
        let what = format!("{}: events per CPU-second, × by hand", self.query);
        report.at_least(&what, rate, bar);
    }

    /// Runs a job with this many workers, or the hand-written program.
    fn contestant(&self, workers: Option<usize>) -> anyhow::Result<(Answer, Used)> {
        let folder = tempfile::tempdir_in(self.work)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["nexmark-peer", self.query, &self.events.to_string()]);
        command.arg(self.services.kafka()?);
        if let Some(workers) = workers {
            command.args(["--workers", &workers.to_string()]);
            command.arg("--state").arg(folder.path());
        }
        command.stdout(Stdio::piped());
        let mut running = Running::start(&mut command, &self.work.join("nexmark.log"))?;
        let line = running.line()?;
        let used = running.used()?;
        Ok((serde_json::from_str(&line)?, used))
    }
}
