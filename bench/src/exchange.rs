//! Benchmark `exchange`: rows between two processes in both directions, over loopback sockets, with
//! timely's own serialization (bincode) and with each of Tidemill's codecs.
//!
//! Each process has one worker, which makes rows and sends all of them to the other one. The
//! contestants alternate, each with two new processes. The number of rows that arrive and the sum
//! of every byte are checked.
//!
//! | value | unit |
//! |---|---|
//! | `rows/s` | rows of both directions together, by the slower process's time |
//! | `CPU ns/row` | CPU time of both processes for each row, making and checking rows included |
//!
//! The time begins when both processes are connected and ends when all rows have arrived. The bars:
//! each codec has at least the rows per second and per CPU-second of bincode. The codec
//! `abomonation` takes part in builds with that feature.

use std::cell::Cell;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use tidemill_dataflow::exchange::{Crossing, Engine, Row as Bytes};
use timely::CommunicationConfig;
use timely::dataflow::InputHandle;
use timely::dataflow::channels::pact::{Exchange, ParallelizationContract};
use timely::dataflow::operators::{Operator, Probe};
use timely::worker::Worker;

use crate::harness::child::{Running, Used};
use crate::harness::report::{Report, Row};

/// Size of a row's key, in bytes.
const KEY: usize = 12;
/// Rows sent at one timestamp.
///
/// A change of the timestamp lets progress messages flow, as a job's epochs do.
const BATCH: u64 = 10_000;
/// Timestamps in flight.
///
/// It bounds the memory of a sender that is faster than the receiver.
const AHEAD: u64 = 4;

/// Longest sleep of a worker that waits for the other one. An event wakes it earlier.
const PARK: Option<Duration> = Some(Duration::from_millis(10));

/// A value with its key, as in joins and in first rows.
type Value = ((Bytes, Bytes), u64, isize);

/// Flags of this benchmark.
#[derive(Debug, Args)]
pub(crate) struct ExchangeArgs {
    /// Megabytes of rows that each process sends in one run
    #[arg(long, default_value_t = 256)]
    exchange_mb: u64,
    /// Bytes of a row, key and value, one part of the benchmark for each number
    #[arg(long, value_delimiter = ',', default_value = "32,128,512")]
    row_bytes: Vec<usize>,
    /// Times that each codec runs
    #[arg(long, default_value_t = 5)]
    exchange_rounds: usize,
}

/// What a row crosses by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    /// Timely's own serialization, the baseline.
    Bincode,
    /// Tidemill's codec, which checks what arrives.
    Checked,
    /// Tidemill's codec that reads memory as it was written.
    Abomonation,
}

/// Flags of the hidden subcommand.
#[derive(Debug, Args)]
pub(crate) struct PeerArgs {
    /// The way to serialize.
    by: By,
    /// The index of this process, 0 or 1.
    #[arg(long)]
    index: usize,
    /// Where each process listens, by index.
    #[arg(long, value_delimiter = ',')]
    addresses: Vec<String>,
    /// Rows that this process sends.
    #[arg(long)]
    rows: u64,
    /// Bytes of a row, key and value.
    #[arg(long)]
    row_bytes: usize,
}

/// What arrived in one process.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Arrived {
    /// Rows that arrived.
    rows: u64,
    /// Their checksum.
    sum: u64,
    /// Time in µs from the first row sent to the last row received.
    micros: u64,
}

/// The ways to serialize that this build contains.
fn contestants() -> Vec<By> {
    let mut all = vec![By::Bincode, By::Checked];
    if cfg!(feature = "abomonation") {
        all.push(By::Abomonation);
    }
    all
}

/// The name in the report.
fn name(by: By) -> &'static str {
    match by {
        By::Bincode => "timely's bincode",
        By::Checked => "codec checked",
        By::Abomonation => "codec abomonation",
    }
}

