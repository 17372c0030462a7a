//! Wrappers of [`Log`] and [`Registry`] that report the outcome of each call to [`Health`].
//!
//! So the stages that use a log or registry need not report. A log reports the outcome of appends
//! only. Questions about topics are left out: the error of a topic that does not exist yet is of
//! kind `Retry`, like that of a broker that is down.

use std::sync::Arc;
use std::time::Duration;

use super::{Health, Role};
use crate::Result;
use crate::log::{Described, Log, Look, OwnedRecord, PartitionRange, Producer, Reader, Record};
use crate::registry::{Registered, Registry};

/// Wraps a log so that its producers report.
pub fn log(inner: Arc<dyn Log>, health: &Health) -> Arc<dyn Log> {
    let health = health.clone();
    Arc::new(Reporting { inner, health })
}

/// Wraps a registry so that each of its calls reports.
pub fn registry(inner: Arc<dyn Registry>, health: &Health) -> Arc<dyn Registry> {
    let health = health.clone();
    Arc::new(Reporting { inner, health })
}

/// A log or registry whose calls report.
struct Reporting<T: ?Sized> {
    health: Health,
    inner: Arc<T>,
}

/// A producer whose appends report.
struct Appending {
    inner: Box<dyn Producer>,
    health: Health,
}

impl Producer for Appending {
    fn append(&mut self, records: &[Record]) -> Result<()> {
        let outcome = self.inner.append(records);
        self.health.note(Role::Log, "append", &outcome);
        outcome
    }
}

impl Log for Reporting<dyn Log> {
    fn create_topic(&self, topic: &str, partitions: u32) -> Result<()> {
        self.inner.create_topic(topic, partitions)
    }

    fn delete_topic(&self, topic: &str) -> Result<bool> {
        self.inner.delete_topic(topic)
    }

    fn ranges(&self, topic: &str) -> Result<Vec<PartitionRange>> {
        self.inner.ranges(topic)
    }

    fn describe(&self, topic: &str) -> Result<Option<Described>> {
        self.inner.describe(topic)
    }

    fn producer(&self) -> Result<Box<dyn Producer>> {
        Ok(Box::new(Appending {
            inner: self.inner.producer()?,
            health: self.health.clone(),
        }))
    }

    fn reader(&self, topic: &str, from: &[(u32, i64)]) -> Result<Box<dyn Reader>> {
        self.inner.reader(topic, from)
    }

    fn probe(&self, topic: &str, wait: Duration) -> Result<()> {
        self.inner.probe(topic, wait)
    }

    fn tail(&self, topic: &str, count: u32) -> Result<Vec<OwnedRecord>> {
        self.inner.tail(topic, count)
    }

    fn scan(
        &self,
        topic: &str,
        from: &[(u32, i64)],
        wait: Duration,
        look: Look<'_>,
    ) -> Result<bool> {
        self.inner.scan(topic, from, wait, look)
    }

    fn offsets_at(&self, topic: &str, at_ms: i64) -> Result<Vec<(u32, i64)>> {
        self.inner.offsets_at(topic, at_ms)
    }
}

impl Reporting<dyn Registry> {
    /// Reports an outcome and returns it.
    fn noted<T>(&self, outcome: Result<T>) -> Result<T> {
        self.health.note(Role::Registry, "ask", &outcome);
        outcome
    }
}

impl Registry for Reporting<dyn Registry> {
    fn register(&self, subject: &str, schema: &str) -> Result<Registered> {
        self.noted(self.inner.register(subject, schema))
    }

    fn delete(&self, subject: &str) -> Result<bool> {
        self.noted(self.inner.delete(subject))
    }

    fn replace(&self, subject: &str, schema: &str) -> Result<Registered> {
        self.noted(self.inner.replace(subject, schema))
    }

    fn settle(&self, subject: &str) -> Result<()> {
        self.noted(self.inner.settle(subject))
    }

    fn by_id(&self, id: u32) -> Result<Option<String>> {
        self.noted(self.inner.by_id(id))
    }

    fn by_id_now(&self, id: u32) -> Result<Option<String>> {
        self.noted(self.inner.by_id_now(id))
    }

    fn versions(&self, subject: &str) -> Result<Vec<Registered>> {
        self.noted(self.inner.versions(subject))
    }

    fn latest(&self, subject: &str) -> Result<Option<Registered>> {
        self.noted(self.inner.latest(subject))
    }

    fn compatibility(&self, subject: &str) -> Result<Option<String>> {
        self.noted(self.inner.compatibility(subject))
    }
}
