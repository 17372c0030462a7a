//! The journal: the durable log of bindings, complete checkpoints and generations of a job.
//!
//! It records which offsets belong to which epoch, before a row of the epoch is released
//! (architecture invariant 3), which checkpoints are complete, and which generation of processes
//! may write (architecture invariant 5).
//!
//! A journal is a log of numbered objects, `JOB/journal/NUMBER` (20 digits). Each object is created
//! with put-if-absent and never changed. Input: bindings and complete checkpoints, in order.
//! Output: the same, in order, as a [`Standing`].
//!
//! ```text
//! generation 7   ─ bind ─ bind ─ (frozen) ───────────────── wakes up ─ bind ─► Fence: 43 is taken
//! generation 8                      opens the journal ─ bind ─ checkpoint ─ truncate ─►
//!                                   │
//! objects         … 41 ── 42 ──── 43: opened ── 44: bound ── 45: checkpoint ── 46: base
//!                                                                               (41 … 45 deleted)
//! ```
//!
//! Invariants:
//! 1. Opening a journal appends the entry `opened`, with the next generation. A writer appends at
//!    the number after the last one that it knows. Therefore, of two writers, the older one finds
//!    its number taken and is fenced. When two processes open at the same moment, the loser takes
//!    over from the winner, so the last one to open continues.
//! 2. Truncating appends one object that stands for all objects before it (a *base*), and then
//!    deletes those: first the older bases and the very first object, one after the other in
//!    ascending order, then the rest in any order. Readers begin at the newest base. Therefore
//!    deleting may stop anywhere, and a fenced process that still deletes removes only objects that
//!    nobody reads.
//! 3. Each writer knows the base, or the very first object, at which its own reading began. If the
//!    writer's next number is free again because objects were deleted, then that object is gone (by
//!    2 it was deleted first), or a different object has its number (of another such writer). In
//!    both cases the writer is fenced. What it just wrote is below the newest base.
//! 4. From the base on (or from 1) the numbers have no gap.
//! 5. In a directory, a binding is not an object but a frame in the *tail* of the writer's last
//!    object (`tail`). A frame counts only if no object of another writer follows. The writer
//!    looks for such an object after its frame is durable. A process that opens the journal reads
//!    the tail after its own object exists, and then appends a base with all that it read.
//!    Therefore a binding that was reported durable is always read, and a binding that was refused
//!    is not read once another one was bound.
//! 6. An append whose outcome is unknown (`Retry`) may be repeated. A writer recognises its own
//!    entries by their generation and its writer number, and takes them as written.
//! 7. A generation may be minted for another process to write as. Minting fences all older
//!    generations, and at first nobody writes. A process that opens the journal as that generation
//!    appends its writer number as in 1, but only if the last entry is the minter's (or its own, of
//!    an earlier attempt). Therefore, of several processes with the same generation one writes, and
//!    none writes if a newer generation was minted in the meantime.

mod entry;
mod standing;
mod tail;
pub mod topic_facts;

#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tidemill_ir::Epoch;
use tidemill_log::backoff::Backoff;
use tidemill_log::{Error, Kind, Result, failpoint};

use self::entry::{Entry, NOBODY, Opened, Record};
use self::standing::{First, Loaded, load, name, numbers, tail_name, take_tail};
use self::tail::TailFile;
use crate::store::Store;
use crate::value::source_position::SourcePosition;

pub use self::standing::Standing;
pub use self::topic_facts::{Facts, TopicFacts};

/// Attempts of one append. A store may report a number as taken while no object is visible yet, and
/// a writer that is being taken over may append in between.
const LOOKS_MAX: usize = 10;
/// Attempts to take over from processes that open the journal at the same moment.
const TAKEOVERS_MAX: u64 = 20;
/// The first pause of a process whose takeover was overtaken.
const TAKEOVER_PAUSE: Duration = Duration::from_millis(20);
/// The longest of these pauses.
const TAKEOVER_PAUSE_MAX: Duration = Duration::from_millis(400);
/// A journal with nothing to merge is truncated anyway when this many objects follow its base,
/// because each start of a job adds objects.
const OBJECTS_MAX: u64 = 100;

/// End offsets (one past the last record) by topic and partition.
pub type Offsets = BTreeMap<String, BTreeMap<u32, i64>>;

/// Source positions of the newest changes that were read, by topic and partition.
pub type Positions = BTreeMap<String, BTreeMap<u32, SourcePosition>>;

