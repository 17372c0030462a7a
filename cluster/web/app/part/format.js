// Numbers, times and states in words.

const whole = new Intl.NumberFormat("en");
const tenth = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const known = (/** @type {any} */ n) => n !== null && n !== undefined && !Number.isNaN(n);

/** What is shown for a value that nobody knows. */
export const UNKNOWN = "–";

/** @param {any} n */
export const count = (n) => (known(n) ? whole.format(Math.round(n)) : UNKNOWN);
/** @param {any} n */
export const decimal = (n) => (known(n) ? tenth.format(n) : UNKNOWN);
/** @param {any} n */
export const rate = (n) => (known(n) ? `${tenth.format(n)}/s` : UNKNOWN);
/** @param {any} share of 1 */
export const percent = (share) => (known(share) ? `${tenth.format(share * 100)} %` : UNKNOWN);

/** @param {any} ms */
export function duration(ms) {
  if (!known(ms)) return UNKNOWN;
  if (ms < 1000) return `${count(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 100) return `${tenth.format(seconds)} s`;
  if (seconds < 6000) return `${count(seconds / 60)} min`;
  if (seconds < 172800) return `${count(seconds / 3600)} h`;
  return `${count(seconds / 86400)} days`;
}

/** @param {any} ms since it happened */
export const ago = (ms) => (known(ms) ? (ms < 1000 ? "now" : `${duration(ms)} ago`) : UNKNOWN);
/** @param {any} ms since 1970 */
export const clock = (ms) => (ms ? new Date(ms).toLocaleTimeString("en-GB") : UNKNOWN);
/** @param {any} ms since 1970 */
export const moment = (ms) => (ms ? new Date(ms).toLocaleString("en-GB") : UNKNOWN);

/** @param {any} n */
export function bytes(n) {
  if (!known(n)) return UNKNOWN;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let left = n;
  let at = 0;
  while (left >= 1024 && at < units.length - 1) {
    left /= 1024;
    at += 1;
  }
  return `${tenth.format(left)} ${units[at]}`;
}

/** The phase of a process, in words. @param {any} phase */
export function phase(phase) {
  if (typeof phase === "string") return phase;
  if (phase?.listening) return "listening";
  const exit = phase?.exited;
  if (!exit) return "unknown";
  if (exit.frozen) return "killed: frozen";
  if (known(exit.signal)) return `killed by signal ${exit.signal}`;
  return `ended with ${exit.code}`;
}

/** The tone of a state: good, busy, bad or quiet. @param {string} state */
export function tone(state) {
  if (["running", "up", "live", "ok", "landed"].includes(state)) return "good";
  if (["degraded", "failed", "down", "lost", "error"].includes(state)) return "bad";
  if (["stopped", "unknown", ""].includes(state)) return "quiet";
  return /^(killed|ended)/.test(state) ? "bad" : "busy";
}
