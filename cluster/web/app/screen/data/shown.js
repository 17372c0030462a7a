// Parts that the screens of data share: a key or value of a record, and the fields of a form.

import { bytes } from "../../part/format.js";
import { html } from "../../part/ui.js";

const SUMMARY_CHARS = 160; // of a value in a table

/**
 * JSON text with line ends and indents. It works on the text, because numbers that a script reads
 * would be rounded.
 * @param {string} text
 */
export function indented(text) {
  let out = "";
  let depth = 0;
  let quoted = false;
  for (let at = 0; at < text.length; at += 1) {
    const sign = text[at];
    const line = () => `\n${"  ".repeat(Math.max(depth, 0))}`;
    if (quoted) {
      out += sign;
      if (sign === "\\") {
        at += 1;
        out += text[at] ?? "";
      } else if (sign === '"') quoted = false;
    } else if (sign === '"') {
      quoted = true;
      out += sign;
    } else if (sign === "{" || sign === "[") {
      const closed = /^\s*[}\]]/.exec(text.slice(at + 1, at + 20));
      if (closed) {
        out += sign + closed[0].trim();
        at += closed[0].length;
      } else {
        depth += 1;
        out += sign + line();
      }
    } else if (sign === "}" || sign === "]") {
      depth -= 1;
      out += line() + sign;
    } else if (sign === ",") out += sign + line();
    else if (sign === ":") out += ": ";
    else if (!/\s/.test(sign)) out += sign;
  }
  return out;
}

/** A decoded key or value as text. @param {any} it */
export const readable = (it) => (["avro", "json"].includes(it.form) && !it.is_cut
  ? indented(it.text) : it.text);

/**
 * A key or a value: its beginning, and the whole when it is opened. `none` is shown without one.
 * @param {{ of: any, none: string }} props
 */
export function Decoded({ of, none }) {
  if (of === null || of === undefined) return html`<em class="quiet">${none}</em>`;
  const about = [of.form, bytes(of.bytes)];
  if (of.schema_id !== undefined) about.push(`schema ${of.schema_id}`);
  const start = of.text.slice(0, SUMMARY_CHARS) + (of.text.length > SUMMARY_CHARS ? "…" : "");
  return html`<details><summary>${start || html`<em class="quiet">empty</em>`}</summary>
    <p class="quiet">${about.join(", ")}${of.is_cut && "; only its beginning"}</p>
    ${of.problem && html`<p class="bad-text">${of.problem}</p>`}
    <pre>${readable(of)}</pre></details>`;
}

/** The values of a form by their names. @param {any} event @returns {Record<string, string>} */
export function given(event) {
  event.preventDefault();
  const entries = [...new FormData(event.target).entries()];
  return Object.fromEntries(entries.map(([name, value]) => [name, String(value).trim()]));
}
