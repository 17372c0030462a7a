//! The command `alerts`: prints the alerting rules of a pipeline, for people, Prometheus, Grafana.
//!
//! In: the pipeline's `alerts.toml`, or the default rules. Out: a table, a rules file or a
//! dashboard. Nothing is connected to.

use std::io::ErrorKind;

use anyhow::Context;
use tidemill_alerts::{FILE, Rules, grafana, prometheus};
use tidemill_config::args::{AlertsArgs, AlertsFormat};
use tidemill_config::pipeline::Folder;
use tidemill_protocol::output;

/// Prints the rules in the form that is asked for.
///
/// # Errors
///
/// The folder is missing, or its `alerts.toml` is invalid.
pub(crate) fn alerts(args: &AlertsArgs) -> anyhow::Result<()> {
    let folder = Folder::open(&args.pipeline)?.named(&args.name);
    let rules = rules_of(&folder)?;
    match args.format {
        AlertsFormat::Text => shown(&rules).iter().for_each(|line| output::line(line)),
        AlertsFormat::Prometheus => {
            output::line(prometheus::rules(&rules, &folder.name).trim_end())
        }
        AlertsFormat::Grafana => {
            let dashboard = grafana::dashboard(&rules, &folder.name);
            output::line(&serde_json::to_string_pretty(&dashboard)?);
        }
    }
    Ok(())
}

/// The rules of a pipeline: those of its `alerts.toml`, else the default ones.
///
/// # Errors
///
/// The file cannot be read, or is invalid.
pub(crate) fn rules_of(folder: &Folder) -> anyhow::Result<Rules> {
    match text_of(folder)? {
        Some(text) => Ok(Rules::parse(&text)?),
        None => Ok(Rules::default_rules()?),
    }
}

/// The text of a pipeline's `alerts.toml`, whose rules are valid; `None` if it has none.
///
/// # Errors
///
/// The file cannot be read, or is invalid.
pub(crate) fn text_of(folder: &Folder) -> anyhow::Result<Option<String>> {
    let file = folder.path().join(FILE);
    match std::fs::read_to_string(&file) {
        Ok(text) => Rules::parse(&text).map(|_| Some(text)).map_err(Into::into),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

/// The rules as lines: name, condition, for how long, severity.
fn shown(rules: &Rules) -> Vec<String> {
    let widest = rules.rules.iter().map(|rule| rule.name.len()).max();
    let width = widest.unwrap_or(0);
    let line = |rule: &tidemill_alerts::Rule| {
        let (name, when) = (&rule.name, rule.when.text());
        let lasting = match rule.lasting.as_secs() {
            0 => String::new(),
            seconds => format!(" for {seconds} s"),
        };
        let when = format!("{when}{lasting}");
        format!("{name:<width$}  {when:<36}  {}", rule.severity.name())
    };
    let mut lines: Vec<String> = rules.rules.iter().map(line).collect();
    lines.push(match rules.webhooks.len() {
        0 => "no webhooks".to_owned(),
        1 => "1 webhook".to_owned(),
        more => format!("{more} webhooks"),
    });
    lines
}
