// All jobs: what runs, how fresh it is, and what is wrong. The first screen.

import { count, duration, rate } from "../../part/format.js";
import { usePolled } from "../../part/poll.js";
import { link } from "../../part/route.js";
import { Badge, Loaded, Panel } from "../../part/state.js";
import { Table } from "../../part/table.js";
import { html } from "../../part/ui.js";

/** @type {import("../../part/table.js").Column[]} */
const COLUMNS = [
  { id: "name", head: "Job", of: (it) => it.name,
    cell: (it) => html`<a href=${link(it.name, "river")}>${it.name}</a>` },
  { id: "state", head: "State", of: (it) => it.state,
    cell: (it) => html`<${Badge} state=${it.state} />` },
  { id: "why", head: "Why", of: (it) => it.why ?? "" },
  { id: "p99", head: "Freshness p99", numeric: true, of: (it) => it.freshness_p99_ms,
    cell: (it) => duration(it.freshness_p99_ms) },
  { id: "lag", head: "Lag", numeric: true, of: (it) => it.behind,
    cell: (it) => count(it.behind) },
  { id: "rate", head: "Records", numeric: true, of: (it) => it.records_per_second,
    cell: (it) => rate(it.records_per_second) },
  { id: "letters", head: "Dead letters", numeric: true, of: (it) => it.dead_letters,
    cell: (it) => count(it.dead_letters) },
  { id: "workers", head: "Workers", numeric: true, of: (it) => it.workers,
    cell: (it) => (it.workers === it.workers_wanted ? count(it.workers)
      : `${it.workers} of ${it.workers_wanted}`) },
  { id: "restarts", head: "Restarts", numeric: true, of: (it) => it.restarts,
    cell: (it) => count(it.restarts) },
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
