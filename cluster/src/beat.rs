//! What a process of a job says of itself twice a second: its statistics as a [`Beat`], one
//! function a part.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use hdrhistogram::Histogram;
use tidemill_dataflow::job;
use tidemill_ingest::stats as ingest;

use crate::protocol::Beat;

/// Beats over which freshness is told: ten seconds.
const FRESHNESS_BEATS: usize = 20;

/// What a process does or waits for, in words; nothing when it is simply running.
#[derive(Debug, Clone, Default)]
pub(crate) struct Doing(Arc<Mutex<Option<String>>>);

impl Doing {
    pub(crate) fn set(&self, what: Option<&str>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = what.map(str::to_owned);
    }

    fn get(&self) -> Option<String> {
        let doing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        doing.clone()
    }
}

/// Where a process's beats are taken from.
pub(crate) enum Pulse {
    Ingest(Arc<ingest::Stats>),
    Dataflow {
        stats: Arc<job::Stats>,
        /// The histograms of the last beats, oldest first.
        past: VecDeque<Histogram<u64>>,
    },
}

impl Pulse {
    pub(crate) fn of_dataflow(stats: &Arc<job::Stats>) -> Self {
        Self::Dataflow {
            stats: Arc::clone(stats),
            past: VecDeque::new(),
        }
    }

    /// What is to be said now.
    pub(crate) fn beat(&mut self, doing: &Doing) -> Beat {
        let mut beat = match self {
            Self::Ingest(stats) => of_ingest(stats),
            Self::Dataflow { stats, past } => of_dataflow(stats, past),
        };
        beat.doing = doing.get().or(beat.doing);
        beat
    }
}

fn of_ingest(stats: &ingest::Stats) -> Beat {
    Beat {
        records: stats.published.load(Relaxed),
        dead_letters: stats.dead_letters.load(Relaxed),
        ..Beat::default()
    }
}

fn of_dataflow(stats: &job::Stats, past: &mut VecDeque<Histogram<u64>>) -> Beat {
    let mut beat = Beat {
        records: stats.records.load(Relaxed),
        dead_letters: stats.dead_letters.load(Relaxed),
        ..Beat::default()
    };
    epochs(&mut beat, stats);
    views(&mut beat, stats);
    freshness(&mut beat, stats, past);
    beat
}

fn epochs(beat: &mut Beat, stats: &job::Stats) {
    beat.bound = stats.bound.load(Relaxed);
    beat.durable = stats.durable.load(Relaxed);
    beat.checkpointed = stats.checkpointed.load(Relaxed);
    let replaying = stats.replaying.load(Relaxed);
    beat.doing = replaying.then(|| "replaying the epochs of an earlier run".to_owned());
}

fn views(beat: &mut Beat, stats: &job::Stats) {
    let views = stats.views.lock().unwrap_or_else(PoisonError::into_inner);
    let rows = views.iter().map(|(name, view)| (name.clone(), view.rows));
    beat.views = rows.collect();
}

/// What was recorded since the oldest beat that is remembered.
fn freshness(beat: &mut Beat, stats: &job::Stats, past: &mut VecDeque<Histogram<u64>>) {
    let now = stats.freshness_ms.lock();
    let now = now.unwrap_or_else(PoisonError::into_inner).clone();
    let mut recent = now.clone();
    // Counts only rise, so that what was counted before can be taken away.
    let fits = past
        .front()
        .is_none_or(|before| recent.subtract(before).is_ok());
    if fits && !recent.is_empty() {
        beat.freshness_p50_ms = Some(recent.value_at_quantile(0.5));
        beat.freshness_p99_ms = Some(recent.value_at_quantile(0.99));
    }
    past.push_back(now);
    if past.len() > FRESHNESS_BEATS {
        past.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freshness_is_that_of_the_last_beats() {
        let stats = Arc::new(job::Stats::default());
        let mut pulse = Pulse::of_dataflow(&stats);
        let doing = Doing::default();
        let mut told = || pulse.beat(&doing).freshness_p50_ms;
        let record = |ms| stats.freshness_ms.lock().unwrap().record(ms).unwrap();
        assert_eq!(told(), None);
        record(100);
        for _ in 0..FRESHNESS_BEATS {
            assert_eq!(told(), Some(100));
        }
        assert_eq!(told(), None, "that was long ago");
        record(7);
        assert_eq!(told(), Some(7));
    }

    #[test]
    fn what_it_waits_for_is_told_before_that_it_replays() {
        let stats = Arc::new(job::Stats::default());
        stats.replaying.store(true, Relaxed);
        stats.durable.store(5, Relaxed);
        let (mut pulse, doing) = (Pulse::of_dataflow(&stats), Doing::default());
        let beat = pulse.beat(&doing);
        assert_eq!(beat.durable, 5);
        assert!(beat.doing.unwrap().starts_with("replaying"));
        doing.set(Some("waiting"));
        assert_eq!(pulse.beat(&doing).doing.as_deref(), Some("waiting"));
    }
}
