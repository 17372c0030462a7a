//! The journal: which offsets belong to which epoch, durable before a row of the epoch is released
//! (invariant 3), which checkpoints are complete, and which generation of processes may say so
//! (invariant 5).
//!
//! A journal is a log of numbered objects, `JOB/journal/NUMBER` (20 digits), each made with
//! put-if-absent and never changed. In: bindings and complete checkpoints, in order. Out: the same,
//! in order, as [`Standing`].
//!
//! 1. Whoever opens a journal appends that it took over, as the next generation; its writer appends
//!    at the number after the last that it knows. So of two writers the older finds its number
//!    taken: it is fenced. When two open at the same moment the one that lost takes over from the
//!    one that won, so the last to open goes on.
//! 2. Truncating appends one object that stands for all before it (a *base*), then deletes those:
//!    the older bases and the very first object one after the other, ascending, then the rest in
//!    any order. Readers begin at the newest base, so deleting may stop anywhere, and whoever
//!    deletes too late deletes only what nobody reads.
//! 3. Each writer knows the base, or the very first object, that its own reading began with. When
//!    its number is free again because objects were deleted, that one is gone (by 2 it went first)
//!    or another is in its place (of one more such writer): it is fenced. What it wrote is below
//!    the newest base.
//! 4. Numbers from that object on (or from 1) have no gap.
//! 5. In a directory a binding is no object but a frame in the *tail* of the writer's last object
//!    ([`tail`]), which counts when no object follows: a writer looks for one after its frame is
//!    durable, and whoever opens the journal reads the tail after its own object is there, and then
//!    appends an object that stands for all it read. So a binding that was reported durable is
//!    always read, and one that was refused is not read once another was bound.
//! 6. An append whose outcome is not known (`Retry`) may be tried again: a writer knows its own
//!    entries, by their generation and its own number, and takes them as written.
//! 7. A generation may be minted for another process to write as: that fences all older ones, and
//!    nobody writes. Whoever then opens the journal as that generation appends its number as in 1,
//!    and goes on only when the last entry is the minter's (or its own, of an attempt before). So
//!    of several processes that were told the same generation one writes, and none when a newer
//!    one was minted meanwhile.

mod entry;
mod standing;
mod tail;

#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tidemill_log::failpoint;

use self::entry::{Entry, NOBODY, Opened, Record};
pub use self::standing::Standing;
use self::standing::{First, Loaded, load, name, numbers, tail_name, take_tail};
use self::tail::TailFile;
use crate::store::Store;
use crate::value::source_position::SourcePosition;
use crate::{Epoch, Error, Kind, Result};

/// How often an append tries again: a store may say of a number that it is taken while nothing is
/// there yet, and before it is taken over another process may go on writing.
const LOOKS_MAX: usize = 10;
/// How often opening takes over from processes that opened at the same moment.
const TAKEOVERS_MAX: u64 = 20;
/// A journal with nothing to merge is truncated anyway when it has this many objects: each start
/// of the job leaves one.
const OBJECTS_MAX: u64 = 100;

/// End offsets (one past the last record) by topic and partition.
pub type Offsets = BTreeMap<String, BTreeMap<u32, i64>>;

/// The newest change that was taken, by topic and partition.
pub type Places = BTreeMap<String, BTreeMap<u32, SourcePosition>>;

/// One epoch: every record below `ends` that no earlier epoch holds belongs to it. Partitions that
/// did not move since the epoch before are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The epoch, in milliseconds; strictly increasing.
    pub epoch: Epoch,
    /// Where each moved partition ends.
    pub ends: Offsets,
    /// The newest change of each of them at its end. None of one whose records have no places, or
    /// were taken whatever their places were, as versions did that kept none.
    #[serde(default)]
    pub places: Places,
}

impl Binding {
    /// Moves the places before this epoch to those at its end.
    pub(crate) fn move_places(&self, places: &mut Places) {
        for (topic, ends) in &self.ends {
            let known = places.entry(topic.clone()).or_default();
            let bound = self.places.get(topic);
            for partition in ends.keys() {
                match bound.and_then(|bound| bound.get(partition)) {
                    Some(place) => drop(known.insert(*partition, *place)),
                    None => drop(known.remove(partition)),
                }
            }
        }
        places.retain(|_, known| !known.is_empty());
    }
}

/// A complete checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpointed {
    /// The state after this epoch.
    pub epoch: Epoch,
    /// The object that names all others of the checkpoint.
    pub manifest: String,
}

