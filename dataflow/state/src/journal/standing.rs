//! The journal's state ([`Standing`]): reading its entries from a store, and applying them in
//! order.

use tidemill_ir::Epoch;
use tidemill_log::{Error, Kind, Result};

use super::entry::{Entry, NOBODY, Record, damaged};
use super::{Binding, Checkpointed, tail, topic_facts};
use crate::store::Store;

/// How often the objects are listed again, because another process truncated the journal in
/// between.
const LISTINGS_MAX: usize = 5;
/// How many objects are read at a time, from the newest backwards. Those before the newest base are
/// read in vain.
const READ_AHEAD: usize = 32;
/// Bytes of an object that are compared to recognise it; they contain its first line.
const HEAD_BYTES: usize = 64;

/// What the entries of a journal amount to: what a job knows when it starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// The generation that wrote last; 0 when none did.
    pub generation: u64,
    /// Bindings by increasing epoch. A truncated journal begins with one merged binding.
    pub bindings: Vec<Binding>,
    /// Complete checkpoints, oldest first.
    pub checkpoints: Vec<Checkpointed>,
}

impl Standing {
    /// The last epoch that is bound; 0 when none is.
    pub(super) fn last_epoch(&self) -> Epoch {
        self.bindings.last().map_or(0, |binding| binding.epoch)
    }

    /// Whether a binding is the last one, or was merged into the last one.
    pub(super) fn holds_last(&self, binding: &Binding) -> bool {
        let Some(last) = self.bindings.last().filter(|it| it.epoch == binding.epoch) else {
            return false;
        };
        let ends = binding.ends.iter().all(|(topic, ends)| {
            let held = last.ends.get(topic);
            ends.iter().all(|(partition, end)| {
                held.and_then(|held| held.get(partition))
                    .is_some_and(|held| held == end)
            })
        });
        ends && topic_facts::beyond(&binding.facts, &last.facts).is_empty()
    }

    /// Applies the next entry. The error says what is wrong with the entry: a generation or an
    /// epoch that does not increase.
    pub(super) fn apply(&mut self, entry: Entry) -> std::result::Result<(), String> {
        if entry.generation < self.generation {
            return Err(format!(
                "generation {} follows {}",
                entry.generation, self.generation
            ));
        }
        self.generation = entry.generation;
        match entry.record {
            Record::Opened(_) => {}
            // A frame that was written a second time behind the next object, because its outcome
            // was unknown.
            Record::Bound(binding) if self.bindings.last() == Some(&binding) => {}
            Record::Bound(binding) => {
                let last = self.last_epoch();
                if binding.epoch <= last {
                    return Err(format!("epoch {} follows {last}", binding.epoch));
                }
                self.bindings.push(binding);
            }
            Record::Checkpoint(checkpoint) => self.checkpoints.push(checkpoint),
            Record::Truncated {
                bindings,
                checkpoints,
            } => {
                self.bindings = bindings;
                self.checkpoints = checkpoints;
            }
        }
        Ok(())
    }

    /// Merges all bindings at or below `epoch` into one at the greatest of their epochs, and
    /// forgets checkpoints below `epoch`.
    pub fn truncate(&mut self, epoch: Epoch) {
        let later = self
            .bindings
            .partition_point(|binding| binding.epoch <= epoch);
        if later > 1 {
            let merged = merge(self.bindings.drain(..later));
            self.bindings.insert(0, merged);
        }
        self.checkpoints
            .retain(|checkpoint| checkpoint.epoch >= epoch);
    }
}

/// Merges bindings, given by increasing epoch, into one: each partition's last end offset, at the
/// last epoch.
fn merge(bindings: impl IntoIterator<Item = Binding>) -> Binding {
    let mut merged = Binding::default();
    for binding in bindings {
        merged.epoch = binding.epoch;
        binding.move_positions(&mut merged.positions);
        topic_facts::learn(&mut merged.facts, &binding.facts);
        for (topic, ends) in binding.ends {
            merged.ends.entry(topic).or_default().extend(ends);
        }
    }
    merged
}

/// The result of reading a journal.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// The state that the entries amount to.
    pub(super) standing: Standing,
    /// The newest object's number; 0 when there is none.
    pub(super) number: u64,
    /// The writer number of the newest object.
    pub(super) writer: u64,
    /// The lowest object that was read.
    pub(super) first: Option<First>,
    /// The number of the newest base; 0 when there is none.
    pub(super) base: u64,
    /// Whether objects below `base` exist.
    pub(super) untidy: bool,
}

/// An object that is recognised by its first bytes, which contain its checksum.
#[derive(Debug)]
pub(super) struct First {
    /// The object's number.
    pub(super) number: u64,
    /// Its first bytes.
    pub(super) head: Vec<u8>,
}