/// Runs the benchmark.
///
/// # Errors
/// `--row-bytes` is smaller than a key, or rows are lost or changed on their way.
pub(crate) fn run(args: &ExchangeArgs, work: &Path) -> anyhow::Result<Report> {
    let mut report = Report::new("exchange");
    let all = contestants();
    for bytes in &args.row_bytes {
        if *bytes < KEY {
            bail!("--row-bytes {bytes}: a row has at least {KEY} bytes, those of its key");
        }
        let rows = (args.exchange_mb << 20) / *bytes as u64 / BATCH * BATCH;
        let rows = rows.max(BATCH);
        let expected = expected(rows, *bytes);
        let mut runs = vec![Vec::new(); all.len()];
        for _ in 0..args.exchange_rounds {
            for (by, runs) in all.iter().zip(&mut runs) {
                let run = pair(*by, *bytes, expected, work).with_context(|| name(*by))?;
                let (micros, cpu) = (run.0, run.1.cpu_s * 1e9 / (2 * rows) as f64);
                eprintln!(
                    "{bytes} bytes, {:<18} {micros} µs, {cpu:.0} ns/row",
                    name(*by)
                );
                runs.push((2.0 * rows as f64 / (micros as f64 / 1e6), cpu));
            }
        }
        let table: Vec<Row> = all
            .iter()
            .zip(&runs)
            .map(|(by, runs)| row(*by, *bytes, runs))
            .collect();
        for (by, ours) in all.iter().zip(&table).skip(1) {
            let speed = ours.median("rows/s") / table[0].median("rows/s");
            let cpu = table[0].median("CPU ns/row") / ours.median("CPU ns/row");
            let what = format!("{bytes} bytes, {}: rows per second, × bincode", name(*by));
            report.at_least(&what, speed, 1.0);
            let what = format!(
                "{bytes} bytes, {}: rows per CPU-second, × bincode",
                name(*by)
            );
            report.at_least(&what, cpu, 1.0);
        }
        table.into_iter().for_each(|row| report.row(row));
    }
    Ok(report)
}

/// All runs of a contestant as a row of the report.
///
/// A run is (rows per second, CPU time in ns for each row).
fn row(by: By, bytes: usize, runs: &[(f64, f64)]) -> Row {
    Row {
        name: format!("{bytes} bytes, {}", name(by)),
        values: vec![
            ("rows/s", runs.iter().map(|run| run.0).collect()),
            ("CPU ns/row", runs.iter().map(|run| run.1).collect()),
        ],
    }
}

/// Runs one pair of processes. Returns the time in µs of the slower one, and what both used
/// together.
///
/// # Errors
/// A process ended early, or what arrived is not what was sent.
fn pair(by: By, bytes: usize, (rows, sum): (u64, u64), work: &Path) -> anyhow::Result<(u64, Used)> {
    let addresses = addresses(2)?;
    let kind = by.to_possible_value().context("a codec has a name")?;
    let mut peers = Vec::new();
    for index in 0..2usize {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["exchange-peer", kind.get_name(), "--addresses", &addresses]);
        command.args(["--index", &index.to_string(), "--rows", &rows.to_string()]);
        command.args(["--row-bytes", &bytes.to_string()]);
        command.stdout(Stdio::piped());
        let log = work.join(format!("exchange-{index}.log"));
        peers.push(Running::start(&mut command, &log)?);
    }
    let (mut slowest, mut both) = (0, None::<Used>);
    for peer in &mut peers {
        let output = peer.child.stdout.take().context("no output")?;
        // Timely also prints to stdout, when it tries to connect again.
        let mut lines = BufReader::new(output).lines();
        let line = lines.find(|line| !matches!(line, Ok(said) if !said.starts_with('{')));
        let Some(line) = line.transpose()? else {
            peer.child.wait()?;
            peer.check_alive()?;
            bail!("a process ended before its rows had arrived");
        };
        let arrived: Arrived = serde_json::from_str(&line)?;
        if (arrived.rows, arrived.sum) != (rows, sum) {
            bail!("{arrived:?} arrived, not {rows} rows with the sum {sum}");
        }
        slowest = slowest.max(arrived.micros);
        let used = peer.used()?;
        both = Some(both.map_or(used, |sum| sum.and(used)));
    }
    Ok((slowest, both.context("no process")?))
}

/// `count` addresses of this machine on which nobody listens.
///
/// The ports are free when this returns; another program may take one before the caller listens
/// there.
pub(crate) fn addresses(count: usize) -> anyhow::Result<String> {
    let held: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()?;
    let addresses = held.iter().map(|it| Ok(it.local_addr()?.to_string()));
    Ok(addresses
        .collect::<anyhow::Result<Vec<String>>>()?
        .join(","))
}