/// The binding of one epoch. A record belongs to the epoch if its offset is below `ends` and it is
/// in no earlier epoch. Partitions that did not move since the previous epoch are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The epoch, in ms since 1970; strictly increasing.
    pub epoch: Epoch,
    /// The end offset (one past the last record) of each partition that moved.
    pub ends: Offsets,
    /// The source position of the newest change of each partition in `ends`. A partition has none
    /// if its records carry no source positions, or if they were read by a version that did not
    /// filter duplicates and kept no positions.
    #[serde(default, alias = "places")]
    pub positions: Positions,
    /// What was learned of the topics since the previous epoch.
    #[serde(default)]
    pub facts: Facts,
}

impl Binding {
    /// Moves source positions from before this epoch to its end. A partition that the epoch moves
    /// without a position loses its position.
    pub fn move_positions(&self, positions: &mut Positions) {
        for (topic, ends) in &self.ends {
            let known = positions.entry(topic.clone()).or_default();
            let bound = self.positions.get(topic);
            for partition in ends.keys() {
                match bound.and_then(|bound| bound.get(partition)) {
                    Some(position) => drop(known.insert(*partition, *position)),
                    None => drop(known.remove(partition)),
                }
            }
        }
        positions.retain(|_, known| !known.is_empty());
    }
}

/// A complete checkpoint, as the journal names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpointed {
    /// The checkpoint holds the state at the end of this epoch.
    pub epoch: Epoch,
    /// The name of the manifest: the object that names all other objects of the checkpoint.
    pub manifest: String,
}

/// A minted generation, claimed by one process that wants to write as it.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// The minted generation.
    generation: u64,
    /// The writer number of this process.
    writer: u64,
}

impl Claim {
    /// A claim of this process. Use the same claim for every attempt to open the journal, because
    /// the journal recognises an earlier attempt by the claim's writer number.
    #[must_use]
    pub fn of(generation: u64) -> Self {
        let writer = new_writer();
        Self { generation, writer }
    }
}

/// Mints a generation: takes the journal over as the next generation, for another process to write
/// as it ([`Journal::open_minted`]). When this function returns, all earlier writers are fenced and
/// nobody writes yet. Returns the generation.
///
/// # Errors
/// As [`Journal::open`].
pub fn mint(store: Arc<dyn Store>, job: &str) -> Result<u64> {
    Journal::take_over(store, job, NOBODY).map(|(_, standing)| standing.generation)
}

/// The journal of one job, open for writing by this process alone.
///
/// All methods take `&self`: the end of the journal is behind a lock, and appends happen one after
/// the other. Any method may find that a newer generation took over; its error is then of kind
/// `Fence`, and the process must stop.
pub struct Journal {
    /// The state store.
    store: Arc<dyn Store>,
    /// The objects' folder, `JOB/journal`.
    folder: String,
    /// The end of the journal.
    tail: Mutex<Tail>,
}

/// The end of the journal as this process knows it.
struct Tail {
    /// The number of the last object; 0 when there is none.
    number: u64,
    /// The writer number of the process that wrote the last object.
    writer: u64,
    /// The object at which reading begins: the newest base, or object 1; `None` in an empty
    /// journal.
    first: Option<First>,
    /// The number of the newest base; 0 when there is none.
    base: u64,
    /// Whether objects below the base may still exist.
    untidy: bool,
    /// Whether an append failed, so that objects of this process may follow the last one it knows.
    unsure: bool,
    /// The open tail file, with the number of the object that it belongs to.
    file: Option<(u64, TailFile)>,
    /// The state that all entries so far amount to.
    standing: Standing,
}

impl Journal {
    /// Reads the journal and takes it over as the next generation. All earlier writers are fenced
    /// from then on. Every entry in the returned [`Standing`] is durable.
    ///
    /// # Errors
    /// `Retry` when the store is away. `Data` when the job's name cannot be one, the journal is
    /// damaged or of a later format, or the store does not support put-if-absent. `Fence` when
    /// other processes took the journal over `TAKEOVERS_MAX` times in the meantime.
    pub fn open(store: Arc<dyn Store>, job: &str) -> Result<(Self, Standing)> {
        Self::take_over(store, job, new_writer())
    }

