// A table whose order is in the URL. A column is
//   { id, head, of: (row) => what is compared, cell?: (row) => what is shown, numeric?: true }

import { setQuery, useRoute } from "./route.js";
import { html } from "./ui.js";

/**
 * @typedef {{ id: string, head: string, of: (row: any) => any, cell?: (row: any) => any,
 *   numeric?: boolean, fixed?: boolean }} Column
 */

/** @param {any} a @param {any} b */
function compare(a, b) {
  const none = (/** @type {any} */ it) => it === null || it === undefined;
  if (none(a) || none(b)) return Number(none(a)) - Number(none(b));
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

/**
 * @param {{ label: string, columns: Column[], rows: any[], rowKey: (row: any) => string,
 *   order?: string, name?: string, empty?: any }} props
 * `order` is the column to sort by at first, with `-` before it for descending; without it rows
 * keep their order. `name` tells two tables of one screen apart in the URL.
 */
export function Table({ label, columns, rows, rowKey, order = "", name = "sort", empty }) {
  const route = useRoute();
  const chosen = route.query[name] ?? order;
  const down = chosen.startsWith("-");
  const by = columns.find((it) => it.id === chosen.replace(/^-/, ""));
  const sign = down ? -1 : 1;
  const sorted = by ? [...rows].sort((a, b) => sign * compare(by.of(a), by.of(b))) : rows;
  if (rows.length === 0 && empty) return html`<div class="note empty">${empty}</div>`;
  const head = (/** @type {Column} */ column) => {
    const mine = by === column;
    const next = mine && !down ? `-${column.id}` : column.id;
    const sort = mine ? (down ? "descending" : "ascending") : undefined;
    const mark = mine ? (down ? " ▾" : " ▴") : "";
    return html`<th key=${column.id} scope="col" class=${column.numeric ? "n" : ""}
      aria-sort=${sort}>${column.fixed ? column.head : html`<button type="button"
        onClick=${() => setQuery(route, { [name]: next })}>${column.head}${mark}</button>`}</th>`;
  };
  return html`<div class="wide" role="region" aria-label=${label} tabindex="0"><table>
    <caption class="unseen">${label}</caption>
    <thead><tr>${columns.map(head)}</tr></thead>
    <tbody>${sorted.map((row) => html`<tr key=${rowKey(row)}>${columns.map((column) => html`
      <td key=${column.id} class=${column.numeric ? "n" : ""}>
        ${column.cell ? column.cell(row) : column.of(row)}</td>`)}</tr>`)}</tbody>
  </table></div>`;
}

/** The filter of a screen, which is in the URL. @param {{ route: any, name?: string }} props */
export function Filter({ route, name = "filter" }) {
  const typed = (/** @type {any} */ event) => setQuery(route, { [name]: event.target.value });
  return html`<label>Filter <input type="search" data-filter value=${route.query[name] ?? ""}
    onInput=${typed} /></label>`;
}