/// Makes the row with this number.
///
/// The keys are spread over all bytes by a multiplication, as hashed keys are. `bytes` is the size
/// of the row, and the two buffers are reused.
fn value(number: u64, bytes: usize, key: &mut [u8; KEY], value: &mut Vec<u8>) -> (Bytes, Bytes) {
    key[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    value.resize(bytes - KEY, number as u8);
    if let Some(first) = value.first_mut() {
        *first = number as u8;
    }
    (Bytes::new(key), Bytes::new(value))
}

/// The checksum of a row.
///
/// Sums over rows do not depend on their order.
fn sum(row: &Value) -> u64 {
    let hash = row.0.0.owner(1 << 32);
    hash.wrapping_add(row.1).wrapping_add(row.2 as u64)
}

/// How many rows must arrive, and their checksum.
fn expected(rows: u64, bytes: usize) -> (u64, u64) {
    let (mut key, mut text) = ([0; KEY], Vec::new());
    let sums = (0..rows).map(|number| {
        let pair = value(number, bytes, &mut key, &mut text);
        sum(&(pair, number / BATCH, 1))
    });
    (rows, sums.fold(0, u64::wrapping_add))
}

/// Runs one of the two processes.
///
/// It prints [`Arrived`] as a line of JSON and waits until its stdin is closed, so that its CPU
/// time can be read.
pub(crate) fn peer(args: PeerArgs) -> anyhow::Result<()> {
    let communication = CommunicationConfig::Cluster {
        threads: 1,
        process: args.index,
        addresses: args.addresses.clone(),
        report: false,
        zerocopy: false,
    };
    let config = timely::Config {
        communication,
        worker: timely::WorkerConfig::default(),
    };
    let guards = timely::execute(config, move |worker| {
        let other = 1 - worker.index() as u64;
        let engine = match args.by {
            By::Bincode => return send(worker, &args, Exchange::new(move |_: &Value| other)),
            By::Checked => Engine::Checked,
            By::Abomonation => Engine::Abomonation,
        };
        let pact = Crossing::new(
            engine,
            // A row that cannot be decoded ends the process, and with it the benchmark.
            |error| panic!("{error}"),
            move |_: &Value| other,
        );
        send(worker, &args, pact)
    });
    let results = guards.map_err(anyhow::Error::msg)?.join();
    for result in results {
        println!(
            "{}",
            serde_json::to_string(&result.map_err(anyhow::Error::msg)?)?
        );
    }
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Sends and receives all rows. Returns what arrived.
///
/// `pact` is the serialization under test; it sends each row to the other worker.
fn send<P>(worker: &mut Worker, args: &PeerArgs, pact: P) -> Arrived
where
    P: ParallelizationContract<u64, Vec<Value>>,
{
    let mut input = InputHandle::new();
    let (rows, total) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0u64)));
    let (counted, added) = (Rc::clone(&rows), Rc::clone(&total));
    let probe = worker.dataflow(|scope| {
        let taken = input.to_stream(scope).unary(pact, "Take", move |_, _| {
            move |input, output| {
                let _: &mut timely::dataflow::operators::generic::OutputBuilderSession<
                    '_,
                    u64,
                    timely::container::CapacityContainerBuilder<Vec<()>>,
                > = output;
                input.for_each(|_, values: &mut Vec<Value>| {
                    for value in values.drain(..) {
                        counted.set(counted.get() + 1);
                        added.set(added.get().wrapping_add(sum(&value)));
                    }
                });
            }
        });
        taken.probe().0
    });
    // The other process is connected when it has sent its first progress. The clock starts after
    // that.
    input.advance_to(1);
    while probe.less_than(&1) {
        worker.step_or_park(PARK);
    }
    let began = Instant::now();
    let (mut key, mut text) = ([0; KEY], Vec::new());
    for number in 0..args.rows {
        let epoch = number / BATCH;
        if number % BATCH == 0 {
            input.advance_to(epoch + 1);
            while probe.less_than(&(epoch + 1).saturating_sub(AHEAD)) {
                worker.step_or_park(PARK);
            }
        }
        input.send((value(number, args.row_bytes, &mut key, &mut text), epoch, 1));
        if number % 1000 == 999 {
            worker.step();
        }
    }
    input.close();
    while !probe.done() {
        worker.step_or_park(PARK);
    }
    Arrived {
        rows: rows.get(),
        sum: total.get(),
        micros: began.elapsed().as_micros() as u64,
    }
}
