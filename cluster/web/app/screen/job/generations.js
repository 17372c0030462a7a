// A job on the cluster: its processes, what happened to it, and the buttons that change it.

import { part, post } from "../../part/api.js";
import {
  ago, bytes, clock, count, duration, moment, percent, phase, tone,
} from "../../part/format.js";
import { Confirmed } from "../../part/dialog.js";
import { usePolled } from "../../part/poll.js";
import { link, setQuery } from "../../part/route.js";
import { Badge, Empty, Facts, Loaded, Panel } from "../../part/state.js";
import { Table } from "../../part/table.js";
import { html, useState } from "../../part/ui.js";
import { TimeLine } from "./timeline.js";

const DISK_OVER_MS = 60_000; // the least time over which the filling of a disk is measured

/** @type {import("../../part/table.js").Column[]} */
const PROCESSES = [
  { id: "process", head: "Process", of: (it) => `${it.part} ${it.index}` },
  { id: "worker", head: "Worker", of: (it) => it.worker },
  { id: "phase", head: "Phase", of: (it) => phase(it.phase),
    cell: (it) => html`<span class=${`badge ${tone(phase(it.phase))}`}>${phase(it.phase)}</span>` },
  { id: "records", head: "Records", numeric: true, of: (it) => it.records,
    cell: (it) => count(it.records) },
  { id: "http", head: "Address", of: (it) => it.http },
];

/** @param {{ job: any }} props */
function Buttons({ job }) {
  const path = `jobs/${part(job.name)}`;
  const [workers, set] = useState(job.workers_wanted);
  const stopped = job.state === "stopped";
  return html`<div class="row">
    <${Confirmed} label="Rescale" title=${`Rescale ${job.name}`} act=${() =>
    post(`${path}/rescale`, undefined, { workers })}
      text="The job drains, takes a checkpoint and starts again with this many worker threads.">
      <label for="workers">Worker threads</label>
      <input id="workers" type="number" min="1" max="1024" required value=${workers}
        onInput=${(/** @type {any} */ event) => set(event.target.value)} /><//>
    <${Confirmed} label=${stopped ? "Start" : "Restart"} act=${() => post(`${path}/restart`)}
      title=${`${stopped ? "Start" : "Restart"} ${job.name}`}
      text=${stopped ? "The job starts and goes on where it was."
    : "The job drains, takes a checkpoint and starts again. Its count of restarts begins anew."} />
    <${Confirmed} label="Drain and stop" danger disabled=${stopped}
      reason="The job is stopped." title=${`Drain and stop ${job.name}`}
      act=${() => post(`${path}/stop`)}
      text=${"The ingest ends, the views take everything that it published, a checkpoint is taken, "
        + "then the job stops. Nothing is read again when it goes on with Start."} />
    <${Confirmed} label="Remove" danger disabled=${!stopped}
      reason=${stopped ? "" : "Only a stopped job can be removed."} title=${`Remove ${job.name}`}
      act=${() => post(`${path}/remove`)}
      text="The master forgets the job. Its tables, topics and checkpoints stay." /></div>`;
}

/** @param {{ events: any[], kinds: string }} props */
function Line({ events, kinds }) {
  const shown = events.filter((it) => !kinds || it.kind === kinds
    || (kinds === "trouble" && it.bad));
  if (shown.length === 0) return html`<${Empty}>Nothing of this kind has happened.<//>`;
  return html`<ol class="line" tabindex="0">${[...shown].reverse().map((it) => html`
    <li key=${`${it.at_ms} ${it.kind} ${it.what}`} class=${it.bad ? "bad" : it.kind}>
      <time datetime=${new Date(it.at_ms).toISOString()} title=${moment(it.at_ms)}>
        ${clock(it.at_ms)}</time>
      <span class="kind">${it.kind}</span>
      <span>${it.what}${it.took_ms === null ? "" : `, after ${duration(it.took_ms)}`}</span>
    </li>`)}</ol>`;
}

