// The views of a job: SQL, plan as a picture with the cost of each operator, and what reads what.

import { part } from "../../part/api.js";
import { bytes, count, duration } from "../../part/format.js";
import { Graph } from "../../part/graph.js";
import { usePolled } from "../../part/poll.js";
import { link } from "../../part/route.js";
import { Badge, Facts, Failed, Loaded, Panel } from "../../part/state.js";
import { Sql } from "../../part/sql.js";
import { Filter, Table } from "../../part/table.js";
import { html } from "../../part/ui.js";

/** @type {import("../../part/table.js").Column[]} */
const COLUMNS = [
  { id: "name", head: "Column", of: (it) => it.name, fixed: true },
  { id: "type", head: "Type", of: (it) => it.type, fixed: true },
];

/** The tree of a plan as a graph: inputs on the left. @param {any} view @param {any} job */
function picture(view, job) {
  const cost = new Map(job.operators.map((/** @type {any} */ it) => [it.name, it]));
  const nodes = view.plan.map((/** @type {any} */ node) => {
    const told = cost.get(node.operator);
    const holds = told && told.rows !== null;
    const held = holds ? `${count(told.rows)} rows, ${bytes(told.bytes)}` : "";
    const lines = [told ? duration(told.busy_us / 1000) : "not among the most expensive", held];
    return { id: String(node.id), title: node.title, lines: lines.filter((it) => it) };
  });
  const edges = view.plan.flatMap((/** @type {any} */ node) => node.inputs.map(
    (/** @type {number} */ input) => ({ from: String(input), to: String(node.id) })));
  return { nodes, edges };
}

/** @param {any} view */
function key(view) {
  if (!view.written) return "not written: it has no primary key, and other views read it";
  return `${view.primary_key.join(", ")}${view.unique ? "" : " (checked row by row)"}`;
}

/** @param {{ view: any, job: any, plan: any }} props */
function One({ view, job, plan }) {
  const { nodes, edges } = picture(view, job);
  const readers = plan.views.filter((/** @type {any} */ it) => it.reads.some(
    (/** @type {any} */ one) => one.kind === "view" && one.name === view.name));
  const name = (/** @type {any} */ it) => (it.kind === "source" ? it.name
    : html`<a href=${link(job.name, "views", { view: it.name })}>${it.name}</a>`);
  const names = (/** @type {any[]} */ all) => (all.length === 0 ? "nothing"
    : all.map((it, at) => html`${at ? ", " : ""}${name(it)}`));
  return html`<${Panel} title=${view.name}>
    <${Facts} of=${[
    ["Rows", count(job.views[view.name])], ["Primary key", key(view)],
    ["Reads", names(view.reads)], ["Read by", names(readers)],
  ]} />
    <h3>SQL</h3><${Sql} text=${view.sql} />
    <h3>Plan</h3><${Graph} label=${`Plan of ${view.name}`} nodes=${nodes} edges=${edges} />
    <details><summary>The plan as text</summary><pre tabindex="0">${view.explained}</pre></details>
    <h3>Columns</h3><${Table} label="Columns" name="columns" rows=${view.columns}
      columns=${COLUMNS} rowKey=${(/** @type {any} */ it) => it.name} /><//>`;
}

/** @param {{ job: any, plan: any, route: any }} props */
function Shown({ job, plan, route }) {
  const filter = (route.query.filter ?? "").toLowerCase();
  const rows = plan.views.filter((/** @type {any} */ it) => it.name.toLowerCase().includes(filter));
  const chosen = plan.views.find((/** @type {any} */ it) => it.name === route.query.view);
  /** @type {import("../../part/table.js").Column[]} */
  const columns = [
    { id: "name", head: "View", of: (it) => it.name, cell: (it) => html`<a
      href=${link(job.name, "views", { ...route.query, view: it.name })}
      aria-current=${it === chosen ? "true" : undefined}>${it.name}</a>` },
    { id: "rows", head: "Rows", numeric: true, of: (it) => job.views[it.name],
      cell: (it) => count(job.views[it.name]) },
    { id: "reads", head: "Reads", of: (it) => it.reads.map((/** @type {any} */ one) => one.name)
      .join(", ") },
    { id: "written", head: "Table", of: (it) => (it.written ? "written" : "internal"),
      cell: (it) => html`<${Badge} state=${it.written ? "ok" : ""}
        label=${it.written ? "written" : "internal"} />` },
  ];
  return html`<${Panel} title="Views" aside=${`${plan.views.length}`}>
    <div class="row"><${Filter} route=${route} /></div>
    <${Table} label="Views" columns=${columns} rows=${rows} empty="No view has such a name."
      rowKey=${(/** @type {any} */ it) => it.name} /><//>
    ${route.query.view && !chosen && html`<${Failed} what="The view"
      error=${new Error(`the job has no view “${route.query.view}”`)} />`}
    ${chosen && html`<${One} view=${chosen} job=${job} plan=${plan} />`}`;
}

/** @param {{ job: string, route: any }} props */
function Views({ job, route }) {
  const plan = usePolled(`jobs/${part(job)}/plan`, 15_000);
  const polled = usePolled(`jobs/${part(job)}`);
  return html`<${Loaded} polled=${polled} what="the job">${(/** @type {any} */ it) => html`
    <${Loaded} polled=${plan} what="the plan" empty="The pipeline has no views."
      isEmpty=${(/** @type {any} */ found) => found.views.length === 0}>
      ${(/** @type {any} */ found) => html`<${Shown} job=${it} plan=${found} route=${route} />`}
    <//>`}<//>`;
}

export const screen = {
  id: "views", title: "Views", key: "v", of: /** @type {const} */ ("job"), view: Views,
};
