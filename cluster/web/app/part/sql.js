// SQL with its words coloured. The text itself is never changed.

import { html } from "./ui.js";

const WORDS = new Set(`all and any array as asc between by case cast create cross current default
desc distinct else end except exists extract false fetch filter first following for from full
group grouping having in inner intersect interval is join key last lateral left like limit natural
not null nulls on or order outer over partition preceding primary range right row rows select sets
similar some table then to true unbounded union using values view when where window with within
materialized rollup cube ilike`.split(/\s+/));
const TOKEN = new RegExp([
  /--[^\n]*/, /\/\*[\s\S]*?\*\//, /'(?:[^']|'')*'/, /"(?:[^"]|"")*"/, /\b\d+(?:\.\d+)?\b/,
  /[A-Za-z_][A-Za-z_0-9]*/,
].map((it) => it.source).join("|"), "g");

/** @param {string} token */
function kind(token) {
  if (token.startsWith("--") || token.startsWith("/*")) return "comment";
  if (token.startsWith("'")) return "text";
  if (/^\d/.test(token)) return "number";
  return WORDS.has(token.toLowerCase()) ? "word" : "";
}

/** @param {{ text: string }} props */
export function Sql({ text }) {
  const parts = [];
  let from = 0;
  for (const found of text.matchAll(TOKEN)) {
    const is = kind(found[0]);
    if (!is) continue;
    parts.push(text.slice(from, found.index), html`<span class=${`sql-${is}`}>${found[0]}</span>`);
    from = found.index + found[0].length;
  }
  parts.push(text.slice(from));
  return html`<pre class="sql" tabindex="0"><code>${parts}</code></pre>`;
}
