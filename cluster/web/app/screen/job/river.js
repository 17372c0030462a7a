// The river of a job as a picture: from the API to the tables of the views, with the rate and the
// lag at each edge. Red is where it holds up, and the sentence above says why.

import { bytes, count, duration, rate } from "../../part/format.js";
import { Graph } from "../../part/graph.js";
import { usePolled } from "../../part/poll.js";
import { link } from "../../part/route.js";
import { Badge, Facts, Loaded, Panel } from "../../part/state.js";
import { Table } from "../../part/table.js";
import { html } from "../../part/ui.js";
import { part } from "../../part/api.js";

const LATE_MS = 10_000; // a lag from which an edge is red

/** @param {any} job @param {string} name */
const dependency = (job, name) => job.dependencies.find((/** @type {any} */ it) =>
  it.dependency === name);

/**
 * The node of a service, which leads to a screen.
 * @param {any} job @param {string} name @param {string[]} lines @param {string} title
 * @param {string} screen
 */
function service(job, name, lines, title, screen) {
  const found = dependency(job, name);
  if (!found) return null;
  const mood = found.state === "up" ? "good" : found.state === "down" ? "bad" : "quiet";
  const place = found.at.replace(/^[a-z+]+:\/\//, "");
  return { id: name, title, mood, lines: [place, ...lines], href: link(job.name, screen) };
}

/** What the plan says of a view; before the plan is known, that it reads the log. */
function planOf(/** @type {any} */ job, /** @type {any} */ plan) {
  if (plan) return plan;
  const views = Object.keys(job.views).map((name) => ({ name, written: true, reads: [] }));
  return { sources: [], views };
}

/** @param {any} job */
function isLate(job) {
  return job.lag_ms > LATE_MS;
}

/** The rate of a topic, and how many of its records wait. */
function flowOf(/** @type {any} */ job, /** @type {any[]} */ told, /** @type {string} */ name,
  /** @type {boolean} */ alone) {
  const found = told.find((it) => it.name === name);
  const all = job.ingest ? job.ingest.published_per_second : job.records_per_second;
  const behind = job.behind_by_topic?.[name] ?? (alone ? job.behind : null);
  const known = job.behind !== null;
  return { rate: rate(found?.records_per_s ?? (alone ? all : null)),
    behind: known ? `${count(behind ?? 0)} behind` : "lag unknown" };
}

/** @param {any} job @param {any} told the plan @param {any[]} topicsTold */
function picture(job, told, topicsTold) {
  const plan = planOf(job, told);
  const ingest = job.ingest;
  const nodes = [
    service(job, "api", [], "API", "ingest"),
    service(job, "database", [], `Tables in ${dependency(job, "database")?.engine}`, "capture"),
    service(job, "slot", [], "Replication slot", "capture"),
  ].filter((it) => it !== null);
  /** @type {any[]} */
  const edges = nodes.slice(1).map((node, at) => ({ from: nodes[at].id, to: node.id,
    mood: nodes[at].mood === "bad" ? "bad" : "" }));
  const captured = nodes.at(-1)?.id;
  const log = dependency(job, "log");
  const topics = plan.sources.length ? [...new Set(plan.sources.map((/** @type {any} */ it) =>
    it.topic))] : ["the log"];
  if (ingest?.paused_ms) {
    const first = nodes.find((it) => it.id === "api") ?? nodes[0];
    const paused = "fetching is paused";
    if (first) Object.assign(first, { mood: "busy", lines: [...first.lines, paused] });
  }
  const held = ingest && !["running"].includes(ingest.state);
  for (const topic of topics) {
    const flow = flowOf(job, topicsTold, topic, topics.length === 1);
    nodes.push({ id: `topic ${topic}`, title: `Topic ${topic}`,
      mood: log?.state === "down" ? "bad" : "good",
      lines: [log?.engine ?? "log", ...(captured ? [] : [flow.rate])],
      href: link(job.name, "topics", { topic }) });
    if (captured) {
      edges.push({ from: captured, to: `topic ${topic}`, mood: held ? "bad" : "",
        label: flow.rate, title: ingest?.why ?? "" });
    }
  }
  const lagOf = (/** @type {string} */ name) => flowOf(job, topicsTold, name,
    topics.length === 1).behind;
  addViews(job, plan, nodes, edges, lagOf);
  return { nodes, edges };
}

/** Adds the views, what they read, and the sink. */
function addViews(/** @type {any} */ job, /** @type {any} */ plan, /** @type {any[]} */ nodes,
  /** @type {any[]} */ edges, /** @type {(name: string) => string} */ lagOf) {
  const late = isLate(job);
  const topic = new Map(plan.sources.map((/** @type {any} */ it) => [it.name, it.topic]));
  for (const view of plan.views) {
    const rows = job.views[view.name];
    nodes.push({ id: `view ${view.name}`, title: view.name, mood: late ? "busy" : "good",
      lines: [rows === undefined ? "rows unknown" : `${count(rows)} rows`],
      href: link(job.name, "views", { view: view.name }) });
    const from = view.reads.map((/** @type {any} */ it) => (it.kind === "view" ? `view ${it.name}`
      : `topic ${topic.get(it.name)}`));
    for (const source of new Set(from.length ? from : ["topic the log"])) {
      const first = edges.every((it) => it.from !== source || !it.label);
      const ofLog = String(source).startsWith("topic");
      const lag = lagOf(String(source).replace("topic ", ""));
      // Only what waits makes an edge late.
      const waits = late && ofLog && !lag.startsWith("0 ");
      edges.push({ from: source, to: `view ${view.name}`, mood: waits ? "bad" : "",
        label: first && ofLog ? lag : "", title: ofLog ? `the oldest change waits for ${
          duration(job.lag_ms)}` : "" });
    }
  }
  const sink = service(job, "views", [`p99 ${duration(job.freshness_p99_ms)}`], `Tables in ${
    dependency(job, "views")?.engine}`, "sink");
  if (!sink) return;
  nodes.push(sink);
  for (const view of plan.views.filter((/** @type {any} */ it) => it.written)) {
    edges.push({ from: `view ${view.name}`, to: "views", mood: sink.mood === "bad" ? "bad" : "" });
  }
}

/** The sentences that say what is wrong. @param {any} job */
export function reasons(job) {
  const all = job.why ? [job.why] : [];
  if (isLate(job)) {
    const waits = job.behind === null ? "nobody can tell how many records wait"
      : `${count(job.behind)} records wait`;
    all.push(`${waits}; the oldest change that is not readable has waited for ${
      duration(job.lag_ms)}`);
  }
  if (job.keys_in_error > 0) {
    all.push(`${count(job.keys_in_error)} keys are in error: their rows are in no view`);
  }
  if (job.dead_letters > 0) all.push(`${count(job.dead_letters)} dead letters since the start`);
  return all;
}

/** @type {import("../../part/table.js").Column[]} */
const SERVICES = [
  { id: "dependency", head: "Used as", of: (it) => it.dependency, fixed: true },
  { id: "engine", head: "Service", of: (it) => it.engine, fixed: true },
  { id: "state", head: "State", of: (it) => it.state, fixed: true,
    cell: (it) => html`<${Badge} state=${it.state} />` },
  { id: "for", head: "For", of: (it) => it.since_ms, fixed: true,
    cell: (it) => duration(Math.max(0, Date.now() - it.since_ms)) },
  { id: "at", head: "Address", of: (it) => it.at, fixed: true },
  { id: "error", head: "Last error", of: (it) => it.error ?? "", fixed: true },
];

/** The rules that fire, with the way to their screen. @param {{ job: string, rules: any[] }} props */
function Firing({ job, rules }) {
  const firing = rules.filter((it) => it.state === "firing").map((it) => it.name);
  if (firing.length === 0) return null;
  return html`<p class="note failed" role="alert"><a href=${link(job, "alerts")}>${
    firing.length === 1 ? "An alert fires" : `${firing.length} alerts fire`}</a>: ${
    firing.join(", ")}</p>`;
}

/** @param {{ job: any, plan: any, topics: any[], rules: any[] }} props */
function Shown({ job, plan, topics, rules }) {
  const { nodes, edges } = picture(job, plan, topics);
  const wrong = reasons(job);
  const serious = ["failed", "degraded"].includes(job.state) || isLate(job);
  const memory = job.operators.reduce((/** @type {number} */ sum, /** @type {any} */ it) =>
    sum + (it.bytes ?? 0), 0);
  return html`
    <${Firing} job=${job.name} rules=${rules} />
    ${wrong.map((it) => html`<p key=${it} class=${`note ${serious ? "failed" : "stale"}`}
      role=${serious ? "alert" : "status"}>${it}</p>`)}
    <${Panel} title=${html`${job.name} <${Badge} state=${job.state} />`}>
      <${Facts} of=${[
    ["Freshness p50 / p99",
      `${duration(job.freshness_p50_ms)} / ${duration(job.freshness_p99_ms)}`],
    ["Behind", job.behind === null ? "unknown" : `${count(job.behind)} records`,
      isLate(job) ? "bad" : ""],
    ["Read", rate(job.records_per_second)],
    ["Published", job.ingest ? rate(job.ingest.published_per_second) : "not of this cluster"],
    ["Dead letters", html`<a href=${link(job.name, "letters")}>${count(job.dead_letters)}</a>`,
      job.dead_letters ? "busy" : ""],
    ["Workers", job.workers === job.workers_wanted ? count(job.workers)
      : `${job.workers} of ${job.workers_wanted}`],
    ["State in memory", bytes(memory)],
    ["Generation", count(job.generation)],
  ]} />
    <//>
    <${Panel} title="The river"><${Graph} label="The river, from the API to the tables"
      nodes=${nodes} edges=${edges} /><//>
    <${Panel} title="Services"><${Table} label="Services" columns=${SERVICES}
      rows=${job.dependencies} rowKey=${(/** @type {any} */ it) => it.dependency}
      empty="No process of the job runs, so nobody knows its services." /><//>`;
}

/** @param {{ job: string }} props */
function River({ job }) {
  const polled = usePolled(`jobs/${part(job)}`);
  const plan = usePolled(`jobs/${part(job)}/plan`, 15_000);
  const topics = usePolled(`jobs/${part(job)}/topics`, 15_000);
  const alerts = usePolled(`jobs/${part(job)}/alerts`, 4000);
  return html`<${Loaded} polled=${polled} what="the pipeline">
    ${(/** @type {any} */ it) => html`<${Shown} job=${it} plan=${plan.data}
      topics=${topics.data?.topics ?? []} rules=${alerts.data?.rules ?? []} />`}<//>`;
}

export const screen = {
  id: "river", title: "Pipeline", key: "p", of: /** @type {const} */ ("job"), view: River,
};
