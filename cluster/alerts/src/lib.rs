//! Alerts of a pipeline (`tidemill-alerts`): rules over the status of a job, what fires, webhooks,
//! and the same rules as files for Prometheus and Grafana.
//!
//! ```text
//! alerts.toml ─► [`Rules`] ─┬─► [`watch`]: the job's status ─► firing, resolved ─► [`webhook`]
//!                           ├─► [`prometheus::rules`]: a rules file
//!                           └─► [`grafana::dashboard`]: a dashboard
//! ```
//!
//! Each [`Measure`] says once what it is in the status and what it is in PromQL, so an alert means
//! the same wherever it is evaluated. A value that nobody knows neither fires nor resolves a rule.

pub mod grafana;
mod measure;
pub mod prometheus;
mod rule;
pub mod watch;
pub mod webhook;

pub use measure::{Measure, Unit};
pub use rule::{FILE, Invalid, Rule, Rules, Severity, Webhook, WebhookForm};
