// The audit log: every change that somebody asked of the cluster, and its answer.

import { moment } from "../../part/format.js";
import { usePolled } from "../../part/poll.js";
import { Loaded, Panel } from "../../part/state.js";
import { Filter, Table } from "../../part/table.js";
import { html } from "../../part/ui.js";

/** @param {any} it */
const outcome = (it) => (it.status === null ? "unknown: the master ended meanwhile"
  : it.status < 300 ? "done" : it.status < 500 ? "refused" : "failed");

/** @type {import("../../part/table.js").Column[]} */
const COLUMNS = [
  { id: "number", head: "No.", numeric: true, of: (it) => it.number },
  { id: "at", head: "When", of: (it) => it.at_ms, cell: (it) => moment(it.at_ms) },
  { id: "by", head: "By", of: (it) => it.by },
  { id: "what", head: "Asked", of: (it) => `${it.method} ${it.what}`,
    cell: (it) => html`<code>${it.method} ${it.what}</code>` },
  { id: "outcome", head: "Outcome", of: outcome, cell: (it) => html`<span
    class=${`badge ${it.status === null ? "" : it.status < 300 ? "good" : "bad"}`}>
      ${outcome(it)}</span>` },
  { id: "answer", head: "Answer", of: (it) => it.answer ?? "" },
];

/** @param {{ route: any }} props */
function Audit({ route }) {
  const polled = usePolled("audit", 4000);
  const filter = (route.query.filter ?? "").toLowerCase();
  const fits = (/** @type {any} */ it) => `${it.what} ${it.answer}`.toLowerCase().includes(filter);
  return html`<${Panel} title="Audit">
    <div class="row"><${Filter} route=${route} /></div>
    <${Loaded} polled=${polled} what="the audit log" empty="Nobody has changed anything yet."
      isEmpty=${(/** @type {any} */ it) => it.length === 0}>
      ${(/** @type {any} */ it) => html`<${Table} label="Changes" columns=${COLUMNS}
        rows=${it.filter(fits)} rowKey=${(/** @type {any} */ one) => String(one.number)}
        empty="No change fits the filter." />`}<//><//>`;
}

export const screen = {
  id: "audit", title: "Audit", key: "a", of: /** @type {const} */ ("cluster"), view: Audit,
  when: (/** @type {any} */ session) => session.features.includes("audit"),
};
