//! The binder: closes epochs, on worker 0.
//!
//! It is self-clocked like a group commit: as soon as the last epoch is durable in the journal and
//! something new was read, the next one is closed. Under load epochs grow; an idle job has none,
//! but one for the checkpoint of what was bound last.
//!
//! Without a journal it binds nothing: it lets the epochs of earlier runs be replayed, and then
//! ends the run.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tidemill_log::health::now_ms;
use timely::scheduling::{Activator, SyncActivator};

use super::catch_up::CatchUp;
use super::checkpoints::Checkpoints;
use super::commits::Commits;
use super::lap::Laps;
use super::messages::{Added, Command, Report, Start};
use super::resume;
use crate::checkpoint::Manifest;
use crate::config::Limits;
use crate::failure::{Failure, patiently};
use crate::journal::{Binding, Journal, Offsets, Places};
use crate::stats::Stats;
use crate::sync::lock;
use crate::{Epoch, Result};

/// Longest that a stop waits for its checkpoint.
const CLOSING_MAX: Duration = Duration::from_secs(10);
/// How often it looks.
const CLOSING_LOOK: Duration = Duration::from_millis(5);

/// A bound epoch that is not yet durable in the sink.
struct InFlight {
    binding: Binding,
    commits: Commits,
    /// Bytes of its records; 0 for what an earlier run bound.
    bytes: usize,
}

/// Binds offsets to epochs.
pub(crate) struct Binder {
    start: Option<Start>,
    replayed: Option<Epoch>,
    /// When this run began, in milliseconds.
    began: i64,
    limits: Limits,
    stats: Arc<Stats>,
    /// How far all workers have read.
    read: Offsets,
    /// The newest change of each partition there.
    places: Places,
    /// How far the last epoch goes, and the newest changes there.
    bound: Binding,
    last: Epoch,
    last_at: Option<Instant>,
    /// When what was read and not bound was committed.
    commits: Commits,
    /// Bytes of what was read and not bound.
    bytes: usize,
    /// Partitions that were added and that the workers do not know yet.
    added: Vec<Added>,
    /// The binding that is being made durable.
    writing: Option<InFlight>,
    in_flight: VecDeque<InFlight>,
    /// The last epoch that is durable in the sink.
    durable: Epoch,
    /// Whether a table was not filled through the last epoch of earlier runs. The sink may not
    /// take a frontier of an epoch that it had before the table was made anew, so one more epoch
    /// is bound, even if nothing is read.
    owes_tables: bool,
    checkpoints: Checkpoints,
    catch_up: CatchUp,
    laps: Laps,
    /// None when earlier epochs are replayed and no more.
    journal: Option<Journaling>,
    stopping: bool,
    /// Since when the run is being ended.
    closing: Option<Instant>,
    stopped: bool,
    wake: Option<Activator>,
    failure: Failure,
}

impl Binder {
    pub(crate) fn new(
        start: Start,
        journal: Option<Arc<Journal>>,
        checkpoints: Checkpoints,
        catch_up: CatchUp,
        limits: Limits,
        stats: Arc<Stats>,
        failure: &Failure,
    ) -> Result<Self> {
        let restored = start.checkpoint.iter().map(Manifest::at);
        let known = restored.chain(start.bindings.iter().cloned());
        let (mut bound, mut in_flight) = (Binding::default(), VecDeque::new());
        for binding in known {
            extend(&mut bound, &binding);
            in_flight.push_back(InFlight {
                binding,
                commits: Commits::default(),
                bytes: 0,
            });
        }
        let mut read = bound.ends.clone();
        merge(&mut read, &start.begins);
        let restored = start.checkpoint.as_ref().map(|checkpoint| checkpoint.epoch);
        let known_through = start.replayed.max(restored);
        Ok(Self {
            last: known_through.unwrap_or(0),
            replayed: start.replayed,
            began: now_ms() as i64,
            in_flight,
            durable: 0,
            owes_tables: start.served.iter().any(|served| *served < known_through),
            checkpoints,
            catch_up,
            laps: Laps::default(),
            read,
            places: bound.places.clone(),
            bound,
            start: Some(start),
            limits,
            stats,
            last_at: None,
            commits: Commits::default(),
            bytes: 0,
            added: Vec::new(),
            writing: None,
            journal: journal
                .map(|journal| Journaling::start(journal, failure))
                .transpose()?,
            stopping: false,
            closing: None,
            stopped: false,
            wake: None,
            failure: failure.clone(),
        })
    }

