//! Engines that report to [`Health`] what their calls met: the stages that use them need not.
//!
//! A log reports what appends met. What it answers about topics is left out: a topic that is not
//! there yet is no service that is away, and both are errors that pass.

use std::sync::Arc;
use std::time::Duration;

use super::{Health, Role};
use crate::Result;
use crate::log::{Described, Log, OwnedRecord, PartitionRange, Producer, Reader, Record};
use crate::registry::{Registered, Registry};

/// A log whose producers report.
pub fn log(inner: Arc<dyn Log>, health: &Health) -> Arc<dyn Log> {
    let health = health.clone();
    Arc::new(Reporting { inner, health })
}

/// A registry that reports.
pub fn registry(inner: Arc<dyn Registry>, health: &Health) -> Arc<dyn Registry> {
    let health = health.clone();
    Arc::new(Reporting { inner, health })
}

struct Reporting<T: ?Sized> {
    health: Health,
    inner: Arc<T>,
}

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
}

impl Reporting<dyn Registry> {
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
}
