//! The benchmarks: each compares Tidemill with a baseline in the same run. `bench/run` starts the
//! services that they need.
//!
//! ```text
//! bench/run ─► services ─► tidemill-bench NAME … ─► one report for each benchmark ─► results.jsonl
//!                               │
//!                               ├─► tidemill (the binary under test, a process of its own)
//!                               └─► tidemill-bench baseline | …-peer (also processes)
//! ```
//!
//! A contestant always runs in a process of its own, so that the kernel's numbers of CPU time and
//! memory belong to it alone ([`harness::child`]). Results are ratios within one run on one
//! machine: absolute numbers of different machines are not comparable. Every benchmark checks the
//! answer of its contestants, and a wrong answer ends it without a result.

mod aggregate;
mod baseline;
mod bind;
mod clean_build;
mod exchange;
mod failover;
mod freshness;
mod harness;
mod nexmark;
mod processes;
mod recovery;

use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use harness::report::Report;
use harness::topic::Format;

/// The allocator of `tidemill`, so that the baselines have no disadvantage.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Tidemill beside a baseline in the same run; see bench/README.md
#[derive(Debug, Parser)]
#[command(name = "tidemill-bench", args_conflicts_with_subcommands = true)]
struct Cli {
    /// What to measure [default: json avro freshness]
    #[arg(value_enum)]
    names: Vec<Name>,
    /// The binary to measure
    #[arg(long, default_value = "target/release/tidemill")]
    tidemill: PathBuf,
    /// A folder for what runs leave behind while they run
    #[arg(long, default_value = "target/bench")]
    work: PathBuf,
    /// The file that each result is appended to
    #[arg(long, default_value = "bench/results.jsonl")]
    results: PathBuf,
    /// The URLs of Kafka, the registry, PostgreSQL and Cassandra.
    #[command(flatten)]
    services: crate::harness::services::Services,
    /// Flags of `json`, `avro` and `processes`.
    #[command(flatten)]
    aggregate: aggregate::AggregateArgs,
    /// Flags of `freshness`.
    #[command(flatten)]
    freshness: freshness::FreshnessArgs,
    /// Flags of `recovery`.
    #[command(flatten)]
    recovery: recovery::RecoveryArgs,
    /// Flags of `exchange`.
    #[command(flatten)]
    exchange: exchange::ExchangeArgs,
    /// Flags of `nexmark`.
    #[command(flatten)]
    nexmark: nexmark::NexmarkArgs,
    /// A hidden subcommand, with which the benchmarks start this binary again.
    #[command(subcommand)]
    command: Option<Command>,
}

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Flat JSON users counted by country, beside a hand-written loop
    Json,
    /// The same users as Avro, beside a loop that only polls
    Avro,
    /// From commit in PostgreSQL to readable in Cassandra
    Freshness,
    /// Binding an epoch to a journal in a directory, beside a bare write
    Bind,
    /// A job with a large state, killed and started again, beside reading its topic anew
    Recovery,
    /// Rows between two processes: timely's bincode and our codecs
    Exchange,
    /// The JSON job on two processes, beside one with as many workers
    Processes,
    /// A cluster whose processes are killed and frozen: seen when, live again when; and idle
    Failover,
    /// Nexmark's queries, beside hand-written programs
    Nexmark,
    /// A clean release build; let nothing else run
    Build,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One run of a baseline, in a process of its own
    #[command(hide = true)]
    Baseline(baseline::BaselineArgs),
    /// One of the two processes that exchange rows
    #[command(hide = true)]
    ExchangePeer(exchange::PeerArgs),
    /// One run of a query of Nexmark
    #[command(hide = true)]
    NexmarkPeer(nexmark::PeerArgs),
}

/// Runs the benchmarks one after the other. The first one that fails ends the run; the results
/// before it are in the file.
fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Baseline(args)) => return baseline::run(&args),
        Some(Command::ExchangePeer(args)) => return exchange::peer(args),
        Some(Command::NexmarkPeer(args)) => return nexmark::peer(&args),
        None => {}
    }
    let (defaults, named) = ([Name::Json, Name::Avro, Name::Freshness], &cli.names);
    let names = if named.is_empty() {
        &defaults[..]
    } else {
        named
    };
    std::fs::create_dir_all(&cli.work).with_context(|| format!("{}", cli.work.display()))?;
    for name in names {
        let report = measure(*name, &cli).with_context(|| format!("benchmark {name:?}"))?;
        report.print();
        report.append(&cli.results)?;
    }
    Ok(())
}

/// Runs one benchmark.
///
/// # Errors
/// A service does not answer, a contestant ended early or was too slow, or its answer was wrong. A
/// bar that is missed is no error: the report shows it.
fn measure(name: Name, cli: &Cli) -> anyhow::Result<Report> {
    let (services, tidemill, work) = (&cli.services, &cli.tidemill, &cli.work);
    match name {
        Name::Json => aggregate::run(&cli.aggregate, services, tidemill, work, Format::Json),
        Name::Avro => aggregate::run(&cli.aggregate, services, tidemill, work, Format::Avro),
        Name::Freshness => freshness::run(&cli.freshness, services, tidemill, work),
        Name::Bind => bind::run(work),
        Name::Recovery => recovery::run(&cli.recovery, services, tidemill, work),
        Name::Exchange => exchange::run(&cli.exchange, work),
        Name::Processes => processes::run(&cli.aggregate, services, tidemill, work),
        Name::Failover => failover::run(services, tidemill, work),
        Name::Nexmark => nexmark::run(&cli.nexmark, services, work),
        Name::Build => clean_build::run(work),
    }
}
