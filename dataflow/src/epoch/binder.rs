//! The binder: assigns offsets to epochs (group commit) on worker 0.
//!
//! The binder is self-clocked like the group commit of a database. It closes the next epoch as soon
//! as the previous epoch is durable in the journal and something new was read. Therefore epochs
//! grow under load. An idle job has no epochs, except one empty epoch for the checkpoint of what
//! was bound last, and epochs at the times for which operators ask ([`super::ticks`]).
//!
//! ```text
//! reports ──► read offsets ──► bind(e) ──► journal thread ──► Command::Bind(e) ──► in flight
//!             (all workers)    one at a                        to all workers         │
//!                              time                                sink has e ──► durable(e)
//! ```
//!
//! Backpressure: no epoch is bound while [`Limits`] has too many epochs, or too many bytes, in
//! flight between the journal and the sink.
//!
//! Without a journal the binder binds nothing. It waits until the epochs of earlier runs are
//! replayed, and then ends the run. `verify` uses this.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tidemill_ir::Epoch;
use tidemill_log::backoff::retry;
use tidemill_log::health::now_ms;
use tidemill_log::{Result, lock};
use tidemill_state::checkpoint::Manifest;
use tidemill_state::failure::Failure;
use tidemill_state::journal::{Binding, Facts, Journal, Offsets, Positions, topic_facts};
use timely::scheduling::{Activator, SyncActivator};

use super::catch_up::CatchUp;
use super::checkpoints::Checkpoints;
use super::commits::Commits;
use super::lap::Laps;
use super::messages::{Added, Command, Report, Start, Wanted};
use super::resume;
use crate::config::{Limits, TimeSource};
use crate::stats::Stats;

/// Longest time that a stop waits for its last checkpoint.
const CLOSING_MAX: Duration = Duration::from_secs(10);
/// Time between two looks at that checkpoint.
const CLOSING_LOOK: Duration = Duration::from_millis(5);
/// Longest time between two looks at the clock while an operator waits for a time. The clock may be
/// set forward meanwhile.
const CLOCK_LOOK: Duration = Duration::from_millis(100);

/// A bound epoch that is not yet durable in the sink.
struct InFlight {
    /// The epoch with its end offsets.
    binding: Binding,
    /// Commit times of the epoch's records, for freshness and lag.
    commits: Commits,
    /// Bytes of the epoch's records; 0 for an epoch that an earlier run bound.
    bytes: usize,
}

/// Binds offsets to epochs. Exists on worker 0 only.
///
/// All methods run on the thread of worker 0. A binding is written by a thread of its own, and at
/// most one binding is being written at a time.
pub(crate) struct Binder {
    /// What the workers are told first; `None` after it was sent.
    start: Option<Start>,
    /// The last epoch that an earlier run bound.
    replayed: Option<Epoch>,
    /// When this run began, in ms since 1970.
    began: i64,
    /// Most epochs and bytes in flight, and the shortest time between epochs.
    limits: Limits,
    /// Where the time of epochs comes from.
    time: TimeSource,
    /// For each worker that waits for a time: the earliest one, in ms since 1970.
    wanted: BTreeMap<usize, Epoch>,
    /// The statistics of this process.
    stats: Arc<Stats>,
    /// The end offsets through which all workers have read, bound or not.
    read: Offsets,
    /// The source position of the newest change of each partition below `read`.
    positions: Positions,
    /// What was learned of the topics, bound or not.
    facts: Facts,
    /// Everything bound so far as one binding: the last epoch, the end offsets, the source
    /// positions.
    bound: Binding,
    /// The last epoch that was bound or is being written.
    last: Epoch,
    /// When the last epoch was bound; `None` before the first.
    last_at: Option<Instant>,
    /// Commit times of the records that were read and are not bound yet.
    commits: Commits,
    /// Bytes of the records that were read and are not bound yet.
    bytes: usize,
    /// Partitions that were added and that the workers have not been told of yet.
    added: Vec<Added>,
    /// The binding that is being written to the journal.
    writing: Option<InFlight>,
    /// Bound epochs that are not durable in the sink yet, oldest first.
    in_flight: VecDeque<InFlight>,
    /// Every epoch at or below this one is durable in the sink.
    durable: Epoch,
    /// Whether the frontier of a table is below the last epoch of earlier runs. A sink may refuse a
    /// frontier at an epoch that the table had before it was created again, so one more epoch is
    /// bound, even if nothing is read.
    owes_tables: bool,
    /// The checkpoint schedule.
    checkpoints: Checkpoints,
    /// What a stop still waits for.
    catch_up: CatchUp,
    /// The settled epochs, through which deletions may be forgotten.
    laps: Laps,
    /// The thread that writes bindings; `None` when earlier epochs are replayed and no new ones
    /// bound.
    journal: Option<Journaling>,
    /// Whether a stop was asked for.
    stopping: bool,
    /// Since when the run takes its last checkpoint.
    closing: Option<Instant>,
    /// Whether [`Command::Stop`] was sent.
    stopped: bool,
    /// Wakes the binder's operator.
    wake: Option<Activator>,
    /// Ends the job.
    failure: Failure,
}