    /// How to wake the operator that drives the binder.
    pub(crate) fn wake_with(&mut self, wake: Activator, from_thread: SyncActivator) {
        self.wake = Some(wake);
        if let Some(journal) = &self.journal {
            journal.wake_with(from_thread);
        }
    }

    /// Takes a worker's report.
    pub(crate) fn read(&mut self, report: Report) {
        self.stopping |= report.stop;
        self.commits.merge(&report.commits);
        self.bytes += report.bytes;
        for written in report.written {
            self.checkpoints.take(written);
        }
        if !report.added.is_empty() {
            let (topic, partitions) = (report.topic.clone(), report.added);
            // Nobody reads them before they are told, so that no epoch holds a record of them
            // without holding where they begin.
            merge(&mut self.read, &resume::begins(&topic, &partitions));
            self.added.push(Added { topic, partitions });
        }
        if !report.places.is_empty() {
            // A partition has one reader, whose reports come in order.
            let places = self.places.entry(report.topic.clone()).or_default();
            places.extend(report.places);
        }
        if !report.schemas.is_empty() {
            let noted = resume::noted(&report.topic, report.schemas);
            if resume::differ(&self.read, &noted) {
                self.failure.set(resume::registry_made_anew(&report.topic));
                return;
            }
            merge(&mut self.read, &noted);
            self.tell_schemas(&report.topic);
        }
        if !report.ends.is_empty() {
            merge(
                &mut self.read,
                &Offsets::from([(report.topic, report.ends)]),
            );
        }
    }

    /// Commands that are due now.
    pub(crate) fn commands(&mut self) -> Vec<Command> {
        let mut commands = Vec::new();
        commands.extend(self.start.take().map(Command::Start));
        commands.extend(self.added.drain(..).map(Command::Added));
        if self.journal.as_ref().is_some_and(Journaling::written)
            && let Some(written) = self.writing.take()
        {
            let binding = written.binding.clone();
            self.stats.bound.store(binding.epoch, Ordering::Relaxed);
            extend(&mut self.bound, &binding);
            let checkpoint = self.checkpoints.is_due() || self.is_last();
            if checkpoint {
                self.checkpoints.begin(self.bound.clone());
            }
            commands.push(Command::Bind {
                binding,
                checkpoint,
                settled: self.laps.step(&self.bound, &self.stats),
            });
            self.in_flight.push_back(written);
        }
        if let Some(taken) = self.checkpoints.step(self.durable) {
            self.stats.took(&taken);
        }
        let epoch = self.checkpoints.epoch();
        self.stats.checkpointed.store(epoch, Ordering::Relaxed);
        self.stopping |= self.journal.is_none() && self.in_flight.is_empty();
        self.tell_waiting();
        if self.stopping {
            commands.extend(self.close());
        } else if self.may_bind() {
            self.bind();
        }
        commands
    }

    /// Ends the run when all is bound that the topics held when that was asked for, and with a
    /// checkpoint, so that the next one replays nothing, and then says stop. A
    /// checkpoint that takes too long (the sink may be away) is left.
    fn close(&mut self) -> Option<Command> {
        if self.writing.is_some() || self.stopped {
            return None;
        }
        if self.closing.is_none()
            && self.journal.is_some()
            && !self.catch_up.is_over(&self.bound.ends)
        {
            if self.may_bind() {
                self.bind();
            }
            return None;
        }
        let closing = *self.closing.get_or_insert_with(Instant::now);
        if self.journal.is_some() && closing.elapsed() < CLOSING_MAX {
            if self.checkpoints.is_going() {
                return None;
            }
            if self.last > self.checkpoints.epoch() {
                self.bind();
                return None;
            }
        }
        self.stopped = true;
        Some(Command::Stop)
    }

