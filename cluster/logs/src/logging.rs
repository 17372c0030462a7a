//! Logging of a process: tracing events as text or JSON lines on stderr and in files. Each line has
//! the time, the level, the job, the generation, the process and the worker thread. Passwords are
//! masked.
//!
//! In: events of all threads. Out: lines, which [`crate`] reads again.
//!
//! ```text
//! text: 2026-11-22T21:14:05.123456Z  INFO job=users generation=3 process=1 worker=0 tidemill: up
//! JSON: {"job":"users","generation":3,"process":1,"worker":0,"timestamp":…,"level":"INFO",…}
//! ```

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use clap::{Args, ValueEnum};
use tidemill_protocol::exit::Usage;
use tidemill_protocol::{ProcessKey, output, redact};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::rotate::Rotating;

/// Default size of a log file, in bytes.
const LOG_BYTES: u64 = 64 * 1024 * 1024;
/// Default number of log files that are kept of a process.
const LOG_FILES: usize = 5;
/// Smallest allowed size of a log file, in bytes.
const LOG_BYTES_MIN: u64 = 4096;

/// Prefix of the names of timely's worker threads; the worker's number follows.
const WORKER_THREAD: &str = "timely:work-";

/// Where the log goes and what is in it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Log")]
pub struct LogArgs {
    /// error, warn, info, debug, trace, or directives as RUST_LOG takes them
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<String>,
    /// How lines look
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Write the log to files in this folder too, besides stderr
    #[arg(long, value_name = "DIR")]
    pub log_dir: Option<PathBuf>,
    /// Write it to the files alone, not on stderr
    #[arg(long, requires = "log_dir")]
    pub(crate) log_files_only: bool,
    /// Begin a new file when one has this many bytes, such as 64MiB
    #[arg(long, value_name = "SIZE", value_parser = size, default_value_t = LOG_BYTES)]
    pub log_size: u64,
    /// How many files are kept of each process
    #[arg(long, value_name = "N", default_value_t = LOG_FILES as u16,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub log_keep: u16,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Parses `--log-size`.
///
/// The units are powers of 1024.
///
/// # Errors
/// The text is no number with a known unit, or fewer than [`LOG_BYTES_MIN`] bytes.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text[digits.len()..].trim() {
        "" | "B" => Some(1),
        "K" | "KiB" | "k" => Some(1 << 10),
        "M" | "MiB" | "m" => Some(1 << 20),
        "G" | "GiB" | "g" => Some(1 << 30),
        _ => None,
    };
    let number = digits.parse::<u64>().ok();
    let bytes = number
        .zip(unit)
        .and_then(|(number, unit)| number.checked_mul(unit));
    let bytes =
        bytes.ok_or_else(|| format!("`{text}` is no size such as 64MiB, 500KiB or 1GiB"))?;
    if bytes < LOG_BYTES_MIN {
        return Err(format!("expected at least {LOG_BYTES_MIN} bytes"));
    }
    Ok(bytes)
}

/// The process whose log it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Origin<'a> {
    /// The job; `None` for a process that serves all jobs.
    pub job: Option<&'a str>,
    /// The component of the job, or the command.
    pub part: &'a str,
    /// The index of the process.
    pub process: usize,
    /// The generation, for a child of a worker.
    pub generation: Option<u64>,
}

impl<'a> Origin<'a> {
    /// The origin of a child of a worker.
    pub fn of(key: &'a ProcessKey) -> Self {
        Self {
            job: Some(&key.job),
            part: key.part.name(),
            process: key.index,
            generation: Some(key.generation),
        }
    }

    /// The begin of the names of the log files.
    ///
    /// `JOB.PART.INDEX` for a process of a job, otherwise the command's name.
    pub(crate) fn stem(&self) -> String {
        match self.job {
            Some(job) => format!("{job}.{}.{}", self.part, self.process),
            None => self.part.to_owned(),
        }
    }

    /// The fields in each line, without the worker thread.
    fn fields(&self, format: LogFormat) -> String {
        let Some(job) = self.job else {
            return String::new();
        };
        let process = self.process;
        let generation = self.generation.map(|number| match format {
            LogFormat::Text => format!("generation={number} "),
            LogFormat::Json => format!("\"generation\":{number},"),
        });
        let generation = generation.unwrap_or_default();
        match format {
            LogFormat::Text => format!("job={job} {generation}process={process} "),
            // Debug quotes the name, so that no character in it can break the JSON.
            LogFormat::Json => format!("\"job\":{job:?},{generation}\"process\":{process},"),
        }
    }
}

