//! The command `wait`: blocks until everything that was committed before is in every view of a job.
//!
//! In: an LSN, a time, or neither for now. Out: requests to the master, or to a process of the job
//! itself, until the answer is yes. The progress of the wait (`lsn` and `ends`) is kept here and
//! sent with each request, so the server keeps no state for it.

use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use jiff::Timestamp;
use tidemill_config::args::every;
use tidemill_ingest::capture::mark::CommitPosition;
use tidemill_protocol::api::{Master, WhichMaster};
use tidemill_protocol::exit::{Ended, NotYet};
use tidemill_protocol::output;
use tidemill_web::readable::{Answer, Question, path};

/// Time between two requests.
const ASK: Duration = Duration::from_millis(100);
/// Longest pause before a `--committed-before` that is still in the future.
const SLEEP_MAX: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(crate) struct ReadableArgs {
    /// The job's name
    pub(crate) job: String,
    /// Everything that was committed before this LSN of PostgreSQL, such as 0/16B3748 [default:
    /// everything that is committed now]
    #[arg(long, value_name = "LSN")]
    pub(crate) lsn: Option<CommitPosition>,
    /// Everything that is committed before this time, such as 2026-11-28T12:00:00Z, by the
    /// database's clock
    #[arg(long, value_name = "TIME", conflicts_with = "lsn")]
    pub(crate) committed_before: Option<Timestamp>,
    /// Wait no longer than this, such as 30s or 10m: then the exit code is 6
    #[arg(long, value_name = "TIME", value_parser = every, default_value = "5m")]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) master: WhichMaster,
}

/// Waits, and prints the epoch through which the views are readable.
///
/// # Errors
///
/// * [`NotYet`] (exit code 6): not readable within `--timeout`; the message says what is waited
///   for.
/// * [`Ended`] (exit code 8): the job is stopped or failed.
/// * The master refuses the request (exit code 1).
pub(super) fn wait(args: &ReadableArgs, master: &Master) -> anyhow::Result<()> {
    let deadline = Instant::now() + args.timeout;
    let mut question = Question {
        lsn: args.lsn.map(|place| place.to_string()),
        committed_before_ms: args.committed_before.map(Timestamp::as_millisecond),
        ends: None,
    };
    loop {
        let waits_for = match master.post::<Answer>(&path(&args.job), &question) {
            Ok(answer) if answer.readable => {
                let before = answer.lsn.map(|lsn| format!(" before {lsn}"));
                let (before, epoch) = (before.unwrap_or_default(), answer.epoch);
                let name = &args.job;
                output::line(&format!(
                    "{name}: everything{before} is in every view, at epoch {epoch}"
                ));
                return Ok(());
            }
            Ok(Answer {
                ended: Some(why), ..
            }) => return Err(Ended(why).into()),
            Ok(answer) => {
                (question.lsn, question.ends) = (answer.lsn, answer.ends);
                answer.waits_for.unwrap_or_default()
            }
            Err(failure) if failure.passes() => failure.to_string(),
            Err(failure) => return Err(failure.into()),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let (name, timeout) = (&args.job, args.timeout);
            let what = format!("{name}: not readable within {timeout:?}: {waits_for}");
            return Err(NotYet(what).into());
        }
        thread::sleep(left.min(pause(&question)));
    }
}

/// The pause before the next request. While the time of `--committed-before` is in the future, the
/// database is asked less often.
fn pause(question: &Question) -> Duration {
    let at_ms = question
        .committed_before_ms
        .filter(|_| question.lsn.is_none());
    let left = at_ms.map(|at| at.saturating_sub(Timestamp::now().as_millisecond()));
    let left = left.and_then(|left| u64::try_from(left).ok());
    Duration::from_millis(left.unwrap_or(0)).clamp(ASK, SLEEP_MAX)
}
