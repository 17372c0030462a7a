// Polling: `usePolled("status")` asks again and again and keeps the last answer.
//
// All components that poll the same path share one request. A hidden tab asks nothing. The result
// tells apart what a screen must show apart:
//
//   data    the last answer, or undefined before the first one
//   error   why the last request failed, or null
//   at      when the last answer came, in ms, or null
//
// `data` and `error` together mean stale: what is shown was true at `at`.

import { get } from "./api.js";
import { useEffect, useState } from "./ui.js";

/** @typedef {{ data: any, error: Error | null, at: number | null }} Polled */

const EVERY_MS = 2000;

/** @type {Map<string, Source>} */
const sources = new Map();
const nothing = { data: undefined, error: null, at: null };

class Source {
  /** @param {string} path @param {number} every */
  constructor(path, every) {
    this.path = path;
    this.every = every;
    /** @type {Polled} */
    this.polled = nothing;
    /** @type {Set<(polled: Polled) => void>} */
    this.told = new Set();
    this.timer = 0;
    this.asking = false;
  }

  async ask() {
    clearTimeout(this.timer);
    if (this.asking || this.told.size === 0) return;
    if (!document.hidden) {
      this.asking = true;
      try {
        this.polled = { data: await get(this.path), error: null, at: Date.now() };
      } catch (error) {
        const why = error instanceof Error ? error : new Error(String(error));
        this.polled = { ...this.polled, error: why };
      }
      this.asking = false;
      this.told.forEach((tell) => tell(this.polled));
    }
    if (this.told.size > 0) this.timer = window.setTimeout(() => this.ask(), this.every);
  }
}

/** Asks all paths again at once, for example after a command. */
export function refresh() {
  sources.forEach((source) => source.ask());
}
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });

/**
 * The newest answer of a path. `null` as the path asks nothing.
 * @param {string | null} path
 * @param {number} [every] ms between an answer and the next request
 * @returns {Polled}
 */
export function usePolled(path, every = EVERY_MS) {
  const [polled, set] = useState({ path, value: sources.get(path ?? "")?.polled ?? nothing });
  useEffect(() => {
    if (path === null) return undefined;
    const source = sources.get(path) ?? new Source(path, every);
    sources.set(path, source);
    const tell = (/** @type {Polled} */ value) => set({ path, value });
    source.told.add(tell);
    tell(source.polled);
    source.ask();
    return () => {
      source.told.delete(tell);
      if (source.told.size > 0) return;
      clearTimeout(source.timer);
      sources.delete(path);
    };
  }, [path, every]);
  // The answer of another path is not shown for this one.
  return polled.path === path ? polled.value : nothing;
}
