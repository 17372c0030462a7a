//! Waiting until a job has reached the desired state, with a line of progress.
//!
//! In: the job's status, polled from the master. Out: success, or why the state is not reached. A
//! master that does not answer for a while is asked again, because the job runs without it.
//!
//! ```text
//! job status ─► Goal::progress ─► Done ───────────────► success
//!               every 250 ms      Unchanged, 8 times ─► success: the job was so already
//!                                 Never, 8 times ─────► the job failed or is stopped (exit code 1)
//!                                 Degraded for 5 s ───► not yet (exit code 6)
//!                                 Waits ──────────────► again, until the timeout (exit code 6)
//! ```

use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use tidemill_protocol::api::Master;
use tidemill_protocol::exit::NotYet;
use tidemill_protocol::{JobState, JobStatus, output};

use super::status::ago;

/// Time between two requests.
const ASK: Duration = Duration::from_millis(250);
/// Limit of attempts in a row at a master that does not answer: about 30 s if it refuses
/// connections.
const AWAY_MAX: u32 = 120;

/// A job must be degraded in so many polls in a row (5 s) before that is the result, because
/// services come up one after another.
const DEGRADED: u32 = 20;
/// A state that was there before the command must be seen in so many polls before it is believed,
/// because the command's effect may show a moment later.
const SETTLED: u32 = 8;

/// The state that a job shall reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// Dataflow and ingest are stopped.
    Stopped,
    /// The job runs in a generation above this one.
    Above(u64),
    /// The job runs with so many workers, in a generation above this one.
    Sized(usize, u64),
    /// The job exists and is asked to run with so many workers.
    Asked(usize),
}

/// The progress towards a [`Goal`], from one poll.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Progress {
    /// The goal is reached.
    Done(String),
    /// The job will not reach the goal by itself.
    Never(String),
    /// The job is on its way.
    Waits(String),
    /// The job runs, in the generation that it had before the command.
    Unchanged(String),
    /// The views are live, and a service that feeds them is not.
    Degraded(String),
}

impl Goal {
    /// The goal of `submit` and `restart`: the job runs, in a new generation if it ran before.
    ///
    /// `before` is the job's status before the command; `None` if it is new.
    pub(super) fn running(before: Option<&JobStatus>) -> Self {
        Self::Above(before.map_or(0, |before| before.generation))
    }

    /// The goal of `rescale`: the job runs with so many workers.
    ///
    /// A job that has the size already is not restarted, so no new generation is waited for.
    pub(super) fn sized(before: Option<&JobStatus>, workers: usize) -> Self {
        match before {
            // A stopped job gets the workers at its next start.
            Some(job) if job.state == JobState::Stopped => Self::Asked(workers),
            Some(job) if job.workers == workers && job.workers_wanted == workers => {
                Self::Asked(workers)
            }
            _ => Self::Sized(workers, before.map_or(0, |before| before.generation)),
        }
    }

    /// Compares a job's status with the goal.
    ///
    /// A state is judged alone, without the states before it. [`until`] counts how often it was
    /// seen.
    fn progress(self, job: &JobStatus) -> Progress {
        let live = |above: u64| job.generation > above && job.state == JobState::Degraded;
        let runs = |above: u64| job.state == JobState::Running && job.generation > above;
        let reached = match self {
            Self::Stopped => {
                let ingest = job.ingest.as_ref();
                job.state == JobState::Stopped
                    && ingest.is_none_or(|it| it.state == JobState::Stopped)
            }
            Self::Above(before) => runs(before),
            Self::Sized(workers, before) => job.workers_wanted == workers && runs(before),
            Self::Asked(workers) => job.workers_wanted == workers,
        };
        let why = job.why.as_ref().map(|why| format!(": {why}"));
        let why = why.unwrap_or_default();
        let said = match job.state {
            JobState::Running => format!(
                "running with {} of {} workers, generation {}{why}",
                job.workers, job.workers_wanted, job.generation
            ),
            state => format!("{state}{why}"),
        };
        let degraded = match self {
            Self::Above(before) | Self::Sized(_, before) => live(before),
            Self::Stopped | Self::Asked(_) => false,
        };
        match job.state {
            _ if reached => Progress::Done(said),
            _ if degraded => Progress::Degraded(said),
            JobState::Failed => Progress::Never(said),
            JobState::Stopped if self != Self::Stopped => {
                Progress::Never("it is stopped".to_owned())
            }
            // The job may already be as it was asked for.
            JobState::Running if self != Self::Stopped => Progress::Unchanged(said),
            _ => Progress::Waits(said),
        }
    }
}

