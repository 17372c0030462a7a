// The address of what is shown: `#/jobs/NAME/SCREEN?query` or `#/SCREEN?query`. Every filter and
// selection of a screen is in the query, so a link shows the same again.

import { useEffect, useState } from "./ui.js";

/** @typedef {{ job: string | null, screen: string, query: Record<string, string> }} Route */

/** @param {string} hash @returns {Route} */
export function parse(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const parts = path.split("/").map((it) => {
    try {
      return decodeURIComponent(it);
    } catch {
      return it;
    }
  });
  const found = Object.fromEntries(new URLSearchParams(query));
  if (parts[0] === "jobs" && parts[1]) {
    return { job: parts[1], screen: parts[2] || "river", query: found };
  }
  return { job: null, screen: parts[0] || "jobs", query: found };
}

/**
 * The address of a screen.
 * @param {string | null} job @param {string} screen @param {Record<string, any>} [query]
 */
export function link(job, screen, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== "");
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  const path = job === null ? screen : `jobs/${encodeURIComponent(job)}/${screen}`;
  return `#/${path}${text ? `?${text}` : ""}`;
}

/** @returns {Route} */
export function useRoute() {
  const [route, set] = useState(() => parse(location.hash));
  useEffect(() => {
    const look = () => set(parse(location.hash));
    addEventListener("hashchange", look);
    return () => removeEventListener("hashchange", look);
  }, []);
  return route;
}

/**
 * Changes parts of the query without a new entry in the history; "" takes a part out.
 * @param {Route} route @param {Record<string, any>} change
 */
export function setQuery(route, change) {
  const next = link(route.job, route.screen, { ...route.query, ...change });
  history.replaceState(null, "", next);
  dispatchEvent(new HashChangeEvent("hashchange"));
}
