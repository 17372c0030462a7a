//! The command `logs`: log lines of all processes, merged by time, once or followed.
//!
//! In: pages of the master ([`tidemill_logs`]). Out: lines, each with its worker and process in
//! front.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use tidemill_logs::{Line, Page, Query, level};
use tidemill_protocol::api::{Master, WhichMaster, api};
use tidemill_protocol::output;

/// Time between two requests while there is nothing new.
const ASK: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Only of one: `dataflow.0`, `users.ingest`, a worker's name, `master` [default: all]
    pub(crate) process: Option<String>,
    /// Go on as lines come, until Ctrl-C
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only of one job
    #[arg(long, value_name = "JOB")]
    pub(crate) job: Option<String>,
    /// Only this serious and more: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", value_parser = known_level)]
    pub(crate) level: Option<String>,
    /// Only this young, such as 10m or 2h [default: all that is kept]
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub(crate) since: Option<SignedDuration>,
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) master: WhichMaster,
}

/// Parses `--level`.
fn known_level(given: &str) -> Result<String, String> {
    let known = level(given).map(str::to_owned);
    known.ok_or_else(|| "expected error, warn, info, debug or trace".to_owned())
}

/// Parses `--since`.
fn span(given: &str) -> Result<SignedDuration, String> {
    let span: Option<SignedDuration> = given.parse().ok();
    let span = span.filter(|span| !span.is_negative());
    span.ok_or_else(|| format!("`{given}` is no time such as 10m or 2h"))
}

/// Prints the lines that exist, or with `--follow` also all that come.
///
/// # Errors
///
/// The master refuses or does not answer. With `--follow`, a master that stops answering is asked
/// again.
pub(super) fn show(args: &LogsArgs, master: &Master) -> anyhow::Result<()> {
    let since = args.since.map(|span| Timestamp::now() - span);
    let mut query = Query {
        after: None,
        job: args.job.clone(),
        process: args.process.clone(),
        level: args.level.clone(),
        since_ms: since.map(Timestamp::as_millisecond),
    };
    let mut missing = BTreeMap::new();
    let mut width = 0;
    loop {
        let page: Page = match master.get(&api("logs"), &query.pairs()) {
            Ok(page) => page,
            Err(failure) if args.follow && query.after.is_some() && failure.passes() => {
                tell_missing(
                    &mut missing,
                    [("master".to_owned(), failure.to_string())].into(),
                );
                thread::sleep(ASK);
                continue;
            }
            Err(failure) => return Err(failure.into()),
        };
        for line in &page.lines {
            output::line(&match args.json {
                true => as_json(line),
                false => as_text(line, &mut width),
            });
        }
        query.after = Some(serde_json::to_string(&page.cursor)?);
        tell_missing(&mut missing, page.missing);
        if !page.more {
            if !args.follow {
                return Ok(());
            }
            thread::sleep(ASK);
        }
    }
}

/// Prints the workers whose logs are missing, whenever that changes.
fn tell_missing(told: &mut BTreeMap<String, String>, missing: BTreeMap<String, String>) {
    for (worker, why) in missing
        .iter()
        .filter(|(worker, _)| !told.contains_key(*worker))
    {
        output::log(&format!("no logs of {worker}: {why}\n"));
    }
    *told = missing;
}

/// A line as text: `WORKER/PROCESS | TEXT`, in columns as wide as the widest so far.
fn as_text(line: &Line, width: &mut usize) -> String {
    let source = match line.process.as_str() {
        "master" | "worker" if line.process == line.worker => line.worker.clone(),
        process => format!("{}/{process}", line.worker),
    };
    *width = source.chars().count().max(*width);
    let width = *width;
    format!("{source:<width$} | {}", line.text)
}

/// A line as one JSON object.
fn as_json(line: &Line) -> String {
    let time = Timestamp::from_microsecond(line.time_us).unwrap_or_default();
    let parsed: Option<serde_json::Value> = serde_json::from_str(&line.text).ok();
    serde_json::json!({
        "worker": line.worker,
        "process": line.process,
        "time": time.to_string(),
        "level": line.level,
        "line": parsed.unwrap_or_else(|| line.text.clone().into()),
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_led_by_whose_it_is() {
        let line = |worker: &str, process: &str| Line {
            worker: worker.to_owned(),
            process: process.to_owned(),
            time_us: 1_500_000,
            level: "INFO".to_owned(),
            text: "said".to_owned(),
            next: (1, 5),
        };
        let mut width = 0;
        let first = as_text(&line("node1", "users.dataflow.0"), &mut width);
        assert_eq!(first, "node1/users.dataflow.0 | said");
        let second = as_text(&line("master", "master"), &mut width);
        assert_eq!(second, "master                 | said");
        let json: serde_json::Value = serde_json::from_str(&as_json(&line("n", "p"))).unwrap();
        assert_eq!(json["time"], "1970-01-01T00:00:01.5Z");
        assert_eq!(json["line"], "said");
    }
}