/// A minted generation as one process wants to write as it.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    generation: u64,
    writer: u64,
}

impl Claim {
    /// This process's. The same claim is to be used for every attempt to open the journal.
    #[must_use]
    pub fn of(generation: u64) -> Self {
        let writer = new_writer();
        Self { generation, writer }
    }
}

/// Takes the journal of a job over as the next generation, for other processes to write as it
/// ([`Journal::open_minted`]): whoever wrote before is fenced when this returns, and nobody writes
/// yet. Returns that generation.
///
/// # Errors
/// As [`Journal::open`].
pub fn mint(store: Arc<dyn Store>, job: &str) -> Result<u64> {
    Journal::take_over(store, job, NOBODY).map(|(_, standing)| standing.generation)
}

/// The journal of one job, open for writing by this process alone.
pub struct Journal {
    store: Arc<dyn Store>,
    /// `JOB/journal`.
    folder: String,
    tail: Mutex<Tail>,
}

/// The journal's end as this process knows it.
struct Tail {
    /// The last object; 0 when there is none.
    number: u64,
    /// Who wrote it.
    writer: u64,
    /// The object that reading begins with; none when there is none.
    first: Option<First>,
    /// The newest object that stands for all before it.
    base: u64,
    /// Objects below it may be there.
    untidy: bool,
    /// An append failed, so there may be own objects after the last that this process knows.
    unsure: bool,
    /// The file behind that object, and the object's number.
    file: Option<(u64, TailFile)>,
    standing: Standing,
}

impl Journal {
    /// Reads the journal and takes it over as the next generation: whoever wrote it before is
    /// fenced from now on. An entry that was read is durable when this returns.
    ///
    /// # Errors
    /// When the store is away or refuses, the journal is damaged, or other processes keep taking
    /// it over (`Fence`).
    pub fn open(store: Arc<dyn Store>, job: &str) -> Result<(Self, Standing)> {
        Self::take_over(store, job, new_writer())
    }

    /// The same as a generation that was minted before, if no newer one was and no other process
    /// opened it.
    ///
    /// # Errors
    /// `Fence` when the generation is not this process's to write as, otherwise as
    /// [`Journal::open`].
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

    fn new(store: Arc<dyn Store>, folder: String) -> Self {
        let tail = Mutex::default();
        Self {
            store,
            folder,
            tail,
        }
    }