/// Starts logging. The level is `--log`, else `RUST_LOG`, else `default`.
///
/// # Errors
///
/// The level is invalid ([`Usage`], exit code 2), or the log folder cannot be written.
pub fn start(args: &LogArgs, default: &str, origin: &Origin<'_>) -> anyhow::Result<()> {
    let directives = match &args.log {
        Some(given) => given.clone(),
        None => match std::env::var("RUST_LOG") {
            Ok(given) if !given.is_empty() => given,
            // The sink reports itself when Cassandra does not answer; its driver would do so at
            // each attempt.
            _ => format!("{default},scylla=off"),
        },
    };
    let filter = EnvFilter::try_new(&directives)
        .map_err(|error| Usage(format!("log level `{directives}`: {error}")))?;
    let file = match &args.log_dir {
        Some(folder) => {
            let keep = usize::from(args.log_keep);
            let opened = Rotating::open(folder, &origin.stem(), args.log_size, keep);
            let opened = opened.with_context(|| {
                format!("--log-dir: no log can be written to {}", folder.display())
            })?;
            Some(Arc::new(Mutex::new(opened)))
        }
        None => None,
    };
    let lines = Lines {
        format: args.log_format,
        fields: origin.fields(args.log_format),
        stderr: !args.log_files_only,
        file,
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

/// Writer that adds the process's fields to each line. A tracing span would not do: timely starts
/// the worker threads, and a span entered here does not reach them.
#[derive(Debug, Clone)]
struct Lines {
    /// Decides where the fields are inserted.
    format: LogFormat,
    /// The fields of the process, as text or as part of a JSON object.
    fields: String,
    /// Whether lines also go to stderr.
    stderr: bool,
    /// The log file, if `--log-dir` was given.
    file: Option<Arc<Mutex<Rotating>>>,
}

impl Lines {
    /// Inserts the fields after the time and the level, or into the JSON object.
    ///
    /// `thread` is the name of the calling thread. Only timely's worker threads have a number.
    fn line(&self, text: &str, thread: Option<&str>) -> String {
        let worker = thread.and_then(|name| name.strip_prefix(WORKER_THREAD));
        let worker = worker.and_then(|number| number.parse::<usize>().ok());
        let fields = &self.fields;
        let (head, worker) = match self.format {
            // After the time and the level, which is padded to five characters.
            LogFormat::Text => (
                text.find(' ').map_or(0, |end| end + " LEVEL ".len()),
                worker.map(|number| format!("worker={number} ")),
            ),
            LogFormat::Json => (1, worker.map(|number| format!("\"worker\":{number},"))),
        };
        let worker = worker.unwrap_or_default();
        match text.split_at_checked(head) {
            Some((head, rest)) => format!("{head}{fields}{worker}{rest}"),
            None => text.to_owned(),
        }
    }
}

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let text = self.line(&text, std::thread::current().name());
        let written = self.file.as_ref().map_or(Ok(()), |file| {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            file.write(&redact::text(&text))
        });
        // A line that the disk does not take is printed to stderr instead.
        if self.stderr || written.is_err() {
            output::log(&text);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!(size("64MiB"), Ok(LOG_BYTES));
        assert_eq!(size("500 KiB"), Ok(500 << 10));
        assert_eq!(size("8192"), Ok(8192));
        for wrong in ["", "MiB", "1 mile", "-1", "1KiB", "99999999999GiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_line_says_whose_it_is() {
        let origin = Origin {
            job: Some("users"),
            part: "dataflow",
            process: 1,
            generation: Some(3),
        };
        assert_eq!(origin.stem(), "users.dataflow.1");
        let lines = |format, origin: &Origin<'_>| Lines {
            format,
            fields: origin.fields(format),
            stderr: true,
            file: None,
        };
        let text = lines(LogFormat::Text, &origin);
        let said = "2026-11-22T21:14:05.123456Z  INFO tidemill: started\n";
        assert_eq!(
            text.line(said, Some("timely:work-0")),
            "2026-11-22T21:14:05.123456Z  INFO job=users generation=3 process=1 worker=0 \
             tidemill: started\n"
        );
        let json = lines(LogFormat::Json, &origin);
        let said = json.line("{\"level\":\"INFO\"}\n", Some("timely:send-0"));
        let expected = "{\"job\":\"users\",\"generation\":3,\"process\":1,\"level\":\"INFO\"}\n";
        assert_eq!(said, expected);
        let master = Origin {
            part: "master",
            ..Origin::default()
        };
        assert_eq!(master.stem(), "master");
        let said = lines(LogFormat::Text, &master).line("T ERROR a: b\n", None);
        assert_eq!(said, "T ERROR a: b\n");
    }
}
