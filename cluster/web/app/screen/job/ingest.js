// The ledger of a job's ingest as a grid of runs: a square a page, coloured by its state.

import { part } from "../../part/api.js";
import { count, duration, moment, rate } from "../../part/format.js";
import { usePolled } from "../../part/poll.js";
import { setQuery } from "../../part/route.js";
import { Badge, Empty, Facts, Loaded, Panel } from "../../part/state.js";
import { Table } from "../../part/table.js";
import { html } from "../../part/ui.js";

const TONES = /** @type {Record<string, string>} */ ({ done: "good", short: "good",
  claimed: "busy", retry: "busy", failed: "bad" });
const WORDS = /** @type {Record<string, string>} */ ({ done: "landed", claimed: "running",
  retry: "waits for a retry", failed: "failed", short: "landed, may grow" });

/** @param {any} run */
const word = (run) => WORDS[run.state] ?? run.state;

/** From when a page was due to its landing or failing, in ms. @param {any} run */
const took = (run) => (run.finished_ms === null ? null : run.finished_ms - run.due_ms);

/** @type {import("../../part/table.js").Column[]} */
const COLUMNS = [
  { id: "page", head: "Page", numeric: true, of: (it) => it.page },
  { id: "state", head: "State", of: word,
    cell: (it) => html`<span class=${`badge ${TONES[it.state] ?? ""}`}>${word(it)}</span>` },
  { id: "due", head: "Due", of: (it) => it.due_ms, cell: (it) => moment(it.due_ms) },
  { id: "took", head: "Landed after", numeric: true, of: took, cell: (it) => duration(took(it)) },
  { id: "attempts", head: "Attempts", numeric: true, of: (it) => it.attempts },
  { id: "records", head: "Records", numeric: true, of: (it) => it.records,
    cell: (it) => count(it.records) },
  { id: "error", head: "Error of the last attempt", of: (it) => it.error ?? "" },
];

/** @param {{ runs: any[], route: any }} props */
function Grid({ runs, route }) {
  const choose = (/** @type {any} */ run) => setQuery(route, {
    page: route.query.page === String(run.page) ? "" : run.page });
  return html`<div class="runs">${[...runs].reverse().map((run) => {
    const text = `page ${run.page}: ${word(run)}, ${count(run.records)} records, ${
      run.attempts} attempts${run.error ? `, ${run.error}` : ""}`;
    return html`<button type="button" key=${run.page} title=${text} aria-label=${text}
      class=${TONES[run.state] ?? ""} onClick=${() => choose(run)}
      aria-pressed=${route.query.page === String(run.page) ? "true" : "false"}></button>`;
  })}</div>`;
}

/** @param {{ runs: any[], route: any }} props */
function Runs({ runs, route }) {
  const state = route.query.state ?? "";
  const page = route.query.page ?? "";
  const of = (/** @type {string} */ name) => runs.filter((it) => it.state === name).length;
  const shown = runs.filter((it) => (!state || it.state === state)
    && (!page || String(it.page) === page));
  return html`<${Facts} of=${[
    ["Pages shown", count(runs.length)], ["Landed", count(of("done") + of("short"))],
    ["Running", count(of("claimed"))],
    ["Wait for a retry", count(of("retry")), of("retry") ? "busy" : ""],
    ["Failed", count(of("failed")), of("failed") ? "bad" : ""],
  ]} />
  <h3>The newest pages, the oldest first</h3><${Grid} runs=${runs} route=${route} />
  <div class="row"><label>State <select value=${state} onChange=${(/** @type {any} */ event) =>
    setQuery(route, { state: event.target.value })}><option value="">every</option>
    ${Object.entries(WORDS).map(([id, name]) => html`<option key=${id} value=${id}>${name}
      </option>`)}</select></label>
    ${page && html`<button type="button" onClick=${() => setQuery(route, { page: "" })}>
      Show all pages</button>`}</div>
  <${Table} label="Runs" columns=${COLUMNS} rows=${shown} rowKey=${(/** @type {any} */ it) =>
    String(it.page)} empty="No page of these is so." />`;
}

/** @param {{ job: any, route: any }} props */
function Shown({ job, route }) {
  const runs = usePolled(`jobs/${part(job.name)}/runs`, 4000);
  const ingest = job.ingest;
  if (!ingest) {
    return html`<${Panel} title="Ingest"><${Empty}>The cluster does not run this job's ingest:
      something else fills its topics.<//><//>`;
  }
  return html`<${Panel} title=${html`Ingest <${Badge} state=${ingest.state} />`}>
    ${ingest.why && html`<p class="note failed">${ingest.why}</p>`}
    <${Facts} of=${[
    ["Published", rate(ingest.published_per_second)],
    ["Published since its start", count(ingest.published)], ["Restarts", count(ingest.restarts)],
  ]} />
    ${ingest.noticed.map((/** @type {any} */ it) => html`<p key=${it.at_ms} class="note">
      ${moment(it.at_ms)}: ${it.what}</p>`)}<//>
    <${Panel} title="Runs"><${Loaded} polled=${runs} what="the ledger"
      empty="The ingest has fetched no page yet." isEmpty=${(/** @type {any} */ it) =>
    it.runs.length === 0}>
      ${(/** @type {any} */ it) => html`<${Runs} runs=${it.runs} route=${route} />`}<//><//>`;
}

/** @param {{ job: string, route: any }} props */
function Ingest({ job, route }) {
  const polled = usePolled(`jobs/${part(job)}`);
  return html`<${Loaded} polled=${polled} what="the ingest">
    ${(/** @type {any} */ it) => html`<${Shown} job=${it} route=${route} />`}<//>`;
}

export const screen = {
  id: "ingest", title: "Ingest", key: "i", of: /** @type {const} */ ("job"), view: Ingest,
};
