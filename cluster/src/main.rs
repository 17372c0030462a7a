//! The binary `tidemill`: one entry point for all commands.
//!
//! The binary computes nothing itself. A command reads its flags ([`cli`]), resolves the
//! connections ([`tidemill_config::connections`]), reads the pipeline
//! ([`tidemill_config::pipeline`]) and calls the libraries `ingest` and `dataflow`. Errors are
//! printed by [`tidemill_protocol::output`], and [`tidemill_protocol::exit`] chooses the exit code.
//!
//! ```text
//! arguments ─► cli ─► command ─┬─► one process: ingest, dataflow, run
//!                              ├─► a cluster: master, worker, and the clients of a master
//!                              └─► a look or a removal: check, explain, plan, verify, reset, drop
//! ```
//!
//! Invariants: a command prints only through `tidemill_protocol::output`, which masks secrets, and
//! every error reaches `main`, so that one place chooses the exit code.

mod child;
mod cli;
mod command;
mod manual;
mod terminal;
mod worker;

use std::process::ExitCode;

use clap::Parser;
use cli::{Cli, Command};

/// Differential dataflow allocates and frees many small rows all the time, at which this allocator
/// is faster.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit codes are listed in `tidemill --help` and in `tidemill_protocol::exit`.
fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Run(args) => crate::command::run::run(&args),
        Command::Ingest(args) => crate::command::ingest::run(&args),
        Command::Dataflow(args) => crate::command::dataflow::run(&args),
        Command::Check(args) => crate::command::check::check(&args),
        Command::Explain(args) => crate::command::check::explain(&args),
        Command::Alerts(args) => crate::command::alerts::alerts(&args),
        Command::Plan(args) => crate::command::plan::plan(&args),
        Command::Reset(args) => crate::command::removal::reset(&args),
        Command::Drop(args) => crate::command::removal::drop(&args),
        Command::Verify(args) => crate::command::verify::run(&args),
        Command::Master(args) => tidemill_master::run(&args),
        Command::DeadLetters(command) => crate::command::dead_letters::run(&command),
        Command::Worker(args) => worker::run(&args),
        Command::Submit(args) => crate::command::client::submit(&args),
        Command::Status(args) => crate::command::client::status(&args),
        Command::Rescale(args) => crate::command::client::rescale(&args),
        Command::Wait(args) => crate::command::client::wait_until_readable(&args),
        Command::Stop(args) => crate::command::client::stop(&args),
        Command::Restart(args) => crate::command::client::restart(&args),
        Command::Remove(args) => crate::command::client::remove(&args),
        Command::Logs(args) => crate::command::client::logs(&args),
        Command::Manual(args) => manual::run(&args),
    };
    match ended {
        Ok(()) => tidemill_protocol::exit::ExitCode::Done.into(),
        Err(error) => {
            tidemill_protocol::output::error(&error);
            tidemill_protocol::exit::code_of(&error).into()
        }
    }
}
