//! The binary `tidemill`: one entry point for all commands.
//!
//! The binary computes nothing itself. A command reads its flags ([`cli`]), resolves the
//! connections ([`connections`]), reads the pipeline ([`pipeline`]) and calls the libraries
//! `ingest` and `dataflow`. Errors are printed by [`output`], and [`exit`] chooses the exit code.

mod api;
mod args;
mod assignment;
mod check;
mod cli;
mod client;
mod connections;
mod dataflow;
mod dead_letters;
mod display;
mod exit;
mod frame;
mod heartbeat;
mod hosts;
mod ingest;
mod lease;
mod logging;
mod logs;
mod manual;
mod master;
mod mesh;
mod observe;
mod output;
mod pipeline;
mod preview;
mod probe;
mod protocol;
mod readable;
mod redact;
mod removal;
mod rotate;
mod run;
mod services;
mod table;
mod token;
mod urls;
mod verify;
mod views;
mod watch;
mod worker;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

/// Differential dataflow allocates and frees many small rows all the time, at which this allocator
/// is faster.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Ingest(args) => ingest::run(&args),
        Command::Dataflow(args) => dataflow::run(&args),
        Command::Check(args) => check::check(&args),
        Command::Explain(args) => check::explain(&args),
        Command::Plan(args) => preview::plan(&args),
        Command::Reset(args) => removal::reset(&args),
        Command::Drop(args) => removal::drop(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Master(args) => master::run(&args),
        Command::DeadLetters(command) => dead_letters::run(&command),
        Command::Worker(args) => worker::run(&args),
        Command::Submit(args) => client::submit(&args),
        Command::Status(args) => client::status(&args),
        Command::Rescale(args) => client::rescale(&args),
        Command::Wait(args) => client::wait_until_readable(&args),
        Command::Stop(args) => client::stop(&args),
        Command::Restart(args) => client::restart(&args),
        Command::Remove(args) => client::remove(&args),
        Command::Logs(args) => client::logs(&args),
        Command::Manual(args) => manual::run(&args),
    };
    match ended {
        Ok(()) => ExitCode::from(exit::OK),
        Err(error) => {
            output::error(&error);
            ExitCode::from(exit::code_of(&error))
        }
    }
}
