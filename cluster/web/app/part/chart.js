// A time series as a line chart. Times are in ms since 1970; a missing value is a gap, not 0.

import uPlot from "../vendor/uplot.mjs";
import { html, useEffect, useRef } from "./ui.js";

/** Steps of an axis of whole numbers. */
const WHOLE = [...Array(13).keys()].flatMap((n) => [1, 2, 5].map((it) => it * 10 ** n));

/** @typedef {{ label: string, values: (number | null)[], color: string }} Series */

/** The hours and minutes of a time; with seconds while the axis shows few minutes. */
function clocks(/** @type {any} */ _, /** @type {number[]} */ splits) {
  const fine = splits.length > 1 && splits[1] - splits[0] < 60;
  const part = (/** @type {number} */ n) => String(n).padStart(2, "0");
  return splits.map((it) => {
    const at = new Date(it * 1000);
    const minutes = `${part(at.getHours())}:${part(at.getMinutes())}`;
    return fine ? `${minutes}:${part(at.getSeconds())}` : minutes;
  });
}

/** The value of a colour of the theme. @param {string} name */
const themed = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/**
 * @param {{ format: (n: number) => string, whole?: boolean, series: Series[] }} of
 * @param {number} width @param {number} height
 */
function options({ format, whole, series }, width, height) {
  const axis = { stroke: themed("--quiet"), grid: { stroke: themed("--line"), width: 1 },
    ticks: { stroke: themed("--line"), width: 1 }, font: "12px system-ui, sans-serif" };
  const shown = (/** @type {any} */ _, /** @type {any} */ v) => (v === null ? "–" : format(v));
  const lines = series.map((it) => ({ label: it.label, stroke: themed(it.color), width: 1.5,
    value: shown, spanGaps: false, points: { show: false } }));
  return {
    width,
    height,
    cursor: { drag: { x: false, y: false } },
    scales: { y: { range: (/** @type {any} */ _, /** @type {number} */ low,
      /** @type {number} */ high) => [Math.min(0, low ?? 0), (high || 1) * 1.1] } },
    axes: [{ ...axis, values: clocks, space: 80 }, { ...axis, size: 70,
      ...(whole ? { incrs: WHOLE } : {}),
      values: (/** @type {any} */ _, /** @type {number[]} */ all) => all.map(format) }],
    series: [{ value: "{HH}:{mm}:{ss}" }, ...lines],
  };
}

/**
 * @param {{ label: string, times: number[], series: Series[], format: (n: number) => string,
 *   whole?: boolean, height?: number, theme?: string }} props
 * `whole` is for values that have no fractions.
 */
export function Chart({ label, times, series, format, whole, height = 220, theme }) {
  /** @type {{ current: any }} */
  const box = useRef(null);
  /** @type {{ current: any }} */
  const plot = useRef(null);
  const names = series.map((it) => it.label).join("|");
  const data = [times.map((ms) => ms / 1000), ...series.map((it) => it.values)];
  useEffect(() => {
    const width = () => Math.max(200, box.current.clientWidth);
    const chosen = options({ format, whole, series }, width(), height);
    plot.current = new uPlot(chosen, data, box.current);
    const sized = new ResizeObserver(() => plot.current?.setSize({ width: width(), height }));
    sized.observe(box.current);
    return () => {
      sized.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [names, height, theme]);
  useEffect(() => plot.current?.setData(data), [times, series]);
  const last = series.map((it) => {
    const value = it.values.at(-1);
    return `${it.label} ${value === null || value === undefined ? "unknown" : format(value)}`;
  });
  return html`<figure class="chart"><figcaption>${label}
    <span class="unseen">, newest values: ${last.join(", ")}</span></figcaption>
    <div class="plot" ref=${box}></div></figure>`;
}
