//! State Ending: no assignment contains the generation any more, so workers kill what is left of
//! it. The master waits for each process's end or for the loss of its worker.
//!
//! Then the root cause is known, the failure is counted, and the next state follows: Waiting or
//! Stopped after an end that was asked for, BackingOff after a failure, Failed after a failure that
//! no restart repairs.

use tidemill_protocol::exit::ExitCode;

use super::super::durable::Record;
use super::super::root_cause;
use super::super::root_cause::RootCause;
use super::super::roster::Found;
use super::super::times::{BACK_OFF_MAX, BACK_OFF_MIN, ENDING_MAX, LIVED_MIN};
use super::{BackingOff, Component, Here, Stage};

/// Limit of failures in a row without a generation that lived for `LIVED_MIN`.
pub(crate) const FAILURES_IN_A_ROW_MAX: u32 = 20;
/// Failures that are kept of each component.
pub(crate) const FAILURES_KEPT_MAX: usize = 10;
/// After the same error so many times in a row no restart is tried any more.
const SAME_ERROR_MAX: u32 = 3;

/// Waiting until all processes have ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ending {
    /// When the generation began to end, in ms.
    since: u64,
    /// When the processes left the written assignments, in ms. A report after that proves that a
    /// process is gone.
    unordered: Option<u64>,
    /// Why the generation ends.
    pub(crate) why: Why,
}

/// Why a generation ends.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Why {
    /// It was asked to: it has drained, or had nothing to drain.
    Asked,
    /// It was asked to drain, and a process ended otherwise.
    Undrained,
    /// A process failed.
    Broken,
    /// The process of this index exceeded a timeout; the text says which one.
    Late(usize, String),
    /// The master before this one ended it.
    Before,
}

impl Ending {
    /// The state at its begin.
    pub(super) fn new(since: u64, why: Why) -> Self {
        let unordered = None;
        Self {
            since,
            unordered,
            why,
        }
    }

    /// The state in which a new master finds a generation that is already ending.
    pub(super) fn adopted(now: u64) -> Self {
        Self::new(now, Why::Before)
    }

    /// The next state, or `None` to stay. Before it leaves, it records the root cause and counts
    /// the failure.
    pub(super) fn next(self, component: &mut Component, here: &mut Here<'_>) -> Option<Stage> {
        if !here.unordered {
            return None;
        }
        let Some(unordered) = self.unordered else {
            return Some(Stage::Ending(Self {
                unordered: Some(here.now),
                ..self
            }));
        };
        if here.now < self.since + ENDING_MAX && !self.all_ended(component, here, unordered) {
            return None;
        }
        let cause = match &self.why {
            Why::Late(index, what) => Some((*index, what.clone())),
            _ => None,
        };
        let run = here.record.run.clone()?;
        let mut ended = component.ended.clone();
        if component.drains {
            // A process that drained correctly did not fail.
            ended.retain(|_, ended| !ended.is_drained());
        }
        let found = root_cause::find(&run, &ended, cause.as_ref(), here.now);
        // If the end was asked for before this master started, nobody failed.
        let asked = here.must_go();
        let lived = component
            .live_since
            .is_some_and(|since| self.since >= since + LIVED_MIN);
        here.record.run = None;
        match self.why {
            Why::Asked => return Some(here.rest()),
            Why::Before if asked => return Some(here.rest()),
            Why::Broken | Why::Late(..) | Why::Before if !asked => {}
            _ => {
                remember(here.record, &found);
                return Some(here.rest());
            }
        }
        for (one, other) in &found.apart {
            here.apart.add(one, other, here.now);
        }
        remember(here.record, &found);
        count(here.record, &found, lived);
        here.record.failed = unmendable(here.record, &found, here.job);
        let exponent = here.record.in_a_row.saturating_sub(1).min(16);
        let pause = (BACK_OFF_MIN << exponent).min(BACK_OFF_MAX);
        Some(match here.rest() {
            Stage::Waiting(_) => Stage::BackingOff(BackingOff {
                until: here.now + pause,
                revision: here.record.revision,
                why: None,
            }),
            rests => rests,
        })
    }

    /// Whether no process of the generation is left on any present worker.
    fn all_ended(&self, component: &Component, here: &Here<'_>, unordered: u64) -> bool {
        let Some(run) = &here.record.run else {
            return true;
        };
        (0..run.workers.len()).all(|index| {
            let absent = |found| matches!(found, Found::Absent { heard } if heard > unordered);
            component.ended.contains_key(&index) || absent(here.find(run, index))
        })
    }
}

/// Keeps the failure for `status`.
fn remember(record: &mut Record, found: &RootCause) {
    record.failures.insert(0, found.failure.clone());
    record.failures.truncate(FAILURES_KEPT_MAX);
}

/// Counts the failure: restarts, failures in a row, and repetitions of the same error message.
fn count(record: &mut Record, found: &RootCause, lived: bool) {
    record.restarts += 1;
    record.in_a_row = if lived { 1 } else { record.in_a_row + 1 };
    let message = found.message().filter(|_| ExitCode::Error.is(found.code));
    record.repeated = message.map(|message| {
        let before = record.repeated.take().filter(|(said, _)| said == message);
        (message.to_owned(), before.map_or(0, |(_, times)| times) + 1)
    });
}

/// Why no next generation would be better, as the text for the user; `None` to try again.
fn unmendable(record: &Record, found: &RootCause, job: &str) -> Option<String> {
    let what = format!("{} {}", found.failure.process, found.failure.what);
    let said = found.message().map(|said| format!(": {said}"));
    let said = said.unwrap_or_default();
    let anew = format!("`tidemill restart {job}` starts it again");
    if ExitCode::Usage.is(found.code) {
        return Some(format!("{what}, which no restart mends{said}; {anew}"));
    }
    if let Some((_, times)) = &record.repeated
        && *times >= SAME_ERROR_MAX
    {
        return Some(format!(
            "{what} {times} times with the same error{said}; {anew}"
        ));
    }
    let failures = record.in_a_row;
    (failures > FAILURES_IN_A_ROW_MAX).then(|| {
        let minutes = LIVED_MIN / 60_000;
        format!(
            "it failed {failures} times and never lived for {minutes} minute; last {what}{said}; \
             {anew}"
        )
    })
}