/** @param {{ failures: any[] }} props */
function Failures({ failures }) {
  if (failures.length === 0) {
    return html`<${Empty}>No generation has ended by itself since the job was submitted or
      restarted.<//>`;
  }
  return html`${failures.map((it) => html`<details key=${`${it.generation} ${it.at_ms}`}>
    <summary>${moment(it.at_ms)}: generation ${it.generation}: ${it.process} ${it.what}</summary>
    <pre tabindex="0">${it.tail.join("\n") || "It left no log."}</pre></details>`)}`;
}

/** Free space of the fullest disk with state, and how long it lasts at the rate of the history.
 * @param {any} job @param {any} history @returns {[string, any, string?][]} */
function disk(job, history) {
  if (!job.disk_size) return [];
  const used = 1 - job.disk_free / job.disk_size;
  /** @type {any[]} */
  const points = [...(history?.coarse ?? []), ...(history?.fine ?? [])].filter((it) =>
    it.disk_free !== null).sort((a, b) => a.at_ms - b.at_ms);
  const [first, last] = [points[0], points.at(-1)];
  const passed = first && last ? last.at_ms - first.at_ms : 0;
  const written = passed >= DISK_OVER_MS ? first.disk_free - last.disk_free : null;
  const left = written === null ? "not measured yet" : written <= 0 ? "it does not fill"
    : duration(job.disk_free / (written / passed));
  return [["Disk of the state", `${bytes(job.disk_free)} free of ${bytes(job.disk_size)}`,
    used > 0.9 ? "bad" : ""], ["In use", percent(used), used > 0.9 ? "bad" : ""],
  ["Full in", left]];
}

/** @param {{ job: any, route: any, session: any }} props */
function Shown({ job, route, session }) {
  const events = usePolled(`jobs/${part(job.name)}/events`, 4000);
  const history = usePolled(`jobs/${part(job.name)}/history`, 30_000);
  const kinds = route.query.kind ?? "";
  const choose = html`<label>Show <select value=${kinds} onChange=${(/** @type {any} */ event) =>
    setQuery(route, { kind: event.target.value })}>
    <option value="">everything</option><option value="trouble">trouble</option>
    <option value="generation">generations</option><option value="checkpoint">checkpoints</option>
    <option value="recovered">recoveries</option></select></label>`;
  const now = Date.now();
  const logs = session.features.includes("logs")
    && html`<a href=${link(null, "logs", { job: job.name })}>Logs of the job</a>`;
  return html`<${Panel} title=${html`${job.name} <${Badge} state=${job.state} />`}
    aside=${job.why}>
    <${Facts} of=${[
    ["Generation", count(job.generation)], ["Restarts", count(job.restarts),
      job.restarts ? "busy" : ""],
    ["Workers", `${job.workers} of ${job.workers_wanted}`],
    ["Newest checkpoint", job.checkpointed ? ago(Math.max(0, now - job.checkpointed)) : "none yet"],
    ["Epoch", clock(job.epoch)], ...disk(job, history.data),
  ]} />
    ${session.features.includes("changes") && html`<${Buttons} job=${job} />`}<//>
    <${Panel} title="Processes" aside=${logs}><${Table} label="Processes" columns=${PROCESSES}
      rows=${job.processes} rowKey=${(/** @type {any} */ it) => `${it.part} ${it.index}`}
      empty="No process of the job runs." /><//>
    ${events.data?.length > 0 && html`<${Panel} title="Time line"><${TimeLine}
      events=${events.data} now=${now} /><//>`}
    <div class="columns"><${Panel} title="What happened" aside=${choose}>
      <${Loaded} polled=${events} what="the events" empty="Nothing has happened yet."
        isEmpty=${(/** @type {any} */ it) => it.length === 0}>
        ${(/** @type {any} */ it) => html`<${Line} events=${it} kinds=${kinds} />`}<//><//>
    <${Panel} title="Failures"><${Failures} failures=${job.failures} /><//></div>`;
}

/** @param {{ job: string, route: any, session: any }} props */
function Generations({ job, route, session }) {
  const polled = usePolled(`jobs/${part(job)}`);
  return html`<${Loaded} polled=${polled} what="the job">
    ${(/** @type {any} */ it) => html`<${Shown} job=${it} route=${route} session=${session} />`}
  <//>`;
}

export const screen = {
  id: "cluster", title: "Processes", key: "c", of: /** @type {const} */ ("job"),
  view: Generations,
};