impl First {
    /// The object's first bytes.
    pub(super) fn new(number: u64, bytes: &[u8]) -> Self {
        let head = bytes.iter().copied().take(HEAD_BYTES).collect();
        Self { number, head }
    }
}

/// An object's name.
pub(super) fn name(folder: &str, number: u64) -> String {
    format!("{folder}/{number:020}")
}

/// The name of the tail behind an object. Tails are files beside the objects; only directories have
/// them.
pub(super) fn tail_name(folder: &str, number: u64) -> String {
    format!("{folder}-tail/{number:020}")
}

/// Takes in the bindings of an object's tail, if the store is a directory.
///
/// # Errors
/// `Retry` when the file cannot be read; `Data` when it is damaged or holds another kind of entry.
pub(super) fn take_tail(
    store: &dyn Store,
    folder: &str,
    number: u64,
    standing: &mut Standing,
) -> Result<()> {
    let name = tail_name(folder, number);
    let Some(path) = store.path(&name) else {
        return Ok(());
    };
    let read = tail::read(&path).map_err(|error| {
        Error::with_source(
            Kind::Retry,
            format!("journal tail `{name}` cannot be read"),
            error,
        )
    })?;
    for payload in read.map_err(|why| damaged(&name, why))? {
        let mut entry = Entry::decode(&name, &payload)?;
        let Record::Bound(binding) = &entry.record else {
            return Err(damaged(&name, "it holds what is no binding"));
        };
        if binding.epoch <= standing.last_epoch() {
            continue; // taken in already
        }
        // A process that opens the journal reads what was written before it opened.
        entry.generation = entry.generation.max(standing.generation);
        standing.apply(entry).map_err(|why| damaged(&name, why))?;
    }
    Ok(())
}

/// The numbers of the objects, ascending. Other names are skipped; a store may show such names for
/// objects that are not complete yet.
///
/// # Errors
/// As [`Store::list`].
pub(super) fn numbers(store: &dyn Store, folder: &str) -> Result<Vec<u64>> {
    let number = |(name, _): (String, u64)| {
        let digits = name.strip_prefix(folder)?.strip_prefix('/')?;
        let whole = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|_| whole)
    };
    Ok(store.list(folder)?.into_iter().filter_map(number).collect())
}

/// Reads a journal. A gap may come from a truncation by another process, so the objects are listed
/// again up to [`LISTINGS_MAX`] times.
///
/// # Errors
/// Errors of the store; `Data` when an object is damaged or missing.
pub(super) fn load(store: &dyn Store, folder: &str) -> Result<Loaded> {
    let mut last = None;
    for _ in 0..LISTINGS_MAX {
        match read(store, folder, &numbers(store, folder)?)? {
            Ok(loaded) => return Ok(loaded),
            Err(missing) => last = Some(missing),
        }
    }
    Err(last.unwrap_or_else(|| Error::new(Kind::Bug, "a journal was never listed")))
}

/// Reads the objects that count: from the newest base on. The inner error is a gap, which another
/// process may have caused by truncating the journal in the meantime.
fn read(store: &dyn Store, folder: &str, numbers: &[u64]) -> Result<Result<Loaded>> {
    let gap = |number| Ok(Err(damaged(&name(folder, number), "it is missing")));
    let mut entries: Vec<(u64, Entry)> = Vec::new();
    let mut loaded = Loaded::default();
    'read: for numbers in numbers.rchunks(READ_AHEAD) {
        let names: Vec<String> = numbers.iter().map(|n| name(folder, *n)).collect();
        let objects = store.get_all(&names)?;
        for ((&number, name), bytes) in numbers.iter().zip(&names).zip(objects).rev() {
            if let Some((above, _)) = entries.last()
                && above - number != 1
            {
                return gap(above - 1);
            }
            let Some(bytes) = bytes else {
                return gap(number);
            };
            let entry = Entry::decode(name, &bytes)?;
            loaded.number = loaded.number.max(number);
            loaded.first = Some(First::new(number, &bytes));
            let is_base = entry.is_base();
            entries.push((number, entry));
            if is_base {
                loaded.base = number;
                break 'read;
            }
        }
    }
    loaded.writer = entries.first().map_or(NOBODY, |(_, newest)| newest.writer);
    match entries.last() {
        Some((first, _)) if *first != 1 && loaded.base == 0 => return gap(first - 1),
        Some((first, _)) => loaded.untidy = numbers.first() < Some(first),
        None => {}
    }
    for (number, entry) in entries.into_iter().rev() {
        let applied = loaded.standing.apply(entry);
        applied.map_err(|why| damaged(&name(folder, number), why))?;
        take_tail(store, folder, number, &mut loaded.standing)?;
    }
    Ok(Ok(loaded))
}
