//! A [`Store`] that reports the outcome of each call to [`Health`], for any engine.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use tidemill_log::Result;
use tidemill_log::failpoint::Point;
use tidemill_log::health::{Health, Role};

use super::contract::Store;

/// Wraps a store and reports its outcomes, so that the stages that use the store need not.
pub struct Reporting {
    /// The store that does the work.
    inner: Arc<dyn Store>,
    /// Where outcomes are reported.
    health: Health,
}

impl Reporting {
    /// The store `inner`, reporting to `health` as the role `State`.
    pub fn of(inner: Arc<dyn Store>, health: &Health) -> Arc<dyn Store> {
        let health = health.clone();
        Arc::new(Self { inner, health })
    }

    /// Reports an outcome, and returns it.
    fn noted<T>(&self, outcome: Result<T>) -> Result<T> {
        self.health.note(Role::State, "use", &outcome);
        outcome
    }
}

impl Store for Reporting {
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.noted(self.inner.get(name))
    }

    fn get_range(&self, name: &str, range: Range<u64>) -> Result<Vec<u8>> {
        self.noted(self.inner.get_range(name, range))
    }

    fn put(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        self.noted(self.inner.put(name, bytes))
    }

    fn put_new(&self, name: &str, bytes: Vec<u8>) -> Result<bool> {
        self.noted(self.inner.put_new(name, bytes))
    }

    fn list(&self, folder: &str) -> Result<Vec<(String, u64)>> {
        self.noted(self.inner.list(folder))
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.noted(self.inner.delete(name))
    }

    fn get_all(&self, names: &[String]) -> Result<Vec<Option<Vec<u8>>>> {
        self.noted(self.inner.get_all(names))
    }

    fn delete_all(&self, names: &[String], between: Point) -> Result<()> {
        self.noted(self.inner.delete_all(names, between))
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.inner.path(name)
    }

    fn sweep(&self, folder: &str) -> Result<()> {
        self.noted(self.inner.sweep(folder))
    }
}