    /// Takes the journal over as the next generation.
    fn take_over(store: Arc<dyn Store>, job: &str, writer: u64) -> Result<(Self, Standing)> {
        let folder = folder(job)?;
        for attempt in 1..=TAKEOVERS_MAX {
            let mut tail = Tail::from(load(&*store, &folder)?);
            let journal = Self::new(Arc::clone(&store), folder.clone());
            let generation = tail.standing.generation + 1;
            match journal.enter(&mut tail, generation, writer) {
                Err(error) if error.kind() == Kind::Fence => {
                    // Whoever is at it takes a few writes; all come to their turn.
                    let wait = RandomState::new().hash_one(attempt) % (1 + attempt * 20);
                    std::thread::sleep(Duration::from_millis(wait));
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

    /// Appends that a writer opened the journal, at the end that `tail` knows.
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

    /// The journal with the end that its writer left, tidied up.
    fn opened(self, job: &str, tail: Tail) -> Result<(Self, Standing)> {
        self.store.sweep(job)?;
        let (standing, base) = (tail.standing.clone(), tail.base);
        *self.lock() = tail;
        self.delete_below(base)?;
        Ok((self, standing))
    }

    /// Reads the journal without taking it over: nothing is written.
    ///
    /// # Errors
    /// When the store is away or refuses, or the journal is damaged.
    pub fn read(store: &dyn Store, job: &str) -> Result<Standing> {
        Ok(load(store, &folder(job)?)?.standing)
    }

    /// Appends a binding durably; one that is there already is not written again.
    ///
    /// # Errors
    /// `Fence` when a newer generation took over: this process must stop. `Retry` when the store is
    /// away or full: the same binding may be given again.
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

    /// Appends durably that a checkpoint is complete.
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

    /// Merges all bindings at or below `epoch` into one at the greatest of their epochs and
    /// forgets checkpoints below `epoch`; stays correct wherever it stops.
    ///
    /// # Errors
    /// As [`Journal::bind`].
    pub fn truncate(&self, epoch: Epoch) -> Result<()> {
        let Some(base) = self.append_truncated(epoch)? else {
            return Ok(());
        };
        // The lock is free meanwhile: on S3 this takes a while, and bindings do not wait for it.
        self.delete_below(base)
    }

    /// Deletes what an object stands for.
    fn delete_below(&self, base: u64) -> Result<()> {
        let below = numbers(&*self.store, &self.folder)?.into_iter();
        let below: Vec<u64> = below.take_while(|number| *number < base).collect();
        let names: Vec<String> = below.iter().map(|n| name(&self.folder, *n)).collect();
        let objects = self.store.get_all(&names)?;
        let (mut firsts, mut others) = (Vec::new(), Vec::new());
        for ((number, name), bytes) in below.into_iter().zip(names).zip(objects) {
            let Some(bytes) = bytes else { continue };
            // What cannot be read may have been a base.
            let is_other = Entry::decode(&name, &bytes).is_ok_and(|entry| !entry.is_base());
            let delete = if is_other && number > 1 {
                &mut others
            } else {
                &mut firsts
            };
            // The tail first: it is found by its object.
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

    /// The number that objects are to be deleted below, if any are.
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

    fn lock(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append_own(&self, tail: &mut Tail, record: Record) -> Result<()> {
        let entry = tail.entry(record);
        self.append(tail, &entry)
    }

    /// After a takeover: an object that stands for what was found behind the last object of the
    /// writer before. That one may still append to its tail, without success, and no later reader
    /// may take that for bound.
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

    /// Takes in own objects whose outcome was not known: what stands for all before it must stand
    /// for them too.
    fn make_sure(&self, tail: &mut Tail) -> Result<()> {
        if tail.unsure {
            self.catch_up(tail, &[])?;
            tail.unsure = false;
        }
        Ok(())
    }

    /// Appends an entry durably to the tail of the last object (invariant 5).
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

    /// Appends an entry durably at the end that `tail` knows, and moves that end.
    fn append(&self, tail: &mut Tail, entry: &Entry) -> Result<()> {
        let appended = self.append_object(tail, entry);
        tail.unsure = appended.is_err();
        appended
    }

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

    /// Takes in entries of the generation that `tail` ends with: own ones whose outcome was not
    /// known, or, before taking over, those of the writer that is taken over. True when the one
    /// that is being appended is among them.
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

    /// See invariant 3.
    fn check_first(&self, tail: &Tail) -> Result<()> {
        let Some(first) = &tail.first else {
            // There was none; but when the first number is free again there are others.
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

    /// That nobody took over since.
    fn check_last(&self, tail: &mut Tail) -> Result<()> {
        self.catch_up(tail, &[]).map(|_| ())
    }

    /// A store that overwrites what it should refuse would fence nobody. What is tried differs
    /// from what is there: nobody may take it for that when it was deleted meanwhile.
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
    /// The next entry of the writer that wrote last.
    fn entry(&self, record: Record) -> Entry {
        Entry {
            generation: self.standing.generation,
            writer: self.writer,
            record,
        }
    }

    /// Moves the end to an object that is durable.
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

/// A number that no other writer has.
fn new_writer() -> u64 {
    RandomState::new().hash_one(()).max(NOBODY + 1)
}

fn folder(job: &str) -> Result<String> {
    if job.is_empty() || job.contains(['/', '\\']) || job.starts_with('.') {
        return Err(Error::new(
            Kind::Data,
            format!("job name `{job}`: expected a name without slashes or a leading dot"),
        ));
    }
    Ok(format!("{job}/journal"))
}

fn unwritten(name: &str, error: std::io::Error) -> Error {
    let what = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            "no space left; it goes on when there is space"
        }
        _ => "it cannot be written",
    };
    Error::with_source(Kind::Retry, format!("journal tail `{name}`: {what}"), error)
}

fn check_order(least: Epoch, epoch: Epoch) -> Result<()> {
    if epoch >= least {
        return Ok(());
    }
    let what =
        format!("journal: epoch {epoch} where {least} or later is due: epochs must increase");
    Err(Error::new(Kind::Bug, what))
}

fn gone(name: &str) -> Error {
    let what = format!(
        "journal object `{name}` is no longer the one that this process left: a newer generation \
         truncated the journal, or someone removed it; this process must stop"
    );
    Error::new(Kind::Fence, what)
}

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
