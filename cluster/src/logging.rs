//! The process's own log: tracing events as text or JSON lines on stderr, each naming its job and
//! its process, with passwords masked.

use std::io;

use anyhow::Context;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::cli::{LogArgs, LogFormat};
use crate::exit::Usage;
use crate::output;

/// Starts the log. The level is `--log`, else `RUST_LOG`, else `default`.
pub(crate) fn start(
    args: &LogArgs,
    default: &str,
    job: &str,
    process: usize,
) -> anyhow::Result<()> {
    let directives = match &args.log {
        Some(given) => given.clone(),
        None => match std::env::var("RUST_LOG") {
            Ok(given) if !given.is_empty() => given,
            // The sink says itself when Cassandra is away; its driver would say so at each try.
            _ => format!("{default},scylla=off"),
        },
    };
    let filter = EnvFilter::try_new(&directives)
        .map_err(|error| Usage(format!("log level `{directives}`: {error}")))?;
    let lines = Lines {
        format: args.log_format,
        // Through Debug, so that a folder's name cannot break the JSON.
        prefix: match args.log_format {
            LogFormat::Text => format!("job={job} process={process} "),
            LogFormat::Json => format!("{{\"job\":{job:?},\"process\":{process},"),
        },
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(lines);
    match args.log_format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    }
    .map_err(|error| anyhow::anyhow!(error))
    .context("the log cannot be started")
}

/// Puts job and process into each line: worker threads are started by timely, so a span entered
/// here would not reach them.
#[derive(Debug, Clone)]
struct Lines {
    format: LogFormat,
    prefix: String,
}

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let rest = match self.format {
            LogFormat::Text => &text,
            LogFormat::Json => text.strip_prefix('{').unwrap_or(&text),
        };
        output::log(&format!("{}{rest}", self.prefix));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Lines;

    fn make_writer(&'a self) -> Self::Writer {
        self.clone()
    }
}