    /// Opens the journal as a generation that was minted before. This succeeds only if no newer
    /// generation was minted and no other process opened this one.
    ///
    /// # Errors
    /// `Fence` when this process may not write as the generation. `Data` when the generation was
    /// never minted there. Otherwise as [`Journal::open`].
    pub fn open_minted(
        store: Arc<dyn Store>,
        job: &str,
        claim: &Claim,
    ) -> Result<(Self, Standing)> {
        let journal = Self::new(store, folder(job)?);
        let mut tail = Tail::from(load(&*journal.store, &journal.folder)?);
        let Claim { generation, writer } = *claim;
        let newest = tail.standing.generation;
        if newest != generation || ![NOBODY, writer].contains(&tail.writer) {
            return Err(superseded(&journal.folder, generation, newest));
        }
        journal.enter(&mut tail, generation, writer)?;
        journal.opened(job, tail)
    }

    /// A journal that has not been read yet.
    fn new(store: Arc<dyn Store>, folder: String) -> Self {
        let tail = Mutex::default();
        Self {
            store,
            folder,
            tail,
        }
    }

    /// Takes the journal over as the next generation, and again if another process does so first.
    fn take_over(store: Arc<dyn Store>, job: &str, writer: u64) -> Result<(Self, Standing)> {
        let folder = folder(job)?;
        let mut backoff = Backoff::new(TAKEOVER_PAUSE, TAKEOVER_PAUSE_MAX);
        for _ in 1..=TAKEOVERS_MAX {
            let mut tail = Tail::from(load(&*store, &folder)?);
            let journal = Self::new(Arc::clone(&store), folder.clone());
            let generation = tail.standing.generation + 1;
            match journal.enter(&mut tail, generation, writer) {
                Err(error) if error.kind() == Kind::Fence => {
                    // The competing process needs a few writes. A random pause lets every process
                    // have its turn.
                    std::thread::sleep(backoff.pause());
                    continue;
                }
                entered => entered?,
            }
            return journal.opened(job, tail);
        }
        let what = format!(
            "journal `{folder}`: other processes took it over {TAKEOVERS_MAX} times meanwhile; run \
             a job once at a time"
        );
        Err(Error::new(Kind::Fence, what))
    }

    /// Appends the entry `opened` of a writer, after the end that `tail` knows.
    fn enter(&self, tail: &mut Tail, generation: u64, writer: u64) -> Result<()> {
        let opened = Entry {
            generation,
            writer,
            record: Record::Opened(Opened::here()),
        };
        failpoint::hit(failpoint::JOURNAL_BEFORE_OPEN);
        self.append(tail, &opened)?;
        failpoint::hit(failpoint::JOURNAL_AFTER_OPEN);
        self.check_put_new(tail)?;
        self.settle_tail(tail)
    }

    /// Finishes opening: removes temporary objects, and deletes what an earlier truncation left.
    fn opened(self, job: &str, tail: Tail) -> Result<(Self, Standing)> {
        self.store.sweep(job)?;
        let (standing, base) = (tail.standing.clone(), tail.base);
        *self.lock() = tail;
        self.delete_below(base)?;
        Ok((self, standing))
    }

    /// Reads the journal without taking it over. Nothing is written, and nobody is fenced.
    ///
    /// # Errors
    /// `Retry` when the store is away. `Data` when the job's name cannot be one, or when the
    /// journal is damaged or of a later format.
    ///
    /// # Errors
    /// When the store is away or refuses, or the journal is damaged.
    pub fn read(store: &dyn Store, job: &str) -> Result<Standing> {
        Ok(load(store, &folder(job)?)?.standing)
    }

    /// Appends a binding durably. If the journal's last binding is this one, nothing is written.
    ///
    /// # Errors
    /// `Fence` when a newer generation took over: this process must stop. `Retry` when the store is
    /// away or full: the same binding may be given again. `Bug` when the epoch does not increase.
    pub fn bind(&self, binding: &Binding) -> Result<()> {
        let mut tail = self.lock();
        if tail.standing.holds_last(binding) {
            return self.check_last(&mut tail);
        }
        check_order(tail.standing.last_epoch() + 1, binding.epoch)?;
        failpoint::hit(failpoint::JOURNAL_BEFORE_BIND);
        let bound = Record::Bound(binding.clone());
        if self.store.path(&self.folder).is_some() {
            self.append_behind(&mut tail, bound)?;
        } else {
            self.append_own(&mut tail, bound)?;
        }
        failpoint::hit(failpoint::JOURNAL_AFTER_BIND);
        Ok(())
    }

