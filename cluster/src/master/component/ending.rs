//! No worker shall have the generation any more: all that is left of it is killed, and its end, or
//! the loss of its worker, awaited. Then it is known why it ended, and what comes next.

use super::super::durable::Record;
use super::super::root_cause::{self, Culprit};
use super::super::roster::Found;
use super::super::times::{BACK_OFF_MAX, BACK_OFF_MIN, ENDING_MAX, LIVED_MIN};
use super::{BackingOff, Half, Here, Stage};
use crate::exit;

/// Failures in a row that are too many.
pub(crate) const FAILURES_IN_A_ROW_MAX: u32 = 20;
/// Failures that are remembered of each half of a job.
pub(crate) const FAILURES_KEPT_MAX: usize = 10;
/// How often the same error in a row shows that no restart mends it.
const SAME_ERROR_MAX: u32 = 3;

/// Waiting until all processes have ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ending {
    since: u64,
    /// Since when its orders are taken back.
    unordered: Option<u64>,
    pub(crate) why: Why,
}

/// Why a generation was ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Why {
    /// It made room, or had drained.
    Asked,
    /// It made room and did not drain as it should.
    Undrained,
    /// A process ended.
    Broken,
    /// A process took too long.
    Late(usize, String),
    /// Another master ended it.
    Before,
}

impl Ending {
    pub(super) fn new(since: u64, why: Why) -> Self {
        let unordered = None;
        Self {
            since,
            unordered,
            why,
        }
    }

    pub(super) fn adopted(now: u64) -> Self {
        Self::new(now, Why::Before)
    }

    pub(super) fn next(self, half: &mut Half, here: &mut Here<'_>) -> Option<Stage> {
        if !here.unordered {
            return None;
        }
        let Some(unordered) = self.unordered else {
            return Some(Stage::Ending(Self {
                unordered: Some(here.now),
                ..self
            }));
        };
        if here.now < self.since + ENDING_MAX && !self.all_ended(half, here, unordered) {
            return None;
        }
        let cause = match &self.why {
            Why::Late(index, what) => Some((*index, what.clone())),
            _ => None,
        };
        let run = here.record.run.clone()?;
        let mut ended = half.ended.clone();
        if half.drains {
            // These are none of the failures.
            ended.retain(|_, ended| !ended.is_drained());
        }
        let found = root_cause::find(&run, &ended, cause.as_ref(), here.now);
        // Asked for before this master started: then nobody failed.
        let asked = here.must_go();
        let lived = half
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

    fn all_ended(&self, half: &Half, here: &Here<'_>, unordered: u64) -> bool {
        let Some(run) = &here.record.run else {
            return true;
        };
        (0..run.workers.len()).all(|index| {
            let absent = |found| matches!(found, Found::Absent { heard } if heard > unordered);
            half.ended.contains_key(&index) || absent(here.find(run, index))
        })
    }
}

fn remember(record: &mut Record, found: &Culprit) {
    record.failures.insert(0, found.failure.clone());
    record.failures.truncate(FAILURES_KEPT_MAX);
}

fn count(record: &mut Record, found: &Culprit, lived: bool) {
    record.restarts += 1;
    record.in_a_row = if lived { 1 } else { record.in_a_row + 1 };
    let message = found
        .message()
        .filter(|_| found.code == Some(i32::from(exit::ERROR)));
    record.repeated = message.map(|message| {
        let before = record.repeated.take().filter(|(said, _)| said == message);
        (message.to_owned(), before.map_or(0, |(_, times)| times) + 1)
    });
}

/// Why no next generation would be better.
fn unmendable(record: &Record, found: &Culprit, job: &str) -> Option<String> {
    let what = format!("{} {}", found.failure.process, found.failure.what);
    let said = found.message().map(|said| format!(": {said}"));
    let said = said.unwrap_or_default();
    let anew = format!("`tidemill restart {job}` starts it again");
    if found.code == Some(i32::from(exit::USAGE)) {
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
