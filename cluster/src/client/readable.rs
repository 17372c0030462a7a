//! `wait`: until everything that was committed before is in every view of a job.
//!
//! Flows in: a place in the database, a time, or neither. Flows out: questions to the master, or to
//! a process of the job itself, until one is answered. How far the waiting is is kept here.

use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use jiff::Timestamp;
use tidemill_ingest::capture::mark::Place;

use crate::api::{Master, WhichMaster};
use crate::args::every;
use crate::exit::{Ended, NotYet};
use crate::output;
use crate::readable::{Answer, Question, path};

/// Time between two questions.
const ASK: Duration = Duration::from_millis(100);
/// The longest pause before a time that has not come.
const SLEEP_MAX: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(crate) struct ReadableArgs {
    /// The job's name
    pub(crate) job: String,
    /// Everything that was committed before this LSN of PostgreSQL, such as 0/16B3748 [default:
    /// everything that is committed now]
    #[arg(long, value_name = "LSN")]
    pub(crate) lsn: Option<Place>,
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

/// Waits, and says through which epoch the views are readable.
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

/// How long until the next question: the database is not asked again and again for a time that has
/// not come.
fn pause(question: &Question) -> Duration {
    let at_ms = question
        .committed_before_ms
        .filter(|_| question.lsn.is_none());
    let left = at_ms.map(|at| at.saturating_sub(Timestamp::now().as_millisecond()));
    let left = left.and_then(|left| u64::try_from(left).ok());
    Duration::from_millis(left.unwrap_or(0)).clamp(ASK, SLEEP_MAX)
}
