// Subjects of a job: versions, the difference of two, and which views read which field.

import { part } from "../../part/api.js";
import { count } from "../../part/format.js";
import { usePolled } from "../../part/poll.js";
import { link, setQuery } from "../../part/route.js";
import { Badge, Loaded, Panel } from "../../part/state.js";
import { Table } from "../../part/table.js";
import { html } from "../../part/ui.js";
import { indented } from "./shown.js";

const LIST_MS = 10_000;

/** @param {string} job @returns {import("../../part/table.js").Column[]} */
const columns = (job) => [
  { id: "subject", head: "Subject", of: (it) => it.subject,
    cell: (it) => html`<a href=${link(job, "schemas", { subject: it.subject })}>
      ${it.subject}</a>` },
  { id: "versions", head: "Versions", numeric: true, of: (it) => it.versions.length },
  { id: "id", head: "Newest id", numeric: true, of: (it) => it.schema_id },
  { id: "fields", head: "Fields", numeric: true, of: (it) => it.fields,
    cell: (it) => count(it.fields) },
  { id: "compatibility", head: "Compatibility", of: (it) => it.compatibility ?? "" },
  { id: "views", head: "Views that read the topic", of: (it) => it.views.join(", ") },
];

/** @type {import("../../part/table.js").Column[]} */
const FIELDS = [
  { id: "name", head: "Field", of: (it) => it.name },
  { id: "kind", head: "Type", of: (it) => it.kind },
  { id: "default", head: "Default", of: (it) => (it.has_default ? "yes" : "no") },
  { id: "views", head: "Read by", of: (it) => it.views.join(", ") },
];

/** @type {import("../../part/table.js").Column[]} */
const CHANGES = [
  { id: "change", head: "Change", of: (it) => it.change,
    cell: (it) => html`<${Badge} state=${it.change === "added" ? "ok" : "changed"}
      label=${it.change} />` },
  { id: "name", head: "Field", of: (it) => it.name },
  { id: "before", head: "Before", of: (it) => it.before ?? "" },
  { id: "after", head: "After", of: (it) => it.after ?? "" },
  { id: "views", head: "Read by", of: (it) => it.views.join(", ") },
];

/** The rows of a difference. @param {any} it @returns {any[]} */
const changes = (it) => [
  ...it.removed.map((/** @type {any} */ one) => ({ ...one, change: "removed", before: one.kind })),
  ...it.changed.map((/** @type {any} */ one) => ({ ...one, change: "changed" })),
  ...it.added.map((/** @type {any} */ one) => ({ ...one, change: "added", after: one.kind })),
];

/** @param {{ difference: any, to: number }} props */
function Difference({ difference, to }) {
  const broken = difference.plans === false;
  const word = broken ? "do not plan" : difference.plans ? "plan" : "may or may not plan";
  return html`<div class=${broken ? "note failed" : "note"}>
      The views ${word} when version ${to} is the newest one.
      ${difference.why && html`<pre>${difference.why}</pre>`}</div>
    <${Table} label="Changed fields" name="changes" columns=${CHANGES} rows=${changes(difference)}
      rowKey=${(/** @type {any} */ it) => it.name}
      empty="No field was added, removed or changed." />`;
}

/** @param {{ job: string, route: any, subject: string }} props */
function Subject({ job, route, subject }) {
  const path = `jobs/${part(job)}/schemas/${part(subject)}`;
  const polled = usePolled(path, LIST_MS);
  const versions = polled.data?.versions ?? [];
  const newest = versions.at(-1)?.version;
  const to = Number(route.query.to ?? newest);
  const from = Number(route.query.from ?? versions.at(-2)?.version ?? newest);
  const two = versions.length > 1;
  const difference = usePolled(two ? `${path}/difference?from=${from}&to=${to}` : null, LIST_MS);
  const shown = versions.find((/** @type {any} */ it) => it.version === to);
  const choose = (/** @type {string} */ name, /** @type {number} */ value) => html`
    <select name=${name} value=${value} onChange=${(/** @type {any} */ event) => setQuery(route,
    { [name]: event.target.value })}>${versions.map((/** @type {any} */ it) => html`
      <option key=${it.version} value=${it.version}>${it.version} (id ${it.schema_id})</option>`)}
    </select>`;
  return html`<${Panel} title=${subject}
      aside=${polled.data && `compatibility: ${polled.data.compatibility ?? "none"}`}>
    <${Loaded} polled=${polled} what="the subject">${(/** @type {any} */ told) => html`
      ${told.problem && html`<div class="note failed">${told.problem}</div>`}
      <div class="row"><label>Version ${choose("to", to)}</label>
        ${two && html`<label>compared with ${choose("from", from)}</label>`}</div>
      ${two && html`<h3>From version ${from} to version ${to}</h3>
        <${Loaded} polled=${difference} what="the difference">${(/** @type {any} */ it) => html`
          <${Difference} difference=${it} to=${to} />`}<//>`}
      ${shown && html`<h3>Fields of version ${to}</h3>
        <${Table} label="Fields" name="fields" columns=${FIELDS} rows=${shown.fields}
          rowKey=${(/** @type {any} */ it) => it.name} empty="The schema is no record." />
        <details><summary>Text of version ${to}</summary>
          <pre>${indented(shown.schema)}</pre></details>`}`}<//><//>`;
}

/** @param {{ job: string, route: any }} props */
function Schemas({ job, route }) {
  const polled = usePolled(`jobs/${part(job)}/schemas`, LIST_MS);
  const { subject } = route.query;
  return html`<${Panel} title="Schemas">
      <${Loaded} polled=${polled} what="the schemas"
        empty="The registry has no schema of this job's topics."
        isEmpty=${(/** @type {any} */ it) => it.subjects.length === 0}>
        ${(/** @type {any} */ told) => html`
          ${told.problem && html`<div class="note failed">${told.problem}</div>`}
          <${Table} label="Subjects" columns=${columns(job)} rows=${told.subjects}
            rowKey=${(/** @type {any} */ it) => it.subject} />`}<//><//>
    ${subject && html`<${Subject} key=${subject} job=${job} route=${route} subject=${subject} />`}`;
}

export const screen = {
  id: "schemas", title: "Schemas", key: "m", of: /** @type {const} */ ("job"), view: Schemas,
};