    fn may_bind(&self) -> bool {
        self.journal.is_some()
            && self.writing.is_none()
            && (self.read != self.bound.ends || self.owes_checkpoint() || self.owes_epoch())
            && self.in_flight.len() < self.limits.epochs_in_flight_max
            && self.in_flight.iter().map(|it| it.bytes).sum::<usize>()
                < self.limits.bytes_in_flight_max
            && self.epoch_in().is_none()
    }

    /// Whether a checkpoint is due of what was bound since the last one.
    fn owes_checkpoint(&self) -> bool {
        self.checkpoints.is_due() && self.last > self.checkpoints.epoch()
    }

    /// Whether an epoch is due for the tables' frontiers.
    fn owes_epoch(&self) -> bool {
        self.owes_tables && self.in_flight.is_empty()
    }

    /// Whether the epoch that was just bound is this run's last.
    fn is_last(&self) -> bool {
        self.closing.is_some() && !self.checkpoints.is_going()
    }

    /// How long until something is to be done that nothing else wakes the binder for.
    pub(crate) fn due_in(&self) -> Option<Duration> {
        if self.stopping && !self.stopped {
            return Some(CLOSING_LOOK);
        }
        let checkpoint = self.checkpoints.due_in(self.last);
        let due = self.epoch_in().into_iter().chain(checkpoint);
        // What may be done now was done, or waits for something that wakes the binder.
        due.filter(|wait| !wait.is_zero()).min()
    }

    /// Tells which schemas a topic's records were read with.
    fn tell_schemas(&self, topic: &str) {
        let schemas = resume::schemas_in(&self.read, topic);
        let schemas = schemas.map(|(id, schema)| ((topic.to_owned(), *id), *schema));
        lock(&self.stats.schemas).extend(schemas);
    }

    /// Tells since when the oldest change that was read is on its way to the views.
    fn tell_waiting(&self) {
        let in_flight = self.in_flight.iter().chain(&self.writing);
        let batches = in_flight.map(|it| &it.commits).chain([&self.commits]);
        let oldest = batches.filter_map(|it| it.oldest_from(self.began)).min();
        let oldest = oldest.and_then(|at| u64::try_from(at).ok()).unwrap_or(0);
        self.stats.waiting_since.store(oldest, Ordering::Relaxed);
    }

    /// How long until the next epoch may be closed; none when it may be now.
    fn epoch_in(&self) -> Option<Duration> {
        let since = self.last_at?.elapsed();
        self.limits
            .epoch_interval_min
            .checked_sub(since)
            .filter(|wait| !wait.is_zero())
    }

    fn bind(&mut self) {
        let Some(journal) = &self.journal else { return };
        let epoch = now_ms().max(self.last + 1);
        let ends = moved(&self.bound.ends, &self.read);
        let binding = Binding {
            epoch,
            places: of(&self.places, &ends),
            ends,
        };
        let commits = self.commits.take();
        self.last = epoch;
        self.last_at = Some(Instant::now());
        self.owes_tables = false;
        journal.write(binding.clone());
        self.writing = Some(InFlight {
            binding,
            commits,
            bytes: std::mem::take(&mut self.bytes),
        });
    }

    /// The greatest bound epoch that `complete` is true for.
    pub(crate) fn last_complete(&self, complete: impl Fn(Epoch) -> bool) -> Option<Epoch> {
        self.in_flight
            .iter()
            .map(|e| e.binding.epoch)
            .take_while(|epoch| complete(*epoch))
            .last()
    }

    /// Every epoch at or below this one is durable in the sink.
    pub(crate) fn durable(&mut self, epoch: Epoch) {
        let now = now_ms() as i64;
        let mut ends = lock(&self.stats.durable_ends);
        let mut freshness = lock(&self.stats.freshness_ms);
        let mut recent = lock(&self.stats.recent);
        while let Some(done) = self.in_flight.pop_front_if(|e| e.binding.epoch <= epoch) {
            merge(&mut ends, &done.binding.ends);
            // What was committed before this run began waited for it, not in it.
            let here = done.commits.iter().filter(|(at, _)| *at >= self.began);
            for (at, records) in here {
                let age = u64::try_from(now - at).unwrap_or(0).max(1);
                freshness.saturating_record_n(age, records);
                recent.record(age, records);
            }
        }
        drop(ends);
        drop((freshness, recent));
        self.durable = epoch;
        self.stats.durable.store(epoch, Ordering::Relaxed);
        let replaying = self
            .in_flight
            .iter()
            .any(|e| Some(e.binding.epoch) <= self.replayed);
        self.stats.replaying.store(replaying, Ordering::Relaxed);
        self.tell_waiting();
        if let Some(wake) = &self.wake {
            wake.activate();
        }
    }
}

