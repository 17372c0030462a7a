// The workers of a cluster and their slots.

import { part, post } from "../../part/api.js";
import { Confirmed } from "../../part/dialog.js";
import { ago, count, duration } from "../../part/format.js";
import { usePolled } from "../../part/poll.js";
import { Facts, Loaded, Panel } from "../../part/state.js";
import { Table } from "../../part/table.js";
import { html } from "../../part/ui.js";

/** @type {import("../../part/table.js").Column[]} */
const COLUMNS = [
  { id: "name", head: "Worker", of: (it) => it.name,
    cell: (it) => html`${it.name} ${it.drained && html`<span class="badge busy">${
      it.slots_used ? "drains" : "drained"}</span>`}` },
  { id: "used", head: "Slots used", numeric: true, of: (it) => it.slots_used,
    cell: (it) => html`${it.slots_used} of ${it.slots} <meter min="0" max=${it.slots || 1}
      value=${it.slots_used} aria-label=${`slots used of ${it.name}`}></meter>` },
  { id: "heard", head: "Last report", numeric: true, of: (it) => it.silent_ms,
    cell: (it) => ago(it.silent_ms) },
  { id: "http", head: "Address", of: (it) => it.http },
  { id: "version", head: "Version", of: (it) => it.version },
];

/** Drains a worker, or ends that. @type {import("../../part/table.js").Column} */
const CHANGE = { id: "change", head: "Change", fixed: true, of: () => "", cell: (it) => {
  const act = (/** @type {string} */ word) => () => post(`workers/${part(it.id)}/${word}`);
  return it.drained ? html`<${Confirmed} label="Undrain" title=${`Undrain ${it.name}`}
    act=${act("undrain")} text=${"The worker gets processes again. A job moves to it with its next "
    + "restart or rescale."} />`
    : html`<${Confirmed} label="Drain" title=${`Drain ${it.name}`} act=${act("drain")}
    text=${"The worker gets no processes any more. Jobs with processes on it drain, take a "
    + "checkpoint and start again on other workers, with fewer worker threads if there are too few "
    + "slots. The worker itself goes on running."} />`;
} };

/** @param {{ session: any }} props */
function Workers({ session }) {
  const polled = usePolled("summary");
  const columns = session.features.includes("changes") ? [...COLUMNS, CHANGE] : COLUMNS;
  const sum = (/** @type {any} */ status, /** @type {string} */ name) => status.workers.reduce(
    (/** @type {number} */ so, /** @type {any} */ it) => so + it[name], 0);
  return html`<${Loaded} polled=${polled} what="the workers">${(/** @type {any} */ it) => html`
    <${Panel} title="Master"><${Facts} of=${[
    ["Up for", duration(it.master.now_ms - it.master.started_ms)],
    ["Masters so far", count(it.master.generation)], ["Version", it.master.version],
    ["Slots used", `${sum(it, "slots_used")} of ${sum(it, "slots")}`],
  ]} /><//>
    <${Panel} title="Workers" aside=${count(it.workers.length)}><${Table} label="Workers"
      columns=${columns} rows=${it.workers} rowKey=${(/** @type {any} */ one) => one.id}
      order="name" empty=${html`No worker yet. <code>tidemill worker --master URL</code> starts
        one.`} /><//>`}<//>`;
}

export const screen = {
  id: "workers", title: "Workers", key: "w", of: /** @type {const} */ ("cluster"), view: Workers,
  when: (/** @type {any} */ session) => session.kind === "master",
};
