//! The measures of the rules as a dashboard of Grafana.

use serde_json::{Value, json};

use crate::prometheus::of_job;
use crate::{Measure, Rules, Unit};

/// Width of a panel: two panels beside each other.
const WIDTH: usize = 12;
/// Height of a panel.
const HEIGHT: usize = 8;

/// A dashboard (JSON model) with one panel for each measure, for the pipeline `job`. The limit of a
/// rule is a red line in its panel.
///
/// Import it in Grafana: Dashboards, New, Import. The data source is asked for.
#[must_use]
pub fn dashboard(rules: &Rules, job: &str) -> Value {
    let panels = Measure::ALL.into_iter().enumerate();
    let panels: Vec<Value> = panels.map(|(at, it)| panel(rules, job, at, it)).collect();
    json!({
        "title": format!("Tidemill: {job}"),
        "uid": null,
        "tags": ["tidemill"],
        "schemaVersion": 39,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "10s",
        "templating": {"list": [{
            "name": "source", "label": "Data source", "type": "datasource", "query": "prometheus"
        }]},
        "panels": panels,
    })
}

/// The panel of one measure.
fn panel(rules: &Rules, job: &str, at: usize, measure: Measure) -> Value {
    let of = rules
        .rules
        .iter()
        .filter(|rule| rule.when.measure == measure);
    let limits = of.map(|rule| json!({"color": "red", "value": rule.when.limit}));
    let mut steps = vec![json!({"color": "green", "value": null})];
    steps.extend(limits);
    let unit = match measure.unit() {
        Unit::Seconds => "s",
        Unit::Bytes => "bytes",
        Unit::Count => "short",
    };
    let source = json!({"type": "prometheus", "uid": "${source}"});
    json!({
        "id": at + 1,
        "type": "timeseries",
        "title": measure.name(),
        "description": measure.what(),
        "datasource": source,
        "gridPos": {
            "x": at % 2 * WIDTH, "y": at / 2 * HEIGHT, "w": WIDTH, "h": HEIGHT,
        },
        "fieldConfig": {"defaults": {
            "unit": unit,
            "min": 0,
            "thresholds": {"mode": "absolute", "steps": steps},
            "custom": {"thresholdsStyle": {"mode": "line"}},
        }, "overrides": []},
        "targets": [{
            "refId": "A",
            "datasource": source,
            "expr": format!("{} {}", measure.promql(), of_job(job)),
            "legendFormat": "{{job}}",
        }],
    })
}
