// Generations, checkpoints, failures and recoveries of a job on one axis of time.

import { clock } from "../../part/format.js";
import { html } from "../../part/ui.js";

const WIDTH = 1000; // of the picture, in its own units
const NAMES = 110; // of the names of the lanes
const LANE = 24; // height of a lane
const LANES = /** @type {[string, string[]][]} */ ([["Generations", ["generation"]],
  ["Checkpoints", ["checkpoint"]], ["Failures", ["failure", "service"]],
  ["Recoveries", ["recovered"]]]);

/**
 * Each generation from its begin to the next one's, or to now.
 * @param {any[]} events @param {number} now @param {(at: number) => number} x
 */
function generations(events, now, x) {
  const begun = events.filter((it) => it.kind === "generation");
  return begun.map((it, at) => {
    const end = begun[at + 1]?.at_ms ?? now;
    const failed = events.some((one) => one.kind === "failure" && one.at_ms >= it.at_ms
      && one.at_ms <= end);
    return html`<rect key=${it.at_ms} class=${`lane ${failed ? "bad" : "good"}`} x=${x(it.at_ms)}
      y="4" width=${Math.max(2, x(end) - x(it.at_ms) - 1)} height=${LANE - 8} rx="3">
      <title>${it.what.replace(" begins", "")}, from ${clock(it.at_ms)}${
  at + 1 < begun.length ? ` to ${clock(end)}` : ""}</title></rect>`;
  });
}

/** @param {{ events: any[], now: number }} props */
export function TimeLine({ events, now }) {
  const first = events[0]?.at_ms;
  if (first === undefined || now <= first) return null;
  const x = (/** @type {number} */ at) => NAMES + (WIDTH - NAMES - 10)
    * Math.min(1, Math.max(0, (at - first) / (now - first)));
  const height = LANES.length * LANE + 18;
  const told = LANES.map(([name, kinds]) => `${name}: ${events.filter((it) =>
    kinds.includes(it.kind) && (name !== "Failures" || it.bad)).length}`).join(", ");
  return html`<div class="wide" role="region" aria-label="Time line" tabindex="0">
    <svg class="timeline" viewBox=${`0 0 ${WIDTH} ${height}`} role="img" aria-label=${told}>
      ${LANES.map(([name, kinds], lane) => html`<g key=${name}
          transform=${`translate(0 ${lane * LANE})`}>
        <text x="0" y="16">${name}</text>
        <line x1=${NAMES} x2=${WIDTH - 10} y1=${LANE - 1} y2=${LANE - 1} />
        ${lane === 0 ? generations(events, now, x)
    : events.filter((it) => kinds.includes(it.kind) && (name !== "Failures" || it.bad)).map(
      (it) => html`<circle key=${`${it.at_ms} ${it.what}`} class=${`lane ${it.bad ? "bad"
        : it.kind === "recovered" ? "good" : ""}`} cx=${x(it.at_ms)} cy=${LANE / 2} r="4">
          <title>${clock(it.at_ms)}: ${it.what}</title></circle>`)}</g>`)}
      <text x=${NAMES} y=${height - 2}>${clock(first)}</text>
      <text x=${WIDTH - 10} y=${height - 2} text-anchor="end">${clock(now)}</text></svg></div>`;
}