impl Binder {
    /// A binder that resumes from `start`. Its first command is [`Command::Start`].
    ///
    /// # Errors
    /// When the thread that writes the journal cannot be started.
    pub(crate) fn new(
        start: Start,
        journal: Option<Arc<Journal>>,
        checkpoints: Checkpoints,
        catch_up: CatchUp,
        (limits, time): (Limits, TimeSource),
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
        let (read, mut facts) = (bound.ends.clone(), bound.facts.clone());
        topic_facts::learn(&mut facts, &start.facts);
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
            facts,
            positions: bound.positions.clone(),
            bound,
            start: Some(start),
            limits,
            time,
            wanted: BTreeMap::new(),
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

    /// Sets how the operator that drives the binder is woken: from its own thread, and from the
    /// journal's thread when a binding is durable.
    pub(crate) fn wake_with(&mut self, wake: Activator, from_thread: SyncActivator) {
        self.wake = Some(wake);
        if let Some(journal) = &self.journal {
            journal.wake_with(from_thread);
        }
    }

    /// Takes in a worker's report. A schema id that stands for two schemas ends the job with the
    /// error of [`resume::registry_made_anew`].
    pub(crate) fn read(&mut self, report: Report) {
        self.stopping |= report.stop;
        self.commits.merge(&report.commits);
        self.bytes += report.bytes;
        for written in report.written {
            self.checkpoints.take(written);
        }
        match report.wanted {
            Some(Wanted { worker, at: None }) => drop(self.wanted.remove(&worker)),
            Some(Wanted {
                worker,
                at: Some(at),
            }) => drop(self.wanted.insert(worker, at)),
            None => {}
        }
        if !report.added.is_empty() {
            let (topic, partitions) = (report.topic.clone(), report.added);
            // No worker reads these partitions before it has received this message. Therefore no
            // epoch has a record of a partition without the partition's start offset.
            let begins = resume::begins(&partitions);
            self.facts.entry(topic.clone()).or_default().learn(&begins);
            self.added.push(Added { topic, partitions });
        }
        if !report.positions.is_empty() {
            // Each partition has one reader, and its reports arrive in order.
            let positions = self.positions.entry(report.topic.clone()).or_default();
            positions.extend(report.positions);
        }
        if !report.schemas.is_empty() {
            let known = self.facts.entry(report.topic.clone()).or_default();
            let is_another = |(id, new): (&u32, &i64)| {
                let known = known.schemas.get(id);
                known.is_some_and(|known| known != new)
            };
            if report.schemas.iter().any(is_another) {
                self.failure.set(resume::registry_made_anew(&report.topic));
                return;
            }
            known.schemas.extend(report.schemas);
            self.tell_schemas(&report.topic);
        }
        if !report.ends.is_empty() {
            merge(
                &mut self.read,
                &Offsets::from([(report.topic, report.ends)]),
            );
        }
    }

    /// The commands that are due now, in the order in which all workers must receive them. Also
    /// binds the next epoch when [`Limits`] allow one.
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

    /// Drains the run and ends it: binds everything that the topics held when the stop was asked
    /// for, takes a checkpoint so that the next start replays nothing, and then returns
    /// [`Command::Stop`]. The checkpoint is abandoned after [`CLOSING_MAX`], for example while the
    /// sink is away.
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

    /// Whether an epoch may be bound now: there is something to bind, no binding is being written,
    /// the limits in flight are not reached, and the shortest interval between epochs has passed.
    fn may_bind(&self) -> bool {
        self.journal.is_some()
            && self.writing.is_none()
            && (self.has_news()
                || self.owes_checkpoint()
                || self.owes_epoch()
                || self.time_in().is_some_and(|wait| wait.is_zero()))
            && self.in_flight.len() < self.limits.epochs_in_flight_max
            && self.in_flight.iter().map(|it| it.bytes).sum::<usize>()
                < self.limits.bytes_in_flight_max
            && self.epoch_in().is_none()
    }

    /// Whether something was read or learned that is not bound yet.
    fn has_news(&self) -> bool {
        self.read != self.bound.ends || self.facts != self.bound.facts
    }

    /// Whether an epoch is due for a checkpoint of what was bound since the last checkpoint.
    fn owes_checkpoint(&self) -> bool {
        self.checkpoints.is_due() && self.last > self.checkpoints.epoch()
    }

    /// Whether an epoch is due for the frontiers of tables that are behind.
    fn owes_epoch(&self) -> bool {
        self.owes_tables && self.in_flight.is_empty()
    }

    /// The time until an operator needs an epoch, as the clock is now; `None` if none does. A time
    /// at or before the last epoch is not waited for, because that epoch is on its way to the
    /// operator.
    fn time_in(&self) -> Option<Duration> {
        let later = self.wanted.values().filter(|at| **at > self.last);
        let wait = later.min()?.saturating_sub(self.time.now_ms());
        Some(Duration::from_millis(wait).min(CLOCK_LOOK))
    }

    /// Whether the epoch that was just bound is the last one of this run.
    fn is_last(&self) -> bool {
        self.closing.is_some() && !self.checkpoints.is_going()
    }

    /// The time until the binder must be called although nothing else wakes it; `None` when it only
    /// waits for reports, the journal or the sink.
    pub(crate) fn due_in(&self) -> Option<Duration> {
        if self.stopping && !self.stopped {
            return Some(CLOSING_LOOK);
        }
        let checkpoint = self.checkpoints.due_in(self.last);
        let times = checkpoint.into_iter().chain(self.time_in());
        let due = self.epoch_in().into_iter().chain(times);
        // A wait of zero is left out: that work was just done, or it waits for an event that wakes
        // the binder.
        due.filter(|wait| !wait.is_zero()).min()
    }

    /// Publishes in the statistics which schemas a topic's records were read with.
    fn tell_schemas(&self, topic: &str) {
        let schemas = self.facts.get(topic).map(|facts| &facts.schemas);
        let schemas = schemas
            .into_iter()
            .flatten()
            .map(|(id, schema)| ((topic.to_owned(), *id), *schema));
        lock(&self.stats.schemas).extend(schemas);
    }

    /// Publishes the commit time of the oldest change that was read and is not in every view yet.
    fn tell_waiting(&self) {
        let in_flight = self.in_flight.iter().chain(&self.writing);
        let batches = in_flight.map(|it| &it.commits).chain([&self.commits]);
        let oldest = batches.filter_map(|it| it.oldest_from(self.began)).min();
        let oldest = oldest.and_then(|at| u64::try_from(at).ok()).unwrap_or(0);
        self.stats.waiting_since.store(oldest, Ordering::Relaxed);
    }

    /// The time until the next epoch may be closed; `None` when it may be closed now.
    fn epoch_in(&self) -> Option<Duration> {
        let since = self.last_at?.elapsed();
        self.limits
            .epoch_interval_min
            .checked_sub(since)
            .filter(|wait| !wait.is_zero())
    }

    /// Starts writing the binding of the next epoch. The epoch is the current time in ms, or one
    /// more than the last epoch if the clock did not move forward.
    fn bind(&mut self) {
        let Some(journal) = &self.journal else { return };
        let epoch = self.time.now_ms().max(self.last + 1);
        let ends = moved(&self.bound.ends, &self.read);
        let binding = Binding {
            epoch,
            positions: of(&self.positions, &ends),
            ends,
            facts: topic_facts::beyond(&self.facts, &self.bound.facts),
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

    /// The greatest bound epoch `e` in flight such that `complete` holds for `e` and for all epochs
    /// in flight before `e`.
    pub(crate) fn last_complete(&self, complete: impl Fn(Epoch) -> bool) -> Option<Epoch> {
        self.in_flight
            .iter()
            .map(|e| e.binding.epoch)
            .take_while(|epoch| complete(*epoch))
            .last()
    }

    /// Records that every epoch at or below `epoch` is durable in the sink: frees its room in
    /// flight, and measures the freshness of its records.
    pub(crate) fn durable(&mut self, epoch: Epoch) {
        let now = now_ms() as i64;
        let mut ends = lock(&self.stats.durable_ends);
        let mut freshness = lock(&self.stats.freshness_ms);
        let mut recent = lock(&self.stats.recent);
        while let Some(done) = self.in_flight.pop_front_if(|e| e.binding.epoch <= epoch) {
            merge(&mut ends, &done.binding.ends);
            // A record that was committed before this run began waited for the run to start. Its
            // age is no freshness of this run.
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

/// Raises each offset to the one in `with`, if that is greater. Offsets never go down.
fn merge(offsets: &mut Offsets, with: &Offsets) {
    for (topic, ends) in with {
        let known = offsets.entry(topic.clone()).or_default();
        for (partition, end) in ends {
            let at = known.entry(*partition).or_insert(*end);
            *at = (*at).max(*end);
        }
    }
}

/// Adds the next epoch to `bound`, which stands for everything through its epoch.
fn extend(bound: &mut Binding, with: &Binding) {
    bound.epoch = with.epoch;
    merge(&mut bound.ends, &with.ends);
    with.move_positions(&mut bound.positions);
    topic_facts::learn(&mut bound.facts, &with.facts);
}

/// The source positions of the partitions in `ends`.
fn of(positions: &Positions, ends: &Offsets) -> Positions {
    let mut of = Positions::new();
    for (topic, ends) in ends {
        let known = positions.get(topic).into_iter().flatten();
        let known = known.filter(|(partition, _)| ends.contains_key(partition));
        let known: BTreeMap<_, _> = known
            .map(|(partition, position)| (*partition, *position))
            .collect();
        if !known.is_empty() {
            of.insert(topic.clone(), known);
        }
    }
    of
}

/// The partitions whose offset in `to` is beyond the one in `from`, or that `from` does not have.
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

/// The thread that writes bindings to the journal, so that worker 0 does not wait for the store.
///
/// Each channel has room for one message: at most one binding is being written.
struct Journaling {
    /// Bindings to be written.
    to: SyncSender<Binding>,
    /// One message for each binding that is durable.
    done: Receiver<()>,
    /// Hands the waker of the binder's operator to the thread, once.
    wake: SyncSender<SyncActivator>,
}

impl Journaling {
    /// Starts the thread that writes bindings to the journal, one at a time.
    fn start(journal: Arc<Journal>, failure: &Failure) -> Result<Self> {
        let (to, bindings) = sync_channel::<Binding>(1);
        let (tell, done) = sync_channel(1);
        let (wake, wakes) = sync_channel::<SyncActivator>(1);
        failure.spawn("journal", move || {
            let Ok(wake) = wakes.recv() else {
                return Ok(());
            };
            while let Ok(binding) = bindings.recv() {
                retry("write the journal", || journal.bind(&binding))?;
                if tell.send(()).is_err() || wake.activate().is_err() {
                    break;
                }
            }
            Ok(())
        })?;
        Ok(Self { to, done, wake })
    }

    /// Hands over the waker that is called when a binding is durable.
    fn wake_with(&self, wake: SyncActivator) {
        // The operator is built once. The first waker stays if this is called again.
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.wake.try_send(wake)
        {
            tracing::debug!("the journal's thread has its waker");
        }
    }

    /// Hands a binding to the thread.
    fn write(&self, binding: Binding) {
        // Sending fails only when the thread has ended; the thread's error then ends the job.
        if self.to.send(binding).is_err() {
            tracing::debug!("the journal's thread has ended");
        }
    }

    /// Whether the binding being written has become durable. Returns true once per binding.
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
