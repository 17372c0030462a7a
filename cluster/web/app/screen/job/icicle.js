// Where the time of a job goes, as an icicle: the job, below it its views, below each view its
// operators. The width of a bar is its time; a bar leads to its view.

import { duration, percent } from "../../part/format.js";
import { link } from "../../part/route.js";
import { html } from "../../part/ui.js";

const WIDTH = 1000; // of the picture, in its own units
const HEIGHT = 26; // of a bar
const CHAR = 7.4; // about the width of a character
const NARROW = 1; // a bar below this width is left out

/** @typedef {{ name: string, title: string, busy: number, children?: Bar[], href?: string }} Bar */

/** The bars of a job, the widest first. @param {string} job @param {any[]} rows @returns {Bar} */
function tree(job, rows) {
  /** @type {Map<string, Bar>} */
  const views = new Map();
  for (const row of rows) {
    const name = row.view || "reading and binding";
    /** @type {Bar} */
    const view = views.get(name) ?? { name, title: name, busy: 0, children: [],
      href: row.view ? link(job, "views", { view: row.view }) : undefined };
    view.busy += row.busy_us;
    view.children?.push({ name: row.name.slice(row.view ? row.view.length + 2 : 0),
      title: row.name, busy: row.busy_us, href: view.href });
    views.set(name, view);
  }
  const sorted = (/** @type {Bar[]} */ all) => all.sort((a, b) => b.busy - a.busy);
  const children = sorted([...views.values()]);
  children.forEach((it) => sorted(it.children ?? []));
  const busy = children.reduce((sum, it) => sum + it.busy, 0);
  return { name: job, title: job, busy, children };
}

/** One bar and those below it. */
function bars(/** @type {Bar} */ bar, /** @type {number} */ left, /** @type {number} */ depth,
  /** @type {number} */ unit, /** @type {number} */ whole) {
  /** @type {any[]} */
  const all = [];
  const width = bar.busy * unit;
  if (width < NARROW) return all;
  const chars = Math.floor((width - 8) / CHAR);
  const text = bar.name.length > chars ? `${bar.name.slice(0, Math.max(0, chars - 1))}…` : bar.name;
  const told = `${bar.title}: ${duration(bar.busy / 1000)}, ${percent(bar.busy / whole)}`;
  const inside = html`<title>${told}</title>
    <rect x=${left} y=${depth * HEIGHT} width=${width - 1} height=${HEIGHT - 1} rx="2" />
    ${chars > 2 && html`<text x=${left + 5} y=${depth * HEIGHT + 17}>${text}</text>`}`;
  const kind = `bar depth-${depth}`;
  all.push(bar.href ? html`<a key=${`${depth} ${bar.title}`} class=${kind} href=${bar.href}
      aria-label=${told}>${inside}</a>`
    : html`<g key=${`${depth} ${bar.title}`} class=${kind}>${inside}</g>`);
  let at = left;
  for (const child of bar.children ?? []) {
    all.push(...bars(child, at, depth + 1, unit, whole));
    at += child.busy * unit;
  }
  return all;
}

/** @param {{ job: string, rows: any[] }} props rows with their view and time */
export function Icicle({ job, rows }) {
  const root = tree(job, rows);
  if (root.busy === 0) return html`<p class="quiet">No operator has taken any time yet.</p>`;
  return html`<div class="wide" role="region" aria-label="Time by view and operator" tabindex="0">
    <svg class="icicle" viewBox=${`0 0 ${WIDTH} ${3 * HEIGHT}`} role="group"
      aria-label="Time by view and operator">
      ${bars(root, 0, 0, WIDTH / root.busy, root.busy)}</svg></div>`;
}
