//! `alerts.toml`: the rules of a pipeline and where alerts are sent.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{Measure, Unit};

/// The name of the file in a pipeline's folder.
pub const FILE: &str = "alerts.toml";
/// The rules of a pipeline that has no file.
const DEFAULT: &str = include_str!("default.toml");
/// Limit of rules of a pipeline.
const RULES_MAX: usize = 100;
/// Limit of webhooks of a pipeline.
const WEBHOOKS_MAX: usize = 10;

/// Why a file is no `alerts.toml`.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// The text is no TOML, or has a field that does not exist.
    #[error("{FILE}: {0}")]
    Toml(#[from] Box<toml::de::Error>),
    /// The rules contradict each other, or are too many.
    #[error("{FILE}: {0}")]
    Rules(String),
}

/// The rules of a pipeline.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// The rules, in the order of the file.
    #[serde(default, rename = "rule")]
    pub rules: Vec<Rule>,
    /// Where firing and resolved alerts are sent.
    #[serde(default, rename = "webhook")]
    pub webhooks: Vec<Webhook>,
}

/// One rule: fires when its measure has been beyond the limit for some time.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The name: letters, digits, `-` and `_`. Unique in the file.
    pub name: String,
    /// The condition.
    pub when: Condition,
    /// How long the condition must hold before the rule fires.
    #[serde(default, rename = "for", deserialize_with = "time")]
    pub lasting: Duration,
    /// How much it matters.
    #[serde(default)]
    pub severity: Severity,
    /// What to do, for the person who is called.
    #[serde(default)]
    pub advice: String,
}

/// How much an alert matters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Somebody should look soon.
    #[default]
    Warning,
    /// Somebody should look now.
    Critical,
}

impl Severity {
    /// The word in files and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// A measure beyond a limit, such as `freshness_p99 > 5s`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Condition {
    /// What is compared.
    pub measure: Measure,
    /// The limit, in seconds for a time. The condition holds above it.
    pub limit: f64,
}

impl Condition {
    /// Whether a value is beyond the limit.
    #[must_use]
    pub fn holds(&self, value: f64) -> bool {
        value > self.limit
    }

    /// The condition as in `alerts.toml`.
    #[must_use]
    pub fn text(&self) -> String {
        let limit = written(self.limit, self.measure.unit());
        format!("{} > {limit}", self.measure.name())
    }
}

/// A value with its unit.
#[must_use]
pub(crate) fn written(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Seconds if value < 1.0 => format!("{} ms", (value * 1000.0).round()),
        Unit::Seconds => format!("{} s", (value * 1000.0).round() / 1000.0),
        Unit::Bytes => {
            let larger = UNITS.iter().rev().find(|(_, size)| value >= *size as f64);
            let (name, size) = larger.copied().unwrap_or(("B", 1));
            let rounded = (value / size as f64 * 10.0).round() / 10.0;
            format!("{rounded} {name}")
        }
        Unit::Count => value.to_string(),
    }
}

/// The units of bytes, from the smallest.
const UNITS: [(&str, u64); 5] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// A number of bytes such as `10 GiB` or `512MiB`.
fn bytes(text: &str) -> Option<f64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let (_, size) = UNITS.iter().find(|(name, _)| *name == unit.trim())?;
    Some(number.checked_mul(*size)? as f64)
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let right = "expected a measure, `>` and a limit, such as `lag > 1m` or `behind > 1000`";
        let mut words = text.split_whitespace();
        let (Some(name), Some(">")) = (words.next(), words.next()) else {
            return Err(format!("`{text}`: {right}"));
        };
        let measure = Measure::ALL.into_iter().find(|it| it.name() == name);
        let measure = measure.ok_or_else(|| {
            let all = Measure::ALL.map(Measure::name).join(", ");
            format!("`{name}` is no measure; expected one of {all}")
        })?;
        let limit = words.collect::<Vec<_>>().join(" ");
        let read = match measure.unit() {
            Unit::Seconds => SignedDuration::from_str(&limit)
                .ok()
                .map(|it| it.as_secs_f64()),
            Unit::Bytes => bytes(&limit),
            Unit::Count => limit.parse::<u64>().ok().map(|it| it as f64),
        };
        let read = read.filter(|limit| *limit >= 0.0);
        let right = match measure.unit() {
            Unit::Seconds => "a time such as `500ms`, `5s` or `2m`",
            Unit::Bytes => "a size such as `500 MiB` or `10 GiB`",
            Unit::Count => "a whole number",
        };
        let limit = read.ok_or_else(|| format!("`{limit}` in `{text}` is not {right}"))?;
        Ok(Self { measure, limit })
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A time that is not negative.
fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    let read = SignedDuration::from_str(&text).ok();
    let read = read.and_then(|it| Duration::try_from(it).ok());
    read.ok_or_else(|| {
        let what = format!("`{text}` is not a time such as `30s`, `5m` or `1h`");
        serde::de::Error::custom(what)
    })
}