    /// Appends durably that a checkpoint is complete. All objects that its manifest names must be
    /// durable before this call.
    ///
    /// # Errors
    /// As [`Journal::bind`].
    pub fn checkpoint(&self, checkpoint: &Checkpointed) -> Result<()> {
        let mut tail = self.lock();
        let last = tail.standing.checkpoints.last();
        if last == Some(checkpoint) {
            return self.check_last(&mut tail);
        }
        check_order(last.map_or(0, |last| last.epoch), checkpoint.epoch)?;
        failpoint::hit(failpoint::JOURNAL_BEFORE_CHECKPOINT);
        self.append_own(&mut tail, Record::Checkpoint(checkpoint.clone()))?;
        failpoint::hit(failpoint::JOURNAL_AFTER_CHECKPOINT);
        Ok(())
    }

    /// Merges all bindings at or below `epoch` into one binding at the greatest of their epochs,
    /// and forgets checkpoints below `epoch`. A crash at any point leaves a correct journal.
    ///
    /// # Errors
    /// As [`Journal::bind`].
    pub fn truncate(&self, epoch: Epoch) -> Result<()> {
        let Some(base) = self.append_truncated(epoch)? else {
            return Ok(());
        };
        // The lock is free while objects are deleted. On S3 this takes a while, and bindings do not
        // wait.
        self.delete_below(base)
    }

    /// Deletes the objects below a base, in the order of invariant 2.
    fn delete_below(&self, base: u64) -> Result<()> {
        let below = numbers(&*self.store, &self.folder)?.into_iter();
        let below: Vec<u64> = below.take_while(|number| *number < base).collect();
        let names: Vec<String> = below.iter().map(|n| name(&self.folder, *n)).collect();
        let objects = self.store.get_all(&names)?;
        let (mut firsts, mut others) = (Vec::new(), Vec::new());
        for ((number, name), bytes) in below.into_iter().zip(names).zip(objects) {
            let Some(bytes) = bytes else { continue };
            // An object that cannot be read may have been a base.
            let is_other = Entry::decode(&name, &bytes).is_ok_and(|entry| !entry.is_base());
            let delete = if is_other && number > 1 {
                &mut others
            } else {
                &mut firsts
            };
            // The tail goes first, because it can only be found through its object.
            let tail = tail_name(&self.folder, number);
            delete.extend(self.store.path(&tail).map(|_| tail));
            delete.push(name);
        }
        for name in firsts {
            self.store.delete(&name)?;
            failpoint::hit(failpoint::JOURNAL_BETWEEN_DELETES);
        }
        let point = failpoint::JOURNAL_BETWEEN_DELETES;
        self.store.delete_all(&others, point)?;
        let mut tail = self.lock();
        tail.untidy &= tail.base != base;
        Ok(())
    }

    /// Appends a base, if there is something to merge. Returns the number below which objects are
    /// to be deleted, if there may be any.
    fn append_truncated(&self, epoch: Epoch) -> Result<Option<u64>> {
        let mut tail = self.lock();
        self.make_sure(&mut tail)?;
        let mut standing = tail.standing.clone();
        standing.truncate(epoch);
        if standing != tail.standing || tail.number - tail.base >= OBJECTS_MAX {
            failpoint::hit(failpoint::JOURNAL_BEFORE_TRUNCATE);
            self.append_own(&mut tail, Record::standing_for(standing))?;
            failpoint::hit(failpoint::JOURNAL_AFTER_TRUNCATE);
        } else {
            self.check_last(&mut tail)?;
        }
        Ok(tail.untidy.then_some(tail.base))
    }

