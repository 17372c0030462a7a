//! Metrics as text in the OpenMetrics format that Prometheus reads.
//!
//! The modules beside this one build the metrics anew at each request, so no number is stored
//! twice.
//!
//! ```text
//! Status, Stats ─► Family (name, help, kind, samples) ─► text() ─► prometheus_client ─► text
//! ```
//!
//! Format: <https://prometheus.io/docs/specs/om/open_metrics_spec/>. The order of families and
//! samples is that in which they are given. Label values are escaped by the encoder.

use std::borrow::Cow;
use std::fmt;
use std::sync::Mutex;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

/// The content type of `/metrics`.
///
/// Prometheus chooses its parser by this header.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Names and values of labels.
pub(super) type Labels = Vec<(&'static str, String)>;

/// A metric with its samples. Families without samples are left out of the text.
#[derive(Debug)]
pub(super) struct Family {
    /// The name without the suffix `_total` of a counter, which the format adds.
    name: &'static str,
    /// One sentence without a full stop.
    help: &'static str,
    /// The type, which decides how samples are written.
    kind: Kind,
    /// The samples, each with its labels.
    samples: Vec<(Labels, Value)>,
}

/// The type of a metric.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// A number that only rises while the process lives.
    Counter,
    /// A number that rises and falls.
    Gauge,
    /// A distribution over fixed ranges.
    Histogram,
}

/// The value of a sample.
#[derive(Debug)]
enum Value {
    /// A floating-point number.
    Number(f64),
    /// An integer.
    Whole(u64),
    /// A distribution.
    Histogram(Histogram),
}

/// A distribution: the number of samples in each range of values.
#[derive(Debug)]
pub(super) struct Histogram {
    /// The sum of all samples.
    pub(super) sum: f64,
    /// The number of samples.
    pub(super) count: u64,
    /// Upper bounds, each with the number of samples above the bound before it. The last bound is
    /// infinite.
    pub(super) buckets: Vec<(f64, u64)>,
}

impl Family {
    /// A family without samples.
    fn new(name: &'static str, help: &'static str, kind: Kind) -> Self {
        Self {
            name,
            help,
            kind,
            samples: Vec::new(),
        }
    }

    /// A counter: a metric that only rises.
    pub(super) fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::Counter)
    }

    /// A gauge: a metric that rises and falls.
    pub(super) fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::Gauge)
    }

    /// Adds one integer sample without labels.
    pub(super) fn is(mut self, value: u64) -> Self {
        self.samples.push((Vec::new(), Value::Whole(value)));
        self
    }

    /// Adds one floating-point sample without labels.
    pub(super) fn about(mut self, value: f64) -> Self {
        self.samples.push((Vec::new(), Value::Number(value)));
        self
    }

    /// Adds an integer sample for each item.
    pub(super) fn each(mut self, samples: impl Iterator<Item = (Labels, u64)>) -> Self {
        let samples = samples.map(|(labels, value)| (labels, Value::Whole(value)));
        self.samples.extend(samples);
        self
    }

    /// Adds a floating-point sample for each item.
    pub(super) fn each_about(mut self, samples: impl Iterator<Item = (Labels, f64)>) -> Self {
        let samples = samples.map(|(labels, value)| (labels, Value::Number(value)));
        self.samples.extend(samples);
        self
    }

    /// A histogram with one distribution.
    pub(super) fn histogram(name: &'static str, help: &'static str, of: Histogram) -> Self {
        let mut family = Self::new(name, help, Kind::Histogram);
        family.samples.push((Vec::new(), Value::Histogram(of)));
        family
    }

    /// The name of the family's samples in the text.
    #[cfg(test)]
    pub(super) fn shown(&self) -> String {
        let end = match self.kind {
            Kind::Counter => "_total",
            Kind::Gauge | Kind::Histogram => "",
        };
        format!("{}{end}", self.name)
    }

    /// Writes the family and its samples.
    ///
    /// # Errors
    /// The encoder cannot write, which does not happen for a string.
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

    /// Writes one sample.
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

/// The families of one request, as the collector that the encoder wants.
#[derive(Debug)]
struct Families(Mutex<Vec<Family>>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let families = self.0.lock().map_err(|_| fmt::Error)?;
        let mut filled = families.iter().filter(|it| !it.samples.is_empty());
        filled.try_for_each(|family| family.encode(&mut encoder))
    }
}

/// The text of all families. `labels` are added to every sample.
///
/// # Errors
/// The encoder refuses a name or a value.
pub(super) fn text(labels: Labels, families: Vec<Family>) -> Result<String, fmt::Error> {
    let labels = labels.into_iter();
    let labels = labels.map(|(name, value)| (Cow::Borrowed(name), Cow::Owned(value)));
    let mut registry = Registry::with_labels(labels);
    registry.register_collector(Box::new(Families(Mutex::new(families))));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

/// Milliseconds in seconds.
pub(super) fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}
