// Rows of a view's table, as a reader of the sink sees them, and the row of a key.

import { address, part } from "../../part/api.js";
import { count } from "../../part/format.js";
import { usePolled } from "../../part/poll.js";
import { setQuery } from "../../part/route.js";
import { Loaded, Panel } from "../../part/state.js";
import { Table } from "../../part/table.js";
import { html } from "../../part/ui.js";
import { given } from "./shown.js";

const LOOK_MS = 5000;

/**
 * The columns of the table.
 * @param {any} found @returns {import("../../part/table.js").Column[]}
 */
const columns = (found) => found.columns.map((/** @type {any} */ it, /** @type {number} */ at) => ({
  id: it.name, head: it.key ? `${it.name} (key ${it.key})` : it.name,
  of: (/** @type {any} */ row) => row[at],
  cell: (/** @type {any} */ row) => (row[at] === null
    ? html`<em class="quiet">null</em>` : row[at]),
}));

/** @param {{ route: any, found: any }} props */
function LookUp({ route, found }) {
  const keys = found.columns.filter((/** @type {any} */ it) => it.key)
    .sort((/** @type {any} */ a, /** @type {any} */ b) => a.key - b.key);
  const now = route.query.key ? JSON.parse(route.query.key) : {};
  const look = (/** @type {any} */ event) => setQuery(route, { key: JSON.stringify(given(event)) });
  return html`<form class="row" onSubmit=${look}>${keys.map((/** @type {any} */ it) => html`
      <label key=${it.name}>${it.name} (${it.kind}) <input name=${it.name} required
        value=${now[it.name] ?? ""} /></label>`)}
    <button type="submit" class="main">Look up</button>
    ${route.query.key && html`<button type="button"
      onClick=${() => setQuery(route, { key: "" })}>First rows</button>`}</form>`;
}

/** @param {{ found: any }} props */
function Notes({ found }) {
  return html`<p class="quiet">${found.count === null
    ? "How many rows the view has is not known here."
    : `The view has ${count(found.count)} rows in this process of the job.`}
    ${found.withheld ? ` ${count(found.withheld)} rows were withheld so far.` : ""}
    ${found.cut.length ? ` ${count(found.cut.length)} values are cut.` : ""}</p>
    ${found.odd.length > 0 && html`<div class="note failed">Another writer changed the table:
      ${found.odd.map((/** @type {any} */ [row, column, text]) => html` row ${row + 1}, column
        ${found.columns[column]?.name}: ${text};`)}</div>`}`;
}

/** @param {{ job: string, route: any, view: string }} props */
function Rows({ job, route, view }) {
  const query = { key: route.query.key, limit: route.query.key ? undefined : route.query.limit };
  const path = address(`jobs/${part(job)}/views/${part(view)}/rows`, query);
  const polled = usePolled(path.replace(/^api\/v1\//, ""), LOOK_MS);
  const what = route.query.key ? "the row" : "the rows";
  return html`<${Panel} title=${route.query.key ? `Row of ${view}` : `First rows of ${view}`}>
    <${Loaded} polled=${polled} what=${what}>${(/** @type {any} */ found) => html`
      <${LookUp} route=${route} found=${found} />
      <${Notes} found=${found} />
      <${Table} label=${`Rows of ${view}`} columns=${columns(found)} rows=${found.rows}
        rowKey=${(/** @type {any} */ row) => JSON.stringify(row)}
        empty=${route.query.key ? "The table has no row of this key." : "The table has no rows."} />
      `}<//>
    ${polled.error && polled.data === undefined && route.query.key && html`<button type="button"
      onClick=${() => setQuery(route, { key: "" })}>First rows</button>`}<//>`;
}

/** @param {{ job: string, route: any }} props */
function ViewRows({ job, route }) {
  const status = usePolled("status");
  const names = (/** @type {any} */ it) => Object.keys(it.jobs.find(
    (/** @type {any} */ one) => one.name === job)?.views ?? {});
  return html`<${Loaded} polled=${status} what="the views" empty="The job has no view yet."
    isEmpty=${(/** @type {any} */ it) => names(it).length === 0}>${(/** @type {any} */ told) => {
    const view = route.query.view ?? names(told)[0];
    const choose = (/** @type {any} */ event) => setQuery(route,
      { view: event.target.value, key: "", sort: "" });
    return html`<div class="row"><label>View <select value=${view} onChange=${choose}>
        ${names(told).map((/** @type {string} */ it) => html`
          <option key=${it} value=${it}>${it}</option>`)}
        </select></label></div>
      <${Rows} key=${view} job=${job} route=${route} view=${view} />`;
  }}<//>`;
}

export const screen = {
  id: "rows", title: "Rows", key: "r", of: /** @type {const} */ ("job"), view: ViewRows,
};