/// Waits until a job reaches a goal. Ctrl-C ends only the waiting.
///
/// # Errors
/// * [`NotYet`] (exit code 6): not reached within `timeout`, or degraded for [`DEGRADED`] polls.
/// * The job failed, was stopped or is unknown (exit code 1).
/// * The master refuses, or has not answered [`AWAY_MAX`] polls in a row (exit code 1).
pub(super) fn until(
    master: &Master,
    name: &str,
    goal: &Goal,
    timeout: Duration,
) -> anyhow::Result<()> {
    let (mut away, mut degraded) = (0, 0);
    let began = Instant::now();
    let mut shown = String::new();
    // The command's effect may show in the status a moment later.
    let mut settled = 0;
    loop {
        let said = match master.job(name) {
            Ok(Some(job)) => {
                away = 0;
                let progressed = goal.progress(&job);
                degraded = match progressed {
                    Progress::Degraded(_) => degraded + 1,
                    _ => 0,
                };
                match progressed {
                    Progress::Degraded(said) if degraded >= DEGRADED => {
                        return Err(NotYet(format!("job `{name}` is {said}; it goes on")).into());
                    }
                    Progress::Degraded(said) => said,
                    Progress::Unchanged(said) if settled < SETTLED => {
                        settled += 1;
                        said
                    }
                    Progress::Done(said) | Progress::Unchanged(said) => {
                        progress(&mut shown, name, &said);
                        output::keep_live();
                        return Ok(());
                    }
                    Progress::Never(why) if settled >= SETTLED => {
                        return Err(failed(name, &why, &job));
                    }
                    Progress::Never(said) => {
                        settled += 1;
                        said
                    }
                    Progress::Waits(said) => {
                        settled = 0;
                        said
                    }
                }
            }
            Ok(None) => return Err(anyhow!("the master does not know a job `{name}`")),
            Err(failure) if !failure.passes() => return Err(failure.into()),
            Err(failure) if away >= AWAY_MAX => return Err(failure.into()),
            Err(failure) => {
                away += 1;
                failure.to_string()
            }
        };
        progress(&mut shown, name, &said);
        if began.elapsed() >= timeout {
            let after = timeout.as_secs_f32();
            return Err(NotYet(format!(
                "job `{name}` is {said} after {after} s; it goes on: see `tidemill status {name}`"
            ))
            .into());
        }
        thread::sleep(ASK);
    }
}

/// Shows the progress: on a terminal one line in place, else a line whenever it changes.
fn progress(shown: &mut String, name: &str, said: &str) {
    if shown == said {
        return;
    }
    said.clone_into(shown);
    let line = format!("{name}: {said}");
    match output::is_terminal() {
        true => output::live(&[line]),
        false => output::line(&line),
    }
}

/// The error for a job that failed, with the last lines of the failed process's log.
///
/// The master keeps these lines, so they are shown even if the worker is gone.
fn failed(name: &str, why: &str, job: &JobStatus) -> anyhow::Error {
    let Some(failure) = job.failures.first() else {
        return anyhow!("{name}: {why}");
    };
    let tail: Vec<String> = failure
        .tail
        .iter()
        .map(|line| format!("\n  {line}"))
        .collect();
    let (process, what) = (&failure.process, &failure.what);
    anyhow!(
        "{name}: {why}\n  first {process} {what}, {}; its last lines:{}",
        ago(failure.at_ms, None),
        tail.concat()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(state: JobState, generation: u64, workers: usize, wanted: usize) -> JobStatus {
        JobStatus {
            name: "users".to_owned(),
            state,
            generation,
            workers,
            workers_wanted: wanted,
            ..JobStatus::default()
        }
    }

    fn is_done(goal: Goal, job: &JobStatus) -> bool {
        matches!(goal.progress(job), Progress::Done(_))
    }

    #[test]
    fn a_new_generation_is_awaited() {
        let goal = Goal::running(Some(&at(JobState::Running, 3, 2, 2)));
        assert!(!is_done(goal, &at(JobState::Running, 3, 2, 2)));
        assert!(!is_done(goal, &at(JobState::Starting, 4, 2, 2)));
        assert!(is_done(goal, &at(JobState::Running, 4, 2, 2)));
        assert!(is_done(
            Goal::running(None),
            &at(JobState::Running, 1, 2, 2)
        ));
        let same = goal.progress(&at(JobState::Running, 3, 2, 2));
        assert!(matches!(same, Progress::Unchanged(_)), "{same:?}");
        let failed = goal.progress(&at(JobState::Failed, 4, 0, 2));
        assert_eq!(failed, Progress::Never("failed".to_owned()));
    }

    #[test]
    fn a_size_is_awaited_unless_it_is_so_or_the_job_is_stopped() {
        let goal = Goal::sized(Some(&at(JobState::Running, 3, 2, 2)), 6);
        assert!(!is_done(goal, &at(JobState::Running, 3, 2, 6)));
        // With too few slots it runs with what there is, and says so.
        assert!(is_done(goal, &at(JobState::Running, 4, 4, 6)));
        let same = Goal::sized(Some(&at(JobState::Running, 3, 2, 2)), 2);
        assert!(is_done(same, &at(JobState::Running, 3, 2, 2)));
        let stopped = Goal::sized(Some(&at(JobState::Stopped, 3, 0, 2)), 6);
        assert!(is_done(stopped, &at(JobState::Stopped, 3, 0, 6)));
    }

    #[test]
    fn a_stop_is_awaited() {
        assert!(!is_done(Goal::Stopped, &at(JobState::Draining, 3, 2, 2)));
        assert!(is_done(Goal::Stopped, &at(JobState::Stopped, 3, 0, 2)));
    }
}
