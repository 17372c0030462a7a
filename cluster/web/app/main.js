// The shell: log-in, header, menu, keys, and the screen that the URL names.

import { get, onUnauthorized, post, remove } from "./part/api.js";
import { Badge, Failed, Loading, Stale } from "./part/state.js";
import { refresh, usePolled } from "./part/poll.js";
import { link, useRoute } from "./part/route.js";
import { html, render, useEffect, useRef, useState } from "./part/ui.js";
import { screens } from "./screen/registry.js";

const THEMES = ["system", "light", "dark"];
const KEEP = "tidemill-theme";

/** @param {{ told: () => void }} props */
function LogIn({ told }) {
  const [why, say] = useState("");
  const log = async (/** @type {any} */ event) => {
    event.preventDefault();
    const token = new FormData(event.target).get("token");
    try {
      await post("session", { token });
      told();
    } catch (error) {
      say(error instanceof Error ? error.message : String(error));
    }
  };
  return html`<main class="log-in"><form onSubmit=${log} class="panel">
    <h1>Tidemill</h1>
    <p>This control center needs the cluster's token (<code>TIDEMILL_TOKEN</code>).</p>
    <label for="token">Token</label>
    <input id="token" name="token" type="password" autocomplete="current-password" required
      aria-describedby="token-why" />
    <p id="token-why" role="alert" class=${why ? "note failed" : "unseen"}>${why}</p>
    <button type="submit" class="main">Log in</button></form></main>`;
}

/** The chosen theme, which the browser keeps. @returns {[string, () => void]} */
function useTheme() {
  const [theme, set] = useState(() => {
    try {
      return localStorage.getItem(KEEP) ?? "system";
    } catch {
      return "system";
    }
  });
  document.documentElement.dataset.theme = theme;
  const next = () => {
    const chosen = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    try {
      localStorage.setItem(KEEP, chosen);
    } catch {
      // The browser keeps nothing; the choice holds until the page is closed.
    }
    set(chosen);
  };
  return [theme, next];
}

