// A layered graph as a picture, from left to right. The layout depends on the nodes' names and
// edges alone, so new numbers move nothing.
//
//   nodes: { id, title, lines: [text], mood?: "good"|"bad"|"busy"|"quiet", href?, kind? }
//   edges: { from, to, label?, mood?, title? }

import { Graph as Layered, layout } from "../vendor/dagre.mjs";
import { html, useMemo } from "./ui.js";

const CHAR = 7.9; // about the width of a character, in px
const LINE = 18; // height of a line of a node, in px
const SIDE = 14; // between a node's border and its text, in px
const SHRUNK_MIN = 0.72; // of its size, to fit; a wider picture scrolls
const WIDE_MAX = 34; // characters of a line that are shown

/** @param {string} text */
const cut = (text) => (text.length > WIDE_MAX ? `${text.slice(0, WIDE_MAX - 1)}…` : text);

/** @param {any[]} nodes @param {any[]} edges */
function place(nodes, edges) {
  const graph = new Layered();
  graph.setGraph({ rankdir: "LR", nodesep: 18, ranksep: 26, marginx: 8, marginy: 8 });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const node of nodes) {
    const texts = [node.title, ...(node.widest ?? node.lines ?? [])];
    const chars = Math.min(WIDE_MAX, Math.max(16, ...texts.map((it) => String(it).length)));
    const height = 30 + LINE * (node.lines?.length ?? 0);
    graph.setNode(node.id, { width: chars * CHAR + 2 * SIDE, height });
  }
  for (const edge of edges) {
    graph.setEdge(edge.from, edge.to, { width: edge.label ? 84 : 8, height: 14, labelpos: "c" });
  }
  layout(graph);
  return graph;
}

/** @param {{ x: number, y: number }[]} points */
function path(points) {
  const [first, ...rest] = points;
  let text = `M${first.x},${first.y}`;
  for (let at = 0; at < rest.length - 1; at += 1) {
    const [here, next] = [rest[at], rest[at + 1]];
    const middle = { x: (here.x + next.x) / 2, y: (here.y + next.y) / 2 };
    const end = at === rest.length - 2 ? next : middle;
    text += ` Q${here.x},${here.y} ${end.x},${end.y}`;
  }
  return rest.length === 1 ? `${text} L${rest[0].x},${rest[0].y}` : text;
}

/** @param {{ node: any, at: any }} props */
function Node({ node, at }) {
  const [left, top] = [at.x - at.width / 2, at.y - at.height / 2];
  const inside = html`
    <title>${[node.title, ...(node.lines ?? [])].join("\n")}</title>
    <rect x=${left} y=${top} width=${at.width} height=${at.height} rx="7" />
    <text class="node-title" x=${left + SIDE} y=${top + 20}>${cut(node.title)}</text>
    ${(node.lines ?? []).map((/** @type {string} */ line, /** @type {number} */ n) => html`
      <text key=${n} class="node-line" x=${left + SIDE} y=${top + 20 + LINE * (n + 1)}>
        ${cut(line)}</text>`)}`;
  const kind = `node ${node.mood ?? ""} ${node.kind ?? ""}`;
  return node.href ? html`<a class=${kind} href=${node.href}>${inside}</a>`
    : html`<g class=${kind}>${inside}</g>`;
}

/** @param {{ label: string, nodes: any[], edges: any[] }} props */
export function Graph({ label, nodes, edges }) {
  // What the places depend on. Texts that change often give their widest form in `widest`.
  const shape = JSON.stringify([nodes.map((it) => [it.id, it.title, it.lines?.length]),
    edges.map((it) => [it.from, it.to, Boolean(it.label)])]);
  const placed = useMemo(() => place(nodes, edges), [shape]);
  const size = placed.graph();
  const lines = edges.map((edge) => ({ edge, at: placed.edge(edge.from, edge.to) }));
  return html`<div class="wide graph" role="region" aria-label=${label} tabindex="0">
    <svg style=${{ minWidth: `${size.width * SHRUNK_MIN}px`, maxWidth: "100%", height: "auto" }}
      width=${size.width} height=${size.height} viewBox=${`0 0 ${size.width} ${size.height}`}
      role="group" aria-label=${label}>
      ${lines.map(({ edge, at }) => html`<g key=${`${edge.from}>${edge.to}`}
        class=${`edge ${edge.mood ?? ""}`}><title>${edge.title ?? ""}</title>
        <path d=${path(at.points)} />
        ${edge.label && html`<text x=${at.x} y=${at.y - 7} text-anchor="middle">
          ${edge.label}</text>`}</g>`)}
      ${nodes.map((node) => html`<${Node} key=${node.id} node=${node}
        at=${placed.node(node.id)} />`)}
    </svg></div>`;
}
