//! Durable state of the master in the store, and leader change between masters:
//! `cluster/state/NUMBER` (20 digits), one document per change.
//!
//! There is no lock and no election. The document with the greatest number is the state, and its
//! author is the master, like a leader with the greatest term.
//!
//! ```text
//! master A   put 41 ──────────────────────── put 42: taken ─► another master took over: A ends
//! master B             reads 41, put 42: done ─ put 43: done ─► B continues
//! ```
//!
//! 1. A document is written with put-if-absent. Of two masters that write the same number, one
//!    finds it taken, and is no longer the master.
//! 2. A master begins by writing the next number. Therefore the master that started last continues.
//! 3. After each write the master checks whether there is a greater number. Old documents are
//!    deleted, so a low number may be free again. A document below a greater number is read by
//!    nobody.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use anyhow::{Context, bail};
use tidemill_state::store::Store;

use crate::machine::durable::{Author, Durable};

/// The folder of the documents in the store.
const FOLDER: &str = "cluster/state";
/// Old documents that are kept, for people who want to see what happened.
const KEPT_MAX: usize = 10;
/// Attempts of a starting master, when others start at the same moment.
const TAKEOVERS_MAX: usize = 20;

/// The documents of one cluster's master.
#[derive(Clone)]
pub(crate) struct StateLog {
    store: Arc<dyn Store>,
}

/// The result of writing a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Written {
    /// The document is durable, and none has a greater number.
    Done,
    /// Another master took over: this one.
    Overtaken(Author),
}

impl StateLog {
    /// The documents in this store.
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Takes over from the master before, if there was one. Returns the durable state, with a new
    /// author that listens at `listen`.
    ///
    /// # Errors
    ///
    /// The store does not answer or has no put-if-absent, the newest document is damaged or of a
    /// later version, or other masters took over [`TAKEOVERS_MAX`] times meanwhile.
    pub(crate) fn take_over(&self, listen: &str) -> anyhow::Result<Durable> {
        for _ in 0..TAKEOVERS_MAX {
            let (number, mut durable) = self.newest()?.unwrap_or_default();
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            durable.by = Author {
                generation: durable.by.generation + 1,
                number: number + 1,
                host: host.trim().to_owned(),
                process: std::process::id(),
                listen: listen.to_owned(),
                random: RandomState::new().hash_one(number),
            };
            if self.write(number + 1, &durable)? == Written::Done {
                self.check_put_new(number + 1, &durable)?;
                return Ok(durable);
            }
        }
        bail!(
            "other masters took over {TAKEOVERS_MAX} times meanwhile; start one master at a time \
             on one store"
        );
    }

    /// Writes document `number` and deletes old documents. Writing the same document again is
    /// harmless.
    ///
    /// # Errors
    ///
    /// After an error of kind `Retry` it is unknown whether the document was written: write the
    /// same one again.
    pub(crate) fn write(&self, number: u64, durable: &Durable) -> anyhow::Result<Written> {
        let bytes = serde_json::to_vec(durable).context("the master's state as JSON")?;
        if !self.store.put_new(&name(number), bytes.clone())? {
            let there = self.store.get(&name(number))?;
            if there.as_ref() != Some(&bytes) {
                let by = there
                    .and_then(|bytes| author_of(&bytes))
                    .unwrap_or_default();
                return Ok(Written::Overtaken(by));
            }
        }
        if let Some(by) = self.overtaken(number)? {
            return Ok(Written::Overtaken(by));
        }
        let numbers = self.numbers()?;
        let old = numbers.len().saturating_sub(KEPT_MAX);
        for number in numbers.into_iter().take(old) {
            self.store.delete(&name(number))?;
        }
        Ok(Written::Done)
    }

    /// The author of a document with a greater number than `number`, if there is one.
    ///
    /// # Errors
    ///
    /// The store does not answer.
    pub(crate) fn overtaken(&self, number: u64) -> anyhow::Result<Option<Author>> {
        let newest = self.numbers()?.last().copied();
        let Some(newest) = newest.filter(|newest| *newest > number) else {
            return Ok(None);
        };
        let bytes = self.store.get(&name(newest))?.unwrap_or_default();
        Ok(Some(author_of(&bytes).unwrap_or_default()))
    }

