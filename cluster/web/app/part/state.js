// What every screen shares: badges, facts, panels, and the four states in which a screen has
// nothing new to show. A screen wraps what it polls in <Loaded>, which shows the state that is so:
//
//   loading  nobody has answered yet
//   failed   nothing has ever been answered, and why
//   empty    an answer came, and it holds nothing: `empty` says what that means
//   stale    an answer came before, and the newest request failed: it stays, marked with its time

import { clock, tone } from "./format.js";
import { html } from "./ui.js";

/** @param {{ state: string, label?: string }} props */
export function Badge({ state, label }) {
  return html`<span class=${`badge ${tone(state)}`}>${label ?? state}</span>`;
}

/** @param {{ children?: any }} props */
export function Empty({ children }) {
  return html`<div class="note empty">${children}</div>`;
}

/** @param {{ what?: string }} props */
export function Loading({ what = "this" }) {
  return html`<div class="note loading" role="status">Loading ${what}.</div>`;
}

/** @param {{ error: any, what?: string }} props */
export function Failed({ error, what = "This" }) {
  return html`<div class="note failed" role="alert">
    <strong>${what} cannot be shown:</strong> ${error?.message ?? String(error)}</div>`;
}

/** @param {{ polled: import("./poll.js").Polled }} props */
export function Stale({ polled }) {
  if (!polled.error || polled.at === null) return null;
  return html`<div class="note stale" role="status">Not up to date: ${polled.error.message}.
    Shown is the answer of ${clock(polled.at)}.</div>`;
}

/**
 * `children` is a function that gets the data. `isEmpty` says whether the data holds nothing.
 * @param {{ polled: import("./poll.js").Polled, what: string, empty?: any,
 *   isEmpty?: (data: any) => boolean, children?: any }} props
 */
export function Loaded({ polled, what, empty, isEmpty, children }) {
  const { data, error } = polled;
  if (data === undefined) {
    const name = what.charAt(0).toUpperCase() + what.slice(1);
    return error ? html`<${Failed} error=${error} what=${name} />`
      : html`<${Loading} what=${what} />`;
  }
  const show = Array.isArray(children) ? children[0] : children;
  const holds = !isEmpty?.(data);
  return html`<${Stale} polled=${polled} />
    <div class=${error ? "is-stale" : ""}>
      ${holds ? show(data) : html`<${Empty}>${empty ?? "There is nothing yet."}<//>`}
    </div>`;
}

/** A titled area of a screen. @param {{ title?: any, aside?: any, children?: any }} props */
export function Panel({ title, aside, children }) {
  return html`<section class="panel">
    ${title && html`<div class="panel-head"><h2>${title}</h2>
      ${aside && html`<div class="aside">${aside}</div>`}</div>`}
    ${children}</section>`;
}

/** Names and values. @param {{ of: [string, any, string?][] }} props value, and its tone */
export function Facts({ of }) {
  return html`<dl class="facts">${of.map(([name, value, mood]) => html`
    <div key=${name}><dt>${name}</dt><dd class=${mood ?? ""}>${value}</dd></div>`)}</dl>`;
}