/// Where alerts are sent. The URL of a webhook lets everybody post, so it may be kept out of the
/// file, in a variable of the environment.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// The URL; or [`Webhook::url_env`].
    pub url: Option<String>,
    /// The variable of the environment that holds the URL.
    pub url_env: Option<String>,
    /// The form of the messages.
    #[serde(default)]
    pub form: WebhookForm,
}

/// The form of a webhook's messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WebhookForm {
    /// All facts as JSON.
    #[default]
    Json,
    /// A text as Slack's incoming webhooks take it.
    Slack,
}

impl Rules {
    /// The rules of a pipeline without an `alerts.toml`. They have no webhook.
    ///
    /// # Errors
    ///
    /// Never: a test reads the file that is compiled in.
    pub fn default_rules() -> Result<Self, Invalid> {
        Self::parse(DEFAULT)
    }

    /// Reads the text of an `alerts.toml`.
    ///
    /// # Errors
    ///
    /// The text is invalid; the error says where and what would be right.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let rules: Self = toml::from_str(text).map_err(Box::new)?;
        rules.check().map_err(Invalid::Rules)?;
        Ok(rules)
    }

    /// Checks what a type cannot say.
    fn check(&self) -> Result<(), String> {
        if self.rules.len() > RULES_MAX {
            return Err(format!("{} rules; at most {RULES_MAX}", self.rules.len()));
        }
        if self.webhooks.len() > WEBHOOKS_MAX {
            let count = self.webhooks.len();
            return Err(format!("{count} webhooks; at most {WEBHOOKS_MAX}"));
        }
        let mut names = BTreeSet::new();
        for Rule { name, .. } in &self.rules {
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if name.is_empty() || !name.chars().all(fits) {
                let right = "letters, digits, `-` and `_`";
                return Err(format!("rule `{name}`: a name has {right}"));
            }
            if !names.insert(name) {
                return Err(format!("two rules are named `{name}`"));
            }
        }
        for Webhook { url, url_env, .. } in &self.webhooks {
            if url.is_some() == url_env.is_some() {
                return Err("a webhook has either `url` or `url_env`".to_owned());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_rules_are_valid_and_cover_every_measure_that_needs_no_limit_of_the_user() {
        let rules = Rules::default_rules().unwrap();
        assert!(rules.webhooks.is_empty());
        for measure in Measure::ALL {
            let of = |rule: &Rule| rule.when.measure == measure;
            assert!(rules.rules.iter().any(of), "{measure:?} has no rule");
        }
    }

    #[test]
    fn a_rule_says_what_is_compared_for_how_long() {
        let text = "[[rule]]\nname = 'late'\nwhen = 'freshness_p99 > 1m 30s'\nfor = '2m'";
        let rules = Rules::parse(text).unwrap();
        let [rule] = rules.rules.as_slice() else {
            panic!("{rules:?}");
        };
        assert_eq!(rule.when.limit, 90.0);
        assert_eq!(rule.lasting, Duration::from_secs(120));
        assert_eq!(rule.severity, Severity::Warning);
        assert_eq!(rule.when.text(), "freshness_p99 > 90 s");
        assert!(rule.when.holds(90.5) && !rule.when.holds(90.0));
        let kept: Condition = "wal_kept > 10 GiB".parse().unwrap();
        assert_eq!(kept.limit, f64::from(10u32) * f64::from(1 << 30));
        assert_eq!(kept.text(), "wal_kept > 10 GiB");
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        let rule = |fields: &str| format!("[[rule]]\nname = 'a'\n{fields}");
        let cases = [
            (rule("when = 'lag < 5s'"), "expected a measure"),
            (
                rule("when = 'lags > 5s'"),
                "`lags` is no measure; expected one of freshness_p99",
            ),
            (rule("when = 'lag > 5'"), "`5` in `lag > 5` is not a time"),
            (rule("when = 'lag > -5s'"), "is not a time"),
            (
                rule("when = 'wal_kept > 5'"),
                "`5` in `wal_kept > 5` is not a size such as",
            ),
            (rule("when = 'wal_kept > 5 GB'"), "is not a size such as"),
            (rule("when = 'behind > 1.5'"), "is not a whole number"),
            (
                rule("when = 'lag > 5s'\nfor = 'long'"),
                "`long` is not a time",
            ),
            (
                rule("when = 'lag > 5s'\nafter = '1s'"),
                "unknown field `after`",
            ),
            (
                rule("when = 'lag > 5s'\nseverity = 'bad'"),
                "unknown variant `bad`",
            ),
            (
                "[[rule]]\nname = 'a b'\nwhen = 'lag > 5s'".to_owned(),
                "a name has letters",
            ),
            (
                [rule("when = 'lag > 5s'"), rule("when = 'lag > 5s'")].join("\n"),
                "two rules",
            ),
            (
                "[[webhook]]\nform = 'slack'".to_owned(),
                "either `url` or `url_env`",
            ),
        ];
        for (text, what) in cases {
            let error = Rules::parse(&text).unwrap_err().to_string();
            assert!(error.contains(what), "{text}\n{error}");
        }
    }
}
