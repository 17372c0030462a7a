// The logs of all processes, merged by time and followed. The filters are in the URL.

import { get } from "../../part/api.js";
import { tone } from "../../part/format.js";
import { setQuery } from "../../part/route.js";
import { Empty, Failed, Loading, Panel } from "../../part/state.js";
import { html, useEffect, useRef, useState } from "../../part/ui.js";

const EVERY_MS = 1500; // between two pages while nothing waits
const LINES_MAX = 2000; // lines that are kept; older ones go
const BACK_MS = 15 * 60_000; // how far back the first page begins
const LEVELS = ["error", "warn", "info", "debug", "trace"];

/** @typedef {{ lines: any[], error: any, missing: Record<string, string>, begun: boolean }} Told */

/** Follows the log from a while ago on; starts anew when the filter changes. */
function useLog(/** @type {any} */ filter, /** @type {boolean} */ follows) {
  const [told, set] = useState(/** @type {Told} */ ({ lines: [], error: null, missing: {},
    begun: false }));
  /** @type {{ current: any }} */
  const cursor = useRef(undefined);
  useEffect(() => {
    cursor.current = undefined;
    set({ lines: [], error: null, missing: {}, begun: false });
  }, [filter.job, filter.process, filter.level]);
  useEffect(() => {
    let timer = 0;
    let over = false;
    const since = Date.now() - BACK_MS;
    const look = async () => {
      let more = false;
      try {
        const after = cursor.current && JSON.stringify(cursor.current);
        const query = { job: filter.job, process: filter.process, level: filter.level, after,
          since_ms: after ? undefined : since };
        const page = await get("logs", query);
        if (over) return;
        cursor.current = page.cursor;
        more = page.more;
        set((/** @type {Told} */ now) => ({ error: null, missing: page.missing, begun: true,
          lines: [...now.lines, ...page.lines].slice(-LINES_MAX) }));
      } catch (error) {
        if (over) return;
        set((/** @type {Told} */ now) => ({ ...now, error }));
      }
      if (follows || more) timer = window.setTimeout(look, more ? 0 : EVERY_MS);
    };
    look();
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, [filter.job, filter.process, filter.level, follows]);
  return told;
}

/** @param {any} line */
const time = (line) => (line.time_us
  ? new Date(line.time_us / 1000).toISOString().slice(11, 23) : "");
/** The text without time and level, which have columns. @param {any} line */
const words = (line) => line.text.replace(/^\d{4}-\S+Z\s+[A-Z]+\s+/, "");
const TONES = /** @type {Record<string, string>} */ ({ ERROR: "failed", WARN: "busy",
  INFO: "live" });

/** @param {{ lines: any[], follows: boolean }} props */
function Lines({ lines, follows }) {
  /** @type {{ current: any }} */
  const box = useRef(null);
  useEffect(() => {
    if (follows && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [lines, follows]);
  return html`<div class="log" ref=${box} tabindex="0" role="log" aria-label="Log lines"
    aria-live="off">${lines.map((it, at) => html`<div key=${`${it.worker}/${it.process} ${
    it.next?.join(":") ?? at}`} class="log-line"><time>${time(it)}</time>
      <span class=${`badge ${tone(TONES[it.level] ?? "")}`}>${it.level || "–"}</span>
      <span class="quiet">${it.worker}/${it.process}</span><span class="log-text">${words(it)}</span>
    </div>`)}</div>`;
}

/** @param {{ route: any }} props */
function Logs({ route }) {
  const { query } = route;
  const follows = query.follow !== "no";
  const told = useLog(query, follows);
  const text = (query.text ?? "").toLowerCase();
  const lines = told.lines.filter((it) => it.text.toLowerCase().includes(text));
  const field = (/** @type {string} */ name, /** @type {string} */ head) => html`<label>${head}
    <input size="10" value=${query[name] ?? ""} onChange=${(/** @type {any} */ event) =>
    setQuery(route, { [name]: event.target.value })} /></label>`;
  const missing = Object.entries(told.missing);
  return html`<${Panel} title="Logs" aside=${`${lines.length} lines`}>
    <div class="row"><label>Level <select value=${query.level ?? ""} onChange=${
    (/** @type {any} */ event) => setQuery(route, { level: event.target.value })}>
      <option value="">every</option>${LEVELS.map((it) => html`<option key=${it} value=${it}>
        ${it} and worse</option>`)}</select></label>
      ${field("job", "Job")}${field("process", "Process")}
      <label>Text <input type="search" data-filter value=${query.text ?? ""} onInput=${
    (/** @type {any} */ event) => setQuery(route, { text: event.target.value })} /></label>
      <label><input type="checkbox" checked=${follows} onChange=${(/** @type {any} */ event) =>
    setQuery(route, { follow: event.target.checked ? "" : "no" })} /> follow</label></div>
    ${missing.map(([worker, why]) => html`<p key=${worker} class="note stale">The lines of
      ${worker} are missing: ${why}</p>`)}
    ${told.error && told.begun && html`<p class="note stale">Not up to date:
      ${told.error.message}</p>`}
    ${told.error && !told.begun ? html`<${Failed} what="The log" error=${told.error} />`
    : !told.begun ? html`<${Loading} what="the log" />`
      : lines.length === 0 ? html`<${Empty}>No line of the last quarter of an hour fits.<//>`
        : html`<${Lines} lines=${lines} follows=${follows} />`}<//>`;
}

export const screen = {
  id: "logs", title: "Logs", key: "l", of: /** @type {const} */ ("cluster"), view: Logs,
  when: (/** @type {any} */ session) => session.features.includes("logs"),
};
