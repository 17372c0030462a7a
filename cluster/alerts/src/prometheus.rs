//! The rules as a rules file of Prometheus.

use std::fmt::Write;
use std::time::Duration;

use crate::rule::Rule;
use crate::{Rules, Unit};

/// A rules file (YAML) with one group of alerts. `job` restricts the alerts to one pipeline.
///
/// The format is that of the Prometheus documentation, "Alerting rules"; `promtool check rules`
/// accepts the file.
#[must_use]
pub fn rules(rules: &Rules, job: &str) -> String {
    let mut text = format!(
        "# Alerts of the pipeline {job}, made by `tidemill alerts --format prometheus`.\n\
         groups:\n  - name: {}\n    rules:\n",
        quoted(&format!("tidemill-{job}"))
    );
    for rule in &rules.rules {
        // Writing to a string cannot fail.
        let _infallible = write!(text, "{}", one(rule, job));
    }
    if rules.rules.is_empty() {
        text = text.replace("    rules:\n", "    rules: []\n");
    }
    text
}

/// One alert.
fn one(rule: &Rule, job: &str) -> String {
    let measure = rule.when.measure;
    let value = match measure.unit() {
        Unit::Seconds => "{{ $value | humanizeDuration }}",
        Unit::Bytes => "{{ $value | humanize1024 }}B",
        Unit::Count => "{{ $value }}",
    };
    let (expr, what) = (expression(rule, job), measure.what());
    let summary = format!("{job}: {} ({what}: {value})", rule.when.text());
    let mut text = format!("      - alert: {}\n", quoted(&rule.name));
    text += &format!("        expr: {}\n", quoted(&expr));
    if rule.lasting > Duration::ZERO {
        text += &format!("        for: {}s\n", rule.lasting.as_secs_f64().ceil());
    }
    text += &format!(
        "        labels:\n          severity: {}\n        annotations:\n          summary: {}\n",
        rule.severity.name(),
        quoted(&summary)
    );
    if !rule.advice.is_empty() {
        text += &format!("          description: {}\n", quoted(&rule.advice));
    }
    text
}

/// The condition in PromQL, for one job.
fn expression(rule: &Rule, job: &str) -> String {
    let limit = rule.when.limit;
    format!("({} > {limit}) {}", rule.when.measure.promql(), of_job(job))
}

/// What restricts a vector with one value per job to one job. Every measure ends in such a vector,
/// so the job is chosen at the end.
pub(crate) fn of_job(job: &str) -> String {
    let job = quoted(job);
    format!("and on (job) label_replace(vector(1), \"job\", {job}, \"\", \"\")")
}

/// A text in double quotes, as YAML, JSON and PromQL read it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Measure;

    #[test]
    fn a_rule_becomes_an_alert() {
        let text = "[[rule]]\nname = 'late'\nwhen = 'lag > 1m'\nfor = '90s'\nadvice = 'Say \"a\".'";
        let found = super::rules(&Rules::parse(text).unwrap(), "users");
        let lines: Vec<&str> = found.lines().map(str::trim).collect();
        let measured = Measure::Lag.promql();
        let expr = format!(
            "expr: \"({measured} > 60) and on (job) label_replace(vector(1), \\\"job\\\", \
             \\\"users\\\", \\\"\\\", \\\"\\\")\""
        );
        let expected = [
            "groups:",
            "- name: \"tidemill-users\"",
            "rules:",
            "- alert: \"late\"",
            &expr,
            "for: 90s",
            "labels:",
            "severity: warning",
            "annotations:",
        ];
        assert_eq!(lines[1..10], expected);
        assert!(
            lines[10].starts_with("summary: \"users: lag > 60 s (age of"),
            "{found}"
        );
        assert_eq!(lines[11], r#"description: "Say \"a\".""#);
    }
}