/// Raises offsets to those of `with`.
fn merge(offsets: &mut Offsets, with: &Offsets) {
    for (topic, ends) in with {
        let known = offsets.entry(topic.clone()).or_default();
        for (partition, end) in ends {
            let at = known.entry(*partition).or_insert(*end);
            *at = (*at).max(*end);
        }
    }
}

/// Goes on with the next epoch: everything through it.
fn extend(bound: &mut Binding, with: &Binding) {
    bound.epoch = with.epoch;
    merge(&mut bound.ends, &with.ends);
    with.move_places(&mut bound.places);
}

/// The places of the partitions of `ends`.
fn of(places: &Places, ends: &Offsets) -> Places {
    let mut of = Places::new();
    for (topic, ends) in ends {
        let known = places.get(topic).into_iter().flatten();
        let known = known.filter(|(partition, _)| ends.contains_key(partition));
        let known: BTreeMap<_, _> = known
            .map(|(partition, place)| (*partition, *place))
            .collect();
        if !known.is_empty() {
            of.insert(topic.clone(), known);
        }
    }
    of
}

/// The partitions of `to` that are beyond `from`.
fn moved(from: &Offsets, to: &Offsets) -> Offsets {
    let mut moved = Offsets::new();
    for (topic, ends) in to {
        for (partition, end) in ends {
            if from.get(topic).and_then(|ends| ends.get(partition)) < Some(end) {
                moved
                    .entry(topic.clone())
                    .or_default()
                    .insert(*partition, *end);
            }
        }
    }
    moved
}

/// The thread that makes bindings durable, so that the worker goes on meanwhile.
struct Journaling {
    to: SyncSender<Binding>,
    done: Receiver<()>,
    wake: SyncSender<SyncActivator>,
}

impl Journaling {
    fn start(journal: Arc<Journal>, failure: &Failure) -> Result<Self> {
        let (to, bindings) = sync_channel::<Binding>(1);
        let (tell, done) = sync_channel(1);
        let (wake, wakes) = sync_channel::<SyncActivator>(1);
        failure.spawn("journal", move || {
            let Ok(wake) = wakes.recv() else {
                return Ok(());
            };
            while let Ok(binding) = bindings.recv() {
                patiently("write the journal", || journal.bind(&binding))?;
                if tell.send(()).is_err() || wake.activate().is_err() {
                    break;
                }
            }
            Ok(())
        })?;
        Ok(Self { to, done, wake })
    }

    fn wake_with(&self, wake: SyncActivator) {
        // A second one would only come from a second operator; the first keeps its place.
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.wake.try_send(wake)
        {
            tracing::debug!("the journal's thread has its waker");
        }
    }

    fn write(&self, binding: Binding) {
        // Fails only when the thread ended, which left its error for the job to end with.
        if self.to.send(binding).is_err() {
            tracing::debug!("the journal's thread has ended");
        }
    }

    fn written(&self) -> bool {
        self.done.try_recv().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(ends: &[(u32, i64)]) -> Offsets {
        Offsets::from([("t".to_owned(), ends.iter().copied().collect())])
    }

    #[test]
    fn only_partitions_that_moved_are_bound() {
        let from = offsets(&[(0, 5), (1, 7)]);
        let to = offsets(&[(0, 5), (1, 9), (2, 1)]);
        assert_eq!(moved(&from, &to), offsets(&[(1, 9), (2, 1)]));
        let mut merged = from;
        merge(&mut merged, &offsets(&[(1, 9), (2, 1), (0, 3)]));
        assert_eq!(merged, offsets(&[(0, 5), (1, 9), (2, 1)]));
    }
}
