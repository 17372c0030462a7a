//! Compatibility levels: sets a subject's level to NONE while one schema is registered.
//!
//! The previous level is kept in the registry itself meanwhile, as the schema of a second subject.
//! So any process can restore it after a crash:
//!
//! ```text
//! record the level ─► level NONE ─► register ─► restore the level ─► delete the record
//!                                                  ▲
//!    after a crash, the next call of any process ──┘
//! ```
//!
//! Apicurio treats the level NONE of a subject as no level, and applies the global one. There the
//! rule of the subject is set with Apicurio's own API (`/apis/registry/v2`).

use reqwest::Url;
use serde::Deserialize;
use serde_json::{Value, json};

use super::confluent::ConfluentRegistry;
use super::{Registered, Registry};
use crate::{Error, Kind, Result, failpoint};

/// The level at which every schema is accepted.
const NONE: &str = "NONE";
/// In the record: the subject has no level of its own.
const GLOBAL: &str = "GLOBAL";
/// Suffix of the subject that records the level of another subject.
const NOTE: &str = ".tidemill-level";
/// Apicurio's name of the compatibility rule.
const RULE: &str = "COMPATIBILITY";
/// Path segment of Apicurio's Confluent-compatible API; the segments behind it are its version.
const CCOMPAT: &str = "ccompat";

/// A subject's level in the registry's answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Level {
    compatibility_level: String,
}

/// The schema that records a level: an enum whose only symbol is the level.
#[derive(Deserialize)]
struct Note {
    symbols: [String; 1],
}

impl ConfluentRegistry {
    /// Calls `register` while the level of the subject is NONE. Afterwards the level is restored,
    /// also when `register` failed. After a crash [`Self::restore_level`] restores it.
    pub(super) fn with_level_none(
        &self,
        subject: &str,
        register: impl Fn() -> Result<Registered>,
    ) -> Result<Registered> {
        self.restore_level(subject)?;
        let before = self.level(subject)?;
        self.note(subject, before.as_deref())?;
        failpoint::hit(failpoint::REGISTRY_BEFORE_LEVEL);
        self.set_level(subject, Some(NONE))?;
        failpoint::hit(failpoint::REGISTRY_AT_NONE);
        let mut registered = register();
        let refused = matches!(&registered, Err(error) if error.kind() == Kind::Data);
        if refused && let Some(rules) = self.apicurio_rules(subject) {
            registered = self.without_rule(subject, &rules, register);
        }
        failpoint::hit(failpoint::REGISTRY_BEFORE_RESTORE);
        self.restore_level(subject)?;
        registered
    }

    /// Restores the recorded level of a subject, if one is recorded.
    pub(super) fn restore_level(&self, subject: &str) -> Result<()> {
        let note = format!("{subject}{NOTE}");
        let Some(noted) = self.latest(&note)? else {
            return Ok(());
        };
        let noted: Note = serde_json::from_str(&noted.schema).map_err(|error| {
            let what = format!("subject `{note}`: not the note of a level: delete it");
            Error::with_source(Kind::Data, what, error)
        })?;
        let [level] = noted.symbols;
        let level = (level != GLOBAL).then_some(level);
        self.set_level(subject, level.as_deref())?;
        if level.is_none()
            && let Some(mut rule) = self.apicurio_rules(subject)
        {
            if let Ok(mut path) = rule.path_segments_mut() {
                path.push(RULE);
            }
            let about = format!("removing the compatibility rule of subject `{subject}`");
            self.send_text(&about, self.client.delete(rule))?;
        }
        failpoint::hit(failpoint::REGISTRY_AFTER_RESTORE);
        self.delete_one(&note)?;
        Ok(())
    }

    /// Records the level of a subject.
    fn note(&self, subject: &str, level: Option<&str>) -> Result<()> {
        let level = level.unwrap_or(GLOBAL);
        let schema = json!({
            "type": "enum",
            "name": "level",
            "doc": format!("the compatibility of subject {subject} while it is set aside"),
            "symbols": [level],
        });
        self.register(&format!("{subject}{NOTE}"), &schema.to_string())?;
        Ok(())
    }

    /// The subject's own level. Some registries answer with the effective level instead.
    pub(super) fn level(&self, subject: &str) -> Result<Option<String>> {
        let mut url = self.url(&["config", subject]);
        url.set_query(Some("defaultToGlobal=false"));
        let about = format!("compatibility of subject `{subject}`");
        let level: Option<Level> = self.send(&about, self.client.get(url))?;
        Ok(level.map(|level| level.compatibility_level))
    }

    /// The level of subjects that have none of their own.
    pub(super) fn global_level(&self) -> Result<Option<String>> {
        let level: Option<Level> = self.send(
            "the registry's compatibility",
            self.client.get(self.url(&["config"])),
        )?;
        Ok(level.map(|level| level.compatibility_level))
    }

    /// Sets the subject's own level; `None` removes it.
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

    /// The URL of a subject's rules in Apicurio; `None` for any other registry.
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

    /// Calls `register` while the subject's rule in Apicurio is NONE. [`Self::restore_level`]
    /// removes the rule.
    fn without_rule(
        &self,
        subject: &str,
        rules: &Url,
        register: impl Fn() -> Result<Registered>,
    ) -> Result<Registered> {
        let about = format!("setting the compatibility rule of subject `{subject}`");
        let rule = json!({"type": RULE, "config": NONE});
        self.send_text(&about, self.client.post(rules.clone()).json(&rule))?;
        failpoint::hit(failpoint::REGISTRY_WITHOUT_RULE);
        register()
    }
}
