// All jobs: what runs, how fresh it is, and what is wrong. The first screen.

import { count, duration, rate } from "../../part/format.js";
import { usePolled } from "../../part/poll.js";
import { link } from "../../part/route.js";
import { Badge, Loaded, Panel } from "../../part/state.js";
import { Table } from "../../part/table.js";
import { html } from "../../part/ui.js";

const LATE_MS = 5000; // the limit of the default rule on freshness

/** A number that leads to its screen, red when it is wrong.
 * @param {any} job @param {string} screen @param {any} text @param {boolean} wrong */
const cell = (job, screen, text, wrong) => (wrong
  ? html`<a class="bad-text" href=${link(job.name, screen)}>${text}</a>` : text);

/** Red leads to the screen that says most about why. @param {any} job */
const cause = (job) => (job.ingest && ["failed", "degraded", "restarting"].includes(
  job.ingest.state) ? "ingest" : "river");

/** @param {any} job */
const late = (job) => (job.freshness_p99_ms ?? 0) > LATE_MS;

/** @type {import("../../part/table.js").Column[]} */
const COLUMNS = [
  { id: "name", head: "Job", of: (it) => it.name,
    cell: (it) => html`<a href=${link(it.name, "river")}>${it.name}</a>` },
  { id: "state", head: "State", of: (it) => it.state,
    cell: (it) => html`<${Badge} state=${it.state} />${it.ingest?.paused_ms && html` <a
      class="badge busy" href=${link(it.name, "ingest")}>fetching paused</a>`}` },
  { id: "why", head: "Why", of: (it) => it.why ?? "",
    cell: (it) => cell(it, cause(it), it.why ?? "", ["failed", "degraded", "restarting"].includes(
      it.state)) },
  { id: "alerts", head: "Alerts", numeric: true, of: (it) => it.alerts_firing,
    cell: (it) => cell(it, "alerts", count(it.alerts_firing), it.alerts_firing > 0) },
  { id: "p99", head: "Freshness p99", numeric: true, of: (it) => it.freshness_p99_ms,
    cell: (it) => cell(it, "freshness", duration(it.freshness_p99_ms), late(it)) },
  { id: "lag", head: "Lag", numeric: true, of: (it) => it.behind,
    cell: (it) => count(it.behind) },
  { id: "rate", head: "Records", numeric: true, of: (it) => it.records_per_second,
    cell: (it) => rate(it.records_per_second) },
  { id: "letters", head: "Dead letters", numeric: true, of: (it) => it.dead_letters,
    cell: (it) => cell(it, "letters", count(it.dead_letters), it.dead_letters > 0) },
  { id: "workers", head: "Workers", numeric: true, of: (it) => it.workers,
    cell: (it) => cell(it, "cluster", it.workers === it.workers_wanted ? count(it.workers)
      : `${it.workers} of ${it.workers_wanted}`, it.workers < it.workers_wanted
      && it.state !== "stopped") },
  { id: "restarts", head: "Restarts", numeric: true, of: (it) => it.restarts,
    cell: (it) => cell(it, "cluster", count(it.restarts), it.restarts > 0) },
];

function Jobs() {
  const polled = usePolled("summary");
  const empty = html`No job yet. <code>tidemill submit PIPELINE</code> submits one.`;
  return html`<${Panel} title="Jobs">
    <${Loaded} polled=${polled} what="the jobs" empty=${empty}
      isEmpty=${(/** @type {any} */ it) => it.jobs.length === 0}>
      ${(/** @type {any} */ status) => html`<${Table} label="Jobs" columns=${COLUMNS}
        rows=${status.jobs} rowKey=${(/** @type {any} */ it) => it.name} />`}
    <//><//>`;
}

export const screen = {
  id: "jobs", title: "Jobs", key: "j", of: /** @type {const} */ ("cluster"), view: Jobs,
};