    /// The end of the journal, locked.
    fn lock(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a record as the process that wrote the last entry.
    fn append_own(&self, tail: &mut Tail, record: Record) -> Result<()> {
        let entry = tail.entry(record);
        self.append(tail, &entry)
    }

    /// After a takeover in a directory: appends a base that holds what was found in the tail of the
    /// previous writer's last object. The previous writer may still append frames to that tail, but
    /// they are refused, and no later reader may take them for bound.
    fn settle_tail(&self, tail: &mut Tail) -> Result<()> {
        if self.store.path(&self.folder).is_none() {
            return Ok(());
        }
        take_tail(
            &*self.store,
            &self.folder,
            tail.number - 1,
            &mut tail.standing,
        )?;
        let record = Record::standing_for(tail.standing.clone());
        self.append_own(tail, record)
    }

    /// Reads own objects after the known end whose outcome was unknown. A base must stand for them
    /// too.
    fn make_sure(&self, tail: &mut Tail) -> Result<()> {
        if tail.unsure {
            self.catch_up(tail, &[])?;
            tail.unsure = false;
        }
        Ok(())
    }

    /// Appends an entry durably to the tail of the last object (invariant 5), then checks that no
    /// other writer's object follows.
    fn append_behind(&self, tail: &mut Tail, record: Record) -> Result<()> {
        self.make_sure(tail)?;
        let entry = tail.entry(record);
        let name = tail_name(&self.folder, tail.number);
        let path = self.store.path(&name).unwrap_or_default();
        let mut file = match tail.file.take() {
            Some((number, file)) if number == tail.number => file,
            _ => TailFile::create(&path).map_err(|error| unwritten(&name, error))?,
        };
        let appended = file.append(&entry.encode()?);
        tail.file = Some((tail.number, file));
        appended.map_err(|error| unwritten(&name, error))?;
        self.check_last(tail)?;
        let applied = tail.standing.apply(entry);
        applied.map_err(|why| entry::damaged(&name, why))
    }

    /// Appends an entry durably as an object after the end that `tail` knows, and moves that end.
    fn append(&self, tail: &mut Tail, entry: &Entry) -> Result<()> {
        let appended = self.append_object(tail, entry);
        tail.unsure = appended.is_err();
        appended
    }

    /// Appends an entry as an object, at the number after the last one.
    fn append_object(&self, tail: &mut Tail, entry: &Entry) -> Result<()> {
        let bytes = entry.encode()?;
        for _ in 0..LOOKS_MAX {
            let name = name(&self.folder, tail.number + 1);
            if self.store.put_new(&name, bytes.clone())? {
                self.check_first(tail)?;
                return tail.take(&name, entry.clone(), &bytes);
            }
            if self.catch_up(tail, &bytes)? {
                return Ok(());
            }
        }
        let what = format!(
            "journal `{}`: object {} cannot be made, others are quicker",
            self.folder,
            tail.number + 1
        );
        Err(Error::new(Kind::Retry, what))
    }

    /// Reads on from the known end. Takes in entries of the generation and writer that `tail` ends
    /// with: own entries whose outcome was unknown, or, before a takeover, those of the writer that
    /// is taken over. Returns true if the entry `appending` is among them.
    ///
    /// # Errors
    /// `Fence` when an entry is of another writer.
    fn catch_up(&self, tail: &mut Tail, appending: &[u8]) -> Result<bool> {
        let mut is_there = false;
        loop {
            let name = name(&self.folder, tail.number + 1);
            let found = self.store.get(&name)?;
            self.check_first(tail)?;
            let Some(found) = found else {
                return Ok(is_there);
            };
            let there = Entry::decode(&name, &found)?;
            let is_it = found == appending;
            let by = (there.generation, there.writer);
            if !is_it && by != (tail.standing.generation, tail.writer) {
                return Err(overtaken(&name, tail.standing.generation, &there));
            }
            is_there |= is_it;
            take_tail(&*self.store, &self.folder, tail.number, &mut tail.standing)?;
            tail.take(&name, there, &found)?;
        }
    }

    /// Checks that the object at which reading began is still there unchanged (invariant 3).
    fn check_first(&self, tail: &Tail) -> Result<()> {
        let Some(first) = &tail.first else {
            // The journal was empty. If object 1 is free again, then others exist, and this writer
            // is fenced.
            if numbers(&*self.store, &self.folder)?.last() <= Some(&1) {
                return Ok(());
            }
            return Err(gone(&name(&self.folder, 1)));
        };
        let name = name(&self.folder, first.number);
        match self.store.get_range(&name, 0..first.head.len() as u64) {
            Ok(head) if head == first.head => Ok(()),
            Ok(_) => Err(gone(&name)),
            Err(error) if error.kind() == Kind::Data => match self.store.get(&name)? {
                Some(bytes) if bytes.starts_with(&first.head) => Err(error),
                _ => Err(gone(&name)),
            },
            Err(error) => Err(error),
        }
    }

    /// Checks that no other writer has appended since.
    fn check_last(&self, tail: &mut Tail) -> Result<()> {
        self.catch_up(tail, &[]).map(|_| ())
    }

    /// Checks that the store refuses to create an object that exists. A store that overwrites it
    /// instead would fence nobody. The bytes of this attempt differ from the object's, so that
    /// nobody takes them for the object if it was deleted in the meantime.
    ///
    /// # Errors
    /// `Data` when the store created the object a second time.
    fn check_put_new(&self, tail: &Tail) -> Result<()> {
        let name = name(&self.folder, tail.number);
        let another = tail.entry(Record::Opened(Opened::here()));
        if !self.store.put_new(&name, another.encode()?)? {
            return Ok(());
        }
        if numbers(&*self.store, &self.folder)?.last() > Some(&tail.number) {
            return Err(gone(&name));
        }
        let what = format!(
            "journal object `{name}` could be made twice: the store does not support \
             put-if-absent (`If-None-Match: *` on S3), which keeps two processes apart"
        );
        Err(Error::new(Kind::Data, what))
    }
}

impl Default for Tail {
    fn default() -> Self {
        Self::from(Loaded::default())
    }
}

impl From<Loaded> for Tail {
    fn from(loaded: Loaded) -> Self {
        Self {
            number: loaded.number,
            writer: loaded.writer,
            first: loaded.first,
            base: loaded.base,
            untidy: loaded.untidy,
            unsure: false,
            file: None,
            standing: loaded.standing,
        }
    }
}

impl Tail {
    /// The next entry of the process that wrote the last entry.
    fn entry(&self, record: Record) -> Entry {
        Entry {
            generation: self.standing.generation,
            writer: self.writer,
            record,
        }
    }

