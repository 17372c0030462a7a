// Dead letters of all stages: reasons grouped, one letter's bytes and meaning side by side, replay.

import { address, part, post } from "../../part/api.js";
import { Confirmed } from "../../part/dialog.js";
import { count, moment } from "../../part/format.js";
import { usePolled } from "../../part/poll.js";
import { link, setQuery } from "../../part/route.js";
import { Facts, Loaded, Panel } from "../../part/state.js";
import { Table } from "../../part/table.js";
import { html, useState } from "../../part/ui.js";
import { readable } from "./shown.js";

const LOOK_MS = 5000;
const REQUESTS_MAX = 1000; // of one replay of all

/**
 * Replays letters, request after request until nothing remains.
 * @param {string} job @param {any} wanted
 */
async function replay(job, wanted) {
  let [done, left] = [0, 0];
  let after;
  let upTo;
  let last = "";
  for (let turn = 0; turn < REQUESTS_MAX; turn += 1) {
    const what = { ...wanted, after, up_to: upTo };
    const told = await post(`jobs/${part(job)}/dead-letters/replay`, what);
    done += told.done.length;
    left += told.left.length;
    last = told.left[0]?.how ?? told.done[0]?.how ?? last;
    if (told.failed) throw new Error(`letter ${told.failed.number}: ${told.failed.how}`);
    after = told.goes_on_after;
    upTo = told.up_to;
    if (after === null) {
      const why = done + left === 1 ? `: ${last}` : left ? `; for example: ${last}` : "";
      return { message: `${count(done)} replayed, ${count(left)} left as they are${why}` };
    }
  }
  return { message: `${count(done)} replayed, ${count(left)} left as they are; more remain` };
}

/** @param {string} job @returns {import("../../part/table.js").Column[]} */
const groups = (job) => [
  { id: "stage", head: "Stage", of: (it) => it.stage },
  { id: "group", head: "Reason", of: (it) => it.group,
    cell: (it) => html`<a href=${link(job, "letters", { stage: it.stage, group: it.group })}>
      ${it.group}</a>` },
  { id: "count", head: "Letters", numeric: true, of: (it) => it.count,
    cell: (it) => count(it.count) },
  { id: "replayed", head: "Replayed", numeric: true, of: (it) => it.replayed,
    cell: (it) => count(it.replayed) },
  { id: "newest", head: "Newest", of: (it) => it.newest_ms, cell: (it) => moment(it.newest_ms) },
  { id: "replay", head: "Put back", fixed: true, of: () => "", cell: (it) => html`<${Confirmed}
    label="Replay all" title="Replay all letters of this reason" disabled=${it.replayed >= it.count}
    text=${`The letters that were not replayed go back to where they came from: ${it.group}`}
    act=${() => replay(job, { all: true, stage: it.stage, group: it.group })} />` },
];

/** @param {any} route @returns {import("../../part/table.js").Column[]} */
const letters = (route) => [
  { id: "number", head: "Number", numeric: true, of: (it) => it.number,
    cell: (it) => html`<a href=${link(route.job, "letters", { ...route.query, letter: it.number })}>
      ${it.number}</a>` },
  { id: "at", head: "Time", of: (it) => it.at_ms, cell: (it) => moment(it.at_ms) },
  { id: "stage", head: "Stage", of: (it) => it.stage },
  { id: "source", head: "From", of: (it) => it.source },
  { id: "reason", head: "Reason", of: (it) => it.reason },
  { id: "replayed", head: "Replayed", of: (it) => it.replayed ?? "" },
];

/** Bytes in hexadecimal digits beside what they mean. @param {{ of: any, name: string }} props */
function Both({ of, name }) {
  if (of === null) return html`<p class="quiet">No ${name}.</p>`;
  const { decoded } = of;
  return html`<h3>The ${name}: ${decoded.form}, ${count(decoded.bytes)} bytes
      ${decoded.schema_id !== undefined && `, schema ${decoded.schema_id}`}</h3>
    ${decoded.problem && html`<p class="bad-text">${decoded.problem}</p>`}
    <div class="columns"><div><p class="quiet">Bytes${of.is_cut && ", only the first ones"}</p>
      <pre>${of.hex.replace(/(..)/g, "$1 ")}</pre></div>
    <div><p class="quiet">Decoded${decoded.is_cut && ", only the beginning"}</p>
      <pre>${readable(decoded)}</pre></div></div>`;
}

/** @param {{ job: string, number: string }} props */
function Letter({ job, number }) {
  const polled = usePolled(`jobs/${part(job)}/dead-letters/${part(number)}`, LOOK_MS);
  const [force, set] = useState(false);
  const act = () => replay(job, { numbers: [Number(number)], force });
  return html`<${Panel} title=${`Letter ${number}`}>
    <${Loaded} polled=${polled} what="the letter">${(/** @type {any} */ it) => html`
      <${Facts} of=${[["Stage", it.stage], ["Time", it.at],
    ["Replayed", it.replayed ? `${it.replayed.at}: ${it.replayed.how}` : "no"]]} />
      <p><strong>${it.reason}</strong></p>
      <pre>${JSON.stringify(it.source, null, 2)}</pre>
      <${Both} of=${it.key} name="key" /><${Both} of=${it.value} name="value" />
      <${Confirmed} label="Replay" title=${`Replay letter ${number}`} act=${act}
        text="It goes back to where it came from. What is wrong with it is corrected there first.">
        <label><input type="checkbox" checked=${force}
          onChange=${(/** @type {any} */ event) => set(event.target.checked)} /> also if it was
          replayed before, and behind newer records of its key</label><//>`}<//><//>`;
}

/** @param {{ job: string, route: any }} props */
function Letters({ job, route }) {
  const { stage, group, letter } = route.query;
  const path = address(`jobs/${part(job)}/dead-letters`, { stage, group });
  const polled = usePolled(path.replace(/^api\/v1\//, ""), LOOK_MS);
  const all = { stage: "", group: "", letter: "" };
  return html`<${Loaded} polled=${polled} what="the dead letters"
    empty="No dead letter: everything that came could be used."
    isEmpty=${(/** @type {any} */ it) => it.count === 0}>${(/** @type {any} */ told) => html`
      <${Panel} title="Reasons" aside=${`${count(told.count)} letters in ${told.topic}`}>
        <${Table} label="Reasons" columns=${groups(job)} rows=${told.groups}
          rowKey=${(/** @type {any} */ it) => `${it.stage} ${it.group}`} />
        ${told.others > 0 && html`<p class="quiet">${count(told.others)} letters have further
          reasons.</p>`}<//>
      <${Panel} title=${group ? "Newest letters of this reason" : "Newest letters"}
        aside=${(stage || group) && html`<button type="button"
          onClick=${() => setQuery(route, all)}>All reasons</button>`}>
        ${group && html`<p>${group}</p>`}
        <${Table} label="Letters" name="letters" columns=${letters(route)} rows=${told.letters}
          rowKey=${(/** @type {any} */ it) => String(it.number)}
          empty="No letter fits." /><//>`}<//>
    ${letter && html`<${Letter} key=${letter} job=${job} number=${letter} />`}`;
}

export const screen = {
  id: "letters", title: "Dead letters", key: "d", of: /** @type {const} */ ("job"), view: Letters,
};
