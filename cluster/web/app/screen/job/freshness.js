// Freshness over time: from a commit to its being readable in every view. All views of a job show
// the same epoch, so they have one freshness.

import { part } from "../../part/api.js";
import { Chart } from "../../part/chart.js";
import { count, duration, percent, rate } from "../../part/format.js";
import { usePolled } from "../../part/poll.js";
import { setQuery } from "../../part/route.js";
import { Facts, Loaded, Panel } from "../../part/state.js";
import { html, useMemo } from "../../part/ui.js";

const SPANS = [["10m", "10 minutes"], ["1h", "1 hour"], ["6h", "6 hours"], ["24h", "24 hours"]];
const HOURS = /** @type {Record<string, number>} */ ({ "1h": 1, "6h": 6, "24h": 24 });

/** A target such as 500ms, 2s or 1m, in ms; null when it is none. @param {string} text */
export function targetMs(text) {
  const found = /^(\d+(?:\.\d+)?)\s*(ms|s|m)$/.exec(text.trim());
  if (!found) return null;
  return Number(found[1]) * { ms: 1, s: 1000, m: 60_000 }[/** @type {"ms"} */ (found[2])];
}

/** The points of a span. @param {any} series @param {string} span */
function pointsOf(series, span) {
  if (!HOURS[span]) return series.fine;
  const last = series.coarse.at(-1)?.at_ms ?? 0;
  return series.coarse.filter((/** @type {any} */ it) => it.at_ms > last - HOURS[span] * 3_600_000);
}

/** @param {any[]} points @param {number | null} target */
function met(points, target) {
  const known = points.filter((it) => it.p99_ms !== null);
  if (target === null || known.length === 0) return null;
  return known.filter((it) => it.p99_ms <= target).length / known.length;
}

/** The target in ms: the one in the URL, else the limit of the pipeline's rule on freshness. */
function chosen(/** @type {any} */ route, /** @type {any} */ alerts) {
  if (route.query.target) return targetMs(route.query.target);
  const rule = alerts?.rules.find((/** @type {any} */ it) => it.measure === "freshness_p99");
  return rule ? rule.limit * 1000 : null;
}

/** @param {{ series: any, route: any, theme: string, target: number | null }} props */
function Charts({ series, route, theme, target }) {
  const span = route.query.span ?? "10m";
  const points = pointsOf(series, span);
  const shown = useMemo(() => {
    const of = (/** @type {string} */ name) => points.map((/** @type {any} */ it) => it[name]);
    const fresh = [
      { label: "p50", values: of("p50_ms"), color: "--one" },
      { label: "p99", values: of("p99_ms"), color: "--two" },
      { label: "p99.9", values: of("p999_ms"), color: "--three" },
    ];
    if (target !== null) {
      fresh.push({ label: "target", values: points.map(() => target), color: "--bad" });
    }
    return { times: of("at_ms"), fresh,
      behind: [{ label: "records", values: of("behind"), color: "--one" }],
      rates: [{ label: "read", values: of("records_per_second"), color: "--one" },
        { label: "published", values: of("published_per_second"), color: "--two" }] };
  }, [points.length, points.at(-1)?.at_ms, points.at(-1)?.samples, target, span]);
  const share = met(points, target);
  const last = points.at(-1) ?? {};
  return html`<${Facts} of=${[
    ["p50", duration(last.p50_ms)], ["p99", duration(last.p99_ms)],
    ["p99.9", duration(last.p999_ms)], ["Oldest change waits", duration(last.lag_ms)],
    ["Target for p99", target === null ? "none" : duration(target)],
    ["Within the target", target === null ? "no target" : percent(share),
      share !== null && share < 0.99 ? "bad" : ""],
  ]} />
  <p class="quiet">A gap is a time without a change. A point of a longer span is the worst of its
    minute.</p>
  <${Chart} label="Freshness: commit to readable" times=${shown.times} series=${shown.fresh}
    format=${duration} theme=${theme} height=${260} />
  <div class="columns"><${Chart} label="Records that are not in every view" times=${shown.times}
    series=${shown.behind} format=${count} whole theme=${theme} height=${180} />
  <${Chart} label="Records a second" times=${shown.times} series=${shown.rates} format=${rate}
    theme=${theme} height=${180} /></div>`;
}

/** @param {{ job: string, route: any, theme: string }} props */
function Freshness({ job, route, theme }) {
  const polled = usePolled(`jobs/${part(job)}/history`, 4000);
  const target = chosen(route, usePolled(`jobs/${part(job)}/alerts`, 4000).data);
  const span = route.query.span ?? "10m";
  const bad = route.query.target && targetMs(route.query.target) === null;
  const controls = html`<div class="row">
    <label>Span <select value=${span} onChange=${(/** @type {any} */ event) =>
    setQuery(route, { span: event.target.value })}>${SPANS.map(([id, name]) => html`
      <option key=${id} value=${id}>${name}</option>`)}</select></label>
    <label>Target for p99 <input size="6" placeholder="as set" value=${route.query.target ?? ""}
      data-filter aria-invalid=${bad ? "true" : "false"} onChange=${(/** @type {any} */ event) =>
    setQuery(route, { target: event.target.value })} /></label>
    ${bad && html`<span class="bad-text">A target is written as 500ms, 2s or 1m.</span>`}</div>`;
  return html`<${Panel} title="Freshness">${controls}
    <${Loaded} polled=${polled} what="the history" isEmpty=${(/** @type {any} */ it) =>
    it.fine.length === 0} empty="No sample yet. There is one every two seconds.">
      ${(/** @type {any} */ it) => html`<${Charts} series=${it} route=${route} theme=${theme}
        target=${target} />`}
    <//><//>`;
}

export const screen = {
  id: "freshness", title: "Freshness", key: "f", of: /** @type {const} */ ("job"),
  view: Freshness,
};
