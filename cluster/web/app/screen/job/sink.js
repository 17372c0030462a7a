// The sink of a job: how far its tables are, and what writing each of them costs.

import { part } from "../../part/api.js";
import { ago, count, duration, moment, percent, rate } from "../../part/format.js";
import { usePolled } from "../../part/poll.js";
import { link } from "../../part/route.js";
import { Badge, Facts, Loaded, Panel } from "../../part/state.js";
import { Table } from "../../part/table.js";
import { html, useRef } from "../../part/ui.js";
import { useShares, viewOf } from "./operators.js";
import { Buttons, useVerification, Verification } from "./verified.js";

const LOOKS_MAX = 5; // samples that a rate covers

/** What a counter rose by in a second, over the last samples; null until there are two.
 * @param {number} value @param {number | null} at */
function useRate(value, at) {
  /** @type {{ current: { at: number, value: number }[] }} */
  const looks = useRef([]);
  if (at !== null && looks.current.at(-1)?.at !== at) {
    looks.current = [...looks.current, { at, value }].slice(-LOOKS_MAX);
  }
  const first = looks.current[0];
  const last = looks.current.at(-1);
  if (!first || !last || last.at === first.at || last.value < first.value) return null;
  return (last.value - first.value) * 1000 / (last.at - first.at);
}

/** @param {{ job: any, at: number | null, now: number }} props */
function Shown({ job, at, now }) {
  const shares = useShares(job.operators, at);
  const verification = useVerification(job.name);
  const verified = verification.data;
  const busy = verified?.view && !verified.ended_ms ? verified.view : "";
  const written = useRate(job.sink_rows, at);
  const writes = job.operators.filter((/** @type {any} */ it) => it.name.endsWith(": Write"));
  const cost = new Map(writes.map((/** @type {any} */ it) => [viewOf(it.name), it]));
  const rows = Object.entries(job.views).map(([name, count]) => ({ name, count,
    write: cost.get(name), share: shares.get(`${name}: Write`) }));
  const service = job.dependencies.find((/** @type {any} */ it) => it.dependency === "views");
  /** @type {import("../../part/table.js").Column[]} */
  const columns = [
    { id: "name", head: "Table", of: (it) => it.name,
      cell: (it) => html`<a href=${link(job.name, "views", { view: it.name })}>${it.name}</a>` },
    { id: "rows", head: "Rows", numeric: true, of: (it) => it.count,
      cell: (it) => count(it.count) },
    { id: "share", head: "Writing, of a core", numeric: true, of: (it) => it.share ?? null,
      cell: (it) => percent(it.share) },
    { id: "busy", head: "Writing, since the start", numeric: true,
      of: (it) => it.write?.busy_us ?? null,
      cell: (it) => duration(it.write ? it.write.busy_us / 1000 : null) },
    { id: "verify", head: "Is it right?", fixed: true, of: () => "",
      cell: (it) => html`<${Buttons} job=${job.name} view=${it.name} busy=${busy} />` },
  ];
  return html`<${Panel} title=${html`Sink ${service && html`<${Badge} state=${service.state} />`}`}>
      <${Facts} of=${[
    ["Engine", service?.engine ?? "unknown"], ["Address", service?.at ?? "unknown"],
    ["Every table shows", moment(job.epoch)],
    ["That is", job.epoch ? ago(Math.max(0, now - job.epoch)) : "nothing yet"],
    ["Freshness p99", duration(job.freshness_p99_ms)],
    ["Behind", job.behind === null ? "unknown" : `${count(job.behind)} records`],
    ["Rows written", `${count(job.sink_rows)} (${rate(written)})`],
    ["A write takes, p50 / p99", job.sink_p99_ms === null ? "no write lately"
      : `${duration(job.sink_p50_ms)} / ${duration(job.sink_p99_ms)}`],
    ["Writes under way", count(job.sink_pending)],
  ]} />
      ${service?.error && html`<p class=${`note ${service.state === "down" ? "failed" : ""}`}>
        Last error: ${service.error}</p>`}
    <//>
    <${Panel} title="Tables"><${Table} label="Tables of the sink" columns=${columns} rows=${rows}
      order="name" rowKey=${(/** @type {any} */ it) => it.name}
      empty="The rows are counted when all processes show one epoch." />
      ${busy && html`<p class="quiet">${busy} is being verified; one view at a time.</p>`}<//>
    <${Verification} polled=${verification} />`;
}

/** @param {{ job: string }} props */
function Sink({ job }) {
  const polled = usePolled(`jobs/${part(job)}`);
  return html`<${Loaded} polled=${polled} what="the sink">
    ${(/** @type {any} */ it) => html`<${Shown} job=${it} at=${polled.at}
      now=${polled.at ?? Date.now()} />`}<//>`;
}

export const screen = {
  id: "sink", title: "Sink", key: "s", of: /** @type {const} */ ("job"), view: Sink,
};
