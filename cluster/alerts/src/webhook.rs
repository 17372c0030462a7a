//! Webhooks: what fires and is resolved, posted to URLs.
//!
//! One thread sends, in order, so that a receiver that hangs never holds up the evaluation. What
//! cannot be sent is tried again with growing pauses, [`TRIES_MAX`] times, and then logged and
//! counted. At most [`WAITING_MAX`] messages wait; further ones are counted as lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use reqwest::blocking::Client;
use serde_json::{Value, json};
use tidemill_log::backoff::Backoff;

use crate::rule::written;
use crate::watch::Change;
use crate::{Rule, Webhook, WebhookForm};

/// Limit of messages that wait to be sent.
pub const WAITING_MAX: usize = 1_000;
/// How often a message is sent until it is given up.
pub const TRIES_MAX: u32 = 8;
/// The first pause after a failure, at most.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Timeout of one request.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Sends to the webhooks of one pipeline. Stops when it is dropped.
#[derive(Debug)]
pub struct Sender {
    queue: SyncSender<Message>,
    lost: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

/// A message to all webhooks.
#[derive(Debug)]
struct Message {
    json: Value,
    text: String,
}

/// A webhook whose URL is known.
struct Target {
    url: String,
    form: WebhookForm,
}

impl Sender {
    /// Starts the thread. `variable` reads a variable of the environment.
    ///
    /// # Errors
    ///
    /// A variable that should hold a URL is not set, or no HTTP client can be made.
    pub fn start(
        webhooks: &[Webhook],
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let target = |webhook: &Webhook| {
            let named = webhook.url_env.as_deref();
            let url = webhook.url.clone().or_else(|| named.and_then(&variable));
            let missing = || format!("webhook: {} is not set", named.unwrap_or_default());
            let url = url.ok_or_else(missing)?;
            let form = webhook.form;
            Ok(Target { url, form })
        };
        let targets = webhooks.iter().map(target);
        let targets: Vec<Target> = targets.collect::<Result<_, String>>()?;
        // Another client of this process may have installed the same provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder().timeout(ANSWER_WAIT).build();
        let http = http.map_err(|error| format!("webhook: {error}"))?;
        let (queue, messages) = sync_channel(WAITING_MAX);
        let (lost, stop) = (Arc::default(), Arc::default());
        let loop_ = Loop {
            http,
            targets,
            lost: Arc::clone(&lost),
            stop: Arc::clone(&stop),
        };
        let thread = std::thread::Builder::new().name("webhooks".to_owned());
        let started = thread.spawn(move || loop_.run(&messages));
        started.map_err(|error| format!("webhook: no thread can be started: {error}"))?;
        Ok(Self { queue, lost, stop })
    }

    /// Sends a change of a rule of a job. Returns at once.
    pub fn send(&self, job: &str, rule: &Rule, change: &Change) {
        let message = Message {
            json: as_json(job, rule, change),
            text: as_text(job, rule, change),
        };
        match self.queue.try_send(message) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(job, rule = %rule.name, "an alert could not be sent: too many wait");
            }
        }
    }

    /// How many messages could not be sent.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// All facts of a change.
fn as_json(job: &str, rule: &Rule, change: &Change) -> Value {
    json!({
        "job": job,
        "rule": rule.name,
        "state": if change.firing { "firing" } else { "resolved" },
        "severity": rule.severity.name(),
        "when": rule.when.text(),
        "value": change.value,
        "at_ms": change.at_ms,
        "text": as_text(job, rule, change),
        "advice": rule.advice,
    })
}

/// A change as a sentence.
fn as_text(job: &str, rule: &Rule, change: &Change) -> String {
    let measure = rule.when.measure;
    let value = written(change.value, measure.unit());
    let (name, severity) = (&rule.name, rule.severity.name());
    match change.firing {
        true => format!(
            "{job}: {name} fires ({severity}): {} is {value}. {}",
            measure.what(),
            rule.advice
        ),
        false => format!("{job}: {name} is resolved: {} is {value}.", measure.what()),
    }
}

/// The thread.
struct Loop {
    http: Client,
    targets: Vec<Target>,
    lost: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Loop {
    /// Sends until the sender is dropped.
    fn run(&self, messages: &Receiver<Message>) {
        while let Ok(message) = messages.recv() {
            for target in &self.targets {
                self.deliver(target, &message);
            }
        }
    }

    /// Sends one message to one URL, again and again if it fails.
    fn deliver(&self, target: &Target, message: &Message) {
        let slack = json!({"text": message.text});
        let body = match target.form {
            WebhookForm::Json => &message.json,
            WebhookForm::Slack => &slack,
        };
        let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
        let mut why = String::new();
        for _ in 0..TRIES_MAX {
            match self.post(&target.url, body) {
                Ok(()) => return,
                Err(Failed::ForGood(reason)) => {
                    why = reason;
                    break;
                }
                Err(Failed::ForNow(reason)) => why = reason,
            }
            backoff.sleep(&self.stop);
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
        }
        self.lost.fetch_add(1, Ordering::Relaxed);
        tracing::error!(why, message = message.text, "an alert could not be sent");
    }

    /// One request. The error never has the URL, which is a secret.
    fn post(&self, url: &str, body: &Value) -> Result<(), Failed> {
        let request = self.http.post(url).json(body).send();
        let answer = request.map_err(|error| {
            let is_wrong = error.is_builder();
            let reason = error.without_url().to_string();
            match is_wrong {
                true => Failed::ForGood(reason),
                false => Failed::ForNow(reason),
            }
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let reason = format!("the receiver answers {status}");
        let again = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
        Err(match again {
            true => Failed::ForNow(reason),
            false => Failed::ForGood(reason),
        })
    }
}

/// Why a message was not taken.
enum Failed {
    /// The same request may succeed later.
    ForNow(String),
    /// The receiver refuses.
    ForGood(String),
}
