// The client of /api/v1. Paths are relative to that prefix: `get("status")`.
//
// An answer that is no success throws a Refusal with its HTTP status and its text. Status 401 also
// tells the session, so that the shell asks for the token.

const PATIENCE_MS = 10_000; // how long one answer may take
const TRIES_MAX = 6; // of a request that is one too many

/** Why a request has no answer; status 0 means that nobody answered. */
export class Refusal extends Error {
  /** @param {number} status @param {string} why */
  constructor(status, why) {
    super(why);
    this.status = status;
  }
}

/** @type {Set<() => void>} */
const unauthorized = new Set();

/** Calls back whenever a request was refused for want of the token. @param {() => void} told */
export function onUnauthorized(told) {
  unauthorized.add(told);
  return () => unauthorized.delete(told);
}

/** The address of a path. @param {string} path @param {Record<string, any>} [query] */
export function address(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== "");
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return `api/v1/${path}${text ? `?${text}` : ""}`;
}

/** @param {string} method @param {string} url @param {any} [body] */
async function ask(method, url, body) {
  /** @type {Record<string, string>} */
  const headers = body === undefined ? {} : { "content-type": "application/json" };
  const request = {
    method,
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
    signal: AbortSignal.timeout(PATIENCE_MS),
  };
  let answer;
  try {
    answer = await fetch(url, request);
  } catch (error) {
    const late = error instanceof DOMException && error.name === "TimeoutError";
    const why = late ? `no answer within ${PATIENCE_MS / 1000} s` : "nobody answers";
    throw new Refusal(0, why);
  }
  const text = await answer.text();
  let told;
  try {
    told = text ? JSON.parse(text) : null;
  } catch {
    throw new Refusal(answer.status, `the answer is no JSON (HTTP ${answer.status})`);
  }
  if (answer.ok) return told;
  if (answer.status === 401) unauthorized.forEach((tell) => tell());
  throw new Refusal(answer.status, told?.error ?? `HTTP ${answer.status}`);
}

/**
 * A process answers few requests at a time. One too many is asked again after a while of random
 * length, so that several pages do not come back at the same moment.
 * @param {string} path @param {Record<string, any>} [query]
 */
export async function get(path, query) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await ask("GET", address(path, query));
    } catch (error) {
      const full = error instanceof Refusal && error.status === 429;
      if (!full || tries === TRIES_MAX) throw error;
    }
    await new Promise((later) => { setTimeout(later, 200 + Math.random() * 600); });
  }
}
/** @param {string} path @param {any} [body] @param {Record<string, any>} [query] */
export const post = (path, body, query) => ask("POST", address(path, query), body);
/** @param {string} path */
export const remove = (path) => ask("DELETE", address(path));

/** A name as one part of a path. @param {string} name */
export const part = (name) => encodeURIComponent(name);
