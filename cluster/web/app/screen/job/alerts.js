// The alerts of a job: its rules with their states, and what fired and was resolved.

import { part } from "../../part/api.js";
import { bytes, count, duration, moment } from "../../part/format.js";
import { usePolled } from "../../part/poll.js";
import { link } from "../../part/route.js";
import { Badge, Empty, Facts, Loaded, Panel } from "../../part/state.js";
import { Table } from "../../part/table.js";
import { html } from "../../part/ui.js";

/** @param {any} value @param {string} unit */
function shown(value, unit) {
  if (unit === "seconds" && value !== null) return duration(value * 1000);
  return unit === "bytes" ? bytes(value) : count(value);
}

/** What a state is called, so that its color fits. @param {any} rule */
const label = (rule) => html`<${Badge} state=${rule.state === "firing" ? "failed"
  : rule.state === "quiet" ? "ok" : "waiting"} label=${rule.state} />`;

/** @type {import("../../part/table.js").Column[]} */
const RULES = [
  { id: "state", head: "State", of: (it) => it.state, cell: label },
  { id: "name", head: "Rule", of: (it) => it.name },
  { id: "when", head: "When", of: (it) => it.when, cell: (it) => html`<code>${it.when}</code>` },
  { id: "for", head: "For", numeric: true, of: (it) => it.for_ms,
    cell: (it) => (it.for_ms ? duration(it.for_ms) : "at once") },
  { id: "value", head: "Now", numeric: true, of: (it) => it.value,
    cell: (it) => shown(it.value, it.unit) },
  { id: "since", head: "Since", of: (it) => it.since_ms ?? 0, cell: (it) => moment(it.since_ms) },
  { id: "severity", head: "Severity", of: (it) => it.severity },
];

/** The screen that says most about a measure. */
const SCREENS = /** @type {Record<string, string>} */ ({ freshness_p99: "freshness",
  lag: "river", behind: "river", new_dead_letters: "letters", keys_in_error: "letters",
  restarts: "cluster", checkpoint_age: "cluster", workers_missing: "cluster",
  not_running: "cluster", services_down: "river", wal_kept: "capture", disk_used: "cluster" });

/** @param {{ job: string, rule: any }} props */
function Firing({ job, rule }) {
  const screen = SCREENS[rule.measure] ?? "river";
  return html`<div class="note failed" role="alert"><strong><a class="bad-text"
      href=${link(job, screen)}>${rule.name}</a></strong>: ${rule.what} is
    ${" "}${shown(rule.value, rule.unit)} (${rule.when}), since ${moment(rule.since_ms)}.
    ${" "}${rule.advice}</div>`;
}

/** @param {{ job: string, alerts: any }} props */
function Shown({ job, alerts }) {
  const firing = alerts.rules.filter((/** @type {any} */ it) => it.state === "firing");
  const units = new Map(alerts.rules.map((/** @type {any} */ it) => [it.name, it.unit]));
  /** @type {import("../../part/table.js").Column[]} */
  const changes = [
    { id: "at", head: "When", of: (it) => it.at_ms, cell: (it) => moment(it.at_ms) },
    { id: "rule", head: "Rule", of: (it) => it.rule },
    { id: "what", head: "What", of: (it) => (it.firing ? "fires" : "resolved") },
    { id: "value", head: "Value", numeric: true, of: (it) => it.value,
      cell: (it) => shown(it.value, units.get(it.rule)) },
  ];
  const rows = alerts.changes.map((/** @type {any} */ it, /** @type {number} */ n) => ({ ...it, n }));
  return html`<${Panel} title="Alerts">
      ${alerts.error && html`<div class="note failed" role="alert">${alerts.error}</div>`}
      ${firing.map((/** @type {any} */ it) => html`<${Firing} key=${it.name} job=${job}
        rule=${it} />`)}
      ${!alerts.error && firing.length === 0 && html`<${Empty}>No rule fires.<//>`}
      <${Facts} of=${[
    ["Rules", alerts.default_rules ? "the default rules" : "of alerts.toml"],
    ["Webhooks", count(alerts.webhooks)],
    ["Messages that could not be sent", count(alerts.lost), alerts.lost ? "bad" : ""],
  ]} />
    <//>
    <${Panel} title="Rules"><${Table} label="Rules" columns=${RULES} rows=${alerts.rules}
      rowKey=${(/** @type {any} */ it) => it.name} empty="alerts.toml has no rule." /><//>
    <${Panel} title="What fired and was resolved"><${Table} label="History of alerts"
      columns=${changes} rows=${rows} order="-at" name="history"
      rowKey=${(/** @type {any} */ it) => String(it.n)}
      empty="Nothing has fired yet." /><//>`;
}

/** @param {{ job: string }} props */
function Alerts({ job }) {
  const polled = usePolled(`jobs/${part(job)}/alerts`);
  return html`<${Loaded} polled=${polled} what="the alerts">
    ${(/** @type {any} */ it) => html`<${Shown} job=${job} alerts=${it} />`}<//>`;
}

export const screen = {
  id: "alerts", title: "Alerts", key: "e", of: /** @type {const} */ ("job"), view: Alerts,
};