/** `/` goes to the filter, `g` and a letter to a screen, `?` opens the list of keys. */
function useKeys(/** @type {any[]} */ shown, /** @type {string | null} */ job,
  /** @type {() => void} */ help) {
  useEffect(() => {
    let going = false;
    const pressed = (/** @type {KeyboardEvent} */ event) => {
      const target = /** @type {HTMLElement} */ (event.target);
      const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
      if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
      const found = going && shown.find((it) => it.key === event.key);
      going = event.key === "g";
      if (found) location.hash = link(found.of === "job" ? job : null, found.id);
      else if (event.key === "?") help();
      else if (event.key === "/") {
        const filter = /** @type {HTMLElement | null} */ (document.querySelector("[data-filter]"));
        filter?.focus();
        if (filter) event.preventDefault();
      }
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, [shown, job]);
}

/** @param {{ shown: any[], dialog: any }} props */
function Keys({ shown, dialog }) {
  return html`<dialog ref=${dialog} aria-label="Keys"><h2>Keys</h2><table><tbody>
    <tr><td><kbd>/</kbd></td><td>to the filter of the screen</td></tr>
    <tr><td><kbd>?</kbd></td><td>this list</td></tr>
    ${shown.map((it) => html`<tr key=${it.id}><td><kbd>g</kbd> <kbd>${it.key}</kbd></td>
      <td>${it.title}</td></tr>`)}</tbody></table>
    <button type="button" onClick=${() => dialog.current?.close()}>Close</button></dialog>`;
}

/** @param {{ of: any[], title: string, job: string | null, at: string }} props */
function Menu({ of, title, job, at }) {
  return html`<nav aria-label=${title}><h2>${title}</h2><ul>${of.map((it) => html`<li key=${it.id}>
    <a href=${link(job, it.id)} aria-current=${it.id === at ? "page" : undefined}>${it.title}</a>
    </li>`)}</ul></nav>`;
}

/** The job that is shown, others to choose, and how it is. */
function Chooser(/** @type {{ jobs: any[], job: string | null, screen: string }} */ props) {
  const { jobs, job, screen } = props;
  const chosen = jobs.find((it) => it.name === job);
  const go = (/** @type {any} */ event) => {
    const stays = screens.some((it) => it.id === screen && it.of === "job");
    location.hash = link(event.target.value, stays ? screen : "river");
  };
  if (jobs.length === 0) return null;
  return html`<label class="chooser"><span class="unseen">Job</span>
    <select value=${job ?? ""} onChange=${go}>
      ${!chosen && html`<option value=${job ?? ""} disabled>${job ?? "choose a job"}</option>`}
      ${jobs.map((it) => html`<option key=${it.name} value=${it.name}>${it.name}</option>`)}
    </select></label>${chosen && html`<${Badge} state=${chosen.state} />`}`;
}

/** @param {any[]} jobs */
function title(jobs, /** @type {boolean} */ away) {
  if (away) return "(away) Tidemill";
  const of = (/** @type {string} */ state) => jobs.filter((it) => it.state === state).length;
  const wrong = ["failed", "degraded"].filter(of).map((state) => `${of(state)} ${state}`);
  return wrong.length ? `(${wrong.join(", ")}) Tidemill` : "Tidemill";
}

/** @param {{ session: any, out: () => void }} props */
function Shell({ session, out }) {
  const route = useRoute();
  const [theme, nextTheme] = useTheme();
  const status = usePolled("summary");
  /** @type {{ current: any }} */
  const keys = useRef(null);
  const jobs = status.data?.jobs ?? [];
  // With one job, its screens are in the menu from the start.
  const job = route.job ?? (jobs.length === 1 ? jobs[0].name : null);
  const there = screens.filter((it) => it.when?.(session) ?? true);
  const shown = there.filter((it) => it.of === "cluster" || job !== null);
  const screen = there.find((it) => it.id === route.screen);
  useKeys(shown, job, () => keys.current?.showModal());
  document.title = title(jobs, status.error !== null);
  const of = screen?.of === "job" ? job : null;
  return html`
    <a class="skip" href="#main" onClick=${(/** @type {Event} */ event) => {
    event.preventDefault();
    document.getElementById("main")?.focus();
  }}>To the content</a>
    <header><a class="brand" href="#/jobs">Tidemill</a>
      <${Chooser} jobs=${jobs} job=${job} screen=${route.screen} />
      <span class="grow"></span>
      <span class="quiet version">${session.kind === "master" ? "master" : "run"}
        ${" "}${session.version}</span>
      <button type="button" onClick=${nextTheme} title="Theme">Theme: ${theme}</button>
      <button type="button" onClick=${() => keys.current?.showModal()}
        aria-label="Keys" title="Keys">?</button>
      ${session.token && html`<button type="button" onClick=${out}>Log out</button>`}
    </header>
    <div class="body"><div class="menus">
      ${job !== null && html`<${Menu} title=${job} job=${job} at=${route.screen}
        of=${there.filter((it) => it.of === "job")} />`}
      <${Menu} title=${session.kind === "master" ? "Cluster" : "Process"} job=${null}
        at=${route.screen} of=${there.filter((it) => it.of === "cluster")} /></div>
      <main id="main" tabindex="-1"><${Stale} polled=${status} />
        <h1 class="unseen">${screen ? `${screen.title}${of ? ` of ${of}` : ""}` : "Not found"}</h1>
        ${screen ? html`<${screen.view} key=${`${of}/${screen.id}`} job=${of} route=${route}
          session=${session} theme=${theme} />`
    : html`<${Failed} error=${new Error(`there is no screen “${route.screen}”`)} />`}
      </main></div><${Keys} shown=${shown} dialog=${keys} />`;
}

/** Asks for the session, logs in if it needs the token, then shows the shell. */
function App() {
  const [session, set] = useState(/** @type {any} */ (null));
  const [error, fail] = useState(/** @type {any} */ (null));
  const look = async () => {
    try {
      set(await get("session"));
      fail(null);
      refresh();
    } catch (why) {
      fail(why);
      setTimeout(look, 2000);
    }
  };
  useEffect(() => {
    look();
    const told = onUnauthorized(() => set((/** @type {any} */ now) => now
      && { ...now, authenticated: false }));
    return () => { told(); };
  }, []);
  const out = async () => {
    await remove("session");
    await look();
  };
  if (!session) return html`<main>${error ? html`<${Failed} error=${error} what="Tidemill" />`
    : html`<${Loading} what="the control center" />`}</main>`;
  if (!session.authenticated) return html`<${LogIn} told=${look} />`;
  return html`<${Shell} session=${session} out=${out} />`;
}

const root = /** @type {HTMLElement} */ (document.getElementById("app"));
root.replaceChildren();
render(html`<${App} />`, root);