    /// Moves the known end to an object that is durable.
    fn take(&mut self, name: &str, entry: Entry, bytes: &[u8]) -> Result<()> {
        self.number += 1;
        self.writer = entry.writer;
        if entry.is_base() {
            (self.base, self.untidy) = (self.number, true);
        }
        if entry.is_base() || self.number == 1 {
            self.first = Some(First::new(self.number, bytes));
        }
        let applied = self.standing.apply(entry);
        applied.map_err(|why| entry::damaged(name, why))
    }
}

impl Opened {
    /// This process, now.
    fn here() -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            at_ms: since.map_or(0, |since| {
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            }),
            host: host.trim().to_owned(),
            process: std::process::id(),
            random: RandomState::new().hash_one(()),
        }
    }
}

/// A random writer number, which no other process has with overwhelming probability.
fn new_writer() -> u64 {
    RandomState::new().hash_one(()).max(NOBODY + 1)
}

/// The folder of a job's journal; `Data` if the job's name cannot be a folder's name.
fn folder(job: &str) -> Result<String> {
    if job.is_empty() || job.contains(['/', '\\']) || job.starts_with('.') {
        return Err(Error::new(
            Kind::Data,
            format!("job name `{job}`: expected a name without slashes or a leading dot"),
        ));
    }
    Ok(format!("{job}/journal"))
}

/// The error of a tail that could not be written: `Retry`, because a disk may have space again.
fn unwritten(name: &str, error: std::io::Error) -> Error {
    let what = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            "no space left; it goes on when there is space"
        }
        _ => "it cannot be written",
    };
    Error::with_source(Kind::Retry, format!("journal tail `{name}`: {what}"), error)
}

/// Checks that epochs increase; `Bug` if not.
fn check_order(least: Epoch, epoch: Epoch) -> Result<()> {
    if epoch >= least {
        return Ok(());
    }
    let what =
        format!("journal: epoch {epoch} where {least} or later is due: epochs must increase");
    Err(Error::new(Kind::Bug, what))
}

/// The `Fence` error of invariant 3.
fn gone(name: &str) -> Error {
    let what = format!(
        "journal object `{name}` is no longer the one that this process left: a newer generation \
         truncated the journal, or someone removed it; this process must stop"
    );
    Error::new(Kind::Fence, what)
}

/// The error of a claim whose generation is not the newest, or is already open.
fn superseded(folder: &str, generation: u64, newest: u64) -> Error {
    let (kind, why) = match newest.cmp(&generation) {
        Ordering::Greater => (
            Kind::Fence,
            format!(
                "generation {newest} took this job over, and this process, of generation \
                 {generation}, must stop"
            ),
        ),
        Ordering::Equal => (
            Kind::Fence,
            format!(
                "another process opened generation {generation} before, and this one must stop"
            ),
        ),
        Ordering::Less => (
            Kind::Data,
            format!(
                "generation {generation} was not minted there, the newest is {newest}: is the \
                 state of all processes of the job at the same place?"
            ),
        ),
    };
    Error::new(kind, format!("journal `{folder}`: {why}"))
}

/// The `Fence` error of a number that another writer took.
fn overtaken(name: &str, generation: u64, by: &Entry) -> Error {
    let who = match &by.record {
        Record::Opened(it) => format!(": process {} on {}", it.process, it.host),
        _ => String::new(),
    };
    let what = format!(
        "journal object `{name}` is of generation {}{who}; another process took this job over, \
         and this one, of generation {generation}, must stop",
        by.generation
    );
    Error::new(Kind::Fence, what)
}
