// The capture: replication slot, retained WAL and what is left of it, snapshot by table.

import { part } from "../../part/api.js";
import { bytes, count, decimal, moment } from "../../part/format.js";
import { usePolled } from "../../part/poll.js";
import { Facts, Loaded, Panel } from "../../part/state.js";
import { Table } from "../../part/table.js";
import { html } from "../../part/ui.js";

const LOOK_MS = 5000;
const HOURS_FEW = 24; // below this the time left is marked

/** @type {import("../../part/table.js").Column[]} */
const TABLES = [
  { id: "name", head: "Table", of: (it) => it.name },
  { id: "rows", head: "Rows, about", numeric: true, of: (it) => it.rows_about,
    cell: (it) => count(it.rows_about) },
  { id: "read", head: "Rows of the snapshot", numeric: true, of: (it) => it.read,
    cell: (it) => count(it.read) },
];

/** The captured tables with the rows of the snapshot. @param {any} capture */
function tables(capture) {
  const read = new Map(capture.snapshot?.tables ?? []);
  const bare = (/** @type {string} */ name) => name.split(".").at(-1);
  return capture.tables.map((/** @type {any} */ it) => ({ ...it, read: read.get(bare(it.name)) }));
}

/** @param {{ slot: any }} props */
function Slot({ slot }) {
  if (!slot.is_there) {
    return html`<div class="note failed">The server has no replication slot ${slot.name}.</div>`;
  }
  const lost = slot.wal_status === "lost";
  const risky = lost || slot.wal_status === "unreserved";
  const hours = slot.hours_to_limit;
  const few = hours !== null && hours < HOURS_FEW;
  const limit = slot.keep_max_bytes === null
    ? "none: the server's disk is the limit" : bytes(slot.keep_max_bytes);
  const written = slot.wal_bytes_per_s === null ? "measuring" : `${bytes(slot.wal_bytes_per_s)}/s`;
  return html`${lost && html`<div class="note failed">The slot is lost: the server removed WAL that
      the capture needs. Its tables must be read again.</div>`}
    ${!slot.active && html`<div class="note failed">Nobody reads the slot, so the server keeps
      more and more WAL.</div>`}
    <${Facts} of=${[
    ["Slot", slot.name],
    ["wal_status", slot.wal_status ?? "unknown", risky ? "bad" : "good"],
    slot.active ? ["Read by", `process ${slot.active_pid}`, "good"] : ["Read by", "nobody", "bad"],
    ["WAL kept back", bytes(slot.retained_bytes)],
    ["Not confirmed", bytes(slot.unconfirmed_bytes)],
    ["Limit for slots", limit],
    ["Left to the limit", bytes(slot.safe_wal_size), few ? "bad" : ""],
    ["WAL written", written],
    ["Hours to the limit", hours === null ? "–" : decimal(hours), few ? "bad" : ""],
    ["restart_lsn", slot.restart_lsn ?? "–"],
    ["confirmed_flush_lsn", slot.confirmed_flush_lsn ?? "–"],
    ["Current LSN", slot.current_lsn],
  ]} />`;
}

/** @param {{ snapshot: any }} props */
function Snapshot({ snapshot }) {
  if (snapshot === null) return html`<p class="quiet">This run of the ingest read no snapshot.</p>`;
  return html`<p>The snapshot began at ${moment(snapshot.began_ms)} and ${snapshot.ended_ms === null
    ? "is being read" : `ended at ${moment(snapshot.ended_ms)}`}.</p>`;
}

/** @param {{ job: string }} props */
function Capture({ job }) {
  const polled = usePolled(`jobs/${part(job)}/capture`, LOOK_MS);
  return html`<${Loaded} polled=${polled} what="the capture" empty="The job captures no database."
    isEmpty=${(/** @type {any} */ it) => it.engine === "none"}>
    ${(/** @type {any} */ capture) => html`
      <${Panel} title="Replication slot">${capture.slot
    ? html`<${Slot} slot=${capture.slot} />`
    : html`<p>Triggers of the SQLite file capture the changes.
        ${" "}${count(capture.changes_waiting)} of them are not published.</p>`}<//>
      <${Panel} title="Tables"><${Snapshot} snapshot=${capture.snapshot} />
        <${Table} label="Captured tables" columns=${TABLES} rows=${tables(capture)}
          rowKey=${(/** @type {any} */ it) => it.name} empty="No table is captured." />
        <p class="quiet">To read tables again: ${capture.resnapshot}.</p><//>`}<//>`;
}

export const screen = {
  id: "capture", title: "Capture", key: "x", of: /** @type {const} */ ("job"), view: Capture,
};
