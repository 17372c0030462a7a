//! A subject's compatibility level, and setting it aside for one schema.
//!
//! Apicurio takes a subject's level NONE for none of its own, and goes on with the global one:
//! there its own API sets the rule.

use reqwest::Url;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Registered;
use super::confluent::ConfluentRegistry;
use crate::{Kind, Result};

/// The level at which every schema is taken.
const NONE: &str = "NONE";
/// Apicurio's name of the rule.
const RULE: &str = "COMPATIBILITY";
/// The part of a path by which Apicurio's Confluent API is known; the parts behind it are the
/// API's version.
const CCOMPAT: &str = "ccompat";

/// A subject's level as the registry answers it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Level {
    compatibility_level: String,
}

impl ConfluentRegistry {
    /// Registers while the subject's level is NONE. Afterwards, also after a failure, it is what it
    /// was.
    pub(super) fn at_none(
        &self,
        subject: &str,
        register: impl Fn() -> Result<Registered>,
    ) -> Result<Registered> {
        let before = self.level(subject)?;
        self.set_level(subject, Some(NONE))?;
        let mut registered = register();
        let refused = matches!(&registered, Err(error) if error.kind() == Kind::Data);
        if refused && let Some(rules) = self.apicurio_rules(subject) {
            registered = self.without_rule(subject, &rules, register);
        }
        self.set_level(subject, before.as_deref())?;
        registered
    }

    /// A subject's own level. Some registries answer with the one that applies.
    fn level(&self, subject: &str) -> Result<Option<String>> {
        let mut url = self.url(&["config", subject]);
        url.set_query(Some("defaultToGlobal=false"));
        let about = format!("compatibility of subject `{subject}`");
        let level: Option<Level> = self.send(&about, self.client.get(url))?;
        Ok(level.map(|level| level.compatibility_level))
    }

    fn set_level(&self, subject: &str, level: Option<&str>) -> Result<()> {
        let about = format!("setting the compatibility of subject `{subject}`");
        let url = self.url(&["config", subject]);
        let request = match level {
            Some(level) => self.client.put(url).json(&json!({"compatibility": level})),
            None => self.client.delete(url),
        };
        let _answer: Option<Value> = self.send(&about, request)?;
        Ok(())
    }

    /// Where Apicurio keeps a subject's rules; none of another registry.
    fn apicurio_rules(&self, subject: &str) -> Option<Url> {
        let before = self.base.path_segments()?;
        let before: Vec<&str> = before.take_while(|part| *part != CCOMPAT).collect();
        let is_apicurio = before.len() < self.base.path_segments()?.count();
        let mut url = self.base.clone();
        url.path_segments_mut()
            .ok()?
            .clear()
            .extend(before)
            .extend([
                "registry",
                "v2",
                "groups",
                "default",
                "artifacts",
                subject,
                "rules",
            ]);
        is_apicurio.then_some(url)
    }

    /// Registers while the subject's rule says that every schema is taken.
    fn without_rule(
        &self,
        subject: &str,
        rules: &Url,
        register: impl Fn() -> Result<Registered>,
    ) -> Result<Registered> {
        let about = format!("setting the compatibility rule of subject `{subject}`");
        let rule = json!({"type": RULE, "config": NONE});
        self.send_plain(&about, self.client.post(rules.clone()).json(&rule))?;
        let registered = register();
        let mut url = rules.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.push(RULE);
        }
        self.send_plain(&about, self.client.delete(url))?;
        registered
    }
}
