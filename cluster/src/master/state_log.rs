//! What is durable, in the store: `cluster/state/NUMBER` (20 digits), a document for each change.
//!
//! 1. A document is made with put-if-absent, so of two masters that write the same number one finds
//!    it taken. It is no longer the master.
//! 2. A master begins by writing the next number: the last to start goes on.
//! 3. After each write it is looked whether there is a greater number: old ones are deleted, so a
//!    number may be free again. What was written below a greater number is read by nobody.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use anyhow::{Context, bail};
use tidemill_dataflow::store::Store;

use super::durable::{Author, Durable};

const FOLDER: &str = "cluster/state";
/// Old documents that are kept, for whoever wants to see what happened.
const KEPT_MAX: usize = 10;
/// How often a start gives way to others that start at the same moment.
const TAKEOVERS_MAX: usize = 20;

/// The documents of one cluster.
#[derive(Clone)]
pub(crate) struct Book {
    store: Arc<dyn Store>,
}

/// What became of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Written {
    Done,
    /// This is the master.
    Overtaken(Author),
}

impl Book {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Takes over from the master before, if any: what was durable, now by `listen`'s master.
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

    /// Writes a document, and deletes old ones. An error of kind `Retry` says nothing about whether
    /// it was written: the same may be written again.
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

    /// Who wrote a greater number than this one.
    pub(crate) fn overtaken(&self, number: u64) -> anyhow::Result<Option<Author>> {
        let newest = self.numbers()?.last().copied();
        let Some(newest) = newest.filter(|newest| *newest > number) else {
            return Ok(None);
        };
        let bytes = self.store.get(&name(newest))?.unwrap_or_default();
        Ok(Some(author_of(&bytes).unwrap_or_default()))
    }

    /// The newest document.
    fn newest(&self) -> anyhow::Result<Option<(u64, Durable)>> {
        let Some(number) = self.numbers()?.last().copied() else {
            return Ok(None);
        };
        let name = name(number);
        // A master that writes meanwhile deletes only what is old.
        let bytes = self.store.get(&name)?;
        let bytes = bytes.with_context(|| format!("object `{name}` vanished while it was read"))?;
        let durable = serde_json::from_slice(&bytes);
        let durable = durable.with_context(|| {
            format!("object `{name}` is no state of a master: damaged, or of a newer version?")
        })?;
        Ok(Some((number, durable)))
    }

    fn numbers(&self) -> anyhow::Result<Vec<u64>> {
        let names = self.store.list(FOLDER)?.into_iter();
        let mut numbers: Vec<u64> = names
            .filter_map(|(name, _)| name.rsplit('/').next()?.parse().ok())
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// A store that overwrites what it should refuse would keep two masters.
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

fn author_of(bytes: &[u8]) -> Option<Author> {
    serde_json::from_slice::<Durable>(bytes)
        .ok()
        .map(|it| it.by)
}

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
    use tidemill_dataflow::store;

    fn book() -> (tempfile::TempDir, Book) {
        let folder = tempfile::tempdir().unwrap();
        let store = store::open(&format!("file://{}", folder.path().display())).unwrap();
        (folder, Book::new(store))
    }

    #[test]
    fn the_last_to_start_goes_on_and_the_other_finds_out() {
        let (_folder, book) = book();
        let first = book.take_over("a:1").unwrap();
        assert_eq!(first.by.generation, 1);
        let mut changed = first.clone();
        changed.ingests = 7;
        assert_eq!(book.write(2, &changed).unwrap(), Written::Done);
        assert_eq!(book.write(2, &changed).unwrap(), Written::Done, "again");
        let second = book.take_over("b:2").unwrap();
        assert_eq!((second.by.generation, second.by.number), (2, 3));
        assert_eq!(second.ingests, 7);
        let overtaken = Written::Overtaken(second.by.clone());
        assert_eq!(book.write(3, &changed).unwrap(), overtaken);
        assert_eq!(book.overtaken(2).unwrap(), Some(second.by.clone()));
        assert_eq!(book.overtaken(3).unwrap(), None);
        let said = second.by.to_string();
        assert!(
            said.contains("master generation 2") && said.contains("b:2"),
            "{said}"
        );
    }

    #[test]
    fn a_number_that_is_free_again_does_not_bring_an_old_master_back() {
        let (_folder, book) = book();
        let first = book.take_over("a:1").unwrap();
        let mut second = book.take_over("b:2").unwrap();
        for number in 3..30 {
            second.ingests += 1;
            assert_eq!(book.write(number, &second).unwrap(), Written::Done);
        }
        assert_eq!(book.numbers().unwrap().len(), KEPT_MAX);
        let written = book.write(2, &first).unwrap();
        assert_eq!(written, Written::Overtaken(second.by.clone()));
        assert_eq!(book.newest().unwrap(), Some((29, second)));
    }
}
