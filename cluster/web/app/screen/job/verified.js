// Verifying and repairing the table of a view: the buttons, the progress, and what was found.

import { part, post } from "../../part/api.js";
import { Confirmed } from "../../part/dialog.js";
import { count, duration, moment } from "../../part/format.js";
import { usePolled } from "../../part/poll.js";
import { Empty, Facts, Loaded, Panel } from "../../part/state.js";
import { Table } from "../../part/table.js";
import { html, useState } from "../../part/ui.js";

const LOOK_MS = 2000;

/** @type {import("../../part/table.js").Column[]} */
const DIFFERENCES = [
  { id: "difference", head: "Row", of: (it) => it.difference },
  { id: "key", head: "Key", of: (it) => Object.entries(it.key).map(([name, value]) =>
    `${name} = ${value}`).join(", ") },
  { id: "columns", head: "Is, and should be", fixed: true, of: () => "",
    cell: (it) => Object.entries(it.columns ?? {}).map(([name, both]) => html`<div key=${name}>
      ${name}: ${both.is ?? "null"} → ${both.should_be ?? "null"}</div>`) },
];

/** The buttons of a table. @param {{ job: string, view: string, busy: string }} props */
export function Buttons({ job, view, busy }) {
  const [fromLog, set] = useState(false);
  const act = (/** @type {boolean} */ repair) => () => post(
    `jobs/${part(job)}/views/${part(view)}/verify`, { repair, from_log: fromLog });
  const all = html`<label><input type="checkbox" checked=${fromLog}
    onChange=${(/** @type {any} */ event) => set(event.target.checked)} /> from the beginning of
    the topics, which proves the checkpoint too and takes longer</label>`;
  return html`<${Confirmed} label="Verify" title=${`Verify ${view}`} act=${act(false)}
      disabled=${busy !== ""} text=${"The rows of the table are compared with what the view holds "
    + "by its checkpoint, the journal and the topics. Nothing is written; the job goes on."}>
      ${all}<//>
    <${Confirmed} label="Repair" danger title=${`Repair ${view}`} act=${act(true)}
      disabled=${busy !== ""} text=${"The table is verified, then the rows that differ are written "
    + "as they should be, and rows that should not be there are deleted. No other row is touched, "
    + "and what the job writes meanwhile stays."}>${all}<//>`;
}

/** @param {{ of: any }} props a verification that has a view */
function Found({ of }) {
  const { result } = of;
  const took = duration((of.ended_ms ?? Date.now()) - of.began_ms);
  const wrong = result ? result.missing + result.extra + result.different : 0;
  const last = of.steps.at(-1);
  return html`<${Facts} of=${[
    ["View", of.view], ["Began", moment(of.began_ms)],
    [of.ended_ms ? "Took" : "Runs for", took],
    ...(result ? [["Rows", count(result.rows)], ["Missing", count(result.missing),
      result.missing ? "bad" : ""], ["Extra", count(result.extra), result.extra ? "bad" : ""],
    ["Different", count(result.different), result.different ? "bad" : ""],
    ["Refused by the table", count(result.refused)]] : []),
  ]} />
    ${!of.ended_ms && html`<p class="note loading" role="status">
      ${last ?? "The process that verifies starts."}</p>`}
    ${of.error && html`<p class="note failed" role="alert">${of.error}</p>`}
    ${result && html`<p class=${`note ${result.left ? "failed" : ""}`} role="status">${
      wrong === 0 ? "The table is what the view should hold."
        : !of.repair ? `${count(wrong)} rows differ. Nothing was written.`
          : result.left ? `${count(wrong - result.left)} rows were repaired, ${
            count(result.left)} still differ.` : `${count(wrong)} rows were repaired.`}</p>`}
    ${of.differences.length > 0 && html`<${Table} label="Differences" name="differences"
      columns=${DIFFERENCES} rows=${of.differences} rowKey=${(/** @type {any} */ it) =>
    JSON.stringify(it.key)} />`}
    ${of.steps.length > 0 && html`<details><summary>Its log</summary>
      <pre tabindex="0">${of.steps.join("\n")}</pre></details>`}`;
}

/** The newest verification. @param {string} job */
export const useVerification = (job) => usePolled(`jobs/${part(job)}/verification`, LOOK_MS);

/** @param {{ polled: import("../../part/poll.js").Polled }} props */
export function Verification({ polled }) {
  return html`<${Panel} title="Verification"><${Loaded} polled=${polled} what="the verification">
    ${(/** @type {any} */ it) => (it.view ? html`<${Found} of=${it} />`
    : html`<${Empty}>Nothing was verified since the process started.<//>`)}<//><//>`;
}
