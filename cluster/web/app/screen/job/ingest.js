// The ledger of a job's ingest as a grid of runs: a square a page, coloured by its state.

import { part, post } from "../../part/api.js";
import { Confirmed } from "../../part/dialog.js";
import { count, duration, moment, rate } from "../../part/format.js";
import { usePolled } from "../../part/poll.js";
import { setQuery } from "../../part/route.js";
import { Badge, Empty, Facts, Loaded, Panel } from "../../part/state.js";
import { Table } from "../../part/table.js";
import { html, useState } from "../../part/ui.js";

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

/** The time that each page took, as bars beside each other. @param {{ runs: any[] }} props */
function Durations({ runs }) {
  const most = Math.max(0, ...runs.map((it) => took(it) ?? 0));
  if (most === 0) return null;
  const label = `Time from due to landed; the longest took ${duration(most)}`;
  return html`<h3>${label}</h3><div class="took" role="img" aria-label=${label}>
    ${[...runs].reverse().map((run) => html`<span key=${run.page} class=${TONES[run.state] ?? ""}
      title=${`page ${run.page}: ${duration(took(run))}`}
      style=${{ height: `${Math.max(3, 100 * Math.max(0, took(run) ?? 0) / most)}%` }}></span>`)}
    </div>`;
}

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
  <${Durations} runs=${runs} />
  <div class="row"><label>State <select value=${state} onChange=${(/** @type {any} */ event) =>
    setQuery(route, { state: event.target.value })}><option value="">every</option>
    ${Object.entries(WORDS).map(([id, name]) => html`<option key=${id} value=${id}>${name}
      </option>`)}</select></label>
    ${page && html`<button type="button" onClick=${() => setQuery(route, { page: "" })}>
      Show all pages</button>`}</div>
  <${Table} label="Runs" columns=${COLUMNS} rows=${shown} rowKey=${(/** @type {any} */ it) =>
    String(it.page)} empty="No page of these is so." />`;
}

/** Asks for a range of pages. @param {{ path: string, told: any, why: string }} props */
function Backfill({ path, told, why }) {
  const [pages, set] = useState({ first: "", last: "", again: false });
  const given = (/** @type {string} */ name) => (/** @type {any} */ event) =>
    set({ ...pages, [name]: event.target.value });
  const first = Number(pages.first || told.first_page);
  const count_ = Math.max(0, Number(pages.last || first) - first + 1);
  const pace = told.every_ms === null ? "" : `, one each ${duration(told.every_ms)}: about ${
    duration(count_ * told.every_ms)} for ${count(count_)}`;
  const act = () => post(`${path}/backfill`, { first, last: Number(pages.last),
    again: pages.again });
  return html`<${Confirmed} label="Backfill" title="Backfill a range of pages"
    disabled=${why !== ""} reason=${why} act=${act}
    text=${`The running ingest fetches these pages beside its schedule${
    pace}. Their rows are inserted or updated; a page that is being fetched is left alone.`}>
    <label for="first">First page</label>
    <input id="first" type="number" min=${told.first_page} max=${told.last_page ?? undefined}
      required value=${pages.first} onInput=${given("first")} />
    <label for="last">Last page</label>
    <input id="last" type="number" min=${first} max=${told.last_page ?? undefined} required
      value=${pages.last} onInput=${given("last")} />
    <label><input type="checkbox" checked=${pages.again} onChange=${(/** @type {any} */ event) =>
    set({ ...pages, again: event.target.checked })} /> also pages that landed</label><//>`;
}

/** What can be asked of the fetcher. @param {{ job: any, told: any }} props */
function Buttons({ job, told }) {
  const path = `jobs/${part(job.name)}/fetching`;
  const paused = told.paused_ms !== null;
  const none = told.fetches ? "" : "This pipeline fetches nothing.";
  const act = (/** @type {string} */ word) => () => post(`${path}/${word}`);
  return html`<div class="row">
    <${Confirmed} label="Fetch now" title="Fetch now" act=${act("now")}
      disabled=${none !== "" || paused} reason=${none || (paused ? "Fetching is paused." : "")}
      text=${"The next page of the schedule and what waits for a retry or for further records are "
    + "due at once."} />
    ${paused ? html`<${Confirmed} label="Resume" title="Resume fetching" act=${act("resume")}
      text="Fetching goes on where it was." />`
    : html`<${Confirmed} label="Pause" title="Pause fetching" act=${act("pause")}
      disabled=${none !== ""} reason=${none} text=${"No further page is fetched until somebody "
    + "resumes it, also after a restart. What is in the table goes on to the views."} />`}
    <${Backfill} path=${path} told=${told} why=${none} /></div>`;
}

/** @param {{ job: any, route: any }} props */
function Shown({ job, route }) {
  const runs = usePolled(`jobs/${part(job.name)}/runs`, 4000);
  const ingest = job.ingest;
  if (!ingest) {
    return html`<${Panel} title="Ingest"><${Empty}>The cluster does not run this job's ingest:
      something else fills its topics.<//><//>`;
  }
  const paused = runs.data?.paused_ms ?? ingest.paused_ms;
  return html`<${Panel} title=${html`Ingest <${Badge} state=${ingest.state} />
      ${paused && html`<span class="badge busy">fetching paused</span>`}`}>
    ${paused && html`<p class="note stale">Fetching is paused since ${moment(paused)}.</p>`}
    ${runs.data && html`<${Buttons} job=${job} told=${runs.data} />`}
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