    /// The newest document and its number.
    fn newest(&self) -> anyhow::Result<Option<(u64, Durable)>> {
        let Some(number) = self.numbers()?.last().copied() else {
            return Ok(None);
        };
        let name = name(number);
        // Another master that writes meanwhile deletes only old documents.
        let bytes = self.store.get(&name)?;
        let bytes = bytes.with_context(|| format!("object `{name}` vanished while it was read"))?;
        let durable = serde_json::from_slice(&bytes);
        let durable = durable.with_context(|| {
            format!("object `{name}` is no state of a master: damaged, or of a newer version?")
        })?;
        Ok(Some((number, durable)))
    }

    /// The numbers of all documents, ascending.
    fn numbers(&self) -> anyhow::Result<Vec<u64>> {
        let names = self.store.list(FOLDER)?.into_iter();
        let mut numbers: Vec<u64> = names
            .filter_map(|(name, _)| name.rsplit('/').next()?.parse().ok())
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Proves that the store refuses to overwrite. A store that overwrites would allow two masters.
    fn check_put_new(&self, number: u64, durable: &Durable) -> anyhow::Result<()> {
        let mut another = durable.clone();
        another.by.random = !another.by.random;
        let bytes = serde_json::to_vec(&another).context("the master's state as JSON")?;
        if self.store.put_new(&name(number), bytes)? {
            bail!(
                "object `{}` could be made twice: the store does not support put-if-absent \
                 (`If-None-Match: *` on S3), which keeps two masters apart",
                name(number)
            );
        }
        Ok(())
    }
}

/// The author of a document; `None` if the document cannot be read.
fn author_of(bytes: &[u8]) -> Option<Author> {
    serde_json::from_slice::<Durable>(bytes)
        .ok()
        .map(|it| it.by)
}

/// The object of document `number`.
fn name(number: u64) -> String {
    format!("{FOLDER}/{number:020}")
}

impl std::fmt::Display for Author {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "master generation {}, process {} on {}, listening on {}",
            self.generation, self.process, self.host, self.listen
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_state::store;

    fn state_log() -> (tempfile::TempDir, StateLog) {
        let folder = tempfile::tempdir().unwrap();
        let store = store::open(&format!("file://{}", folder.path().display())).unwrap();
        (folder, StateLog::new(store))
    }

    #[test]
    fn the_last_to_start_goes_on_and_the_other_finds_out() {
        let (_folder, state_log) = state_log();
        let first = state_log.take_over("a:1").unwrap();
        assert_eq!(first.by.generation, 1);
        let mut changed = first.clone();
        changed.ingests = 7;
        assert_eq!(state_log.write(2, &changed).unwrap(), Written::Done);
        assert_eq!(
            state_log.write(2, &changed).unwrap(),
            Written::Done,
            "again"
        );
        let second = state_log.take_over("b:2").unwrap();
        assert_eq!((second.by.generation, second.by.number), (2, 3));
        assert_eq!(second.ingests, 7);
        let overtaken = Written::Overtaken(second.by.clone());
        assert_eq!(state_log.write(3, &changed).unwrap(), overtaken);
        assert_eq!(state_log.overtaken(2).unwrap(), Some(second.by.clone()));
        assert_eq!(state_log.overtaken(3).unwrap(), None);
        let said = second.by.to_string();
        assert!(
            said.contains("master generation 2") && said.contains("b:2"),
            "{said}"
        );
    }

    #[test]
    fn a_number_that_is_free_again_does_not_bring_an_old_master_back() {
        let (_folder, state_log) = state_log();
        let first = state_log.take_over("a:1").unwrap();
        let mut second = state_log.take_over("b:2").unwrap();
        for number in 3..30 {
            second.ingests += 1;
            assert_eq!(state_log.write(number, &second).unwrap(), Written::Done);
        }
        assert_eq!(state_log.numbers().unwrap().len(), KEPT_MAX);
        let written = state_log.write(2, &first).unwrap();
        assert_eq!(written, Written::Overtaken(second.by.clone()));
        assert_eq!(state_log.newest().unwrap(), Some((29, second)));
    }
}
