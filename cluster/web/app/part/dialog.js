// A button that asks before it does something, and shows what came of it.

import { refresh } from "./poll.js";
import { html, useRef, useState } from "./ui.js";

/**
 * @param {{ label: string, title: string, text: any, act: () => Promise<any>, danger?: boolean,
 *   disabled?: boolean, reason?: string, children?: any }} props
 * `act` does it and returns `{ message }`; `children` are further fields of the dialog; `reason`
 * says why the button is disabled.
 */
export function Confirmed({ label, title, text, act, danger, disabled, reason, children }) {
  /** @type {{ current: any }} */
  const dialog = useRef(null);
  const [said, say] = useState({ busy: false, error: "", done: "" });
  const go = async (/** @type {Event} */ event) => {
    event.preventDefault();
    say({ busy: true, error: "", done: "" });
    try {
      const answer = await act();
      say({ busy: false, error: "", done: answer?.message ?? "done" });
      dialog.current?.close();
      refresh();
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      say({ busy: false, error: why, done: "" });
    }
  };
  const open = () => {
    say({ busy: false, error: "", done: "" });
    dialog.current?.showModal();
  };
  return html`<span class="confirmed">
    <button type="button" class=${danger ? "danger" : ""} disabled=${disabled}
      title=${disabled && reason ? reason : undefined} onClick=${open}>${label}</button>
    ${disabled && reason && html`<span class="quiet reason">${reason}</span>`}
    ${said.done && html`<span class="done" role="status">${said.done}</span>`}
    <dialog ref=${dialog} aria-label=${title}><form onSubmit=${go}>
      <h2>${title}</h2><p>${text}</p>${children}
      ${said.error && html`<p class="note failed" role="alert">${said.error}</p>`}
      <div class="row">
        <button type="submit" class=${danger ? "danger" : "main"} disabled=${said.busy}>
          ${label}</button>
        <button type="button" onClick=${() => dialog.current?.close()}>Cancel</button>
      </div></form></dialog></span>`;
}
