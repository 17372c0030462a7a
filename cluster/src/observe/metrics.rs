//! Metrics as text: families of samples in the OpenMetrics format that Prometheus reads.
//!
//! What is counted comes from the modules beside this one, anew at each request, so that nothing
//! is kept twice.

use std::borrow::Cow;
use std::fmt;
use std::sync::Mutex;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

/// What the text is.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Names with their values.
pub(super) type Labels = Vec<(&'static str, String)>;

/// A metric with its samples.
#[derive(Debug)]
pub(super) struct Family {
    /// Without the `_total` of a counter, which the format adds.
    name: &'static str,
    help: &'static str,
    kind: Kind,
    samples: Vec<(Labels, Value)>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Debug)]
enum Value {
    Number(f64),
    Whole(u64),
    Histogram(Histogram),
}

/// How many samples are at or below each bound.
#[derive(Debug)]
pub(super) struct Histogram {
    pub(super) sum: f64,
    pub(super) count: u64,
    /// Bounds with the samples between the bound before and this one; the last is without bound.
    pub(super) buckets: Vec<(f64, u64)>,
}

impl Family {
    fn new(name: &'static str, help: &'static str, kind: Kind) -> Self {
        Self {
            name,
            help,
            kind,
            samples: Vec::new(),
        }
    }

    /// A metric that only rises.
    pub(super) fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::Counter)
    }

    /// A metric that rises and falls.
    pub(super) fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::Gauge)
    }

    /// The metric with a sample.
    pub(super) fn is(mut self, value: u64) -> Self {
        self.samples.push((Vec::new(), Value::Whole(value)));
        self
    }

    /// The metric with a sample that is no whole number.
    pub(super) fn about(mut self, value: f64) -> Self {
        self.samples.push((Vec::new(), Value::Number(value)));
        self
    }

    /// The metric with a sample for each item.
    pub(super) fn each(mut self, samples: impl Iterator<Item = (Labels, u64)>) -> Self {
        let samples = samples.map(|(labels, value)| (labels, Value::Whole(value)));
        self.samples.extend(samples);
        self
    }

    /// The same with numbers that are not whole.
    pub(super) fn each_about(mut self, samples: impl Iterator<Item = (Labels, f64)>) -> Self {
        let samples = samples.map(|(labels, value)| (labels, Value::Number(value)));
        self.samples.extend(samples);
        self
    }

    /// A distribution.
    pub(super) fn histogram(name: &'static str, help: &'static str, of: Histogram) -> Self {
        let mut family = Self::new(name, help, Kind::Histogram);
        family.samples.push((Vec::new(), Value::Histogram(of)));
        family
    }

    /// The name of its samples.
    #[cfg(test)]
    pub(super) fn shown(&self) -> String {
        let end = match self.kind {
            Kind::Counter => "_total",
            Kind::Gauge | Kind::Histogram => "",
        };
        format!("{}{end}", self.name)
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
        };
        let mut metric = encoder.encode_descriptor(self.name, self.help, None, kind)?;
        for (labels, value) in &self.samples {
            match labels.is_empty() {
                true => self.sample(&mut metric, value)?,
                false => self.sample(&mut metric.encode_family(labels)?, value)?,
            }
        }
        Ok(())
    }

    fn sample(&self, metric: &mut MetricEncoder<'_>, value: &Value) -> fmt::Result {
        match (self.kind, value) {
            (Kind::Counter, Value::Whole(value)) => {
                metric.encode_counter::<NoLabelSet, _, f64>(value, None)
            }
            (Kind::Counter, Value::Number(value)) => {
                metric.encode_counter::<NoLabelSet, _, f64>(value, None)
            }
            (_, Value::Whole(value)) => metric.encode_gauge(value),
            (_, Value::Number(value)) => metric.encode_gauge(value),
            (_, Value::Histogram(of)) => {
                metric.encode_histogram::<NoLabelSet>(of.sum, of.count, &of.buckets, None)
            }
        }
    }
}

/// Families for one request.
#[derive(Debug)]
struct Families(Mutex<Vec<Family>>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let families = self.0.lock().map_err(|_| fmt::Error)?;
        let mut filled = families.iter().filter(|it| !it.samples.is_empty());
        filled.try_for_each(|family| family.encode(&mut encoder))
    }
}

/// The text of families, each sample with the labels.
pub(super) fn text(labels: Labels, families: Vec<Family>) -> Result<String, fmt::Error> {
    let labels = labels.into_iter();
    let labels = labels.map(|(name, value)| (Cow::Borrowed(name), Cow::Owned(value)));
    let mut registry = Registry::with_labels(labels);
    registry.register_collector(Box::new(Families(Mutex::new(families))));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

/// Milliseconds as seconds.
pub(super) fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}
