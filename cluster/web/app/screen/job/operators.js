// Operators of a job: time, rows and bytes, by process, and how evenly the processes share them.

import { part } from "../../part/api.js";
import { bytes, count, decimal, duration, percent } from "../../part/format.js";
import { usePolled } from "../../part/poll.js";
import { Loaded, Panel } from "../../part/state.js";
import { Filter, Table } from "../../part/table.js";
import { html, useRef } from "../../part/ui.js";
import { Icicle } from "./icicle.js";

const LOOKS_MAX = 6; // answers that a share of time goes over

/**
 * The share of a core that each operator takes now: the difference to a few answers ago. Processes
 * that began anew count from 0, so a smaller number than before has no share yet.
 * @param {any[]} operators @param {number | null} at
 */
export function useShares(operators, at) {
  /** @type {{ current: { at: number, busy: Map<string, number> }[] }} */
  const looks = useRef([]);
  const last = looks.current.at(-1);
  if (at !== null && last?.at !== at) {
    const busy = new Map(operators.map((it) => [it.name, it.busy_us]));
    looks.current = [...looks.current, { at, busy }].slice(-LOOKS_MAX);
  }
  const first = looks.current[0];
  const passed = first && at !== null ? (at - first.at) * 1000 : 0;
  return new Map(operators.map((it) => {
    const before = first?.busy.get(it.name);
    const known = passed > 0 && before !== undefined && before <= it.busy_us;
    return [it.name, known ? (it.busy_us - before) / passed : null];
  }));
}

/** The view that an operator belongs to. @param {string} name */
export const viewOf = (name) => (name.includes(": ") ? name.slice(0, name.indexOf(": ")) : "");

/** Worker threads of all processes beside each other. @param {any} job @param {string} name */
function spread(job, name) {
  const all = job.processes.filter((/** @type {any} */ it) => it.part === "dataflow"
    && it.operators?.length);
  const of = all.flatMap((/** @type {any} */ it) => {
    const found = it.operators.find((/** @type {any} */ one) => one.name === name);
    // A process that tells the operator among its most expensive ones tells its threads too.
    const threads = Math.max(1, ...it.operators.map((/** @type {any} */ one) =>
      one.threads_us.length));
    return Array.from({ length: threads }, (_, thread) => ({ index: `${it.index}.${thread}`,
      busy: found?.threads_us[thread] ?? (threads === 1 ? found?.busy_us ?? 0 : 0) }));
  });
  const sum = of.reduce((/** @type {number} */ so, /** @type {any} */ it) => so + it.busy, 0);
  const most = Math.max(0, ...of.map((/** @type {any} */ it) => it.busy));
  return { of, skew: of.length > 1 && sum > 0 ? most / (sum / of.length) : null };
}

/** @param {{ rows: any[] }} props rows with their view and time since the start */
function ByView({ rows }) {
  /** @type {Map<string, number>} */
  const views = new Map();
  for (const row of rows) {
    views.set(row.view, (views.get(row.view) ?? 0) + row.busy_us);
  }
  const sorted = [...views].sort((a, b) => b[1] - a[1]);
  const most = sorted[0]?.[1] ?? 1;
  return html`<div class="wide" role="region" aria-label="Time by view" tabindex="0"><table>
    <caption class="unseen">Time by view</caption><tbody>
    ${sorted.map(([view, busy]) => html`<tr key=${view}>
      <th scope="row">${view || "reading and binding"}</th>
      <td class="n">${duration(busy / 1000)}</td><td><meter min="0" max=${most} value=${busy}
        aria-label=${`time of ${view || "reading and binding"}`}></meter></td></tr>`)}
    </tbody></table></div>`;
}

/** @param {{ job: any, at: number | null, route: any }} props */
function Shown({ job, at, route }) {
  const shares = useShares(job.operators, at);
  const filter = (route.query.filter ?? "").toLowerCase();
  const all = job.operators.map((/** @type {any} */ it) => ({ ...it, share: shares.get(it.name),
    view: viewOf(it.name), ...spread(job, it.name) }));
  const rows = all.filter((/** @type {any} */ it) => it.name.toLowerCase().includes(filter));
  const several = rows.some((/** @type {any} */ it) => it.of.length > 1);
  /** @type {import("../../part/table.js").Column[]} */
  const columns = [
    { id: "name", head: "Operator", of: (it) => it.name },
    { id: "share", head: "Of a core now", numeric: true, of: (it) => it.share,
      cell: (it) => html`${percent(it.share)} <meter min="0" max="1" value=${it.share ?? 0}
        aria-label=${`share of a core of ${it.name}`}></meter>` },
    { id: "busy", head: "Since the start", numeric: true, of: (it) => it.busy_us,
      cell: (it) => duration(it.busy_us / 1000) },
    { id: "rows", head: "Rows held", numeric: true, of: (it) => it.rows,
      cell: (it) => count(it.rows) },
    { id: "bytes", head: "Bytes held", numeric: true, of: (it) => it.bytes,
      cell: (it) => bytes(it.bytes) },
  ];
  if (several) {
    columns.push(
      { id: "skew", head: "Skew", numeric: true, of: (it) => it.skew,
        cell: (it) => (it.skew === null ? "–" : `${decimal(it.skew)} ×`) },
      { id: "by", head: "By worker thread", of: () => "", fixed: true,
        cell: (it) => html`<div class="threads">${it.of.map((/** @type {any} */ one) => html`
          <div class="keep" key=${one.index}>${one.index}: ${duration(one.busy / 1000)}
          <meter min="0" max=${Math.max(1, ...it.of.map((/** @type {any} */ all) => all.busy))}
            value=${one.busy} aria-label=${`time of ${it.name} in thread ${one.index}`}></meter>
          </div>`)}</div>` },
    );
  }
  return html`<${Panel} title="Where the time goes, since the start">
    <${Icicle} job=${job.name} rows=${all} /><//>
    <${Panel} title="Operators" aside=${`${job.operators.length} most expensive`}>
    <div class="row"><${Filter} route=${route} /></div>
    ${several && html`<p class="quiet">Skew is the busiest worker
      thread beside the mean of all. A thread is named by its process and its number in it.</p>`}
    <${Table} label="Operators" columns=${columns} rows=${rows} order="-share"
      rowKey=${(/** @type {any} */ it) => it.name} empty="No operator has such a name." /><//>
    <${Panel} title="Time by view, since the start"><${ByView} rows=${all} /><//>`;
}

/** @param {{ job: string, route: any }} props */
function Operators({ job, route }) {
  const polled = usePolled(`jobs/${part(job)}`);
  const empty = "No process of the dataflow runs, so nobody counts its operators.";
  return html`<${Loaded} polled=${polled} what="the operators" empty=${empty}
    isEmpty=${(/** @type {any} */ it) => it.operators.length === 0}>
    ${(/** @type {any} */ it) => html`<${Shown} job=${it} at=${polled.at} route=${route} />`}<//>`;
}

export const screen = {
  id: "operators", title: "Operators", key: "o", of: /** @type {const} */ ("job"),
  view: Operators,
};
