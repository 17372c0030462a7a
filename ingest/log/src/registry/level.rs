//! A subject's compatibility level, and setting it aside for one schema.
//!
//! Apicurio takes a subject's level NONE for none of its own, and goes on with the global one:
//! there its own API sets the rule.
//!
//! What the level was is kept in the registry itself as long as it is another one, as the schema of
//! a subject beside, so that whoever comes after a crash restores it:
//!
//! ```text
//! note the level ─► level NONE ─► register ─► level as noted ─► delete the note
//! ```

use reqwest::Url;
use serde::Deserialize;
use serde_json::{Value, json};

use super::confluent::ConfluentRegistry;
use super::{Registered, Registry};
use crate::{Error, Kind, Result, failpoint};

/// The level at which every schema is taken.
const NONE: &str = "NONE";
/// In the note, a subject that has no level of its own.
const GLOBAL: &str = "GLOBAL";
/// What is added to a subject's name for its note.
const NOTE: &str = ".tidemill-level";
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

/// The schema that notes a level.
#[derive(Deserialize)]
struct Note {
    symbols: [String; 1],
}

impl ConfluentRegistry {
    /// Registers while the subject's level is NONE. Afterwards, also after a failure, it is what it
    /// was; after a crash [`restored`](Self::restored) makes it so.
    pub(super) fn at_none(
        &self,
        subject: &str,
        register: impl Fn() -> Result<Registered>,
    ) -> Result<Registered> {
        self.restored(subject)?;
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
        self.restored(subject)?;
        registered
    }

    /// Gives a subject the level that was noted, if one was.
    pub(super) fn restored(&self, subject: &str) -> Result<()> {
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
            self.send_plain(&about, self.client.delete(rule))?;
        }
        failpoint::hit(failpoint::REGISTRY_AFTER_RESTORE);
        self.delete_one(&note)?;
        Ok(())
    }

    /// Notes a subject's level beside it.
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

    /// Registers while the subject's rule says that every schema is taken. Restoring the subject's
    /// level removes the rule.
    fn without_rule(
        &self,
        subject: &str,
        rules: &Url,
        register: impl Fn() -> Result<Registered>,
    ) -> Result<Registered> {
        let about = format!("setting the compatibility rule of subject `{subject}`");
        let rule = json!({"type": RULE, "config": NONE});
        self.send_plain(&about, self.client.post(rules.clone()).json(&rule))?;
        failpoint::hit(failpoint::REGISTRY_WITHOUT_RULE);
        register()
    }
}
